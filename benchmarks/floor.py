"""The floor of setting up: what mp2p's handshake computes, over a plain UDP socket, without anything a protocol needs.

The same keys are drawn, the same eight key exchanges made, the same hashes and seals; nothing is checked, repeated,
bounded or timed, and no group is joined.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["KeyPair", "answer_forever", "set_up"]

_NONCE = bytes(12)
_INIT, _RESP = bytes(96), bytes(80)
_KEY, _SEALED_KEY = 32, 48


class KeyPair:
    """An X25519 key pair."""

    def __init__(self, private: bytes) -> None:
        self.private = X25519PrivateKey.from_private_bytes(private)
        self.public = self.private.public_key().public_bytes_raw()


def _identity() -> KeyPair:
    seed = os.urandom(32)
    Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return KeyPair(hashlib.sha512(seed).digest()[:32])


class _Handshake:
    """Noise IK, in the order in which its two messages need it."""

    def __init__(self, responder: bytes) -> None:
        self._chain = self._hash = b"Noise_IK_25519_ChaChaPoly_SHA256"
        self._key = b""
        self.mix(responder)

    def mix(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def exchange(self, pair: KeyPair, public: bytes) -> None:
        self._chain, self._key = self._derive(
            pair.private.exchange(X25519PublicKey.from_public_bytes(public))
        )

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        key = hmac.digest(self._chain, secret, "sha256")
        first = hmac.digest(key, b"\1", "sha256")
        return first, hmac.digest(key, first + b"\2", "sha256")

    def seal(self, data: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self._key).encrypt(_NONCE, data, self._hash)
        self.mix(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        data = ChaCha20Poly1305(self._key).decrypt(_NONCE, sealed, self._hash)
        self.mix(sealed)
        return data

    def split(self) -> tuple[ChaCha20Poly1305, ChaCha20Poly1305]:
        first, second = self._derive(b"")
        return ChaCha20Poly1305(first), ChaCha20Poly1305(second)


async def answer_forever(sock: socket.socket, own: KeyPair) -> None:
    """Answer handshakes, and the one message that follows each."""
    ciphers: dict[object, tuple[ChaCha20Poly1305, ChaCha20Poly1305]] = {}
    while True:
        await anyio.wait_readable(sock)
        datagram, source = sock.recvfrom(65535)
        if (pair := ciphers.pop(source, None)) is not None:
            opens, seals = pair
            sock.sendto(seals.encrypt(_NONCE, opens.decrypt(_NONCE, datagram, b""), b""), source)
            continue
        handshake, theirs = _Handshake(own.public), datagram[:_KEY]
        handshake.mix(theirs)
        handshake.exchange(own, theirs)
        static = handshake.open(datagram[_KEY : _KEY + _SEALED_KEY])
        handshake.exchange(own, static)
        handshake.open(datagram[_KEY + _SEALED_KEY :])
        fresh = KeyPair(os.urandom(32))
        handshake.mix(fresh.public)
        handshake.exchange(fresh, theirs)
        handshake.exchange(fresh, static)
        sock.sendto(fresh.public + handshake.seal(_RESP), source)
        ciphers[source] = handshake.split()


async def set_up(host: str, port: int, responder: bytes) -> None:
    """Draw a key, shake hands, send one message and receive it back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        own, fresh = _identity(), KeyPair(os.urandom(32))
        sock.setblocking(False)
        sock.connect((host, port))
        handshake = _Handshake(responder)
        handshake.mix(fresh.public)
        handshake.exchange(fresh, responder)
        init = fresh.public + handshake.seal(own.public)
        handshake.exchange(own, responder)
        sock.send(init + handshake.seal(_INIT))
        await anyio.wait_readable(sock)
        resp = sock.recv(65535)
        handshake.mix(resp[:_KEY])
        handshake.exchange(fresh, resp[:_KEY])
        handshake.exchange(own, resp[:_KEY])
        handshake.open(resp[_KEY:])
        seals, opens = handshake.split()
        sock.send(seals.encrypt(_NONCE, b"first", b""))
        await anyio.wait_readable(sock)
        assert opens.decrypt(_NONCE, sock.recv(65535), b"") == b"first"
