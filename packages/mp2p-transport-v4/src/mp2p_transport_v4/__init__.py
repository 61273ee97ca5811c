"""IPv4 multicast for mp2p: groups in 224.0.224.0 to 224.0.249.255 (protocol section 5)."""

from __future__ import annotations

import os

from mp2p_core.proto.addresses import (
    DEFAULT_PORT,
    derive_group_v4,
    ip,
    parse_ipv4,
    random_group_v4,
)
from mp2p_core.transport import RandomBytes, Reach
from mp2p_udp import V4, MulticastTransport

__all__ = ["IPV4", "new_ipv4"]

IPV4 = MulticastTransport(
    name="v4",
    family="v4",
    default=True,
    ip=V4,
    parse=parse_ipv4,
    derive=derive_group_v4,
    draw=random_group_v4,
)
"""The transport that the plugin returns."""


def new_ipv4(*, reach: Reach = Reach.GLOBAL, random: RandomBytes = os.urandom) -> str:
    """Draw a group address: 224.0.224.0 to 224.0.249.255, or of 239.192/14 (site) or 239.255/16 (link)."""
    return str(ip(random_group_v4(reach, DEFAULT_PORT, random)))
