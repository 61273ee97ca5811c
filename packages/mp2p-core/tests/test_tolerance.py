"""Which losses are taken for chance (protocol section 6)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.tolerance import LossTolerance


def forgiven(tolerance: LossTolerance, datagrams: int = 1) -> int:
    """Lose packets until one counts as congestion; returns how many did not."""
    count = 0
    while tolerance.forgives(datagrams, queued=False):
        count += 1
        assert count < 1000
    return count


def test_eight_losses_at_once_are_chance_and_the_ninth_is_not() -> None:
    tolerance = LossTolerance()
    assert forgiven(tolerance) == 8
    assert not tolerance.forgives(1, queued=False)


def test_fifty_datagrams_that_arrive_make_up_for_one_that_is_lost() -> None:
    tolerance = LossTolerance()
    forgiven(tolerance)
    tolerance.arrived(49)
    assert not tolerance.forgives(1, queued=False)
    tolerance.arrived(2)
    assert tolerance.forgives(1, queued=False)
    assert not tolerance.forgives(1, queued=False)


def test_no_more_than_eight_are_saved() -> None:
    tolerance = LossTolerance()
    for _ in range(1000):
        tolerance.arrived(44)
    assert forgiven(tolerance) == 8


def test_a_loss_while_a_queue_stands_is_congestion_and_costs_nothing_saved() -> None:
    tolerance = LossTolerance()
    for _ in range(20):
        assert not tolerance.forgives(1, queued=True)
    assert forgiven(tolerance) == 8


@pytest.mark.parametrize(("datagrams", "count"), [(1, 8), (16, 8), (17, 4), (32, 4), (33, 2), (64, 2)])
def test_a_packet_of_many_datagrams_counts_for_more(datagrams: int, count: int) -> None:
    assert forgiven(LossTolerance(), datagrams) == count


def congestions(loss: float, datagrams: int, packets: int) -> int:
    """Count how often packets lost by chance look like congestion."""
    dice, tolerance, found = random.Random(1), LossTolerance(), 0
    for _ in range(packets):
        if dice.random() < (1 - loss) ** datagrams:
            tolerance.arrived(datagrams)
        elif not tolerance.forgives(datagrams, queued=False):
            found += 1
    return found


@pytest.mark.parametrize("datagrams", [1, 8, 16])
def test_one_percent_is_chance(datagrams: int) -> None:
    assert congestions(0.01, datagrams, 400_000 // datagrams) < 10


@pytest.mark.parametrize("datagrams", [1, 8, 16])
def test_four_percent_is_congestion(datagrams: int) -> None:
    assert congestions(0.04, datagrams, 40_000 // datagrams) > 100


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 64), st.booleans()), max_size=300))
def test_it_never_forgives_more_than_its_share(steps: list[tuple[bool, int, bool]]) -> None:
    tolerance, arrived, lost = LossTolerance(), 0, 0
    for good, datagrams, queued in steps:
        if good:
            tolerance.arrived(datagrams)
            arrived += datagrams
        elif tolerance.forgives(datagrams, queued=queued):
            lost += 1
        assert lost <= 8 + 0.02 * arrived + 1e-6
