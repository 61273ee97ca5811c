"""The life of a session in simulation: new keys under load, a peer that starts anew, a way that dies."""

from __future__ import annotations

import hashlib
import random

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.events import PeerSilent, StreamsChanged
from mp2p_core.testing.simulation import AllowKeys, Conditions, Datagram, SimNode, Simulation


class Pair:
    """Two connected nodes and a stream from one to the other, written and checked from a seed."""

    def __init__(self, seed: int, **conditions: float) -> None:
        self.sim = sim = Simulation(seed, Conditions(**conditions))
        self.a, self.b = sim.add_node("a"), sim.add_node("b")
        sim.connect(self.a, self.b)
        assert sim.run_until(lambda: self.a.connected and self.b.accepted, 20), f"seed {seed}"
        self.out, self.into = self.a.connected[0], self.b.accepted[0]
        number = self.out.session.packer.streams.open()
        assert number is not None
        self.number = number
        self._random = random.Random(seed)
        self.sent = self.got = 0
        self.written, self.read = hashlib.sha256(), hashlib.sha256()
        self.b.on_event = self._drain

    def write(self, size: int) -> None:
        """Queue bytes; they have room, for the sizes used here."""
        data = self._random.randbytes(size)
        self.written.update(data)
        assert self.out.session.packer.streams.write(self.number, data) == size
        self.sent += size
        self._flush(self.a, self.out)

    def _drain(self, event: object) -> None:
        if not isinstance(event, StreamsChanged) or self.into.closed:
            return
        while piece := self.into.session.packer.streams.read(self.number, 1 << 20):
            self.read.update(piece)
            self.got += len(piece)

    def _flush(self, node: SimNode, connection: Connection) -> None:
        node.endpoint.flush(connection)
        self.sim.flush(node)

    def say(self, data: bytes) -> None:
        """Send an unreliable message from a to b."""
        self.out.send_message(data)
        self._flush(self.a, self.out)


@pytest.mark.parametrize("seed", range(12))
def test_H16_new_keys_under_load_and_loss_cost_no_byte_and_no_nonce(seed: int) -> None:
    pair = Pair(seed, loss=0.1, duplicate=0.05, jitter=0.01)
    first = pair.out.session.handshake_hash
    while pair.sim.now < 1000 + 2.2 * c.REKEY_AFTER:
        pair.write(20_000)
        pair.sim.run(4)
    assert pair.sim.run_until(lambda: pair.got == pair.sent, 60), f"seed {seed}: {pair.got} of {pair.sent}"
    assert pair.read.digest() == pair.written.digest()
    assert pair.out.closed is None
    assert pair.into.closed is None
    assert pair.out.session.handshake_hash != first
    assert pair.out.session.handshake_hash == pair.into.session.handshake_hash
    assert pair.a.endpoint.counters["rekeys-done"] >= 2
    assert pair.sim.nonces.repeats == 0
    # The last keys and, for ten seconds, those before: never a third.
    assert pair.a.endpoint.sizes()["sessions"] <= 2
    assert pair.b.endpoint.sizes()["sessions"] <= 2


@pytest.mark.parametrize("packets", [3000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_H16_new_keys_again_and_again_in_the_middle_of_a_transfer(packets: int) -> None:
    pair = Pair(packets, loss=0.01, duplicate=0.01, delay=0.003, jitter=0.002)
    half = c.UNSENT_STREAM // 2
    before = len(pair.a.sent)
    while len(pair.a.sent) - before < packets:
        if pair.sent - pair.got < half:
            pair.write(half)
        for connection in (pair.out, pair.into):
            connection.session.epochs.rekey_at = pair.sim.local(pair.a)
        pair.sim.run_until(lambda: pair.sent - pair.got < half, 1.0)
    assert pair.sim.run_until(lambda: pair.got == pair.sent, 60), f"{pair.got} of {pair.sent}"
    assert pair.read.digest() == pair.written.digest()
    assert pair.out.session.epochs.rekeys >= packets // 1000
    assert pair.sim.nonces.repeats == 0
    assert pair.out.closed is None
    assert pair.into.closed is None


def test_Y7_data_under_keys_that_were_replaced_is_silent_after_ten_seconds() -> None:
    pair = Pair(1)
    recorded: list[Datagram] = []

    def record(datagram: Datagram) -> bool:
        recorded.append(datagram)
        return b"held back" not in held and True

    held: list[bytes] = []
    pair.sim.adversary = record
    pair.sim.cut = lambda datagram: datagram.destination == pair.b.group and bool(held)
    held.append(b"now")
    pair.say(b"held back")
    old = recorded[-1]
    held.clear()
    pair.sim.run(c.REKEY_AFTER + c.EPOCH_OVERLAP + 5)
    assert pair.a.endpoint.counters["rekeys-done"] == 1
    sent = len(pair.b.sent)
    before = pair.b.endpoint.counters["data-unknown"]
    pair.sim.inject(old)
    pair.sim.run(0.001)
    assert pair.b.endpoint.counters["data-unknown"] == before + 1
    assert len(pair.b.sent) == sent
    assert (pair.into, b"held back") not in pair.b.messages


def time_to_find(seed: int, loss: float) -> float:
    """Seconds until a peer that has lost its memory has a new session."""
    pair = Pair(seed, loss=loss)
    assert pair.sim.run_until(lambda: pair.out.session.known_to_peer, 10), f"seed {seed}"
    pair.sim.restart(pair.b)
    pair.b.accepted.clear()
    began = pair.sim.now
    pair.say(b"into the void")
    assert pair.sim.run_until(lambda: pair.b.accepted, 40), f"seed {seed}"
    assert pair.out.closed is not None
    assert pair.out.closed.code == c.CLOSE_RESTARTED
    return pair.sim.now - began


@pytest.mark.parametrize(("loss", "usual"), [(0.0, 2.5), (0.1, 5.0), (0.4, 10.0)])
def test_H17_a_peer_that_started_anew_gets_a_new_session_within_ten_seconds(
    loss: float, usual: float
) -> None:
    found = sorted(time_to_find(seed, loss) for seed in range(40))
    assert found[35] < usual, "nine times out of ten"
    assert loss > 0.1 or found[-1] < 10


@pytest.mark.parametrize("loss", [0.3, 0.4])
@pytest.mark.parametrize("seed", range(10))
def test_a_bad_network_does_not_make_two_connections_of_one(seed: int, loss: float) -> None:
    pair = Pair(seed, loss=loss, jitter=0.02)
    for n in range(60):
        pair.say(b"%d" % n)
        pair.sim.run(5)
    assert pair.out.closed is None, f"seed {seed}"
    assert pair.into.closed is None, f"seed {seed}"
    assert pair.a.endpoint.counters["sessions-replaced"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_a_peer_that_was_away_for_a_while_and_remembers_goes_on_with_the_connection(seed: int) -> None:
    """Whatever reaches it first of all that looks for it: it knows the connection."""
    pair = Pair(seed, loss=0.1)
    assert pair.sim.run_until(lambda: pair.out.session.known_to_peer, 10)
    pair.sim.cut = lambda _datagram: True
    pair.write(20_000)
    pair.sim.run(20 + seed / 2)
    assert pair.a.endpoint.counters["rekeys-begun"] > 0
    pair.sim.cut = None
    assert pair.sim.run_until(lambda: pair.got == pair.sent, 20)
    assert pair.out.closed is None
    assert pair.into.closed is None
    assert len(pair.b.accepted) == 1


def test_a_peer_that_lost_its_memory_while_new_keys_were_asked_for_is_found_soon() -> None:
    pair = Pair(4)
    pair.sim.run(c.REKEY_AFTER - 0.5)
    pair.sim.restart(pair.b)
    pair.b.accepted.clear()
    assert pair.sim.run_until(lambda: pair.a.endpoint.counters["rekeys-begun"], 1.0)
    pair.say(b"into the void")
    assert pair.sim.run_until(lambda: pair.b.accepted, 5)


@pytest.mark.parametrize("knows", [False, True])
def test_H17_of_two_processes_with_one_identity_the_one_that_knows_the_connection_has_the_first_word(
    knows: bool,
) -> None:
    pair = Pair(5)
    assert pair.sim.run_until(lambda: pair.out.session.known_to_peer, 10)
    twin = pair.sim.add_node("twin", identity=pair.b.identity)
    pair.sim.cut = lambda _datagram: True
    pair.say(b"lost")
    assert pair.sim.run_until(lambda: pair.out.session.roaming.fading, 10)
    pair.sim.cut = None if knows else lambda datagram: datagram.source == pair.b.source
    pair.sim.run(10)
    assert bool(twin.accepted) is not knows
    assert (pair.out.closed is None) is knows


def test_H15_new_keys_for_another_peers_connection_or_a_closed_one_are_refused_in_silence() -> None:
    pair = Pair(3)
    sim = pair.sim
    stranger = sim.add_node("c")
    sim.connect(stranger, pair.b)
    assert sim.run_until(lambda: stranger.connected and len(pair.b.accepted) == 2, 20)
    # The stranger's own connection takes on the other one's name, as a hostile implementation would.
    stranger.connected[0].session.token = pair.out.session.token
    before = pair.b.endpoint.counters["init-token"]
    sim.run(c.REKEY_AFTER + 1)
    assert pair.b.endpoint.counters["init-token"] > before
    assert stranger.endpoint.counters["rekeys-done"] == 0
    assert pair.out.closed is None
    pair.say(b"unharmed")
    sim.run(1)
    assert pair.b.messages[-1] == (pair.into, b"unharmed")


def test_both_sides_asking_for_new_keys_at_once_settle_on_one_epoch() -> None:
    for seed in range(10):
        pair = Pair(seed, jitter=0.01)
        for side, connection in ((pair.a, pair.out), (pair.b, pair.into)):
            connection.session.epochs.rekey_at = pair.sim.now + 1
            side.endpoint.flush(connection)
            connection.session.packer.ping()
            pair.sim.flush(side)
        pair.sim.run(60)
        for n in range(10):
            pair.say(b"%d" % n)
            pair.sim.run(5)
        assert pair.out.closed is None, f"seed {seed}"
        assert pair.out.session.handshake_hash == pair.into.session.handshake_hash, f"seed {seed}"
        assert [data for _, data in pair.b.messages] == [b"%d" % n for n in range(10)], f"seed {seed}"


def test_a_peer_that_goes_silent_is_told_of_once_a_search_and_only_then() -> None:
    pair = Pair(1)
    silent: list[float] = []

    def listen(event: object) -> None:
        if isinstance(event, PeerSilent):
            assert event.connection is pair.out
            silent.append(pair.sim.now)

    pair.a.on_event = listen
    pair.say(b"heard")
    pair.sim.run(5)
    assert silent == []
    pair.sim.cut = lambda datagram: datagram.destination == pair.a.group
    pair.say(b"not answered")
    pair.sim.run(8)
    assert len(silent) >= 1
    assert len(silent) <= 4, "once for each search"


@pytest.mark.parametrize("seed", range(3))
def test_a_peer_that_goes_silent_after_this_program_stood_still_is_looked_for_long_before_it_is_given_up(
    seed: int,
) -> None:
    """An answer that waited for the program is a round trip of as many seconds, and probe timeouts follow that."""
    pair = Pair(seed, delay=0.01, jitter=0.002)
    for _ in range(10):
        pair.write(100)
        pair.sim.run(0.5)
    pair.out.session.packer.ping()
    pair.write(100)
    pair.sim.run(0.015)
    pair.sim.sleep(pair.a, 12)
    for _ in range(4):
        pair.sim.run(0.5)
        pair.write(100)
    pair.sim.run(0.5)
    assert pair.out.session.packer.rtt.pto > 5, "no answer has waited"
    assert time_to_miss(pair) <= c.SILENT_AFTER_PROBES * c.PROBE_WAIT + 0.1


@pytest.mark.parametrize("seed", range(3))
def test_what_is_sent_after_this_program_stood_still_does_not_trickle(seed: int) -> None:
    pair = Pair(seed, delay=0.01, jitter=0.002)

    def takes() -> float:
        began = pair.sim.now
        for _ in range(10):
            pair.write(5_000)
            assert pair.sim.run_until(lambda: pair.got == pair.sent, 60)
        return pair.sim.now - began

    takes()
    before = takes()
    pair.out.session.packer.ping()
    pair.write(100)
    pair.sim.run(0.015)
    pair.sim.sleep(pair.a, 12)
    pair.sim.run(0.1)
    assert pair.out.session.packer.rtt.smoothed > 1, "no answer has waited"
    assert takes() < 2 * before


def test_a_server_that_stood_still_and_is_cut_off_later_is_not_taken_for_one_that_started_anew() -> None:
    """It hears nothing until it joins again for the silence; if it never did, it would forget the session."""
    pair = Pair(3, delay=0.01)
    deaf = False

    def listen(event: object) -> None:
        nonlocal deaf
        pair._drain(event)
        deaf = deaf and not isinstance(event, PeerSilent)

    pair.write(100)
    pair.sim.run(5)
    pair.into.ping()
    pair._flush(pair.b, pair.into)
    pair.sim.run(0.015)
    pair.sim.sleep(pair.b, 12)
    pair.sim.run(1)
    assert pair.into.session.packer.rtt.pto > 5, "no answer has waited"
    pair.b.on_event, deaf = listen, True
    until = pair.sim.now + c.DEFAULT_IDLE_TIMEOUT + 5
    pair.sim.cut = lambda datagram: deaf and pair.sim.now < until and datagram.destination == pair.b.group
    pair.write(100)
    assert pair.sim.run_until(lambda: pair.got == pair.sent, 60)
    assert not deaf
    assert pair.a.endpoint.counters["sessions-replaced"] == 0
    assert pair.out.closed is None


def test_a_search_that_has_found_the_peer_leaves_nothing_to_do() -> None:
    pair = Pair(2)
    pair.say(b"heard")
    pair.sim.run(1)
    time_to_miss(pair)
    pair.sim.cut = lambda datagram: datagram.data[0] != c.TYPE_DATA  # a packet comes before the answer
    pair.sim.run(1)
    assert not pair.out.session.searching
    pair.sim.cut = None
    pair.sim.run(60)
    assert pair.a.endpoint.counters["rekeys-begun"] == 1
    pair.sim.run(c.REKEY_AFTER)
    assert pair.out.session.epochs.rekeys == 1, "in their own time"


@pytest.mark.parametrize("every", [0.01, 0.1, 1.0])
def test_whoever_keeps_asking_a_silent_peer_finds_out_as_soon(every: float) -> None:
    """What is sent while nothing comes back does not put off the question whether anything does."""
    pair = Pair(7)
    pair.say(b"heard")
    pair.sim.run(1)

    def ask() -> None:
        pair.out.ping()
        pair._flush(pair.a, pair.out)
        pair.sim.clock.call_at(pair.sim.now + every, ask)

    ask()
    pair.sim.run(0.5)
    assert time_to_miss(pair) < 1.0 + every


def time_to_miss(pair: Pair) -> float:
    """Seconds until a notices that it hears nothing of b any more, which hears it."""
    silent: list[float] = []
    pair.a.on_event = lambda event: silent.append(pair.sim.now) if isinstance(event, PeerSilent) else None
    pair.sim.cut = lambda datagram: datagram.destination == pair.a.group
    began = pair.sim.now
    pair.say(b"not answered")
    assert pair.sim.run_until(lambda: silent, 60), (
        f"seed {pair.sim.seed}: given up instead: {pair.out.closed}"
    )
    return silent[0] - began


@pytest.mark.parametrize("memory", [3.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_switch_that_keeps_forgetting_one_side_holds_the_other_up_and_nothing_more(
    memory: float, seed: int
) -> None:
    """That side hears nothing unless it has joined again lately, which it does for a silence, and every 75 s."""
    pair = Pair(seed, jitter=0.002)
    sim = pair.sim
    joined = [sim.now]

    def listen(event: object) -> None:
        pair._drain(event)
        if isinstance(event, PeerSilent) and sim.now >= joined[-1] + 10:
            joined.append(sim.now)

    def cut(datagram: Datagram) -> bool:
        if sim.now >= joined[-1] + 75:
            joined.append(sim.now)
        return datagram.destination == pair.b.group and sim.now > joined[-1] + memory

    pair.b.on_event, sim.cut = listen, cut
    while sim.now < 1300:
        pair.write(100)
        # It asks for a sign of life after ten seconds, joins again, and is heard at once.
        assert sim.run_until(lambda: pair.got == pair.sent, c.KEEPALIVE + 1), f"seed {seed}, {joined}"
        sim.run(0.5)
    assert len(joined) > 5, f"seed {seed}: nothing was forgotten"
    assert pair.out.closed is None
    assert pair.into.closed is None


def test_a_caller_that_lets_nobody_call_still_gives_new_keys_to_whom_it_called() -> None:
    """The called side looks for a silent caller, and renews keys, by INITs of its own."""
    sim = Simulation(5)
    a, b = sim.add_node("a", access=AllowKeys()), sim.add_node("b")
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, 20)
    hears = a.endpoint.counters
    # It refuses the same peer's wish for a connection of its own, and takes the wish to renew this one.
    sim.connect(b, a)
    sim.run(21)
    assert hears["init-not-allowed"] > 0
    before = hears["init-answered"]
    sim.cut = lambda datagram: datagram.destination == b.group
    b.accepted[0].send_message(b"anybody there?")
    b.endpoint.flush(b.accepted[0])
    sim.flush(b)
    sim.run(4)
    sim.cut = None
    sim.run(6)
    assert hears["init-answered"] > before
    assert a.connected[0].closed is None
    assert b.accepted[0].closed is None
