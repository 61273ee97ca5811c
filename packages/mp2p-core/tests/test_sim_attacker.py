"""A random adversary on a simulated network (rows H3 to H7 and F5 mixed, with oracles).

It sees every datagram and may drop for a while, replay, edit, reflect, splice and invent. What must hold,
for every seed: nothing forged or repeated is delivered; both ends of a session agree on the transcript; no
key seals twice under one nonce; strangers' addresses get what the rules allow; every table stays bounded;
and an honest pair connects once the attacker stops, or while it runs rows H3 to H7.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.cookies import CookieJar
from mp2p_core.proto.epoch import Epoch
from mp2p_core.proto.session import Session
from mp2p_core.testing.puppet import Puppet, restamp
from mp2p_core.testing.simulation import AllowKeys, Conditions, Datagram, SimNode, Simulation
from mp2p_core.transport import Address

VICTIMS = [pack_ipv4(f"224.0.240.{n}", 2000) for n in range(1, 4)]


class Attacker:
    """Everything that a host in scope can do. Holds no key of the honest nodes."""

    def __init__(self, sim: Simulation, seed: int) -> None:
        self.sim = sim
        self.draw = random.Random(f"attacker {seed}")
        self.seed = seed
        self.heard: list[Datagram] = []
        self.dropping_until = 0.0
        self.puppets = 0
        self.may_drop = True
        self.sources = [pack_ipv4(f"10.99.0.{n}", 1024) for n in range(1, 5)]
        self.sent_from: dict[Address, int] = defaultdict(int)

    def __call__(self, datagram: Datagram) -> bool:
        self.heard.append(datagram)
        del self.heard[:-400]
        if self.may_drop and self.draw.random() < 0.01:
            self.dropping_until = self.sim.now + self.draw.random() * 3
        for _ in range(self.draw.choice([0, 0, 1, 1, 2, 6])):
            self.strike(datagram)
        return self.sim.now >= self.dropping_until

    def send(self, source: Address, destination: Address, data: bytes) -> None:
        self.sent_from[source] += len(data)
        self.sim.inject(
            Datagram(source, destination, data), self.draw.random() ** 3 * self.draw.choice([0.002, 0.5, 40])
        )

    def strike(self, now: Datagram) -> None:
        """Do one thing, often about the datagram that is just passing."""
        past = self.draw.choice(self.heard)
        node = self.draw.choice(self.sim.nodes)
        source = self.draw.choice(
            [*self.sources, now.source, past.source, *(n.source for n in self.sim.nodes)]
        )
        match self.draw.randrange(8):
            case 0:
                self.send(source, past.destination, past.data)  # replay
            case 1:
                self.send(source, node.group, past.data)  # replay to another, or reflect
            case 2:
                self.send(source, now.destination, self.edited(now.data))
            case 3:
                self.send(source, now.destination, self.forged(now))  # H3
            case 4:
                self.send(source, now.destination, self.spliced(now.data, past.data))
            case 5:
                self.send(source, node.group, self.invented(node))
            case 6:
                self.send(source, *self.cookie(now))  # F5
            case _:
                self.send(source, node.group, self.call(node))  # H5 to H7

    def receiver(self, datagram: Datagram) -> SimNode | None:
        return next((node for node in self.sim.nodes if node.group == datagram.destination), None)

    def edited(self, data: bytes) -> bytes:
        at = self.draw.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << self.draw.randrange(8)]) + data[at + 1 :]

    def forged(self, datagram: Datagram) -> bytes:
        """Edit a handshake message, and make its mac1 right again."""
        data, node = self.edited(datagram.data), self.receiver(datagram)
        if node is not None and (data[0], len(data)) in (
            (c.TYPE_INIT, c.INIT_SIZE),
            (c.TYPE_RESP, c.RESP_SIZE),
        ):
            return restamp(data, node.key)
        return data

    def spliced(self, one: bytes, other: bytes) -> bytes:
        at = self.draw.randrange(len(one) + 1)
        return one[:at] + other[at:]

    def invented(self, node: SimNode) -> bytes:
        kind = self.draw.choice([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x00])
        size = {0x11: 256, 0x12: 156, 0x13: 60}.get(kind, self.draw.randrange(18, 200))
        data = bytes([kind]) + self.draw.randbytes(size - 1)
        if kind == 0x11:
            data = restamp(b"\x11\x01\0\0" + data[4:12] + bytes(20) + data[32:], node.key)
        return data

    def cookie(self, datagram: Datagram) -> tuple[Address, bytes]:
        """A COOKIE that answers an INIT which is just passing, or the last one heard."""
        init = next((d for d in [datagram, *reversed(self.heard)] if d.data[0] == c.TYPE_INIT), datagram)
        caller = next((n for n in self.sim.nodes if n.source == init.source), self.sim.nodes[0])
        called = self.receiver(init)
        if called is None or len(init.data) != c.INIT_SIZE:
            return caller.group, self.draw.randbytes(60)
        jar = CookieJar(called.key.raw, self.draw.randbytes, 0.0)
        return caller.group, jar.seal(init.data, wire.init_fields(init.data), init.source, 0.0)

    def call(self, node: SimNode) -> bytes:
        """An INIT of its own: a claim to another's key, to -R, or with addresses that name victims."""
        self.puppets += 1
        puppet = Puppet(node.key, seed=self.seed * 1_000_000 + self.puppets)
        negative = node.key.raw[:31] + bytes([node.key.raw[31] ^ 0x80])
        victim = self.draw.choice(VICTIMS)
        match self.draw.randrange(5):
            case 0:
                return puppet.init(claims=self.draw.choice(self.sim.nodes).key.raw)
            case 1:
                return puppet.init(dials=negative)
            case 2:
                return puppet.init(return_address=victim)
            case 3:
                return puppet.init(hint=victim)
            case _:
                return puppet.init()


class Oracles:
    """Watches the honest nodes: what they were told, sent and keep."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.answers: dict[tuple[Address, int], list[float]] = defaultdict(list)
        self.bytes_to: dict[Address, int] = defaultdict(int)
        self.sessions: dict[str, dict[Session, Epoch]] = defaultdict(dict)
        # With the epoch that each began with: keys are renewed on the way.
        self.count = 0
        for node in sim.nodes:
            node.on_event = lambda event, name=node.name: self.hears(name, event)

    def hears(self, name: str, event: object) -> None:
        connection = getattr(event, "connection", None)
        if connection is not None:
            self.remember(name, connection)

    def sees(self, datagram: Datagram) -> None:
        kind = datagram.data[0]
        if kind in (c.TYPE_RESP, c.TYPE_COOKIE):
            self.answers[datagram.destination, kind].append(self.sim.now)
        self.bytes_to[datagram.destination] += len(datagram.data)
        if kind == c.TYPE_DATA:
            assert datagram.destination in {node.group for node in self.sim.nodes}, "DATA went to a stranger"
            for node in self.sim.nodes:
                for connection in node.endpoint.connections():  # also those that no event tells of
                    self.remember(node.name, connection)

    def watches(self, datagram: Datagram) -> bool:
        self.sees(datagram)
        return True

    def say(self, node: SimNode) -> None:
        for connection in node.endpoint.connections():
            self.count += 1
            text = f"{node.name} {self.count}".encode()
            connection.send_message(text)
            node.endpoint.flush(connection)
        self.sim.flush(node)

    def remember(self, name: str, connection: Connection) -> None:
        for session in connection.sessions:
            self.sessions[name].setdefault(session, session.epoch)

    def look(self) -> None:
        for node in self.sim.nodes:
            for connection in node.endpoint.connections():
                self.remember(node.name, connection)
            sizes = node.endpoint.sizes()
            assert sizes["half-open"] <= c.HALF_OPEN_SIZE
            assert sizes["answers"] <= c.ANSWER_CACHE_SIZE
            assert sizes["sessions"] <= c.HALF_OPEN_SIZE + 40
            assert sizes["timers"] <= 10 * c.HALF_OPEN_SIZE
            assert all(sizes[name] <= c.BUCKET_TABLE_SIZE for name in sizes if name.endswith("buckets"))

    def check(self, attacker: Attacker) -> None:
        """Hold everything that happened against the rules."""
        self.look()
        assert self.sim.nonces.repeats == 0, "a key sealed twice under one nonce"
        keys = {node.key: node for node in self.sim.nodes}
        for node in self.sim.nodes:
            for connection in (*node.accepted, *node.connected):
                assert connection.peer in keys, "a stranger became a peer"
            heard = Counter(data for _, data in node.messages)
            assert not [data for data, times in heard.items() if times > 1], "a message was delivered twice"
            for connection, data in node.messages:
                name, number = data.split()
                assert name == keys[connection.peer].name.encode(), "a message came from somebody else"
                assert int(number) <= self.count
        self.transcripts_agree()
        for (to, _), moments in self.answers.items():
            for first, after in zip(moments, moments[10:], strict=False):
                assert after - first >= 1.0 - 1e-6, f"more than ten answers in a second to {to.hex()}"
        for victim in VICTIMS:
            spoofable = sum(attacker.sent_from.values())
            assert self.bytes_to[victim] <= spoofable, "more out than in"

    def transcripts_agree(self) -> None:
        everyone = [
            (node, session, epoch)
            for node in self.sim.nodes
            for session, epoch in self.sessions[node.name].items()
        ]
        for node, session, epoch in everyone:
            others = [
                (other, theirs, its) for other, theirs, its in everyone
                if other is not node and its.local_id == epoch.remote_id
            ]  # fmt: skip
            if session.opened_at < float("inf"):
                assert others or not session.initiator, "a session without another end"
            for other, theirs, its in others:
                assert its.handshake_hash == epoch.handshake_hash
                assert (theirs.peer, session.peer) == (node.key, other.key)


def scene(seed: int, conditions: Conditions) -> tuple[Simulation, Attacker, Oracles, SimNode, SimNode]:
    sim = Simulation(seed, conditions)
    a, b = sim.add_node("a"), sim.add_node("b")
    for node, peer in ((a, b), (b, a)):
        sim.restart(node, AllowKeys(peer.key))
    attacker, oracles = Attacker(sim, seed), Oracles(sim)

    def watch(datagram: Datagram) -> bool:
        oracles.sees(datagram)
        return attacker(datagram)

    sim.adversary = watch
    return sim, attacker, oracles, a, b


def live(
    sim: Simulation, oracles: Oracles, nodes: list[SimNode], draw: random.Random, seconds: float
) -> None:
    """Let the honest nodes do what applications do: call, talk, close, restart."""
    end = sim.now + seconds
    while sim.now < end:
        node, peer = draw.sample(nodes, 2)
        match draw.randrange(12):
            case 0 | 1:
                sim.connect(node, peer)
            case 2:
                held: list[Connection] = node.endpoint.connections()
                if held:
                    node.endpoint.close(draw.choice(held), 0, "done", sim.now)
                    sim.flush(node)
            case 3 if draw.random() < 0.2:
                sim.restart(node, AllowKeys(*(other.key for other in nodes if other is not node)))
            case _:
                oracles.say(node)
        sim.run(draw.random() * 0.8)
        oracles.look()


def attack(seed: int, seconds: float = 60.0) -> None:
    draw = random.Random(f"plan {seed}")
    conditions = draw.choice([Conditions(), Conditions(loss=0.2, duplicate=0.1, jitter=0.1, corrupt=0.05)])
    sim, attacker, oracles, a, b = scene(seed, conditions)
    live(sim, oracles, [a, b], draw, seconds)
    oracles.check(attacker)
    # Now it stops, and what it sent last runs out: an honest pair connects at once.
    sim.adversary = oracles.watches
    sim.conditions = Conditions()
    sim.run(draw.choice([0.0, 5.0]))
    before = len(a.connected)
    sim.connect(a, b)
    assert sim.run_until(lambda: len(a.connected) > before, c.HANDSHAKE_BUDGET), "an honest pair connects"
    oracles.look()
    text, connection = b"a 0", a.connected[-1]
    connection.send_message(text)
    a.endpoint.flush(connection)
    sim.flush(a)
    assert sim.run_until(lambda: any(data == text for _, data in b.messages), 1.0), "and can talk"
    sim.run(45.0)
    oracles.check(attacker)


def run_seeds(seeds: range) -> None:
    for seed in seeds:
        try:
            attack(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("ten", range(2))
def test_H3_to_H7_a_random_adversary(ten: int) -> None:
    """The first seeds of those below."""
    run_seeds(range(ten * 10, ten * 10 + 10))


@pytest.mark.soak
@pytest.mark.parametrize("hundred", range(10))
def test_H3_to_H7_a_random_adversary_for_a_thousand_seeds(hundred: int) -> None:
    run_seeds(range(hundred * 100, hundred * 100 + 100))


def connect_under_attack(seed: int) -> None:
    """Rows H3 to H7 for every datagram that passes, nothing dropped: the call completes while it goes on."""
    sim, attacker, oracles, a, b = scene(seed, Conditions(jitter=0.01))
    attacker.may_drop = False
    draw = random.Random(seed)

    def strike(datagram: Datagram) -> bool:
        oracles.sees(datagram)
        attacker.heard.append(datagram)
        sender = next(node for node in sim.nodes if node.source == datagram.source)
        mine = attacker.sources[draw.randrange(4)]
        if datagram.data[0] == c.TYPE_INIT:
            resp = restamp(b"\x12\x01\0\0" + datagram.data[4:12] + sim.random_bytes(144), sender.key)
            sim.inject(Datagram(mine, sender.group, resp), 0.0001)  # H3
            sim.inject(Datagram(datagram.destination, sender.group, datagram.data), 0.0001)  # H4: sent back
            for at in (1, 2, 5, 13):  # H5
                data = datagram.data[:at] + bytes([datagram.data[at] ^ 1]) + datagram.data[at + 1 :]
                sim.inject(Datagram(mine, datagram.destination, restamp(data, b.key)), 0.0001)
        if datagram.data[0] == c.TYPE_RESP:
            forged = restamp(datagram.data[:60] + sim.random_bytes(80) + bytes(16), a.key)
            for n in range(2):
                sim.inject(Datagram(attacker.sources[n], datagram.destination, forged), 0.0001)  # H3
            sim.inject(Datagram(mine, sender.group, datagram.data), 0.0001)  # H4: to the responder
        sim.inject(Datagram(mine, b.group, attacker.call(b)), 0.0001)  # H6, H7 and more
        return True

    sim.adversary = strike
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, c.HANDSHAKE_BUDGET), f"seed {seed}"
    oracles.say(a)
    assert sim.run_until(lambda: b.messages, 5.0), f"seed {seed}"
    sim.run(5.0)
    oracles.check(attacker)


def test_H3_to_H7_at_once_never_stop_an_honest_pair() -> None:
    for seed in range(100):
        connect_under_attack(seed)


def call_among_forged_answers(seed: int) -> None:
    sim = Simulation(seed, Conditions(jitter=0.01))
    a, b = sim.add_node("a"), sim.add_node("b")
    source = pack_ipv4("10.99.0.1", 1024)

    def flood(datagram: Datagram) -> bool:
        if datagram.data[0] == c.TYPE_INIT:
            for _ in range(1000):
                resp = restamp(b"\x12\x01\0\0" + datagram.data[4:12] + sim.random_bytes(144), a.key)
                sim.inject(Datagram(source, a.group, resp), 0.00001)
        return True

    sim.adversary = flood
    sim.connect(a, b)
    assert sim.run_until(lambda: len(a.connected) == 1, c.HANDSHAKE_BUDGET), f"seed {seed}"
    assert a.endpoint.counters["resp-forged"] <= 20
    assert a.endpoint.counters["resp-rate"] > 900


def test_H3_a_thousand_forged_answers_for_every_call() -> None:
    """From the attacker's own source: the peer's share of the initiator's attempts is its own."""
    for seed in range(10):
        call_among_forged_answers(seed)
