"""What was sent in an epoch, byte for byte, and what of it is to be sent again (docs/protocol.md, section 8).

A few losses are repaired one by one. Where each subscriber misses something else, that would be more than
sending everything twice: then a question about a block is answered with as many sums as whoever asks misses, and
they serve all others too.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.parity import MAX_PARITIES, block_of, block_start, parity_seq, parity_sum

if TYPE_CHECKING:
    from mp2p_core.proto.group.rate import Allowance
    from mp2p_core.proto.group.sealing import Sealer

__all__ = ["Store"]


class _Asked:
    """What is asked for of a block: `need` datagrams by whoever misses most, `seqs` by all together."""

    __slots__ = ("need", "plain", "seqs")

    def __init__(self) -> None:
        self.need = 0
        self.plain = False  # whether somebody asks whom no sum serves
        self.seqs: dict[int, None] = {}


class Store:
    """The last datagrams of an epoch, by seq.

    Attack: a subscriber that asks for everything, for ever. Each datagram goes out again once in a spacing at
    most, and all together within the publisher's allowance for repairs.
    """

    __slots__ = (
        "_asked", "_before", "_datagrams", "_ever", "_first", "_parities", "_repaired", "_sealer", "_span", "channel",
        "expires", "last",
    )  # fmt: skip

    def __init__(self, sealer: Sealer, size: int = c.GROUP_WINDOW) -> None:
        self._sealer = sealer
        self.channel = sealer.keys.channel
        self._datagrams: deque[bytes] = deque(maxlen=size)
        self._first = 1
        self._repaired: dict[int, float] = {}  # seq -> when it was sent again
        self._parities: dict[int, list[float]] = {}  # block -> when its sums were sent
        self._asked: dict[int, _Asked] = {}  # block -> questions, the oldest first
        self._ever: set[int] = set()  # what anybody missed since seq _span
        self._before = 0  # how many that were, in the span before
        self._span = 1
        self.expires = math.inf
        """When it goes, once its epoch has ended."""
        self.last = 0

    @property
    def oldest(self) -> int:
        """The lowest seq that is kept."""
        return self._first

    def add(self, datagrams: Sequence[bytes]) -> None:
        """Keep what goes out, each with the next seq."""
        self._datagrams.extend(datagrams)
        self.last += len(datagrams)
        first = self.last + 1 - len(self._datagrams)
        if self._repaired or self._parities or self._asked:
            self._forget(first)
        self._first = first

    def _forget(self, first: int) -> None:
        for gone in range(self._first, first):
            self._repaired.pop(gone, None)
        for block in range(block_of(self._first), block_of(first)):
            self._parities.pop(block, None)
            self._asked.pop(block, None)
        edge = block_of(first)
        if edge in self._asked:
            seqs = self._asked[edge].seqs = {seq: None for seq in self._asked[edge].seqs if seq >= first}
            if not seqs:
                del self._asked[edge]

    def get(self, seq: int) -> bytes | None:
        """Return a datagram as it was sent; None for what never was, or is not kept."""
        return self._datagrams[seq - self._first] if self._first <= seq <= self.last else None

    def ask_untrusted(self, seqs: Iterable[int], first: int, spacing: float, now: float) -> None:
        """Have datagrams sent to all again, unless that was done within the last `spacing` seconds.

        `first` is the first seq that who asks could hear: the sum of a block that began earlier does not serve it.
        """
        wanted: dict[int, list[int]] = {}
        for seq in seqs:
            if self.get(seq) is not None and now - self._repaired.get(seq, -math.inf) >= spacing:
                wanted.setdefault(block_of(seq), []).append(seq)
        for block, of_block in wanted.items():
            need = len(of_block) - sum(now - at < spacing for at in self._parities.get(block, ()))
            if need > 0:
                asked = self._asked.setdefault(block, _Asked())
                asked.need = max(asked.need, need)
                asked.seqs.update(dict.fromkeys(of_block))
                if block_start(block) < first:
                    asked.plain = True
                self._ever.update(of_block)
        if self.last >= self._span + c.PARITY_SPAN:
            self._before = len(self._ever)
            self._ever.clear()
            self._span = self.last

    @property
    def scattered(self) -> bool:
        """Whether so much is missing, here and there, that sums are sent rather than datagrams."""
        return max(len(self._ever), self._before) > c.PARITY_FROM * c.PARITY_SPAN

    def repairs(self, allowance: Allowance, now: float) -> Iterator[bytes]:
        """Yield what is to go out again, as far as the allowance goes."""
        for block, asked in list(self._asked.items()):
            while asked.seqs and (asked.need > 0 or asked.plain):
                if not allowance.take(self._size(asked), now):
                    return
                asked.need -= 1
                yield self._repair(block, asked, now)
            del self._asked[block]

    def _size(self, asked: _Asked) -> int:
        return len(self._datagrams[next(iter(asked.seqs)) - self._first])

    def _repair(self, block: int, asked: _Asked, now: float) -> bytes:
        if not asked.plain and (self.scattered or len(asked.seqs) > asked.need + 1):
            parity = self._parity(block, now)
            if parity is not None:
                return parity
        seq = next(iter(asked.seqs))
        del asked.seqs[seq]
        self._repaired[seq] = now
        return self._datagrams[seq - self._first]

    def _parity(self, block: int, now: float) -> bytes | None:
        """Make a sum of as much of the block as there is; None when it has too many, or is not all here."""
        times = self._parities.setdefault(block, [])
        start = block_start(block)
        if start < self._first or len(times) == MAX_PARITIES:
            return None
        at = start - self._first
        datagrams = list(islice(self._datagrams, at, at + c.PARITY_BLOCK))
        index = len(times)
        times.append(now)
        return self._sealer.parity(parity_seq(block, index, len(datagrams)), parity_sum(datagrams, index))

    def timeout(self, allowance: Allowance) -> float:
        """Return when `repairs` may have something to yield, if no data is sent until then."""
        due = math.inf
        for asked in self._asked.values():
            due = min(due, allowance.ready_at(self._size(asked)))
        return due
