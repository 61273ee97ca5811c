"""Acknowledgements: when they go out, and what they say (protocol section 6). Reading them: test_recovery."""

from __future__ import annotations

import math

import pytest

from mp2p_core.proto.acks import AckSender
from mp2p_core.proto.frames import Ack, parse_frames_untrusted


def take(
    acks: AckSender,
    number: int,
    now: float,
    *,
    highest: int,
    size: int = 100,
    eliciting: bool = True,
    ping: bool = False,
) -> None:
    acks.received(number, size, highest_before=highest, eliciting=eliciting, at_once=ping, now=now)


def test_a_single_packet_is_acknowledged_within_25_ms() -> None:
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1)
    assert acks.wanted
    assert acks.deadline == 5.0 + 0.025
    assert acks.deadline > 5.02
    assert acks.deadline <= 5.025


def test_every_sixteenth_packet_a_gap_and_a_ping_are_acknowledged_at_once() -> None:
    acks = AckSender()
    for number in range(15):
        take(acks, number, 5.0, highest=number - 1)
        assert acks.deadline > 5.0
    take(acks, 15, 5.001, highest=14)
    assert acks.deadline <= 5.001
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1)
    take(acks, 5, 5.001, highest=0)
    assert acks.deadline <= 5.001
    acks = AckSender()
    take(acks, 1, 5.0, highest=-1)
    assert acks.deadline <= 5.0, "number 0 is missing"
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1, ping=True)
    assert acks.deadline <= 5.0


def test_packets_that_go_out_carry_an_ack_along_every_2_ms_or_a_datagrams_worth() -> None:
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1)
    assert acks.rides(5.0), "the first"
    acks.frame(5.0)
    assert not acks.rides(6.0), "there is nothing to acknowledge"
    take(acks, 1, 5.0005, highest=0)
    assert not acks.rides(5.0019)
    assert acks.rides(5.002)
    take(acks, 2, 5.001, highest=1, size=1100)
    assert acks.rides(5.001), "1200 bytes in all"
    acks.frame(5.001)
    take(acks, 3, 5.0015, highest=2, ping=True)
    assert acks.rides(5.0015), "it was asked for"
    acks.frame(5.0015)
    acks.again()
    assert acks.rides(5.0015), "the last one may have gone where nothing arrives"


def test_packets_that_ask_for_nothing_are_not_acknowledged_alone() -> None:
    acks = AckSender()
    for number in range(100):
        take(acks, number, 5.0, highest=number - 1, eliciting=False)
    assert acks.deadline == math.inf
    assert not acks.wanted


def test_the_delay_is_that_of_the_largest() -> None:
    acks = AckSender()
    take(acks, 0, 5.0, highest=-1)
    (frame,) = parse_frames_untrusted(acks.frame(5.016))
    assert isinstance(frame, Ack)
    assert frame.ranges == ((0, 0),)
    assert frame.delay == pytest.approx(0.016, abs=64e-6)
    assert not acks.wanted
    assert acks.deadline == math.inf
