"""The handshakes that this node has begun and that are not over (docs/protocol.md, sections 4 and 6)."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, NamedTuple

from mp2p_core.errors import BadPacket, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.epoch import Epoch
from mp2p_core.proto.initiator import Answered, Attempt, Dial
from mp2p_core.proto.paths import Paths
from mp2p_core.proto.session import Session
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mp2p_core.proto.handshake import Handshake
    from mp2p_core.proto.identity import Identity, PublicKey
    from mp2p_core.proto.initiator import Outgoing
    from mp2p_core.proto.routes import PathRules
    from mp2p_core.proto.target import Target
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["Dials", "Settled"]


class Settled(NamedTuple):
    """What a verified RESP leads to: a refusal, a new session, or new keys for the dial's session."""

    dial: Dial
    refusal: str | None = None
    session: Session | None = None
    epoch: Epoch | None = None


class Dials:
    """Begins handshakes, finds what an answer answers, and makes sessions and epochs of it."""

    def __init__(
        self,
        identity: Identity,
        rules: PathRules,
        *,
        random: RandomBytes,
        handshake: Handshake,
        idle_timeout: float,
        epoch_us: int,
        version: int,
        now: float,
    ) -> None:
        self._identity = identity
        self._rules = rules
        self._random = random
        self._handshake = handshake
        self._idle_timeout = idle_timeout
        self._epoch_us = epoch_us
        self._version = version
        self._began = now
        self._attempts: dict[bytes, tuple[Dial, Attempt]] = {}
        self._by_number: dict[int, Dial] = {}
        self._last = 0

    def begin(
        self,
        peer: PublicKey,
        targets: Sequence[tuple[int, Address]],
        *,
        timestamp: int,
        timeout: float,
        now: float,
    ) -> Dial:
        """Make a dial for a new connection. Raises `UsageError` when it cannot lead anywhere."""
        if not targets:
            raise UsageError("nothing to connect to: give at least one address of the peer")
        if peer == self._identity.public:
            raise UsageError("this contact is the node's own key: a node does not connect to itself")
        ways = [self._rules.target(number, address) for number, address in targets]
        return self._dial(peer, ways, timestamp, timeout, now)

    def renew(self, session: Session, now: float, *, or_new: bool) -> Dial | None:
        """Make a dial for new keys, unless one is under way.

        A peer that has gone silent is looked for on every way to it. With `or_new` it may have lost its memory: one
        that does not know the connection any more is asked for another.
        """
        for dial in self:
            if dial.session is session:
                if dial.or_new or not or_new:
                    return None
                self.end(dial)
        here = session.roaming.paths.current.target
        ways = (
            list(dict.fromkeys([here, *session.roaming.paths.targets()]))
            if session.roaming.fading
            else [here]
        )
        timestamp = self._epoch_us + int((now - self._began) * 1e6)
        return self._dial(session.peer, ways, timestamp, c.HANDSHAKE_BUDGET, now, session, or_new=or_new)

    def _dial(
        self,
        peer: PublicKey,
        ways: list[Target],
        timestamp: int,
        timeout: float,
        now: float,
        session: Session | None = None,
        *,
        or_new: bool = False,
    ) -> Dial:
        self._last += 1
        return Dial(
            self._last, self._identity, peer, ways, timestamp=timestamp, random=self._random, handshake=self._handshake,
            timeout=timeout, now=now, session=session, or_new=or_new, version=self._version,
        )  # fmt: skip

    def advance(self, dial: Dial, now: float) -> list[Outgoing]:
        """Take in a dial, or its next step; returns the INITs that are due."""
        self._by_number[dial.number] = dial
        for attempt in dial.attempts:
            self._attempts.pop(attempt.receive_id, None)
        due = dial.handle_timeout(now)
        for attempt in dial.attempts:
            if attempt.receive_id:
                self._attempts[attempt.receive_id] = (dial, attempt)
        return due

    def end(self, dial: Dial) -> None:
        """Forget a dial; answers to it are answers to nobody."""
        self._by_number.pop(dial.number, None)
        for attempt in dial.attempts:
            self._attempts.pop(attempt.receive_id, None)

    def end_renewing(self, session: Session) -> None:
        """Forget what a session that has ended wanted."""
        for dial in self:
            if dial.session is session:
                self.end(dial)

    def get(self, number: int) -> Dial | None:
        """Find a dial by its number."""
        return self._by_number.get(number)

    def to(self, peer: PublicKey) -> Dial | None:
        """Find a dial of the application's to this peer."""
        return next((dial for dial in self if dial.peer == peer and dial.session is None), None)

    def read_cookie_untrusted(self, datagram: bytes) -> Outgoing | None:
        """Take a COOKIE; returns an INIT to send at once, if any."""
        cookie = wire.parse_cookie_untrusted(datagram)
        found = self._attempts.get(cookie.receive_id)
        if found is None:
            raise BadPacket("cookie-unknown")
        dial, attempt = found
        return dial.read_cookie_untrusted(attempt, cookie)

    def read_resp_untrusted(self, datagram: bytes, number: int, path: Path, now: float) -> Settled:
        """Take a RESP that came in on channel `number`; once it verifies, the dial is over."""
        found = self._attempts.get(wire.parse_resp_untrusted(datagram, self._handshake.number))
        if found is None or found[1].target.channel != number:
            raise BadPacket("resp-unknown")
        dial, attempt = found
        answered = dial.read_resp_untrusted(attempt, datagram, path.remote, now)
        continued = attempt.token is not None and compare_digest(attempt.token, answered.payload.token)
        if not (continued or attempt.or_new or attempt.token is None):
            raise BadPacket("resp-token")
        self.end(dial)
        if answered.refusal is not None:
            return Settled(dial, refusal=answered.refusal)
        epoch = self._epoch(dial, answered, path, now, dial.session if continued else None)
        if continued:
            return Settled(dial, epoch=epoch)
        return Settled(dial, session=self._session(dial, answered, epoch, path, now))

    def _epoch(
        self, dial: Dial, answered: Answered, path: Path, now: float, renewed: Session | None
    ) -> Epoch:
        payload, attempt = answered.payload, answered.attempt
        return Epoch(
            keys=answered.keys, local_id=attempt.receive_id, remote_id=payload.receive_id,
            channel=attempt.target.channel, path=Path(attempt.target.address, None, path.interface),
            began=dial.began if dial.session is None else now, ours=True,
            first_number=0 if renewed is None else renewed.packer.next_number,
            preferred=self._identity.public.raw < dial.peer.raw, timestamp=attempt.timestamp,
        )  # fmt: skip

    def _session(self, dial: Dial, answered: Answered, epoch: Epoch, path: Path, now: float) -> Session:
        payload, target = answered.payload, answered.attempt.target
        paths = Paths(self._rules, target, (each.target for each in dial.attempts), initiator=True)
        # DATA goes where the INIT went until the address that the RESP names is proved (row R6).
        if payload.address not in (target.address, wire.NO_ADDRESS):
            paths.prefer_untrusted(payload.address, target.channel, path._replace(local=target.address))
        return Session(
            peer=dial.peer, epoch=epoch, token=payload.token, now=now, rekey_after=c.REKEY_AFTER, paths=paths,
            idle_timeout=min(self._idle_timeout, payload.idle_timeout_ms / 1000), rtt=answered.rtt,
            max_payload=min(payload.max_payload, target.max_payload),
            large=bool(payload.capabilities & c.CAPABILITY_PARTS), may_cross=answered.attempt.may_cross,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Dial]:
        """Yield every dial."""
        return iter(list(self._by_number.values()))

    def __len__(self) -> int:
        return len(self._by_number)

    @property
    def attempts(self) -> int:
        """How many answers are being waited for."""
        return len(self._attempts)
