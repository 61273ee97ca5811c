"""Acknowledgements: when they go out, and what they say (protocol section 6). Reading them: test_recovery."""

from __future__ import annotations

import math

import pytest

from mp2p_core.proto.acks import AckSender
from mp2p_core.proto.frames import Ack, parse_frames_untrusted


def take(
    acks: AckSender, number: int, now: float, *, highest: int, eliciting: bool = True, ping: bool = False
) -> None:
    acks.received(number, highest_before=highest, eliciting=eliciting, at_once=ping, now=now)


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
