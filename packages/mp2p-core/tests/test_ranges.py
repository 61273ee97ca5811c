"""The ranges behind ACK frames: a bounded set of packet numbers."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.constants import MAX_ACK_RANGES, REPLAY_WINDOW
from mp2p_core.proto.ranges import RangeSet


def of(*numbers: int) -> list[tuple[int, int]]:
    ranges = RangeSet()
    for number in numbers:
        ranges.add(number)
    return list(ranges)


def test_numbers_join_on_both_sides() -> None:
    assert of(0, 1, 2) == [(0, 2)]
    assert of(2, 1, 0) == [(0, 2)]
    assert of(0, 2, 1) == [(0, 2)]
    assert of(5, 1, 3) == [(5, 5), (3, 3), (1, 1)]
    assert of(5, 1, 3, 4) == [(3, 5), (1, 1)]
    assert of(5, 1, 3, 2) == [(5, 5), (1, 3)]
    assert of(7, 7, 7) == [(7, 7)]
    assert of(1, 2, 3, 2) == [(1, 3)]


def test_a_new_set_is_empty() -> None:
    ranges = RangeSet()
    assert not ranges
    assert len(ranges) == 0
    ranges.add(0)
    assert ranges


def test_every_second_number_costs_the_lowest_range() -> None:
    numbers = range(0, 1000, 2)
    assert of(*numbers) == [(n, n) for n in list(numbers)[: -MAX_ACK_RANGES - 2 : -1]]


def test_what_a_new_range_leaves_behind_the_replay_window_is_said_no_more() -> None:
    numbers = [0, 10, *range(20, 1000)]
    assert of(*numbers, REPLAY_WINDOW + 10)[1:] == [(20, 999), (10, 10)]
    assert of(*numbers, REPLAY_WINDOW + 11)[1:] == [(20, 999)]


@given(st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**64 - 2)), max_size=120))
def test_agrees_with_a_set(numbers: list[int]) -> None:
    ranges, added = RangeSet(), set[int]()
    for number in numbers:
        if number <= max(added, default=0) - REPLAY_WINDOW:
            continue  # which is not taken
        ranges.add(number)
        added.add(number)
        held = list(ranges)
        assert len(held) == len(ranges) <= MAX_ACK_RANGES + 1
        assert all(low <= high for low, high in held)
        assert all(above[0] > below[1] + 1 for above, below in itertools.pairwise(held))
        assert held[0][1] == max(added)
        assert {n for n in added if any(low <= n <= high for low, high in held)} == {
            n for n in added if n >= held[-1][0]
        }
        assert sum(high - low + 1 for low, high in held) == sum(n >= held[-1][0] for n in added)
