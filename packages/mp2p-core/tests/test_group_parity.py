"""Sums that restore whatever is missing (protocol section 8)."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group import parity as p
from mp2p_core.proto.group.keys import SendKeys
from mp2p_core.proto.group.sealing import Sealer

CHANNEL = b"channel-"


def datagram(seq: int, rng: random.Random, size: int | None = None) -> bytes:
    body = rng.randbytes(rng.randrange(17, 200) if size is None else size)
    return la.group_header(rng.randrange(3), CHANNEL, seq) + body


def block(seed: int, number: int = 0, count: int = c.PARITY_BLOCK) -> dict[int, bytes]:
    rng = random.Random(seed)
    first = p.block_start(number)
    return {seq: datagram(seq, rng) for seq in range(first, first + count)}


def take(sent: dict[int, bytes], missing: set[int]) -> p.Block:
    found = p.Block()
    for seq, each in sent.items():
        if seq not in missing:
            found.add(seq, each, proven=True)
    return found


def test_the_field_is_that_of_the_protocol() -> None:
    def multiply(a: int, b: int) -> int:
        product = 0
        while b:
            product ^= a if b & 1 else 0
            a = a << 1 ^ (0x11D if a & 0x80 else 0)
            b >>= 1
        return product

    for a in (0, 1, 2, 3, 0x53, 0x80, 0xFF):
        assert list(p._TIMES[a]) == [multiply(a, b) for b in range(256)]
    assert all(multiply(x, p._INVERSE[x]) == 1 for x in range(1, 256))


def test_a_sum_is_that_of_the_protocol_to_the_byte() -> None:
    """Two datagrams, written out by hand from the document."""
    one = la.group_header(1, CHANNEL, 1) + b"\x05" * 20
    two = la.group_header(2, CHANNEL, 2) + b"\x07" * 30
    symbols = [
        (40).to_bytes(2, "little") + (1).to_bytes(2, "little") + b"\x05" * 20 + bytes(10),
        (50).to_bytes(2, "little") + (2).to_bytes(2, "little") + b"\x07" * 30,
    ]
    factors = [p._INVERSE[(64 + 3) ^ place] for place in (0, 1)]
    expected = bytes(p._TIMES[factors[0]][a] ^ p._TIMES[factors[1]][b] for a, b in zip(*symbols, strict=True))
    assert p.parity_sum([one, two], 3) == expected
    assert p.parity_seq(5, 3, 2) == 2**63 + (5 << 16) + (3 << 8) + 2
    assert p.parity_fields(p.parity_seq(5, 3, 2)) == (5, 3, 2)


def test_blocks_have_64_seqs_from_1_on() -> None:
    assert [p.block_of(seq) for seq in (1, 64, 65, 128, 129)] == [0, 0, 1, 1, 2]
    assert [p.block_start(number) for number in (0, 1)] == [1, 65]


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sets(st.integers(1, 64), min_size=1, max_size=20), st.data())
def test_any_sums_restore_as_many_datagrams(seed: int, missing: set[int], data: st.DataObject) -> None:
    sent = block(seed)
    found = take(sent, missing)
    indices = data.draw(st.permutations(range(p.MAX_PARITIES)))[: len(missing)]
    for n, index in enumerate(indices):
        assert found.restore_untrusted(CHANNEL, 0) == [], f"with {n} sums"
        found.add_sum(index, 64, p.parity_sum(list(sent.values()), index))
    assert found.restore_untrusted(CHANNEL, 0) == [sent[seq] for seq in sorted(missing)]


def test_sums_of_more_and_more_of_a_block_help_each_other() -> None:
    sent = block(7)
    everything = list(sent.values())
    found = take(sent, {5, 20, 40, 41})
    for index, count in enumerate((10, 30, 64)):
        found.add_sum(index, count, p.parity_sum(everything[:count], index))
    assert found.restore_untrusted(CHANNEL, 0) == [sent[5]]
    found.add(5, sent[5], proven=True)
    assert found.restore_untrusted(CHANNEL, 0) == [sent[20]]
    found.add(20, sent[20], proven=True)
    assert found.restore_untrusted(CHANNEL, 0) == []
    assert found.unrestored([40, 41]) == [41]
    found.add(41, sent[41], proven=True)
    assert found.restore_untrusted(CHANNEL, 0) == [sent[40]]


def test_datagrams_that_come_after_the_sum_count_too() -> None:
    sent = block(3)
    found = p.Block()
    found.add_sum(9, 64, p.parity_sum(list(sent.values()), 9))
    for seq, each in sent.items():
        if seq != 33:
            found.add(seq, each, proven=True)
    assert found.restore_untrusted(CHANNEL, 0) == [sent[33]]


def test_a_sum_of_what_is_all_there_is_forgotten() -> None:
    sent = block(3)
    found = take(sent, {50})
    found.add_sum(0, 20, p.parity_sum(list(sent.values())[:20], 0))
    assert found.restore_untrusted(CHANNEL, 0) == []
    assert not found.has_sums
    assert found.unrestored([50]) == [50]


def test_a_datagram_that_proves_false_takes_the_sums_with_it() -> None:
    sent = block(3)
    found = take(sent, {7, 8})
    found.add(7, sent[7][:25] + b"!" + sent[7][26:], proven=False)
    found.add_sum(0, 64, p.parity_sum(list(sent.values()), 0))
    assert found.restore_untrusted(CHANNEL, 0) != [sent[8]], "made from a false one"
    found.add(7, sent[7], proven=True)
    assert not found.has_sums
    found.add_sum(1, 64, p.parity_sum(list(sent.values()), 1))
    assert found.restore_untrusted(CHANNEL, 0) == [sent[8]]
    found.add(7, b"another claim", proven=False)
    assert found._datagrams[6] == sent[7]


@given(st.lists(st.tuples(st.integers(0, 191), st.integers(1, 64), st.binary(max_size=300)), max_size=6))
def test_P1_forged_sums_raise_nothing(sums: list[tuple[int, int, bytes]]) -> None:
    found = take(block(1), {3, 9, 60})
    for each in sums:
        found.add_sum(*each)
        with contextlib.suppress(BadPacket):
            for made in found.restore_untrusted(CHANNEL, 0):
                assert len(made) > c.GROUP_HEADER_SIZE


def test_a_spoiled_block_takes_no_sums_any_more() -> None:
    sent = block(1)
    found = take(sent, {3})
    found.add_sum(0, 64, bytes(3))
    with pytest.raises(BadPacket):
        found.restore_untrusted(CHANNEL, 0)
    found.spoil()
    found.add_sum(1, 64, p.parity_sum(list(sent.values()), 1))
    assert found.restore_untrusted(CHANNEL, 0) == []
    assert found.unrestored([3]) == [3]


def test_sums_are_bounded() -> None:
    found = take(block(1), set(range(1, 65)))
    for index in range(p.MAX_PARITIES):
        found.add_sum(index, 64, b"x")
    assert len(found._sums) == c.PARITY_BLOCK


def test_a_sum_of_the_largest_datagrams_still_fits() -> None:
    sealer = Sealer(b"P" * 32, SendKeys(1, random.Random(1).randbytes))
    largest = [la.group_header(0, CHANNEL, seq) + bytes(1179 - 20) for seq in range(1, 65)]
    sealed = sealer.parity(p.parity_seq(0, 0, 64), p.parity_sum(largest, 0))
    assert len(sealed) == 1179 + p.PARITY_OVERHEAD == 1200
