"""The replay window (row Y2): numbered cases, and a comparison with a plain set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.constants import MAX_PACKET_NUMBER, REPLAY_WINDOW
from mp2p_core.proto.replay import ReplayWindow

W = REPLAY_WINDOW

# (packet number, whether it is taken), in the manner of the table in RFC 6479's reference code
TABLE = [
    (0, True), (0, False), (1, True), (1, False), (9, True), (8, True), (7, True), (7, False),
    (W, True), (W - 1, True), (W - 1, False), (W - 2, True), (2, True), (2, False),
    (W + 16, True), (3, False), (W + 16, False), (17, True), (16, False), (15, False),
    (W * 4, True), (W * 4 - (W - 1), True), (10, False), (W * 4 - W, False), (W * 4 - (W + 1), False),
    (W * 4 - (W - 2), True), (W * 4 + 1 - W, False), (0, False),
    (2**63, True), (2**63 - 1, True), (2**63, False), (2**63 - W, False), (2**63 - W + 1, True),
    (MAX_PACKET_NUMBER, True), (MAX_PACKET_NUMBER, False), (2**63, False),
]  # fmt: skip


def take(window: ReplayWindow, number: int) -> bool:
    if not window.is_new(number):
        return False
    window.commit(number)
    return True


def test_Y2_table() -> None:
    window = ReplayWindow()
    assert [(number, take(window, number)) for number, _ in TABLE] == TABLE


def test_Y2_looking_changes_nothing() -> None:
    """A forged packet is looked at and never committed: a jump by 2^63 in one moves nothing."""
    window = ReplayWindow()
    for number in range(100):
        window.commit(number)
    for forged in (2**63, MAX_PACKET_NUMBER, 5000, 100):
        assert window.is_new(forged)
    assert window.highest == 99
    assert not window.is_new(50)
    assert take(window, 100)


@pytest.mark.parametrize("jump", [1, 2, W - 1, W, W + 1, 2**63])
def test_Y2_at_the_edge_after_a_jump(jump: int) -> None:
    window = ReplayWindow()
    window.commit(0)
    window.commit(jump)
    edge = jump - W
    assert not window.is_new(edge - 1)
    assert not window.is_new(edge)
    assert window.is_new(edge + 1) == (edge + 1 not in (0, jump))


@given(
    st.lists(
        st.one_of(
            st.integers(0, 6000),
            st.integers(W - 3, W + 3),
            st.integers(2**63 - 3000, 2**63 + 3000),
            st.integers(MAX_PACKET_NUMBER - 3000, MAX_PACKET_NUMBER),
        ),
        max_size=200,
    )
)
def test_Y2_agrees_with_a_set(numbers: list[int]) -> None:
    window, taken, highest = ReplayWindow(), set[int](), -1
    for number in numbers:
        expected = number not in taken and number > highest - W
        assert window.is_new(number) == expected
        if expected:
            window.commit(number)
            taken.add(number)
            highest = max(highest, number)
        assert window.highest == highest
        assert not window.is_new(number)
