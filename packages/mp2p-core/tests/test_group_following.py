"""A publisher that is faster than a subscriber waits for it, within bounds (protocol section 8, Rate)."""

from __future__ import annotations

import random
from collections import deque

from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group.events import Gap, Messages
from mp2p_core.proto.group.publisher import Publisher
from mp2p_core.proto.group.subscriber import Subscriber

OWNER = b"P" * 32
KEY = b"k" * 32
STEP = 0.001
MESSAGE = bytes(1000)


class Reader:
    """A subscriber whose application takes so many datagrams in a millisecond, beside its publisher."""

    def __init__(self, pace: float, *, rate: float = 60e6, loss: float = 0.0) -> None:
        self.rng = random.Random(1)
        self.now = 100.0
        self.pace = pace
        self.loss = loss
        self.publisher = Publisher(
            OWNER,
            "topic",
            [bytes(20)],
            allow=lambda _key: True,
            now=self.now,
            rate=rate,
            random=self.rng.randbytes,
        )
        self.subscriber = Subscriber(OWNER, "topic", random=self.rng.randbytes)
        self.subscriber.set_rtt(0.001)
        self.held: deque[bytes] = deque()
        self.most_held = 0
        self.sent = self.size = self.reports = self.slow = 0
        self.numbers: list[int] = []
        self.gaps: list[Gap] = []
        self.subscriber.connected(self.now)
        self.may_take = 100.0
        for _ in range(70):  # until a heartbeat has said how many subscribers there are
            self.step()
        self.may_take = 0.0

    def step(self) -> None:
        """Let a millisecond pass."""
        self.now += STEP
        for data in self.subscriber.controls():
            control = g.parse_control_untrusted(data)
            if isinstance(control, g.Report):
                self.reports += 1
                self.slow += control.slow
            self.publisher.take_control_untrusted("session", KEY, control, self.now)
        for nack in self.subscriber.nacks():
            self.publisher.nack_untrusted("session", nack, self.now)
        datagrams = self.publisher.transmits(self.now)
        self.sent += len(datagrams)
        self.size += sum(map(len, datagrams))
        self.held += [each for each in datagrams if self.rng.random() >= self.loss]
        self.most_held = max(self.most_held, len(self.held))
        for _, data in self.publisher.controls():
            self.subscriber.receive_control_untrusted(OWNER, data, self.now)
        self.may_take += self.pace
        taken = [self.held.popleft() for _ in range(min(int(self.may_take), len(self.held)))]
        self.may_take -= len(taken)
        self.subscriber.receive_train_untrusted(taken, self.now)
        self.subscriber.held(len(self.held), self.now)
        self.subscriber.handle_timeout(self.now)
        self.publisher.handle_timeout(self.now)
        for event in self.subscriber.events():
            if isinstance(event, Messages):
                self.numbers += range(event.number, event.number + len(event.messages))
            elif isinstance(event, Gap):
                self.gaps.append(event)

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.publisher.send(MESSAGE)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()


def test_nothing_is_lost_to_a_reader_that_is_slower_than_its_publisher() -> None:
    reader = Reader(pace=10)
    reader.publish(6000)
    reader.run(0.3)
    assert reader.publisher.waiting, "no more than its pace has left"
    reader.run(0.7)
    assert reader.numbers == list(range(6000))
    assert not reader.gaps
    assert c.GROUP_BEHIND < reader.most_held <= c.GROUP_AHEAD + c.MAX_MANIFEST
    assert reader.slow, "it said so"


def test_nor_to_one_that_loses_datagrams_besides() -> None:
    reader = Reader(pace=10, rate=30e6, loss=0.02)
    reader.publish(4000)
    reader.run(3)
    assert sorted(reader.numbers) == list(range(4000))
    assert not reader.gaps


def test_one_that_does_not_read_is_not_waited_for_for_ever() -> None:
    reader = Reader(pace=0)
    reader.publish(3000)
    reader.run(1)
    held = c.GROUP_RATE_MIN / c.BASE_DATAGRAM_SIZE
    assert c.GROUP_AHEAD <= reader.sent <= c.GROUP_AHEAD + 1.2 * held + c.MAX_MANIFEST
    reader.run(2)
    assert not reader.publisher.waiting


def test_one_that_hardly_reads_leaves_the_lowest_rate() -> None:
    reader = Reader(pace=0.02)
    reader.publish(5000)
    reader.run(2)
    before = reader.size
    reader.run(4)
    assert reader.publisher.waiting
    assert reader.size - before >= 0.8 * 4 * c.GROUP_RATE_MIN


def test_who_can_follow_says_nothing_of_it() -> None:
    reader = Reader(pace=1000, rate=30e6)
    reader.publish(20000)
    reader.run(2)
    assert len(reader.numbers) == 20000
    assert reader.slow == 0
    assert reader.reports <= 4
