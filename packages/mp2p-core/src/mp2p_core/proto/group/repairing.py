"""What a publisher sends again, and to whom (docs/protocol.md, section 8)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.buckets import BucketTable
from mp2p_core.proto.group.rate import Allowance

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Nack
    from mp2p_core.proto.group.epochs import Epochs
    from mp2p_core.proto.group.members import Member
    from mp2p_core.proto.group.rate import Traffic

__all__ = ["Repairs"]


class Repairs:
    """Answers GROUP_NACKs: to the group, or over the session of whoever asks too much."""

    __slots__ = ("_allowance", "_counters", "_epochs", "_questions", "_topic")

    def __init__(
        self, topic: bytes, epochs: Epochs, traffic: Traffic, counters: Counter[str], now: float
    ) -> None:
        self._topic = topic
        self._epochs = epochs
        self._counters = counters
        self._allowance = Allowance(traffic, now)
        # Attack: questions of a hundred bytes, each about 512 datagrams, which take a millisecond to look up.
        self._questions = BucketTable(c.NACK_RATE, c.NACK_BURST)

    def nack_untrusted(self, member: Member | None, nack: Nack, now: float) -> int | None:
        """Take a question; returns the last seq that it is about and that can be had, None if there is none."""
        if member is not None and not self._questions.take(member.key, now, nack.size):
            self._counters["nack-too-often"] += 1
            return None
        store = self._epochs.find(nack.channel)
        seqs = [seq for seq in nack.seqs() if store.get(seq) is not None] if member and store else []
        if member is None or store is None or not seqs:
            self._counters["nack-unknown"] += 1
            return None
        self._counters["nack"] += 1
        alone = member.asked(store.channel, seqs)
        if len(alone) < len(seqs):
            grant = member.grant
            first = grant.next_seq if grant and grant.channel == store.channel else 1
            theirs = set(alone)
            store.ask_untrusted([seq for seq in seqs if seq not in theirs], first, member.spacing, now)
        repaired = member.repair(self._topic, store, alone, now)
        if repaired:
            self._counters["repair-session"] += repaired
        return seqs[-1]

    def due(self, now: float) -> Iterator[bytes]:
        """Yield what goes to the group now."""
        for store in self._epochs.stores():
            for datagram in store.repairs(self._allowance, now):
                self._counters["repair"] += 1
                self._counters["repair-bytes"] += len(datagram)
                yield datagram

    def timeout(self) -> float:
        """Return when `due` may have something to yield, if no data is sent until then."""
        return min((store.timeout(self._allowance) for store in self._epochs.stores()), default=math.inf)
