"""Connections: what the application sees of its peers, each over one or two sessions (docs/protocol.md, section 6).

Usually there is one session. When both peers call at once there are two: what is new goes to the first, both
are read, and streams stay on the session on which they were opened.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from mp2p_core.errors import Closed, DatagramTooLarge
from mp2p_core.proto import constants as c

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.session import Session

__all__ = ["Connection", "ConnectionTable"]


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
        if self._closed is not None:
            self.check_open()
        session = self.sessions[0]
        if len(data) > session.max_message:
            raise DatagramTooLarge(len(data), session.max_message)
        session.packer.message(data)

    def ping(self) -> int:
        """Ask the peer for a sign of life; the number comes back in `PingAnswered`. Raises `Closed`."""
        self.check_open()
        self._next_ping += 1
        self.session.packer.ping(self._next_ping)
        return self._next_ping

    def close(self, code: int, reason: str, now: float) -> None:
        """Close every session; the first call counts."""
        if self._closed is None:
            self._closed = Closed(code, reason)
        for session in self.sessions:
            session.close(code, reason, now)

    def merge(self, session: Session, *, preferred: bool) -> Session:
        """Take in a second session of the same peer; returns the spare one, which gets nothing new."""
        session.connection = self
        if preferred:
            self.sessions.insert(0, session)
        else:
            self.sessions.append(session)
        chosen, spare = self.sessions
        chosen.packer.take_over(spare.packer)
        return spare

    def drop(self, session: Session) -> bool:
        """Note that a session no longer sends; True when that ends the connection."""
        if self._closed is not None or session not in self.sessions:
            return False
        if len(self.sessions) > 1 and session.leaves_nothing:
            self.sessions.remove(session)
            return False
        self._closed = Closed(session.closing.code, session.closing.reason)
        return True


class ConnectionTable:
    """The live connections of an endpoint, by peer.

    Attack: a peer, or a stranger in open mode, that connects for ever. The responder says 'busy' above
    MAX_SESSIONS, and `crowding_out` names what has to go for one key's next.
    """

    def __init__(self) -> None:
        self._by_peer: dict[bytes, list[Connection]] = {}
        self._x25519: defaultdict[bytes, int] = defaultdict(int)

    def add(self, connection: Connection) -> None:
        """Take in a connection."""
        connection.session.connection = connection
        self._by_peer.setdefault(connection.peer.raw, []).append(connection)
        self._x25519[connection.peer.x25519] += 1

    def remove(self, connection: Connection) -> None:
        """Forget a connection; does nothing when it is not there."""
        held = self._by_peer.get(connection.peer.raw, [])
        if connection in held:
            held.remove(connection)
            self._x25519[connection.peer.x25519] -= 1
            if not self._x25519[connection.peer.x25519]:
                del self._x25519[connection.peer.x25519]
            if not held:
                del self._by_peer[connection.peer.raw]

    def session(self, peer: PublicKey, token: bytes) -> Session | None:
        """Find a session of this very peer by its token; those that have ended are not here any more."""
        for connection in self._by_peer.get(peer.raw, ()):
            for session in connection.sessions:
                if session.token == token:
                    return session
        return None

    def crowding_out(self, peer: PublicKey) -> Connection | None:
        """Return the oldest connection of a key that holds as many as it may."""
        held = self._by_peer.get(peer.raw, [])
        return held[0] if len(held) >= c.MAX_SESSIONS_PER_PEER else None

    def crossed_by(self, session: Session) -> Connection | None:
        """Find the connection of ours whose call has crossed the one that a session of the peer's came from (row H10).

        Both INITs say that their senders knew of nothing else between the two. And ours had not heard from the peer
        when the peer's INIT came: if that is so on one side it is so on the other (docs/protocol.md, section 4). At
        most one session is merged into each: a peer that answers one call with a hundred of its own gets
        connections of its own, and few of them.
        """
        for connection in self._by_peer.get(session.peer.raw, ()):
            ours = connection.session
            if (
                ours.initiator
                and ours.may_cross
                and session.may_cross
                and session.began <= ours.opened_at
                and len(connection.sessions) == 1
            ):
                return connection
        return None

    def knows(self, x25519: bytes) -> bool:
        """Tell whether there is a connection with a key that maps to this one."""
        return x25519 in self._x25519

    def settled(self, peer: PublicKey) -> bool:
        """Tell whether this peer is certain to know every session that there is with it."""
        held = self._by_peer.get(peer.raw, ())
        return all(session.known_to_peer for connection in held for session in connection.sessions)

    def __iter__(self) -> Iterator[Connection]:
        """Yield every connection."""
        for held in self._by_peer.values():
            yield from held

    def __len__(self) -> int:
        return sum(map(len, self._by_peer.values()))
