"""An oracle over encryption: no key meets one nonce twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, Suite

if TYPE_CHECKING:
    from mp2p_core.proto.noise_suite import Aead

__all__ = ["NonceRecorder"]


class _RecordingAead:
    def __init__(self, recorder: NonceRecorder, key: bytes) -> None:
        self._recorder = recorder
        self._key = key
        self._aead = ChaCha20Poly1305(key)

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        self._recorder.note(self._key, nonce, data, associated_data)
        return self._aead.encrypt(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        return self._aead.decrypt(nonce, data, associated_data)


class NonceRecorder:
    """An oracle: no (key, nonce) seals two different plaintexts. Put its `suite` into endpoints."""

    def __init__(self) -> None:
        self._seen: dict[tuple[bytes, bytes], tuple[bytes, bytes | None]] = {}
        self.repeats = 0
        self.suite = Suite(CHACHAPOLY_SHA256.name, CHACHAPOLY_SHA256.hash_name, self._aead)

    def _aead(self, key: bytes) -> Aead:
        return _RecordingAead(self, key)

    def note(self, key: bytes, nonce: bytes, data: bytes, associated_data: bytes | None) -> None:
        """Take down one sealing."""
        if self._seen.setdefault((key, nonce), (data, associated_data)) != (data, associated_data):
            self.repeats += 1
