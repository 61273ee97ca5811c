"""A seed's worth of life: nodes, random traffic and every kind of trouble, watched by the oracles.

    result = run_seed(7)
    assert result.failure is None, result.failure

First trouble, then peace: the attacker stops, the network heals, and everything has to end well.
"""

from __future__ import annotations

import hashlib
import random
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from mp2p_core.errors import StreamClosed, StreamReset, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.events import (
    Accepted,
    Connected,
    ConnectFailed,
    ConnectionClosed,
    ConnectionReplaced,
    MessageReceived,
    PingAnswered,
    StreamChanged,
)
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.testing.adversary import Adversary
from mp2p_core.testing.oracles import End, Flow, Oracles, Violation
from mp2p_core.testing.simulation import Conditions, Datagram, SimNode, Simulation

__all__ = ["Result", "Scenario", "run_seed"]

_YEAR = 365 * 86400.0
_SETTLE = 240.0
"""Virtual seconds after which a healed network must have brought everything: several idle timeouts."""
_MERGED = c.HANDSHAKE_BUDGET + c.HALF_OPEN_LIFE
"""Seconds after which a session is no longer the spare of two that began at once. Not tried here: streams that
were opened on one before; only messages move to the other session (docs/protocol.md, section 4)."""
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
        self.stats: Counter[str] = Counter()
        self.digest = hashlib.sha256()
        self.attacker = Adversary(sim, self.oracles, draw)
        self.attacked = False
        self.steps = 0
        self.peaceful = False
        self._flows: dict[tuple[bytes, int, bytes], Flow] = {}
        self._waiting: dict[Flow, bytes] = {}  # what a writer has not got rid of
        self._slow: dict[tuple[End, int], None] = {}  # what a lazy reader has left
        self._callers: defaultdict[frozenset[bytes], set[bytes]] = defaultdict(set)
        sim.adversary = self._watch
        for number in range(draw.choice((2, 2, 2, 3, 4))):
            node = sim.add_node("abcd"[number])
            node.on_event = lambda event, node=node: self._event(node, event)

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
        )

    # --- the run --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Live through trouble and peace. Raises `Violation`, or whatever the code under test raises."""
        duration = self._plan_trouble()
        self._run(duration)
        self._make_peace()
        caller, called = self.draw.sample(self.sim.nodes, 2)
        seen = len(caller.connected)
        self._dial(caller, called)
        end = self.sim.now + c.HANDSHAKE_BUDGET
        while len(caller.connected) == seen:
            if self.sim.now >= end or not self.sim.clock.step(end):
                raise Violation(f"{caller.name} could not connect to {called.name}: {caller.failed[-1:]}")
            self._count()
        for end_ in list(self.oracles.live()):
            self._open_stream(end_)
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

    def _count(self) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise Violation(f"more than {_MAX_STEPS} steps: somebody is busy for nothing")

    def _settle(self) -> None:
        end = self.sim.now + _SETTLE
        while (missing := self.oracles.unsettled()) and self.sim.now < end:
            self._read_slow()
            self._run(1.0)
        if missing:
            raise Violation(f"{_SETTLE:g} s after the network healed: {missing}")

    def _watch(self, datagram: Datagram) -> bool:
        self.digest.update(repr(self.sim.now).encode() + datagram.destination + datagram.data)
        self.stats["datagrams"] += 1
        self.stats["parts"] += datagram.data[0] == c.TYPE_PART
        node = next(each for each in self.sim.nodes if each.source == datagram.source)
        self.oracles.sent(node, datagram)
        return self.attacker.sees(datagram) if self.attacked else True

    # --- trouble --------------------------------------------------------------------------------------

    def _at(self, when: float, what: object, *args: object) -> None:
        assert callable(what)

        def act() -> None:
            if not self.peaceful:
                what(*args)

        self.sim.clock.call_at(self.sim.now + when, act)

    def _plan_trouble(self) -> float:
        draw = self.draw
        duration = draw.choice((5.0, 15.0, 40.0))
        nodes = self.sim.nodes
        calls = [*pairwise(nodes), *([draw.sample(nodes, 2)] if draw.random() < 0.3 else [])]
        for one, other in calls:
            caller, called = (one, other) if draw.random() < 0.5 else (other, one)
            when = draw.random() * 0.5
            self._at(when, self._dial, caller, called)
            if draw.random() < 0.25:  # both at once
                apart = draw.choice((0.0, 0.001, 0.01, 0.1)) * draw.random()
                self._at(when + apart, self._dial, called, caller)
        actions = (
            (self._some_stream, 8), (self._some_message, 6), (self._some_ping, 2), (self._some_rekey, 2),
            (self._some_reset, 1), (self._some_stop, 1), (self._read_slow, 3),
        )  # fmt: skip
        chosen = draw.choices([a for a, _ in actions], [w for _, w in actions], k=draw.randrange(5, 40))
        for action in chosen:
            self._at(draw.random() * duration, action)
        troubles = (
            (self._partition, 2), (self._restart, 1), (self._sleep, 1), (self._clock_back, 1), (self._attack, 3),
            (self._close_one, 1), (self._weather, 1), (self._dial_some, 1),
        )  # fmt: skip
        for trouble in draw.choices([t for t, _ in troubles], [w for _, w in troubles], k=draw.randrange(4)):
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
        for end in list(self.oracles.live()):
            for number, flow in list(end.flows.items()):
                if not flow.finished and flow.reset is None:
                    self._write(end, number, flow, b"", finish=True)
            sim.flush(end.node)
        self._read_slow()

    def _some_node(self) -> SimNode:
        return self.draw.choice(self.sim.nodes)

    def _dial_some(self) -> None:
        self._dial(*self.draw.sample(self.sim.nodes, 2))

    def _dial(self, caller: SimNode, called: SimNode) -> None:
        self._callers[frozenset((caller.key.raw, called.key.raw))].add(caller.key.raw)
        # Not `sim.connect`: that announces what happens before the number of the dial is known.
        number = caller.endpoint.connect(
            called.key,
            [(0, called.group)],
            timestamp=self.sim.timestamp(caller),
            timeout=c.HANDSHAKE_BUDGET,
            now=self.sim.local(caller),
        )
        self.oracles.dialed(caller, number, c.HANDSHAKE_BUDGET)
        self.sim.flush(caller)

    def _partition(self) -> None:
        draw = self.draw
        cut_off = self._some_node()
        ways = draw.choice(("both", "in", "out"))

        def cut(datagram: Datagram) -> bool:
            out = datagram.source == cut_off.source
            into = datagram.destination == cut_off.group
            return (out and ways != "in") or (into and ways != "out")

        self.sim.cut = cut
        self._at(draw.choice((0.3, 3.0, 20.0, 45.0)) * draw.random(), setattr, self.sim, "cut", None)
        self.stats["partitions"] += 1

    def _restart(self) -> None:
        node = self._some_node()
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

    # --- traffic --------------------------------------------------------------------------------------

    def _some_end(self) -> End | None:
        ends = [end for end in self.oracles.live() if end.connection.session is end.session]
        return self.draw.choice(ends) if ends else None

    def _some_stream(self) -> None:
        if (end := self._some_end()) is not None:
            self._open_stream(end)

    def _open_stream(self, end: End) -> None:
        pair = frozenset((end.node.key.raw, end.connection.peer.raw))
        if len(self._callers[pair]) > 1 and self.sim.local(end.node) < end.session.began + _MERGED:
            return
        number = end.streams.open()
        if number is not None:
            self._begin_flow(end, number)
            self._sent(end)

    def _sent(self, end: End) -> None:
        end.node.endpoint.flush(end.connection)
        self.sim.flush(end.node)

    def _flow(self, end: End, number: int, *, writer: bool) -> Flow:
        key = end.node.key.raw if writer else end.connection.peer.raw
        found = self._flows.get((end.session.token, number, key))
        if found is None:
            name = f"stream {number} {end.node.name}" + ("" if writer else "'s peer") + " writes"
            found = self._flows[end.session.token, number, key] = Flow(name)
        return found

    def _begin_flow(self, end: End, number: int) -> None:
        draw = self.draw
        flow = end.flows[number] = self._flow(end, number, writer=True)
        size = int(draw.choice((0, 10, 1000, 5000, 30_000, 150_000)) * draw.random())
        self._write(end, number, flow, draw.randbytes(size), finish=self.peaceful or draw.random() < 0.7)
        self.stats["streams"] += 1

    def _write(self, end: End, number: int, flow: Flow, data: bytes, *, finish: bool) -> None:
        """Write what there is room for; the rest waits for WRITABLE."""
        data = self._waiting.pop(flow, b"") + data
        try:
            taken = end.streams.write(number, data) if data else 0
            flow.written += data[:taken]
            if taken < len(data):
                self._waiting[flow] = data[taken:]
            elif finish:
                end.streams.finish(number)
                flow.finished = True
        except StreamClosed as stopped:
            flow.reset = stopped.code
        end.node.endpoint.flush(end.connection)

    def _some_reset(self) -> None:
        if (end := self._some_end()) is not None and (number := self._pick(end)) is not None:
            flow = end.flows[number]
            if flow.reset is None:
                flow.reset = self.draw.randrange(1 << 16)
                self._waiting.pop(flow, None)
                end.streams.reset(number, flow.reset)
                self._sent(end)

    def _pick(self, end: End) -> int | None:
        return self.draw.choice(list(end.flows)) if end.flows else None

    def _some_stop(self) -> None:
        if (end := self._some_end()) is not None and (number := self._pick(end)) is not None:
            flow = self._flow(end, number, writer=False)
            if flow.open:
                flow.stopped = True
                end.streams.stop(number, self.draw.randrange(1 << 16))
                self._sent(end)

    def _some_message(self) -> None:
        if (end := self._some_end()) is not None:
            data = self.draw.randbytes(self.draw.choice((16, 40, 1000)))
            self.oracles.messages_sent[data] = end.node.key.raw, end.connection.peer.raw
            end.connection.send_message(data)
            self.stats["messages"] += 1
            self._sent(end)

    def _some_ping(self) -> None:
        if (end := self._some_end()) is not None:
            end.connection.ping()
            self._sent(end)

    def _some_rekey(self) -> None:
        if (end := self._some_end()) is not None:
            both = [end, self.oracles.other(end)] if self.draw.random() < 0.3 else [end]
            for each in both:
                if each is not None and not each.told:
                    each.session.rekey_at = self.sim.local(each.node)
                    self._sent(each)
            self.stats["rekeys"] += 1

    # --- what endpoints say ---------------------------------------------------------------------------

    def _event(self, node: SimNode, event: object) -> None:
        oracles = self.oracles
        if isinstance(event, (StreamChanged, MessageReceived, PingAnswered)):
            oracles.opened(node, event.connection)  # a session may have been merged into it
        if isinstance(event, StreamChanged):
            self._stream_event(oracles.find(node, event.connection), event.event.kind, event.event.stream)
        elif isinstance(event, MessageReceived):
            oracles.message(node, event.connection.peer, event.data)
        elif isinstance(event, PingAnswered):
            oracles.ping(event.connection, event.ping, event.rtt)
        elif isinstance(event, Connected):
            oracles.dial_over(node, event.dial)
            oracles.opened(node, event.connection)
        elif isinstance(event, ConnectFailed):
            oracles.dial_over(node, event.dial)
        elif isinstance(event, Accepted):
            oracles.opened(node, event.connection)
        elif isinstance(event, ConnectionReplaced):
            oracles.opened(node, event.new)
        elif isinstance(event, ConnectionClosed):
            oracles.closed(node, event.connection, event.reason)
            self.stats[f"closed with {event.code}"] += 1

    def _stream_event(self, end: End, kind: StreamEventKind, number: int) -> None:
        if kind is StreamEventKind.OPENED:
            self._flow(end, number, writer=False)
            if number >> 1 and number not in end.flows:  # the first stream of each side is for messages
                self._begin_flow(end, number)
        elif kind is StreamEventKind.READABLE:
            if self.peaceful or self.draw.random() < 0.7:
                self._read(end, number)
            else:
                self._slow[end, number] = None
        elif kind is StreamEventKind.WRITABLE:
            self._write(end, number, end.flows[number], b"", finish=True)
        elif kind is StreamEventKind.STOPPED:
            flow = end.flows[number]
            self._write(end, number, flow, b"?", finish=False)
            if flow.reset is None:
                raise Violation(f"{flow.name}: told of a stop, and may still write")

    def _read_slow(self) -> None:
        waiting, self._slow = self._slow, {}
        for end, number in waiting:
            if not end.told:
                self._read(end, number)
                self._sent(end)

    def _read(self, end: End, number: int) -> None:
        flow = self._flow(end, number, writer=False)
        if not flow.open:
            return
        limit = self.draw.choice((7, 1000, 1 << 20))
        try:
            while (piece := end.streams.read(number, limit)) is not None:
                if not piece:
                    flow.saw_end()
                    self.stats["streams read to the end"] += 1
                    break
                flow.saw(piece)
                limit = max(limit, 1 << 16)
        except StreamReset as reset:
            flow.saw_reset(reset.code)
        end.node.endpoint.flush(end.connection)


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
    scenario.stats["messages seen"] = len(scenario.oracles.messages_seen)
    return Result(seed, failure, scenario.digest.hexdigest(), scenario.stats)
