"""The client of the classic profile, sans-IO (protocol section 10)."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mp2p_core.classic import constants as c
from mp2p_core.classic.endpoint import ClassicEndpoint, ClassicReceived
from mp2p_core.classic.messages import (
    ClassicAddressDeclaration,
    ClassicSessionData,
    ClassicSessionInitiation,
)
from mp2p_core.classic.session import ClassicSession, agree_untrusted
from mp2p_core.errors import BadPacket, UsageError
from mp2p_core.proto.buckets import TokenBucket
from mp2p_core.proto.constants import INIT_JITTER
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from mp2p_core.classic.identity import ClassicIdentity
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["ClassicClient"]


class ClassicClient(ClassicEndpoint):
    """Calls one server: a declaration and an initiation, repeated until an answer comes.

    Each round has a session id and an X25519 key of its own. A server that answers a repeated initiation
    with another key, or not at all, is understood either way. `session` is None until the server has
    answered; it has proved its key then, and nothing is repeated any more.
    """

    def __init__(
        self,
        identity: ClassicIdentity,
        server: PublicKey,
        remote: Address,
        local: Address,
        *,
        max_datagram_size: int,
        now: float,
        random: RandomBytes = os.urandom,
    ) -> None:
        super().__init__(identity, local, max_datagram_size, random)
        if server == identity.public:
            raise UsageError(
                "this key is the client's own: name the server's key, or use another key file here"
            )
        self.session: ClassicSession | None = None
        self.stage = "nothing heard"
        """How far it got, as `PeerUnreachable` words it."""
        self._server = server
        self._remote = remote
        # Bounded: the server may never answer. Of the oldest round no answer is taken any more.
        self._rounds: OrderedDict[bytes, X25519PrivateKey] = OrderedDict()
        self._sent = 0
        self._next = now
        # Attack: forged answers with the session id that was seen in the initiation.
        self._signatures = TokenBucket.at_most(c.ANSWER_SIGNATURE_RATE, now)

    def timeout(self) -> float | None:
        """Return when the next round is due; None once the server has answered."""
        return self._next if self.session is None else None

    def handle_timeout(self, now: float) -> None:
        """Begin the next round if it is due."""
        if self.session is not None or now < self._next:
            return
        wait = c.ROUND_WAITS[min(self._sent, len(c.ROUND_WAITS) - 1)]
        self._sent += 1
        self._next = now + wait * (1 + INIT_JITTER * (int.from_bytes(self._random(2), "big") / 32767.5 - 1))
        session_id = self._random(16)
        private = self._rounds[session_id] = X25519PrivateKey.from_private_bytes(self._random(32))
        if len(self._rounds) > c.MAX_ROUNDS_OPEN:
            self._rounds.popitem(last=False)
        public = private.public_key().public_bytes_raw()
        to = Path(self._remote)
        self._put(to, bytes(ClassicAddressDeclaration.make(self._identity, self._address)))
        self._put(to, bytes(ClassicSessionInitiation.make(self._identity, session_id, self._server, public)))

    def _declaration_untrusted(self, _message: ClassicAddressDeclaration, _path: Path, _now: float) -> None:
        raise BadPacket("classic-declaration-at-client")

    def _initiation_untrusted(self, message: ClassicSessionInitiation, path: Path, now: float) -> None:
        private = self._rounds.get(message.session_id)
        if private is None:
            raise BadPacket("classic-answer-unknown")
        if message.src != self._server.raw or message.dst != self._identity.public.raw:
            raise BadPacket("classic-not-for-me")
        if not self._signatures.take(now):
            raise BadPacket("classic-rate")
        try:
            message.validate()
        except BadPacket:
            self.stage = "answered by another key"
            raise
        key = agree_untrusted(private, message.public)
        to = Path(self._remote, None, path.interface)
        self.session = ClassicSession(
            self._server, message.session_id, key, to, max_datagram_size=self._max_datagram_size
        )
        self._rounds.clear()

    def _data_untrusted(self, message: ClassicSessionData) -> None:
        if self.session is None or message.session_id != self.session.session_id:
            raise BadPacket("classic-data-unknown")
        self._events.append(ClassicReceived(self.session, self.session.open_untrusted(message)))
