"""A session of the classic profile: one key, both ways (protocol section 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mp2p_core.classic.constants import MAX_MESSAGE_SIZE, REMEMBERED_NONCES, SESSION_DATA_OVERHEAD
from mp2p_core.classic.messages import ClassicSessionData
from mp2p_core.classic.nonces import NonceMemory
from mp2p_core.errors import BadPacket, Closed, DatagramTooLarge

if TYPE_CHECKING:
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.transport import Path, RandomBytes

__all__ = ["ClassicSession", "agree_untrusted"]


def agree_untrusted(private: X25519PrivateKey, public: bytes) -> bytes:
    """Return the session key for the key that a peer sent: what X25519 gives, with nothing done to it.

    Raises `BadPacket` for a key of small order: the result would be zero, which anybody knows.
    """
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise BadPacket("classic-exchange-zero") from None


class ClassicSession:
    """What two peers of the classic profile have in common. Not a version 1 session, and takes no part in one.

    Texts may be lost, and may arrive in any order; none arrives twice. There is no close: a session ends
    when its owner forgets it, and then `ended` says why.
    """

    __slots__ = ("_key", "_limit", "_nonces", "ended", "max_size", "path", "peer", "session_id")

    def __init__(
        self,
        peer: PublicKey,
        session_id: bytes,
        key: bytes,
        path: Path,
        *,
        max_datagram_size: int,
        limit: int = REMEMBERED_NONCES,
    ) -> None:
        self.peer = peer
        self.session_id = session_id
        self.path = path
        self.max_size = min(max_datagram_size, MAX_MESSAGE_SIZE) - SESSION_DATA_OVERHEAD
        """The longest text, in bytes, that one message holds."""
        self.ended: str | None = None
        self._key = key
        self._nonces = NonceMemory()
        self._limit = limit

    @property
    def messages(self) -> int:
        """Messages that have used the key, in both directions."""
        return len(self._nonces)

    def __repr__(self) -> str:
        return f"<ClassicSession {self.session_id.hex()} with {self.peer}>"

    def end(self, reason: str) -> None:
        """Use the key no more, for `reason`, and forget what was remembered for it."""
        self.ended = self.ended or reason
        self._nonces = NonceMemory()

    def seal(self, text: bytes, random: RandomBytes) -> bytes:
        """Encrypt a text into a datagram. Raises `DatagramTooLarge`, or `Closed` when the session has ended."""
        if len(text) > self.max_size:
            raise DatagramTooLarge(len(text), self.max_size)
        self._check_limit()
        if self.ended is not None:
            raise Closed(0, self.ended)
        nonce = random(12)
        if nonce in self._nonces:  # only from a broken source of randomness: then nothing more is safe
            self.ended = "a nonce came up twice: the random numbers of this machine cannot be trusted"
            raise Closed(0, self.ended)
        self._nonces.add(nonce)
        return bytes(ClassicSessionData.encrypt(self.session_id, self._key, nonce, text))

    def open_untrusted(self, message: ClassicSessionData) -> bytes:
        """Decrypt a text; raises `BadPacket`, and changes nothing, when it is a replay, or one of ours (row Y9)."""
        self._check_limit()
        if self.ended is not None:
            raise BadPacket("classic-data-ended")
        if message.nonce in self._nonces:
            raise BadPacket("classic-data-repeated")
        text = message.decrypt(self._key)
        self._nonces.add(message.nonce)
        return text

    def _check_limit(self) -> None:
        if len(self._nonces) >= self._limit:
            self.ended = (
                self.ended or "its key has been used as often as can be remembered: begin a new session"
            )
