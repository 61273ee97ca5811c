"""What the endpoint tells the node. Plain values; the endpoint never calls up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.session import Session
    from mp2p_core.proto.stream_table import StreamEvent

__all__ = [
    "Accepted",
    "ConnectFailed",
    "Connected",
    "ConnectionClosed",
    "ConnectionReplaced",
    "Event",
    "MessageReceived",
    "PeerSilent",
    "PingAnswered",
    "StreamsChanged",
]


class Connected(NamedTuple):
    """A connection that `connect` asked for is ready to carry data."""

    dial: int
    connection: Connection


class ConnectFailed(NamedTuple):
    """A connection that `connect` asked for did not come about.

    `stage` is how far it got (`Stage.text`); `refusal` is the peer's own word, when it proved its key and
    said no.
    """

    dial: int
    stage: str
    refusal: str | None


class Accepted(NamedTuple):
    """A peer that policy allows has connected, and its key is confirmed."""

    connection: Connection


class MessageReceived(NamedTuple):
    """An unreliable message: unordered, delivered at most once."""

    connection: Connection
    data: bytes


class PingAnswered(NamedTuple):
    """The peer acknowledged the packet that carried this ping. `rtt` in seconds."""

    connection: Connection
    ping: int
    rtt: float


class StreamsChanged(NamedTuple):
    """Something happened to streams of a session that the application may be waiting for, in this order.

    Streams belong to a session: while a connection has two, each has its own stream 0.
    """

    connection: Connection
    session: Session
    events: Sequence[StreamEvent]


class ConnectionReplaced(NamedTuple):
    """The peer started anew; `new` goes on in place of `old`, whose `ConnectionClosed` follows."""

    old: Connection
    new: Connection


class PeerSilent(NamedTuple):
    """Nothing has come back from a peer for several probes: it is being looked for, or met on another path."""

    connection: Connection


class ConnectionClosed(NamedTuple):
    """The last event of a connection."""

    connection: Connection
    code: int
    reason: str


Event: TypeAlias = (
    Connected
    | ConnectFailed
    | Accepted
    | MessageReceived
    | PingAnswered
    | StreamsChanged
    | ConnectionReplaced
    | PeerSilent
    | ConnectionClosed
)
