"""Encrypted sessions between devices that know each other's keys: identity, handshake, framing, the node.

    async with open_node("me.key", allow=["mp2p:..."]) as node:
        async with node.connect("mp2p:...") as peer:
            await peer.send_datagram(b"hello")

Layers, lowest first; a module imports only from those before it:

    errors, waiting, boundary
    transport                    the contract for transports
    proto                        the protocol, sans-IO
    private_files, contact
    keyfile, access, plugins
    opening, status, stream
    messages, metrics
    peer, groups
    dialing, driver
    node, classic
    lifetime
    testing                      needs everything above, nothing needs it
"""

from __future__ import annotations

from mp2p_core.access import Allow
from mp2p_core.contact import Contact
from mp2p_core.errors import (
    AddressError,
    AuthRejected,
    BadKey,
    Closed,
    ContactError,
    DatagramTooLarge,
    KeyFileError,
    LocalNetworkError,
    MessageTooLarge,
    Mp2pError,
    NoMulticast,
    PeerUnreachable,
    PortTaken,
    RemoteError,
    StreamClosed,
    StreamReset,
    TransportError,
    UsageError,
)
from mp2p_core.lifetime import open_node
from mp2p_core.metrics import Metric, render_metrics
from mp2p_core.node import Node
from mp2p_core.peer import Peer
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.status import ChannelStatus, PeerStatus
from mp2p_core.stream import Stream
from mp2p_core.transport import Reach

__all__ = [
    "AddressError",
    "Allow",
    "AuthRejected",
    "BadKey",
    "ChannelStatus",
    "Closed",
    "Contact",
    "ContactError",
    "DatagramTooLarge",
    "Identity",
    "KeyFileError",
    "LocalNetworkError",
    "MessageTooLarge",
    "Metric",
    "Mp2pError",
    "NoMulticast",
    "Node",
    "Peer",
    "PeerStatus",
    "PeerUnreachable",
    "PortTaken",
    "PublicKey",
    "Reach",
    "RemoteError",
    "Stream",
    "StreamClosed",
    "StreamReset",
    "TransportError",
    "UsageError",
    "open_node",
    "render_metrics",
]
