"""How sessions and connections come about, take each other's place, and end (docs/protocol.md, sections 4 and 6).

Holds what an endpoint has of both, and the three lists that follow from it: what happened, which sessions have
something to send, and when to look at which again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto import events as ev
from mp2p_core.proto.connection import Connection, ConnectionTable
from mp2p_core.proto.parts import Reassembly
from mp2p_core.proto.states import SessionState
from mp2p_core.proto.timers import Timers

if TYPE_CHECKING:
    from collections import defaultdict

    from mp2p_core.proto.dials import Dials, Settled
    from mp2p_core.proto.epoch import Epoch
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.initiator import Dial
    from mp2p_core.proto.responder import Responder
    from mp2p_core.proto.session import Session

__all__ = ["Lifecycle"]


class Lifecycle:
    """The sessions and connections of one endpoint."""

    __slots__ = ("_dials", "_half_open", "_own", "_responder", "connections", "counters", "dirty", "events", "parts",
                 "sessions", "timers")  # fmt: skip

    def __init__(
        self,
        own: PublicKey,
        connections: ConnectionTable,
        responder: Responder,
        dials: Dials,
        counters: defaultdict[str, int],
    ) -> None:
        self._own = own
        self._responder = responder
        self._dials = dials
        self.connections = connections
        self.sessions: dict[bytes, Session] = {}
        """By each id under which packets for them come in."""
        self.parts = Reassembly()
        # Attack: INITs that nobody confirms. Bounded; the oldest goes.
        self._half_open: OrderedDict[bytes, Session] = OrderedDict()
        self.timers: Timers[Session | Dial] = Timers()
        self.dirty: dict[Session, None] = {}
        """Those that may have something to send."""
        self.events: list[ev.Event] = []
        self.counters = counters

    def sizes(self) -> dict[str, int]:
        """Return how many entries each table holds."""
        return {
            "connections": len(self.connections),
            "half-open": len(self._half_open),
            "parts": len(self.parts),
            "sessions": len(self.sessions),
            "timers": len(self.timers),
        }

    @property
    def busy(self) -> bool:
        """Whether there are as many confirmed sessions as the node takes."""
        return len(self.sessions) - len(self._half_open) >= c.MAX_SESSIONS

    def touch(self, session: Session, now: float) -> None:
        """Look at a session again: it may have something to send, or an earlier deadline."""
        if session.roaming.left_silence:
            session.roaming.left_silence = False
            if session.connection is not None:
                self.events.append(ev.PeerSilent(session.connection))
        if session.wants_to_send(now):
            # Its deadline is looked at after that: now it may be for what goes out in a moment.
            self.dirty[session] = None
        else:
            self.timers.schedule(session)

    # --- beginning ----------------------------------------------------------------------------------

    def add_half_open(self, session: Session) -> None:
        """Keep a session until its initiator confirms it."""
        table = self._half_open
        if len(table) >= c.HALF_OPEN_SIZE:
            _, oldest = table.popitem(last=False)
            del self.sessions[oldest.epoch.local_id]
            oldest.expire()
            self.counters["half-open-pushed-out"] += 1
        table[session.epoch.local_id] = self.sessions[session.epoch.local_id] = session
        self.timers.schedule(session)

    def offer(self, session: Session, epoch: Epoch) -> None:
        """Get ready for new keys that the peer of a session has asked for."""
        session.epochs.offer(epoch)
        self.sessions[epoch.local_id] = session
        self.forget_ids(session)

    def settle(self, settled: Settled, now: float) -> None:
        """Go on with what a verified RESP has brought."""
        dial, session = settled.dial, settled.session
        renewed = dial.session
        if settled.refusal is not None:
            if renewed is None:
                self.events.append(ev.ConnectFailed(dial.number, dial.stage.text, settled.refusal))
            return
        if settled.epoch is not None:
            if renewed is not None and renewed.live:
                renewed.install(settled.epoch, now)
                self.sessions[settled.epoch.local_id] = renewed
                self.forget_ids(renewed)
                self.counters["rekeys-done"] += 1
                self.touch(renewed, now)
            return
        assert session is not None
        self.sessions[session.epoch.local_id] = session
        if renewed is not None and renewed.connection is not None:
            self.counters["sessions-replaced"] += 1
            self._replace(renewed.connection, self._connect(session), now)
            self.touch(session, now)
            return
        self.counters["sessions-connected"] += 1
        self.events.append(ev.Connected(dial.number, self._connect(session)))
        self.touch(session, now)

    def _connect(self, session: Session) -> Connection:
        connection = Connection(session.peer, session)
        self.connections.add(connection)
        return connection

    def _replace(self, old: Connection, new: Connection, now: float) -> None:
        """Go on with a peer that has started anew: what the old connection had under way is lost, and said so."""
        self.events.append(ev.ConnectionReplaced(old, new))
        self.close(old, c.CLOSE_RESTARTED, "the peer has started anew", now)

    def took_data(self, session: Session, before: SessionState, now: float) -> None:
        """Follow a packet that opened: `before` is the session's state before it."""
        for each in session.connection.sessions if session.connection is not None else ():
            if each.searching:
                # It is there after all, and remembers: a lossy network must not make two connections of one.
                each.searching = False
                self._dials.end_renewing(each)
                each.epochs.not_needed()
                each.roaming.heard_again()
                self.dirty[each] = None
        if (promoted := session.epochs.promoted) is not None:
            self._responder.confirmed(session.peer, promoted.timestamp)
            session.epochs.promoted = None
            self.forget_ids(session)
        changed = session.state is not before
        if changed and before is SessionState.HALF_OPEN:
            self._confirm(session, now)
        # In the order of the packet: what it brought comes before the end that it may also have brought.
        if session.received or session.packer.answered_pings or session.packer.streams.events:
            self.deliver(session)
        if changed:
            self.after_change(session, now)
        self.touch(session, now)

    def deliver(self, session: Session) -> None:
        """Tell what a session has received."""
        connection = session.connection
        if connection is not None and connection.closed is None:
            for data in session.received:
                self.events.append(ev.MessageReceived(connection, data))
            for number, rtt in session.packer.answered_pings:
                self.events.append(ev.PingAnswered(connection, number, rtt))
            if events := session.packer.streams.events:
                self.events.append(ev.StreamsChanged(connection, session, events.copy()))
        session.received.clear()
        session.packer.answered_pings.clear()
        session.packer.streams.events.clear()

    def _confirm(self, session: Session, now: float) -> None:
        """The initiator has proved itself: only now does the application hear of it."""
        self._half_open.pop(session.epoch.local_id, None)
        peer = session.peer
        self._responder.confirmed(peer, session.epoch.timestamp)
        dial = self._dials.to(peer)
        crossed = self.connections.crossed_by(session)
        if crossed is not None:
            self._merge(crossed, session, now)
        else:
            if (oldest := self.connections.crowding_out(peer)) is not None:
                self.close(oldest, c.CLOSE_EXCESSIVE, "too many sessions of one key", now)
            connection = self._connect(session)
            self.counters["sessions-accepted"] += 1
            if dial is None:
                self.events.append(ev.Accepted(connection))
        if dial is not None:
            # Both called at once and the peer was faster: its session serves both.
            self._dials.end(dial)
            assert session.connection is not None
            self.events.append(ev.Connected(dial.number, session.connection))

    def _merge(self, connection: Connection, session: Session, now: float) -> None:
        """Prefer the session begun by the smaller key; whoever began the other one closes it when it is not needed."""
        spare = connection.merge(session, preferred=session.peer.raw < self._own.raw)
        self.counters["sessions-merged"] += 1
        if spare.initiator:
            spare.review_at = now + c.SPARE_LIFE
            self.timers.schedule(spare)
        self.touch(connection.session, now)

    def may_cross(self, dial: Dial) -> bool:
        """Tell whether an INIT made now says that it may have crossed one of the peer's.

        Of all calls and sessions between the two, there is at most one at a time that says so and that the peer
        may not know yet: so both sides find the same two (row H10).
        """
        return (
            dial.session is None
            and self._dials.to(dial.peer) in (None, dial)
            and self.connections.settled(dial.peer)
        )

    # --- ending -------------------------------------------------------------------------------------

    def review(self, spare: Session, now: float) -> None:
        """Close the spare one of two sessions when it has nothing to do, and the peer surely knows the other one."""
        connection = spare.connection
        if connection is None or connection.closed is not None or connection.session is spare:
            spare.review_at = math.inf
            return
        spare.review_at = spare.carried_at + c.SPARE_LIFE
        if now < spare.review_at:
            return
        chosen = connection.session
        if chosen.known_to_peer and not chosen.roaming.fading and spare.packer.streams.table.unused:
            # Repeated for as long as the peer may believe in it: nothing else would tell it.
            spare.close(c.CLOSE_SUPERSEDED, "both sides called at once", now, spare.liveness.idle_timeout)
        else:
            spare.review_at = now + c.SPARE_LIFE

    def after_change(self, session: Session, now: float) -> None:
        """Follow a session that has left the live states."""
        if session.live:
            return
        self._dials.end_renewing(session)
        connection = session.connection
        if connection is not None:
            if connection.drop(session):
                for other in connection.sessions:
                    self._end_with(session, other, now)
                self.events.append(
                    ev.ConnectionClosed(connection, session.closing.code, session.closing.reason)
                )
            if connection.closed is not None:
                self.connections.remove(connection)
            elif session.closing.code == c.CLOSE_SUPERSEDED:
                session.packer.streams.table.settle()
                self.deliver(session)
        if session.state is SessionState.CLOSED:
            for local_id in session.epochs.ids:
                self.sessions.pop(local_id, None)
                self.parts.forget(local_id)
                self._half_open.pop(local_id, None)
            self.dirty.pop(session, None)

    def _end_with(self, ended: Session, other: Session, now: float) -> None:
        """Close the other session of a connection whose one session took streams with it."""
        if ended.closing.code == c.CLOSE_IDLE:
            other.close(c.CLOSE_INTERNAL, "one of the two sessions of this connection has gone silent", now)
        else:
            other.close(c.CLOSE_DONE, "", now)
        self._dials.end_renewing(other)
        self.touch(other, now)

    def close(self, connection: Connection, code: int, reason: str, now: float) -> None:
        """Close a connection; its `ConnectionClosed` follows at once. Does nothing when it has ended."""
        if connection.closed is None:
            connection.close(code, reason, now)
            for session in connection.sessions:
                self._dials.end_renewing(session)
                self.touch(session, now)
            self.connections.remove(connection)
            self.events.append(ev.ConnectionClosed(connection, code, reason))

    def forget_ids(self, session: Session) -> None:
        """Forget the ids of keys that are gone."""
        retired = session.epochs.retired
        for local_id in retired:
            self.sessions.pop(local_id, None)
            self.parts.forget(local_id)
        retired.clear()
