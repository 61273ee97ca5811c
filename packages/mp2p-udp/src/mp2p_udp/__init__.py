"""Multicast UDP for mp2p transports: interfaces, memberships, trains of datagrams.

Layers, lowest first; a module imports only from those before it:

    options, errnos, inventory
    family
    membership
    trains, reader
    channel
    transport
"""

from __future__ import annotations

from .channel import UdpChannel, open_channel
from .family import V4, V6, Family
from .inventory import Choice, Interface, Skipped, choose, list_interfaces
from .options import Features, detect
from .transport import MulticastTransport

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
