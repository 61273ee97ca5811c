"""IPv6 multicast for mp2p: transient groups (ff1e) and prefix-based ones (ff3e), protocol section 5."""

from __future__ import annotations

import os
from ipaddress import IPv6Network

from mp2p_core.errors import AddressError
from mp2p_core.proto.addresses import (
    DEFAULT_PORT,
    derive_group_v6,
    ip,
    parse_ipv6,
    random_group_v6,
    random_prefix_group,
)
from mp2p_core.transport import RandomBytes, Reach
from mp2p_transport_v6.prefix import PrefixTransport, find_prefix
from mp2p_udp import V6, MulticastTransport

__all__ = ["IPV6", "IPV6_PREFIX", "new_ipv6", "new_ipv6_from_prefix", "new_prefixed_ipv6"]

IPV6 = MulticastTransport(
    name="v6",
    family="v6",
    default=True,
    ip=V6,
    parse=parse_ipv6,
    derive=derive_group_v6,
    draw=random_group_v6,
)
"""Transient groups, which need nothing but IPv6; the key alone gives the address."""

IPV6_PREFIX = PrefixTransport(
    name="v6-prefix",
    family="v6",
    default=False,
    ip=V6,
    parse=parse_ipv6,
    derive=derive_group_v6,
    draw=random_group_v6,
)
"""Groups of the network's own prefix, which routers can tell apart by network; they have to be told."""


def new_ipv6(*, reach: Reach = Reach.GLOBAL, random: RandomBytes = os.urandom) -> str:
    """Draw a transient group address: ff1e, or ff15 (site) or ff12 (link)."""
    return str(ip(random_group_v6(reach, DEFAULT_PORT, random)))


def new_ipv6_from_prefix(network: str | IPv6Network, *, random: RandomBytes = os.urandom) -> str:
    """Draw a group address of a unicast prefix (RFC 3306); a prefix longer than 64 is cut to 64.

    Raises `AddressError` when `network` is no global or unique-local IPv6 prefix.
    """
    try:
        network = IPv6Network(network)
    except ValueError as error:
        raise AddressError(f"{network!r} is no IPv6 prefix such as 2001:db8:1:2::/64: {error}") from None
    return str(ip(random_prefix_group(network, DEFAULT_PORT, random)))


def new_prefixed_ipv6(interface: str | None = None, *, random: RandomBytes = os.urandom) -> tuple[str, str]:
    """Draw a group address of this machine's own prefix, and name the interface that has the prefix.

    `interface` names the one to use; otherwise it is the first with a global prefix, or else with a
    unique-local one. Raises `NoMulticast` when there is none, with each interface's reason.
    """
    network, name = find_prefix(() if interface is None else (interface,))
    return new_ipv6_from_prefix(network, random=random), name
