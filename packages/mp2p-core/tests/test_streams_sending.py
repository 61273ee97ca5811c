"""What streams send and when: turns, waiting, saying it again, auto-tuning (protocol section 6)."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from mp2p_core.errors import StreamClosed, StreamReset
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import (
    MAX_DATA,
    MAX_STREAM,
    MAX_STREAMS,
    RESET,
    STOP,
    STREAM,
    STREAM_LAST,
    MaxData,
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


def _said(side: Streams) -> set[int]:
    return {kind for kind, *_ in _packet(side)[1]}


# --- whose turn it is -------------------------------------------------------------------------------------


def test_streams_with_data_take_turns() -> None:
    a, _ = _pair()
    for _ in range(3):
        stream = a.open()
        assert stream is not None
        a.write(stream, bytes(5000))
    order = [frame.stream for _ in range(9) for frame in _packet(a)[0] if isinstance(frame, StreamData)]
    assert order == [0, 2, 4] * 3


def test_many_small_streams_share_a_packet() -> None:
    a, _ = _pair()
    for _ in range(10):
        stream = a.open()
        assert stream is not None
        a.write(stream, b"small")
        a.finish(stream)
    frames, _ = _packet(a)
    assert [(frame.stream, frame.last) for frame in frames if isinstance(frame, StreamData)] == [
        (2 * i, True) for i in range(10)
    ]
    assert not a.wants_to_send()


def test_a_stream_without_credit_holds_up_no_other() -> None:
    a, b = _pair()
    for _ in range(2):
        a.open()
    a.write(0, bytes(c.UNSENT_STREAM))
    a.write(2, b"small")
    a.finish(2)
    _exchange(a, b)
    assert b.events[-1][2] == b"small"
    assert b.sizes()["receive bytes"] == c.STREAM_WINDOW
    assert not a.wants_to_send()
    assert _read_all(b, 0) == bytes(c.STREAM_WINDOW)
    _exchange(a, b)
    assert b.sizes()["receive bytes"] > 0


def test_without_credit_of_the_connection_only_what_needs_none_goes_out() -> None:
    a, b = _pair()
    for _ in range(6):
        a.open()
    sent: list[Sent] = []
    for i in range(5):
        a.write(2 * i, bytes(c.STREAM_WINDOW))
    while a.wants_to_send():
        frames, more = _packet(a, 60_000)
        _give(b, frames)
        sent += more
    assert sum(end - start for _, _, start, end in sent) == c.CONNECTION_WINDOW
    a.finish(10)
    assert a.wants_to_send()
    assert _packet(a)[1] == [(STREAM_LAST, 10, 0, 0)]
    assert not a.wants_to_send()
    a.lost(sent[:1])
    assert a.wants_to_send()
    assert _packet(a, 65_535)[1] == sent[:1]
    _give(a, [MaxData(c.CONNECTION_WINDOW + 100)])
    assert [end - start for _, _, start, end in _packet(a)[1]] == [100]


def test_control_goes_before_what_was_lost_and_that_before_new_data() -> None:
    a, b = _pair()
    for _ in range(2):
        a.open()
    a.write(0, bytes(3000))
    first = _packet(a)[1]
    a.write(2, b"new")
    a.lost(first)
    a.stop(2, 1)
    kinds = [(kind, stream, start) for kind, stream, start, _ in _packet(a, 65_000)[1]]
    assert kinds == [(STOP, 2, 0), (STREAM, 0, 0), (STREAM, 0, first[0][3]), (STREAM, 2, 0)]
    assert b.sizes()["streams"] == 0


def test_wanting_to_send_means_that_the_smallest_packet_gets_something() -> None:
    a, b = _pair()
    rng = random.Random(5)
    for _ in range(10):
        stream = a.open()
        assert stream is not None
        a.write(stream, bytes(rng.randint(1, 400)))
        if rng.random() < 0.5:
            a.finish(stream)
    a.reset(4, 1)
    a.stop(6, 1)
    while a.wants_to_send():
        frames, sent = _packet(a, c.SMALLEST_FRAGMENT)
        assert sent
        _give(b, frames)
        if rng.random() < 0.3:
            a.lost(sent)


def test_control_frames_are_spread_over_as_many_packets_as_they_need() -> None:
    a, b = _pair()
    for i in range(20):
        a.open()
        a.reset(2 * i, i)
        a.stop(2 * i, i)
    _exchange(a, b, room=c.SMALLEST_FRAGMENT)
    assert b.sizes()["streams"] == 20


# --- waiting ----------------------------------------------------------------------------------------------


def test_a_writer_that_was_turned_away_is_called_when_half_has_gone() -> None:
    a, b = _pair()
    a.open()
    assert a.write(0, bytes(2 * c.UNSENT_STREAM)) == c.UNSENT_STREAM
    _exchange(a, b)
    assert _events(a) == []  # the peer reads nothing
    total = 0
    while not a.events:
        total += len(_read_all(b, 0))
        _exchange(a, b)
    assert _events(a) == [(KINDS.WRITABLE, 0)]
    assert total <= c.UNSENT_STREAM
    assert c.UNSENT_STREAM // 2 <= a.write(0, bytes(c.UNSENT_STREAM)) < c.UNSENT_STREAM


def test_a_reader_is_called_once_until_it_has_found_nothing() -> None:
    a, b = _pair()
    a.open()
    for _ in range(3):
        _write_all(a, 0, b"x")
        _exchange(a, b)
    assert _events(b) == [(KINDS.OPENED, 0)]
    assert b.read(0, 100) == b"xxx"
    _write_all(a, 0, b"y")
    _exchange(a, b)
    assert _events(b) == []
    assert _read_all(b, 0) == b"y"
    _write_all(a, 0, b"z")
    _exchange(a, b)
    assert _events(b) == [(KINDS.READABLE, 0)]


def test_a_stop_is_answered_with_a_reset_and_told_to_the_writer() -> None:
    a, b = _pair()
    a.open()
    a.write(0, bytes(c.UNSENT_STREAM))
    _exchange(a, b)
    b.stop(0, 44)
    _exchange(a, b)
    assert _events(a) == [(KINDS.STOPPED, 0)]
    assert a.sizes()["send bytes"] == 0
    with pytest.raises(StreamClosed) as caught:
        a.write(0, b"more")
    assert caught.value.code == 44
    assert b.sizes()["receive bytes"] == 0
    assert b.table.receiving.credit.read == b.table.receiving.credit.received
    b.finish(0)
    _exchange(a, b)
    assert a.read(0, 1) == b""
    assert a.sizes()["streams"] == b.sizes()["streams"] == 0


def test_a_stop_after_everything_arrived_is_too_late() -> None:
    a, b = _pair()
    a.open()
    a.table.tells_finished = True
    _write_all(a, 0, b"abc")
    a.finish(0)
    _exchange(a, b)
    _give(a, [StopSending(0, 1)])
    assert _events(a) == [(KINDS.FINISHED, 0)]
    assert not a.wants_to_send()


def test_reset_is_not_finished_even_when_the_end_had_arrived_alone() -> None:
    a, b = _pair()
    a.open()
    _write_all(a, 0, bytes(2000))
    a.finish(0)
    _packet(a)
    frames, sent = _packet(a)
    _give(b, frames)
    a.acked(sent)
    a.reset(0, 3)
    a.stop(0, 0)
    assert _events(a) == []
    b.finish(0)
    _exchange(a, b)
    with pytest.raises(StreamReset):
        b.read(0, 1)


def test_stopping_gives_credit_to_the_connection_and_no_more_to_the_stream() -> None:
    a, b = _pair()
    for _ in range(2):
        stream = a.open()
        assert stream is not None
        a.write(stream, bytes(c.STREAM_WINDOW))
    while a.wants_to_send():
        _give(b, _packet(a, 65_000)[0])
    while b.read(0, c.STREAM_WINDOW):
        pass
    assert _said(b) == {MAX_STREAM}
    for _ in range(3):  # more than half of the stream's window, not yet half of the connection's
        b.read(2, 60_000)
    b.stop(2, 1)
    assert {(kind, stream) for kind, stream, *_ in _packet(b)[1]} == {(MAX_DATA, 0), (STOP, 2)}


# --- what is said again -----------------------------------------------------------------------------------


def test_a_lost_limit_is_said_again_as_it_is_now_unless_a_newer_one_went_out() -> None:
    a, b = _pair()
    for _ in range(2):
        a.open()
    a.write(0, bytes(c.UNSENT_STREAM))
    a.write(2, bytes(c.UNSENT_STREAM))

    def read_some() -> None:
        while a.wants_to_send():
            _give(b, _packet(a, 65_000)[0])
        for stream in (0, 2):
            _read_all(b, stream)

    read_some()
    old_frames, old = _packet(b)
    assert {kind for kind, *_ in old} == {MAX_DATA, MAX_STREAM}
    b.lost(old)
    assert {kind for kind, *_ in _packet(b)[1]} == {MAX_DATA, MAX_STREAM}
    _give(a, old_frames)
    read_some()
    new_frames, new = _packet(b)
    assert {kind for kind, *_ in new} == {MAX_DATA, MAX_STREAM}
    b.lost(old)
    assert not b.wants_to_send()
    b.lost(new)
    assert sorted(map(repr, _packet(b)[0])) == sorted(map(repr, new_frames))


def test_a_lost_reset_or_stop_is_said_again_until_it_is_pointless() -> None:
    a, _b = _pair()
    a.open()
    _write_all(a, 0, b"abc")
    _packet(a)
    a.reset(0, 7)
    a.stop(0, 8)
    frames, sent = _packet(a)
    assert frames == [ResetStream(0, 7, 3), StopSending(0, 8)]
    a.lost(sent)
    assert _packet(a)[0] == frames
    a.acked([each for each in sent if each[0] == RESET])
    a.lost(sent)
    assert _packet(a)[0] == [StopSending(0, 8)]
    a.lost(sent)
    _give(a, [_data(0, 0, b"", last=True)])
    a.lost(sent)
    assert not a.wants_to_send()
    assert a.sizes()["streams"] == 0


def test_a_lost_stop_or_limit_does_not_matter_once_the_end_is_known() -> None:
    a, b = _pair()
    for _ in range(2):
        a.open()
    a.write(0, bytes(c.STREAM_WINDOW))
    while a.wants_to_send():
        _give(b, _packet(a, 65_000)[0])
    while b.read(0, c.STREAM_WINDOW):
        pass
    limit = _packet(b)[1]
    assert [kind for kind, *_ in limit] == [MAX_STREAM]
    a.stop(2, 1)
    stop = _packet(a)[1]
    assert [kind for kind, *_ in stop] == [STOP]
    for side, stream, at, sent in ((b, 0, c.STREAM_WINDOW, limit), (a, 2, 0, stop)):
        side.lost(sent)
        assert _packet(side)[1] == sent
        _give(side, [_data(stream, at, b"", last=True)])
        side.lost(sent)
        assert not side.wants_to_send()
        assert side.sizes()["streams"] == 2 - (side is b)


def test_a_reset_stream_sends_nothing_but_the_reset() -> None:
    a, _ = _pair()
    for _ in range(2):
        a.open()
    a.write(0, bytes(100))
    sent = _packet(a)[1]
    a.write(2, bytes(100))
    a.lost(sent)
    for stream in (0, 2):
        a.reset(stream, 1)
    assert [kind for kind, *_ in _packet(a)[1]] == [RESET, RESET]
    assert not a.wants_to_send()


def test_a_lost_number_of_streams_is_said_again() -> None:
    _, b = _pair()
    for i in range(c.STREAMS_REPORTED):
        _give(b, [_data(2 * i, 0, b"", last=True), StopSending(2 * i, 1)])
        b.stop(2 * i, 1)
        b.reset(2 * i, 1)
        while b.wants_to_send():
            frames, sent = _packet(b)
            b.acked(sent)
    assert frames == [MaxStreams(c.MAX_OPEN_STREAMS + c.STREAMS_REPORTED)]
    b.lost(sent)
    assert _said(b) == {MAX_STREAMS}
    b.lost([(*sent[0][:2], c.MAX_OPEN_STREAMS, 0)])
    assert not b.wants_to_send()


# --- auto-tuning ---


def test_the_window_grows_with_a_fast_reader_and_not_with_a_slow_one() -> None:
    for pause, grows in ((0.0, True), (10.0, False)):
        a, b = _pair()
        b.set_rtt(0.1)
        a.open()
        now = 1.0
        for _ in range(40):
            a.write(0, bytes(c.UNSENT_STREAM))
            _exchange(a, b, room=65_000, now=now)
            now += pause
            assert b.sizes()["receive bytes"] <= c.STREAM_WINDOW_CAP
            _read_all(b, 0)
        credit = b.table.live[0].receive.credit
        # Reading has no clock of its own: the first window may double once for nothing.
        assert credit.window == c.STREAM_WINDOW_CAP if grows else credit.window <= 2 * c.STREAM_WINDOW


@pytest.mark.parametrize(("stream_window", "connection_window"), [(1000, 250), (70, 1000)])
def test_a_message_in_one_piece_waits_for_credit_like_any_other(
    monkeypatch: pytest.MonkeyPatch, stream_window: int, connection_window: int
) -> None:
    monkeypatch.setattr(c, "STREAM_WINDOW", stream_window)
    monkeypatch.setattr(c, "CONNECTION_WINDOW", connection_window)
    a, b = _pair()
    streams = [a.open() for _ in range(3)]
    for stream in streams:
        assert stream is not None
        assert a.write_last(stream, bytes(100))
    out: list[Buffer] = []
    a.fill(1200, out)
    _give(b, [each for each in parse_frames_untrusted(b"".join(out)) if isinstance(each, StreamFrame)])
    assert a.table.sending.sent == min(connection_window, 3 * stream_window)
    _exchange(a, b)
    whole = {stream: whole for _, stream, whole in b.events}
    assert sum(map(len, whole.values())) == (200 if stream_window >= 100 else 0)
    for stream in streams:
        assert stream is not None
        assert (whole[stream] or _read_all(b, stream)) == bytes(min(100, stream_window))
        _exchange(a, b)
    assert a.table.sending.sent == 300


def test_a_message_in_one_piece_that_was_lost_and_arrives_after_all_is_not_sent_again() -> None:
    a, _ = _pair()
    stream = a.open()
    assert stream is not None
    assert a.write_last(stream, b"whole")
    sent = _packet(a)[1]
    a.lost(sent)
    assert a.wants_to_send()
    a.acked(sent)
    assert not a.wants_to_send()
    assert a.sizes()["send bytes"] == 0
