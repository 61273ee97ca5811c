"""The node: an identity on the network, driving the sans-IO endpoint over anyio."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import anyio

from mp2p_core.access import AccessPolicies, Allow, access_for
from mp2p_core.contact import Contact, read_contact
from mp2p_core.dialing import ADVICE, targets_for, tried
from mp2p_core.driver import Driver
from mp2p_core.errors import AuthRejected, Closed, PeerUnreachable
from mp2p_core.groups import Groups
from mp2p_core.keyfile import TimestampStore
from mp2p_core.metrics import Metric, collect_metrics
from mp2p_core.opening import Opened
from mp2p_core.peer import Peer, PeerLinks
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.constants import DEFAULT_PORT, HANDSHAKE_BUDGET
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.events import (
    Accepted,
    Connected,
    ConnectFailed,
    ConnectionClosed,
    ConnectionReplaced,
    Event,
    MessageReceived,
    PeerSilent,
    PingAnswered,
    StreamsChanged,
)
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.status import ChannelStatus
from mp2p_core.transport import Reach
from mp2p_core.waiting import Bell, Signal, signal_maker

if TYPE_CHECKING:
    from typing import Unpack

    from anyio.abc import TaskGroup

__all__ = ["Node"]

_log = logging.getLogger("mp2p")

_GONE_UNSEEN: Final = 64
"""Peers kept for `accept` although they have left, with what they brought; the oldest goes."""
_CLOSING: Final = "the node is closing"


class _Dialing:
    """A `connect` that waits for its outcome."""

    __slots__ = ("done", "outcome", "peer")

    def __init__(self, done: Signal, peer: Peer | None) -> None:
        self.done = done
        self.peer = peer
        """The peer that is called again, if it is one that was connected before."""
        self.outcome: Peer | ConnectFailed | None = None


class Node:
    """An identity on the network. Comes from `open_node`.

    Packages that build on it derive from it, with peers of their own (`make_peer`), and open theirs by
    `mp2p_core.lifetime.open_node_as`. `tasks` runs for as long as the node does: what is started there ends with
    it, and an error that leaves it ends the node.
    """

    def __init__(
        self,
        identity: Identity,
        endpoint: Endpoint,
        opened: Opened,
        timestamps: TimestampStore,
        clock: Callable[[], float],
        *,
        access: AccessPolicies,
        tasks: TaskGroup,
    ) -> None:
        self.tasks = tasks
        self._access = access
        self._identity = identity
        self._endpoint = endpoint
        self._opened = opened
        self._timestamps = timestamps
        self._clock = clock
        self._peers: dict[Connection, Peer] = {}
        self._accepted: deque[Peer] = deque()
        self._dialing: dict[int, _Dialing] = {}
        self._make_signal = signal_maker()
        self._knock = Bell(self._make_signal)
        self._closed = self._left = False
        self.groups = Groups(opened, tasks)
        """Multicast groups besides the node's own."""
        self.driver = Driver(endpoint, opened.channels, clock, self._tell, self._make_signal)
        """Moves the node's datagrams. For who opens a node."""
        for number, (transport, channel) in enumerate(opened.channels):
            endpoint.add_channel(
                number, ChannelInfo(channel.address, channel.max_datagram_size, transport.may_answer)
            )

    @property
    def key(self) -> PublicKey:
        """The node's public key: its name."""
        return self._identity.public

    @property
    def contact(self) -> Contact:
        """All that a peer needs to reach this node. Just the key, unless it listens elsewhere than that says."""
        return Contact(
            self.key,
            tuple(
                (transport.family, transport.format_address(channel.address))
                for transport, channel in self._opened.channels
                if channel.address != transport.derive_address(self.key.raw, Reach.GLOBAL, DEFAULT_PORT)
            ),
        )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the node listens, such as "v4:224.0.230.7:1024"."""
        return tuple(each.text for each in self._opened.channels)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Installed transports that did not open, as (name, reason)."""
        return self._opened.skipped

    def status(self) -> tuple[ChannelStatus, ...]:
        """Say for each channel which interfaces it listens on, and why not on the others."""
        return tuple(
            ChannelStatus(each.transport.name, each.text, tuple(each.channel.status()))
            for each in self._opened.channels
        )

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams by what became of them (`data-unknown`, `init-mac1`, ...) since the node opened."""
        return MappingProxyType(dict(self._endpoint.counters))

    def metrics(self) -> Iterable[Metric]:
        """Say all that is counted here, in one form: datagrams, tables, interfaces, peers. See `render_metrics`."""
        peers = [peer.status() for peer in self.peers()]
        return collect_metrics(self.counters, self._endpoint.sizes(), self.status(), peers)

    def peers(self) -> tuple[Peer, ...]:
        """Return the peers that are connected now."""
        return tuple(peer for peer in self._peers.values() if peer.closed is None)

    # --- connecting -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(
        self, contact: str | Contact | PublicKey, timeout: float = HANDSHAKE_BUDGET
    ) -> AsyncIterator[Peer]:
        """Connect to a peer; the connection is closed at the end of the block, as by `async with peer`.

        Tries every address in the contact, and the ones that follow from the key, over all open
        transports at once; gives up after `timeout` seconds. When the block begins the peer has proved its
        key. Raises `PeerUnreachable`, `AuthRejected`, `ContactError`, `AddressError` or `UsageError`.
        Protocol section 4.
        """
        async with await self._dial(read_contact(contact), timeout) as peer:
            yield peer

    async def reconnect(
        self, peer: Peer, contact: str | Contact | PublicKey, timeout: float = HANDSHAKE_BUDGET
    ) -> None:
        """Call a peer whose connection has ended again: the same `Peer` goes on over a new connection.

        Does nothing when it has not ended. Raises as `connect` does.
        """
        if peer.closed is not None:
            await self._dial(read_contact(contact), timeout, peer)

    @contextmanager
    def admit(self, allow: Allow) -> Iterator[None]:
        """Let these connect, too, within the block. Those who are connected by its end stay so.

        Raises `ContactError`, `BadKey` or `UsageError`.
        """
        access = access_for(allow)
        self._access.add(access)
        try:
            yield
        finally:
            self._access.remove(access)

    async def _dial(self, contact: Contact, timeout: float, again: Peer | None = None) -> Peer:
        targets = targets_for(contact, self._opened.channels)
        if self._closed:
            raise Closed(0, "this node is closed")
        timestamp = self._timestamps.next(int(time.time() * 1e6))
        if self._timestamps.warning is not None:
            _log.warning("%s", self._timestamps.warning)
        dialing = _Dialing(self._make_signal(), again)
        number = self._endpoint.connect(
            contact.key, targets, timestamp=timestamp, timeout=timeout, now=self._clock()
        )
        self._dialing[number] = dialing
        waited = False
        try:
            self.driver.flush(self._clock())
            await dialing.done.wait()
            waited = True
        finally:
            del self._dialing[number]
            self._endpoint.cancel(number)
            if not waited and isinstance(dialing.outcome, Peer):
                dialing.outcome.close_now()  # cancelled at the very moment it connected
        if isinstance(dialing.outcome, Peer):
            return dialing.outcome
        if dialing.outcome is None:
            raise Closed(0, "this node is closed")
        if dialing.outcome.refusal is not None:
            raise AuthRejected(dialing.outcome.refusal)
        stage = dialing.outcome.stage
        raise PeerUnreachable(stage, tried(targets, self._opened.channels), ADVICE[stage])

    async def accept(self) -> Peer:
        """Wait for the next peer that connects to this node, its key allowed and proved.

        Several tasks may wait; each peer goes to one of them. A peer that this node was calling at the same
        moment is not among them: `connect` returns it. Raises `Closed` once the node is closed.
        """
        while not self._accepted:
            if self._closed:
                raise Closed(0, "this node is closed")
            await self._knock.wait()
        return self._accepted.popleft()

    # --- what the endpoint tells ----------------------------------------------------------------------

    def _tell(self, events: Sequence[Event], now: float) -> bool:
        """Pass on events; returns whether a call has got through."""
        connected = False
        for event in events:
            if isinstance(event, StreamsChanged):
                if (peer := self._peers.get(event.connection)) is not None:
                    peer.notice_streams(event.session, event.events)
            elif isinstance(event, MessageReceived):
                if (peer := self._peers.get(event.connection)) is not None:
                    peer.deliver(event.data)
            elif isinstance(event, PingAnswered):
                if (peer := self._peers.get(event.connection)) is not None:
                    peer.answer_ping(event.ping, event.rtt)
            elif isinstance(event, ConnectionReplaced):
                if (peer := self._peers.pop(event.old, None)) is not None:
                    self._peers[event.new] = peer
                    peer.renew(event.new)
            elif isinstance(event, Accepted):
                self._accepted.append(self._peer(event.connection))
                if len(self._accepted) > _GONE_UNSEEN:
                    self._forget_one()
                self._knock.ring()
            elif isinstance(event, PeerSilent):
                self.driver.silent()
            elif isinstance(event, ConnectionClosed):
                if (peer := self._peers.pop(event.connection, None)) is not None:
                    peer.end()
            elif (dialing := self._dialing.get(event.dial)) is not None:
                if isinstance(event, Connected):
                    if (again := dialing.peer) is not None and again.closed is not None:
                        self._peers[event.connection] = again
                        again.renew(event.connection)
                    dialing.outcome, connected = self._peer(event.connection), True
                else:
                    dialing.outcome = event
                dialing.done.set()
            elif isinstance(event, Connected):
                # Whoever asked has been cancelled in the meantime.
                self._endpoint.close(event.connection, 0, "", now)
        return connected

    def _forget_one(self) -> None:
        # Attack: connecting and leaving again and again, while the application accepts nobody. Those who stay are
        # bounded by MAX_SESSIONS.
        gone = next((peer for peer in self._accepted if peer.closed is not None), None)
        if gone is not None:
            self._accepted.remove(gone)

    def _peer(self, connection: Connection) -> Peer:
        peer = self._peers.get(connection)
        if peer is None:
            peer = self._peers[connection] = self.make_peer(
                connection,
                flush=self.driver.flush_soon,
                close=self._close_one,
                describe=self._describe,
                make_signal=self._make_signal,
                clock=self._clock,
            )
        return peer

    def make_peer(self, connection: Connection, **links: Unpack[PeerLinks]) -> Peer:
        """Make the object for a new connection."""
        return Peer(connection, **links)

    def _close_one(self, connection: Connection, code: int, reason: str) -> None:
        self.driver.flush(self._clock())  # what was said before goes out before
        self._endpoint.close(connection, code, reason, self._clock())
        self.driver.flush(self._clock())

    def _describe(self, connection: Connection) -> str:
        session = connection.session
        transport = self._opened.channels[session.roaming.channel].transport
        return f"{transport.name} {transport.format_address(session.roaming.path.remote)}"

    async def aclose(self) -> None:
        """Close every connection, all at once and each as `Peer.aclose` does, and leave the network.

        Cancelled while it waits for what was sent to arrive, it closes them without. May be called again.
        """
        if self._closed:
            return
        self._closed = True
        self._knock.ring()
        try:
            async with anyio.create_task_group() as tasks:
                for peer in self.peers():
                    tasks.start_soon(peer.aclose, 0, _CLOSING)
        finally:
            await self.leave()

    async def leave(self) -> None:
        """Close every connection at once, tell each peer, and leave the network. Cannot be cancelled."""
        if self._left:
            return
        self._closed = self._left = True
        for connection in self._endpoint.connections():
            self._endpoint.close(connection, 0, _CLOSING, self._clock())
        self.driver.flush(self._clock())
        for dialing in self._dialing.values():
            dialing.done.set()
        self._knock.ring()
        with anyio.CancelScope(shield=True):
            for _, channel in self._opened.channels:
                await channel.aclose()
