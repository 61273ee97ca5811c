"""Handshakes on a simulated network (rows H2, H11, D1, D2, D3, Y5, Y6, F5): whole endpoints, virtual time."""

from __future__ import annotations

import random

import pytest

from mp2p_core.proto import addresses, wire
from mp2p_core.proto import constants as c
from mp2p_core.proto.cookies import CookieJar
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.proto.states import SessionState
from mp2p_core.testing.puppet import restamp
from mp2p_core.testing.simulation import AllowAll, AllowKeys, Conditions, Datagram, SimNode, Simulation

BAD = Conditions(loss=0.3, duplicate=0.2, delay=0.02, jitter=0.2)


def pair(seed: int, conditions: Conditions | None = None) -> tuple[Simulation, SimNode, SimNode]:
    sim = Simulation(seed, conditions)
    return sim, sim.add_node("a"), sim.add_node("b")


def say(sim: Simulation, node: SimNode, text: bytes) -> None:
    connection = node.endpoint.connections()[0]
    connection.send_message(text)
    node.endpoint.flush(connection)
    sim.flush(node)


def shake_hands(seed: int, conditions: Conditions) -> None:
    sim, a, b = pair(seed, conditions)
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, c.HANDSHAKE_BUDGET), "within the budget"
    assert sim.run_until(lambda: a.connected[0].session.state is SessionState.OPEN, c.HALF_OPEN_LIFE), (
        "both know"
    )
    ours, theirs = a.connected[0].session, b.accepted[0].session
    assert ours.handshake_hash == theirs.handshake_hash, "the same transcript"
    assert (ours.epoch.local_id, ours.epoch.remote_id) == (theirs.epoch.remote_id, theirs.epoch.local_id)
    assert (a.connected[0].peer, b.accepted[0].peer) == (b.key, a.key)
    sim.run(1.0)
    assert len(a.connected) == len(b.accepted) == 1, "one session"
    assert a.accepted + b.connected + a.closed + b.closed + a.failed == []
    assert sim.nonces.repeats == 0
    sim.conditions = Conditions()
    say(sim, a, b"to b")
    say(sim, b, b"to a")
    sim.run(0.1)
    assert (a.messages, b.messages) == ([(a.connected[0], b"to a")], [(b.accepted[0], b"to b")])


@pytest.mark.parametrize("hundred", range(10))
def test_H2_a_thousand_handshakes_under_loss_duplication_and_reordering(hundred: int) -> None:
    for seed in range(hundred * 100, hundred * 100 + 100):
        try:
            shake_hands(seed, BAD)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize("seed", range(30))
def test_P8_handshakes_under_corruption(seed: int) -> None:
    """A flipped bit is a lost datagram, and nothing else."""
    sim, a, b = pair(seed, Conditions(loss=0.1, corrupt=0.3, jitter=0.1))
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, c.HANDSHAKE_BUDGET), f"seed {seed}"
    assert a.connected[0].session.handshake_hash == b.accepted[0].session.handshake_hash, f"seed {seed}"
    for n in range(50):
        say(sim, a, b"%d" % n)
    sim.run(2.0)
    heard = [data for _, data in b.messages]
    assert len(heard) == len(set(heard)) > 15, f"seed {seed}"
    assert set(heard) <= {b"%d" % n for n in range(50)}, f"seed {seed}"


def test_H11_a_responder_says_nothing_until_it_is_confirmed() -> None:
    sim, a, b = pair(1)
    sim.cut = lambda datagram: datagram.source == a.source and datagram.data[0] == c.TYPE_DATA
    sim.connect(a, b)
    sim.run(60.0)
    assert {datagram.data[0] for datagram in b.sent} == {c.TYPE_RESP}
    assert len(b.sent) == 1
    assert b.accepted == []
    assert b.endpoint.connections() == []
    assert [event.code for event in a.closed] == [c.CLOSE_IDLE], "and the initiator notices"


def test_D1_with_every_datagram_dropped_the_call_fails_and_nothing_older_is_tried() -> None:
    sim, a, b = pair(1)
    seen: list[Datagram] = []

    def drop(datagram: Datagram) -> bool:
        seen.append(datagram)
        return False

    sim.adversary = drop
    sim.connect(a, b)
    assert sim.run_until(lambda: a.failed, 30.0)
    assert a.failed[0].stage == "nothing heard"
    assert {datagram.data[0] for datagram in seen} == {c.TYPE_INIT}
    assert {len(datagram.data) for datagram in seen} == {256}


@pytest.mark.parametrize("offset", [1, 2, 3, 40, 64, 80, 115, 150, 172, 173, 176, 178, 180])
def test_D2_an_init_edited_in_flight_does_not_connect(offset: int) -> None:
    """Suite, flags, and every region of the encrypted part that holds capabilities, sizes and versions."""
    sim, a, b = pair(offset)

    def edit(datagram: Datagram) -> bool:
        if datagram.data[0] == c.TYPE_INIT:
            data = datagram.data[:offset] + bytes([datagram.data[offset] ^ 2]) + datagram.data[offset + 1 :]
            sim.inject(Datagram(datagram.source, datagram.destination, restamp(data, b.key)), 0.001)
            return False
        return True

    sim.adversary = edit
    sim.connect(a, b)
    assert sim.run_until(lambda: a.failed, 30.0)
    assert b.sent == []
    sim.adversary = None
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected, 20.0)


@pytest.mark.parametrize("offset", [1, 2, 12, 44, 60, 88, 95, 130, 139])
def test_D2_a_resp_edited_in_flight_does_not_connect(offset: int) -> None:
    sim, a, b = pair(offset)

    def edit(datagram: Datagram) -> bool:
        if datagram.data[0] == c.TYPE_RESP:
            data = datagram.data[:offset] + bytes([datagram.data[offset] ^ 1]) + datagram.data[offset + 1 :]
            sim.inject(Datagram(datagram.source, datagram.destination, restamp(data, a.key)), 0.001)
            return False
        return True

    sim.adversary = edit
    sim.connect(a, b)
    assert sim.run_until(lambda: a.failed, 30.0)
    assert a.connected == b.accepted == []


@pytest.mark.parametrize(
    ("ours", "theirs", "connects"), [(1, 1, True), (1, 2, True), (2, 1, True), (2, 2, False), (3, 2, False)]
)
def test_D3_a_pair_that_speaks_a_later_version_is_not_forced_to_this_one(
    ours: int, theirs: int, connects: bool
) -> None:
    """As if somebody had dropped their handshakes of version 2, so that they came down to those of version 1."""
    sim, a, b = pair(3)
    for node, version in ((a, ours), (b, theirs)):
        node.endpoint = Endpoint(
            node.identity,
            AllowAll(),
            now=sim.now,
            random=sim.random_bytes,
            suite=sim.nonces.suite,
            version=version,
        )
        node.endpoint.add_channel(0, ChannelInfo(node.group, 1200, addresses.may_answer))
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected or a.failed, 20.0)
    sim.run(1.0)
    assert (len(a.connected), len(b.accepted)) == ((1, 1) if connects else (0, 0))
    if not connects:
        assert a.failed[0].refusal is not None
        assert a.failed[0].refusal.startswith("downgrade")
        assert {datagram.data[0] for datagram in a.sent} == {c.TYPE_INIT}, "no key of this version was used"


def test_Y5_a_clock_that_went_back_a_year_costs_one_cookie() -> None:
    sim, a, b = pair(1)
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected, 5.0)
    sim.run(1.0)
    sim.restart(a)
    before = len(b.sent)
    sim.connect(a, b, timestamp=sim.timestamp() - 365 * 86400 * 10**6)
    assert sim.run_until(lambda: len(a.connected) == 2, 5.0)
    kinds = [datagram.data[0] for datagram in b.sent[before:]]
    assert kinds[:2] == [c.TYPE_COOKIE, c.TYPE_RESP]
    assert kinds.count(c.TYPE_COOKIE) == 1


def test_Y6_two_processes_that_share_one_identity_both_connect() -> None:
    sim = Simulation(1)
    server = sim.add_node("server")
    identity = Identity.from_seed(b"s" * 32)
    clients = [sim.add_node(f"client {n}", identity=identity) for n in range(2)]
    for client in clients:
        sim.connect(client, server)
    assert sim.run_until(lambda: all(client.connected for client in clients), 20.0)
    assert sim.run_until(lambda: len(server.accepted) == 2, 5.0)
    for n, client in enumerate(clients):
        say(sim, client, b"%d" % n)
    sim.run(0.1)
    assert [data for _, data in server.messages] == [b"0", b"1"]
    assert server.messages[0][0] is not server.messages[1][0]


def test_Y6_a_server_that_runs_twice_answers_once() -> None:
    sim = Simulation(1)
    identity = Identity.from_seed(b"s" * 32)
    servers = [sim.add_node(f"server {n}", identity=identity) for n in range(2)]
    client = sim.add_node("client")
    sim.connect(client, servers[0])
    assert sim.run_until(lambda: client.connected, 20.0)
    sim.run(30.0)
    assert len(client.connected) == 1
    assert sum(len(server.accepted) for server in servers) == 1
    assert client.closed == []


def test_H17_a_responder_that_restarts_is_called_again_and_the_dead_session_is_noticed() -> None:
    sim, a, b = pair(1)
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected, 5.0)
    sim.restart(b)
    sim.run(1.0)
    sim.connect(a, b)
    assert sim.run_until(lambda: len(a.connected) == 2, 5.0)
    assert sim.run_until(lambda: a.closed, c.DEFAULT_IDLE_TIMEOUT + 1)
    assert a.closed[0].connection is a.connected[0]
    assert a.connected[1].closed is None


def test_F5_forged_cookies_do_not_stop_a_call() -> None:
    """One for every INIT, from a responder's point of view the right place, with another secret."""
    for seed in range(20):
        call_among_forged_cookies(seed)


def call_among_forged_cookies(seed: int) -> None:
    sim, a, b = pair(seed, Conditions(loss=0.2, jitter=0.05))
    jar = CookieJar(b.key.raw, random.Random(seed).randbytes, sim.now)

    def forge(datagram: Datagram) -> bool:
        if datagram.data[0] == c.TYPE_INIT:
            cookie = jar.seal(datagram.data, wire.init_fields(datagram.data), datagram.source, sim.now)
            sim.inject(Datagram(datagram.destination, a.group, cookie), 0.0001)
        return True

    sim.adversary = forge
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected, c.HANDSHAKE_BUDGET), f"seed {seed}"


def test_an_access_list_lets_in_whom_it_names_and_nobody_hears_of_it() -> None:
    sim = Simulation(1)
    friend, stranger = sim.add_node("friend"), sim.add_node("stranger")
    server = sim.add_node("server", access=AllowKeys(friend.key))
    sim.connect(stranger, server)
    assert sim.run_until(lambda: stranger.failed, 30.0)
    assert server.sent == []
    sim.connect(friend, server)
    assert sim.run_until(lambda: friend.connected and server.accepted, 20.0)
