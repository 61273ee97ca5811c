"""What must hold in every simulation, whatever the network and an attacker do.

`Oracles` is told what each application does and what each endpoint says. It raises `Violation` as soon as one
contradicts the other. `scenario` does the telling; docs/architecture.md lists what is checked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mp2p_core.proto import constants as c

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.session import Session
    from mp2p_core.proto.streams import Streams
    from mp2p_core.testing.simulation import Datagram, SimNode, Simulation
    from mp2p_core.transport import Address, Train

__all__ = ["End", "Flow", "Oracles", "Violation"]

_TABLES: Final[Mapping[str, int]] = {
    "answer-buckets": c.BUCKET_TABLE_SIZE,
    "answers": c.ANSWER_CACHE_SIZE,
    "attempts": 64,
    "confirmed": c.PEER_TABLE_SIZE,
    "connections": c.MAX_SESSIONS_PER_PEER * 4,
    "cookie-buckets": c.BUCKET_TABLE_SIZE,
    "dials": 32,
    "half-open": c.HALF_OPEN_SIZE,
    "hint-buckets": c.BUCKET_TABLE_SIZE,
    "path-buckets": c.BUCKET_TABLE_SIZE,
    "parts": 64 * c.MAX_SESSIONS_PER_PEER * 4,
    "sessions": c.HALF_OPEN_SIZE + c.MAX_SESSIONS_PER_PEER * 4 * 3,
    "source-buckets": c.BUCKET_TABLE_SIZE,
    "stale-buckets": c.BUCKET_TABLE_SIZE,
    "timers": 4 * c.HALF_OPEN_SIZE,
}
"""The most that each table of an endpoint may hold here; a table without a line is a violation, too."""

_STREAM_TABLES: Final[Mapping[str, int]] = {
    "streams": 2 * c.MAX_OPEN_STREAMS,
    "send bytes": c.UNSENT_CONNECTION + c.CONNECTION_WINDOW_CAP,
    "send chunks": 1 << 14,
    "send spans": 2 * c.MAX_SENT_RECORDS,
    "receive bytes": c.CONNECTION_WINDOW_CAP,
    "receive pieces": c.MAX_PIECES,
    "out of order": c.MAX_PIECES,
    "events": 0,
    "gone": c.FORGOTTEN_STREAMS,
    "cancelled": c.RESET_LIMIT,
    "control": 6 * c.MAX_OPEN_STREAMS + 2,
    "queued": 4 * c.MAX_OPEN_STREAMS,
}


_REFUSALS: Final = ("answer-", "cookie-", "data-", "init-", "part-", "resp-", "type-")
_EFFECTS: Final = ("data-received", "init-answered")
"""Counters are raised for what became of a datagram: with one of these beginnings it was dropped, but for two."""

_BLAMED: Final = ("-forged", "-malformed", "-identity", "-bad-key")
"""How counters end that say that a datagram is not what an honest node sends."""


_MAX_PATHS: Final = c.MAX_NAMED_ADDRESSES + 4


class Violation(AssertionError):
    """Something happened that must never happen."""


def _identity(datagram: bytes) -> bytes:
    """Return what tells a datagram from others: mac2 of an INIT may be missing, and is looked at under load only."""
    is_init = len(datagram) == c.INIT_SIZE and datagram[0] == c.TYPE_INIT
    return datagram[:240] + b"any mac2" if is_init else datagram


@dataclass(eq=False)
class Flow:
    """One direction of a stream: what its writer wrote, and how much of it its reader has seen."""

    name: str
    written: bytearray = field(default_factory=bytearray)
    finished: bool = False
    reset: int | None = None
    """The code that the writer gave up with."""
    read: int = 0
    ended: bool = False
    was_reset: bool = False
    stopped: bool = False
    """Whether the reader gave up."""

    def saw(self, piece: bytes | memoryview) -> None:
        """Compare what a reader got with what was written: these bytes, next in order."""
        if self.ended or self.was_reset:
            raise Violation(f"{self.name}: data after the end")
        end = self.read + len(piece)
        if bytes(piece) != self.written[self.read : end]:
            raise Violation(f"{self.name}: wrong bytes at {self.read} to {end} of {len(self.written)}")
        self.read = end

    def saw_end(self) -> None:
        """Take a reader's end of stream, which may come after all bytes only (row C7)."""
        if not self.finished or self.read != len(self.written):
            raise Violation(f"{self.name}: a short success, {self.read} of {len(self.written)} bytes")
        self.ended = True

    def saw_reset(self, code: int) -> None:
        """Take a reader's reset."""
        if code != self.reset:
            raise Violation(f"{self.name}: reset with {code}, the writer said {self.reset}")
        self.was_reset = True

    @property
    def open(self) -> bool:
        """Whether the reader still waits for something."""
        return not (self.ended or self.was_reset or self.stopped)


@dataclass(eq=False)
class End:
    """One side's view of a connection's session, as long as its node runs and has not been told of the end."""

    node: SimNode
    connection: Connection
    session: Session
    flows: dict[int, Flow] = field(default_factory=dict)
    """Those that it writes, by stream."""
    told: str = ""
    """Why it ended; empty while it lives."""
    spare: bool = False
    """Whether it was closed as the spare one of two; what came in on it can still be read."""

    @property
    def streams(self) -> Streams:
        """Its streams."""
        return self.session.packer.streams


class Oracles:
    """Watches a simulation."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.ends: dict[tuple[bytes, bytes], End] = {}
        """By a session's token and the key of the node."""
        self.messages_sent: dict[bytes, tuple[bytes, bytes]] = {}
        """Sender and receiver of each unreliable message: no two are alike."""
        self.messages_seen: set[bytes] = set()
        self.dials: dict[tuple[bytes, int], float] = {}
        """When each dial has to be over, by the node's key and the dial's number."""
        self.victims: dict[tuple[bytes, Address], int] = {}
        """Bytes that came in, less those that went out, for an address that an attacker spoofs."""
        self.pings: set[tuple[int, int]] = set()
        self.genuine: defaultdict[bytes, set[bytes]] = defaultdict(set)
        """What honest nodes have sent, by the key of the node it was sent to."""
        self.meddled = False
        """Whether anything else was ever on the network: parts of packets are worth no more than the worst of them."""

    # --- connections ----------------------------------------------------------------------------------

    def opened(self, node: SimNode, connection: Connection) -> list[End]:
        """Take note of a connection that an endpoint announced; returns its ends that are new."""
        new = []
        for session in connection.sessions:
            key = (session.token, node.key.raw)
            if key in self.ends:
                continue
            if session.token not in {token for token, _ in self.ends} and not session.initiator:
                raise Violation(f"{node.name} accepted a connection that nobody began")
            self.ends[key] = end = End(node, connection, session)
            other = self.other(end)
            if other is not None and (other.connection.peer != node.key or connection.peer != other.node.key):
                raise Violation(f"{node.name} takes {other.node.name} for another")
            new.append(end)
        return new

    def closed(self, node: SimNode, connection: Connection, code: int, reason: str) -> None:
        """Take note that an application was told of a connection's end: by an application, silence, or lost memory."""
        if code not in (c.CLOSE_DONE, c.CLOSE_IDLE, c.CLOSE_INTERNAL, c.CLOSE_RESTARTED):
            raise Violation(f"{node.name}: a connection ended with code {code}: {reason}")
        for end in self.of(node):
            if end.connection is not connection:
                continue
            end.told = reason or "closed"
            other = self.other(end)
            if code == c.CLOSE_RESTARTED and other is not None and not other.told and not end.spare:
                raise Violation(
                    f"{node.name} takes {other.node.name} for restarted, which remembers the connection"
                )

    def restarted(self, node: SimNode) -> None:
        """Take note that a node has lost its memory; its application has, too."""
        for end in self.of(node):
            end.told = end.told or "restart"
        for key in [key for key in self.dials if key[0] == node.key.raw]:
            del self.dials[key]

    def of(self, node: SimNode) -> Iterator[End]:
        """Yield a node's ends."""
        return (end for end in self.ends.values() if end.node is node)

    def other(self, end: End) -> End | None:
        """Find the other side of a session."""
        return self.ends.get((end.session.token, end.connection.peer.raw))

    def live(self) -> Iterator[End]:
        """Yield the ends that nobody has said a word about."""
        return (end for end in self.ends.values() if not end.told)

    def active(self) -> list[End]:
        """Return those to which new streams, messages and pings go."""
        return [end for end in self.live() if end.connection.session is end.session]

    def find(self, node: SimNode, session: Session) -> End:
        """Find the end of a session."""
        return self.ends[session.token, node.key.raw]

    # --- dials ----------------------------------------------------------------------------------------

    def dialed(self, node: SimNode, number: int, timeout: float) -> None:
        """Take note of a call to `connect`."""
        self.dials[node.key.raw, number] = self.sim.local(node) + timeout

    def dial_over(self, node: SimNode, number: int) -> None:
        """Take the one event that ends a dial."""
        if self.dials.pop((node.key.raw, number), None) is None:
            raise Violation(f"{node.name} reports dial {number}, which is over or never was")

    # --- messages and pings ---------------------------------------------------------------------------

    def message(self, node: SimNode, peer: PublicKey, data: bytes) -> None:
        """Take a message that an endpoint delivered."""
        if self.messages_sent.get(data) != (peer.raw, node.key.raw):
            raise Violation(
                f"{node.name} got a message that was not sent to it by this peer: {data[:16].hex()}"
            )
        if data in self.messages_seen:
            raise Violation(f"{node.name} got a message twice: {data[:16].hex()}")
        self.messages_seen.add(data)

    def ping(self, connection: Connection, number: int, rtt: float) -> None:
        """Take an answer to a ping."""
        if rtt < 0 or (id(connection), number) in self.pings:
            raise Violation(f"ping {number} answered twice, or before it was asked ({rtt:g} s)")
        self.pings.add((id(connection), number))

    # --- the wire -------------------------------------------------------------------------------------

    def spoofed(self, address: Address, to: Address, size: int) -> None:
        """Take note of an attacker's datagram that bears the address of somebody else."""
        for node in self.sim.nodes:
            if any(to in channel for channel in node.channels.values()):
                key = (node.key.raw, address)
                self.victims[key] = self.victims.get(key, 0) + size

    def sent(self, node: SimNode, datagram: Datagram) -> None:
        """Look at what a node sends: no more to a spoofed address than came from it."""
        for other in self.sim.nodes:
            if any(datagram.destination in way for way in other.channels.values()):
                self.genuine[other.key.raw].add(_identity(datagram.data))
        key = (node.key.raw, datagram.destination)
        if key in self.victims:
            self.victims[key] -= len(datagram.data)
            if self.victims[key] < 0:
                raise Violation(
                    f"{node.name} sends more to an address that never proved itself than came from it"
                )

    def received(self, node: SimNode, train: Train, receive: Callable[[], None]) -> None:
        """Watch a node receive a train: what an honest node sent to it is believed, and nothing else has any effect."""
        known = self.genuine[node.key.raw]
        genuine = [_identity(datagram) in known for datagram in train.datagrams()]
        before = Counter(node.endpoint.counters)
        receive()
        raised = Counter(node.endpoint.counters) - before
        if not any(genuine):
            for name in raised:
                if name in _EFFECTS or not name.startswith(_REFUSALS):
                    raise Violation(f"{node.name} believed what nobody sent to it: {name}")
        elif all(genuine) and not (
            self.meddled and any(datagram[0] == c.TYPE_PART for datagram in train.datagrams())
        ):
            for name in raised:
                if name.endswith(_BLAMED):
                    raise Violation(f"{node.name} did not believe what was sent to it: {name}")

    # --- at any time ----------------------------------------------------------------------------------

    def check(self) -> None:
        """Check what has to hold at any time."""
        sim = self.sim
        if sim.nonces.repeats:
            raise Violation("one key and nonce sealed two different packets")
        for node in sim.nodes:
            for name, size in node.endpoint.sizes().items():
                if size > _TABLES[name]:
                    raise Violation(f"{node.name}: table {name} holds {size}")
        for (key, number), deadline in self.dials.items():
            node = next(each for each in sim.nodes if each.key.raw == key)
            if sim.local(node) > deadline + 0.1:
                raise Violation(f"{node.name}: dial {number} never ended")
        groups = {node.key.raw: [way.group for way in node.channels.values()] for node in sim.nodes}
        for node in sim.nodes:
            for connection in node.endpoint.connections():
                self.opened(node, connection)
        for end in list(self.live()):
            if end.session in end.connection.sessions:
                self._check_end(end, groups)
            else:
                end.spare = True  # both called at once, and the other session serves both

    def _check_end(self, end: End, groups: Mapping[bytes, list[Address]]) -> None:
        session = end.session
        if session.live and session.roaming.path.remote not in groups[session.peer.raw]:
            raise Violation(f"{end.node.name} sends to where its peer is not")
        for name, size in end.streams.sizes().items():
            if size > _STREAM_TABLES[name]:
                raise Violation(f"{end.node.name}: streams hold {size} {name}")
        for what, held, limit in (
            ("keys", len(session.epochs.ids), 1 + c.OFFERED_EPOCHS + c.OLD_EPOCHS),
            ("paths", len(list(session.roaming.paths)), _MAX_PATHS),
        ):
            if held > limit:
                raise Violation(f"{end.node.name}: a session holds {held} {what}")
        other = self.other(end)
        if other is None or other.told:
            return
        ours, theirs = session.epoch, other.session.epoch
        if ours.remote_id == theirs.local_id and ours.handshake_hash != theirs.handshake_hash:
            raise Violation("two sides use an epoch of whose handshake they have different views")

    # --- once the network has healed ------------------------------------------------------------------

    def unsettled(self) -> str:
        """Say what is still missing, for the network has healed; nothing when all is well."""
        for end in self.live():
            other = self.other(end)
            if other is None or other.told:
                # A peer that has started anew may call at once, and its call serve for one that it answered before:
                # the session of that one ends as a spare one does, and nobody has to be told.
                if not end.spare or any(flow.open for flow in end.flows.values()):
                    return (
                        f"{end.node.name} was never told that its connection is gone ({other and other.told})"
                    )
                continue
            if len(end.connection.sessions) > 1:
                return f"{end.node.name} keeps the spare one of two sessions"
            if {each.token for each in end.connection.sessions} != {
                each.token for each in other.connection.sessions
            }:
                return f"{end.node.name} and {other.node.name} take other sessions for one connection"
            for number, flow in end.flows.items():
                if flow.open:
                    return f"{flow.name} (stream {number}): {flow.read} of {len(flow.written)} bytes, no end"
            sizes = end.streams.sizes()
            if sizes["send bytes"] or sizes["out of order"] or sizes["receive bytes"]:
                return f"{end.node.name} still holds {sizes}"
            # Each side's stream for messages stays; none other has a reason to.
            if sizes["streams"] > 2:
                return f"{end.node.name} remembers {sizes['streams']} streams that have all ended"
            if not end.spare and end.session.epoch.handshake_hash != other.session.epoch.handshake_hash:
                return f"{end.node.name} and {other.node.name} seal under different handshakes"
        if self.dials:
            return "a dial is under way"
        return ""

    def leftovers(self) -> str:
        """Say what endpoints remember of connections, all of which were closed a while ago."""
        for node in self.sim.nodes:
            sizes = node.endpoint.sizes()
            for name in ("attempts", "connections", "dials", "half-open", "sessions"):
                if sizes[name]:
                    return f"{node.name} keeps {sizes[name]} {name}"
        return ""
