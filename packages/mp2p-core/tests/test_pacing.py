"""Pacing (RFC 9002, section 7.7; protocol section 6): as fast as the window, and not at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.pacing import Pacer

D = 1200


def send_all(pacer: Pacer, now: float, size: int = D) -> int:
    """Send as long as there is a budget; returns the bytes."""
    sent = 0
    while pacer.budget(now) > 0:
        pacer.sent(size)
        sent += size
    return sent


def test_the_initial_window_leaves_at_once() -> None:
    pacer = Pacer(D, 10 * D, 0.333, 5.0)
    assert send_all(pacer, 5.0) == 10 * D
    assert pacer.budget(5.0) <= 0


def test_a_window_leaves_in_less_than_a_round_trip() -> None:
    window, rtt = 100 * D, 0.1
    pacer = Pacer(D, window, rtt, 5.0)
    sent, now = send_all(pacer, 5.0), 5.0
    while sent < window:
        now = pacer.ready_at()
        sent += send_all(pacer, now)
    assert 0.6 * rtt < now - 5.0 < rtt


def test_ten_datagrams_or_four_milliseconds_leave_at_once() -> None:
    for window, burst in ((20 * D, 10 * D), (1000 * D, 50 * D)):
        pacer = Pacer(D, window, 0.1, 5.0)
        pacer.budget(1e6)
        assert send_all(pacer, 1e6) == pytest.approx(burst, abs=D)


def test_a_pause_does_not_save_up_for_a_burst() -> None:
    pacer = Pacer(D, 20 * D, 0.1, 5.0)
    send_all(pacer, 5.0)
    assert send_all(pacer, 5000.0) == 10 * D


def test_an_overdraft_is_paid_back() -> None:
    pacer = Pacer(D, 100 * D, 0.1, 5.0)
    pacer.sent(50 * D)
    assert pacer.budget(5.0) == -40 * D
    rate = 1.25 * 100 * D / 0.1
    assert pacer.ready_at() == pytest.approx(5.0 + 41.25 * D / rate, rel=1e-3)


def test_a_wait_is_for_a_millisecond_or_a_datagram() -> None:
    """Timers cost by the piece, and so do packets: none is set for a byte."""
    slow, fast = Pacer(D, 10 * D, 0.1, 5.0), Pacer(D, 10000 * D, 0.1, 5.0)
    assert send_all(slow, 5.0) == 10 * D
    assert slow.ready_at() - 5.0 == pytest.approx(D / (1.25 * 10 * D / 0.1))
    fast.budget(6.0)
    send_all(fast, 6.0)
    assert fast.ready_at() - 6.0 == pytest.approx(0.001, abs=1e-5)


def test_a_new_rate_counts_from_when_it_is_known() -> None:
    pacer = Pacer(D, 10 * D, 10.0, 5.0)
    send_all(pacer, 5.0)
    pacer.update(10000 * D, 0.1, 5.1)
    assert pacer.budget(5.1) < D, "the time before went by at the old rate"
    assert pacer.budget(5.2) > 100 * D


def test_a_round_trip_of_nothing_is_no_division_by_zero() -> None:
    pacer = Pacer(D, 10 * D, 0.0, 5.0)
    send_all(pacer, 5.0)
    assert pacer.ready_at() > 5.0


def test_larger_datagrams_have_larger_bursts() -> None:
    pacer = Pacer(D, 10 * D, 1.0, 5.0)
    pacer.resize(9000)
    pacer.budget(5000.0)
    assert send_all(pacer, 5000.0, 9000) == 10 * 9000


@given(
    st.floats(2400, 64 << 20),
    st.floats(0, 10),
    st.sampled_from([0.0, 1.0, 1e5 / 3, 1.7e9 + 1 / 7]),
    st.lists(st.integers(35, 65507), min_size=1, max_size=30),
)
def test_what_is_ready_when_it_says_so_can_be_sent(
    window: float, rtt: float, start: float, sizes: list[int]
) -> None:
    """Whatever the rate and the clock's own precision: a wait that ended in nothing would be a busy loop."""
    pacer = Pacer(D, window, rtt, start)
    now = start
    for size in sizes:
        pacer.sent(size)
        now = max(now, pacer.ready_at())
        assert pacer.budget(now) > 0
