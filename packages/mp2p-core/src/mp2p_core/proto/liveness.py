"""When a peer is asked for a sign of life, and when it is given up (docs/protocol.md, section 6)."""

from __future__ import annotations

from mp2p_core.proto import constants as c

__all__ = ["Liveness"]


class Liveness:
    """The deadlines of one session that a silent peer runs into."""

    __slots__ = ("_again", "_confirm_step", "_first", "_probed_at", "confirm_at", "heard_at", "idle_timeout")

    def __init__(self, idle_timeout: float, now: float) -> None:
        self.idle_timeout = idle_timeout
        self.heard_at = now
        """When the last packet of the peer's opened; when the session began, until there was one."""
        self.confirm_at = now + c.CONFIRM_SCHEDULE[0]
        """When to confirm the keys again, to a responder that has not answered."""
        self._confirm_step = 0
        self._probed_at = now
        self._first = first = min(c.KEEPALIVE, idle_timeout / 3)
        self._again = (idle_timeout - first) / c.KEEPALIVE_REPEATS

    @property
    def ends_at(self) -> float:
        """When an open session ends."""
        return self.heard_at + self.idle_timeout

    @property
    def confirm_until(self) -> float:
        """When a session ends whose responder has not answered: by then it has forgotten it."""
        return self.heard_at + c.HALF_OPEN_LIFE

    @property
    def probe_at(self) -> float:
        """When to ask a silent peer for a sign of life; keeps idle sessions, and sees dead ones."""
        first, again = self.heard_at + self._first, self._probed_at + self._again
        return first if first > again else again

    @property
    def due(self) -> float:
        """When to do either."""
        probe, end = self.probe_at, self.heard_at + self.idle_timeout
        return probe if probe < end else end

    def probed(self, now: float) -> None:
        """Note that the peer was asked."""
        self._probed_at = now

    def confirmed(self, now: float) -> None:
        """Note that the keys were confirmed again."""
        self._confirm_step = min(self._confirm_step + 1, len(c.CONFIRM_SCHEDULE) - 1)
        self.confirm_at = now + c.CONFIRM_SCHEDULE[self._confirm_step]
