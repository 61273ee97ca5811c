"""Both sides call at once (row H10): every order in which the datagrams may arrive, and many with losses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from mp2p_core.proto import addresses
from mp2p_core.proto import constants as c
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.events import Accepted, Connected, ConnectionClosed, MessageReceived
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, KeyPair, Suite, X25519KeyPair
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.proto.session import Session
from mp2p_core.proto.states import SessionState
from mp2p_core.testing.simulation import AllowAll, Conditions, SimNode, Simulation
from mp2p_core.transport import Path, Reach, Train

_shared: dict[tuple[bytes, bytes], bytes] = {}
_pairs: dict[bytes, X25519KeyPair] = {}


def _remembered_dh(pair: KeyPair, public: bytes) -> bytes:
    key = pair.dh_public, public
    if key not in _shared:
        _shared[key] = pair.exchange(public)
    return _shared[key]


def _remembered_pair(private: bytes) -> X25519KeyPair:
    if private not in _pairs:
        _pairs[private] = X25519KeyPair(private)
    return _pairs[private]


# Thousands of runs repeat the same few key exchanges: done once, remembered.
SUITE = Suite(
    CHACHAPOLY_SHA256.name, CHACHAPOLY_SHA256.hash_name, CHACHAPOLY_SHA256.aead,
    key_pair=_remembered_pair, dh=_remembered_dh,
)  # fmt: skip
MESSAGES = 2


@dataclass
class Side:
    """An endpoint whose application sends as soon as, and as often as, it can."""

    name: str
    identity: Identity
    endpoint: Endpoint
    source: bytes
    group: bytes
    connections: list[Connection] = field(default_factory=list)
    sessions: dict[Session, None] = field(default_factory=dict)
    sent: int = 0
    heard: list[bytes] = field(default_factory=list)
    closed: list[ConnectionClosed] = field(default_factory=list)


IDENTITIES = sorted((Identity.from_seed(bytes([n]) * 32) for n in (1, 2)), key=lambda who: who.public.raw)


def make_side(name: str, identity: Identity, host: str) -> Side:
    group = addresses.derive_group_v4(identity.public.raw, Reach.GLOBAL, 1024)
    draw = random.Random(name).randbytes
    endpoint = Endpoint(identity, AllowAll(), now=0.0, random=draw, suite=SUITE)
    endpoint.add_channel(0, ChannelInfo(group, 1200, addresses.may_answer))
    return Side(name, identity, endpoint, addresses.pack_ipv4(host, 1024), group)


class Run:
    """Two sides that have both called, and what is under way between them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.small = make_side("small", IDENTITIES[0], "10.0.0.1")
        self.large = make_side("large", IDENTITIES[1], "10.0.0.2")
        self.in_flight: list[tuple[Side, Side, bytes]] = []
        self.seen: dict[str, tuple[bytes, ...]] = {"small": (), "large": ()}
        for one, other in ((self.small, self.large), (self.large, self.small)):
            one.endpoint.connect(
                other.identity.public, [(0, other.group)], timestamp=10**15, timeout=20, now=self.now
            )
        for one, other in ((self.small, self.large), (self.large, self.small)):
            self.flush(one, other)

    def flush(self, side: Side, other: Side) -> None:
        for event in side.endpoint.events():
            if isinstance(event, Connected | Accepted):
                side.connections.append(event.connection)
            elif isinstance(event, MessageReceived):
                side.heard.append(event.data)
            elif isinstance(event, ConnectionClosed):
                side.closed.append(event)
        for connection in side.connections:
            side.sessions.update(dict.fromkeys(connection.sessions))
        if side.connections and side.sent < MESSAGES:
            side.sent += 1
            side.connections[0].send_message(f"{side.name} {side.sent}".encode())
            side.endpoint.flush(side.connections[0])
        for transmit in side.endpoint.transmits(self.now):
            for data in transmit.train.datagrams():
                self.in_flight.append((side, other, data))

    def deliver(self, index: int) -> None:
        self.now += 0.001
        source, to, data = self.in_flight.pop(index)
        self.seen[to.name] += (data,)
        to.endpoint.receive(0, Train(Path(source.source, to.group, 1), (data,), len(data)), self.now)
        self.flush(to, source)

    def state(self) -> tuple[tuple[bytes, ...], ...]:
        """What each side saw, in its order, decides all that follows."""
        return self.seen["small"], self.seen["large"]


def all_orders() -> Iterator[Run]:
    """Yield a run for every way in which the datagrams can be ordered at each side."""
    visited: set[tuple[tuple[bytes, ...], ...]] = set()
    stack: list[tuple[int, ...]] = [()]
    while stack:
        order = stack.pop()
        run = Run()
        for index in order:
            run.deliver(index)
        if run.state() in visited:
            continue
        visited.add(run.state())
        if not run.in_flight:
            yield run
        stack.extend((*order, index) for index in range(len(run.in_flight)))


def test_H10_every_order_ends_in_one_session_and_loses_nothing() -> None:
    runs = merged = closed = 0
    for run in all_orders():
        runs += 1
        for side, other in ((run.small, run.large), (run.large, run.small)):
            assert side.closed == []
            assert len(side.connections) == 1, "the application sees one connection"
            assert len(side.endpoint.connections()) == 1
            assert sorted(side.heard) == [f"{other.name} {n + 1}".encode() for n in range(MESSAGES)]
            assert not [name for name in side.endpoint.counters if "forged" in name or "malformed" in name]
        (ours,), (theirs,) = run.small.connections, run.large.connections
        assert ours.session.handshake_hash == theirs.session.handshake_hash, "both send on the same session"
        assert ours.session.initiator != theirs.session.initiator
        assert len(ours.sessions) == len(theirs.sessions) == 1
        if run.small.endpoint.counters["sessions-merged"]:
            merged += 1
            preferred = ours.session
            assert preferred.initiator, "the session begun by the smaller key is preferred"
            spare = next(s for s in run.large.sessions if s.initiator)
            assert spare.close_code == c.CLOSE_SUPERSEDED
            assert spare.state in (SessionState.CLOSING, SessionState.DRAINING)
            closed += 1
    assert runs > 500
    assert merged > 100
    assert closed == merged
