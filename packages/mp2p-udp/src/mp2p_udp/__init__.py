"""Multicast UDP for mp2p transports: interfaces, memberships, trains of datagrams.

Layers, lowest first; a module imports only from those before it:

    options, errnos, netlink
    inventory
    family
    membership
    trains, reader
    channel
    transport
"""

from __future__ import annotations

from mp2p_udp.channel import UdpChannel, open_channel
from mp2p_udp.family import V4, V6, Family
from mp2p_udp.inventory import Choice, Interface, Skipped, choose, list_interfaces
from mp2p_udp.options import Features, detect
from mp2p_udp.transport import MulticastTransport

__all__ = [
    "V4",
    "V6",
    "Choice",
    "Family",
    "Features",
    "Interface",
    "MulticastTransport",
    "Skipped",
    "UdpChannel",
    "choose",
    "detect",
    "list_interfaces",
    "open_channel",
]
