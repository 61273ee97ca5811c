"""The timer heap: everything comes up when it is due, and a busy session does not fill it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.timers import Timers


class Item:
    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.queued: list[float] = []

    def timeout(self) -> float | None:
        return self.deadline


def test_items_come_up_in_the_order_of_their_deadlines() -> None:
    timers: Timers[Item] = Timers()
    items = [Item(deadline) for deadline in (3.0, 1.0, 2.0)]
    for item in items:
        timers.schedule(item)
    assert timers.next() == 1.0
    assert timers.due(0.5) == []
    assert timers.due(2.5) == [items[1], items[2]]
    assert timers.due(2.5) == []
    assert timers.next() == 3.0


def test_a_deadline_that_moved_later_is_looked_at_again() -> None:
    timers: Timers[Item] = Timers()
    item = Item(1.0)
    timers.schedule(item)
    item.deadline = 2.0
    assert timers.due(1.0) == []
    assert timers.next() == 2.0
    assert timers.due(2.0) == [item]


def test_a_deadline_that_moved_earlier_comes_up_once() -> None:
    timers: Timers[Item] = Timers()
    item = Item(5.0)
    timers.schedule(item)
    item.deadline = 1.0
    timers.schedule(item)
    assert timers.due(5.0) == [item]
    assert timers.next() is None


def test_an_item_without_a_deadline_leaves() -> None:
    timers: Timers[Item] = Timers()
    item = Item(1.0)
    timers.schedule(item)
    item.deadline = None
    assert timers.due(2.0) == []
    assert len(timers) == 0


def test_a_deadline_that_moves_back_and_forth_holds_a_few_places() -> None:
    """What acknowledgements do: due now, due in 25 ms, not due for ten seconds, 5,000 times a second."""
    timers: Timers[Item] = Timers()
    item = Item(10.0)
    timers.schedule(item)
    for n in range(20_000):
        now = n / 5000
        for deadline in (now + 0.025, now, now + 10):
            item.deadline = deadline
            timers.schedule(item)
        assert timers.due(now) == []
        assert len(timers) <= 4


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.one_of(st.none(), st.floats(0, 10)), st.floats(0, 1)), max_size=100
    )
)
def test_nothing_due_is_missed_and_nothing_early_comes_up(
    steps: list[tuple[int, float | None, float]],
) -> None:
    timers: Timers[Item] = Timers()
    items = [Item(None) for _ in range(5)]
    now = 0.0
    for which, ahead, pause in steps:
        item = items[which]
        item.deadline = None if ahead is None else now + ahead
        timers.schedule(item)
        now += pause
        first = min((item.deadline for item in items if item.deadline is not None), default=math.inf)
        look = timers.next()
        assert (math.inf if look is None else look) <= first
        expected = {id(item) for item in items if item.deadline is not None and item.deadline <= now}
        found = timers.due(now)
        assert {id(item) for item in found} == expected
        assert len(found) == len(expected)
        for item in found:
            item.deadline = None
        for item in items:
            assert item.queued == sorted(item.queued, reverse=True)
