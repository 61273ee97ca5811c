"""Sessions that change their path, in simulation: what dies, what goes on, what an attacker makes of it (R5, R6)."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.events import PeerSilent, StreamsChanged
from mp2p_core.testing.simulation import Conditions, Datagram, SimNode, Simulation

V4, V6 = 0, 1


class Half:
    """One end: it writes a stream drawn from a seed, and reads the other end's."""

    def __init__(self, sim: Simulation, node: SimNode, connection: Connection, seed: str) -> None:
        self.sim, self.node, self.connection = sim, node, connection
        self.draw = random.Random(seed)
        self.out = connection.session.packer.streams.open()
        self.sent = self.got = 0
        self.written, self.read = hashlib.sha256(), hashlib.sha256()
        self.backlog = b""
        self.silences = 0
        node.on_event = self._event

    def write(self, size: int) -> None:
        """Queue bytes; what has no room waits."""
        data = self.draw.randbytes(size)
        self.written.update(data)
        self.sent += size
        self._push(data)

    def _push(self, data: bytes) -> None:
        self.backlog += data
        if self.connection.closed is None and self.out is not None and self.backlog:
            taken = self.connection.session.packer.streams.write(self.out, self.backlog)
            self.backlog = self.backlog[taken:]
            self.node.endpoint.flush(self.connection)

    def _event(self, event: object) -> None:
        self.silences += isinstance(event, PeerSilent)
        if isinstance(event, StreamsChanged) and event.connection is self.connection:
            for _, stream, _ in event.events:
                while piece := self.connection.session.packer.streams.read(stream, 1 << 20):
                    self.read.update(piece)
                    self.got += len(piece)
            self._push(b"")

    def flush(self) -> None:
        self._push(b"")
        self.sim.flush(self.node)

    @property
    def channel(self) -> int:
        return self.connection.session.roaming.channel

    @property
    def counters(self) -> Counter[str]:
        return Counter(self.node.endpoint.counters)


class Pair:
    """Two nodes with IPv4 and IPv6, connected over IPv4 by a contact that names nothing else."""

    def __init__(self, seed: int, *, channels: int = 2, **conditions: float) -> None:
        self.seed = seed
        self.sim = sim = Simulation(seed, Conditions(**conditions))
        nodes = [sim.add_node(name) for name in "ab"]
        for node in nodes:
            for _ in range(channels - 1):
                sim.add_channel(node)
        sim.connect(*nodes)
        assert sim.run_until(lambda: nodes[0].connected and nodes[1].accepted, 20), f"seed {seed}"
        self.a = Half(sim, nodes[0], nodes[0].connected[0], f"a {seed}")
        self.b = Half(sim, nodes[1], nodes[1].accepted[0], f"b {seed}")
        self.dead: set[tuple[str, int]] = set()
        """(name of the sender, channel) of what does not arrive any more."""
        self._from = {
            channel.source: (node.name, number) for node in nodes for number, channel in node.channels.items()
        }
        sim.cut = lambda datagram: self._from.get(datagram.source) in self.dead

    def kill(self, channel: int, *names: str) -> None:
        self.dead |= {(name, channel) for name in names or "ab"}

    def halfway(self) -> None:
        """Run until a part of what is under way has arrived."""
        for half in self.halves:
            half.flush()
        total, before = self.a.sent + self.b.sent, self.a.got + self.b.got
        assert self.sim.run_until(lambda: self.a.got + self.b.got > (total + 2 * before) / 3, 20.0)
        assert not self.done

    @property
    def halves(self) -> tuple[Half, Half]:
        return self.a, self.b

    @property
    def done(self) -> bool:
        return self.a.sent == self.b.got and self.b.sent == self.a.got

    def finish(self, timeout: float = 60.0) -> None:
        """Run until everything has arrived, and check that it is what was sent."""
        for half in self.halves:
            half.flush()
        what = f"seed {self.seed}: {self.b.got} of {self.a.sent}, {self.a.got} of {self.b.sent}"
        assert self.sim.run_until(lambda: self.done, timeout), what
        assert self.a.read.digest() == self.b.written.digest()
        assert self.b.read.digest() == self.a.written.digest()
        assert self.a.connection.closed is self.b.connection.closed is None, f"seed {self.seed}"
        assert self.sim.nonces.repeats == 0


BULK = 400_000


@pytest.mark.parametrize("writers", ["a", "b", "ab"])
@pytest.mark.parametrize("seed", range(4))
def test_ipv4_dies_in_the_middle_of_a_transfer_and_ipv6_goes_on(seed: int, writers: str) -> None:
    pair = Pair(seed, jitter=0.001)
    first = pair.a.connection.session.handshake_hash
    pair.sim.run(3.0)
    for half in pair.halves:
        half.write(BULK if half.node.name in writers else 0)
    pair.halfway()
    pair.kill(V4)
    began = pair.sim.now
    pair.finish()
    assert pair.sim.now - began < 2.0, "three probe timeouts, and not a handshake"
    assert (pair.a.channel, pair.b.channel) == (V6, V6)
    assert pair.a.connection.session.handshake_hash == first
    for half in pair.halves:
        assert half.counters["rekeys-begun"] == 0
        assert half.counters["paths-changed"] == 1
    assert pair.a.silences + pair.b.silences >= 1, "a switch may have forgotten one of them"


@pytest.mark.parametrize("names", ["a", "b"])
def test_one_direction_of_ipv4_dies_and_both_sides_leave_it(names: str) -> None:
    for seed in range(4):
        pair = Pair(seed)
        pair.sim.run(0.1)
        pair.a.write(BULK)
        pair.halfway()
        pair.kill(V4, names)
        pair.finish()
        pair.sim.run(5.0)
        assert (pair.a.channel, pair.b.channel) == (V6, V6), f"seed {seed}"


def test_a_transfer_that_begins_on_ipv6_goes_on_over_ipv4() -> None:
    sim = Simulation(5)
    nodes = [sim.add_node(name) for name in "ab"]
    for node in nodes:
        sim.add_channel(node)
    sim.connect(*nodes, channel=V6)
    assert sim.run_until(lambda: nodes[1].accepted, 20)
    a = Half(sim, nodes[0], nodes[0].connected[0], "a")
    b = Half(sim, nodes[1], nodes[1].accepted[0], "b")
    assert (a.channel, b.channel) == (V6, V6)
    a.write(BULK)
    a.flush()
    assert sim.run_until(lambda: b.got > BULK / 3, 10)
    dead = {node.channels[V6].source for node in nodes}
    sim.cut = lambda datagram: datagram.source in dead
    assert sim.run_until(lambda: b.got == a.sent, 10)
    assert (a.channel, b.channel) == (V4, V4)


@pytest.mark.parametrize("seed", range(12))
def test_ipv4_dies_while_a_fifth_of_everything_is_lost(seed: int) -> None:
    pair = Pair(seed, loss=0.2, jitter=0.003)
    pair.sim.run(3.0)
    for half in pair.halves:
        half.write(100_000)
    pair.halfway()
    pair.kill(V4)
    pair.finish(120.0)


def test_loss_alone_seldom_makes_a_session_leave_its_path() -> None:
    changes = 0
    for seed in range(8):
        pair = Pair(100 + seed, loss=0.2, jitter=0.003)
        for _ in range(30):
            pair.a.write(2_000)
            pair.a.flush()
            pair.sim.run(1.0)
        pair.finish(60.0)
        changes += sum(half.counters["paths-changed"] for half in pair.halves)
    assert changes <= 24, "by both sides, in 240 bursts, each with a tail that may be lost"


@pytest.mark.parametrize("seed", range(6))
def test_a_path_that_flaps(seed: int) -> None:
    """Each of the two is dead half of the time, now together and now in turn."""
    pair = Pair(seed, jitter=0.002)
    draw = random.Random(seed)
    for _ in range(25):
        pair.dead.clear()
        for channel in draw.choice([(V4,), (V6,), (), (V4, V6), (V4,), (V6,)]):
            pair.kill(channel)
        for half in pair.halves:
            half.write(5_000)
            half.flush()
        pair.sim.run(draw.choice((0.2, 1.0, 4.0)))
    pair.dead.clear()
    pair.finish(90.0)


def test_two_sides_that_send_over_different_channels_meet() -> None:
    """From a over IPv6 only, from b over IPv4 only: each leaves for where the other one is not, and comes back."""
    for seed in range(4):
        pair = Pair(seed)
        pair.sim.run(2.0)
        for half in pair.halves:
            half.write(BULK)
        pair.halfway()
        pair.kill(V4, "a")
        pair.kill(V6, "b")
        pair.sim.run(10.0)
        pair.dead.clear()
        pair.finish(60.0)
        pair.sim.run(1.0)
        for half in pair.halves:
            half.write(1000)
            half.flush()
        pair.finish()
        pair.sim.run(5.0)
        assert pair.a.channel == pair.b.channel, f"seed {seed}"
        moves = [half.counters["paths-changed"] for half in pair.halves]
        for _ in range(50):
            pair.a.write(1000)
            pair.b.write(1000)
            pair.finish()
        assert [half.counters["paths-changed"] for half in pair.halves] == moves, "and stay"


@pytest.mark.parametrize("mover", ["a", "b"])
def test_an_interface_that_goes_is_left_for_the_other_one(mover: str) -> None:
    for seed in range(4):
        pair = Pair(seed, channels=1)
        node = pair.a.node if mover == "a" else pair.b.node
        for half in pair.halves:
            half.write(BULK)
        pair.halfway()
        node.interface = 2
        began = pair.sim.now
        pair.finish()
        assert pair.sim.now - began < 2.0
        assert node.endpoint.connections()[0].session.roaming.path.interface == 2
        assert node.endpoint.counters["rekeys-begun"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_ipv4_dies_between_the_answer_and_its_confirmation(seed: int) -> None:
    """One answer came over it, and nothing since: the keys are confirmed over the other way."""
    sim = Simulation(seed, Conditions(loss=0.1 * (seed % 2)))
    nodes = a, b = [sim.add_node(name) for name in "ab"]
    for node in nodes:
        sim.add_channel(node)
    targets = [(number, channel.group) for number, channel in b.channels.items()]
    a.endpoint.connect(b.key, targets, timestamp=sim.timestamp(), timeout=20.0, now=sim.now)
    dead = {a.source, b.source}
    sim.cut = lambda datagram: not a.connected and datagram.source not in dead  # until then, only IPv4
    sim.flush(a)
    assert sim.run_until(lambda: a.connected, 20)
    assert a.connected[0].session.roaming.channel == V4
    sim.cut = lambda datagram: datagram.source in dead
    began = sim.now
    one, other = Half(sim, a, a.connected[0], "a"), None
    one.write(1000)
    one.flush()
    assert sim.run_until(lambda: b.accepted, 5)
    other = Half(sim, b, b.accepted[0], "b")
    other.write(1000)
    other.flush()
    assert sim.run_until(lambda: one.got == other.got == 1000, 5)
    assert sim.now - began < (1.5 if seed % 2 else 0.3), "as soon as it answers"
    assert (one.channel, other.channel) == (V6, V6)


def test_a_channel_that_is_opened_later_is_told_and_used() -> None:
    pair = Pair(9, channels=1)
    pair.sim.run(1.0)
    for half in pair.halves:
        pair.sim.add_channel(half.node)
    pair.sim.run(3.0)
    assert [half.counters["path-answered"] for half in pair.halves] == [1, 1]
    dead = {pair.a.node.source, pair.b.node.source}
    pair.sim.cut = lambda datagram: datagram.source in dead
    pair.a.write(BULK)
    pair.finish()
    assert (pair.a.channel, pair.b.channel) == (V6, V6)


def test_a_peer_that_started_anew_where_only_the_other_way_works_is_found() -> None:
    for seed in range(4):
        pair = Pair(seed)
        pair.sim.run(3.0)
        pair.sim.restart(pair.b.node)
        pair.b.node.accepted.clear()
        pair.kill(V4)
        pair.a.write(1000)
        pair.a.flush()
        assert pair.sim.run_until(lambda: pair.b.node.accepted, 30), f"seed {seed}"  # noqa: B023 - run at once
        assert pair.b.node.accepted[0].session.roaming.channel == V6
        assert pair.a.connection.closed is not None
        assert pair.a.connection.closed.code == c.CLOSE_RESTARTED


def test_short_sessions_and_nodes_with_one_channel_do_not_hear_of_paths() -> None:
    pair = Pair(3)
    pair.sim.run(0.9)
    alone = Pair(3, channels=1)
    alone.sim.run(20.0)
    for half in (*pair.halves, *alone.halves):
        assert half.counters["path-asked"] == 0


# --- attackers ---------------------------------------------------------------------------------------


def test_R5_copies_with_other_sources_on_every_channel_move_nothing_and_reach_nobody() -> None:
    """It hears everything, and repeats it faster than it arrives: from victims, over both channels."""
    for seed in range(4):
        pair = Pair(seed)
        sim = pair.sim
        victims = [channel.source[:-1] + b"\x99" for channel in pair.a.node.channels.values()]
        sent: list[Datagram] = []

        def repeat(datagram: Datagram) -> bool:
            sent.append(datagram)  # noqa: B023 - run within this seed
            for half in pair.halves:  # noqa: B023
                for channel in half.node.channels.values():
                    for victim in victims:  # noqa: B023
                        if victim[0] == channel.group[0]:
                            sim.inject(Datagram(victim, channel.group, datagram.data), 0.0001)  # noqa: B023
            return True

        sim.adversary = repeat
        pair.sim.run(2.0)
        for _ in range(10):
            for half in pair.halves:
                half.write(3_000)
                half.flush()
            sim.run(0.5)
        pair.finish()
        own = {channel.group for half in pair.halves for channel in half.node.channels.values()}
        assert {datagram.destination for datagram in sent} <= own, f"seed {seed}"
        sim.adversary = None
        for half in pair.halves:
            half.write(3_000)
            half.flush()
        pair.finish()


def test_R5_an_attacker_who_also_drops_cannot_keep_a_session_from_a_way_that_works() -> None:
    pair = Pair(2)
    groups = {half.node.channels[V4].group for half in pair.halves}

    def drop(datagram: Datagram) -> bool:
        """Take everything off IPv4 and feed it in over IPv6 under a false source, late."""
        if datagram.destination not in groups:
            return True
        for half in pair.halves:
            if datagram.destination == half.node.group:
                pair.sim.inject(
                    Datagram(
                        half.node.channels[V6].source[:-1] + b"\x77",
                        half.node.channels[V6].group,
                        datagram.data,
                    ),
                    0.05,
                )
        return False

    pair.sim.run(2.0)
    pair.sim.adversary = drop
    for half in pair.halves:
        half.write(50_000)
        half.flush()
    pair.finish()


@pytest.mark.parametrize("seed", range(6))
def test_a_search_over_several_ways_ends_with_the_first_that_is_answered(seed: int) -> None:
    """Everything is dead for a while, and both sides search over both channels; keys are renewed once or twice."""
    pair = Pair(seed, jitter=0.002)
    pair.sim.run(2.0)
    pair.kill(V4)
    pair.kill(V6)
    for half in pair.halves:
        half.write(20_000)
        half.flush()
    pair.sim.run(12.0)
    pair.dead.clear()
    pair.finish(15.0)
    pair.sim.run(5.0)
    assert sum(half.counters["rekeys-done"] for half in pair.halves) <= 2
    pair.sim.run(c.HALF_OPEN_LIFE + c.EPOCH_OVERLAP)
    assert [half.node.endpoint.sizes()["sessions"] for half in pair.halves] == [1, 1], (
        "nothing is left of the others"
    )
