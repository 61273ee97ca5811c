"""Both sides call at once (row H10): every order in which the datagrams may arrive, and many with losses."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from mp2p_core.proto import addresses, wire
from mp2p_core.proto import constants as c
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.events import (
    Accepted,
    Connected,
    ConnectionClosed,
    MessageReceived,
    PingAnswered,
    StreamsChanged,
)
from mp2p_core.proto.frames import (
    Ack,
    Close,
    Frame,
    Msg,
    Ping,
    StreamData,
    encode_ack,
    encode_close,
    encode_msg,
    encode_stream_head,
    parse_frames_untrusted,
)
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, KeyPair, Suite, X25519KeyPair
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.proto.session import Session
from mp2p_core.proto.states import SessionState
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.testing.puppet import Bench, Puppet
from mp2p_core.testing.simulation import AllowAll, Conditions, Datagram, SimNode, Simulation
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


@dataclass
class Side:
    """An endpoint whose application sends `messages`, one each time that something arrives.

    It begins once it is connected, with the `first` arrival after that.
    """

    messages: int
    first: int
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


def make_side(messages: int, first: int, name: str, identity: Identity, host: str) -> Side:
    group = addresses.derive_group_v4(identity.public.raw, Reach.GLOBAL, 1024)
    draw = random.Random(name).randbytes
    endpoint = Endpoint(identity, AllowAll(), now=0.0, random=draw, suite=SUITE)
    endpoint.add_channel(0, ChannelInfo(group, 1200, addresses.may_answer))
    return Side(messages, first, name, identity, endpoint, addresses.pack_ipv4(host, 1024), group)


class Run:
    """Two sides that have both called, and what is under way between them."""

    def __init__(self, messages: int, first: int) -> None:
        self.now = 0.0
        self.small = make_side(messages, first, "small", IDENTITIES[0], "10.0.0.1")
        self.large = make_side(messages, first, "large", IDENTITIES[1], "10.0.0.2")
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
        if side.connections and side.first > 0:
            side.first -= 1
        elif side.connections and side.sent < side.messages:
            side.sent += 1
            side.connections[0].send_message(f"{side.name} {side.sent}".encode())
            side.endpoint.flush(side.connections[0])
        for _, train in side.endpoint.transmits(self.now):
            for data in train.datagrams():
                self.in_flight.append((side, other, data))

    def wait(self, seconds: float) -> None:
        """Let time pass; whatever is sent arrives in its order, after no time."""
        end = self.now + seconds
        sides = ((self.small, self.large), (self.large, self.small))
        while True:
            while self.in_flight:
                self.deliver(0, pause=0.0)
            due = [when for side, _ in sides if (when := side.endpoint.timeout()) is not None]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            for side, other in sides:
                side.endpoint.handle_timeout(self.now)
                self.flush(side, other)
        self.now = end

    def deliver(self, index: int, pause: float = 0.001) -> None:
        self.now += pause
        source, to, data = self.in_flight.pop(index)
        self.seen[to.name] += (data,)
        to.endpoint.receive(0, Train(Path(source.source, to.group, 1), (data,), len(data)), self.now)
        self.flush(to, source)


def all_orders(messages: int, first: int) -> Iterator[Run]:
    """Yield a run for every way in which the datagrams can be ordered at each side.

    What a side saw, in its order, decides what it does: so each such state is gone on from once.
    """
    visited: set[tuple[tuple[bytes, ...], ...]] = set()
    stack: list[tuple[int, ...]] = [()]
    while stack:
        order = stack.pop()
        run = Run(messages, first)
        for index in order:
            run.deliver(index)
        if not run.in_flight:
            yield run
        for index, (_, to, data) in enumerate(run.in_flight):
            seen = run.seen | {to.name: (*run.seen[to.name], data)}
            state = seen["small"], seen["large"]
            if state not in visited:
                visited.add(state)
                stack.append((*order, index))


def some_orders(messages: int, first: int, count: int) -> Iterator[Run]:
    """Yield runs in which the next arrival is drawn at random."""
    draw = random.Random("orders")
    for _ in range(count):
        run = Run(messages, first)
        while run.in_flight:
            run.deliver(draw.randrange(len(run.in_flight)))
        yield run


ALL = 1_000_000


@pytest.mark.parametrize(
    ("messages", "first", "orders"),
    [
        (0, 0, ALL),
        (1, 0, ALL),
        (1, 1, 300),
        (2, 0, 400),
        pytest.param(1, 1, ALL, marks=pytest.mark.soak),
        pytest.param(2, 0, ALL, marks=pytest.mark.soak),
    ],
)
def test_H10_every_order_ends_in_one_session_and_loses_nothing(
    messages: int, first: int, orders: int
) -> None:
    runs = merged = 0
    chosen = all_orders(messages, first) if orders == ALL else some_orders(messages, first, orders)
    for run in chosen:
        runs += 1
        before = [len(side.connections[0].sessions) for side in (run.small, run.large)]
        assert before[0] == before[1], "both sides take the same sessions for one connection"
        run.wait(2 * c.SPARE_LIFE)
        for side, other in ((run.small, run.large), (run.large, run.small)):
            assert side.closed == []
            assert len(side.connections) == 1, "the application sees one connection"
            assert len(side.endpoint.connections()) == 1
            assert sorted(side.heard) == [f"{other.name} {n + 1}".encode() for n in range(messages)]
            assert not [name for name in side.endpoint.counters if "forged" in name or "malformed" in name]
        (ours,), (theirs,) = run.small.connections, run.large.connections
        assert ours.session.handshake_hash == theirs.session.handshake_hash, "both send on the same session"
        assert ours.session.initiator != theirs.session.initiator
        assert len(ours.sessions) == len(theirs.sessions) == 1
        if run.small.endpoint.counters["sessions-merged"]:
            merged += 1
            assert ours.session.initiator, "the session begun by the smaller key is preferred"
            assert before == [2, 2], "the spare one stays for a while"
            spare = next(session for session in run.large.sessions if session.initiator)
            assert spare.closing.code == c.CLOSE_SUPERSEDED
            assert spare.state is SessionState.CLOSING
    assert runs >= (30 if (messages, first) != (1, 0) else 9), (
        "what is said at once takes the first ACKs along"
    )
    assert merged > runs / 4


def agree(one: SimNode, other: SimNode) -> bool:
    """Both hold the same connections, each over one session."""
    held = [[connection.sessions for connection in node.endpoint.connections()] for node in (one, other)]
    if any(
        len(sessions) != 1 or sessions[0].state is not SessionState.OPEN for sessions in held[0] + held[1]
    ):
        return False
    ours, theirs = ({sessions[0].handshake_hash for sessions in side} for side in held)
    return ours == theirs


class Echo:
    """Opens a stream on each connection as soon as it has it, and expects to get back what it has written."""

    def __init__(self, sim: Simulation, node: SimNode) -> None:
        self.sim = sim
        self.node = node
        self.data = sim.random_bytes(5000)
        self.ours: set[tuple[Session, int]] = set()
        self.back: dict[tuple[Session, int], bytes] = {}
        self.begun = 0
        node.on_event = self.take

    @property
    def ended(self) -> bool:
        """Whether all of it has come back."""
        return self.begun > 0 and not self.ours

    def take(self, event: object) -> None:
        if isinstance(event, Connected):
            session = event.connection.session
            number = session.packer.streams.open()
            assert number is not None
            assert session.packer.streams.write(number, self.data) == len(self.data)
            session.packer.streams.finish(number)
            self.ours.add((session, number))
            self.begun += 1
        elif isinstance(event, StreamsChanged):
            for kind, number, whole in event.events:
                if whole:
                    self.take_piece(event.session, number, whole)
                    self.take_piece(event.session, number, b"")
                elif kind in (StreamEventKind.OPENED, StreamEventKind.READABLE):
                    self.read(event.session, number)
        else:
            return
        self.node.endpoint.flush(event.connection)

    def read(self, session: Session, number: int) -> None:
        streams = session.packer.streams
        while (piece := streams.read(number, 1000)) is not None:
            self.take_piece(session, number, bytes(piece))
            if not piece:
                break

    def take_piece(self, session: Session, number: int, piece: bytes) -> None:
        streams = session.packer.streams
        if (session, number) in self.ours:
            self.back[session, number] = self.back.get((session, number), b"") + piece
            if not piece:
                assert self.back[session, number] == self.data
                self.ours.remove((session, number))
        elif piece:
            assert streams.write(number, piece) == len(piece)
        else:
            streams.finish(number)


def cross(seed: int) -> int:
    """Have two nodes call each other at about the same time on a bad network; returns the sessions merged."""
    sim = Simulation(seed, Conditions(loss=0.3, duplicate=0.2, jitter=0.3, delay=0.05))
    one, other = sim.add_node("one"), sim.add_node("other")
    echoes = [Echo(sim, node) for node in (one, other)]
    sim.connect(one, other)
    sim.run(sim.random.choice([0.0, 0.05, 0.2, 0.5]))
    sim.connect(other, one)
    assert sim.run_until(lambda: one.connected and other.connected, 25), "both calls are served"
    assert sim.run_until(lambda: all(echo.ended for echo in echoes), 60), (
        "streams are whole on either session"
    )
    assert sim.run_until(lambda: agree(one, other), 60), "and both sides hold the same"
    assert one.closed + other.closed == []
    assert one.endpoint.counters["sessions-merged"] == other.endpoint.counters["sessions-merged"]
    sim.conditions = Conditions()
    for node, peer in ((one, other), (other, one)):
        exchange(sim, node, peer)
    return one.endpoint.counters["sessions-merged"]


def exchange(sim: Simulation, node: SimNode, peer: SimNode) -> None:
    """A question on the connection that was called for is answered on the same one."""
    called = next((x for x in node.connected if x.closed is None), node.endpoint.connections()[0])
    for sender, connection, text in ((node, called, b"question"), (peer, None, b"answer")):
        on = connection or peer.messages[-1][0]
        on.send_message(text)
        sender.endpoint.flush(on)
        sim.flush(sender)
        heard = peer if sender is node else node
        assert sim.run_until(
            lambda heard=heard, text=text: heard.messages[-1:] and heard.messages[-1][1] == text, 5
        )
    assert node.messages[-1] == (called, b"answer")


def test_H10_calls_that_cross_on_a_bad_network() -> None:
    """Streams are opened on either session before it is known that there are two: none of them is lost."""
    merged = 0
    for seed in range(150):
        try:
            merged += cross(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
    assert merged > 10, "the seeds cross often enough to prove something"


def crossed() -> tuple[Bench, Puppet, Puppet, Connection]:
    """A node whose call was answered and who, before it heard more, was called by the same peer."""
    bench = Bench(identity=IDENTITIES[1])
    answering = Puppet(bench.key, identity=IDENTITIES[0], seed=1)
    calling = Puppet(bench.key, identity=IDENTITIES[0], seed=2)
    bench.feed(answering.resp(bench.dial(answering.key)))
    (event,) = bench.events
    assert isinstance(event, Connected)
    (resp,) = bench.feed(calling.init(may_cross=True))
    calling.read_resp(resp.data)
    bench.events.clear()
    return bench, answering, calling, event.connection


def opened(puppet: Puppet, datagrams: list[Datagram]) -> list[Frame]:
    frames: list[Frame] = []
    for datagram in datagrams:
        if datagram.data[2:10] == puppet.receive_id:
            frames += parse_frames_untrusted(puppet.open(datagram.data))
    return frames


def test_H10_what_is_queued_on_the_spare_goes_out_on_the_other() -> None:
    bench, answering, calling, connection = crossed()
    connection.send_message(b"queued")
    number = connection.ping()
    out = bench.feed(calling.seal(b"\x01"))
    assert bench.events == [], "one connection, and it knows already"
    assert Msg(b"queued") in opened(calling, out)
    assert opened(answering, out) == []
    bench.feed(calling.seal(encode_ack([(0, 0)], 0.0)))
    assert [event.ping for event in bench.events if isinstance(event, PingAnswered)] == [number]


def keep_talking(bench: Bench, seconds: float, *puppets: Puppet) -> list[tuple[int, Frame]]:
    """Have puppets acknowledge everything for a while; returns what else they were told, with their seed."""
    told: list[tuple[int, Frame]] = []
    end = bench.now + seconds
    while bench.now < end:
        out = bench.advance(0.2)
        for puppet in puppets:
            frames = opened(puppet, out)
            if any(isinstance(frame, Ping | StreamData) for frame in frames):
                numbers = [n.data for n in out if n.data[2:10] == puppet.receive_id]
                (highest,) = wire.data_packet_number(numbers[-1], 10)
                frames += opened(puppet, bench.feed(puppet.seal(encode_ack([(0, highest)], 0.0))))
            told += [(puppet.seed, frame) for frame in frames if not isinstance(frame, Ack | Ping)]
    return told


def merged() -> tuple[Bench, Puppet, Puppet, Connection]:
    """A node with two sessions of one connection, each open; the one that it began is the spare."""
    bench, answering, calling, connection = crossed()
    bench.feed(calling.seal(b"\x01"))
    bench.feed(answering.seal(encode_ack([(0, 0)], 0.0)))
    bench.feed(calling.seal(encode_ack([(0, 0)], 0.0)))
    assert [session.initiator for session in connection.sessions] == [False, True]
    return bench, answering, calling, connection


GOODBYE = Close(c.CLOSE_SUPERSEDED, "both sides called at once")


def test_H10_the_spare_is_closed_once_it_has_carried_nothing_for_a_while() -> None:
    bench, answering, calling, connection = merged()
    assert keep_talking(bench, c.SPARE_LIFE / 2, answering, calling) == []
    bench.feed(answering.seal(encode_msg(b"something")))
    assert keep_talking(bench, c.SPARE_LIFE - 1, answering, calling) == []
    assert len(connection.sessions) == 2
    assert keep_talking(bench, 2.0, answering, calling) == [(answering.seed, GOODBYE)]
    assert [session.initiator for session in connection.sessions] == [False]
    assert bench.endpoint.connections() == [connection]
    assert not [event for event in bench.events if isinstance(event, ConnectionClosed)]


def test_H10_the_spare_stays_for_as_long_as_a_stream_on_it_lives() -> None:
    bench, answering, calling, connection = merged()
    spare = connection.sessions[1]
    streams = spare.packer.streams
    stream = streams.open()
    assert stream is not None
    streams.write(stream, b"to be answered late")
    bench.endpoint.flush(connection)
    keep_talking(bench, 5 * c.SPARE_LIFE, answering, calling)
    assert spare.live
    streams.finish(stream)
    bench.endpoint.flush(connection)
    bench.feed(answering.seal(encode_stream_head(stream, 0, 4, last=True) + b"late"))
    assert bench.events[-1] == StreamsChanged(
        connection, spare, [(StreamEventKind.READABLE, stream, b"late")]
    )
    assert (answering.seed, GOODBYE) in keep_talking(bench, 3 * c.SPARE_LIFE, answering, calling)
    assert connection.closed is None


def test_H10_the_spare_stays_until_the_peer_is_sure_to_have_the_other() -> None:
    bench, answering, calling, connection = crossed()
    bench.feed(calling.seal(b"\x01"))
    bench.feed(answering.seal(encode_ack([(0, 0)], 0.0)))
    assert keep_talking(bench, 2 * c.SPARE_LIFE, answering) == []
    assert len(connection.sessions) == 2, "it has not acknowledged anything on the other one"


def test_H10_a_session_that_falls_silent_with_a_stream_on_it_ends_the_connection() -> None:
    """The streams of the other one, too: a connection with half of its streams gone is worse than none."""
    bench, _, calling, connection = merged()
    stream = connection.sessions[1].packer.streams.open()
    assert stream is not None
    connection.sessions[1].packer.streams.write(stream, b"?")
    bench.endpoint.flush(connection)
    told = keep_talking(bench, 2 * c.DEFAULT_IDLE_TIMEOUT, calling)
    assert [frame.code for _, frame in told if isinstance(frame, Close)] == [c.CLOSE_INTERNAL]
    assert [event.code for event in bench.events if isinstance(event, ConnectionClosed)] == [c.CLOSE_IDLE]


def test_H10_a_session_that_falls_silent_with_nothing_on_it_leaves_the_other() -> None:
    bench, _, calling, connection = merged()
    assert keep_talking(bench, 2 * c.DEFAULT_IDLE_TIMEOUT, calling) == []
    assert connection.closed is None
    assert [session.initiator for session in connection.sessions] == [False]


def test_H10_a_sign_of_life_on_either_session_ends_the_search() -> None:
    """Else a peer that remembers both would be asked for a new connection, and lose what it has under way."""
    bench, answering, _, connection = merged()
    connection.send_message(b"?")  # on the preferred one, where nobody answers
    bench.endpoint.flush(connection)
    out: list[Datagram] = []
    flags: list[bool] = []
    while bench.now < 1000.0 + 25:
        out = bench.advance(0.2)
        for init in (datagram.data for datagram in out if datagram.data[0] == c.TYPE_INIT):
            reader = Puppet(bench.key, identity=IDENTITIES[0], seed=9)
            reader.resp(init)
            assert reader.told is not None
            flags.append(reader.told.or_new)
        if any(isinstance(frame, Ping) for frame in opened(answering, out)):
            bench.feed(answering.seal(b"\x01"))
    assert len(flags) > 3, "it is looked for"
    assert not any(flags), "and known to be there"


def test_H10_what_is_read_late_from_the_spare_is_still_there_and_whole() -> None:
    """The peer closes it when all is acknowledged: by us, not by our application."""
    bench = Bench(identity=IDENTITIES[0])  # the smaller key: the peer's call is the spare
    answering, calling = (Puppet(bench.key, identity=IDENTITIES[1], seed=n) for n in (1, 2))
    bench.feed(answering.resp(bench.dial(answering.key)))
    calling.connect(bench, may_cross=True)
    (connection,) = bench.endpoint.connections()
    spare = connection.sessions[1]
    assert not spare.initiator
    parts = encode_stream_head(2, 0, 4, last=False) + b"hell" + encode_stream_head(2, 4, 1, last=True) + b"o"
    bench.feed(calling.seal(parts))
    streams = spare.packer.streams
    streams.write(2, b"bye")
    streams.finish(2)
    bench.endpoint.flush(connection)
    bench.collect()  # and the acknowledgement of that is lost
    bench.events.clear()
    streams.table.tells_finished = True
    bench.feed(calling.seal(encode_close(c.CLOSE_SUPERSEDED, "")))
    assert connection.closed is None
    assert bench.events == [StreamsChanged(connection, spare, [(StreamEventKind.FINISHED, 2, b"")])]
    assert (bytes(streams.read(2, 10) or b""), streams.read(2, 10)) == (b"hello", b"")


@pytest.mark.parametrize("missing", ["their end", "our end"])
def test_H10_a_peer_that_closes_the_spare_under_a_stream_ends_the_connection(missing: str) -> None:
    bench = Bench(identity=IDENTITIES[0])
    answering, calling = (Puppet(bench.key, identity=IDENTITIES[1], seed=n) for n in (1, 2))
    bench.feed(answering.resp(bench.dial(answering.key)))
    calling.connect(bench, may_cross=True)
    (connection,) = bench.endpoint.connections()
    bench.feed(calling.seal(encode_stream_head(2, 0, 5, last=missing == "our end") + b"hello"))
    if missing == "their end":
        connection.sessions[1].packer.streams.finish(2)
        bench.endpoint.flush(connection)
        bench.collect()
    bench.feed(calling.seal(encode_close(c.CLOSE_SUPERSEDED, "")))
    assert [event.code for event in bench.events if isinstance(event, ConnectionClosed)] == [
        c.CLOSE_SUPERSEDED
    ]


def test_H10_the_close_of_the_spare_is_repeated_for_as_long_as_the_peer_may_ask() -> None:
    bench, answering, calling, _ = merged()
    assert keep_talking(bench, c.SPARE_LIFE + 1, answering, calling) == [(answering.seed, GOODBYE)]
    assert keep_talking(bench, c.DEFAULT_IDLE_TIMEOUT - 5, calling) == []
    assert opened(answering, bench.feed(answering.seal(b"\x01"))) == [GOODBYE]


@pytest.mark.parametrize("silent", ["ours", "the peer's"])
def test_H10_calls_of_which_one_may_not_have_crossed_are_two_connections(silent: str) -> None:
    """Whoever calls again, or back, before all is settled does not say so: the peer could not tell which was meant."""
    bench = Bench(identity=IDENTITIES[1])
    if silent == "ours":  # it is calling that peer already
        bench.endpoint.connect(
            IDENTITIES[0].public, [(0, bench.group)], timestamp=1, timeout=20, now=bench.now
        )
        bench.collect()
    answering, calling = (Puppet(bench.key, identity=IDENTITIES[0], seed=n) for n in (1, 2))
    bench.feed(answering.resp(bench.dial(answering.key)))
    (resp,) = bench.feed(calling.init(may_cross=silent == "ours"))
    calling.read_resp(resp.data)
    bench.feed(calling.seal(b"\x01"))
    assert [len(connection.sessions) for connection in bench.endpoint.connections()] == [1, 1]


def test_H10_what_arrives_on_the_spare_is_delivered_once() -> None:
    bench, answering, calling, connection = crossed()
    bench.feed(calling.seal(b"\x01"))
    late = answering.seal(encode_msg(b"late"))
    bench.feed(late)
    bench.feed(late)
    assert bench.events == [MessageReceived(connection, b"late")]


def test_H10_a_call_after_the_peer_was_heard_is_another_connection() -> None:
    bench, answering, _, connection = crossed()
    bench.feed(answering.seal(b"\x01"))
    later = Puppet(bench.key, identity=IDENTITIES[0], seed=3)
    bench.advance(0.001)
    later.connect(bench, may_cross=True)
    (event,) = bench.events
    assert isinstance(event, Accepted)
    assert event.connection is not connection


def test_H10_one_call_takes_in_one_session() -> None:
    """Attack: answer one call with as many of one's own, to hold more sessions than a key may."""
    bench = Bench(identity=IDENTITIES[0])  # the smaller key: its own call is preferred, and stays
    answering = Puppet(bench.key, identity=IDENTITIES[1])
    bench.feed(answering.resp(bench.dial(answering.key)))
    for n in range(5):
        bench.now += 0.2
        Puppet(bench.key, identity=IDENTITIES[1], seed=10 + n).connect(bench, may_cross=True)
    assert [len(connection.sessions) for connection in bench.endpoint.connections()] == [2, 1, 1, 1, 1]


@pytest.mark.parametrize("closed", ["answering", "calling"])
def test_H10_the_peers_close_of_either_session_ends_the_connection(closed: str) -> None:
    """A CLOSE that says 'superseded' may be lost; the next one must not leave a connection to nobody."""
    bench = Bench(identity=IDENTITIES[0])  # the smaller key: the peer is to close the other session
    puppets = {
        "answering": Puppet(bench.key, identity=IDENTITIES[1], seed=1),
        "calling": Puppet(bench.key, identity=IDENTITIES[1], seed=2),
    }
    bench.feed(puppets["answering"].resp(bench.dial(puppets["answering"].key)))
    (resp,) = bench.feed(puppets["calling"].init(may_cross=True))
    puppets["calling"].read_resp(resp.data)
    bench.feed(puppets["calling"].seal(b"\x01"))
    (connection,) = bench.endpoint.connections()
    assert len(connection.sessions) == 2
    out = bench.feed(puppets[closed].seal(encode_close(0, "done")))
    assert bench.events[-1] == ConnectionClosed(connection, 0, "done")
    assert bench.endpoint.connections() == []
    other = puppets["answering" if closed == "calling" else "calling"]
    assert opened(other, out) == [Close(0, "")], "and the other session is closed as well"
    bench.advance(2.0)
    assert bench.endpoint.sizes()["sessions"] == 0


def test_H10_the_peers_superseded_ends_one_session_only() -> None:
    bench = Bench(identity=IDENTITIES[0])
    answering, calling = (Puppet(bench.key, identity=IDENTITIES[1], seed=n) for n in (1, 2))
    bench.feed(answering.resp(bench.dial(answering.key)))
    (resp,) = bench.feed(calling.init(may_cross=True))
    calling.read_resp(resp.data)
    bench.feed(calling.seal(b"\x01"))
    bench.feed(calling.seal(encode_close(c.CLOSE_SUPERSEDED, "")))
    (connection,) = bench.endpoint.connections()
    assert [session.epoch.remote_id for session in connection.sessions] == [answering.receive_id]
