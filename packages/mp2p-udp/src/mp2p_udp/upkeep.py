"""When to look at the interfaces, and when to join which one again. Sans-IO: time and chance are arguments.

A switch that misses a report forgets the group, and nothing on this machine shows it. A leave and a join on
the same socket make the kernel report again (docs/protocol.md, section 9), so each interface gets that
once in a while, and at once when something happened to it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

__all__ = [
    "FALLBACK_LOOK",
    "LOOKS",
    "LOOKS_WINDOW",
    "REJOIN_EVERY",
    "REJOIN_JITTER",
    "SILENCE_EVERY",
    "SPACING",
    "Upkeep",
]

REJOIN_EVERY: Final = 75.0
"""Seconds between joins of one interface; a switch forgets a group after 260 (RFC 3376, section 8.4)."""
REJOIN_JITTER: Final = 0.1
"""Share of that by which each wait differs, so that the nodes of a network do not report together."""
SPACING: Final = 0.5
"""Seconds between joins of two interfaces: one is always listening."""
SILENCE_EVERY: Final = 10.0
"""Seconds between joins of one interface for the silence of peers, who may just be gone. The least there are."""
_QUIET: Final = 2.0
"""Seconds without a datagram after which an interface itself counts as silent, and not one peer of several."""
_SETTLE: Final = 0.05
"""Seconds to wait after an event: a link that comes up brings several."""
LOOKS: Final = 4
LOOKS_WINDOW: Final = 4.0
"""At most so many looks in so many seconds: a flapping link must not keep the node busy."""
FALLBACK_LOOK: Final = 5.0
"""Seconds between looks where the system tells of no changes; ten times that where it does."""


class _Member:
    """One interface: when it joined, and when it is to join again."""

    __slots__ = ("due", "every", "for_silence", "hurried", "joined_at")

    def __init__(self) -> None:
        self.joined_at = self.due = 0.0
        self.every = REJOIN_EVERY
        self.for_silence = False
        """Whether it was a silence for which it joined the last time."""
        self.hurried = False
        """Whether it is for one that it is due."""

    def joins(self, now: float, jitter: float) -> None:
        """Note that it joins now; `jitter` is from -1 to 1."""
        self.joined_at = now
        self.due = now + self.every * (1 + REJOIN_JITTER * jitter)
        self.for_silence, self.hurried = self.hurried, False

    def silent(self, now: float, heard_at: float) -> None:
        """Have it join soon."""
        if self.for_silence and self.joined_at < heard_at < now - _QUIET:
            soonest = SILENCE_EVERY / (1 - REJOIN_JITTER)
            self.every = min(self.every, max((heard_at - self.joined_at) / 2, soonest))
        sooner = max(now, self.joined_at + SILENCE_EVERY)
        if sooner < self.due:
            self.due, self.hurried = sooner, True


class Upkeep:
    """The schedule of one channel."""

    def __init__(self, now: float, *, random: Callable[[], float], told: bool, rejoin: bool) -> None:
        """Begin. `random` draws from 0 to 1; `told` says that `changed` is called on every change."""
        self._random = random
        self._look_every = FALLBACK_LOOK * 10 if told else FALLBACK_LOOK
        self._rejoin = rejoin
        self._look_at = now + self._look_every
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._members: dict[int, _Member] = {}
        self._free_at = now

    def changed(self, now: float) -> None:
        """Note that the interfaces may have changed."""
        when = now + _SETTLE
        if len(self._looks) == LOOKS:
            when = max(when, self._looks[0] + LOOKS_WINDOW)
        self._look_at = min(self._look_at, when)

    def silent(self, now: float, heard_at: Mapping[int, float]) -> None:
        """Note that a peer has gone silent: perhaps a switch has forgotten the group. All join again.

        `heard_at` is when each interface brought its last datagram. One that joined for a silence, brought some, and
        is silent again is at a switch that forgets sooner than it is reminded: from now on it is reminded in time.
        """
        for index, member in self._members.items():
            member.silent(now, heard_at.get(index, math.nan))

    def timeout(self) -> float:
        """Return when `look` or `rejoin` has something to say."""
        due = min((member.due for member in self._members.values()), default=math.inf)
        return min(self._look_at, max(self._free_at, due))

    def look(self, now: float) -> bool:
        """Tell whether to look at the interfaces now; asking counts as looking."""
        if now < self._look_at:
            return False
        self._looks.append(now)
        self._look_at = now + self._look_every
        return True

    def members(self, indices: Iterable[int], now: float, *, waiting: bool = False) -> None:
        """Say which interfaces are joined, and whether others wait to be; new ones get a turn of their own."""
        if waiting:
            self._look_at = min(self._look_at, now + FALLBACK_LOOK)
        joined = set(indices) if self._rejoin else set()
        for index in self._members.keys() - joined:
            del self._members[index]
        for index in joined - self._members.keys():
            self._members[index] = _Member()
            self._joins(index, now)

    def rejoin(self, now: float) -> int | None:
        """Return an interface to leave and join now, if any: one at a time."""
        if not self._members or now < self._free_at:
            return None
        index = min(self._members, key=lambda each: self._members[each].due)
        if now < self._members[index].due:
            return None
        self._joins(index, now)
        self._free_at = now + SPACING
        return index

    def _joins(self, index: int, now: float) -> None:
        self._members[index].joins(now, 2 * self._random() - 1)
