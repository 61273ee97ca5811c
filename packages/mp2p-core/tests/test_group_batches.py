"""When a publisher's batches leave, and in which form (protocol section 8)."""

from __future__ import annotations

import random
from typing import Final

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.batches import Batches
from mp2p_core.proto.group.keys import SendKeys
from mp2p_core.proto.group.packing import Outgoing
from mp2p_core.proto.group.rate import RateControl
from mp2p_core.proto.group.sealing import Sealer

SIZE: Final = 1179


class Bench:
    def __init__(self, *, large: bool = True) -> None:
        self.outgoing = Outgoing(SIZE)
        self.batches = Batches(self.outgoing, SIZE, large=large)
        self.sealer = Sealer(b"P" * 32, SendKeys(1, random.Random(1).randbytes))

    def put(self, count: int, size: int = 1030) -> None:
        for _ in range(count):
            self.outgoing.put(bytes(size))

    def seal(self, now: float) -> int:
        """Return how many datagrams a batch has."""
        return len(self.batches.seal(self.sealer, c.MAX_MANIFEST, boundary=False, now=now)[0])


def test_a_message_leaves_at_once_while_there_is_little_to_send() -> None:
    bench = Bench()
    for n in range(10):
        bench.put(1)
        assert bench.batches.ready(1000, float(n) / 1000)
        assert bench.seal(float(n) / 1000) == 1


def test_while_there_is_much_messages_wait_for_others_but_not_long() -> None:
    for members, wait in ((4, 4 * c.GATHER_TIME), (10000, c.GATHER_MAX)):
        bench = Bench()
        bench.put(10)
        assert bench.batches.ready(members, 0.0)
        bench.seal(0.0)
        bench.put(1)
        assert not bench.batches.ready(members, 0.001), "and now they wait"
        assert bench.batches.due == 0.001 + wait
        assert not bench.batches.ready(members, 0.001 + 0.9 * wait)
        assert bench.batches.ready(members, 0.001 + wait)
        bench.seal(0.001 + wait)
        bench.put(1)
        assert bench.batches.ready(members, 0.005 + wait), "the last one was a single datagram"


def test_after_very_much_at_a_time_messages_wait_longer() -> None:
    bench = Bench()
    full = c.GATHER_MUCH // 1000
    for at, messages, factor in (
        (0.0, full, c.GATHER_LONGER),
        (1.0, full // 2, 1),
        (2.0, full, c.GATHER_LONGER),
    ):
        bench.put(messages)
        while bench.outgoing:
            bench.seal(at)
        bench.put(1)
        later = at + 0.9 * factor * c.GATHER_AFTER
        assert not bench.batches.ready(16, later)
        assert bench.batches.due == later + factor * c.GATHER_MAX
        assert bench.batches.ready(16, bench.batches.due)
        assert bench.batches.ready(16, at + 1.1 * factor * c.GATHER_AFTER)
        bench.outgoing.drain()


def test_nothing_waits_when_it_is_enough_or_midway_or_after_a_pause() -> None:
    bench = Bench()
    bench.put(10)
    bench.seal(0.0)
    bench.put(c.GATHER_MESSAGES, 10)
    assert bench.batches.ready(16, 0.001)
    bench.outgoing.drain()
    bench.put(1)
    assert not bench.batches.ready(16, 0.001)
    bench.put(1, c.GATHER_BYTES)
    assert bench.batches.ready(16, 0.001)
    assert bench.batches.due < 0
    bench.outgoing.drain()
    bench.put(1)
    assert bench.batches.ready(16, 0.001 + c.GATHER_AFTER)
    bench.outgoing.drain()
    bench.put(1, 200000)
    bench.seal(1.0)
    assert bench.outgoing.midway
    assert bench.batches.ready(16, 1.0)
    assert bench.batches.more


def test_a_full_packet_more_leaves_right_behind_the_last_one_and_less_waits() -> None:
    bench = Bench()
    bench.put(70)
    assert bench.batches.more
    assert bench.seal(0.0) == 1 + c.MAX_PARTS
    assert not bench.batches.more


def test_full_packets_leave_together_as_far_as_may_leave_and_less_waits() -> None:
    for limit, packets in ((10 * c.MAX_PARTS, 3), (2 * c.MAX_PARTS + 1, 2), (2 * c.MAX_PARTS, 1)):
        bench = Bench()
        bench.put(200)
        datagrams, done = bench.batches.seal(bench.sealer, limit, boundary=False, now=0.0)
        assert len(datagrams) == packets * (1 + c.MAX_PARTS)
        assert len(done) == 200 - len(bench.outgoing) == bench.outgoing.next_number
        assert bench.batches.sealed == packets * c.MAX_PARTS
    bench = Bench(large=False)
    bench.put(200)
    assert len(bench.batches.seal(bench.sealer, 500, boundary=False, now=0.0)[0]) == 1 + c.MAX_MANIFEST


def test_large_packets_pause_where_datagrams_are_lost() -> None:
    bench = Bench()
    channel = bench.sealer.keys.channel
    bench.put(1)
    bench.seal(0.0)
    bench.batches.asked(channel, 1, 0.0)  # of before there was much: a newcomer's
    bench.put(10)
    assert bench.seal(0.0) == 10  # in large packets messages lie across datagrams
    bench.batches.asked(channel, 1, 0.0)
    bench.put(10)
    assert bench.seal(0.1) == 10
    bench.batches.asked(b"another.", 5, 0.1)
    bench.put(10)
    assert bench.seal(0.1) == 10
    bench.batches.asked(channel, 5, 1.0)
    bench.put(10)
    assert bench.seal(1.9) == 11
    bench.put(10)
    assert bench.seal(1.0 + c.LARGE_AFTER) == 10


def test_best_effort_has_no_large_packets() -> None:
    bench = Bench(large=False)
    bench.put(10)
    assert bench.seal(0.0) == 11
    bench.batches.asked(bench.sealer.keys.channel, 5, 0.0)
    bench.put(10)
    assert bench.seal(100.0) == 11


def test_the_rate_falls_to_what_arrives_but_not_further_than_one_can_make_it() -> None:
    for loss, share in ((0.06, c.GROUP_RATE_DECREASE), (0.5, 0.5), (1.0, c.GROUP_RATE_FALL)):
        rate = RateControl(1200, 1e7, 0.0)
        rate.reported(loss, 1, 2.0)
        assert rate.rate == 1e7 * share


def test_a_batch_overdraws_the_budget_by_what_a_wait_is_for() -> None:
    rate = RateControl(1200, 1e7, 0.0)
    rate.sent(int(rate.budget(0.0)))
    assert 0 <= rate.budget(0.0) < 1
    assert 20000 <= rate.batch(0.0) < 20001
