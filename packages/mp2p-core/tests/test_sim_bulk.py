"""Much data over simulated paths: a bottleneck filled and shared, losses, forged parts, a reader that stalls."""

from __future__ import annotations

import hashlib
import math
import random

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.events import StreamsChanged
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.proto.streams import Streams
from mp2p_core.proto.tolerance import LossTolerance
from mp2p_core.testing.simulation import Conditions, Datagram, SimNode, Simulation

RATE = 20e6 / 8
"""20 Mbit/s, in bytes a second. A run costs by the datagram, so what needs many round trips has a slower path with
shorter queues."""
ENDLESS = 1 << 40


def streams_of(connection: Connection) -> Streams:
    return connection.session.packer.streams


class Link:
    """A connection from one node to another, and applications at both ends that do what `Transfer`s want."""

    def __init__(self, sim: Simulation, sender: SimNode, receiver: SimNode) -> None:
        self.sim, self.sender, self.receiver = sim, sender, receiver
        before = len(receiver.accepted)
        sim.connect(sender, receiver)
        assert sim.run_until(lambda: sender.connected and len(receiver.accepted) > before, 20), sim.seed
        self.out, self.into = sender.connected[-1], receiver.accepted[-1]
        self.transfers: dict[int, Transfer] = {}
        for node in (sender, receiver):
            node.on_event = self._chain(node.on_event)

    def _chain(self, before: object) -> object:
        def on_event(event: object) -> None:
            if callable(before):
                before(event)
            self._event(event)

        return on_event

    def _event(self, event: object) -> None:
        for kind, number, _ in event.events if isinstance(event, StreamsChanged) else ():
            transfer = self.transfers.get(number)
            if transfer is None:
                continue
            if event.connection is self.out and kind is StreamEventKind.WRITABLE:
                transfer.write()
            elif event.connection is self.into and kind in (StreamEventKind.OPENED, StreamEventKind.READABLE):
                transfer.take()

    def flush(self, node: SimNode, connection: Connection) -> None:
        node.endpoint.flush(connection)
        self.sim.flush(node)


class Transfer:
    """A stream that is written as fast as it takes, and read at once, unless the reader stalls."""

    def __init__(self, link: Link, size: int, *, stalled: bool = False, at_least: int = 1) -> None:
        self._link, self._size, self._stalled, self._at_least = link, size, stalled, at_least
        self.reads = 0
        self._random = random.Random(link.sim.seed)
        self._written, self._read = hashlib.sha256(), hashlib.sha256()
        self.sent = self.got = 0
        self.ended = False
        number = streams_of(link.out).open()
        assert number is not None
        self._number = number
        link.transfers[number] = self
        self.write()

    def write(self) -> None:
        """Write until there is no room."""
        streams = streams_of(self._link.out)
        while self.sent < self._size:
            data = self._random.randbytes(min(50_000, self._size - self.sent))
            taken = streams.write(self._number, data)
            self._written.update(data[:taken])
            self.sent += taken
            if taken < len(data):
                break
        if self.sent == self._size:
            streams.finish(self._number)
        self._link.flush(self._link.sender, self._link.out)

    def take(self) -> None:
        """Read what there is."""
        if self._stalled:
            return
        streams = streams_of(self._link.into)
        while (piece := streams.read(self._number, 1 << 20, self._at_least)) is not None:
            self.reads += 1
            self._read.update(piece)
            self.got += len(piece)
            if not piece:
                assert self.got == self._size
                assert self._read.digest() == self._written.digest()
                self.ended = True
                break
        self._link.flush(self._link.receiver, self._link.into)


def link(seed: int, **conditions: float) -> Link:
    sim = Simulation(seed, Conditions(**conditions))  # type: ignore[arg-type]  # queue is a whole number
    return Link(sim, sim.add_node("a"), sim.add_node("b"))


def shares(sim: Simulation, rate: float, seconds: float, *transfers: Transfer) -> list[float]:
    """Let time pass; returns which share of the bottleneck's bytes each transfer brought to its reader."""
    before = [each.got for each in transfers]
    sim.run(seconds)
    return [(each.got - b) / (rate * seconds) for each, b in zip(transfers, before, strict=True)]


# --- a bottleneck ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "delay", "queue"), [(RATE / 4, 0.001, 20_000), (RATE / 2, 0.005, 64_000), (RATE, 0.03, 200_000)]
)
def test_a_transfer_fills_the_bottleneck(rate: float, delay: float, queue: int) -> None:
    path = link(1, rate=rate, delay=delay, queue=queue)
    transfer = Transfer(path, ENDLESS)
    path.sim.run(1.5)
    (share,) = shares(path.sim, rate, 3, transfer)
    assert 0.9 < share < 1


@pytest.mark.parametrize("seed", range(2))
def test_two_connections_share_the_bottleneck_evenly(seed: int) -> None:
    """Over sixty seeds the shares vary by 0.03; with packets that are saved up for while the queue stands, by 0.09."""
    rate = RATE / 4
    first = link(seed, rate=rate, delay=0.006, jitter=0.001, queue=25_000)
    second = Link(first.sim, first.sim.add_node("c"), first.receiver)
    one = Transfer(first, ENDLESS)
    first.sim.run(1)
    other = Transfer(second, ENDLESS)
    first.sim.run(2)
    found = shares(first.sim, rate, 5, one, other)
    assert 0.4 < found[0] < 0.6
    assert 0.4 < found[1] < 0.6
    assert sum(found) > 0.9


class Reference:
    """NewReno in as few words as RFC 9002, appendix B, needs, with nothing of this implementation in it."""

    def __init__(self, datagram: int) -> None:
        self.datagram = datagram
        self.window = 10.0 * datagram
        self.threshold = math.inf
        self.halved_at = -math.inf

    @property
    def slow_start(self) -> bool:
        return self.window < self.threshold

    def resize(self, datagram: int) -> None:
        self.datagram = datagram

    def acknowledged(self, size: int, sent_at: float) -> None:
        if sent_at > self.halved_at:
            self.window += size if self.slow_start else self.datagram * size / self.window

    def lost(self, sent_at: float, now: float, *, crowded: bool) -> None:
        if sent_at > self.halved_at:
            self.halved_at = now
            self.window = self.threshold = max(self.window / 2, 2 * self.datagram)

    def persistent(self) -> None:
        self.window = 2 * self.datagram


class Intolerant(LossTolerance):
    """Takes each loss for congestion."""

    def forgives(self, datagrams: int, *, queued: bool) -> bool:
        return False


def be_plain(path: Link) -> None:
    """Have the sender be a plain NewReno."""
    capacity = path.out.session.packer._capacity
    capacity.congestion = Reference(capacity.datagram)  # type: ignore[assignment]  # the same methods
    capacity.tolerance = Intolerant()


@pytest.mark.parametrize(
    ("rate", "delay", "queue", "least"),
    [(RATE / 4, 0.006, 25_000, 0.4), (4 * RATE, 0.0005, 64_000, 0.25)],
)
def test_it_leaves_a_plain_newreno_its_share(rate: float, delay: float, queue: int, least: float) -> None:
    """A queue of more than some milliseconds is seen, and losses at it are no chance.

    With windows that shrink to 0.7 instead of a half, the other one has 0.30 and 0.11.
    """
    first = link(0, rate=rate, delay=delay, queue=queue, jitter=0.0005)
    second = Link(first.sim, first.sim.add_node("c"), first.receiver)
    be_plain(second)
    one, other = Transfer(first, ENDLESS), Transfer(second, ENDLESS)
    first.sim.run(4 * RATE / rate * 0.5)
    found = shares(first.sim, rate, 4 * RATE / rate, one, other)
    assert found[1] > least
    assert sum(found) > 0.85


def test_three_of_these_leave_a_plain_newreno_a_share_of_a_short_queue() -> None:
    """It holds seven datagrams, and each of the three may have ten out where losses are chance: here they are not."""
    rate = 4 * RATE
    first = link(1, rate=rate, delay=0.0005, queue=10_000, jitter=0.0005)
    paths = [first, *(Link(first.sim, first.sim.add_node(name), first.receiver) for name in "cde")]
    be_plain(paths[-1])
    transfers = [Transfer(path, ENDLESS) for path in paths]
    first.sim.run(0.3)
    *_, plain = shares(first.sim, rate, 0.6, *transfers)
    assert plain > 0.1


def goodput(loss: float, *, plain: bool) -> float:
    path = link(2, loss=loss, delay=0.002, rate=RATE * 12, queue=1_000_000)
    if plain:
        be_plain(path)
    transfer = Transfer(path, ENDLESS)
    path.sim.run(0.3)
    (share,) = shares(path.sim, RATE * 12, 0.4, transfer)
    return share


@pytest.mark.parametrize(("loss", "times"), [(0.01, 5), (0.2, 4)])
def test_losses_by_chance_cost_less_than_those_of_congestion(loss: float, times: float) -> None:
    assert goodput(loss, plain=False) > times * goodput(loss, plain=True)


# --- a reader that stalls ----------------------------------------------------------------------------


def test_a_stream_that_nobody_reads_holds_up_no_other_and_costs_a_bounded_amount() -> None:
    path = link(3, rate=RATE, delay=0.003, loss=0.01)
    stalled = Transfer(path, ENDLESS, stalled=True)
    others = [Transfer(path, 400_000) for _ in range(4)]
    assert path.sim.run_until(lambda: all(each.ended for each in others), 30)
    assert stalled.got == 0
    received, sent = streams_of(path.into).sizes(), streams_of(path.out).sizes()
    assert received["receive bytes"] == c.STREAM_WINDOW
    assert c.UNSENT_STREAM / 2 < sent["send bytes"] <= c.UNSENT_STREAM
    assert stalled.sent <= c.STREAM_WINDOW + c.UNSENT_STREAM


def test_three_streams_that_nobody_reads_hold_up_no_other() -> None:
    """They fill three quarters of the connection's credit to begin with."""
    path = link(3, rate=RATE * 4, delay=0.003)
    stalled = [Transfer(path, ENDLESS, stalled=True) for _ in range(3)]
    path.sim.run(1)
    other = Transfer(path, 3_000_000)
    assert path.sim.run_until(lambda: other.ended, 30)
    assert sum(each.got for each in stalled) == 0


def test_readers_of_everything_that_stall_cost_the_windows_and_no_more() -> None:
    """What is taken ahead of sending and what is received and not read: both end at the connection's bounds."""
    path = link(4, rate=RATE * 10, delay=0.003)
    stalled = [Transfer(path, ENDLESS, stalled=True) for _ in range(40)]
    path.sim.run(5)
    received, sent = streams_of(path.into).sizes(), streams_of(path.out).sizes()
    assert received["receive bytes"] == c.CONNECTION_WINDOW
    assert sent["send bytes"] <= c.UNSENT_CONNECTION + 40 * c.UNSENT_FLOOR
    assert sum(each.sent for each in stalled) == received["receive bytes"] + sent["send bytes"]


def test_readers_that_wait_for_much_get_it_in_few_pieces() -> None:
    path = link(5, rate=RATE * 4, delay=0.002)
    waiting, other = Transfer(path, 3_000_000, at_least=1 << 20), Transfer(path, 3_000_000)
    assert path.sim.run_until(lambda: waiting.ended and other.ended, 30)
    assert waiting.reads * 4 < other.reads


def test_readers_that_wait_for_much_do_not_wait_for_each_other() -> None:
    """What waits must leave credit: for all together, and beside streams that nobody reads."""
    path = link(6, rate=RATE * 4, delay=0.002)
    stalled = [Transfer(path, ENDLESS, stalled=True) for _ in range(2)]
    others = [Transfer(path, 300_000, at_least=1 << 20) for _ in range(40)]
    assert path.sim.run_until(lambda: all(each.ended for each in others), 30)
    assert all(each.got == 0 for each in stalled)


# --- losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.01, 0.05, 0.2, 0.4])
@pytest.mark.parametrize("seed", range(2))
def test_a_transfer_ends_whole_whatever_is_lost(seed: int, loss: float) -> None:
    path = link(seed, loss=loss, duplicate=0.02, corrupt=0.01, jitter=0.002, delay=0.002)
    transfer = Transfer(path, 500_000 if loss < 0.1 else 100_000)
    assert path.sim.run_until(lambda: transfer.ended, 300), f"seed {seed}: {transfer.got}"


# --- large packets -----------------------------------------------------------------------------------


def parts_among(path: Link, seconds: float) -> float:
    """Let time pass; returns the share of the sender's datagrams that were parts of large packets."""
    path.sender.sent.clear()
    path.sim.run(seconds)
    kinds = [each.data[0] for each in path.sender.sent]
    return kinds.count(c.TYPE_PART) / len(kinds)


def test_parts_fall_back_under_loss_and_grow_again() -> None:
    path = link(5, rate=RATE, delay=0.002)
    transfer = Transfer(path, ENDLESS)
    path.sim.run(0.5)
    assert parts_among(path, 0.3) > 0.9
    path.sim.conditions.loss = 0.2
    path.sim.run(1)
    assert parts_among(path, 3) < 0.3
    path.sim.conditions.loss = 0.0
    path.sim.run(2)
    before = transfer.got
    assert parts_among(path, 0.3) > 0.9
    assert transfer.got > before


def test_forged_parts_cost_speed_and_parts_grow_again() -> None:
    """Attack: somebody who sees everything spoils each large packet with one part of his own."""
    path = link(6, rate=RATE * 1.5, delay=0.002)
    transfer = Transfer(path, ENDLESS)

    def forge(datagram: Datagram) -> bool:
        data = datagram.data
        if data[0] == c.TYPE_PART and data[1] == 1:
            path.sim.inject(
                Datagram(datagram.source, datagram.destination, data[:-1] + bytes([data[-1] ^ 1]))
            )
        return True

    path.sim.run(0.5)
    path.sim.adversary = forge
    path.sim.run(1)
    before = transfer.got
    assert parts_among(path, 2) < 0.3
    assert transfer.got - before > 0.15 * RATE * 1.5 * 2
    assert path.receiver.endpoint.counters["data-forged"] > 5
    path.sim.adversary = None
    path.sim.run(2)
    assert parts_among(path, 0.3) > 0.9
