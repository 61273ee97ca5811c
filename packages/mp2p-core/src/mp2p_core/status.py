"""What a node can say of itself and of its peers: plain values, made when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.transport import InterfaceStatus

__all__ = ["ChannelStatus", "PeerStatus", "peer_status"]


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """One open channel: its transport's name, its address as contacts write it, and its interfaces."""

    transport: str
    address: str
    interfaces: tuple[InterfaceStatus, ...]


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One connection. Counts begin anew when the peer does; bytes are those of sealed packets, acknowledgements too."""

    key: PublicKey
    path: str
    """Where datagrams to it go now, such as "v4 224.0.230.7:1024"."""
    rtt: float | None
    """The smoothed round-trip time in seconds; None until it was measured on this path."""
    packets_sent: int
    bytes_sent: int
    packets_received: int
    bytes_received: int
    packets_lost: int
    """Packets sent that count as lost. What they carried was sent again, datagrams of the application apart."""
    unsent_messages: int
    """The application's datagrams that were dropped here because the network took too little."""
    unread_messages: int
    """The peer's datagrams that were dropped here because the application took too few."""
    connected_for: float
    """Seconds since the handshake."""
    rekeys: int
    """How often new keys took over from the first ones."""


def peer_status(connection: Connection, path: str, unread_messages: int, now: float) -> PeerStatus:
    """Say how a connection does; `now` is on the clock of its endpoint."""
    sessions, session = connection.sessions, connection.session
    traffic = [each.epochs.traffic for each in sessions]
    rtt = session.packer.rtt
    return PeerStatus(
        key=connection.peer,
        path=path,
        rtt=rtt.smoothed if rtt.sampled else None,
        packets_sent=sum(each.packets_sent for each in traffic),
        bytes_sent=sum(each.bytes_sent for each in traffic),
        packets_received=sum(each.packets_received for each in traffic),
        bytes_received=sum(each.bytes_received for each in traffic),
        packets_lost=sum(each.packer.packets_lost for each in sessions),
        unsent_messages=sum(each.packer.messages_dropped for each in sessions),
        unread_messages=unread_messages,
        connected_for=now - session.began - session.handshake_time,
        rekeys=session.epochs.rekeys,
    )
