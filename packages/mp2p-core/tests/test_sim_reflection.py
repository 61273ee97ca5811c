"""Nodes as somebody else's weapon, on a simulated network (rows R3, R4, R7, R8, R10, H4)."""

from __future__ import annotations

from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.testing.puppet import Puppet, restamp
from mp2p_core.testing.simulation import Datagram, SimNode, Simulation
from mp2p_core.transport import Address

VICTIM = pack_ipv4("224.0.230.200", 2000)


def within_a_second(moments: list[float], limit: int) -> bool:
    return all(after - first >= 1.0 - 1e-6 for first, after in zip(moments, moments[limit:], strict=False))


def source_of(n: int) -> Address:
    return pack_ipv4(f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", 4000)


def watched(sim: Simulation, node: SimNode) -> list[tuple[float, Datagram]]:
    """Note when a node sends what; the nodes' own log has no times."""
    log: list[tuple[float, Datagram]] = []

    def note(datagram: Datagram) -> bool:
        if datagram.source == node.source:
            log.append((sim.now, datagram))
        return True

    sim.adversary = note
    return log


def test_R3_valid_inits_at_1000_a_second_that_name_one_group() -> None:
    sim = Simulation(3)
    server = sim.add_node("server")
    log = watched(sim, server)
    bytes_in = 0
    for n in range(1500):
        init = Puppet(server.key, seed=n).init(return_address=VICTIM)
        sim.inject(Datagram(source_of(n), server.group, init), n * 0.001)
        bytes_in += len(init)
    sim.run(5.0)
    to_victim = [(at, d) for at, d in log if d.destination == VICTIM]
    assert within_a_second([at for at, _ in to_victim], 10)
    assert 10 <= len(to_victim) <= 40
    assert {d.data[0] for _, d in to_victim} == {c.TYPE_RESP}
    assert sum(len(d.data) for _, d in log) <= bytes_in


def test_R4_a_client_that_never_confirms() -> None:
    sim = Simulation(4)
    server = sim.add_node("server")
    for n in range(10):
        init = Puppet(server.key, seed=n).init()
        for _ in range(2):
            sim.inject(Datagram(source_of(0), server.group, init), n * 1.0)
    sim.run(120.0)
    assert [d.data[0] for d in server.sent] == [c.TYPE_RESP] * 10
    assert server.accepted == []


def test_R7_hints_that_name_victims_while_the_responder_is_under_load() -> None:
    sim = Simulation(7)
    server = sim.add_node("server")
    log = watched(sim, server)
    for n in range(3000):
        body = sim.random_bytes(192)
        group = pack_ipv4(f"224.0.{224 + n % 26}.{n % 251}", 2000)
        init = restamp(wire.init_header(body[:8], group) + body + bytes(32), server.key)
        sim.inject(Datagram(source_of(n), server.group, init), n * 0.001)
    sim.run(5.0)
    hinted = [(at, d) for at, d in log if d.data[0] == c.TYPE_COOKIE]
    assert within_a_second([at for at, _ in hinted], 50)
    assert len(hinted) > 60
    assert {len(d.data) for _, d in hinted} == {c.COOKIE_SIZE}
    assert all(d.destination != source_of(n) for n, (_, d) in enumerate(hinted))


def test_R8_two_servers_each_the_others_return_group() -> None:
    """Spoofed from each to the other, with the group, and even the unicast source, of the other one."""
    sim = Simulation(8)
    one, other = sim.add_node("one"), sim.add_node("other")
    for n, (target, named) in enumerate([(one, other), (other, one)] * 5):
        init = Puppet(target.key, seed=n).init(return_address=named.group)
        sim.inject(Datagram(named.source, target.group, init), 0.01 * n)
        kind_zero = Puppet(target.key, seed=100 + n).init()
        sim.inject(Datagram(named.source, target.group, kind_zero), 0.01 * n)
    sim.run(60.0)
    sent = len(one.sent) + len(other.sent)
    assert {d.data[0] for d in one.sent + other.sent} == {c.TYPE_RESP}
    assert sent <= 20, "at most one answer each, and no answer to an answer"
    assert one.accepted + other.accepted + one.connected + other.connected == []


def test_R10_unknown_ids_flooded_at_a_group_that_fifty_nodes_share() -> None:
    sim = Simulation(10)
    group = pack_ipv4("224.0.230.7", 1024)
    nodes = [sim.add_node(f"node {n}", group=group) for n in range(50)]
    foreign = Puppet(sim.add_node("elsewhere").key).init()
    sim.nodes.pop()
    for n in range(300):
        kind = n % 6
        data = (
            b"\x14\0" + sim.random_bytes(100),
            b"\x12\1\0\0" + sim.random_bytes(152),
            b"\x13\0\0\0" + sim.random_bytes(56),
            b"\x15\0" + sim.random_bytes(100),
            b"\x16\0\2\0" + sim.random_bytes(100),
            foreign[:4] + sim.random_bytes(8) + foreign[12:],
        )[kind]
        sim.inject(Datagram(source_of(n), group, data), n * 0.001)
    sim.run(2.0)
    assert all(node.sent == [] for node in nodes)
    assert all(sum(node.endpoint.counters.values()) == 300 for node in nodes)
    # The same group still serves: each node answers for its own key only.
    client = sim.add_node("client")
    sim.connect(client, nodes[17])
    assert sim.run_until(lambda: client.connected, 5.0)
    assert [node.name for node in nodes if node.sent] == ["node 17"]


def test_H4_answers_and_calls_sent_to_the_wrong_side() -> None:
    """The RESP to the responder, the INIT back to the initiator, the RESP of another handshake."""
    sim = Simulation(4)
    a, b, other = sim.add_node("a"), sim.add_node("b"), sim.add_node("other")
    stray: list[Datagram] = []

    def misdirect(datagram: Datagram) -> bool:
        sender = next(node for node in sim.nodes if node.source == datagram.source)
        if datagram.data[0] in (c.TYPE_INIT, c.TYPE_RESP):
            sim.inject(Datagram(datagram.destination, sender.group, datagram.data), 0.0005)
            for to in (a, b):
                sim.inject(Datagram(other.source, to.group, datagram.data), 0.0007)
            if datagram.data[0] == c.TYPE_RESP and sender is other:
                stray.append(datagram)
        return True

    sim.adversary = misdirect
    sim.connect(a, other)
    sim.connect(a, b)
    assert sim.run_until(lambda: len(a.connected) == 2, 20.0)
    sim.run(1.0)
    assert stray
    assert {connection.peer for connection in a.connected} == {b.key, other.key}
    assert len(b.accepted) == len(other.accepted) == 1
    assert a.accepted == b.connected == other.connected == []
    assert a.closed == b.closed == []
