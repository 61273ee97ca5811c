"""Large packets cut into parts and put together again (section 7)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto.parts import (
    PART_HEADER_SIZE,
    Reassembly,
    cut,
    parse_part_untrusted,
    part_header,
    part_room,
    split_untrusted,
)

ID = b"receiver"


def datagrams(sealed: bytes, number: int, size: int) -> list[bytes]:
    joined = b"".join(cut(sealed, ID, number, size))
    return [joined[at : at + size] for at in range(0, len(joined), size)]


@given(st.integers(2, 64), st.integers(100, 1500), st.data())
def test_what_is_cut_comes_together_in_any_order(count: int, size: int, data: st.DataObject) -> None:
    length = data.draw(
        st.integers((count - 1) * (size - PART_HEADER_SIZE) + 1, count * (size - PART_HEADER_SIZE))
    )
    sealed = random.Random(length).randbytes(length)
    parts = datagrams(sealed, 7, size)
    assert len(parts) == count
    assert {len(part) for part in parts[:-1]} == {size}
    data.draw(st.randoms(use_true_random=False)).shuffle(parts)
    reassembly = Reassembly()
    whole = [out for part in parts if (out := add(reassembly, part)) is not None]
    assert whole == [sealed]
    assert len(reassembly) == 0


def add(reassembly: Reassembly, datagram: bytes) -> bytes | None:
    index, count, _, number = parse_part_untrusted(datagram)
    return reassembly.add_untrusted(index, count, number, datagram[PART_HEADER_SIZE:])


def test_the_room_is_what_cut_makes_of_it() -> None:
    for count in (2, 3, 44):
        sealed = bytes(part_room(1200, count) + 16)
        assert len(datagrams(sealed, 1, 1200)) == count
        assert len(datagrams(sealed + b"x", 1, 1200)) == count + 1


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda p: p[:PART_HEADER_SIZE], id="nothing after the header"),
        pytest.param(lambda p: p[:5], id="cut"),
        pytest.param(lambda p: p[:1] + b"\x05" + p[2:], id="index not below count"),
        pytest.param(lambda p: p[:2] + b"\x01" + p[3:], id="count 1"),
        pytest.param(lambda p: p[:2] + b"\x41" + p[3:], id="count 65"),
        pytest.param(lambda p: p[:3] + b"\x01" + p[4:], id="reserved"),
    ],
)
def test_a_malformed_part_is_refused(broken: object) -> None:
    part = part_header(ID, 1, 5) + b"body"
    assert parse_part_untrusted(part) == (0, 5, ID, 1)
    with pytest.raises(BadPacket):
        parse_part_untrusted(broken(part))  # type: ignore[operator] # a lambda, whose type pytest.param forgets


def test_a_repeated_part_counts_once_and_a_contradiction_costs_only_its_own_packet() -> None:
    reassembly = Reassembly()
    one, other = datagrams(b"a" * 250, 1, 120), datagrams(b"b" * 250, 2, 120)
    for part in (one[0], one[0], other[0], other[1], other[1]):
        assert add(reassembly, part) is None
    # Forged: another count for packet 1, which throws away what there was of it.
    assert reassembly.add_untrusted(0, 9, 1, b"forged") is None
    assert add(reassembly, other[2]) == b"b" * 250
    assert len(reassembly) == 1
    assert [add(reassembly, part) for part in one] == [None, None, b"a" * 250]


def test_memory_is_bounded_and_the_oldest_packet_goes() -> None:
    reassembly = Reassembly()
    for number in range(1000):
        assert reassembly.add_untrusted(0, 2, number, bytes(60_000)) is None
    assert len(reassembly) == 64
    assert reassembly.add_untrusted(1, 2, 0, b"x") is None
    assert reassembly.add_untrusted(1, 2, 999, b"x") == bytes(60_000) + b"x"
    reassembly = Reassembly()
    for number in range(64):
        for index in range(2):
            reassembly.add_untrusted(index, 3, number, bytes(60_000))
    assert len(reassembly) == (4 << 20) // 120_000


def test_a_train_gives_whole_packets_and_leaves_the_rest_as_it_is() -> None:
    size = 120
    whole, shorter = b"w" * 500, b"s" * 150
    train = b"".join(datagrams(whole, 1, size))
    found = list(split_untrusted(train, size))
    assert found == [((0, 5, ID, 1), whole)]
    # A packet of full parts can be followed by another; one whose start is missing stays as datagrams.
    full = b"f" * (3 * (size - PART_HEADER_SIZE))
    train = b"".join(datagrams(full, 2, size) + datagrams(shorter, 3, size))
    assert [body for header, body in split_untrusted(train, size) if header] == [full, shorter]
    tail = datagrams(full, 4, size)[1:] + datagrams(full, 5, size)
    split = list(split_untrusted(b"".join(tail), size))
    assert [(header and header[3], body) for header, body in split] == [
        (None, tail[0]),
        (None, tail[1]),
        (5, full),
    ]


@given(st.binary(max_size=600), st.integers(1, 200))
def test_no_train_raises(buffer: bytes, size: int) -> None:
    for prefix in (b"", part_header(ID, 1, 3), part_header(ID, 1, 2)):
        total = prefix + buffer
        pieces = list(split_untrusted(total, size))
        if all(header is None for header, _ in pieces):
            assert b"".join(body for _, body in pieces) == total
