"""When a peer is asked for a sign of life, and when it is given up (docs/protocol.md, section 6)."""

from __future__ import annotations

from mp2p_core.proto import constants as c

__all__ = ["Liveness"]


class Liveness:
    """The deadlines of one session that a silent peer runs into."""

    __slots__ = (
        "_again", "_confirm_step", "_first", "_probed_at", "confirm_at", "due", "ends_at", "heard_at", "idle_timeout",
        "probe_at",
    )  # fmt: skip

    def __init__(self, idle_timeout: float, now: float) -> None:
        self.idle_timeout = idle_timeout
        self.confirm_at = now + c.CONFIRM_SCHEDULE[0]
        """When to confirm the keys again, to a responder that has not answered."""
        self._confirm_step = 0
        self._probed_at = now
        self._first = first = min(c.KEEPALIVE, idle_timeout / 3)
        self._again = (idle_timeout - first) / c.KEEPALIVE_REPEATS
        self.heard(now)

    def heard(self, now: float) -> None:
        """Note that a packet of the peer's opened, or that the session begins."""
        first, again, end = now + self._first, self._probed_at + self._again, now + self.idle_timeout
        self.heard_at = now
        """When it was heard last."""
        self.ends_at = end
        """When an open session ends."""
        self.probe_at = probe = first if first > again else again
        """When to ask a silent peer for a sign of life; keeps idle sessions, and sees dead ones."""
        self.due = probe if probe < end else end
        """When to do either."""

    @property
    def confirm_until(self) -> float:
        """When a session ends whose responder has not answered: by then it has forgotten it."""
        return self.heard_at + c.HALF_OPEN_LIFE

    def probed(self, now: float) -> None:
        """Note that the peer was asked."""
        self._probed_at = now
        self.heard(self.heard_at)

    def confirmed(self, now: float) -> None:
        """Note that the keys were confirmed again."""
        self._confirm_step = min(self._confirm_step + 1, len(c.CONFIRM_SCHEDULE) - 1)
        self.confirm_at = now + c.CONFIRM_SCHEDULE[self._confirm_step]
