"""Endpoints on a simulated network: loss, duplication, reordering, corruption, partition, and an adversary.

    sim = Simulation(seed=7, conditions=Conditions(loss=0.3, duplicate=0.1, jitter=0.05))
    a, b = sim.add_node("a"), sim.add_node("b")
    sim.connect(a, b)
    assert sim.run_until(lambda: b.accepted, timeout=20)

One seed gives one run, to the byte. Failures should print `sim.seed`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mp2p_core.proto import addresses
from mp2p_core.proto import constants as c
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.events import (
    Accepted,
    Connected,
    ConnectFailed,
    ConnectionClosed,
    MessageReceived,
    PingAnswered,
)
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.testing.clock import VirtualClock
from mp2p_core.testing.nonces import NonceRecorder
from mp2p_core.transport import Address, Path, RandomBytes, Reach, Train

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection

__all__ = [
    "AllowAll",
    "AllowKeys",
    "Conditions",
    "Datagram",
    "SimChannel",
    "SimNode",
    "Simulation",
]

_ROUNDING = 1e-9


@dataclass(slots=True)
class Conditions:
    """What the network does to each copy of a datagram. Shares from 0 to 1; times in seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.001
    jitter: float = 0.0
    """Up to this much is added to the delay, so that datagrams overtake each other."""
    coalesce: float = 0.0
    """Share of trains that travel and arrive in one piece, as receive offload delivers them."""
    rate: float = math.inf
    """Bytes a second that reach each node, whoever sends them: its last link is the bottleneck."""
    queue: int = 64_000
    """Bytes that wait in front of that link; what comes on top is dropped."""


@dataclass(frozen=True, slots=True)
class Datagram:
    """One datagram as the network carries it."""

    source: Address
    destination: Address
    data: bytes


class AllowAll:
    """Lets everybody in."""

    def may_know(self, _x25519: bytes) -> bool:
        """Say yes."""
        return True

    def allows(self, _key: PublicKey) -> bool:
        """Say yes."""
        return True


class AllowKeys:
    """An access list."""

    def __init__(self, *keys: PublicKey) -> None:
        self.keys = set(keys)

    def may_know(self, x25519: bytes) -> bool:
        """Look for a key that maps to this one."""
        return any(key.x25519 == x25519 for key in self.keys)

    def allows(self, key: PublicKey) -> bool:
        """Look for this very key."""
        return key in self.keys


class SimChannel(NamedTuple):
    """One way onto the network."""

    source: Address
    group: Address


@dataclass(slots=True)
class SimNode:
    """A node of the simulation and everything its endpoint said."""

    name: str
    identity: Identity
    endpoint: Endpoint
    source: Address
    group: Address
    interface: int = 1
    """The one that works: what is sent on another does not get anywhere."""
    channels: dict[int, SimChannel] = field(default_factory=dict)
    """The first one, which has `source` and `group`, and others."""
    connected: list[Connection] = field(default_factory=list)
    accepted: list[Connection] = field(default_factory=list)
    failed: list[ConnectFailed] = field(default_factory=list)
    messages: list[tuple[Connection, bytes]] = field(default_factory=list)
    pings: list[PingAnswered] = field(default_factory=list)
    closed: list[ConnectionClosed] = field(default_factory=list)
    sent: list[Datagram] = field(default_factory=list)
    timer_at: float | None = None
    link_free_at: float = 0.0
    """When everything that waits for its link, where that has a rate, will have come."""
    squeezed_out: int = 0
    """Datagrams that found the queue in front of its link full."""
    on_event: Callable[[object], None] | None = None
    ahead: float = 0.0
    """Seconds by which the node's clock has jumped ahead of the simulation's."""
    wall_shift: float = 0.0
    """Seconds by which its wall clock is off."""

    @property
    def key(self) -> PublicKey:
        """The node's public key."""
        return self.identity.public

    def __post_init__(self) -> None:
        self.channels[0] = SimChannel(self.source, self.group)


class Simulation:
    """A network of endpoints, all of whose time and randomness come from one seed."""

    def __init__(self, seed: int, conditions: Conditions | None = None) -> None:
        self.seed = seed
        self.random = random.Random(seed)  # noqa: S311 - a simulation must repeat itself
        self.clock = VirtualClock()
        self.conditions = conditions or Conditions()
        self.nodes: list[SimNode] = []
        self.nonces = NonceRecorder()
        self.adversary: Callable[[Datagram], bool] | None = None
        """Sees every datagram; returns False to have it dropped. May call `inject`."""
        self.cut: Callable[[Datagram], bool] | None = None
        """A partition: datagrams for which it returns True do not pass."""
        self.witness: Callable[[SimNode, Train, Callable[[], None]], None] | None = None
        """Is there when a node receives a train; has to call the function given, which does it."""

    @property
    def now(self) -> float:
        """The virtual time."""
        return self.clock.now

    def local(self, node: SimNode) -> float:
        """Return the time on a node's own clock: what its endpoint is to be told."""
        return self.clock.now + node.ahead

    def random_bytes(self, n: int) -> bytes:
        """Draw bytes from the seed."""
        return self.random.randbytes(n)

    def add_node(
        self,
        name: str,
        *,
        access: AllowAll | AllowKeys | None = None,
        identity: Identity | None = None,
        group: Address | None = None,
        random_bytes: RandomBytes | None = None,
        idle_timeout: float = c.DEFAULT_IDLE_TIMEOUT,
    ) -> SimNode:
        """Add a node that listens on its key's group and sends from an address of its own."""
        draw = random_bytes or self.random_bytes
        identity = identity or Identity.generate(draw)
        number = len(self.nodes) + 1
        node = SimNode(
            name,
            identity,
            self._endpoint(identity, access or AllowAll(), draw, idle_timeout),
            addresses.pack_ipv4(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 1024),
            group or addresses.derive_group_v4(identity.public.raw, Reach.GLOBAL, c.DEFAULT_PORT),
        )
        node.endpoint.add_channel(0, ChannelInfo(node.group, 1200, addresses.may_answer))
        self.nodes.append(node)
        return node

    def add_channel(self, node: SimNode) -> int:
        """Have a node listen over IPv6, too; returns the channel's number."""
        number = len(node.channels)
        group = addresses.derive_group_v6(node.key.raw, Reach.GLOBAL, c.DEFAULT_PORT + number)
        index = self.nodes.index(node) + 1
        node.channels[number] = SimChannel(addresses.pack_ipv6(f"fd00::{number:x}:{index:x}", 1024), group)
        node.endpoint.add_channel(number, ChannelInfo(group, 1200, addresses.may_answer))
        self.flush(node)
        return number

    def _endpoint(
        self,
        identity: Identity,
        access: AllowAll | AllowKeys,
        draw: RandomBytes,
        idle_timeout: float,
        node: SimNode | None = None,
    ) -> Endpoint:
        return Endpoint(
            identity,
            access,
            now=self.now if node is None else self.local(node),
            random=draw,
            suite=self.nonces.suite,
            idle_timeout=idle_timeout,
            epoch_us=self.timestamp(node),
        )

    def restart(self, node: SimNode, access: AllowAll | AllowKeys | None = None) -> None:
        """Replace a node's endpoint by a new one with the same identity: everything in memory is lost."""
        node.endpoint = self._endpoint(
            node.identity, access or AllowAll(), self.random_bytes, c.DEFAULT_IDLE_TIMEOUT, node
        )
        for number, channel in node.channels.items():
            node.endpoint.add_channel(number, ChannelInfo(channel.group, 1200, addresses.may_answer))
        node.timer_at = None

    def sleep(self, node: SimNode, seconds: float) -> None:
        """Let a node's clock jump ahead, as after its machine slept, and do what has become due meanwhile."""
        node.ahead += seconds
        node.timer_at = None
        node.endpoint.handle_timeout(self.local(node))
        self.flush(node)

    def timestamp(self, node: SimNode | None = None) -> int:
        """Return the virtual wall clock, or a node's own; microseconds since 1970."""
        off = 0.0 if node is None else node.ahead + node.wall_shift
        return 1_800_000_000_000_000 + int((self.now + off) * 1e6)

    def connect(
        self,
        node: SimNode,
        peer: SimNode | PublicKey,
        *,
        timeout: float = c.HANDSHAKE_BUDGET,
        timestamp: int | None = None,
        channel: int = 0,
    ) -> int:
        """Have a node connect to another by its key alone, or to its group on another channel."""
        key = peer.key if isinstance(peer, SimNode) else peer
        group = (
            peer.channels[channel].group
            if isinstance(peer, SimNode)
            else addresses.derive_group_v4(key.raw, Reach.GLOBAL, c.DEFAULT_PORT)
        )
        number = node.endpoint.connect(
            key,
            [(channel, group)],
            timestamp=self.timestamp(node) if timestamp is None else timestamp,
            timeout=timeout,
            now=self.local(node),
        )
        self.flush(node)
        return number

    def flush(self, node: SimNode, now: float | None = None) -> None:
        """Send what a node has to send, take its events, and plan its next timeout."""
        coalesce = self.conditions.coalesce
        for channel, train in node.endpoint.transmits(self.local(node) if now is None else now):
            path = train.path
            source = node.channels[channel].source
            datagrams = [Datagram(source, path.remote, data) for data in train.datagrams()]
            node.sent.extend(datagrams)
            if path.interface not in (0, node.interface):
                continue
            if coalesce and len(datagrams) > 1 and self.random.random() < coalesce:
                self._carry_whole(datagrams, train.segment_size)
                continue
            for datagram in datagrams:
                self.carry(datagram)
        for event in node.endpoint.events():
            self._note(node, event)
        when = node.endpoint.timeout()
        when = None if when is None else when - node.ahead
        if when is not None and (node.timer_at is None or when < node.timer_at or node.timer_at <= self.now):
            node.timer_at = when
            self.clock.call_at(when, lambda: self._timer(node, when))

    def _timer(self, node: SimNode, when: float) -> None:
        if node.timer_at == when:
            node.timer_at = None
            # No earlier than asked for: adding and subtracting `ahead` rounds, and a timer must not spin.
            due = node.endpoint.timeout()
            late = due is not None and 0 < due - self.local(node) < _ROUNDING
            now = due if late and due is not None else self.local(node)
            node.endpoint.handle_timeout(now)
            self.flush(node, now)

    @staticmethod
    def _note(node: SimNode, event: object) -> None:
        if isinstance(event, Connected):
            node.connected.append(event.connection)
        elif isinstance(event, Accepted):
            node.accepted.append(event.connection)
        elif isinstance(event, ConnectFailed):
            node.failed.append(event)
        elif isinstance(event, MessageReceived):
            node.messages.append((event.connection, event.data))
        elif isinstance(event, PingAnswered):
            node.pings.append(event)
        elif isinstance(event, ConnectionClosed):
            node.closed.append(event)
        if node.on_event is not None:
            node.on_event(event)

    def carry(self, datagram: Datagram) -> None:
        """Put a datagram on the network, where everything may happen to it."""
        if self.adversary is not None and not self.adversary(datagram):
            return
        if self.cut is not None and self.cut(datagram):
            return
        conditions, draw = self.conditions, self.random.random
        copies = 2 if draw() < conditions.duplicate else 1
        for _ in range(copies):
            if draw() < conditions.loss:
                continue
            data = datagram.data
            if draw() < conditions.corrupt and data:
                at = self.random.randrange(len(data) * 8)
                data = data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
            self.inject(
                Datagram(datagram.source, datagram.destination, data),
                delay=conditions.delay + draw() * conditions.jitter,
            )

    def _carry_whole(self, datagrams: list[Datagram], segment_size: int) -> None:
        """Put a train on the network as one piece, unless somebody stops one of its datagrams."""
        for datagram in datagrams:
            if self.adversary is not None and not self.adversary(datagram):
                return
            if self.cut is not None and self.cut(datagram):
                return
        if self.random.random() < self.conditions.loss:
            return
        first = datagrams[0]
        whole = Datagram(first.source, first.destination, b"".join(each.data for each in datagrams))
        delay = self.conditions.delay + self.random.random() * self.conditions.jitter
        self.clock.call_at(self.now + delay, lambda: self._deliver(whole, segment_size))

    def inject(self, datagram: Datagram, delay: float = 0.0) -> None:
        """Deliver a datagram after a delay, untouched, to all that listen at its destination."""
        self.clock.call_at(self.now + delay, lambda: self._deliver(datagram))

    def _deliver(self, datagram: Datagram, segment_size: int = 0) -> None:
        size = segment_size or max(len(datagram.data), 1)
        for node in self.nodes:
            for number, (source, group) in node.channels.items():
                if datagram.destination not in (group, source) or datagram.source == source:
                    continue
                path = Path(datagram.source, datagram.destination, node.interface)
                train = Train(path, (datagram.data,), size)
                if self.conditions.rate == math.inf:
                    self._receive(node, number, train)
                else:
                    self._queue(node, number, train)

    def _queue(self, node: SimNode, channel: int, train: Train) -> None:
        """Have a train wait for its turn on a node's link."""
        rate, size = self.conditions.rate, len(train.buffers[0])
        begins = max(self.now, node.link_free_at)
        if (begins - self.now) * rate + size > self.conditions.queue:
            node.squeezed_out += 1
            return
        node.link_free_at = begins + size / rate
        self.clock.call_at(node.link_free_at, lambda: self._receive(node, channel, train))

    def _receive(self, node: SimNode, channel: int, train: Train) -> None:
        receive = partial(node.endpoint.receive, channel, train, self.local(node))
        if self.witness is None:
            receive()
        else:
            self.witness(node, train, receive)
        self.flush(node)

    def run(self, duration: float) -> None:
        """Let that much virtual time pass."""
        end = self.now + duration
        while self.clock.step(end):
            pass

    def run_until(self, condition: Callable[[], object], timeout: float) -> bool:
        """Run until the condition holds; False when it does not within the virtual time given."""
        end = self.now + timeout
        while not condition():
            if not self.clock.step(end):
                return bool(condition())
        return True
