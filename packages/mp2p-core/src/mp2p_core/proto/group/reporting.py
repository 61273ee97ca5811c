"""When a subscriber tells its publisher how it fares (docs/protocol.md, section 8)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.control import Report
from mp2p_core.proto.group.rate import report_interval

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Grant
    from mp2p_core.proto.group.lane import Lane
    from mp2p_core.transport import RandomBytes

__all__ = ["Reporter"]


class Reporter:
    """Reports now and then; and while this subscriber cannot follow, as often as the publisher has to know.

    Those who can follow say nothing of it, or a thousand of them would say it all the time.
    """

    __slots__ = ("_at", "_next_seq", "_random", "_slow", "_topic", "_waited_for", "due", "held")

    def __init__(self, topic: bytes, random: RandomBytes) -> None:
        self._topic = topic
        self._random = random
        self._at = -math.inf
        self._slow = False  # whether the publisher has been asked to wait
        self._next_seq = 0  # below which everything had been passed on when it was told last
        # The publisher waits for a report that everything up to this seq has been passed on.
        self._waited_for: int | None = None
        self.held = 0
        """Datagrams that wait with the caller."""
        self.due = math.inf

    def granted(self, grant: Grant, members: int, now: float, *, deaf: bool) -> None:
        """Learn of an epoch. A publisher that has let this subscriber in waits to be told that it hears."""
        self.within(members, now)
        if grant.backlog or self._waited_for is not None:
            self._waited_for = grant.next_seq
        if grant.backlog and deaf:
            self.due = now

    def confirm(self, last: int) -> None:
        """Report as soon as everything up to this seq has been passed on."""
        self._waited_for = max(self._waited_for or 0, last)

    def within(self, members: int, now: float) -> None:
        """Report after the interval for so many members, if not before."""
        self.due = min(self.due, now + 1.1 * report_interval(members))

    def _behind(self, lane: Lane) -> int:
        return lane.window.highest + 1 - lane.window.base + self.held

    def look(self, lane: Lane, now: float) -> None:
        """Report soon if the publisher has to wait, or need wait no longer, or may go on for a part.

        And at once what it has asked for.
        """
        if self._waited_for is not None and lane.begun and lane.window.base > self._waited_for:
            self._waited_for = None
            self.due = now
            return
        behind = self._behind(lane)
        if self._slow:
            step = c.GROUP_BEHIND // 2
            told = behind < step or lane.window.base >= self._next_seq + step
        else:
            told = behind >= c.GROUP_BEHIND
        if told:
            spacing = c.SLOW_SPACING * (1 + lane.wanted.members / 8)
            self.due = min(self.due, max(now, self._at + spacing))

    def report(self, lane: Lane, rtt: float, now: float, *, deaf: bool) -> Report:
        """Make a report, of the time since the last one."""
        self._slow = self._behind(lane) >= (c.GROUP_BEHIND // 2 if self._slow else c.GROUP_BEHIND)
        self._next_seq = lane.window.base
        self._at = now
        uniform = int.from_bytes(self._random(2), "big") / 65536
        self.due = now + report_interval(lane.wanted.members) * (0.9 + 0.2 * uniform)
        expected, lost = lane.counts()
        # What has come of an epoch is not passed on before the one before it is complete.
        passed = self._next_seq if lane.begun else 0
        highest = lane.window.highest
        return Report(self._topic, lane.channel, highest, passed, expected, lost, rtt, deaf, self._slow)
