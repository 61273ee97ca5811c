"""When to look at the interfaces, and when to join which one again. Sans-IO: time and chance are arguments.

A switch that misses a report forgets the group, and nothing on this machine shows it. A leave and a join on
the same socket make the kernel report again (docs/protocol.md, section 9), so each interface gets that
once in a while, and at once when something happened to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
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
"""Seconds between joins of one interface for the silence of peers, who may just be gone."""
_SETTLE: Final = 0.05
"""Seconds to wait after an event: a link that comes up brings several."""
LOOKS: Final = 4
LOOKS_WINDOW: Final = 4.0
"""At most so many looks in so many seconds: a flapping link must not keep the node busy."""
FALLBACK_LOOK: Final = 5.0
"""Seconds between looks where the system tells of no changes; ten times that where it does."""


class Upkeep:
    """The schedule of one channel."""

    def __init__(self, now: float, *, random: Callable[[], float], told: bool, rejoin: bool) -> None:
        """Begin. `random` draws from 0 to 1; `told` says that `changed` is called on every change."""
        self._random = random
        self._every = FALLBACK_LOOK * 10 if told else FALLBACK_LOOK
        self._rejoin = rejoin
        self._look_at = now + self._every
        self._looks: deque[float] = deque(maxlen=LOOKS)
        self._due: dict[int, float] = {}
        self._joined_at: dict[int, float] = {}
        self._free_at = now

    def changed(self, now: float) -> None:
        """Note that the interfaces may have changed."""
        when = now + _SETTLE
        if len(self._looks) == LOOKS:
            when = max(when, self._looks[0] + LOOKS_WINDOW)
        self._look_at = min(self._look_at, when)

    def silent(self, now: float) -> None:
        """Note that a peer has gone silent: perhaps a switch has forgotten the group. All join again."""
        for index, when in self._due.items():
            self._due[index] = min(when, max(now, self._joined_at[index] + SILENCE_EVERY))

    def timeout(self) -> float:
        """Return when `look` or `rejoin` has something to say."""
        if not self._due:
            return self._look_at
        return min(self._look_at, max(self._free_at, min(self._due.values())))

    def look(self, now: float) -> bool:
        """Tell whether to look at the interfaces now; asking counts as looking."""
        if now < self._look_at:
            return False
        self._looks.append(now)
        self._look_at = now + self._every
        return True

    def members(self, indices: Iterable[int], now: float, *, waiting: bool = False) -> None:
        """Say which interfaces are joined, and whether others wait to be; new ones get a turn of their own."""
        if waiting:
            self._look_at = min(self._look_at, now + FALLBACK_LOOK)
        joined = set(indices) if self._rejoin else set()
        for index in self._due.keys() - joined:
            del self._due[index], self._joined_at[index]
        for index in joined - self._due.keys():
            self._joins(index, now)

    def rejoin(self, now: float) -> int | None:
        """Return an interface to leave and join now, if any: one at a time."""
        if not self._due or now < self._free_at:
            return None
        index = min(self._due, key=self._due.__getitem__)
        if now < self._due[index]:
            return None
        self._joins(index, now)
        self._free_at = now + SPACING
        return index

    def _joins(self, index: int, now: float) -> None:
        self._joined_at[index] = now
        self._due[index] = now + REJOIN_EVERY * (1 + REJOIN_JITTER * (2 * self._random() - 1))
