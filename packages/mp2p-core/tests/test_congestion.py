"""The congestion window: NewReno (RFC 9002, section 7; protocol section 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.congestion import NewReno

D = 1200


def test_it_begins_with_ten_datagrams_in_slow_start() -> None:
    window = NewReno(D)
    assert window.window == 10 * D
    assert window.slow_start


def test_slow_start_doubles_in_a_round_trip() -> None:
    window = NewReno(D)
    for _ in range(10):
        window.acknowledged(D, 1.0)
    assert window.window == 20 * D


def test_a_loss_halves_and_ends_slow_start() -> None:
    window = NewReno(D)
    window.lost(1.0, 1.1, crowded=True)
    assert window.window == 5 * D
    assert not window.slow_start


def test_losses_of_one_round_halve_once() -> None:
    window = NewReno(D)
    for n in range(8):
        window.lost(1.0 + n / 100, 1.1, crowded=True)
    assert window.window == 5 * D
    window.lost(1.1, 1.2, crowded=True)
    assert window.window == 5 * D, "what went out before the halving belongs to it"
    window.lost(1.11, 1.2, crowded=True)
    assert window.window == 2.5 * D


def test_what_went_out_before_a_loss_does_not_widen_the_window() -> None:
    window = NewReno(D)
    window.lost(1.0, 1.1, crowded=True)
    window.acknowledged(D, 1.1)
    assert window.window == 5 * D
    window.acknowledged(D, 1.11)
    assert window.window > 5 * D


def test_congestion_avoidance_adds_a_datagram_in_a_round_trip() -> None:
    window = NewReno(D)
    window.lost(1.0, 1.1, crowded=True)
    for _ in range(5):
        window.acknowledged(D, 2.0)
    assert window.window == pytest.approx(6 * D, rel=0.02)


def test_large_packets_widen_by_their_bytes_and_not_by_their_number() -> None:
    few, many = NewReno(D), NewReno(D)
    for each in (few, many):
        each.lost(1.0, 1.1, crowded=True)
    few.acknowledged(4 * D, 2.0)
    for _ in range(4):
        many.acknowledged(D, 2.0)
    assert few.window == pytest.approx(many.window, rel=0.02)


def test_it_never_falls_below_two_datagrams() -> None:
    window = NewReno(D)
    for n in range(50):
        window.lost(1.0 + n, 1.5 + n, crowded=True)
    assert window.window == 2 * D


def test_where_no_queue_stands_it_does_not_fall_below_what_it_began_with() -> None:
    window = NewReno(D)
    for _ in range(20):
        window.acknowledged(D, 0.5)
    window.lost(1.0, 1.1, crowded=False)
    assert window.window == 15 * D
    for n in range(2, 9):
        window.lost(n, n + 0.1, crowded=False)
        assert window.window == 10 * D
    window.lost(9.0, 9.1, crowded=True)
    assert window.window == 5 * D
    window.lost(10.0, 10.1, crowded=False)
    assert window.window == 5 * D, "a loss makes no window wider"


def test_persistent_congestion_starts_over() -> None:
    window = NewReno(D)
    for _ in range(100):
        window.acknowledged(D, 1.0)
    window.lost(1.0, 2.0, crowded=True)
    half = window.window
    window.persistent()
    assert window.window == 2 * D
    assert window.slow_start
    window.acknowledged(D, 1.5)
    assert window.window == 3 * D, "there is no round of losses to wait for"
    for _ in range(200):
        window.acknowledged(D, 3.0)
    assert window.window < half + 5 * D, "slow start ends where the window was half of what lost"


def test_other_sizes_of_datagrams() -> None:
    window = NewReno(D)
    for n in range(9):
        window.lost(1.0 + n, 1.5 + n, crowded=True)
    window.resize(9000)
    assert window.window == 18000, "there is room for two, or none could go out"
    window.resize(D)
    assert window.window == 18000
    window.acknowledged(D, 99.0)
    assert window.window == pytest.approx(18000 + D * D / 18000)


def test_there_is_an_end() -> None:
    window = NewReno(D)
    for _ in range(100):
        window.acknowledged(1 << 20, 1.0)
    assert window.window == 64 << 20


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ack", "lost", "crowded", "persistent"]), st.integers(40, 65507), st.floats(0, 9)
        ),
        max_size=200,
    )
)
def test_the_window_stays_within_bounds(steps: list[tuple[str, int, float]]) -> None:
    window, now = NewReno(D), 10.0
    for what, size, ago in steps:
        now += 0.01
        before = window.window
        if what == "ack":
            window.acknowledged(size, now - ago)
            assert before <= window.window <= before + size
        elif what in ("lost", "crowded"):
            window.lost(now - ago, now, crowded=what == "crowded")
            least = 2 * D if what == "crowded" else min(before, 10 * D)
            assert window.window in (before, max(before / 2, least))
        else:
            window.persistent()
        assert 2 * D <= window.window <= 64 << 20
