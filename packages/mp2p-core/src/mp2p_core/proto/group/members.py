"""What a publisher knows of each subscriber, and what it has to tell it (docs/protocol.md, section 8)."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

from mp2p_core.proto import constants as c
from mp2p_core.proto.buckets import TokenBucket
from mp2p_core.proto.group.control import Relay
from mp2p_core.proto.group.rate import Allowance

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Control, Grant, Report
    from mp2p_core.proto.group.rate import Traffic
    from mp2p_core.proto.group.store import Store

__all__ = ["Member"]

_ENOUGH: Final = 20
"""Datagrams from which on a share of them means something."""


class Member:
    """One subscriber: a session, a key, and how it fares.

    Attack: a subscriber that asks and asks. What is queued for it is bounded, questions come out of a bucket,
    and repairs for it alone out of an allowance of its own. One key that subscribes a hundred times shares the
    room of one.
    """

    __slots__ = (
        "_allowance", "_asked", "_asked_since", "_expected", "_judged_at", "_lost", "_moved_at", "_patience",
        "_repaired", "_reported_at", "_same", "_tellers", "_told", "_traffic", "asks", "behind", "deaf", "grant",
        "greedy", "group", "hears", "id", "key", "loss", "lossy", "next_seq", "outbox", "outbox_size", "rtt", "slow",
    )  # fmt: skip

    def __init__(
        self,
        member: Hashable,
        key: bytes,
        waiting: dict[Hashable, Member],
        same: Counter[bytes],
        traffic: Traffic,
        now: float,
    ) -> None:
        self.id = member
        self.key = key
        self._same = same  # how many members have which key
        self.group = b""
        """The address of the group that it listens on."""
        self.grant: Grant | None = None
        """What it may read of this epoch."""
        self.rtt = 0.0
        self.loss = 0.0
        """Share of datagrams that did not come by themselves; 0 after a report that brings too few to tell."""
        self.lossy = 0.0
        """Seconds in which it lost too much, less half of those in which it did not."""
        self._judged_at = now
        self.hears = False
        """Whether it has said that anything arrives, or is to come over its session."""
        self.deaf = False
        """Whether multicast does not reach it, so that all goes over its session."""
        self.behind = False
        """Whether not all could be relayed: the end of it may be missing."""
        self.slow = False
        """Whether it cannot follow, and nothing goes out too far beyond `next_seq`."""
        self.next_seq = 0
        """Below which it has passed everything on; within an epoch that goes up only."""
        self._told = 0  # up to which seq `catch_up` has relayed
        self._moved_at = now
        self._reported_at = now
        self._patience = c.GROUP_PATIENCE  # seconds that it may still be waited for
        self.greedy = False
        """Whether it asks for so much that it is repaired over its own session."""
        self.asks = TokenBucket(c.ASK_RATE, c.ASK_BURST, now)
        self.outbox: deque[bytes] = deque()
        """Control messages for its session, packed."""
        self.outbox_size = 0
        self._tellers = waiting
        self._traffic = traffic
        self._expected = 0
        self._lost = 0
        # How often; bounded by what a store keeps, and cleared with each span.
        self._asked: dict[tuple[bytes, int], int] = {}
        self._asked_since = traffic.datagrams
        self._allowance = Allowance(traffic, now, steady=True)
        self._repaired: OrderedDict[tuple[bytes, int], float] = OrderedDict()

    def tell(self, control: Control) -> None:
        """Queue a control message."""
        data = control.pack()
        self.outbox.append(data)
        self.outbox_size += len(data)
        self._tellers[self.id] = self

    def relay(self, topic: bytes, datagram: bytes) -> bool:
        """Queue a datagram for its session; False when too much waits there, and it is left to repair."""
        if self.outbox_size > c.RELAY_QUEUE / max(self._same[self.key], 1):
            return False
        self.tell(Relay(topic, datagram))
        return True

    def catch_up(self, topic: bytes, store: Store, highest: int) -> None:
        """Relay what went to the group after `highest`, before the subscriber said that it does not hear it.

        Each datagram once. Attack: one that says so, takes it back and says so again, for a megabyte each time.
        """
        first = max(highest, self._told) + 1
        first = max(first, store.oldest, self.grant.next_seq if self.grant else 1)
        for seq in range(first, store.last + 1):
            datagram = store.get(seq)
            if datagram is None or not self.relay(topic, datagram):
                self.behind = True
                return
            self._told = seq

    def take_outbox(self, limit: float = math.inf) -> list[bytes]:
        """Return what is to be told, in order: about `limit` bytes, and one message at least."""
        found: list[bytes] = []
        size = 0
        while self.outbox and (not found or size + len(self.outbox[0]) <= limit):
            found.append(self.outbox.popleft())
            size += len(found[-1])
        self.outbox_size -= size
        if not self.outbox:
            self._tellers.pop(self.id, None)
        return found

    def reported(self, report: Report, now: float) -> None:
        """Take a report."""
        self.rtt = min(report.rtt, c.GROUP_RTT_MAX)
        self.deaf = report.deaf
        if report.deaf or (self.grant is not None and report.next_seq > self.grant.next_seq):
            self.hears = True
        self._moved(report, now)
        self._expected += report.expected
        self._lost += report.lost
        self.loss = 0.0  # what was found once is not found again: while nothing is sent nothing is lost
        if self._expected < _ENOUGH:
            return
        self.loss = self._lost / self._expected
        self._expected = self._lost = 0
        elapsed = now - self._judged_at
        self._judged_at = now
        if self.loss > c.GROUP_HOPELESS_LOSS:
            # A single outage, however long, is not enough.
            self.lossy += min(elapsed, c.GROUP_HOPELESS_TIME / 2)
        else:
            self.lossy = max(self.lossy - elapsed / 2, 0.0)

    def _moved(self, report: Report, now: float) -> None:
        """Learn how far it has come, and what that leaves of the patience with it.

        Attack: one that is slow, and then not, and then again, or that goes one datagram at a time. Being waited
        for uses patience up; only datagrams passed on bring it back.
        """
        moved = max(report.next_seq - self.next_seq, 0)
        if moved or not (self.slow and report.slow):
            self._moved_at = now
        self._waited(now)
        earned = moved * c.BASE_DATAGRAM_SIZE / c.GROUP_RATE_MIN
        self._patience = min(self._patience + earned, c.GROUP_PATIENCE)
        self.next_seq += moved
        self.slow = report.slow

    def _waited(self, now: float) -> None:
        if self.slow:
            self._patience = max(self._patience - (now - self._reported_at), 0.0)
        self._reported_at = now

    def new_epoch(self, now: float) -> None:
        """Forget what was said of the seqs of an epoch that has ended."""
        self._waited(now)
        self.slow = False
        self.next_seq = self._told = 0

    def waited_until(self) -> float:
        """Return until when it is waited for: no longer, once it does not move at all, or too little for too long."""
        return min(self._moved_at + c.GROUP_STALL, self._reported_at + self._patience)

    @property
    def spacing(self) -> float:
        """How long a repair takes to show: no other one before."""
        return max(self.rtt, c.REPAIR_SPACING)

    def asked(self, channel: bytes, seqs: Sequence[int]) -> list[int]:
        """Learn that it asks for these; returns those that are to be sent over its session.

        That is all if it asks for too much, and what it has asked for again and again: sent to the group, that
        does not get through.
        """
        asked = self._asked
        for seq in seqs:
            asked[channel, seq] = asked.get((channel, seq), 0) + 1
        sent = self._traffic.datagrams
        span = sent - self._asked_since
        if len(asked) > c.GREEDY_SHARE * max(span, c.GREEDY_SPAN):
            self.greedy = True
        elif span >= c.GREEDY_SPAN:
            self.greedy = False
        again = [seq for seq in seqs if asked[channel, seq] >= c.NACKS_TO_ALL]
        if span >= c.GREEDY_SPAN:
            asked.clear()
            self._asked_since = sent
        return list(seqs) if self.greedy or self.deaf else again

    def repair(self, topic: bytes, store: Store, seqs: Sequence[int], now: float) -> int:
        """Relay these, as far as that is allowed now; returns how many."""
        repaired = 0
        for seq in seqs:
            datagram = store.get(seq)
            assert datagram is not None
            if self.may_repair(store.channel, seq, len(datagram), now):
                self.relay(topic, datagram)
                repaired += 1
        return repaired

    def may_repair(self, channel: bytes, seq: int, size: int, now: float) -> bool:
        """Tell whether this datagram may go over its session again now, and note that it does."""
        repaired = self._repaired
        if now - repaired.get((channel, seq), -math.inf) < self.spacing or not self._allowance.take(
            size, now
        ):
            return False
        repaired[channel, seq] = now
        repaired.move_to_end((channel, seq))
        if len(repaired) > c.GROUP_WINDOW:
            repaired.popitem(last=False)
        return True
