"""What of an epoch has come, and in which order it goes on (protocol section 8; rows G4, G17)."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.window import Window


def take(window: Window[int], seq: int) -> list[int | None]:
    if not window.is_new(seq):
        return []
    if window.in_order(seq):
        return [seq]
    window.extend(seq)
    window.take(seq, seq)
    return list(window.passed())


@given(st.lists(st.integers(1, 40), max_size=80), st.lists(st.integers(1, 40), max_size=10))
def test_everything_is_passed_on_once_and_in_order(arrivals: list[int], given_up: list[int]) -> None:
    window: Window[int] = Window(1)
    passed: list[int | None] = []
    taken: set[int] = set()
    lost: set[int] = set()
    for n, seq in enumerate(arrivals):
        if seq not in lost:
            taken.add(seq)
        passed += take(window, seq)
        if n < len(given_up) and given_up[n] <= window.highest and given_up[n] not in taken:
            lost.add(given_up[n])
            window.give_up(given_up[n])
            passed += list(window.passed())
    expected: list[int | None] = []
    at = 1
    while at in taken or at in lost:
        expected.append(at if at in taken else None)
        at += 1
    assert passed == expected
    assert window.base == at
    assert window.highest == max(taken, default=0)


def test_what_is_missing_is_named_once() -> None:
    window: Window[int] = Window(1)
    take(window, 1)
    assert list(window.extend(5)) == [2, 3, 4, 5]
    assert list(window.extend(5)) == []
    assert list(window.extend(7)) == [6, 7]


def test_a_jump_costs_no_more_than_a_window() -> None:
    window: Window[int] = Window(1)
    take(window, 1)
    take(window, 3)
    far = 2**62
    assert len(window.extend(far)) == c.GROUP_WINDOW
    window.take(far, far)
    assert list(window.passed()) == [None, 3, None]
    assert window.base == far + 1 - c.GROUP_WINDOW
    assert not window.is_new(window.base - 1)
    assert window.is_new(window.base)


def test_a_jump_past_a_full_window_keeps_what_is_in_order() -> None:
    window: Window[int] = Window(1)
    passed: list[int | None] = []
    seqs = [seq for seq in range(1, 3 * c.GROUP_WINDOW) if seq % 100]
    for seq in seqs:
        passed += take(window, seq)
    window.last = window.highest
    for seq in range(window.base, window.highest + 1):
        window.give_up(seq)
    passed += list(window.passed())
    assert [seq for seq in passed if seq is not None] == seqs
    assert window.finished


def test_the_end_of_an_epoch_is_final() -> None:
    window: Window[int] = Window(1)
    take(window, 1)
    window.last = 3
    assert list(window.extend(10)) == [2, 3]
    assert not window.is_new(4)
    take(window, 3)
    assert not window.finished
    assert take(window, 2) == [2, 3]
    assert window.finished


def test_an_epoch_in_which_nothing_was_sent_is_finished_at_once() -> None:
    window: Window[int] = Window(1)
    window.last = 0
    assert window.finished


def test_what_could_not_be_passed_on_is_left_lowest_first() -> None:
    window: Window[int] = Window(1)
    order = [3, 9, 5]
    random.Random(1).shuffle(order)
    for seq in order:
        take(window, seq)
    assert window.rest() == [3, 5, 9]
