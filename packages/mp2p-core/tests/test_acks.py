"""Acknowledgements: when they go out, what a peer's may claim, and what they may cost (row F9)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.acks import AckSender, SentLog
from mp2p_core.proto.frames import Ack, parse_frames_untrusted
from mp2p_core.proto.rtt import RoundTrip


def take(
    acks: AckSender, number: int, now: float, *, highest: int, eliciting: bool = True, ping: bool = False
) -> None:
    acks.received(number, highest_before=highest, eliciting=eliciting, at_once=ping, now=now)


def test_a_single_packet_is_acknowledged_within_25_ms() -> None:
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1)
    assert acks.wanted
    assert acks.deadline == 5.0 + 0.025
    assert not acks.due(5.02)
    assert acks.due(5.025)


def test_every_second_packet_a_gap_and_a_ping_are_acknowledged_at_once() -> None:
    for second, ping in ((1, False), (5, False)):
        acks = AckSender()
        take(acks, 0, 5.0, highest=-1)
        take(acks, second, 5.001, highest=0, ping=ping)
        assert acks.due(5.001)
    acks = AckSender()
    take(acks, 1, 5.0, highest=-1)
    assert acks.due(5.0), "number 0 is missing"
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1, ping=True)
    assert acks.due(5.0)


def test_packets_that_ask_for_nothing_are_not_acknowledged_alone() -> None:
    acks = AckSender()
    for number in range(100):
        take(acks, number, 5.0, highest=number - 1, eliciting=False)
    assert acks.deadline is None
    assert not acks.wanted


def test_the_delay_is_that_of_the_largest() -> None:
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1)
    (frame,) = parse_frames_untrusted(acks.frame(5.016))
    assert isinstance(frame, Ack)
    assert frame.ranges == ((0, 0),)
    assert frame.delay == pytest.approx(0.016, abs=64e-6)
    assert not acks.wanted
    assert acks.deadline is None


def log_of(numbers: range | list[int], next_number: int) -> SentLog:
    log = SentLog()
    for number in numbers:
        log.next_number = number
        log.sent(number, (number,), now=float(number))
    log.next_number = next_number
    return log


def test_an_ack_takes_out_what_arrived_and_what_is_lost() -> None:
    log = log_of(range(10), 10)
    acked = log.acked_untrusted(Ack(((8, 8), (2, 3)), 0.0), now=20.0)
    assert acked.rtt == 12.0, "from the largest, raw"
    assert acked.pings == ((2, 18.0), (3, 17.0), (8, 12.0))
    assert acked.lost == 4, "0, 1, 4 and 5 are three behind"
    assert len(log) == 3, "6, 7 may still come, 9 is out"
    again = log.acked_untrusted(Ack(((8, 8),), 0.0), now=30.0)
    assert again == (None, (), 0)


def test_F9_an_ack_of_a_packet_never_sent_is_refused() -> None:
    log = log_of(range(10), 10)
    for largest in (10, 11, 2**64 - 1):
        with pytest.raises(BadPacket, match="ack of"):
            log.acked_untrusted(Ack(((0, largest),), 0.0), now=20.0)
    assert len(log) == 10, "and takes out nothing"
    assert log.acked_untrusted(Ack(((0, 9),), 0.0), now=20.0).lost == 0


def test_a_fresh_log_knows_no_packet() -> None:
    with pytest.raises(BadPacket, match="ack of"):
        SentLog().acked_untrusted(Ack(((0, 0),), 0.0), now=0.0)


def test_F10_a_peer_that_never_acknowledges_fills_nothing() -> None:
    log = log_of(range(5000), 5000)
    assert len(log) == c.MAX_SENT_RECORDS
    acked = log.acked_untrusted(Ack(((0, 4999),), 0.0), now=9000.0)
    assert acked.pings[0][0] == 5000 - c.MAX_SENT_RECORDS


def test_a_packet_full_of_acks_costs_no_more_than_one() -> None:
    """Attack: acknowledge the oldest packet again and again, so that the whole log is walked each time."""

    class Watched(dict[int, object]):
        looks = 0

        def __iter__(self) -> object:  # type: ignore[override]  # counts what the real iterator yields
            for number in super().__iter__():
                type(self).looks += 1
                yield number

    log = log_of(range(1000), 1000)
    log._sent = Watched(log._sent)  # type: ignore[assignment]  # the table is watched, not replaced
    for _ in range(83):
        log.acked_untrusted(Ack(((0, 0),), 0.0), now=2000.0)
    assert Watched.looks <= 2 + 83


@st.composite
def acks_of(draw: st.DrawFn) -> Ack:
    numbers = draw(st.sets(st.integers(0, 60), min_size=1, max_size=40))
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[0][1] == number - 1:
            ranges[0] = ranges[0][0], number
        else:
            ranges.insert(0, (number, number))
    return Ack(tuple(ranges[:33]), 0.0)


@given(st.sets(st.integers(0, 59), max_size=60), st.lists(acks_of(), max_size=6))
def test_the_log_agrees_with_a_model(eliciting: set[int], acks: list[Ack]) -> None:
    log, out = log_of(sorted(eliciting), 61), set(eliciting)
    for ack in acks:
        acked = log.acked_untrusted(ack, now=100.0)
        largest = ack.ranges[0][1]
        arrived = {n for n in out if any(low <= n <= high for low, high in ack.ranges)}
        lost = {n for n in out - arrived if n <= largest - c.LOSS_THRESHOLD}
        assert {number for number, _ in acked.pings} == arrived
        assert acked.lost == len(lost)
        assert (acked.rtt is not None) == (largest in arrived)
        out -= arrived | lost
        assert len(log) == len(out)


def test_round_trip_time_follows_rfc_9002() -> None:
    rtt = RoundTrip(None)
    assert rtt.smoothed == c.INITIAL_RTT
    rtt.add(0.100, 0.0)
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
