"""The server of the classic profile, sans-IO, with the hardening that the wire allows (protocol section 10)."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mp2p_core.classic import constants as c
from mp2p_core.classic.endpoint import ClassicEndpoint, ClassicReceived
from mp2p_core.classic.messages import (
    ClassicAddressDeclaration,
    ClassicSessionData,
    ClassicSessionInitiation,
)
from mp2p_core.classic.session import ClassicSession, agree_untrusted
from mp2p_core.errors import BadPacket
from mp2p_core.proto.addresses import may_answer_classic
from mp2p_core.proto.buckets import BucketTable, TokenBucket
from mp2p_core.proto.constants import ANSWER_RATE_ADDRESS, ANSWER_RATE_ALL
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mp2p_core.classic.identity import ClassicIdentity
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.responder import Access
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["ClassicServer"]

_Name: TypeAlias = tuple[bytes, bytes]
"""Session id and the peer's key. The id alone is no name: any peer can take one that it has seen."""


class _Answered(NamedTuple):
    """A session that was answered and not used yet."""

    session: ClassicSession
    initiation: ClassicSessionInitiation
    answer: bytes


class ClassicServer(ClassicEndpoint):
    """Remembers where peers listen, answers their initiations there, and takes their texts.

    A session is the application's once a text in it has been decrypted. Until then all that is sent to the
    address that a peer declared is one answer to each initiation, and of the same length: never more than
    came. Nothing is remembered of a message whose signature is wrong.
    """

    def __init__(
        self,
        identity: ClassicIdentity,
        access: Access,
        address: Address,
        *,
        max_datagram_size: int,
        now: float,
        random: RandomBytes = os.urandom,
        remember: int = c.REMEMBERED_NONCES,
    ) -> None:
        super().__init__(identity, address, max_datagram_size, random)
        self._access = access
        self._remember = remember
        self._remembered = 0
        # Attack: declarations under ever new keys. Bounded; the one unused for longest goes, and its owner
        # declares anew with its next initiation. Of one peer only the newest counts.
        self._declared: OrderedDict[bytes, ClassicAddressDeclaration] = OrderedDict()
        # Attack: initiations that are never followed by a text, recorded ones among them. Bounded; the oldest
        # goes.
        self._answered: OrderedDict[_Name, _Answered] = OrderedDict()
        # Attack: sessions without number, of one key or of many. Bounded, also for each key; the one unused
        # for longest goes. Whoever may connect with any number of keys can push out those who say little.
        self._used: OrderedDict[_Name, ClassicSession] = OrderedDict()
        # Of the two tables above. Attack: a peer that takes the session id of another. Bounded for each id.
        self._by_id: dict[bytes, list[ClassicSession]] = {}
        # Attack: signatures to check, at line rate. Each source has its share; a source can be made up, so a
        # flood of them is what keeps new sessions from being made. It harms none that are in use.
        self._signatures = TokenBucket(c.SIGNATURE_RATE, c.SIGNATURE_BURST, now)
        self._signatures_from = BucketTable.at_most(c.SIGNATURE_RATE_SOURCE)
        self._answers_to = BucketTable.at_most(ANSWER_RATE_ADDRESS)
        self._answers_all = TokenBucket.at_most(ANSWER_RATE_ALL, now)

    def sizes(self) -> Mapping[str, int]:
        """Return how many entries each table holds: all are bounded, whatever strangers do."""
        return {
            "answer-buckets": len(self._answers_to),
            "answered": len(self._answered),
            "declared": len(self._declared),
            "ids": len(self._by_id),
            "nonces": self._remembered,
            "source-buckets": len(self._signatures_from),
            "used": len(self._used),
        }

    def send(self, session: ClassicSession, text: bytes) -> None:
        """Send a text in a session; it may be lost. Raises `DatagramTooLarge`, or `Closed` once it has ended."""
        super().send(session, text)
        self._count_nonce()

    # --- declarations -----------------------------------------------------------------------------------

    def _declaration_untrusted(self, message: ClassicAddressDeclaration, path: Path, now: float) -> None:
        if self._declared.get(message.src) == message:
            self._declared.move_to_end(message.src)
            return
        if not may_answer_classic(message.address, path.local or self._address):
            raise BadPacket("classic-address")
        self._checked_untrusted(message, path, now)
        self._declared[message.src] = message
        self._declared.move_to_end(message.src)
        if len(self._declared) > c.MAX_DECLARED:
            self._declared.popitem(last=False)

    def _checked_untrusted(
        self, message: ClassicAddressDeclaration | ClassicSessionInitiation, path: Path, now: float
    ) -> PublicKey:
        """Return the sender of a signed message, who may connect."""
        if not (self._signatures_from.take(path.remote[4:], now) and self._signatures.take(now)):
            raise BadPacket("classic-rate")
        peer = message.validate()
        if not self._access.allows(peer):
            raise BadPacket("classic-not-allowed")
        return peer

    # --- initiations ------------------------------------------------------------------------------------

    def _initiation_untrusted(self, message: ClassicSessionInitiation, path: Path, now: float) -> None:
        if message.dst != self._identity.public.raw:
            raise BadPacket("classic-not-for-me")
        if (declared := self._declared.get(message.src)) is None:
            raise BadPacket("classic-address-unknown")  # whoever sent it repeats both messages
        name = message.session_id, message.src
        if name in self._used:
            raise BadPacket("classic-initiation-used")
        to = Path(declared.address, None, path.interface)
        known = self._answered.get(name)
        if known is not None and known.initiation == message:
            self._allow_answer(to.remote, now)
            known.session.path = to
            self._put(to, known.answer)
            return
        peer = self._checked_untrusted(message, path, now)
        if known is None and len(self._by_id.get(message.session_id, ())) >= c.MAX_SAME_ID:
            raise BadPacket("classic-session-id")
        self._allow_answer(to.remote, now)
        private = X25519PrivateKey.from_private_bytes(self._random(32))
        key = agree_untrusted(private, message.public)
        session = ClassicSession(
            peer, message.session_id, key, to, max_datagram_size=self._max_datagram_size, limit=self._remember
        )
        public = private.public_key().public_bytes_raw()
        answer = bytes(ClassicSessionInitiation.make(self._identity, message.session_id, peer, public))
        if known is not None:
            self._forget(known.session)
        self._answered[name] = _Answered(session, message, answer)
        self._by_id.setdefault(message.session_id, []).append(session)
        if len(self._answered) > c.MAX_ANSWERED:
            self._forget(next(iter(self._answered.values())).session)
        self._put(to, answer)

    def _allow_answer(self, to: Address, now: float) -> None:
        if not (self._answers_to.take(to, now) and self._answers_all.take(now)):
            raise BadPacket("classic-answer-rate")

    # --- texts ------------------------------------------------------------------------------------------

    def _data_untrusted(self, message: ClassicSessionData) -> None:
        reason = "classic-data-unknown"
        for session in self._by_id.get(message.session_id, ()):
            try:
                text = session.open_untrusted(message)
            except BadPacket as refusal:
                reason = str(refusal)
            else:
                break
        else:
            raise BadPacket(reason)
        self._use(session)
        self._events.append(ClassicReceived(session, text))
        self._count_nonce()

    def _use(self, session: ClassicSession) -> None:
        """Put a session whose peer has just proved to be there among those in use, as the newest."""
        name = session.session_id, session.peer.raw
        self._answered.pop(name, None)
        if name not in self._used:
            own = [each for each in self._used.values() if each.peer == session.peer]
            if len(own) >= c.MAX_SESSIONS_PER_KEY:
                self._end(own[0], "its peer has begun too many others")
            elif len(self._used) >= c.MAX_CLASSIC_SESSIONS:
                self._end(next(iter(self._used.values())), "other sessions needed its place")
        self._used[name] = session
        self._used.move_to_end(name)

    def _count_nonce(self) -> None:
        """Keep what all sessions remember together within bounds: the longest one ends."""
        self._remembered += 1
        if self._remembered >= self._remember:
            self._end(max(self._used.values(), key=lambda each: each.messages), "it has become too long")

    def _end(self, session: ClassicSession, reason: str) -> None:
        self._remembered -= session.messages
        self._forget(session)
        session.end(f"{reason}: the peer has to begin a new session")

    def _forget(self, session: ClassicSession) -> None:
        name = session.session_id, session.peer.raw
        self._answered.pop(name, None)
        self._used.pop(name, None)
        same = self._by_id[session.session_id]
        same.remove(session)
        if not same:
            del self._by_id[session.session_id]

    def sessions(self) -> Iterator[ClassicSession]:
        """Yield the sessions in use, the one unused for longest first."""
        return iter(list(self._used.values()))
