"""The receiving direction of a stream: order, overlaps, bounds, the end (protocol section 6)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import StreamReset
from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import ReceiveBudget, StreamError
from mp2p_core.proto.receive_stream import ReceiveStream


def _stream() -> tuple[ReceiveStream, ReceiveBudget]:
    budget = ReceiveBudget()
    return ReceiveStream(3, budget), budget


def _give(stream: ReceiveStream, offset: int, data: bytes, *, last: bool = False) -> None:
    stream.receive_untrusted(offset, memoryview(data), last=last)


def _read(stream: ReceiveStream, limit: int, at_least: int = 1) -> bytes | memoryview | None:
    pieces = stream.take(limit, at_least)
    if pieces is None:
        return None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_all(stream: ReceiveStream, limit: int = 1 << 20) -> bytes:
    found = bytearray()
    while chunk := _read(stream, limit):
        assert len(chunk) <= limit
        found += chunk
    return bytes(found)


def _code(stream: ReceiveStream, offset: int, data: bytes, *, last: bool = False) -> int:
    with pytest.raises(StreamError) as caught:
        _give(stream, offset, data, last=last)
    return caught.value.code


# --- order ------------------------------------------------------------------------------------------------


def test_data_in_order_is_handed_on_as_it_came() -> None:
    stream, _ = _stream()
    packet = bytes(17) + bytes(range(256)) * 200
    stream.receive_untrusted(0, memoryview(packet)[17:], last=False)
    chunk = _read(stream, 1 << 20)
    assert isinstance(chunk, memoryview)
    assert chunk.obj is packet
    assert chunk == packet[17:]
    assert _read(stream, 1) is None


def test_a_read_takes_at_most_its_limit() -> None:
    stream, _ = _stream()
    _give(stream, 0, bytes(range(200)))
    assert _read(stream, 150) == bytes(range(150))
    assert _read(stream, 150) == bytes(range(150, 200))
    assert _read(stream, 150) is None


@pytest.mark.parametrize("size", [1, 10, 1149, 5000])
def test_pieces_in_any_order_come_out_in_order(size: int) -> None:
    data = random.Random(1).randbytes(100_000)
    for seed in range(5):
        stream, budget = _stream()
        offsets = list(range(0, 20 * size, size))
        random.Random(seed).shuffle(offsets)
        for offset in offsets:
            _give(stream, offset, data[offset : offset + size])
        assert _read_all(stream) == data[: 20 * size]
        assert (stream.pieces, stream.held, budget.pieces) == (0, 0, 0)


def test_nothing_is_read_past_a_gap() -> None:
    stream, budget = _stream()
    _give(stream, 5, b"fghij")
    assert _read(stream, 100) is None
    assert not stream.readable
    assert budget.pieces == 1
    _give(stream, 0, b"abcde")
    assert _read_all(stream) == b"abcdefghij"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 25), st.booleans()), max_size=30), st.randoms())
def test_F8_where_pieces_overlap_the_first_one_wins(
    pieces: list[tuple[int, int, bool]], rng: random.Random
) -> None:
    stream, budget = _stream()
    model: dict[int, int] = {}
    found = bytearray()
    for marker, (offset, length, read) in enumerate(pieces):
        content = bytes([marker]) * length
        _give(stream, offset, content)
        for at in range(offset, offset + length):
            model.setdefault(at, marker)
        if read:
            chunk = _read(stream, rng.randint(1, 30))
            found += chunk or b""
        assert budget.pieces == len(stream._pieces) == len(stream._starts)
        assert stream.held <= len(model)
    found += _read_all(stream)
    expected = bytearray()
    while len(expected) in model:
        expected.append(model[len(expected)])
    assert found == expected
    assert stream.held == len(model) - len(expected)


def test_a_read_joins_pieces_up_to_its_limit() -> None:
    stream, _ = _stream()
    data = random.Random(2).randbytes(50_000)
    for start in range(0, 50_000, 5000):
        _give(stream, start, data[start : start + 5000])
    assert _read(stream, 3000) == data[:3000]
    assert _read(stream, 12_000) == data[3000:15_000]
    assert _read(stream, 5000) == data[15_000:20_000]
    assert _read(stream, 1 << 20) == data[20_000:]
    assert _read(stream, 1) is None


def test_a_read_that_waits_for_much_is_readable_when_it_has_come_or_the_end() -> None:
    stream, _ = _stream()
    _give(stream, 0, b"x" * 99)
    assert _read(stream, 1000, 100) is None
    assert not stream.readable
    assert not stream.readable_told
    _give(stream, 99, b"y")
    assert stream.readable
    assert _read(stream, 1000, 100) == b"x" * 99 + b"y"
    _give(stream, 100, b"z")
    assert _read(stream, 1000, 100) is None
    assert _read(stream, 1000) == b"z", "another reader may be content with less"
    assert _read(stream, 1000, 100) is None
    _give(stream, 101, b"!", last=True)
    assert stream.readable
    assert _read(stream, 1000, 100) == b"!"
    assert _read(stream, 1000, 100) == b""


def test_no_more_is_waited_for_than_asked_for_or_half_of_the_window() -> None:
    stream, _ = _stream()
    _give(stream, 0, bytes(10))
    assert _read(stream, 10, 1 << 30) == bytes(10)
    _give(stream, 10, bytes(c.STREAM_WINDOW // 2 - 1))
    assert _read(stream, 1 << 30, 1 << 30) is None
    _give(stream, c.STREAM_WINDOW // 2 + 9, bytes(1))
    assert stream.readable


def test_a_reset_ends_the_wait_for_much() -> None:
    stream, _ = _stream()
    _give(stream, 0, bytes(10))
    assert _read(stream, 100, 100) is None
    stream.reset_untrusted(7, 10)
    assert stream.readable
    with pytest.raises(StreamReset):
        _read(stream, 100, 100)


# --- bounds -----------------------------------------------------------------------------------------------


def test_F8_a_giant_gap_is_code_3_and_keeps_nothing() -> None:
    for offset in (c.STREAM_WINDOW, 2**40, 2**64 - 1):
        stream, _ = _stream()
        assert _code(stream, offset, b"x") == c.CLOSE_FLOW
        assert stream.held == 0


def test_F8_gaps_within_the_window_keep_no_more_than_was_sent() -> None:
    stream, _ = _stream()
    _give(stream, c.STREAM_WINDOW - 1, b"x")
    assert stream.held == 1
    assert _code(stream, c.STREAM_WINDOW, b"x") == c.CLOSE_FLOW


def test_F8_the_credit_of_the_connection_binds_too() -> None:
    budget = ReceiveBudget()
    streams = [ReceiveStream(2 * i, budget) for i in range(5)]
    for stream in streams[:4]:
        _give(stream, c.STREAM_WINDOW - 1, b"x")
    assert _code(streams[4], 0, b"x") == c.CLOSE_FLOW


def test_F8_all_in_one_piece_after_an_end_of_nothing_is_code_5() -> None:
    stream, _ = _stream()
    _give(stream, 0, b"", last=True)
    assert _code(stream, 0, b"x", last=True) == c.CLOSE_PROTOCOL


def test_a_piece_that_nobody_wants_any_more_is_not_kept() -> None:
    stream, budget = _stream()
    assert stream.stop(7)
    _give(stream, 0, b"all of it", last=True)
    assert stream.held == 0
    assert budget.credit.read == budget.credit.received == 9
    assert stream.complete


def test_F8_a_stream_that_comes_in_one_piece_has_no_more_credit_than_others() -> None:
    stream, budget = _stream()
    assert _code(stream, 0, bytes(c.STREAM_WINDOW + 1), last=True) == c.CLOSE_FLOW
    assert stream.held == 0
    budget = ReceiveBudget()
    streams = [ReceiveStream(2 * i, budget) for i in range(5)]
    for stream in streams[:4]:
        _give(stream, 0, bytes(c.STREAM_WINDOW), last=True)
    assert _code(streams[4], 0, b"x", last=True) == c.CLOSE_FLOW
    small = ReceiveStream(10, budget)
    with pytest.raises(StreamError):
        small.take_whole_untrusted(memoryview(b"x"))
    assert streams[0].take(c.STREAM_WINDOW) == [bytes(c.STREAM_WINDOW)]
    budget.credit.update(1.0, 0.1)
    assert small.take_whole_untrusted(memoryview(b"x")) == b"x"
    assert budget.credit.read == c.STREAM_WINDOW + 1


def test_F8_every_other_byte_ends_with_code_9() -> None:
    stream, budget = _stream()
    for i in range(c.MAX_PIECES):
        _give(stream, 2 * i + 1, b"x")
    assert budget.pieces == c.MAX_PIECES
    assert _code(stream, 2 * c.MAX_PIECES + 1, b"x") == c.CLOSE_EXCESSIVE


@pytest.mark.parametrize("backwards", [False, True])
def test_F7_one_byte_frames_are_joined(backwards: bool) -> None:
    stream, _ = _stream()
    offsets = range(1, 20_001)
    for offset in reversed(offsets) if backwards else offsets:
        _give(stream, offset, bytes([offset % 251]))
        assert stream.pieces <= 20_000 // (c.JOIN_SIZE // 2) + 1
    _give(stream, 0, b"\0")
    assert stream.pieces <= 20_000 // (c.JOIN_SIZE // 2) + 1
    assert _read_all(stream) == bytes(i % 251 for i in range(20_001))


def test_F7_a_small_piece_does_not_hold_on_to_its_packet() -> None:
    packet = bytes(64_000)
    for offset in (0, 100_000):  # in order, and not
        stream, _ = _stream()
        stream.receive_untrusted(offset, memoryview(packet)[:31_999], last=False)
        (kept,) = [*stream._ready, *stream._pieces]
        assert isinstance(kept, bytes)
        stream, _ = _stream()
        stream.receive_untrusted(offset, memoryview(packet)[:32_000], last=False)
        (kept,) = [*stream._ready, *stream._pieces]
        assert isinstance(kept, memoryview)
        stream, _ = _stream()
        stream.receive_untrusted(offset, memoryview(bytes(c.JOIN_SIZE)), last=False)
        (kept,) = [*stream._ready, *stream._pieces]
        assert isinstance(kept, bytes)


def test_F7_the_rest_of_a_trimmed_piece_does_not_hold_on_to_its_packet() -> None:
    stream, _ = _stream()
    _give(stream, 10, bytes(49_985))
    stream.receive_untrusted(0, memoryview(bytes(50_000)), last=False)
    assert not any(isinstance(each, memoryview) and len(each) < 25_000 for each in stream._ready)
    assert len(_read_all(stream)) == 50_000


def test_duplicates_are_dropped() -> None:
    stream, _ = _stream()
    for _ in range(3):
        _give(stream, 0, b"abc")
        _give(stream, 5, b"fg")
    assert stream.held == 5
    assert _read_all(stream) == b"abc"
    _give(stream, 0, b"abcde")
    assert _read_all(stream) == b"defg"


# --- the end ----------------------------------------------------------------------------------------------


def test_C7_no_end_is_read_before_all_data_and_the_last_frame_are_there() -> None:
    stream, _ = _stream()
    _give(stream, 0, b"abc")
    assert _read_all(stream) == b"abc"
    assert _read(stream, 9) is None
    _give(stream, 5, b"f", last=True)
    assert _read(stream, 9) is None
    assert not stream.told
    _give(stream, 3, b"de")
    assert _read_all(stream) == b"def"
    assert _read(stream, 9) == b""
    assert stream.told
    assert _read(stream, 9) == b""


def test_an_empty_stream_ends_at_once() -> None:
    stream, _ = _stream()
    assert _read(stream, 9) is None
    _give(stream, 0, b"", last=True)
    assert stream.readable
    assert _read(stream, 9) == b""


@pytest.mark.parametrize(
    ("offset", "size", "last"),
    [(10, 1, False), (0, 11, False), (10, 1, True), (0, 9, True), (0, 0, True), (2**63, 1, False)],
)
def test_F8_data_past_the_end_or_another_end_is_code_5(offset: int, size: int, last: bool) -> None:
    stream, _ = _stream()
    _give(stream, 4, bytes(6), last=True)
    assert _code(stream, offset, bytes(size), last=last) == c.CLOSE_PROTOCOL


def test_F8_an_end_before_what_was_sent_is_code_5() -> None:
    stream, _ = _stream()
    _give(stream, 4, bytes(6))
    assert _code(stream, 0, bytes(9), last=True) == c.CLOSE_PROTOCOL
    with pytest.raises(StreamError) as caught:
        stream.reset_untrusted(1, 9)
    assert caught.value.code == c.CLOSE_PROTOCOL


def test_the_same_end_again_is_fine() -> None:
    stream, _ = _stream()
    _give(stream, 0, b"abc", last=True)
    _give(stream, 0, b"abc", last=True)
    _give(stream, 3, b"", last=True)
    assert _read_all(stream) == b"abc"


# --- reset and stop ---------------------------------------------------------------------------------------


def test_C7_a_reset_is_an_error_each_time_and_drops_what_was_not_read() -> None:
    stream, budget = _stream()
    _give(stream, 0, b"abc")
    _give(stream, 5, b"fgh")
    stream.reset_untrusted(9, 100)
    assert (stream.held, budget.pieces, budget.credit.read, budget.credit.received) == (0, 0, 100, 100)
    for _ in range(2):
        with pytest.raises(StreamReset) as caught:
            _read(stream, 10)
        assert (caught.value.stream, caught.value.code) == (3, 9)
    assert stream.told
    _give(stream, 8, b"late")
    assert stream.held == 0


def test_a_reset_after_everything_came_changes_nothing() -> None:
    stream, _ = _stream()
    _give(stream, 0, b"abc", last=True)
    stream.reset_untrusted(9, 3)
    assert _read_all(stream) == b"abc"
    assert _read(stream, 9) == b""


def test_C7_a_reset_after_all_bytes_but_not_their_end_is_an_error() -> None:
    for data in (b"", b"abc"):
        stream, _ = _stream()
        _give(stream, 0, data)
        stream.reset_untrusted(9, len(data))
        with pytest.raises(StreamReset):
            _read(stream, 9)


@pytest.mark.parametrize("final", [0, 99, 101, 2**63])
def test_F8_a_reset_with_another_final_size_is_code_5(final: int) -> None:
    stream, _ = _stream()
    stream.reset_untrusted(1, 100)
    with pytest.raises(StreamError) as caught:
        stream.reset_untrusted(1, final)
    assert caught.value.code == c.CLOSE_PROTOCOL


@pytest.mark.parametrize("final", [c.STREAM_WINDOW + 1, 2**64 - 1])
def test_F8_the_final_size_of_a_reset_counts_against_the_credit(final: int) -> None:
    stream, _ = _stream()
    with pytest.raises(StreamError) as caught:
        stream.reset_untrusted(1, final)
    assert caught.value.code == c.CLOSE_FLOW


def test_stopped_data_counts_as_read_for_the_connection_only() -> None:
    stream, budget = _stream()
    _give(stream, 0, b"abc")
    _give(stream, 5, b"fgh")
    assert stream.stop(4)
    assert (stream.held, budget.pieces, budget.credit.read) == (0, 0, 8)
    _give(stream, 3, bytes(100))
    assert (stream.held, budget.credit.read) == (0, 103)
    assert stream.credit.limit == c.STREAM_WINDOW
    assert not stream.stop(5)
    assert stream.stop_code == 4
    stream.reset_untrusted(1, 200)
    assert budget.credit.read == budget.credit.received == 200


def test_there_is_nothing_to_stop_once_the_end_is_known() -> None:
    stream, budget = _stream()
    _give(stream, 5, b"fgh", last=True)
    assert not stream.stop(4)
    assert stream.told
    assert budget.credit.read == 8


# --- credit -----------------------------------------------------------------------------------------------


def test_reading_half_of_the_window_gives_credit_and_after_the_end_it_need_not() -> None:
    for last in (False, True):
        stream, _ = _stream()
        _give(stream, 0, bytes(c.STREAM_WINDOW), last=last)
        _read(stream, c.STREAM_WINDOW // 2 - 1)
        assert not stream.update_due
        _read(stream, 1)
        assert stream.update_due is not last
