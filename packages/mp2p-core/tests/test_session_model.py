"""Two sessions and a network that loses, repeats, reorders and forges, against a model of what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mp2p_core.proto import constants as c
from mp2p_core.proto.epoch import Epoch, SessionKeys
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.session import Session
from mp2p_core.proto.states import SessionState
from mp2p_core.testing.puppet import Puppet, one_way
from mp2p_core.transport import Path

PEER = Identity.from_seed(b"m" * 32).public
PATH = Path(Puppet.SOURCE, None, 1)


@dataclass
class Half:
    """A session, and what the model knows of it."""

    session: Session
    queued: list[bytes] = field(default_factory=list)
    numbers: set[int] = field(default_factory=set)
    """Packet numbers sent."""
    taken: set[int] = field(default_factory=set)
    """Packet numbers accepted from the other side."""
    highest: int = -1
    delivered: list[bytes] = field(default_factory=list)
    pings: set[int] = field(default_factory=set)
    answered: list[int] = field(default_factory=list)
    closed_by_us: bool = False


class SessionPair(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 100.0
        self.count = 0
        one, other = (ChaCha20Poly1305(bytes([n]) * 32) for n in (1, 2))
        self.halves = [
            Half(
                Session(
                    peer=PEER, token=b"t" * 16, paths=one_way(initiator=initiator), now=self.now,
                    idle_timeout=30.0, max_payload=1200, rekey_after=300.0, epoch=Epoch(
                        keys=SessionKeys(send, receive, b"h" * 32, b"t" * 16), local_id=b"L" * 8,
                        remote_id=b"L" * 8, channel=0, path=PATH, began=self.now, ours=initiator,
                    ),
                )
            )
            for initiator, send, receive in ((True, one, other), (False, other, one))
        ]  # fmt: skip
        self.flight: list[tuple[int, bytes]] = []  # (index of the receiver, packet)

    which = st.integers(0, 1)

    @rule(which=which, size=st.sampled_from([0, 1, 30, 900, 1163]))
    def send(self, which: int, size: int) -> None:
        half = self.halves[which]
        if not half.session.live:
            return
        self.count += 1
        data = self.count.to_bytes(4, "big").ljust(size, b".") if size >= 4 else bytes(size)
        half.session.packer.message(data)
        half.queued.append(data)

    @rule(which=which)
    def ping(self, which: int) -> None:
        half = self.halves[which]
        if half.session.live:
            self.count += 1
            half.session.packer.ping(self.count)
            half.pings.add(self.count)

    @rule(which=which)
    def flush(self, which: int) -> None:
        half = self.halves[which]
        before = half.session.state
        for packet, _ in half.session.packets(self.now):
            number = int.from_bytes(packet[10:18], "big")
            assert number not in half.numbers, "a packet number was used twice"
            assert number == len(half.numbers)
            assert len(packet) <= 1200
            assert before not in (SessionState.HALF_OPEN, SessionState.DRAINING, SessionState.CLOSED)
            half.numbers.add(number)
            self.flight.append((1 - which, packet))

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), keep=st.booleans())
    def deliver(self, data: st.DataObject, keep: bool) -> None:
        at = data.draw(st.integers(0, len(self.flight) - 1))
        which, packet = self.flight[at]
        if not keep:
            self.flight.pop(at)
        half, number = self.halves[which], int.from_bytes(packet[10:18], "big")
        fresh = number not in half.taken and number > half.highest - c.REPLAY_WINDOW
        closed = half.session.state is SessionState.CLOSED
        outcome = half.session.receive_untrusted(packet, 0, PATH, self.now)
        assert outcome == ("data-replayed" if not fresh else "data-unknown" if closed else "data-received")
        if fresh:
            half.taken.add(number)
            half.highest = max(half.highest, number)
        self.collect(half)

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), which=st.integers(0, 1199), bit=st.integers(0, 7))
    def forge(self, data: st.DataObject, which: int, bit: int) -> None:
        to, packet = data.draw(st.sampled_from(self.flight))
        at = which % len(packet)
        if 2 <= at < 10:
            return  # the id finds another session; the endpoint's affair
        edited = packet[:at] + bytes([packet[at] ^ 1 << bit]) + packet[at + 1 :]
        half = self.halves[to]
        before = (
            half.session.state,
            half.session.timeout(),
            half.session.packer.rtt.smoothed,
            half.session.roaming.path,
        )
        outcome = half.session.receive_untrusted(edited, 0, PATH._replace(interface=9), self.now)
        assert outcome in ("data-forged", "data-replayed") or at in (0, 1)
        if at == 0:
            return  # the type byte is the endpoint's to look at: here it is only associated data
        assert outcome != "data-received"
        session = half.session
        assert (session.state, session.timeout(), session.packer.rtt.smoothed, session.roaming.path) == before
        assert not half.session.received

    @precondition(lambda self: self.flight)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        self.flight.pop(data.draw(st.integers(0, len(self.flight) - 1)))

    @rule(pause=st.sampled_from([0.001, 0.03, 0.3, 1.1, 10.5, 31.0]))
    def wait(self, pause: float) -> None:
        self.now += pause
        for which in (0, 1):
            self.be_on_time(which)

    def be_on_time(self, which: int) -> None:
        """Do what is due: a loss, a probe, a keepalive. Whatever comes back more often does so for ever."""
        session = self.halves[which].session
        for _ in range(5):
            when = session.timeout()
            if when is None or when > self.now:
                return
            session.handle_timeout(self.now)
            self.flush(which)
        raise AssertionError("a timeout that leads to nothing")

    @rule(which=which)
    def close(self, which: int) -> None:
        half = self.halves[which]
        if half.session.live:
            half.closed_by_us = True
        half.session.close(40 + which, "done", self.now)

    def collect(self, half: Half) -> None:
        half.delivered += half.session.received
        half.session.received.clear()
        half.answered += [number for number, _ in half.session.packer.answered_pings]
        half.session.packer.answered_pings.clear()

    @invariant()
    def nothing_is_delivered_that_was_not_sent_or_more_often(self) -> None:
        for half, other in ((self.halves[0], self.halves[1]), (self.halves[1], self.halves[0])):
            for data in set(half.delivered):
                assert half.delivered.count(data) <= other.queued.count(data)

    @invariant()
    def pings_are_answered_at_most_once(self) -> None:
        for half in self.halves:
            assert set(half.answered) <= half.pings
            assert len(set(half.answered)) == len(half.answered)

    @invariant()
    def numbers_are_taken_only_when_they_were_sent(self) -> None:
        assert self.halves[0].taken <= self.halves[1].numbers
        assert self.halves[1].taken <= self.halves[0].numbers

    @invariant()
    def a_session_ends_only_for_a_reason(self) -> None:
        for half, other in ((self.halves[0], self.halves[1]), (self.halves[1], self.halves[0])):
            if half.session.state in (SessionState.CLOSING, SessionState.DRAINING):
                code = half.session.closing.code
                assert code == c.CLOSE_IDLE or (
                    code in (40, 41) and (half.closed_by_us or other.closed_by_us)
                )

    def calm(self) -> None:
        """Lose nothing for a while, in which the window opens and what waits goes out."""
        for _ in range(40):
            for which in (0, 1):
                self.be_on_time(which)
                self.flush(which)
                for to, packet in self.flight:
                    self.halves[to].session.receive_untrusted(packet, 0, PATH, self.now)
                    self.collect(self.halves[to])
                self.flight.clear()
            self.now += 0.05

    def teardown(self) -> None:
        """With nothing lost any more, what is queued on a session that stays open arrives, whole and once."""
        if not hasattr(self, "halves"):
            return
        self.flight.clear()
        self.calm()
        if not all(half.session.state is SessionState.OPEN for half in self.halves):
            return
        for half in self.halves:
            half.delivered.clear()
            half.session.packer.message(b"the last")
        self.calm()
        for half in self.halves:
            assert half.delivered == [b"the last"]
        for _ in range(c.LOSS_THRESHOLD):  # show what was lost long ago to be lost
            for half in self.halves:
                half.session.packer.ping()
            self.calm()
        for half in self.halves:
            assert half.session.packer._recovery.in_flight == 0
            assert not half.session.packer._recovery


SessionPair.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestSessionPair = SessionPair.TestCase
