"""What applications do in a `scenario`: streams, messages, pings and new keys, drawn at random, told to the oracles."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import StreamClosed, StreamReset
from mp2p_core.proto import constants as c
from mp2p_core.proto.events import (
    Accepted,
    Connected,
    ConnectFailed,
    ConnectionClosed,
    ConnectionReplaced,
    MessageReceived,
    PingAnswered,
    StreamsChanged,
)
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.testing.oracles import End, Flow, Oracles, Violation

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from mp2p_core.proto.connection import Connection
    from mp2p_core.testing.simulation import SimNode, Simulation

__all__ = ["Traffic"]

_MUCH: Final = 4 * c.BASE_DATAGRAM_SIZE
"""Bytes not acknowledged, above which a session counts as loaded."""


class Traffic:
    """The applications of all nodes of a simulation."""

    def __init__(self, sim: Simulation, oracles: Oracles, draw: random.Random) -> None:
        self.sim = sim
        self.oracles = oracles
        self.draw = draw
        self.stats: Counter[str] = Counter()
        self.ending = False
        """Whether what is begun is to be ended soon, and everything read at once."""
        self.eager = draw.choice((0.3, 0.9))
        """How likely a side opens a stream as soon as there is a connection: the peer may be calling, too."""
        self._flows: dict[tuple[bytes, int, bytes], Flow] = {}
        self._waiting: dict[Flow, bytes] = {}  # what a writer has not got rid of
        self._slow: dict[tuple[End, int], None] = {}  # what a lazy reader has left
        self._callers: defaultdict[frozenset[bytes], set[bytes]] = defaultdict(set)

    def finish(self) -> None:
        """Have every writer end what it has begun, and every reader read."""
        self.ending = True
        for end in list(self.oracles.live()):
            for number, flow in list(end.flows.items()):
                if not flow.finished and flow.reset is None:
                    self._write(end, number, flow, b"", finish=True)
            self.sim.flush(end.node)
        self.read_slow()

    def dial(self, caller: SimNode, called: SimNode) -> None:
        """Have one node call another."""
        self._callers[frozenset((caller.key.raw, called.key.raw))].add(caller.key.raw)
        # Not `sim.connect`: that announces what happens before the number of the dial is known.
        ways = [(number, way.group) for number, way in called.channels.items() if number in caller.channels]
        number = caller.endpoint.connect(
            called.key,
            ways if self.draw.random() < 0.7 else ways[:1],
            timestamp=self.sim.timestamp(caller),
            timeout=c.HANDSHAKE_BUDGET,
            now=self.sim.local(caller),
        )
        self.oracles.dialed(caller, number, c.HANDSHAKE_BUDGET)
        self.sim.flush(caller)

    def _some_end(self) -> End | None:
        ends = self.oracles.active()
        return self.draw.choice(ends) if ends else None

    def some_stream(self) -> None:
        """Open a stream somewhere, and write to it."""
        if (end := self._some_end()) is not None:
            self.open_stream(end)

    def open_stream(self, end: End, size: int | None = None) -> None:
        """Open a stream at one end, and write to it: that many bytes, or a random number."""
        number = end.streams.open()
        if number is not None:
            self._begin_flow(end, number, size)
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

    def _begin_flow(self, end: End, number: int, size: int | None = None) -> None:
        draw = self.draw
        flow = end.flows[number] = self._flow(end, number, writer=True)
        if size is None:
            size = int(draw.choice((0, 10, 1000, 5000, 30_000, 150_000)) * draw.random())
        self._write(end, number, flow, draw.randbytes(size), finish=self.ending or draw.random() < 0.7)
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

    def some_reset(self) -> None:
        """Have a writer give up."""
        if (end := self._some_end()) is not None and (number := self._pick(end)) is not None:
            flow = end.flows[number]
            if flow.reset is None:
                flow.reset = self.draw.randrange(1 << 16)
                self._waiting.pop(flow, None)
                end.streams.reset(number, flow.reset)
                self._sent(end)

    def _pick(self, end: End) -> int | None:
        return self.draw.choice(list(end.flows)) if end.flows else None

    def some_stop(self) -> None:
        """Have a reader give up."""
        if (end := self._some_end()) is not None and (number := self._pick(end)) is not None:
            flow = self._flow(end, number, writer=False)
            if flow.open:
                flow.stopped = True
                end.streams.stop(number, self.draw.randrange(1 << 16))
                self._sent(end)

    def some_message(self) -> None:
        """Send an unreliable message."""
        if (end := self._some_end()) is not None:
            data = self.draw.randbytes(self.draw.choice((16, 40, 1000)))
            self.oracles.messages_sent[data] = end.node.key.raw, end.connection.peer.raw
            end.connection.send_message(data)
            self.stats["messages"] += 1
            self._sent(end)

    def some_ping(self) -> None:
        """Send a ping."""
        if (end := self._some_end()) is not None:
            end.connection.ping()
            self._sent(end)

    def some_rekey(self) -> None:
        """Have one side of some connection ask for new keys, or both."""
        if (end := self._some_end()) is not None:
            self.rekey(end)

    def rekey(self, end: End) -> None:
        """Have one side ask for new keys, or both."""
        both = [end, self.oracles.other(end)] if self.draw.random() < 0.3 else [end]
        asking = [each for each in both if each is not None and not each.told]
        for each in asking:
            each.session.epochs.rekey_at = self.sim.local(each.node)
            self._sent(each)
        self.stats["rekeys begun"] += bool(asking)
        self.stats["rekeys begun under load"] += self.transferring(asking)

    def transferring(self, ends: Iterable[End]) -> bool:
        """Tell whether there is much under way on any of these."""
        return any(end.streams.sizes()["send bytes"] > _MUCH for end in ends)

    # --- what endpoints say ---------------------------------------------------------------------------

    def event(self, node: SimNode, event: object) -> None:
        """Take what an endpoint says, as its application."""
        oracles = self.oracles
        if isinstance(event, (StreamsChanged, MessageReceived, PingAnswered)):
            oracles.opened(node, event.connection)  # a session may have been merged into it
        if isinstance(event, StreamsChanged):
            end = oracles.find(node, event.session)
            for each in event.events:
                self._stream_event(end, *each)
        elif isinstance(event, MessageReceived):
            oracles.message(node, event.connection.peer, event.data)
        elif isinstance(event, PingAnswered):
            oracles.ping(event.connection, event.ping, event.rtt)
        elif isinstance(event, Connected):
            oracles.dial_over(node, event.dial)
            oracles.opened(node, event.connection)
            self._begin(node, event.connection)
        elif isinstance(event, ConnectFailed):
            oracles.dial_over(node, event.dial)
        elif isinstance(event, Accepted):
            oracles.opened(node, event.connection)
            self._begin(node, event.connection)
        elif isinstance(event, ConnectionReplaced):
            oracles.opened(node, event.new)
        elif isinstance(event, ConnectionClosed):
            oracles.closed(node, event.connection, event.code, event.reason)
            self.stats[f"closed with {event.code}"] += 1

    def _begin(self, node: SimNode, connection: Connection) -> None:
        if not self.ending and self.draw.random() < self.eager:
            self.open_stream(self.oracles.find(node, connection.session))

    def _stream_event(self, end: End, kind: StreamEventKind, number: int, whole: bytes) -> None:
        if whole:
            flow = self._flow(end, number, writer=False)
            flow.saw(whole)
            flow.saw_end()
            self.stats["streams read at once"] += 1
        if kind is StreamEventKind.OPENED:
            self._flow(end, number, writer=False)
            if number >> 1 and number not in end.flows:  # the first stream of each side is for messages
                self._begin_flow(end, number)
        if kind in (StreamEventKind.OPENED, StreamEventKind.READABLE) and not whole:
            if self.ending or self.draw.random() < 0.7:
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

    def read_slow(self) -> None:
        """Read what lazy readers have left."""
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
