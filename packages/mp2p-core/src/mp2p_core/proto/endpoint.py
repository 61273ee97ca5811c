"""The endpoint: every handshake and session of one node, sans-IO (docs/protocol.md, sections 3 to 6).

    receive(channel, train, now)   what the network brought
    transmits(now)                 what is to be sent
    timeout(), handle_timeout(now) when to come back, and coming back
    events()                       what the application should know

No exception leaves it for anything that a stranger sent: such datagrams end as a counter.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import BadPacket, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.connection import ConnectionTable
from mp2p_core.proto.dials import Dials
from mp2p_core.proto.events import ConnectFailed, PeerSilent
from mp2p_core.proto.handshake import Handshake
from mp2p_core.proto.initiator import Dial, Outgoing
from mp2p_core.proto.lifecycle import Lifecycle
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, Suite
from mp2p_core.proto.parts import PART_HEADER_SIZE, parse_part_untrusted, split_untrusted
from mp2p_core.proto.responder import Access, ChannelInfo, Responder
from mp2p_core.proto.routes import PathRules
from mp2p_core.proto.states import SessionState
from mp2p_core.proto.transmit import trains
from mp2p_core.transport import Address, Path, RandomBytes, Train

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.events import Event
    from mp2p_core.proto.identity import Identity, PublicKey
    from mp2p_core.proto.session import Session
    from mp2p_core.proto.transmit import Transmit

__all__ = ["Endpoint"]

_DATA: Final = c.TYPE_DATA
_INIT: Final = c.TYPE_INIT
_PART: Final = c.TYPE_PART


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
        epoch_us: int = 0,
        version: int = c.VERSION,
        psk: bytes | None = None,
    ) -> None:
        """Begin at `now`, when the wall clock says `epoch_us`, microseconds since 1970.

        `version` is the highest one that this side tells its peers; only a test of downgrades changes it. With a
        pre-shared key, 32 bytes, the node meets those who have it too, and nobody else. Raises `UsageError` for
        one of another length.
        """
        self._channels: dict[int, ChannelInfo] = {}
        self._counters: defaultdict[str, int] = defaultdict(int)
        self._rules = rules = PathRules(self._channels, random=random, counters=self._counters, now=now)
        connections = ConnectionTable()
        handshake = Handshake(suite, psk)
        self._responder = Responder(
            identity,
            access,
            connections.session,
            connections.knows,
            rules,
            random=random,
            handshake=handshake,
            idle_timeout=idle_timeout,
            version=version,
            now=now,
        )
        self._dials = Dials(
            identity,
            rules,
            random=random,
            handshake=handshake,
            idle_timeout=idle_timeout,
            epoch_us=epoch_us,
            version=version,
            now=now,
        )
        self._connections = connections
        self._life = life = Lifecycle(
            identity.public, connections, self._responder, self._dials, self._counters
        )
        self._sessions = life.sessions
        self._dirty = life.dirty
        self._outgoing: deque[Outgoing] = deque()
        self._answered: deque[Callable[[], Session]] = deque()
        """What makes the half-open sessions whose RESPs are not out yet."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams by what became of them, and sessions by how they went. Names are fixed by this code."""
        return self._counters

    def sizes(self) -> Mapping[str, int]:
        """Return how many entries each table holds: all are bounded, whatever strangers do."""
        return {
            "attempts": self._dials.attempts,
            "dials": len(self._dials),
            **self._life.sizes(),
            **self._rules.sizes(),
            **self._responder.sizes(),
        }

    def add_channel(self, number: int, info: ChannelInfo) -> None:
        """Make a channel known under a number of the caller's choice, and tell peers of it."""
        self._channels[number] = replace(info, max_payload=min(info.max_payload, 0xFFFF))
        for session in dict.fromkeys(self._sessions.values()):
            if session.state is SessionState.OPEN:
                session.roaming.announce()
                self._dirty[session] = None

    # --- in -----------------------------------------------------------------------------------------

    def receive(self, channel: int, train: Train, now: float) -> None:
        """Take in datagrams. Never raises for their content."""
        path, buffers, size = train
        datagrams: Sequence[bytes] = ()
        if len(buffers) == 1 and isinstance(whole := buffers[0], bytes):
            if len(whole) <= size:
                datagrams = (whole,)
            elif whole[0] == _PART:
                self._receive_parts(channel, whole, size, path, now)
                return
        for datagram in datagrams or train.datagrams():
            kind = datagram[0] if datagram else 0
            if kind == _DATA:
                session = self._sessions.get(datagram[2:10])
                if session is None:
                    self._counters["data-unknown"] += 1
                else:
                    before = session.state
                    outcome = session.receive_untrusted(datagram, channel, path, now)
                    self._took_data(session, before, outcome, now)
            elif kind == _PART:
                self._receive_part(datagram, channel, path, now)
            elif kind == _INIT and (refusal := self._responder.screen_untrusted(datagram)) is not None:
                self._counters[refusal] += 1
            else:
                try:
                    self._receive_other_untrusted(kind, datagram, channel, path, now)
                except BadPacket as reason:
                    self._counters[str(reason)] += 1

    def _receive_parts(self, channel: int, buffer: bytes, size: int, path: Path, now: float) -> None:
        """Take in a train of parts; a packet that is whole in it is opened without being put together first."""
        for header, body in split_untrusted(buffer, size):
            if header is None:
                self.receive(channel, Train(path, (body,), len(body)), now)
            elif (session := self._sessions.get(header[2])) is None:
                self._counters["data-unknown"] += 1
            else:
                before = session.state
                outcome = session.receive_whole_untrusted(header, body, channel, path, now)
                self._life.parts.drop(header[2], header[3])  # some of them may have come before, one by one
                self._took_data(session, before, outcome, now)

    def _receive_part(self, datagram: bytes, channel: int, path: Path, now: float) -> None:
        try:
            header = parse_part_untrusted(datagram)
        except BadPacket as reason:
            self._counters[str(reason)] += 1
            return
        session = self._sessions.get(header[2])
        if session is None:
            self._counters["data-unknown"] += 1
            return
        if (refusal := session.refuses_part(header)) is not None:
            self._counters[refusal] += 1
            return
        whole = self._life.parts.add_untrusted(header, datagram[PART_HEADER_SIZE:])
        if whole is None:
            self._counters["part-received"] += 1
            return
        before = session.state
        outcome = session.receive_whole_untrusted(header, whole, channel, path, now)
        self._took_data(session, before, outcome, now)

    def _took_data(self, session: Session, before: SessionState, outcome: str, now: float) -> None:
        self._counters[outcome] += 1
        if outcome == "data-received":
            self._life.took_data(session, before, now)

    def _receive_other_untrusted(
        self, kind: int, datagram: bytes, channel: int, path: Path, now: float
    ) -> None:
        if kind == c.TYPE_INIT:
            answer = self._responder.read_init_untrusted(
                datagram, channel, self._channels[channel], path, busy=self._life.busy, now=now
            )
            self._outgoing.append(answer.outgoing)
            if answer.begin is not None:
                self._answered.append(answer.begin)
                self._counters["init-answered"] += 1
            elif answer.renewed is not None and answer.epoch is not None:
                self._life.offer(answer.renewed, answer.epoch)
                self._counters["init-answered"] += 1
        elif kind == c.TYPE_RESP:
            self._life.settle(self._dials.read_resp_untrusted(datagram, channel, path, now), now)
        elif kind == c.TYPE_COOKIE:
            if (outgoing := self._dials.read_cookie_untrusted(datagram)) is not None:
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
        dial = self._dials.begin(peer, targets, timestamp=timestamp, timeout=timeout, now=now)
        self._advance(dial, now)
        return dial.number

    def cancel(self, number: int) -> None:
        """Stop trying. Does nothing when the dial has ended."""
        if (dial := self._dials.get(number)) is not None:
            self._dials.end(dial)

    def _advance(self, dial: Dial, now: float) -> None:
        dial.may_cross = self._life.may_cross(dial)
        self._outgoing.extend(self._dials.advance(dial, now))
        self._life.timers.schedule(dial)

    def _renew(self, session: Session, now: float) -> None:
        """Ask the peer of a session for new keys."""
        session.epochs.tried(now)
        connection = session.connection
        spare = connection is not None and connection.session is not session
        fading = session.roaming.fading
        if spare and fading and session.packer.streams.table.unused:
            return  # the peer has closed the spare one of two, and its word of that was lost: no reason to call
        if (dial := self._dials.renew(session, now, or_new=fading and not spare)) is not None:
            session.searching = fading
            if fading and connection is not None:
                self._life.events.append(PeerSilent(connection))
                for other in connection.sessions:
                    if other is not session:
                        other.packer.ping()  # a sign of life on either ends the search
                        self._dirty[other] = None
            self._advance(dial, now)
            self._counters["rekeys-begun"] += 1

    # --- sessions -----------------------------------------------------------------------------------

    def close(self, connection: Connection, code: int, reason: str, now: float) -> None:
        """Close a connection; its `ConnectionClosed` follows at once. Does nothing when it has ended.

        Raises `UsageError` unless `code` fits 16 bits.
        """
        if not 0 <= code <= 0xFFFF:
            raise UsageError(f"a close code of {code}: choose one from 0 to 65535")
        self._life.close(connection, code, reason, now)

    def connections(self) -> list[Connection]:
        """Return the connections that live."""
        return list(self._connections)

    def flush(self, connection: Connection) -> None:
        """Have what was queued on a connection sent with the next `transmits`."""
        for session in connection.sessions:
            self._dirty[session] = None

    # --- out ----------------------------------------------------------------------------------------

    def transmits(self, now: float) -> Iterator[Transmit]:
        """Yield what is to be sent, as trains; to be run to its end. Each datagram comes out once.

        A packet is sealed when it is asked for: the peer opens the first while the second is being sealed.
        """
        while self._outgoing:
            channel, path, datagram = self._outgoing.popleft()
            yield channel, Train(path, (datagram,), len(datagram))
        while self._answered:
            self._life.add_half_open(self._answered.popleft()())
        while self._dirty:
            session, _ = self._dirty.popitem()
            before = session.state
            for train in trains(session.roaming.path, session.packets(now)):
                yield session.roaming.channel, train
            if session.packer.streams.events:
                self._life.deliver(session)
            self._life.timers.schedule(session)
            if session.state is not before:
                self._life.after_change(session, now)
                self._life.timers.schedule(session)
            for channel, path, (data, size) in session.roaming.packets:
                yield channel, Train(path, (data,), size)
            session.roaming.packets.clear()

    def timeout(self) -> float | None:
        """Return when `handle_timeout` is due, on the clock of `now`; None when nothing waits."""
        return self._life.timers.next()

    def handle_timeout(self, now: float) -> None:
        """Do what has become due; `transmits` and `events` tell what came of it."""
        for item in self._life.timers.due(now):
            if isinstance(item, Dial):
                self._dial_due(item, now)
                continue
            before = item.state
            item.handle_timeout(now)
            self._life.forget_ids(item)
            if item.live and now >= item.review_at:
                self._life.review(item, now)
            if item.wants_keys(now):
                self._renew(item, now)
            if item.state is not before:
                self._life.after_change(item, now)
            if item.state is not SessionState.CLOSED:
                self._life.touch(item, now)

    def _dial_due(self, dial: Dial, now: float) -> None:
        if self._dials.get(dial.number) is None:
            return
        if now < dial.deadline:
            self._advance(dial, now)
            return
        self._dials.end(dial)
        if dial.session is None:
            self._life.events.append(ConnectFailed(dial.number, dial.stage.text, None))

    def events(self) -> Sequence[Event]:
        """Return what happened since the last call, in order."""
        happened = self._life.events
        if happened:
            self._life.events = []
        return happened
