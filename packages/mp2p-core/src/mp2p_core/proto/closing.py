"""What a session says when it ends, and for how long it says so (docs/protocol.md, section 6)."""

from __future__ import annotations

from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import encode_close

__all__ = ["Closing"]


class Closing:
    """The end of one session: why, and whether a CLOSE is due."""

    __slots__ = ("_said_at", "code", "due", "reason", "until")

    def __init__(self, now: float) -> None:
        self.code = c.CLOSE_DONE
        self.reason = ""
        self.due = False
        """Whether a CLOSE is to go out."""
        self.until = now
        """When the session is forgotten: late packets are understood until then."""
        self._said_at = now

    def begin(self, code: int, reason: str, until: float) -> None:
        """Say CLOSE, and repeat it to late packets for a while."""
        self.code, self.reason, self.until = code, reason, until
        self.due = True

    def hush(self, now: float) -> None:
        """Say nothing more: the peer knows, or is not there."""
        self.due = False
        self.until = now + c.CLOSING_LIFE

    def heard_late(self, now: float, rtt: float) -> None:
        """Take note that the peer still sends: it is told again, once a round trip."""
        if now >= self._said_at + rtt:
            self.due = True

    def frame(self, now: float) -> bytes:
        """Return the CLOSE that is due."""
        self.due = False
        self._said_at = now
        return encode_close(self.code, self.reason)
