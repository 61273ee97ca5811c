"""The initiator's half of the handshake (docs/protocol.md, section 4).

A `Dial` is one wish to connect. It has an `Attempt` for each address that is tried (the same peer over
IPv4 and IPv6, say), because each names another return address and so is another handshake. The first
RESP that verifies wins.
"""

from __future__ import annotations

import enum
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.buckets import BucketTable, TokenBucket
from mp2p_core.proto.cookies import keyed_hash, mac1_for, open_cookie_untrusted
from mp2p_core.proto.epoch import SessionKeys
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from mp2p_core.proto.handshake import Handshake
    from mp2p_core.proto.identity import Identity, PublicKey
    from mp2p_core.proto.noise import HandshakeState
    from mp2p_core.proto.session import Session
    from mp2p_core.proto.target import Target
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["Answered", "Attempt", "Dial", "Outgoing", "Stage"]

_ROUND_ENDS: Final = len(c.INIT_SCHEDULE)
_STATUS_TEXT: Final = {
    c.STATUS_BUSY: "busy: it has as many sessions as it takes",
    c.STATUS_VERSION: "no common version",
}


class Stage(enum.IntEnum):
    """How far a dial got. The order is that of progress."""

    NOTHING_HEARD = 0
    COOKIE = 1
    ANOTHER_KEY = 2
    ANSWERED = 3

    @property
    def text(self) -> str:
        """Word it for an error message."""
        return ("nothing heard", "cookie", "answered by another key", "answered")[self]


class Outgoing(NamedTuple):
    """A datagram for a channel."""

    channel: int
    path: Path
    datagram: bytes


class Answered(NamedTuple):
    """A RESP that verified."""

    attempt: Attempt
    payload: wire.RespPayload
    keys: SessionKeys
    rtt: float | None
    downgraded: bool = False

    @property
    def refusal(self) -> str | None:
        """Why the peer, who proved its key, does not want this session, or may not have it; None when it does.

        Both sides name the highest version they speak where nobody can change it. When that is a later one
        than this handshake's, somebody kept them from using it (row D3).
        """
        if self.downgraded:
            return "downgrade: both sides speak a later version, and something kept them from using it"
        status = self.payload.status
        return None if status == c.STATUS_OK else _STATUS_TEXT.get(status, f"status {status}")


class Attempt:
    """INITs to one target: the schedule, the cookie, and the handshake state that waits for a RESP."""

    __slots__ = ("_cookie", "_hint", "_hurried", "_init", "_kept", "_noise", "_repeat", "_sent_at", "_sent_once",
                 "may_cross", "next_send", "or_new", "receive_id", "target", "timestamp", "token")  # fmt: skip

    def __init__(self, target: Target, start: float, *, token: bytes | None = None) -> None:
        self.target = target
        self.token = token
        """Names the connection that the handshake is to give new keys; None asks for a new connection."""
        self.or_new = False
        """Whether a peer that does not know that connection is to begin a new one."""
        self.receive_id = b""
        self.timestamp = 0
        self.may_cross = False
        """Whether its INIT says that it may have crossed one of the peer's (row H10)."""
        self.next_send = start
        self._repeat = 0
        self._init = b""
        self._cookie: bytes | None = None
        self._hint: Address | None = None
        self._kept = False
        self._hurried = False
        self._noise: HandshakeState | None = None
        self._sent_at = start
        self._sent_once = False

    def send(self, dial: Dial, now: float) -> Outgoing:
        """Return the INIT that is due and plan the next one."""
        first_of_search = dial.or_new and not self.or_new
        if self._noise is None or self._repeat == (c.SEARCH_ROUND if first_of_search else _ROUND_ENDS):
            self._begin_round(dial, now)
        self._sent_once = self._repeat == 0
        self._repeat += 1
        self._sent_at = now
        if self._repeat < _ROUND_ENDS:
            wait = c.INIT_SCHEDULE[self._repeat] - c.INIT_SCHEDULE[self._repeat - 1]
        else:
            wait = c.INIT_ROUND - c.INIT_SCHEDULE[-1]
        self.next_send = now + wait * dial.jitter()
        return self._packet()

    def _packet(self) -> Outgoing:
        mac2 = bytes(16) if self._cookie is None else keyed_hash(self._cookie, self._init, 16)
        return Outgoing(self.target.channel, Path(self.target.address), self._init + mac2)

    def _begin_round(self, dial: Dial, now: float) -> None:
        """Make a fresh INIT."""
        if self._noise is not None:
            self._choose_hint()
            # Not before a first round without: of two processes with one identity, the one that knows the
            # connection has the first word.
            self.or_new = dial.or_new
        self.receive_id = dial.random(8)
        self._repeat = 0
        self._hurried = False
        header = wire.init_header(self.receive_id, self._hint, dial.handshake.number)
        self._noise = dial.handshake.begin(
            initiator=True, responder=dial.peer.raw, header=header, s=dial.identity, rs=dial.peer.x25519
        )
        self.timestamp = dial.timestamp(now)
        self.may_cross = dial.may_cross
        payload = wire.InitPayload(
            key=dial.identity.public.raw, timestamp=self.timestamp, return_address=self.target.return_address,
            capabilities=c.CAPABILITY_PARTS, max_payload=self.target.max_payload, version=dial.version,
            continues=self.token is not None, token=self.token or bytes(16), may_cross=self.may_cross,
            or_new=self.or_new,
        )  # fmt: skip
        body = header + self._noise.write_message(payload.pack(), dial.random(32))
        self._init = body + dial.mac1(body)

    def _choose_hint(self) -> None:
        """Decide where cookies for the next round are to go: to the source as in the first, or to the hint.

        A cookie is bound to the hint it was asked for with, so both are kept or neither. They are kept once:
        a forged COOKIE in each round must not keep this side from ever trying the other way.
        """
        if self._hurried and not self._kept:
            self._kept = True
            return
        self._kept = False
        self._cookie = None
        to_hint = self._hint is None and self.target.return_address != wire.NO_ADDRESS
        self._hint = self.target.return_address if to_hint else None

    def read_cookie_untrusted(self, cookie: wire.CookieHeader, dial: Dial) -> Outgoing | None:
        """Take a COOKIE; returns an INIT to send at once, the first time.

        A forged one (row F5) costs one INIT with a wrong mac2; a genuine one later replaces it.
        """
        self._cookie = open_cookie_untrusted(cookie, dial.peer.raw, self._init[wire.INIT_MAC1])
        if self._hurried:
            return None
        self._hurried = True
        self._sent_once = False
        return self._packet()

    def read_resp_untrusted(self, datagram: bytes, dial: Dial, now: float) -> Answered:
        """Verify a RESP on a copy of the handshake, so that a forged one spoils nothing (row H3)."""
        assert self._noise is not None
        noise = self._noise.copy()
        payload = wire.parse_resp_payload_untrusted(noise.read_message_untrusted(datagram[wire.RESP_NOISE]))
        send, receive = noise.split()
        aead = dial.handshake.suite.aead
        keys = SessionKeys(aead(send), aead(receive), noise.handshake_hash, payload.token)
        rtt = now - self._sent_at if self._sent_once else None
        return Answered(self, payload, keys, rtt, min(dial.version, payload.version) > c.HANDSHAKE_VERSION)


class Dial:
    """One wish to connect to one peer."""

    __slots__ = ("_dh", "_dh_by_source", "_mac1_own", "_timestamp", "attempts", "began", "deadline", "handshake",
                 "identity", "mac1", "may_cross", "number", "or_new", "peer", "queued", "random", "session", "stage",
                 "version")  # fmt: skip

    def __init__(
        self, number: int, identity: Identity, peer: PublicKey, targets: list[Target], *, timestamp: int,
        random: RandomBytes, handshake: Handshake, timeout: float, now: float, session: Session | None = None,
        or_new: bool = False, version: int = c.VERSION,
    ) -> None:  # fmt: skip
        self.session = session
        """The session that is to get new keys; None for a new connection."""
        self.or_new = or_new
        """Whether, after a first round, a new connection will do as well: the peer may have lost its memory."""
        self.number = number
        self.identity = identity
        self.peer = peer
        self.random = random
        self.handshake = handshake
        self.version = version
        self.began = now
        self.deadline = now + timeout
        self.stage = Stage.NOTHING_HEARD
        self.queued: list[float] = []
        self.may_cross = False
        """What the next fresh INIT is to say: see `Attempt.may_cross`."""
        self.mac1 = mac1_for(peer.raw)
        self._mac1_own = mac1_for(identity.public.raw)
        self._timestamp = timestamp
        # Half of it at once and half of it earned, so that no second sees more than the rate. Each source has
        # a share of its own, so that one forger does not use up the peer's.
        half = c.INITIATOR_DH_RATE / 2
        self._dh = TokenBucket(half, half, now)
        self._dh_by_source = BucketTable(half / 4, half / 4)
        token = None if session is None else session.token
        self.attempts = [Attempt(target, now, token=token) for target in targets]

    def jitter(self) -> float:
        """Draw a factor within INIT_JITTER of 1."""
        return 1 + c.INIT_JITTER * (int.from_bytes(self.random(2), "big") / 32767.5 - 1)

    def timestamp(self, now: float) -> int:
        """Return microseconds since 1970, rising with every call."""
        self._timestamp += 1
        return self._timestamp + int((now - self.began) * 1e6)

    def timeout(self) -> float:
        """Return when `handle_timeout` is due."""
        return min(self.deadline, *(attempt.next_send for attempt in self.attempts))

    def handle_timeout(self, now: float) -> list[Outgoing]:
        """Return the INITs that are due. The caller looks at `deadline` first."""
        return [attempt.send(self, now) for attempt in self.attempts if attempt.next_send <= now]

    def read_resp_untrusted(self, attempt: Attempt, datagram: bytes, source: Address, now: float) -> Answered:
        """Check and verify a RESP; the reason of the BadPacket raised is the counter to raise."""
        if not compare_digest(self._mac1_own(datagram[wire.RESP_BEFORE_MAC1]), datagram[wire.RESP_MAC1]):
            raise BadPacket("resp-mac1")
        if not (self._dh_by_source.take(source, now) and self._dh.take(now)):
            raise BadPacket("resp-rate")
        try:
            answered = attempt.read_resp_untrusted(datagram, self, now)
        except BadPacket:
            self.stage = max(self.stage, Stage.ANOTHER_KEY)
            raise BadPacket("resp-forged") from None
        self.stage = Stage.ANSWERED
        return answered

    def read_cookie_untrusted(self, attempt: Attempt, cookie: wire.CookieHeader) -> Outgoing | None:
        """Take a COOKIE for one of the attempts."""
        outgoing = attempt.read_cookie_untrusted(cookie, self)
        self.stage = max(self.stage, Stage.COOKIE)
        return outgoing
