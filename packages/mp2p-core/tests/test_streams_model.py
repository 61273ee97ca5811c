"""Two ends of a connection against a model, with a network between them that loses, swaps and repeats.

The windows are made tiny, so that a few hundred bytes meet every limit there is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mp2p_core.errors import StreamClosed, StreamReset
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import StreamFrame, parse_frames_untrusted
from mp2p_core.proto.send_stream import Buffer, Sent
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.proto.streams import Streams

TINY = {
    "STREAM_WINDOW": 400,
    "CONNECTION_WINDOW": 1000,
    "STREAM_WINDOW_CAP": 1600,
    "CONNECTION_WINDOW_CAP": 3000,
    "UNSENT_STREAM": 600,
    "UNSENT_CONNECTION": 1500,
    "UNSENT_FLOOR": 100,
    "MAX_OPEN_STREAMS": 3,
    "STREAMS_REPORTED": 2,
    "WHOLE_SIZE": 60,
    "JOIN_SIZE": 50,
    "FORGOTTEN_STREAMS": 4,
    "RESET_LIMIT": 10_000,
}
SIDES = st.sampled_from([0, 1])
RULES_PER_RUN = 60


@dataclass
class Direction:
    """What the two applications know about one direction of a stream."""

    written: bytearray = field(default_factory=bytearray)
    read: bytearray = field(default_factory=bytearray)
    finished: bool = False
    reset: int | None = None
    stopped: int | None = None
    closed: bool = False
    """The writer was told of the stop."""
    ended: bool = False
    """The reader has seen the end or a reset."""

    @property
    def writing(self) -> bool:
        """Whether the application may write."""
        return not (self.finished or self.reset is not None or self.closed)

    @property
    def reading(self) -> bool:
        """Whether the application may read."""
        return not self.ended and self.stopped is None


@dataclass
class Packet:
    """A packet in flight."""

    side: int
    frames: list[StreamFrame]
    sent: list[Sent]
    delivered: bool = False


class StreamsMachine(RuleBasedStateMachine):
    """Applications and a network, doing whatever they may."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for name, value in TINY.items():
            self.patch.setattr(c, name, value)
        self.sides = (Streams(initiator=True), Streams(initiator=False))
        self.known: tuple[set[int], set[int]] = (set(), set())
        """Streams that the application of a side has opened, or was told of."""
        self.model: dict[tuple[int, int], Direction] = {}
        """By the side that writes, and the stream."""
        self.waiting: set[tuple[str, int, int]] = set()
        """Who was told to wait, and for what: (call, side, stream)."""
        self.flying: list[Packet] = []
        self.now = 1.0
        self.rng = random.Random(0)

    def teardown(self) -> None:
        """Mend the network, read everything, close everything: nothing may be missing, and nothing left."""
        try:
            self._finish()
        finally:
            self.patch.undo()

    # --- choosing -----------------------------------------------------------------------------------------

    @initialize(seed=st.integers(0, 2**32))
    def seed(self, seed: int) -> None:
        """Choose contents and streams from here on."""
        self.rng = random.Random(seed)

    def _pick(self, side: int, *, write: bool) -> tuple[int, Direction] | None:
        found = []
        for stream in sorted(self.known[side]):
            direction = self.model[side if write else 1 - side, stream]
            if direction.writing if write else direction.reading:
                found.append((stream, direction))
        return self.rng.choice(found) if found else None

    # --- applications -------------------------------------------------------------------------------------

    @rule(side=SIDES)
    def open(self, side: int) -> None:
        """Open a stream, if there may be one more."""
        stream = self.sides[side].open()
        if stream is None:
            self.waiting.add(("open", side, 0))
        else:
            assert stream & 1 == side
            self._meet(side, stream)

    def _meet(self, side: int, stream: int) -> None:
        assert stream not in self.known[side]
        self.known[side].add(stream)
        for writer in (0, 1):
            self.model.setdefault((writer, stream), Direction())

    @rule(side=SIDES, size=st.sampled_from([0, 1, 2, 30, 60, 300, 800, 2000]), small=st.booleans())
    def write(self, side: int, size: int, small: bool) -> None:
        """Write some bytes, at once or one by one."""
        if (found := self._pick(side, write=True)) is None:
            return
        stream, direction = found
        data = self.rng.randbytes(size)
        pieces = [data[i : i + 1] for i in range(min(size, 70))] if small else [data]
        try:
            for piece in pieces:
                taken = self.sides[side].write(stream, piece)
                assert 0 <= taken <= len(piece)
                direction.written += piece[:taken]
                if taken < len(piece):
                    self.waiting.add(("write", side, stream))
                    break
        except StreamClosed as error:
            self._closed(direction, error)

    @staticmethod
    def _closed(direction: Direction, error: StreamClosed) -> None:
        assert error.code == direction.stopped
        direction.closed = True

    @staticmethod
    def _was_reset(direction: Direction, error: StreamReset) -> None:
        assert error.code == direction.reset
        direction.ended = True

    @rule(side=SIDES, size=st.sampled_from([0, 1, 30, 100]))
    def write_last(self, side: int, size: int) -> None:
        """Write the rest in one step, as a small message that is a stream of its own is written."""
        if (found := self._pick(side, write=True)) is None:
            return
        stream, direction = found
        data = self.rng.randbytes(size)
        try:
            if self.sides[side].write_last(stream, data):
                direction.written += data
                direction.finished = True
            else:
                self.waiting.add(("write", side, stream))
        except StreamClosed as error:
            self._closed(direction, error)

    @rule(side=SIDES)
    def finish(self, side: int) -> None:
        """End a direction."""
        if (found := self._pick(side, write=True)) is not None:
            stream, direction = found
            try:
                self.sides[side].finish(stream)
                direction.finished = True
            except StreamClosed as error:
                self._closed(direction, error)

    @rule(side=SIDES, code=st.integers(0, 65535))
    def reset(self, side: int, code: int) -> None:
        """Give up a direction, also one that was finished."""
        if self.known[side]:
            stream = self.rng.choice(sorted(self.known[side]))
            self.sides[side].reset(stream, code)
            direction = self.model[side, stream]
            if direction.reset is None:
                direction.reset = code

    @rule(side=SIDES, code=st.integers(0, 65535))
    def stop(self, side: int, code: int) -> None:
        """Read no more."""
        if (found := self._pick(side, write=False)) is not None:
            stream, direction = found
            self.sides[side].stop(stream, code)
            direction.stopped = code

    @rule(
        side=SIDES,
        limit=st.sampled_from([1, 7, 100, 10_000]),
        at_least=st.sampled_from([1, 1, 20, 200]),
        times=st.integers(1, 20),
    )
    def read(self, side: int, limit: int, at_least: int, times: int) -> None:
        """Read what is there, or nothing unless there is much."""
        for _ in range(times):
            if (found := self._pick(side, write=False)) is not None:
                self._read(side, *found, limit, at_least)

    def _read(self, side: int, stream: int, direction: Direction, limit: int, at_least: int = 1) -> bool:
        self.waiting.discard(("read", side, stream))
        try:
            chunk = self.sides[side].read(stream, limit, at_least)
        except StreamReset as error:
            self._was_reset(direction, error)
            return False
        if chunk is None:
            self.waiting.add(("read", side, stream))
            return False
        if len(chunk) == 0:
            assert direction.finished, "an end that nobody wrote"
            assert direction.read == direction.written, "a short success"
            direction.ended = True
            return False
        assert len(chunk) <= limit
        assert direction.written[len(direction.read) :].startswith(bytes(chunk))
        direction.read += chunk
        return True

    # --- network ------------------------------------------------------------------------------------------

    @rule(side=SIDES, room=st.sampled_from([64, 65, 100, 300, 1500]), count=st.integers(1, 8))
    def send(self, side: int, room: int, count: int) -> None:
        """Fill packets."""
        for _ in range(count):
            out: list[Buffer] = []
            wanted = self.sides[side].wants_to_send()
            sent = self.sides[side].fill(room, out)
            packet = b"".join(out)
            assert len(packet) <= room
            assert bool(sent) == wanted == bool(packet)
            if not wanted:
                break
            frames = [frame for frame in parse_frames_untrusted(packet) if isinstance(frame, StreamFrame)]
            assert len(frames) == len(sent)
            self.flying.append(Packet(side, frames, sent))

    @precondition(lambda self: self.flying)
    @rule(count=st.integers(1, 8), keep=st.booleans(), ack=st.booleans())
    def deliver(self, count: int, keep: bool, ack: bool) -> None:
        """Deliver packets in any order; kept ones come again. The acknowledgement may get lost."""
        for _ in range(min(count, len(self.flying))):
            packet = self.rng.choice(self.flying)
            self._deliver(packet)
            if not keep:
                self.flying.remove(packet)
                if ack:
                    self.sides[packet.side].acked(packet.sent)
                else:
                    self.sides[packet.side].lost(packet.sent)

    def _deliver(self, packet: Packet) -> None:
        self.now += self.rng.choice([0.0, 0.001, 1.0])
        packet.delivered = True
        for frame in packet.frames:
            self.sides[1 - packet.side].receive_untrusted(frame, self.now)

    @precondition(lambda self: self.flying)
    @rule(count=st.integers(1, 8))
    def lose(self, count: int) -> None:
        """Call packets lost. Those that are delivered later, or were, are acknowledged all the same."""
        for _ in range(min(count, len(self.flying))):
            packet = self.rng.choice(self.flying)
            self.sides[packet.side].lost(packet.sent)
            if self.rng.random() < 0.5:
                self.flying.remove(packet)
                if packet.delivered:
                    self.sides[packet.side].acked(packet.sent)

    # --- what always holds --------------------------------------------------------------------------------

    @invariant()
    def events_come_to_those_who_wait(self) -> None:
        """Take the events, and learn of new streams."""
        for side, streams in enumerate(self.sides):
            while streams.events:
                kind, stream, whole = streams.events.pop(0)
                if kind is StreamEventKind.OPENED:
                    assert stream & 1 != side
                    self._meet(side, stream)
                elif kind is StreamEventKind.READABLE:
                    self.waiting.discard(("read", side, stream))
                elif kind is StreamEventKind.WRITABLE:
                    self.waiting.discard(("write", side, stream))
                elif kind is StreamEventKind.STREAMS_AVAILABLE:
                    self.waiting.discard(("open", side, 0))
                elif kind is StreamEventKind.STOPPED:
                    assert self.model[side, stream].stopped is not None
                    self.waiting.discard(("write", side, stream))
                else:
                    assert self.model[side, stream].finished
                if whole:
                    direction = self.model[1 - side, stream]
                    assert direction.finished
                    assert direction.reading
                    assert (direction.read, direction.written) == (b"", whole)
                    direction.read += whole
                    direction.ended = True
        for call, side, stream in self.waiting:
            if call == "read" and self.model[1 - side, stream].reading:
                assert not self.sides[side].table.get(stream).receive.readable, "a reader that nobody calls"

    @invariant()
    def everything_is_bounded(self) -> None:
        """Check sizes against what the constants promise."""
        for side in self.sides:
            sizes = side.sizes()
            live = sizes["streams"]
            assert sizes["receive bytes"] <= c.CONNECTION_WINDOW_CAP
            assert sizes["receive pieces"] <= c.CONNECTION_WINDOW_CAP
            assert sizes["send bytes"] <= (
                c.CONNECTION_WINDOW_CAP + c.UNSENT_CONNECTION + live * c.UNSENT_FLOOR
            )
            assert sizes["control"] <= 3 * live + 2
            assert sizes["queued"] <= 2 * live
            assert sizes["gone"] <= c.FORGOTTEN_STREAMS
            foreign = [each for n, each in side.table.live.items() if n & 1 != side.table.parity]
            parting = [each for each in foreign if each.parting]
            assert len(foreign) - len(parting) <= c.MAX_OPEN_STREAMS
            assert side.table._parting == len(parting) <= c.MAX_OPEN_STREAMS

    @invariant()
    def counters_agree_with_what_is_held(self) -> None:
        """Check the sums that are kept on the way against the streams."""
        for side in self.sides:
            table = side.table
            sends = [live.send for live in table.live.values()]
            receives = [live.receive for live in table.live.values()]
            assert table.sending.unsent == sum(send.unsent for send in sends)
            assert table.sending.unacked == sum(send.next - send.base for send in sends)
            assert table.receiving.pieces == sum(len(each._pieces) for each in receives)
            credit = table.receiving.credit
            unread = sum(r.credit.received - r.credit.read for r in receives if not r.discarding)
            assert credit.received - credit.read == unread <= credit.window
            for send in sends:
                assert send.base <= send.next <= send.written
                assert send.in_ready == (send.sendable > 0)
                assert send.in_urgent == send.urgent

    # --- the end ------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        for packet in self.flying:
            self.sides[packet.side].lost(packet.sent)
        self.flying.clear()
        unsettled = True
        while unsettled:
            for side in (0, 1):
                self.send(side, 1500, 100)
            for packet in self.flying:
                self._deliver(packet)
                self.sides[packet.side].acked(packet.sent)
            self.flying.clear()
            self.events_come_to_those_who_wait()
            for side in (0, 1):
                for stream in self.known[side]:
                    direction = self.model[1 - side, stream]
                    while direction.reading and self._read(side, stream, direction, 1000):
                        pass
            unsettled = any(side.wants_to_send() for side in self.sides)

    def _close_everything(self) -> None:
        for side in (0, 1):
            for stream in self.known[side]:
                self.sides[side].reset(stream, 0)
                self.sides[side].stop(stream, 0)
                self.model[side, stream].reset = self.model[1 - side, stream].stopped = 0
        self._settle()

    def _finish(self) -> None:
        self._settle()
        for (side, stream), direction in self.model.items():
            if stream not in self.known[1 - side]:
                continue
            if direction.reset is None and direction.stopped is None:
                assert direction.read == direction.written
                assert direction.ended == direction.finished
            if direction.reset is not None and direction.stopped is None:
                assert direction.ended, "a reset that the reader never saw"
            if direction.stopped is not None and direction.writing:
                with pytest.raises(StreamClosed):
                    self.sides[side].write(stream, b"?")
            elif direction.writing:
                assert ("write", side, stream) not in self.waiting, "a writer that nobody calls"
            if not (direction.writing or self.model[1 - side, stream].reading):
                assert stream not in self.sides[side].table.live, "remembered, and over for this side"
        self._close_everything()
        self._close_everything()  # those that the peer's first frame opened by now
        for streams in self.sides:
            sizes = streams.sizes()
            assert all(count == 0 for key, count in sizes.items() if key not in ("gone", "cancelled")), sizes
        assert not any(call == "open" for call, _, _ in self.waiting)


StreamsMachine.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=RULES_PER_RUN,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class TestF7StreamsAgainstTheModel(StreamsMachine.TestCase):  # type: ignore[name-defined,misc]  # made at run time
    """Rows F7, F8, C6, C7: whatever both ends and the network do, the model holds."""
