"""When to ask for what is missing, and when to give it up (docs/protocol.md, section 8; RFC 5401).

All subscribers that miss a datagram wait for a random time, short for few of them and long for most. The
first one's repair cancels what the others had in mind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.parity import block_of

if TYPE_CHECKING:
    from mp2p_core.transport import RandomBytes

__all__ = ["Wanted", "backoff"]

_SCALE: Final = 2.0**-32


def backoff(uniform: float, longest: float, members: int) -> float:
    """Return a truncated exponential wait (RFC 5401, section 5.1.1.2) from a uniform number in [0, 1)."""
    spread = math.log(max(members, 1)) + 1
    # Rounding may carry it a trifle beyond.
    return min(longest / spread * math.log1p(uniform * math.expm1(spread)), longest)


class _Missing:
    __slots__ = ("answers", "due", "noticed", "tries")

    def __init__(self, due: float, noticed: float) -> None:
        self.answers = 0  # how many datagrams had come in answer to questions when it was asked for last
        self.due = due
        self.noticed = noticed
        self.tries = 0


class Wanted:
    """The missing seqs of an epoch, at most a window of them."""

    __slots__ = (
        "_answers",
        "_due",
        "_missing",
        "_random",
        "lost",
        "lost_from",
        "members",
        "repaired",
        "rtt",
        "scattered_at",
    )

    def __init__(self, random: RandomBytes, *, rtt: float, repaired: bool) -> None:
        self._random = random
        self._missing: dict[int, _Missing] = {}
        self._due = math.inf
        self._answers = 0
        self.rtt = rtt
        self.repaired = repaired
        """Whether to ask, or to wait a moment for what has only been overtaken."""
        self.members = c.GROUP_MEMBERS_ASSUMED
        """How many may miss the same."""
        self.scattered_at = -math.inf
        """When the publisher last sent a sum: each subscriber misses something else."""
        self.lost = 0
        """How many seqs did not come by themselves, so far."""
        self.lost_from = 0
        """The first seq that counts there."""

    def __len__(self) -> int:
        return len(self._missing)

    def __contains__(self, seq: object) -> bool:
        return seq in self._missing

    def seqs(self) -> list[int]:
        """Return what is missing, lowest first."""
        return sorted(self._missing)

    def _round_trip(self) -> float:
        return max(self.rtt, c.GROUP_RTT_FLOOR)

    def _wait(self) -> float:
        uniform = int.from_bytes(self._random(4), "big") * _SCALE
        return backoff(uniform, c.NACK_BACKOFF * self._round_trip(), self.members)

    def notice(self, seqs: Iterable[int], now: float) -> None:
        """Learn that these seqs were sent and have not come; they share one wait."""
        if not self.repaired:
            due = now + c.GROUP_REORDER
        elif self._gathers(now):
            due = now + c.PARITY_PATIENCE + self._wait()
        else:
            due = now + self._round_trip() / 8 + self._wait()
        for seq in seqs:
            self._missing[seq] = _Missing(due, now)
        self._due = min(self._due, due)

    def _gathers(self, now: float) -> bool:
        return now < self.scattered_at + c.PARITY_MEMORY

    def completed(self, block: int, now: float) -> None:
        """Learn that nothing new comes of a block: what is missing of it can be asked for."""
        if not self._gathers(now):
            return
        due = now + self._round_trip() / 8 + self._wait()
        for seq, missing in self._missing.items():
            if missing.due > due and not missing.tries and block_of(seq) <= block:
                missing.due = due
                self._due = min(self._due, due)

    def begin_again(self, block: int, now: float) -> None:
        """Learn that the answers about a block were false: ask from the beginning."""
        for seq, missing in self._missing.items():
            if block_of(seq) == block:
                missing.tries = 0
                missing.due = now + self._wait()
                self._due = min(self._due, missing.due)

    def found(self, seq: int, now: float) -> None:
        """Learn that it came."""
        missing = self._missing.pop(seq, None)
        if missing is None:
            return
        if seq >= self.lost_from and now - missing.noticed > max(self.rtt / 2, c.GRANULARITY):
            self.lost += 1  # not merely overtaken: that late, it was asked for by somebody
        self._answers += missing.tries > 0
        if not self._missing:
            self._due = math.inf

    def answered(self) -> None:
        """Learn that something came that helps, though nothing is found by it yet: the publisher does answer."""
        self._answers += 1

    def give_up(self, seqs: Iterable[int]) -> None:
        """Want these no longer: they are not to be had."""
        for seq in seqs:
            if self._missing.pop(seq, None) is not None:
                self.lost += seq >= self.lost_from
        if not self._missing:
            self._due = math.inf

    def _worth_asking(self, missing: _Missing, now: float) -> bool:
        """Tell whether to ask: five times, not counting those that were followed by answers, to whatever."""
        if missing.answers < self._answers and now < missing.noticed + c.OLD_EPOCH_LIFE:
            missing.answers = self._answers
            missing.tries = max(missing.tries - 1, 0)
        return missing.tries < c.NACK_TRIES

    def timeout(self) -> float | None:
        """Return when to come back."""
        return self._due if self._missing else None

    def due(self, now: float, held: Callable[[int], bool]) -> tuple[list[int], list[int]]:
        """Return what to ask for now, and what to give up: both lowest first.

        Whatever is missing of a block is asked for together, so that the publisher knows how many sums suffice.
        `held` says what is here and has not been proven: at first only its manifest is asked for.
        """
        ask: list[int] = []
        gone: list[int] = []
        if now < self._due:
            return ask, gone
        soon = now + self._round_trip() / 2  # one question for all that is due about now
        again = max(4 * self._round_trip(), 2 * c.REPAIR_SPACING) + self._wait()
        settled = now - self._round_trip() / 8
        blocks = {block_of(seq) for seq, missing in self._missing.items() if missing.due <= soon}
        self._due = math.inf
        for seq, missing in self._missing.items():
            if missing.due > soon and not (missing.noticed <= settled and block_of(seq) in blocks):
                pass
            elif self.repaired and self._worth_asking(missing, now):
                missing.due = now + again * (1 << missing.tries)
                missing.tries += 1
                if missing.tries > c.NACK_PATIENCE or not held(seq):
                    ask.append(seq)
            elif missing.due <= now:
                gone.append(seq)
                continue
            self._due = min(self._due, missing.due)
        self.give_up(gone)
        return sorted(ask), sorted(gone)
