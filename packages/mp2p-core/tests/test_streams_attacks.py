"""What a hostile peer or network can do through streams (protocol section 6)."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import StreamError
from mp2p_core.proto.frames import (
    STREAM,
    MaxData,
    MaxStreamData,
    MaxStreams,
    ResetStream,
    StopSending,
    StreamData,
    StreamFrame,
    parse_frames_untrusted,
)
from mp2p_core.proto.send_stream import Buffer, Sent
from mp2p_core.proto.streams import Streams

ROOM = 1166


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


# --- attacks ----------------------------------------------------------------------------------------------


def test_F7_opening_and_cancelling_without_being_served_is_code_4() -> None:
    _, b = _pair()
    with pytest.raises(StreamError) as caught:  # noqa: PT012 - which of the frames it is does not matter
        for i in range(10_000):
            _give(b, [_data(2 * i, 0, b"x"), ResetStream(2 * i, 1, 1)])
    assert caught.value.code == c.CLOSE_STREAMS
    assert b.sizes()["streams"] == c.MAX_OPEN_STREAMS
    assert b.sizes()["receive bytes"] == 0


@pytest.mark.parametrize("stop", [False, True])
def test_F7_opening_and_cancelling_faster_than_an_application_can_serve_is_code_9(stop: bool) -> None:
    _, b = _pair()

    def one(i: int, now: float) -> None:
        number = 2 * i
        end = (
            [_data(number, 0, b"x", last=True), StopSending(number, 1)]
            if stop
            else [ResetStream(number, 1, 1)]
        )
        _give(b, [_data(number, 0, b"x"), *end], now)
        b.stop(number, 0)
        b.reset(number, 0)
        while b.wants_to_send():
            b.acked(_packet(b)[1])
        b.events.clear()

    for i in range(c.RESET_LIMIT):
        one(i, 100.0 + i / c.RESET_LIMIT)
    assert b.sizes()["streams"] == 0
    with pytest.raises(StreamError) as caught:
        one(c.RESET_LIMIT, 100.0 + c.RESET_SPAN - 0.001)
    assert caught.value.code == c.CLOSE_EXCESSIVE
    assert b.sizes()["cancelled"] == c.RESET_LIMIT


def test_F7_cancelling_slowly_or_what_was_served_is_no_attack() -> None:
    _, b = _pair()
    for i in range(3 * c.RESET_LIMIT):
        served = i % 2 == 0
        _give(b, [_data(2 * i, 0, b"x")], float(i))
        if served:
            b.write(2 * i, b"answer")
        now = float(i // 2) * c.RESET_SPAN / (c.RESET_LIMIT - 1) if served else float(i)
        _give(b, [ResetStream(2 * i, 1, 1), ResetStream(2 * i, 1, 1), StopSending(2 * i, 1)], now)
        b.stop(2 * i, 0)
        b.reset(2 * i, 0)
        while b.wants_to_send():
            b.acked(_packet(b)[1])
        b.events.clear()


def test_F7_a_stream_is_cancelled_once_and_streams_of_ours_do_not_count() -> None:
    a, b = _pair()
    for i in range(c.MAX_OPEN_STREAMS):
        _give(b, [*3 * [ResetStream(2 * i, 1, 0)], StopSending(2 * i, 1)])
    assert b.sizes()["cancelled"] == c.MAX_OPEN_STREAMS
    _give(a, [MaxStreams(1000)])
    for _ in range(c.RESET_LIMIT + 1):
        stream = a.open()
        assert stream is not None
        _give(a, [ResetStream(stream, 1, 0)])
    assert a.sizes()["cancelled"] == 0


def test_F7_a_peer_that_never_acknowledges_and_gives_boundless_credit_costs_a_bounded_amount() -> None:
    a, b = _pair()
    grants: list[StreamFrame] = [MaxData(2**64 - 1), MaxStreams(2**31)]
    for i in range(200):
        stream = a.open() if i < c.MAX_OPEN_STREAMS else None
        if stream is not None:
            grants.append(MaxStreamData(stream, 2**64 - 1))
    _give(a, grants)
    data = bytes(c.UNSENT_STREAM)
    taken = 1
    while taken or a.wants_to_send():
        taken = sum(a.write(2 * i, data) for i in range(c.MAX_OPEN_STREAMS))
        while a.wants_to_send():
            _packet(a, 65_000)
    floor = c.MAX_OPEN_STREAMS * c.UNSENT_FLOOR
    assert a.sizes()["send bytes"] <= c.CONNECTION_WINDOW_CAP + c.UNSENT_CONNECTION + floor
    assert b.sizes()["streams"] == 0


def test_F7_a_peer_that_acknowledges_no_answer_has_as_many_again_open_and_no_more() -> None:
    _, b = _pair()
    opened = 0
    while opened < min(b.table.accept_limit, 3 * c.MAX_OPEN_STREAMS):
        _give(b, [StreamData(2 * opened, 0, memoryview(b"call"), last=True)])
        assert b.events.pop()[2] == b"call"
        assert b.write_last(2 * opened, b"answer")
        while b.wants_to_send():
            _packet(b)  # and nothing is acknowledged
        opened += 1
    assert opened == b.sizes()["streams"] == 2 * c.MAX_OPEN_STREAMS
    with pytest.raises(StreamError, match="allowed"):
        _give(b, [StreamData(2 * opened, 0, memoryview(b"call"), last=True)])


def test_F7_an_answer_to_what_nobody_has_read_makes_no_place_for_another_call() -> None:
    _, b = _pair()
    for i in range(c.MAX_OPEN_STREAMS):
        _give(b, [StreamData(2 * i, 0, memoryview(b"ca"), last=False)])
        _give(b, [StreamData(2 * i, 2, memoryview(b"ll"), last=i % 2 == 0)])
        if i % 2:
            b.stop(2 * i, 0)  # the end has yet to come, and counts against the credits
        assert b.write_last(2 * i, b"answer")
    assert b.table.accept_limit == c.MAX_OPEN_STREAMS


def test_F7_answered_and_acknowledged_calls_make_place_once() -> None:
    a, b = _pair()
    for opened in range(1, 3 * c.MAX_OPEN_STREAMS):
        stream = a.open()
        assert stream is not None
        assert a.write_last(stream, b"call")
        _exchange(a, b)
        assert b.events.pop()[2] == b"call"
        assert b.write_last(stream, b"answer")
        _exchange(a, b)
        assert a.events.pop()[2] == b"answer"
        assert b.table.accept_limit <= opened + c.MAX_OPEN_STREAMS
    assert b.sizes()["streams"] == 0


def test_F7_a_large_answer_makes_no_place_for_another_call() -> None:
    _, b = _pair()
    for i in range(c.MAX_OPEN_STREAMS):
        _give(b, [StreamData(2 * i, 0, memoryview(b"call"), last=True)])
        assert b.events.pop()[2] == b"call"
        assert b.write_last(2 * i, bytes(c.JOIN_SIZE + 1))
    assert b.table.accept_limit == c.MAX_OPEN_STREAMS


def test_F7_after_boundless_credit_an_acknowledgement_lets_the_next_bytes_out() -> None:
    a, _ = _pair()
    a.open()
    _give(a, [MaxData(2**64 - 1), MaxStreamData(0, 2**64 - 1)])
    sent: list[Sent] = []
    while a.write(0, bytes(c.UNSENT_STREAM)):
        while a.wants_to_send():
            sent += _packet(a, 65_000)[1]
    assert sent[-1][3] == c.STREAM_WINDOW_CAP
    a.acked(sent[:1])
    assert _packet(a, 65_535)[1] == [(STREAM, 0, c.STREAM_WINDOW_CAP, c.STREAM_WINDOW_CAP + sent[0][3])]
    assert not a.wants_to_send()


def test_F7_a_reader_that_never_reads_holds_no_more_than_the_window() -> None:
    _, b = _pair()
    chunk = bytes(64 * 1024)
    with pytest.raises(StreamError) as caught:  # noqa: PT012 - which of the frames it is does not matter
        for offset in range(0, c.STREAM_WINDOW, len(chunk)):
            for i in range(c.MAX_OPEN_STREAMS):
                _give(b, [_data(2 * i, offset, chunk)])
    assert caught.value.code == c.CLOSE_FLOW
    assert b.sizes()["receive bytes"] == c.CONNECTION_WINDOW


def test_F8_every_other_byte_over_many_streams_is_code_9() -> None:
    _, b = _pair()
    each = c.MAX_PIECES // c.MAX_OPEN_STREAMS + 1
    with pytest.raises(StreamError) as caught:  # noqa: PT012 - which of the frames it is does not matter
        for i in range(c.MAX_OPEN_STREAMS):
            _give(b, [_data(2 * i, 2 * k + 1, b"x") for k in range(each)])
    assert caught.value.code == c.CLOSE_EXCESSIVE
    assert b.sizes()["out of order"] == c.MAX_PIECES + 1


def test_F8_pieces_are_counted_out_again_when_they_are_read_or_dropped() -> None:
    _, b = _pair()
    for i in range(3):
        _give(b, [_data(2 * i, 2 * k + 1, b"x") for k in range(10)])
    assert b.sizes()["out of order"] == 30
    b.stop(0, 1)
    _give(b, [ResetStream(2, 1, 20)])
    _give(b, [_data(4, 0, bytes(19))])
    assert b.sizes()["out of order"] == 0


def test_giant_credit_does_no_harm() -> None:
    a, _ = _pair()
    a.open()
    _give(a, [MaxData(2**64 - 1), MaxStreamData(0, 2**64 - 1), MaxData(0), MaxStreamData(0, 0)])
    a.write(0, bytes(c.UNSENT_STREAM))
    sent = [each for _ in range(30) for each in _packet(a, 65_000)[1]]
    assert sum(end - start for _, _, start, end in sent) == c.UNSENT_STREAM


# --- a bad network ---


@pytest.mark.parametrize("seed", range(4))
def test_F7_bytes_arrive_whole_through_loss_disorder_and_duplicates(seed: int) -> None:
    rng = random.Random(seed)
    pair = _pair()
    texts = {
        (side, stream): rng.randbytes(rng.choice([0, 1, 5000, 400_000]))
        for side in (0, 1)
        for stream in (0, 1, 2, 3)
    }
    found = {key: bytearray() for key in texts}
    ended: set[tuple[int, int]] = set()
    for endpoint in pair:
        for _ in range(2):
            endpoint.open()
    left = {key: memoryview(text) for key, text in texts.items()}
    finished: set[tuple[int, int]] = set()
    flying: list[tuple[int, list[StreamFrame], list[Sent]]] = []
    now = 0.0
    while len(ended) < len(texts):
        now += 0.001
        for key, rest in left.items():
            side, stream = key
            if key in finished or (stream & 1 != side and not pair[side].table.live.get(stream)):
                continue
            left[key] = rest[pair[side].write(stream, rest[:50_000]) :]
            if not left[key]:
                pair[side].finish(stream)
                finished.add(key)
        senders = [side for side in (0, 1) if pair[side].wants_to_send()]
        flying.extend((side, *_packet(pair[side], rng.choice([ROOM, ROOM, 20_000]))) for side in senders)
        while len(flying) > 30 or (flying and not any(each.wants_to_send() for each in pair)):
            side, frames, sent = flying.pop(rng.randrange(min(len(flying), 10)))
            fate = rng.random()
            if fate < 0.2:
                pair[side].lost(sent)
                continue
            _give(pair[1 - side], frames, now)
            if fate < 0.3:
                _give(pair[1 - side], frames, now)
            if fate < 0.4:
                pair[side].lost(sent)  # wrongly: it did arrive
            pair[side].acked(sent)
        for side in (0, 1):
            for _, stream, whole in pair[1 - side].events:
                if whole:
                    assert not found[side, stream]
                    found[side, stream] += whole
                    ended.add((side, stream))
            pair[1 - side].events.clear()
        for key in texts.keys() - ended:
            side, stream = key
            reader = pair[1 - side]
            while (
                reader.table.live.get(stream)
                and (chunk := reader.read(stream, rng.randint(1, 99_999))) is not None
            ):
                found[key] += chunk
                if not chunk:
                    ended.add(key)
                    break
    assert {key: bytes(data) for key, data in found.items()} == texts
    _exchange(*pair)
    for endpoint in pair:
        sizes = endpoint.sizes()
        assert all(sizes[key] == 0 for key in sizes if key not in ("events", "gone")), sizes
