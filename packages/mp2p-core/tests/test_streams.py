"""All streams of a connection together: numbers, limits, coming and going (protocol section 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from mp2p_core.errors import StreamClosed, StreamReset, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import StreamError
from mp2p_core.proto.frames import (
    MaxStreamData,
    MaxStreams,
    ResetStream,
    StopSending,
    StreamData,
    StreamFrame,
    parse_frames_untrusted,
)
from mp2p_core.proto.send_stream import Buffer, Sent
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.proto.streams import Streams

ROOM = 1166
KINDS = StreamEventKind


def _pair() -> tuple[Streams, Streams]:
    return Streams(initiator=True), Streams(initiator=False)


def _packet(side: Streams, room: int = ROOM) -> tuple[list[StreamFrame], list[Sent]]:
    """Fill one packet, and read it as the other side would."""
    out: list[Buffer] = []
    sent = side.fill(room, out)
    packet = b"".join(out)
    assert len(packet) <= room
    frames = parse_frames_untrusted(packet)
    assert len(frames) == len(sent)
    return [frame for frame in frames if isinstance(frame, StreamFrame)], sent


def _give(side: Streams, frames: Iterable[StreamFrame], now: float = 1.0) -> None:
    for frame in frames:
        side.receive_untrusted(frame, now)


def _exchange(*sides: Streams, room: int = ROOM, now: float = 1.0) -> None:
    """Carry packets both ways until both are silent; nothing is lost."""
    a, b = sides
    while a.wants_to_send() or b.wants_to_send():
        for here, there in ((a, b), (b, a)):
            while here.wants_to_send():
                frames, sent = _packet(here, room)
                assert sent
                _give(there, frames, now)
                here.acked(sent)


def _code(side: Streams, *frames: StreamFrame, now: float = 1.0) -> int:
    with pytest.raises(StreamError) as caught:
        _give(side, frames, now)
    return caught.value.code


def _data(stream: int, offset: int, data: bytes, *, last: bool = False) -> StreamData:
    return StreamData(stream, offset, memoryview(data), last)


def _events(side: Streams) -> list[tuple[StreamEventKind, int]]:
    found = [(kind, stream) for kind, stream, _ in side.events]
    side.events.clear()
    return found


def _read_all(side: Streams, stream: int) -> bytes:
    found = bytearray()
    while chunk := side.read(stream, 1 << 20):
        found += chunk
    return bytes(found)


def _write_all(side: Streams, stream: int, data: bytes) -> None:
    assert side.write(stream, data) == len(data)


# --- numbers ----------------------------------------------------------------------------------------------


def test_the_initiators_streams_are_even_and_the_responders_odd() -> None:
    a, b = _pair()
    assert [a.open() for _ in range(3)] == [0, 2, 4]
    assert [b.open() for _ in range(3)] == [1, 3, 5]


def test_both_directions_carry_bytes_to_their_ends() -> None:
    a, b = _pair()
    stream = a.open()
    assert stream is not None
    _write_all(a, stream, b"question")
    a.finish(stream)
    _exchange(a, b)
    assert b.events == [(KINDS.OPENED, stream, b"question")]
    assert b.read(stream, 1) == b""
    _write_all(b, stream, b"answer")
    b.finish(stream)
    _exchange(a, b)
    assert a.events == [(KINDS.READABLE, stream, b"answer")]
    assert a.sizes()["streams"] == b.sizes()["streams"] == 0


def test_what_comes_in_several_pieces_or_is_large_is_for_reading() -> None:
    a, b = _pair()
    stream = a.open()
    assert stream is not None
    _write_all(a, stream, b"question")
    _exchange(a, b)
    a.finish(stream)
    _exchange(a, b)
    large = bytes(c.WHOLE_SIZE + 1)
    _give(b, [_data(2, 0, large, last=True), _data(4, 0, large[1:], last=True)])
    assert b.events == [
        (KINDS.OPENED, stream, b""), (KINDS.OPENED, 2, b""), (KINDS.OPENED, 4, large[1:]),
    ]  # fmt: skip
    assert (_read_all(b, stream), _read_all(b, 2)) == (b"question", large)


def test_all_of_a_stream_is_told_once_and_not_after_it_was_stopped() -> None:
    _, b = _pair()
    whole = _data(2, 0, b"all of it", last=True)
    _give(b, [_data(6, 0, b"x"), whole, whole])
    assert b.events == [(KINDS.OPENED, number, b"") for number in (0, 2, 4, 6)]
    assert _read_all(b, 2) == b"all of it", "whoever was told of a stream may read before the next word"
    b.events.clear()
    assert b.read(0, 9) is None
    _give(b, [_data(0, 0, b"all of it", last=True)] * 2)
    assert b.events == [(KINDS.READABLE, 0, b"all of it")]
    b.events.clear()
    b.stop(4, 1)
    _give(b, [_data(4, 0, b"all of it", last=True), _data(6, 0, b"xyz", last=True)])
    assert _events(b) == []
    assert _read_all(b, 6) == b"xyz"
    assert b.table.receiving.credit.read == b.table.receiving.credit.received == 3 * 9 + 3
    _give(b, [_data(8, 2, b"d", last=True), _data(8, 0, b"en")])
    assert b.events == [(KINDS.OPENED, 8, b"")]
    assert _read_all(b, 8) == b"end"


def test_a_frame_opens_all_lower_streams_of_its_side() -> None:
    _, b = _pair()
    _give(b, [_data(4, 0, b"x")])
    assert _events(b) == [(KINDS.OPENED, 0), (KINDS.OPENED, 2), (KINDS.OPENED, 4)]
    _give(b, [MaxStreamData(6, 1), StopSending(8, 1), ResetStream(10, 1, 0)])
    opened = [stream for kind, stream in _events(b) if kind is KINDS.OPENED]
    assert opened == [6, 8, 10]


@pytest.mark.parametrize(
    "frame",
    [
        lambda stream: _data(stream, 0, b"x"),
        lambda stream: _data(stream, 0, b"", last=True),
        lambda stream: ResetStream(stream, 0, 0),
        lambda stream: StopSending(stream, 0),
        lambda stream: MaxStreamData(stream, 9),
    ],
    ids=["data", "end", "reset", "stop", "credit"],
)
def test_C3_a_frame_for_a_stream_of_ours_that_was_never_opened_is_code_5(
    frame: Callable[[int], StreamFrame],
) -> None:
    _, b = _pair()
    assert _code(b, frame(1)) == c.CLOSE_PROTOCOL
    for _ in range(2):
        b.open()
    _give(b, [frame(1)])
    assert _code(b, frame(5)) == c.CLOSE_PROTOCOL
    assert b.sizes()["streams"] == 2


def test_F7_more_streams_than_allowed_are_code_4() -> None:
    _, b = _pair()
    _give(b, [_data(2 * i, 0, b"x") for i in range(c.MAX_OPEN_STREAMS)])
    assert _code(b, _data(2 * c.MAX_OPEN_STREAMS, 0, b"x")) == c.CLOSE_STREAMS
    assert b.sizes()["streams"] == c.MAX_OPEN_STREAMS
    _, b = _pair()
    assert _code(b, _data(2**32 - 2, 0, b"x")) == c.CLOSE_STREAMS
    assert b.sizes()["streams"] == 0


def test_the_peers_limit_holds_us_back_until_it_moves() -> None:
    a, _ = _pair()
    for i in range(c.MAX_OPEN_STREAMS):
        assert a.open() == 2 * i
    assert a.open() is None
    _give(a, [MaxStreams(c.MAX_OPEN_STREAMS - 1)])
    assert _events(a) == []
    _give(a, [MaxStreams(c.MAX_OPEN_STREAMS + 1), MaxStreams(0)])
    assert _events(a) == [(KINDS.STREAMS_AVAILABLE, 0)]
    assert a.open() == 2 * c.MAX_OPEN_STREAMS
    assert a.open() is None


def test_more_streams_than_can_be_numbered_are_code_5() -> None:
    a, _ = _pair()
    _give(a, [MaxStreams(2**31)])
    assert _code(a, MaxStreams(2**31 + 1)) == c.CLOSE_PROTOCOL


def test_streams_come_and_go_without_end() -> None:
    a, b = _pair()
    for i in range(5 * c.MAX_OPEN_STREAMS):
        stream = a.open()
        assert stream == 2 * i
        _write_all(a, stream, b"?")
        a.finish(stream)
        _exchange(a, b)
        assert b.events.pop()[2] == b"?"
        b.events.clear()
        b.finish(stream)
        _exchange(a, b)
        assert a.read(stream, 9) == b""
        assert a.sizes()["streams"] == b.sizes()["streams"] == 0
    assert b.sizes()["gone"] == c.FORGOTTEN_STREAMS
    assert a.sizes()["send bytes"] == b.sizes()["send bytes"] == 0


def test_one_free_place_among_busy_streams_is_reported_at_once() -> None:
    a, b = _pair()
    streams = [a.open() for _ in range(c.MAX_OPEN_STREAMS)]
    for stream in streams:
        assert stream is not None
        _write_all(a, stream, b"x")
    _exchange(a, b)
    a.finish(0)
    b.finish(0)
    _exchange(a, b)
    _read_all(b, 0)
    assert a.read(0, 9) == b""
    _exchange(a, b)
    assert a.open() == 2 * c.MAX_OPEN_STREAMS
    assert a.open() is None


# --- streams that are gone --------------------------------------------------------------------------------


def _gone() -> tuple[Streams, Streams]:
    """A pair that had stream 0, with 8 bytes one way and 6 the other."""
    a, b = _pair()
    a.open()
    _write_all(a, 0, b"question")
    a.finish(0)
    _exchange(a, b)
    _write_all(b, 0, b"answer")
    b.finish(0)
    _exchange(a, b)
    assert a.sizes()["streams"] == b.sizes()["streams"] == 0
    for side in (a, b):
        side.events.clear()
    return a, b


def test_late_frames_of_a_stream_that_is_gone_are_ignored() -> None:
    a, b = _gone()
    late: list[StreamFrame] = [
        _data(0, 0, b"ques"),
        _data(0, 8, b"", last=True),
        MaxStreamData(0, 2**40),
        StopSending(0, 1),
    ]
    _give(b, [*late, ResetStream(0, 3, 8)])
    _give(a, [_data(0, 0, b"answer", last=True), ResetStream(0, 3, 6)])
    for side in (a, b):
        assert _events(side) == []
        assert side.sizes()["streams"] == 0


@pytest.mark.parametrize(
    "frame", [_data(0, 8, b"x"), _data(0, 0, b"new", last=True), ResetStream(0, 1, 9), ResetStream(0, 1, 7)]
)
def test_C3_a_number_used_again_is_code_5(frame: StreamFrame) -> None:
    _, b = _gone()
    assert _code(b, frame) == c.CLOSE_PROTOCOL


def test_cleaning_up_twice_is_no_mistake_and_using_what_is_gone_is() -> None:
    a, _ = _gone()
    a.finish(0)
    a.reset(0, 1)
    a.stop(0, 1)
    assert not a.wants_to_send()
    for call in (lambda: a.read(0, 1), lambda: a.write(0, b"x")):
        with pytest.raises(UsageError, match="ended in both directions"):
            call()
    for number in (2, 1, -2, 2**40):
        for method in (a.finish, lambda n: a.read(n, 1), lambda n: a.stop(n, 0), lambda n: a.write(n, b"")):
            with pytest.raises(UsageError, match="never opened"):
                method(number)


def test_a_stream_stays_until_the_application_knows_how_it_ended() -> None:
    a, b = _pair()
    a.open()
    a.reset(0, 5)
    _exchange(a, b)
    b.finish(0)
    _exchange(a, b)
    assert b.sizes()["streams"] == 1
    with pytest.raises(StreamReset):
        b.read(0, 1)
    assert b.sizes()["streams"] == 0
    assert a.sizes()["streams"] == 1
    a.stop(0, 0)
    assert a.sizes()["streams"] == 0


@pytest.mark.parametrize("call", ["write", "finish", "reset"])
def test_a_stopped_stream_stays_until_the_writer_knows(call: str) -> None:
    a, b = _pair()
    a.open()
    _write_all(a, 0, b"abc")
    _exchange(a, b)
    b.stop(0, 9)
    b.finish(0)
    _exchange(a, b)
    assert a.read(0, 1) == b""
    assert a.sizes()["streams"] == 1
    if call == "reset":
        a.reset(0, 1)
    else:
        with pytest.raises(StreamClosed):
            a.write(0, b"d") if call == "write" else a.finish(0)
    assert a.sizes()["streams"] == 0
    assert not a.wants_to_send()


def test_a_stream_given_up_on_both_sides_stays_until_the_peer_says_how_much_it_sent() -> None:
    _, b = _pair()
    _give(b, [_data(0, 0, b"x")])
    b.stop(0, 1)
    b.reset(0, 1)
    b.acked(_packet(b)[1])
    assert b.sizes()["streams"] == 1
    _give(b, [_data(0, 1, bytes(99)), ResetStream(0, 1, 100)])
    assert b.sizes()["streams"] == 0
    assert b.table.receiving.credit.read == b.table.receiving.credit.received == 100


# --- what an application may get wrong --------------------------------------------------------------------


def test_misuse_is_told_apart_from_what_the_peer_did() -> None:
    a, _ = _pair()
    a.open()
    for code in (-1, 65536):
        with pytest.raises(UsageError):
            a.reset(0, code)
        with pytest.raises(UsageError):
            a.stop(0, code)
    with pytest.raises(UsageError):
        a.read(0, 0)
    a.stop(0, 1)
    with pytest.raises(UsageError):
        a.read(0, 1)


def test_what_could_change_is_copied_and_what_cannot_is_not() -> None:
    a, _ = _pair()
    a.open()
    changing = bytearray(b"x" * 10_000)
    a.write(0, memoryview(changing))
    changing[:] = bytes(10_000)
    fixed = memoryview(b"z" * 20_000).cast("I")
    assert a.write(0, fixed) == 20_000
    assert a.write(0, memoryview(b"abcdef")[::2]) == 3
    out: list[Buffer] = []
    a.fill(65_000, out)
    assert b"".join(out)[17:] == b"x" * 10_000 + b"z" * 20_000 + b"ace"
