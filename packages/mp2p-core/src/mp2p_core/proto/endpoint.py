"""The endpoint: every handshake and session of one node, sans-IO (docs/protocol.md, sections 3 to 6).

    receive(channel, train, now)   what the network brought
    transmits(now)                 what is to be sent
    timeout(), handle_timeout(now) when to come back, and coming back
    events()                       what the application should know

No exception leaves it for anything that a stranger sent: such datagrams end as a counter.
"""

from __future__ import annotations

import os
from collections import OrderedDict, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import BadPacket, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto import events as ev
from mp2p_core.proto import wire
from mp2p_core.proto.connection import Connection, ConnectionTable
from mp2p_core.proto.initiator import Answered, Attempt, Dial, Outgoing, Target
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, Suite
from mp2p_core.proto.responder import Access, ChannelInfo, Responder
from mp2p_core.proto.session import Session
from mp2p_core.proto.states import SessionState
from mp2p_core.proto.timers import Timers
from mp2p_core.proto.transmit import Transmit, trains
from mp2p_core.transport import Address, Path, RandomBytes, Train

if TYPE_CHECKING:
    from mp2p_core.proto.identity import Identity, PublicKey

__all__ = ["Endpoint"]

_DATA: Final = c.TYPE_DATA
_INIT: Final = c.TYPE_INIT


class Endpoint:
    """All of one node's protocol state. Not thread-safe; one task drives it."""

    def __init__(
        self,
        identity: Identity,
        access: Access,
        *,
        now: float,
        random: RandomBytes = os.urandom,
        suite: Suite = CHACHAPOLY_SHA256,
        idle_timeout: float = c.DEFAULT_IDLE_TIMEOUT,
    ) -> None:
        self._identity = identity
        self._random = random
        self._suite = suite
        self._idle_timeout = idle_timeout
        self._channels: dict[int, ChannelInfo] = {}
        self._responder = Responder(
            identity, access, random=random, suite=suite, idle_timeout=idle_timeout, now=now
        )
        self._sessions: dict[bytes, Session] = {}
        # Attack: INITs that nobody confirms. Bounded; the oldest goes.
        self._half_open: OrderedDict[bytes, Session] = OrderedDict()
        self._attempts: dict[bytes, tuple[Dial, Attempt]] = {}
        self._dials: dict[int, Dial] = {}
        self._dial_number = 0
        self._connections = ConnectionTable()
        self._timers: Timers[Session | Dial] = Timers()
        self._outgoing: deque[Outgoing] = deque()
        self._dirty: dict[Session, None] = {}
        self._events: list[ev.Event] = []
        self._counters: defaultdict[str, int] = defaultdict(int)

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams by what became of them, and sessions by how they went. Names are fixed by this code."""
        return self._counters

    def sizes(self) -> Mapping[str, int]:
        """Return how many entries each table holds: all are bounded, whatever strangers do."""
        return {
            "attempts": len(self._attempts),
            "connections": len(self._connections),
            "dials": len(self._dials),
            "half-open": len(self._half_open),
            "sessions": len(self._sessions),
            "timers": len(self._timers),
            **self._responder.sizes(),
        }

    def add_channel(self, number: int, info: ChannelInfo) -> None:
        """Make a channel known under a number of the caller's choice."""
        self._channels[number] = replace(info, max_payload=min(info.max_payload, 0xFFFF))

    # --- in -----------------------------------------------------------------------------------------

    def receive(self, channel: int, train: Train, now: float) -> None:
        """Take in datagrams. Never raises for their content."""
        path, buffers, size = train
        alone = len(buffers) == 1 and len(buffers[0]) <= size
        for datagram in buffers if alone else train.datagrams():
            kind = datagram[0] if datagram else 0
            if kind == _DATA:
                session = self._sessions.get(datagram[2:10])
                if session is None:
                    self._counters["data-unknown"] += 1
                else:
                    self._receive_data(session, datagram, path, now)
            elif kind == _INIT and (refusal := self._responder.screen_untrusted(datagram)) is not None:
                self._counters[refusal] += 1
            else:
                try:
                    self._receive_other_untrusted(kind, datagram, channel, path, now)
                except BadPacket as reason:
                    self._counters[str(reason)] += 1

    def _receive_data(self, session: Session, datagram: bytes, path: Path, now: float) -> None:
        before = session.state
        outcome = session.receive_untrusted(datagram, path, now)
        self._counters[outcome] += 1
        if outcome != "data-received":
            return
        changed = session.state is not before
        if changed and before is SessionState.HALF_OPEN:
            self._confirm(session, now)
        # In the order of the packet: what it brought comes before the end that it may also have brought.
        if session.received or session.answered_pings:
            self._deliver(session)
        if changed:
            self._after_change(session, now)
        self._touch(session, now)

    def _deliver(self, session: Session) -> None:
        connection = session.connection
        if connection is not None and connection.closed is None:
            for data in session.received:
                self._events.append(ev.MessageReceived(connection, data))
            for number, rtt in session.answered_pings:
                self._events.append(ev.PingAnswered(connection, number, rtt))
        session.received.clear()
        session.answered_pings.clear()

    def _receive_other_untrusted(
        self, kind: int, datagram: bytes, channel: int, path: Path, now: float
    ) -> None:
        if kind == c.TYPE_INIT:
            busy = len(self._sessions) - len(self._half_open) >= c.MAX_SESSIONS
            answer = self._responder.read_init_untrusted(
                datagram, channel, self._channels[channel], path, busy=busy, now=now
            )
            self._outgoing.append(answer.outgoing)
            if answer.session is not None:
                self._add_half_open(answer.session)
                self._counters["init-answered"] += 1
        elif kind == c.TYPE_RESP:
            receive_id = wire.parse_resp_untrusted(datagram)
            found = self._attempts.get(receive_id)
            if found is None or found[1].target.channel != channel:
                raise BadPacket("resp-unknown")
            dial, attempt = found
            self._answered(dial, dial.read_resp_untrusted(attempt, datagram, path.remote, now), path, now)
        elif kind == c.TYPE_COOKIE:
            cookie = wire.parse_cookie_untrusted(datagram)
            found = self._attempts.get(cookie.receive_id)
            if found is None:
                raise BadPacket("cookie-unknown")
            if (outgoing := found[0].read_cookie_untrusted(found[1], cookie)) is not None:
                self._outgoing.append(outgoing)
        else:
            raise BadPacket("type-unknown")

    # --- handshakes ---------------------------------------------------------------------------------

    def connect(
        self,
        peer: PublicKey,
        targets: Sequence[tuple[int, Address]],
        *,
        timestamp: int,
        timeout: float,
        now: float,
    ) -> int:
        """Begin to connect; `Connected` or `ConnectFailed` carries the number returned.

        `targets` are channel numbers with the peer's address there. `timestamp` is in microseconds since
        1970 and should rise from call to call (section 4). The connection is one that the peer began when
        both call at once. Raises `UsageError` for the node's own key, and when there is no target.
        """
        if not targets:
            raise UsageError("nothing to connect to: give at least one address of the peer")
        if peer == self._identity.public:
            raise UsageError("this contact is the node's own key: a node does not connect to itself")
        self._dial_number += 1
        dial = Dial(
            self._dial_number, self._identity, peer,
            [
                Target(number, address, self._channels[number].address, self._channels[number].max_payload)
                for number, address in targets
            ],
            timestamp=timestamp, random=self._random, suite=self._suite, timeout=timeout, now=now,
        )  # fmt: skip
        self._dials[dial.number] = dial
        self._advance(dial, now)
        return dial.number

    def cancel(self, number: int) -> None:
        """Stop trying. Does nothing when the dial has ended."""
        if (dial := self._dials.get(number)) is not None:
            self._end_dial(dial)

    def _advance(self, dial: Dial, now: float) -> None:
        dial.wait_for(self._connections.crossing(dial.peer, now), now)
        for attempt in dial.attempts:
            self._attempts.pop(attempt.receive_id, None)
        self._outgoing.extend(dial.handle_timeout(now))
        for attempt in dial.attempts:
            self._attempts[attempt.receive_id] = (dial, attempt)
        self._timers.schedule(dial)

    def _end_dial(self, dial: Dial) -> None:
        self._dials.pop(dial.number, None)
        for attempt in dial.attempts:
            self._attempts.pop(attempt.receive_id, None)

    def _answered(self, dial: Dial, answered: Answered, path: Path, now: float) -> None:
        """Begin the session that a verified RESP offers."""
        self._end_dial(dial)
        payload, target = answered.payload, answered.attempt.target
        if answered.refusal is not None:
            self._events.append(ev.ConnectFailed(dial.number, dial.stage.text, answered.refusal))
            return
        # The address that RESP names for DATA is not used before paths can be validated (row R6).
        session = Session(
            peer=dial.peer, initiator=True, local_id=answered.attempt.receive_id, remote_id=payload.receive_id,
            keys=answered.keys, channel=target.channel, path=Path(target.address, None, path.interface),
            began=dial.began, now=now, idle_timeout=min(self._idle_timeout, payload.idle_timeout_ms / 1000),
            max_payload=min(c.BASE_DATAGRAM_SIZE, payload.max_payload, target.max_payload), rtt=answered.rtt,
            timestamp=answered.attempt.timestamp,
        )  # fmt: skip
        self._sessions[session.local_id] = session
        self._counters["sessions-connected"] += 1
        connection = dial.instead_of
        if connection is not None and connection.closed is None and len(connection.sessions) == 1:
            # It waited, and still does not know what the peer takes this for: so there is to be one session.
            self._close_spare(connection.merge(session, preferred=True), now)
        else:
            connection = Connection(dial.peer, session)
            self._connections.add(connection)
        self._events.append(ev.Connected(dial.number, connection))
        self._touch(session, now)

    def _add_half_open(self, session: Session) -> None:
        table = self._half_open
        if len(table) >= c.HALF_OPEN_SIZE:
            _, oldest = table.popitem(last=False)
            del self._sessions[oldest.local_id]
            oldest.expire()
            self._counters["half-open-pushed-out"] += 1
        table[session.local_id] = self._sessions[session.local_id] = session
        self._timers.schedule(session)

    def _confirm(self, session: Session, now: float) -> None:
        """The initiator has proved itself: only now does the application hear of it."""
        self._half_open.pop(session.local_id, None)
        peer = session.peer
        self._responder.confirmed(peer, session.timestamp)
        dial = next((d for d in self._dials.values() if d.peer == peer), None)
        overlap = self._connections.overlapping(peer, session.began)
        if overlap is not None:
            self._merge(overlap, session, now)
        else:
            if (oldest := self._connections.crowding_out(peer)) is not None:
                self.close(oldest, c.CLOSE_EXCESSIVE, "too many sessions of one key", now)
            connection = Connection(peer, session)
            self._connections.add(connection)
            self._counters["sessions-accepted"] += 1
            if dial is None:
                self._events.append(ev.Accepted(connection))
        if dial is not None:
            # Both called at once and the peer was faster: its session serves both.
            self._end_dial(dial)
            assert session.connection is not None
            self._events.append(ev.Connected(dial.number, session.connection))

    def _merge(self, connection: Connection, session: Session, now: float) -> None:
        """Prefer the session begun by the smaller key; the other one is closed by whoever began it."""
        spare = connection.merge(session, preferred=session.peer.raw < self._identity.public.raw)
        self._counters["sessions-merged"] += 1
        if spare.initiator:
            self._close_spare(spare, now)
        self._touch(connection.session, now)

    def _close_spare(self, spare: Session, now: float) -> None:
        spare.close(c.CLOSE_SUPERSEDED, "both sides called at once", now)
        self._after_change(spare, now)
        self._touch(spare, now)

    # --- sessions -----------------------------------------------------------------------------------

    def _touch(self, session: Session, now: float) -> None:
        """Look at a session again: it may have something to send, or an earlier deadline."""
        if session.wants_to_send(now):
            self._dirty[session] = None
        self._timers.schedule(session)

    def _after_change(self, session: Session, now: float) -> None:
        """Follow a session that has left the live states."""
        if session.live:
            return
        connection = session.connection
        if connection is not None:
            if connection.drop(session):
                for other in connection.sessions:
                    other.close(c.CLOSE_DONE, "", now)
                    self._touch(other, now)
                self._events.append(ev.ConnectionClosed(connection, session.close_code, session.close_reason))
            if connection.closed is not None:
                self._connections.remove(connection)
        if session.state is SessionState.CLOSED:
            self._sessions.pop(session.local_id, None)
            self._half_open.pop(session.local_id, None)
            self._dirty.pop(session, None)

    def close(self, connection: Connection, code: int, reason: str, now: float) -> None:
        """Close a connection; its `ConnectionClosed` follows at once. Does nothing when it has ended.

        Raises `UsageError` unless `code` fits 16 bits.
        """
        if not 0 <= code <= 0xFFFF:
            raise UsageError(f"a close code of {code}: choose one from 0 to 65535")
        if connection.closed is None:
            connection.close(code, reason, now)
            for session in connection.sessions:
                self._touch(session, now)
            self._connections.remove(connection)
            self._events.append(ev.ConnectionClosed(connection, code, reason))

    def connections(self) -> list[Connection]:
        """Return the connections that live."""
        return list(self._connections)

    def flush(self, connection: Connection) -> None:
        """Have what was queued on a connection sent with the next `transmits`."""
        self._dirty[connection.sessions[0]] = None

    # --- out ----------------------------------------------------------------------------------------

    def transmits(self, now: float) -> list[Transmit]:
        """Return what is to be sent, as trains. Sealing happens here; each datagram comes out once."""
        out: list[Transmit] = []
        while self._outgoing:
            channel, path, datagram = self._outgoing.popleft()
            out.append(Transmit(channel, Train(path, (datagram,), len(datagram))))
        while self._dirty:
            session, _ = self._dirty.popitem()
            before = session.state
            packets = session.packets(now)
            if session.state is not before:
                self._after_change(session, now)
                self._timers.schedule(session)
            if len(packets) == 1:
                out.append(Transmit(session.channel, Train(session.path, packets, len(packets[0]))))
            else:
                out.extend(Transmit(session.channel, train) for train in trains(session.path, packets))
        return out

    def timeout(self) -> float | None:
        """Return when `handle_timeout` is due, on the clock of `now`; None when nothing waits."""
        return self._timers.next()

    def handle_timeout(self, now: float) -> None:
        """Do what has become due; `transmits` and `events` tell what came of it."""
        for item in self._timers.due(now):
            if isinstance(item, Dial):
                self._dial_due(item, now)
                continue
            before = item.state
            item.handle_timeout(now)
            if item.state is not before:
                self._after_change(item, now)
            if item.state is not SessionState.CLOSED:
                self._touch(item, now)

    def _dial_due(self, dial: Dial, now: float) -> None:
        if dial.number not in self._dials:
            return
        if now < dial.deadline:
            self._advance(dial, now)
            return
        self._end_dial(dial)
        self._events.append(ev.ConnectFailed(dial.number, dial.stage.text, None))

    def events(self) -> Sequence[ev.Event]:
        """Return what happened since the last call, in order."""
        happened = self._events
        if happened:
            self._events = []
        return happened
