"""The sending direction of a stream: what is kept, what goes out, what is released (protocol section 6)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import StreamClosed, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import SendBudget
from mp2p_core.proto.frames import STREAM, STREAM_LAST, STREAM_OVERHEAD, StreamData, parse_frames_untrusted
from mp2p_core.proto.send_stream import Buffer, SendStream, Sent, Spans

BIG = 2**62


def _stream() -> tuple[SendStream, SendBudget]:
    budget = SendBudget()
    return SendStream(4, budget), budget


def _new(send: SendStream, room: int, credit: int = BIG) -> tuple[Sent, list[Buffer]]:
    out: list[Buffer] = []
    sent = send.fill_new(room, credit, out)
    assert sent is not None
    return sent, out


def _again(send: SendStream, room: int) -> tuple[Sent, bytes]:
    out: list[Buffer] = []
    sent = send.fill_lost(room, out)
    assert sent is not None
    (frame,) = parse_frames_untrusted(b"".join(out))
    assert isinstance(frame, StreamData)
    assert (frame.offset, frame.offset + len(frame.data)) == sent[2:]
    assert frame.last == (sent[0] == STREAM_LAST)
    return sent, bytes(frame.data)


# --- ranges ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40), st.integers(1, 12)), max_size=40))
def test_spans_are_what_a_set_of_offsets_says(steps: list[tuple[bool, int, int]]) -> None:
    spans, model = Spans(), set[int]()
    for add, start, length in steps:
        end = start + length
        if add:
            spans.add(start, end)
            model |= set(range(start, end))
        else:
            spans.remove(start, end)
            model -= set(range(start, end))
        listed = list(spans)
        assert {offset for a, b in listed for offset in range(a, b)} == model
        assert all(a < b for a, b in listed)
        assert all(before[1] < after[0] for before, after in itertools.pairwise(listed))
        assert len(spans) == len(listed)
        assert bool(spans) == bool(model)
        assert not listed or spans.first == listed[0]
        assert spans.within(start, end) == [(a, b) for a, b in listed if a < end and start < b]


# --- keeping ----------------------------------------------------------------------------------------------


def test_a_head_and_its_data_go_in_together_or_not_at_all_and_without_a_copy() -> None:
    send, budget = _stream()
    data = bytes(c.UNSENT_STREAM)
    size = 4 + len(data)
    assert send.write(data, whole=True, head=b"head") == size  # too much, but nothing else waits
    assert send.write(data, whole=True, head=b"next") == 0
    assert (send.unsent, budget.unsent, send.blocked) == (size, size, True)
    send.limit = BIG
    _, out = _new(send, size + STREAM_OVERHEAD)
    assert b"".join(out[1:]) == b"head" + data
    assert [view.obj for view in out if isinstance(view, memoryview)] == [data]
    assert send.write(b"short", whole=True, head=b"next") == 9
    assert b"".join(_new(send, 100)[1][1:]) == b"nextshort"


def test_large_data_goes_out_as_views_of_what_the_application_gave() -> None:
    send, _ = _stream()
    data = bytes(range(256)) * 256
    assert send.write(data) == len(data)
    sent, out = _new(send, 10_000 + STREAM_OVERHEAD)
    assert sent == (STREAM, 4, 0, 10_000)
    assert isinstance(out[1], memoryview)
    assert out[1].obj is data
    assert [len(each) for each in out] == [STREAM_OVERHEAD, 10_000]
    _, out = _new(send, 100_000)
    assert b"".join(out)[STREAM_OVERHEAD:] == data[10_000:]
    assert send.unsent == 0


def test_small_writes_are_joined_so_that_a_byte_costs_a_byte() -> None:
    send, _ = _stream()
    for i in range(20_000):
        assert send.write(bytes([i % 251])) == 1
    assert send.chunks <= 20_000 // c.JOIN_SIZE + 1
    _, out = _new(send, 100_000)
    assert b"".join(out)[STREAM_OVERHEAD:] == bytes(i % 251 for i in range(20_000))


def test_a_write_takes_what_there_is_room_for_and_says_so() -> None:
    send, budget = _stream()
    assert send.write(bytes(c.UNSENT_STREAM + 5)) == c.UNSENT_STREAM
    assert send.blocked
    assert send.write(b"x") == 0
    _new(send, 1000 + STREAM_OVERHEAD)
    assert send.write(bytes(5000)) == 1000
    assert budget.unsent == c.UNSENT_STREAM


def test_many_streams_together_are_bounded_and_each_keeps_a_floor() -> None:
    budget = SendBudget()
    streams = [SendStream(2 * i, budget) for i in range(200)]
    data = bytes(c.UNSENT_STREAM)
    taken = [send.write(data) for send in streams]
    assert min(taken) == c.UNSENT_FLOOR
    assert budget.unsent == sum(taken) <= c.UNSENT_CONNECTION + len(streams) * c.UNSENT_FLOOR


def test_boundless_credit_of_the_peer_counts_up_to_our_own_cap() -> None:
    send, budget = _stream()
    send.limit = budget.limit = 2**64 - 1
    while send.sendable > 0 or send.write(bytes(c.UNSENT_STREAM)):
        if send.sendable == 0:
            break
        _new(send, 65_000)
    assert budget.unacked == c.STREAM_WINDOW_CAP
    assert send.write(bytes(2 * c.UNSENT_STREAM)) <= c.UNSENT_STREAM
    assert budget.unsent <= c.UNSENT_STREAM
    send.acked(0, 1000, last=False)
    assert send.sendable == 1000


def test_nothing_goes_past_the_peers_credit() -> None:
    send, _ = _stream()
    send.limit = 1500
    send.write(bytes(4000))
    assert _new(send, 65_000)[0][3] == 1500
    assert send.sendable == 0
    send.limit = 1600
    assert _new(send, 65_000, credit=70)[0] == (STREAM, 4, 1500, 1570)


def test_acknowledged_data_is_released_from_the_beginning() -> None:
    send, budget = _stream()
    for _ in range(4):
        send.write(bytes(5000))
    sent = [_new(send, 5000 + STREAM_OVERHEAD)[0] for _ in range(4)]
    assert budget.unacked == 20_000
    send.acked(*sent[2][2:], last=False)
    assert (send.base, send.chunks, send.spans, budget.unacked) == (0, 4, 1, 20_000)
    send.acked(*sent[0][2:], last=False)
    assert (send.base, send.chunks, send.spans, budget.unacked) == (5000, 3, 1, 15_000)
    send.acked(*sent[1][2:], last=False)
    assert (send.base, send.chunks, send.spans, budget.unacked) == (15_000, 1, 0, 5000)


# --- losses -----------------------------------------------------------------------------------------------


def test_lost_data_goes_out_again_as_it_was_in_pieces_that_fit() -> None:
    send, budget = _stream()
    data = bytes(i * 7 % 256 for i in range(9000))
    send.write(data[:4500])
    send.write(data[4500:])
    for _ in range(3):
        _new(send, 3000 + STREAM_OVERHEAD)
    assert not send.urgent
    send.lost(3000, 6000, last=False)
    assert send.urgent
    credit = budget.available
    first, bytes1 = _again(send, 2000 + STREAM_OVERHEAD)
    second, bytes2 = _again(send, 2000 + STREAM_OVERHEAD)
    assert (first[2:], second[2:]) == ((3000, 5000), (5000, 6000))
    assert bytes1 + bytes2 == data[3000:6000]
    assert not send.urgent
    assert budget.available == credit


def test_what_was_acknowledged_after_all_does_not_go_out_again() -> None:
    send, _ = _stream()
    send.write(bytes(9000))
    for _ in range(3):
        _new(send, 3000 + STREAM_OVERHEAD)
    send.lost(0, 9000, last=False)
    send.acked(3000, 6000, last=False)
    assert [_again(send, 5000)[0][2:] for _ in range(2)] == [(0, 3000), (6000, 9000)]
    assert not send.urgent
    send.lost(3000, 9000, last=False)
    assert _again(send, 9000)[0][2:] == (6000, 9000)
    send.acked(0, 3000, last=False)
    send.lost(0, 3000, last=False)
    assert not send.urgent


def test_no_frame_is_begun_in_too_little_room() -> None:
    send, _ = _stream()
    send.write(bytes(100))
    out: list[Buffer] = []
    assert send.fill_new(c.SMALLEST_FRAGMENT - 1, BIG, out) is None
    assert out == []
    assert _new(send, c.SMALLEST_FRAGMENT)[0][3] == c.SMALLEST_FRAGMENT - STREAM_OVERHEAD
    send.write(b"")
    rest = send.unsent
    assert send.fill_new(STREAM_OVERHEAD + rest - 1, 3, out) is not None  # what little credit allows fits
    send.lost(0, 20, last=False)
    assert send.fill_lost(c.SMALLEST_FRAGMENT - 30, out) is None


# --- the end ----------------------------------------------------------------------------------------------


def test_the_end_rides_on_the_last_data() -> None:
    send, _ = _stream()
    send.write(b"abc")
    send.finish()
    assert not send.urgent
    assert _new(send, 100)[0] == (STREAM_LAST, 4, 0, 3)
    assert not send.urgent
    assert send.acked(0, 3, last=True)
    assert send.finished
    assert send.done
    assert not send.acked(0, 3, last=True)


def test_a_bare_end_needs_no_credit() -> None:
    send, _ = _stream()
    send.limit = 3
    send.write(b"abc")
    _new(send, 100)
    send.finish()
    assert send.urgent
    assert _again(send, STREAM_OVERHEAD) == ((STREAM_LAST, 4, 3, 3), b"")
    assert not send.urgent


def test_an_empty_stream_ends_at_zero() -> None:
    send, _ = _stream()
    send.finish()
    assert _again(send, STREAM_OVERHEAD)[0] == (STREAM_LAST, 4, 0, 0)
    assert send.acked(0, 0, last=True)


@pytest.mark.parametrize("bare", [False, True])
def test_C7_a_lost_end_is_said_again(bare: bool) -> None:
    send, _ = _stream()
    send.write(b"abcdef")
    if bare:
        _new(send, 100)
    send.finish()
    sent = _again(send, 100)[0] if bare else _new(send, 100)[0]
    assert sent[0] == STREAM_LAST
    send.lost(*sent[2:], last=True)
    assert _again(send, 100)[0] == sent
    send.lost(0, 6, last=False)  # data without its end
    assert _again(send, 100)[0] == (STREAM_LAST, 4, 0, 6)
    assert not send.urgent


def test_an_end_that_arrived_is_not_said_again() -> None:
    for order in ("al", "la", "lal"):
        send, _ = _stream()
        send.write(bytes(2000))
        send.finish()
        _new(send, 1000)
        _, _, start, end = _new(send, 2000)[0]
        for step in order:
            if step == "a":
                send.acked(start, end, last=True)
            else:
                send.lost(start, end, last=True)
        assert not send.urgent, order


def test_there_is_nothing_to_reset_once_everything_was_acknowledged() -> None:
    send, _ = _stream()
    send.finish()
    send.acked(0, 0, last=True)
    assert not send.reset(1)
    assert send.reset_code is None


def test_C7_the_end_is_not_finished_before_all_data_is_there() -> None:
    send, _ = _stream()
    send.write(bytes(2000))
    send.finish()
    first = _new(send, 1000)[0]
    second = _new(send, 2000)[0]
    assert second[0] == STREAM_LAST
    assert not send.acked(*second[2:], last=True)
    assert not send.finished
    send.lost(*first[2:], last=False)
    assert _again(send, 2000)[0] == first
    assert send.acked(*first[2:], last=False)


def test_nothing_can_be_written_after_the_end_and_ending_twice_is_no_mistake() -> None:
    send, _ = _stream()
    send.finish()
    send.finish()
    with pytest.raises(UsageError):
        send.write(b"x")


def test_a_reset_drops_everything_and_counts_what_was_sent() -> None:
    send, budget = _stream()
    send.write(bytes(5000))
    _new(send, 3000 + STREAM_OVERHEAD)
    send.lost(1000, 2000, last=False)
    send.acked(500, 700, last=False)
    assert send.reset(7)
    assert send.next == 3000
    assert (budget.unsent, budget.unacked, send.chunks, send.spans, send.urgent) == (0, 0, 0, 0, False)
    assert send.sendable == 0
    assert not send.reset(8)
    assert send.reset_code == 7
    send.lost(0, 3000, last=False)
    send.acked(0, 3000, last=False)
    assert not send.urgent
    with pytest.raises(UsageError):
        send.write(b"x")


def test_a_reset_after_the_end_arrived_but_not_the_data_is_not_finished() -> None:
    send, _ = _stream()
    send.write(bytes(2000))
    send.finish()
    _new(send, 1000)
    second = _new(send, 2000)[0]
    send.acked(*second[2:], last=True)
    assert send.reset(1)
    assert not send.finished
    assert not send.done


def test_after_a_reset_the_end_is_not_said_again() -> None:
    send, _ = _stream()
    send.write(b"abc")
    send.finish()
    _new(send, 100)
    send.reset(1)
    send.lost(0, 3, last=True)
    assert not send.urgent


def test_after_a_stop_writing_and_ending_say_so() -> None:
    send, _ = _stream()
    send.write(b"abc")
    send.stopped_code = 77
    send.reset(77)
    assert not send.told
    for call in (lambda: send.write(b"x"), send.finish):
        with pytest.raises(StreamClosed) as caught:
            call()
        assert (caught.value.stream, caught.value.code) == (4, 77)
    assert send.told


def test_a_bare_end_acknowledged_before_the_data_ends_the_stream_once_the_data_is() -> None:
    send, _ = _stream()
    send.write(b"abc")
    _new(send, 100)
    send.finish()
    out: list[bytes | memoryview] = []
    end = send.fill_lost(100, out)
    assert end is not None
    assert end[2:] == (3, 3)
    assert not send.acked(3, 3, last=True)
    assert send.spans == 0
    assert send.acked(0, 3, last=False)
    assert send.done
