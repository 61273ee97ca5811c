"""Groups built on the unicast prefix of one of this machine's interfaces (RFC 3306)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Interface, IPv6Network

from mp2p_core.errors import NoMulticast
from mp2p_core.proto.addresses import derive_prefix_group, random_prefix_group
from mp2p_core.transport import Address, RandomBytes, Reach
from mp2p_udp import V6, MulticastTransport, choose, list_interfaces

__all__ = ["PrefixTransport", "find_prefix"]

_GLOBAL = IPv6Network("2000::/3")
_UNIQUE_LOCAL = IPv6Network("fc00::/7")


@dataclass(frozen=True)
class PrefixTransport(MulticastTransport):
    """IPv6 multicast on groups that hold the prefix of the network they are used in."""

    def derive_address(self, key: bytes, reach: Reach, port: int) -> Address | None:
        """Return None: a key alone does not tell the network its node is in."""
        del key, reach, port
        return None

    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        """Choose a group of the first prefix found, its group id the key's or random.

        Every reach shares the groups of global scope; the hop limit bounds how far datagrams go.
        Raises `NoMulticast` when no interface has a global or unique-local address.
        """
        del reach
        prefix, _ = find_prefix(interfaces)
        if key is None:
            return random_prefix_group(prefix, port, random)
        return derive_prefix_group(prefix, key, port)


def find_prefix(asked: Sequence[str] = ()) -> tuple[IPv6Network, str]:
    """Return a prefix to build groups on, and the name of the interface that has it.

    Of the interfaces that could be listened on (those `asked` for, or every eligible one) the first with
    a global address, or else the first with a unique-local one. Raises `NoMulticast` when there is none.
    """
    choice = choose(list_interfaces(), V6.number, asked=asked)
    for wanted in (_GLOBAL, _UNIQUE_LOCAL):
        for interface in choice.eligible:
            for address in interface.addresses:
                # A /128, as DHCPv6 gives, is cut to its /64 later.
                if isinstance(address, IPv6Interface) and address.ip in wanted:
                    return address.network, interface.name
    reasons = [
        f"{skipped.name}: {skipped.reason}"
        for skipped in choice.skipped
        if not asked or skipped.name in asked
    ]
    reasons += [f"{interface.name}: it has neither" for interface in choice.eligible]
    words = "; ".join(reasons) or "it has no interfaces at all"
    raise NoMulticast(
        asked[0] if len(asked) == 1 else None,
        f"no global or unique-local IPv6 prefix ({words}). Connect to a network that announces one, "
        "or use the transport v6, which needs none",
    )
