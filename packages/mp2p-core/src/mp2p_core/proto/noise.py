"""The Noise Protocol Framework, revision 34, for 25519 and at most one PSK (protocol section 4).

Interface: `HandshakeState(pattern, initiator=, prologue=, s=, rs=, e=, psk=, suite=)` with
`write_message(payload, e_private)`, `read_message_untrusted(message)`, or in two steps
`read_start_untrusted(message, until="s")` and `read_finish_untrusted()`; then `.split()`, `.handshake_hash`,
`.remote_static`; `.copy()` before reading what may be forged.

Names and rules are those of the Noise specification (noiseprotocol.org). Everything cryptographic comes from
an injected `noise_suite.Suite`, so that a test may count key exchanges or record nonces.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

from cryptography.exceptions import InvalidTag

from mp2p_core.errors import BadPacket, UsageError
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256

if TYPE_CHECKING:
    from mp2p_core.proto.noise_suite import Aead, KeyPair, Suite

__all__ = [
    "IK",
    "CipherState",
    "HandshakeState",
    "IKpsk2",
    "Pattern",
    "Secret",
    "SymmetricState",
    "check_psk",
]

# Specification constants
DH_SIZE: Final = 32
TAG_SIZE: Final = 16
MAX_MESSAGE_SIZE: Final = 65535
MAX_NONCE: Final = 2**64 - 1  # reserved for rekey, never used


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A handshake pattern: what each side knows of the other beforehand, and the tokens of each message."""

    name: str
    messages: tuple[tuple[str, ...], ...]
    initiator_pre: tuple[str, ...] = ()
    responder_pre: tuple[str, ...] = ()


IK: Final = Pattern("IK", (("e", "es", "s", "ss"), ("e", "ee", "se")), responder_pre=("s",))
IKpsk2: Final = Pattern("IKpsk2", (("e", "es", "s", "ss"), ("e", "ee", "se", "psk")), responder_pre=("s",))


class Secret:
    """Refuses pickling: it would leave keys where nobody looks for them."""

    __slots__: tuple[str, ...] = ()

    def _copy(self, **replaced: object) -> Self:
        other = type(self).__new__(type(self))
        for name in self.__slots__:
            setattr(other, name, replaced[name] if name in replaced else getattr(self, name))
        return other

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be pickled")


class CipherState(Secret):
    """A key and its counter (Noise, section 5.1). Without a key it passes data through."""

    __slots__ = ("_aead", "_key", "_n", "_suite")

    def __init__(self, suite: Suite, key: bytes | None = None, n: int = 0) -> None:
        self._suite = suite
        self._aead: Aead | None = None
        self._key = key
        self._n = n

    def has_key(self) -> bool:
        """Tell whether there is a key, so that data is sealed."""
        return self._key is not None

    def _cipher(self, key: bytes) -> Aead:
        # Made on first use: of the two keys that RESP passes through, one seals nothing.
        if self._aead is None:
            self._aead = self._suite.aead(key)
        if self._n >= MAX_NONCE:
            raise UsageError("this key has used all of its nonces: begin a new handshake")
        return self._aead

    def encrypt_with_ad(self, ad: bytes, plaintext: bytes) -> bytes:
        """Seal the plaintext, or return it as it is when there is no key."""
        if self._key is None:
            return plaintext
        sealed = self._cipher(self._key).encrypt(self._suite.nonce(self._n), plaintext, ad)
        self._n += 1
        return sealed

    def decrypt_with_ad_untrusted(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Open the ciphertext; the counter moves only when it verifies. Raises `BadPacket`."""
        if self._key is None:
            return ciphertext
        try:
            plaintext = self._cipher(self._key).decrypt(self._suite.nonce(self._n), ciphertext, ad)
        except InvalidTag:
            raise BadPacket("a handshake message does not verify") from None
        self._n += 1
        return plaintext

    def copy(self) -> Self:
        """Return an independent copy."""
        return self._copy()


class SymmetricState(Secret):
    """The chaining key, the transcript hash and the cipher under way (Noise, section 5.2)."""

    __slots__ = ("_ck", "_hash", "_suite", "cipher", "h")

    def __init__(self, suite: Suite, protocol_name: bytes) -> None:
        self._suite = suite
        # Typed as Any because hashlib has no public type for its constructors.
        self._hash: Any = getattr(hashlib, suite.hash_name)
        size = self._hash().digest_size
        self.h: bytes = (
            protocol_name.ljust(size, b"\0")
            if len(protocol_name) <= size
            else self._hash(protocol_name).digest()
        )
        self._ck = self.h
        self.cipher = CipherState(suite)

    def _hkdf(self, material: bytes, outputs: int) -> list[bytes]:
        name = self._suite.hash_name
        key, last, result = hmac.digest(self._ck, material, name), b"", []
        for number in range(1, outputs + 1):
            last = hmac.digest(key, last + bytes((number,)), name)
            result.append(last)
        return result

    def mix_key(self, material: bytes) -> None:
        """Move on to a new chaining key and a new cipher."""
        self._ck, key = self._hkdf(material, 2)
        self.cipher = CipherState(self._suite, key[:32])

    def mix_hash(self, data: bytes) -> None:
        """Add data to the transcript."""
        self.h = self._hash(self.h + data).digest()

    def mix_key_and_hash(self, material: bytes) -> None:
        """Add a pre-shared key (Noise, section 9)."""
        self._ck, data, key = self._hkdf(material, 3)
        self.mix_hash(data)
        self.cipher = CipherState(self._suite, key[:32])

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        """Seal under the transcript so far, then add the result to it."""
        sealed = self.cipher.encrypt_with_ad(self.h, plaintext)
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash_untrusted(self, ciphertext: bytes) -> bytes:
        """Open under the transcript so far, then add the ciphertext to it. Raises `BadPacket`."""
        plaintext = self.cipher.decrypt_with_ad_untrusted(self.h, ciphertext)
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys: the initiator's for sending, then the responder's."""
        first, second = self._hkdf(b"", 2)
        return first[:32], second[:32]

    def copy(self) -> Self:
        """Return an independent copy."""
        return self._copy(cipher=self.cipher.copy())


def check_psk(psk: bytes | None) -> None:
    """Raise `UsageError` for a pre-shared key that is not of 32 bytes."""
    if psk is not None and len(psk) != 32:
        raise UsageError(f"a pre-shared key has 32 bytes, and this has {len(psk)}")


class HandshakeState(Secret):
    """One side of one handshake (Noise, section 5.3).

    `s` is our static key, `rs` the peer's static public key (32 bytes) where the pattern has it known
    beforehand, `e` our ephemeral private key (32 bytes) unless `write_message` is given it, `psk` 32 bytes.
    Messages are read and written in turn; a call out of turn raises `UsageError`. After `BadPacket` the
    state is dead: read what may be forged into a `copy`.
    """

    __slots__ = (
        "_e", "_initiator", "_pattern", "_psk", "_re", "_reading", "_rs", "_s", "_suite",
        "_symmetric", "_turn",
    )  # fmt: skip

    def __init__(
        self,
        pattern: Pattern,
        *,
        initiator: bool,
        prologue: bytes,
        s: KeyPair | None = None,
        rs: bytes | None = None,
        e: bytes | None = None,
        psk: bytes | None = None,
        suite: Suite = CHACHAPOLY_SHA256,
    ) -> None:
        check_psk(psk)
        if (psk is not None) != any("psk" in tokens for tokens in pattern.messages):
            raise UsageError(
                f"pattern {pattern.name} {'needs a' if psk is None else 'has no'} pre-shared key"
            )
        self._pattern, self._initiator, self._suite = pattern, initiator, suite
        self._s, self._rs, self._psk = s, rs, psk
        self._e = suite.key_pair(e) if e is not None else None
        self._re: bytes | None = None
        self._turn = 0
        self._reading: tuple[tuple[str, ...], bytes] | None = None
        self._symmetric = SymmetricState(suite, f"Noise_{pattern.name}_{suite.name}".encode("ascii"))
        self._symmetric.mix_hash(prologue)
        for ours, tokens in ((initiator, pattern.initiator_pre), (not initiator, pattern.responder_pre)):
            for _ in tokens:
                self._symmetric.mix_hash(
                    _need(self._s, "a static key").dh_public
                    if ours
                    else _need(self._rs, "the peer's static key")
                )

    @property
    def handshake_hash(self) -> bytes:
        """The transcript so far; after the last message, the value both sides agree on."""
        return self._symmetric.h

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static public key, 32 bytes, once known. Verified only by later messages."""
        return self._rs

    @property
    def finished(self) -> bool:
        """Whether every message was written or read, so that `split` may be called."""
        return self._turn == len(self._pattern.messages)

    def write_message(self, payload: bytes, e_private: bytes | None = None) -> bytes:
        """Write the next message.

        `e_private` is the ephemeral private key, 32 fresh random bytes, for the message that sends it; one
        used before breaks the handshake's secrecy. Raises `UsageError` out of turn or without a key that
        the pattern needs, and `BadPacket` when the peer's key turns out to be of small order (in IK and
        IKpsk2 it cannot: reading, and `PublicKey`, refused it before).
        """
        tokens = self._begin(writing=True)
        if e_private is not None:
            self._e = self._suite.key_pair(e_private)
        out = []
        for token in tokens:
            match token:
                case "e":
                    public = _need(self._e, "an ephemeral key").dh_public
                    out.append(public)
                    self._mix_ephemeral(public)
                case "s":
                    out.append(self._symmetric.encrypt_and_hash(_need(self._s, "a static key").dh_public))
                case _:
                    self._mix_secret_untrusted(token)
        out.append(self._symmetric.encrypt_and_hash(payload))
        message = b"".join(out)
        if len(message) > MAX_MESSAGE_SIZE:
            raise UsageError(f"a handshake message of {len(message)} bytes: at most {MAX_MESSAGE_SIZE} fit")
        self._turn = -self._turn
        return message

    def read_message_untrusted(self, message: bytes) -> bytes:
        """Read the next message whole and return its payload. Raises `BadPacket`."""
        self.read_start_untrusted(message)
        return self.read_finish_untrusted()

    def read_start_untrusted(self, message: bytes, until: str | None = None) -> None:
        """Read the next message up to and including a token; by default, up to its payload.

        With `until="s"` a responder of IK stops after one key exchange, knows who claims to be calling
        (`remote_static`), and may drop the caller before paying for the second. Go on with
        `read_finish_untrusted`, or drop the state. Raises `BadPacket`.
        """
        tokens = self._begin(writing=False)
        if len(message) > MAX_MESSAGE_SIZE:
            raise BadPacket("a handshake message is too long")
        if until is not None and until not in tokens:
            raise UsageError(f"the next message of {self._pattern.name} has no {until!r} to read up to")
        stop = len(tokens) if until is None else tokens.index(until) + 1
        rest = self._read_tokens_untrusted(tokens[:stop], message)
        self._reading = tokens[stop:], rest

    def read_finish_untrusted(self) -> bytes:
        """Read what `read_start_untrusted` left and return the payload. Raises `BadPacket`."""
        if self._reading is None:
            raise UsageError("no handshake message is being read: call read_start_untrusted first")
        (tokens, rest), self._reading = self._reading, None
        rest = self._read_tokens_untrusted(tokens, rest)
        payload = self._symmetric.decrypt_and_hash_untrusted(rest)
        self._turn = -self._turn
        return payload

    def split(self) -> tuple[bytes, bytes]:
        """Return the initiator's and the responder's sending keys, 32 bytes each.

        Raises `UsageError` before the last message.
        """
        if not self.finished:
            raise UsageError("this handshake has not finished: it has no keys yet")
        return self._symmetric.split()

    def copy(self) -> Self:
        """Return an independent copy, to read into what may be forged."""
        return self._copy(_symmetric=self._symmetric.copy())

    def _begin(self, *, writing: bool) -> tuple[str, ...]:
        """Return the tokens of the next message, and leave the state dead until the message is complete."""
        turn = self._turn
        if turn < 0 or self.finished or writing != (self._initiator == (turn % 2 == 0)):
            raise UsageError(
                f"out of turn: this handshake cannot {'write' if writing else 'read'} a message now"
            )
        self._turn = -(turn + 1)
        return self._pattern.messages[turn]

    def _read_tokens_untrusted(self, tokens: tuple[str, ...], rest: bytes) -> bytes:
        for token in tokens:
            match token:
                case "e":
                    self._re, rest = _cut_untrusted(rest, DH_SIZE)
                    self._mix_ephemeral(self._re)
                case "s":
                    size = DH_SIZE + TAG_SIZE if self._symmetric.cipher.has_key() else DH_SIZE
                    sealed, rest = _cut_untrusted(rest, size)
                    self._rs = self._symmetric.decrypt_and_hash_untrusted(sealed)
                case _:
                    self._mix_secret_untrusted(token)
        return rest

    def _mix_ephemeral(self, public: bytes) -> None:
        self._symmetric.mix_hash(public)
        if self._psk is not None:  # Noise, section 9.2
            self._symmetric.mix_key(public)

    def _mix_secret_untrusted(self, token: str) -> None:
        """Mix in the pre-shared key, or the key exchange that two letters name: initiator's, responder's."""
        if len(token) != 2:
            self._symmetric.mix_key_and_hash(_need(self._psk, "a pre-shared key"))
            return
        ours, theirs = (token[0], token[1]) if self._initiator else (token[1], token[0])
        pair = _need(self._e, "an ephemeral key") if ours == "e" else _need(self._s, "a static key")
        public = _need(self._re if theirs == "e" else self._rs, "the peer's key")
        try:
            shared = self._suite.dh(pair, public)
        except ValueError:
            raise BadPacket("the peer's key is of small order") from None
        self._symmetric.mix_key(shared)


def _need(value: T | None, what: str) -> T:
    if value is None:
        raise UsageError(f"this handshake pattern needs {what}: pass it to HandshakeState")
    return value


def _cut_untrusted(data: bytes, size: int) -> tuple[bytes, bytes]:
    if len(data) < size:
        raise BadPacket("a handshake message is too short")
    return data[:size], data[size:]
