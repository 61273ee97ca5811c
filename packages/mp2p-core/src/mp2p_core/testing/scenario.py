"""A seed's worth of life: nodes, random traffic and every kind of trouble, watched by the oracles.

    result = run_seed(7)
    assert result.failure is None, result.failure

First trouble, then peace: the attacker stops, the network heals, and everything has to end well.
"""

from __future__ import annotations

import hashlib
import math
import random
import traceback
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from mp2p_core.errors import UsageError
from mp2p_core.proto import constants as c
from mp2p_core.testing.adversary import Adversary
from mp2p_core.testing.oracles import End, Oracles, Violation
from mp2p_core.testing.simulation import Conditions, Datagram, SimNode, Simulation
from mp2p_core.testing.traffic import Traffic
from mp2p_core.transport import Address

__all__ = ["Result", "Scenario", "run_seed"]

_YEAR = 365 * 86400.0
_SETTLE = 240.0
"""Virtual seconds after which a healed network must have brought everything: several idle timeouts."""
_MAX_STEPS = 400_000
"""More callbacks than any run takes: an endpoint that asks to be called again and again fails here."""


@dataclass
class Result:
    """What became of a seed."""

    seed: int
    failure: str | None
    digest: str
    """Of every datagram sent, and when: equal in two runs of one seed."""
    stats: Counter[str] = field(default_factory=Counter)


class Scenario:
    """One run. Everything random comes from the seed."""

    def __init__(self, seed: int) -> None:
        self.draw = draw = random.Random(f"mp2p {seed}")  # noqa: S311 - a simulation must repeat itself
        self.sim = sim = Simulation(seed, self._conditions())
        self.oracles = Oracles(sim)
        self.traffic = traffic = Traffic(sim, self.oracles, draw)
        self.stats = traffic.stats
        self.digest = hashlib.sha256()
        self.attacker = Adversary(sim, self.oracles, draw)
        self.attacked = False
        self.steps = 0
        self.peaceful = False
        self.owners: dict[Address, SimNode] = {}
        self.crossed: dict[tuple[bytes, ...], bool] = {}
        """Ends of connections that two calls have led to, and whether both sessions had streams."""
        sim.adversary = self._watch
        sim.witness = self.oracles.received
        for number in range(draw.choice((2, 2, 2, 3, 4))):
            node = sim.add_node("abcd"[number])
            node.on_event = lambda event, node=node: traffic.event(node, event)
        if draw.random() < 0.5:
            with_two = (
                sim.nodes
                if draw.random() < 0.7
                else draw.sample(sim.nodes, draw.randrange(1, len(sim.nodes)))
            )
            for node in with_two:
                sim.add_channel(node)
        for node in sim.nodes:
            self.owners.update((way.source, node) for way in node.channels.values())

    def _conditions(self) -> Conditions:
        draw = self.draw
        loss = draw.choice((0.0, 0.0, 0.05, 0.2, 0.3, 0.4)) * draw.random()
        return Conditions(
            loss=loss,
            duplicate=draw.choice((0.0, 0.1, 0.5)),
            corrupt=draw.choice((0.0, 0.0, 0.02, 0.1)),
            delay=draw.choice((0.0002, 0.005, 0.05)),
            jitter=draw.choice((0.0, 0.001, 0.02, 0.2)),
            coalesce=draw.choice((0.0, 0.5, 1.0)),
            rate=draw.choice((math.inf, math.inf, math.inf, 1e6, 2e5)),
        )

    # --- the run --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through trouble and peace. Raises `Violation`, or whatever the code under test raises."""
        duration = self._plan_trouble()
        self._run(duration)
        self._make_peace()
        caller, called = self.draw.sample(self.sim.nodes, 2)
        seen = len(caller.connected)
        self.traffic.dial(caller, called)
        end = self.sim.now + c.HANDSHAKE_BUDGET
        while len(caller.connected) == seen:
            if self.sim.now >= end or not self.sim.clock.step(end):
                raise Violation(f"{caller.name} could not connect to {called.name}: {caller.failed[-1:]}")
            self._count()
        for end_ in self.oracles.active():
            self.traffic.open_stream(end_)
        self._settle()
        for node in self.sim.nodes:
            for connection in node.endpoint.connections():
                node.endpoint.close(connection, c.CLOSE_DONE, "", self.sim.local(node))
            self.sim.flush(node)
        self._run(45.0)
        self.oracles.check()
        if left := self.oracles.leftovers():
            raise Violation(left)

    def _run(self, duration: float) -> None:
        end = self.sim.now + duration
        while self.sim.now < end:
            until = min(self.sim.now + 1.0, end)
            while self.sim.clock.step(until):
                self._count()
            self.oracles.check()
            self._note_crossed()

    def _note_crossed(self) -> None:
        for end in self.oracles.live():
            if len(sessions := end.connection.sessions) > 1:
                key = *sorted(each.token for each in sessions), end.node.key.raw
                busy = all(not each.packer.streams.table.unused for each in sessions)
                self.crossed[key] = self.crossed.get(key, False) or busy

    def _count(self) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise Violation(f"more than {_MAX_STEPS} steps: somebody is busy for nothing")

    def _settle(self) -> None:
        end = self.sim.now + _SETTLE
        while (missing := self.oracles.unsettled()) and self.sim.now < end:
            self.traffic.read_slow()
            self._run(1.0)
        if missing:
            raise Violation(f"{_SETTLE:g} s after the network healed: {missing}")

    def _watch(self, datagram: Datagram) -> bool:
        self.digest.update(repr(self.sim.now).encode() + datagram.destination + datagram.data)
        self.stats["datagrams"] += 1
        self.stats["parts"] += datagram.data[0] == c.TYPE_PART
        self.oracles.sent(self.owners[datagram.source], datagram)
        self.oracles.meddled = self.oracles.meddled or self.attacked or self.sim.conditions.corrupt > 0
        return self.attacker.sees(datagram) if self.attacked else True

    # --- trouble --------------------------------------------------------------------------------------

    def _at(self, when: float, what: object, *args: object) -> None:
        assert callable(what)

        def act() -> None:
            if not self.peaceful:
                what(*args)

        self.sim.clock.call_at(self.sim.now + when, act)

    def _plan_trouble(self) -> float:
        draw, traffic = self.draw, self.traffic
        duration = draw.choice((5.0, 15.0, 40.0))
        nodes = self.sim.nodes
        calls = [*pairwise(nodes), *([draw.sample(nodes, 2)] if draw.random() < 0.3 else [])]
        for one, other in calls:
            caller, called = (one, other) if draw.random() < 0.5 else (other, one)
            when = draw.random() * 0.5
            self._at(when, traffic.dial, caller, called)
            if draw.random() < 0.25:  # both at once
                apart = draw.choice((0.0, 0.001, 0.01, 0.1)) * draw.random()
                self._at(when + apart, traffic.dial, called, caller)
        actions = (
            (traffic.some_stream, 8), (traffic.some_message, 6), (traffic.some_ping, 2), (traffic.some_rekey, 2),
            (traffic.some_reset, 1), (traffic.some_stop, 1), (traffic.read_slow, 3),
        )  # fmt: skip
        chosen = draw.choices([a for a, _ in actions], [w for _, w in actions], k=draw.randrange(5, 40))
        for action in chosen:
            self._at(draw.random() * duration, action)
        troubles = (
            (self._partition, 2), (self._restart, 1), (self._sleep, 1), (self._clock_back, 1), (self._attack, 3),
            (self._close_one, 1), (self._weather, 1), (self._dial_some, 1), (self._one_way_dies, 1),
            (self._cross, 1), (self._rekey_in_transfer, 2), (self._restart_in_transfer, 2),
        )  # fmt: skip
        for trouble in draw.choices([t for t, _ in troubles], [w for _, w in troubles], k=draw.randrange(5)):
            self._at(draw.random() * duration, trouble)
        return duration

    def _make_peace(self) -> None:
        sim, draw = self.sim, self.draw
        self.peaceful = True
        self.attacked = False
        sim.cut = None
        back = any(node.wall_shift for node in sim.nodes)
        sim.conditions = Conditions(
            loss=draw.choice((0.0, 0.1) if back else (0.0, 0.1, 0.2, 0.3)), jitter=0.01, delay=0.005
        )
        self.traffic.finish()

    def _some_node(self) -> SimNode:
        return self.draw.choice(self.sim.nodes)

    def _dial_some(self) -> None:
        self.traffic.dial(*self.draw.sample(self.sim.nodes, 2))

    def _cross(self) -> None:
        """Have two nodes call each other while neither knows of the other's call."""
        caller, called = self.draw.sample(self.sim.nodes, 2)
        self.traffic.dial(caller, called)
        self._at(self.draw.choice((0.0, 0.001, 0.1)) * self.draw.random(), self.traffic.dial, called, caller)

    def _transfer(self) -> End | None:
        """Begin to send much from one end, and at times in the other direction, too."""
        draw = self.draw
        if not (ends := self.oracles.active()):
            return None
        end = draw.choice(ends)
        back = self.oracles.other(end) if draw.random() < 0.5 else None
        for each in (end, back):
            if each is not None and not each.told:
                self.traffic.open_stream(each, draw.randrange(50_000, 400_000))
        return end

    def _rekey_in_transfer(self) -> None:
        if (end := self._transfer()) is not None:
            for _ in range(self.draw.randrange(1, 5)):
                self._at(self.draw.choice((0.01, 0.1, 2.0)) * self.draw.random(), self.traffic.rekey, end)

    def _restart_in_transfer(self) -> None:
        if (end := self._transfer()) is not None:
            other = self.oracles.other(end)
            node = other.node if other is not None and self.draw.random() < 0.5 else end.node
            self._at(self.draw.choice((0.01, 0.1, 2.0)) * self.draw.random(), self._restart, node)

    def _partition(self) -> None:
        draw = self.draw
        cut_off = self._some_node()
        direction = draw.choice(("both", "in", "out"))
        ways = list(cut_off.channels.values())
        if draw.random() < 0.5:
            ways = [draw.choice(ways)]
        sources, groups = {way.source for way in ways}, {way.group for way in ways}

        def cut(datagram: Datagram) -> bool:
            out, into = datagram.source in sources, datagram.destination in groups
            return (out and direction != "in") or (into and direction != "out")

        self.sim.cut = cut
        self._at(draw.choice((0.3, 3.0, 20.0, 45.0)) * draw.random(), setattr, self.sim, "cut", None)
        self.stats["partitions"] += 1

    def _one_way_dies(self) -> None:
        number = self.draw.randrange(2)

        def cut(datagram: Datagram) -> bool:
            return (datagram.destination[0] == 6) is (number == 1)

        self.sim.cut = cut
        self._at(self.draw.choice((3.0, 20.0, 45.0)) * self.draw.random(), setattr, self.sim, "cut", None)
        self.stats["ways that died"] += 1

    def _restart(self, node: SimNode | None = None) -> None:
        node = node or self._some_node()
        cut_short = [
            end for end in self.oracles.live()
            if (end.node is node or end.connection.peer == node.key) and self.traffic.transferring([end])
        ]  # fmt: skip
        self.stats["restarts in a transfer"] += bool(cut_short)
        self.stats["restarts in a transfer over two ways"] += any(
            len(end.session.roaming.paths.targets()) > 1 for end in cut_short
        )
        self.oracles.restarted(node)
        self.sim.restart(node)
        self.sim.flush(node)
        self.stats["restarts"] += 1

    def _sleep(self) -> None:
        self.sim.sleep(
            self._some_node(), self.draw.choice((1.0, 8.0, 25.0, 100.0, 700.0)) * self.draw.random()
        )
        self.stats["sleeps"] += 1

    def _clock_back(self) -> None:
        self._some_node().wall_shift -= _YEAR
        self.stats["clocks back"] += 1

    def _close_one(self) -> None:
        if ends := list(self.oracles.live()):
            end = self.draw.choice(ends)
            end.node.endpoint.close(end.connection, c.CLOSE_DONE, "bye", self.sim.local(end.node))
            self.sim.flush(end.node)

    def _weather(self) -> None:
        self.sim.conditions = self._conditions()

    def _attack(self) -> None:
        draw, attacker = self.draw, self.attacker
        attacker.drop = draw.choice((0.0, 0.1, 0.5))
        attacker.swap = draw.choice((0.0, 0.1, 0.5))
        attacker.swallow = draw.choice((None, None, c.TYPE_RESP, c.TYPE_PART, c.TYPE_DATA))
        self.attacked = True
        step = draw.choice((0.005, 0.05, 0.2))
        for n in range(draw.randrange(10, 120)):
            self._at(n * step, attacker.act)
        self._at(step * 120, setattr, self, "attacked", False)
        self.stats["attacks"] += 1


def run_seed(seed: int) -> Result:
    """Run one seed and say what became of it. Never raises for the code under test."""
    scenario = Scenario(seed)
    failure = None
    try:
        scenario.run()
    except Violation as violation:
        failure = f"{violation} (at {scenario.sim.now:.3f})"
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
        UsageError,
    ):
        failure = traceback.format_exc()  # nothing that comes over the network may raise
    for node in scenario.sim.nodes:
        scenario.stats.update(node.endpoint.counters)
    scenario.stats["ends of crossed calls"] = len(scenario.crossed)
    scenario.stats["ends of crossed calls, streams on both sessions"] = sum(scenario.crossed.values())
    scenario.stats["messages seen"] = len(scenario.oracles.messages_seen)
    return Result(seed, failure, scenario.digest.hexdigest(), scenario.stats)
