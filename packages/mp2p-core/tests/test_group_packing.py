"""Messages put into datagrams (protocol section 8)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.group.events import Messages
from mp2p_core.proto.group.feed import Entry, Feed
from mp2p_core.proto.group.layout import DATA_OVERHEAD, SIGNATURE_SIZE, parse_data_untrusted
from mp2p_core.proto.group.packing import Outgoing

ROOM = 100
SIZE = DATA_OVERHEAD + ROOM


def unpack(bodies: list[bytes], feed: Feed) -> None:
    for body in bodies:
        data = parse_data_untrusted(body, len(body))
        if data.piece is None:
            feed.take(Entry(data.number, len(data.messages), data.messages))
        else:
            feed.take(Entry(data.number, 0, None, data.piece, data.flags))


@given(st.lists(st.binary(max_size=350), max_size=60), st.lists(st.integers(1, 64), min_size=1))
def test_whatever_is_put_in_comes_out_in_order_and_fits(messages: list[bytes], limits: list[int]) -> None:
    out = Outgoing(SIZE)
    feed = Feed()
    feed.begin(0)
    for message in messages:
        out.put(message)
    ended: list[bytes] = []
    turn = 0
    while out:
        bodies, done, signed = out.batch(limits[turn % len(limits)])
        turn += 1
        assert bodies
        assert len(bodies) == 1 or not signed
        for body in bodies:  # flags and number, which belong to the overhead, and content
            assert len(body) - 5 <= (ROOM - SIGNATURE_SIZE if signed else ROOM)
        ended += done
        unpack(bodies, feed)
    assert ended == messages
    assert out.size == 0
    assert out.next_number == out.numbered == len(messages)
    found = [message for event in feed.events if isinstance(event, Messages) for message in event.messages]
    assert found == messages


def test_one_that_fits_with_its_signature_goes_alone_and_more_go_together() -> None:
    out = Outgoing(SIZE)
    out.put(bytes(ROOM - SIGNATURE_SIZE))
    batch = out.batch(64)
    assert batch.signed
    assert [len(body) - 5 for body in batch.plains] == [ROOM - SIGNATURE_SIZE]
    out.put(bytes(ROOM - SIGNATURE_SIZE + 1))
    batch = out.batch(64)
    assert not batch.signed, "with a signature it would be larger than a datagram"
    assert len(batch.plains) == 1
    for _ in range(3):
        out.put(b"12345")
    assert len(out.batch(64)[0]) == 1
    for _ in range(30):
        out.put(b"12345")
    bodies, done, _ = out.batch(64)
    assert len(done) == 30
    assert len(bodies) == 3
    assert max(len(body) - 5 for body in bodies) <= ROOM


def test_every_lone_body_leaves_room_for_a_signature() -> None:
    out = Outgoing(SIZE)
    for size in (0, 30, 90, 300):
        out.put(bytes(size))
    while out:
        bodies, _, _ = out.batch(1)
        assert len(bodies[0]) - 5 <= ROOM - SIGNATURE_SIZE


def test_a_message_that_is_midway_can_begin_anew_and_is_not_dropped() -> None:
    out = Outgoing(SIZE)
    out.put(b"x" * 250)
    out.put(b"y")
    first, done, _ = out.batch(1)
    assert out.midway
    assert not done
    assert not out.drop_oldest()
    out.restart()
    assert not out.midway
    assert out.size == 251
    assert out.batch(1)[0] == first


def test_a_boundary_ends_the_batch_with_the_message() -> None:
    out = Outgoing(SIZE)
    for _ in range(3):
        out.put(b"x" * 250)
    out.batch(1)
    bodies, done, _ = out.batch(64, boundary=True)
    assert len(done) == 1
    assert len(bodies) == 3  # 36 are gone, 214 are left
    assert not out.midway


def test_dropping_the_oldest_leaves_a_hole_in_the_numbers() -> None:
    out = Outgoing(SIZE)
    for n in range(3):
        out.put(b"%d" % n)
    assert out.drop_oldest()
    assert out.next_number == 1
    feed = Feed()
    feed.begin(0)
    unpack(out.batch(1)[0], feed)
    assert [type(event).__name__ for event in feed.events] == ["Gap", "Messages"]


def test_without_subscribers_everything_is_drained() -> None:
    out = Outgoing(SIZE)
    for _ in range(3):
        out.put(b"x" * 250)
    out.batch(1)
    assert out.drain() == [b"x" * 250] * 3
    assert not out
    assert not out.midway
    assert (out.size, out.next_number) == (0, 3)
