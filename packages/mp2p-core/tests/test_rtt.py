"""Round-trip times (RFC 9002, section 5; protocol section 6)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto import constants as c
from mp2p_core.proto.rtt import RoundTrip


def test_round_trip_time_follows_rfc_9002() -> None:
    rtt = RoundTrip(None)
    assert rtt.smoothed == c.INITIAL_RTT
    assert not rtt.sampled
    rtt.add(0.100, 0.0)
    assert rtt.sampled
    assert (rtt.smoothed, rtt.variation) == (0.100, 0.050)
    rtt.add(0.180, 0.0)
    assert rtt.smoothed == pytest.approx(0.110)
    assert rtt.variation == pytest.approx(0.75 * 0.050 + 0.25 * 0.080)
    assert rtt.pto == pytest.approx(rtt.smoothed + 4 * rtt.variation + 0.025)
    assert RoundTrip(0.04).smoothed == 0.04


def test_a_claimed_delay_counts_up_to_25_ms_and_never_below_the_fastest_round_trip() -> None:
    rtt = RoundTrip(0.1)
    rtt.add(0.140, 0.010)
    assert rtt.smoothed == pytest.approx(0.1 + (0.130 - 0.1) / 8)
    for _ in range(200):
        rtt.add(0.1, 4.0)
    assert rtt.smoothed == pytest.approx(0.1), "a liar does not bring it down"
    for _ in range(200):
        rtt.add(0.2, 4.0)
    assert rtt.smoothed == pytest.approx(0.175)


def test_the_first_sample_is_taken_as_it_is() -> None:
    rtt = RoundTrip(None)
    rtt.add(0.050, 0.020)
    assert rtt.smoothed == 0.050, "there is nothing yet to hold the claimed delay against"


def test_a_queue_is_what_delays_even_the_fastest_of_the_last_eight() -> None:
    rtt = RoundTrip(0.010)
    assert rtt.queued, "nothing is known: a loss counts as congestion"
    rtt.add(0.010, 0.0)
    assert not rtt.queued
    for _ in range(7):
        rtt.add(0.050, 0.0)
    assert not rtt.queued, "seven late ones are a host that was busy"
    rtt.add(0.0121, 0.0)
    assert rtt.queued
    rtt.add(0.0119, 0.0)
    assert not rtt.queued, "2 ms are no queue: hosts are late by that much"


@pytest.mark.parametrize("sample", [None, 0.01])
def test_before_anything_came_back_each_loss_counts(sample: float | None) -> None:
    rtt = RoundTrip(sample)
    assert rtt.queued
    assert rtt.crowded


@pytest.mark.parametrize(("fastest", "late"), [(0.0003, 0.00025), (0.004, 0.001), (0.010, 0.002)])
def test_a_path_may_be_crowded_from_a_quarter_more_of_its_time(fastest: float, late: float) -> None:
    """But no sooner than hosts are late, and no later than a queue is sure."""
    rtt = RoundTrip(fastest)
    assert rtt.crowded, "nothing is known"
    rtt.add(fastest + late + 0.0001, 0.0)
    assert rtt.crowded
    rtt.add(fastest + late - 0.0001, 0.0)
    assert not rtt.crowded


def test_the_peers_wait_is_no_queue() -> None:
    rtt = RoundTrip(0.010)
    for _ in range(8):
        rtt.add(0.035, 0.025)
    assert not rtt.queued


def test_another_path_has_no_queue_of_the_old_one() -> None:
    rtt = RoundTrip(0.010)
    for _ in range(8):
        rtt.add(0.001, 0.0)
    rtt.restart(0.1)
    rtt.add(0.1, 0.0)
    assert not rtt.queued


def test_the_latest_time_is_the_measured_one() -> None:
    """The time threshold is held against it, so the peer's word may not shorten it (RFC 9002, section 6.1.2)."""
    rtt = RoundTrip(0.010)
    rtt.add(0.100, 0.025)
    assert rtt.latest == 0.100
    assert rtt.loss_delay == pytest.approx(0.1125)
    for _ in range(100):
        rtt.add(0.010, 0.0)
    assert rtt.loss_delay == pytest.approx(9 / 8 * rtt.smoothed)


def test_a_window_is_not_spread_over_one_late_answer() -> None:
    rtt = RoundTrip(0.001)
    rtt.add(2.5, 0.0)
    assert rtt.paced == rtt.smoothed > 0.3, "nothing says yet that the path is as fast as before"
    rtt.add(0.001, 0.0)
    assert rtt.smoothed > 0.25
    assert rtt.paced == 0.004
    for _ in range(100):
        rtt.add(0.2, 0.0)
    rtt.add(0.06, 0.0)
    assert rtt.paced == rtt.smoothed, "what a queue holds up does not vary so"


def test_no_timer_is_finer_than_two_milliseconds() -> None:
    rtt = RoundTrip(0.00001)
    for _ in range(100):
        rtt.add(0.00001, 0.0)
    assert rtt.loss_delay == 0.002
    assert rtt.pto == pytest.approx(0.00001 + 0.002 + 0.025)


def test_the_minimum_can_be_forgotten() -> None:
    rtt = RoundTrip(0.010)
    rtt.add(0.200, 0.020)
    assert rtt.minimum == 0.010
    rtt.forget_minimum()
    assert rtt.minimum == 0.200
    rtt.add(0.150, 0.0)
    assert rtt.minimum == 0.150
    assert RoundTrip(None).minimum == math.inf


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 5)), min_size=1))
def test_times_stay_within_what_was_measured(samples: list[tuple[float, float]]) -> None:
    rtt = RoundTrip(None)
    for sample, delay in samples:
        rtt.add(sample, delay)
    measured = [sample for sample, _ in samples]
    slack = 1e-9
    assert rtt.minimum == min(measured)
    assert rtt.minimum - slack <= rtt.smoothed <= max(measured) + slack
    assert rtt.variation >= 0
    assert rtt.pto >= rtt.smoothed + c.MAX_ACK_DELAY
