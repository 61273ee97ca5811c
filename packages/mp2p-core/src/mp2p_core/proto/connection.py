"""A connection: what the application sees of one peer, over one or more sessions (docs/protocol.md, section 6).

Usually there is one session. When both peers call at once there are two for a moment, and rekeying will
have two as well: sends go to the first, both are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mp2p_core.errors import Closed, DatagramTooLarge

if TYPE_CHECKING:
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.session import Session

__all__ = ["Connection"]


class Connection:
    """A peer's connection. Belongs to one endpoint, which must be flushed after each call here."""

    __slots__ = ("_closed", "_next_ping", "peer", "sessions")

    def __init__(self, peer: PublicKey, session: Session) -> None:
        self.peer = peer
        self.sessions = [session]
        """The preferred one first; the last one stays when it ends, so that there is always something to say."""
        self._closed: Closed | None = None
        self._next_ping = 0

    @property
    def session(self) -> Session:
        """The session that sends."""
        return self.sessions[0]

    @property
    def closed(self) -> Closed | None:
        """Why it ended, or None while it lives."""
        return self._closed

    def check_open(self) -> None:
        """Raise `Closed` when it has ended. A new exception each time: one that is raised twice mixes its traces."""
        if self._closed is not None:
            raise Closed(self._closed.code, self._closed.reason)

    @property
    def max_message(self) -> int:
        """The largest unreliable message in bytes."""
        return self.session.max_message

    def send_message(self, data: bytes) -> None:
        """Queue an unreliable message. Raises `Closed`, or `DatagramTooLarge`."""
        self.check_open()
        session = self.sessions[0]
        if len(data) > session.max_message:
            raise DatagramTooLarge(len(data), session.max_message)
        session.send_message(data)

    def ping(self) -> int:
        """Ask the peer for a sign of life; the number comes back in `PingAnswered`. Raises `Closed`."""
        self.check_open()
        self._next_ping += 1
        self.session.ping(self._next_ping)
        return self._next_ping

    def close(self, code: int, reason: str, now: float) -> None:
        """Close every session; the first call counts."""
        if self._closed is None:
            self._closed = Closed(code, reason)
        for session in self.sessions:
            session.close(code, reason, now)

    def add(self, session: Session, *, preferred: bool) -> None:
        """Take in a second session of the same peer."""
        session.connection = self
        if preferred:
            self.sessions.insert(0, session)
        else:
            self.sessions.append(session)

    def drop(self, session: Session) -> bool:
        """Note that a session no longer sends; True when that ends the connection."""
        if session in self.sessions and len(self.sessions) > 1:
            self.sessions.remove(session)
            return False
        if self._closed is not None or session not in self.sessions:
            return False
        self._closed = Closed(session.close_code, session.close_reason)
        return True
