"""Recordings on a simulated network (rows Y1, Y3, Y4, Y7, Y8): an attacker who hears all and plays it again."""

from __future__ import annotations

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.testing.simulation import Conditions, Datagram, SimNode, Simulation


class Recorder:
    """Hears every datagram, and can play them to whom it likes."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.heard: list[Datagram] = []
        sim.adversary = self.note

    def note(self, datagram: Datagram) -> bool:
        self.heard.append(datagram)
        return True

    def of(self, kind: int, source: SimNode | None = None) -> list[Datagram]:
        return [d for d in self.heard if d.data[0] == kind and source in (None, *self._node(d))]

    def _node(self, datagram: Datagram) -> list[SimNode]:
        return [node for node in self.sim.nodes if node.source == datagram.source]


def talking(seed: int, conditions: Conditions | None = None) -> tuple[Simulation, SimNode, SimNode, Recorder]:
    sim = Simulation(seed, conditions)
    recorder = Recorder(sim)
    a, b = sim.add_node("a"), sim.add_node("b")
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, 20.0), f"seed {seed}"
    return sim, a, b, recorder


def say(sim: Simulation, node: SimNode, count: int) -> list[bytes]:
    connection = node.endpoint.connections()[0]
    texts = [f"{node.name} {n}".encode() for n in range(count)]
    for text in texts:
        connection.send_message(text)
        node.endpoint.flush(connection)
        sim.flush(node)
    return texts


@pytest.mark.parametrize("seed", range(5))
def test_Y1_every_data_packet_twice_a_hundred_times_and_reversed(seed: int) -> None:
    sim, a, b, recorder = talking(seed, Conditions(delay=0.01, jitter=0.05))
    texts = say(sim, a, 30)
    sim.run(0.5)
    recording = recorder.of(c.TYPE_DATA)
    for datagram in (*recording, *reversed(recording)):
        sim.inject(datagram, sim.random.random())
    for _ in range(100):
        sim.inject(recording[sim.random.randrange(len(recording))], sim.random.random())
    sim.run(2.0)
    assert sorted(data for _, data in b.messages) == sorted(texts), f"seed {seed}"
    assert a.messages == []
    assert a.closed == b.closed == []


def test_Y3_a_recorded_init_within_the_cache_time() -> None:
    sim, a, b, recorder = talking(1)
    (init,) = recorder.of(c.TYPE_INIT)
    (resp,) = recorder.of(c.TYPE_RESP)
    before = len(b.sent)
    for n in range(100):
        sim.inject(init, n * 0.25)
    sim.run(26.0)
    answers = [d.data for d in b.sent[before:] if d.data[0] != c.TYPE_DATA]
    assert answers == [resp.data] * c.ANSWER_REPEATS
    assert len(b.accepted) == len(a.connected) == 1, "no second session"
    assert b.endpoint.sizes()["half-open"] == 0


@pytest.mark.parametrize("restarted", [False, True], ids=["after the cache time", "after a restart"])
def test_Y4_a_recorded_init_later(restarted: bool) -> None:
    """A COOKIE, or one answer; the recording of what followed is of no use: never a session."""
    sim, a, b, recorder = talking(2)
    say(sim, b, 3)
    sim.run(1.0)
    recording = list(recorder.heard)
    if restarted:
        sim.cut = lambda datagram: datagram.source == a.source  # it would notice, and call again (row H17)
        sim.restart(b)
        sim.run(1.0)
    else:
        sim.run(c.ANSWER_CACHE_LIFE + 60.0)
    b.accepted.clear()
    before = len(b.sent)
    for datagram in recording:
        if datagram.destination == b.group:
            sim.inject(datagram, 0.001)
    sim.run(0.1)
    kinds = [d.data[0] for d in b.sent[before:] if d.data[0] in (c.TYPE_RESP, c.TYPE_COOKIE)]
    assert kinds == [c.TYPE_RESP if restarted else c.TYPE_COOKIE]
    sim.run(60.0)
    assert b.accepted == []
    assert b.endpoint.sizes()["half-open"] == 0


def test_Y7_the_packets_of_a_closed_session() -> None:
    sim, a, b, recorder = talking(3)
    say(sim, a, 5)
    sim.run(0.5)
    b.endpoint.close(b.endpoint.connections()[0], 0, "", sim.now)
    sim.flush(b)
    sim.run(c.CLOSING_LIFE + 1.0)
    sent, heard = len(b.sent), len(b.messages)
    for datagram in recorder.of(c.TYPE_DATA):
        sim.inject(datagram, 0.01)
    sim.run(5.0)
    assert (len(b.sent), len(b.messages)) == (sent, heard)
    assert a.closed
    assert b.closed


@pytest.mark.parametrize("seed", range(5))
def test_Y8_everything_reflected_to_its_sender(seed: int) -> None:
    sim = Simulation(seed, Conditions(jitter=0.02))
    a, b = sim.add_node("a"), sim.add_node("b")

    def reflect(datagram: Datagram) -> bool:
        sender = next(node for node in sim.nodes if node.source == datagram.source)
        sim.inject(Datagram(datagram.destination, sender.group, datagram.data), sim.random.random() * 0.01)
        return True

    sim.adversary = reflect
    sim.connect(a, b)
    assert sim.run_until(lambda: a.connected and b.accepted, 20.0), f"seed {seed}"
    texts = say(sim, a, 10)
    sim.run(1.0)
    assert sorted(data for _, data in b.messages) == texts, f"seed {seed}"
    assert a.messages == []
    assert a.accepted == b.connected == []
    assert a.closed == b.closed == []
