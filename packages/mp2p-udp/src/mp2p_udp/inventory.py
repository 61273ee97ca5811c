"""Which interfaces this machine has, and for each one not used, why.

A join on the wrong interface succeeds and nothing ever arrives, so the choice is made here, with words,
and not left to the kernel's default.
"""

from __future__ import annotations

import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from operator import attrgetter
from typing import Final, NamedTuple

from mp2p_udp import netlink

__all__ = ["Choice", "Interface", "Skipped", "choose", "list_interfaces"]

# Linux, include/uapi/linux/if.h.
_FLAG_WORDS: Final = {0x1: "up", 0x8: "loopback", 0x10: "pointopoint", 0x40: "running", 0x1000: "multicast"}
_FAMILIES: Final = frozenset({socket.AF_INET, socket.AF_INET6})


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface as the system describes it now."""

    name: str
    index: int
    flags: frozenset[str]
    """As in `ip link`, in lower case: up, running, multicast, loopback, pointopoint."""
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    mtu: int

    def has(self, number: int) -> bool:
        """Tell whether there is an address of this family (AF_INET or AF_INET6)."""
        version = 6 if number == socket.AF_INET6 else 4
        return any(address.version == version for address in self.addresses)


@dataclass(frozen=True, slots=True)
class Skipped:
    """An interface that is not used, and why, in words."""

    name: str
    index: int
    reason: str


class Choice(NamedTuple):
    """The interfaces to use and those not to."""

    eligible: tuple[Interface, ...]
    skipped: tuple[Skipped, ...]


def list_interfaces(number: int = socket.AF_UNSPEC) -> tuple[Interface, ...]:
    """Ask the system for its interfaces, in the order of their index.

    `number` is the family of the addresses wanted, AF_INET or AF_INET6; otherwise those of both are.
    """
    found = _ask_linux(number) if sys.platform == "linux" else _ask_psutil(number)
    return tuple(sorted(found, key=attrgetter("index")))


def _ask_linux(number: int) -> list[Interface]:
    links, addresses = netlink.ask(number)
    own = defaultdict(list)
    for index, packed, prefix_length in addresses:
        own[index].append(_address(packed, prefix_length))
    return [
        Interface(name, index, _words(flags), tuple(own[index]), mtu) for index, name, flags, mtu in links
    ]


def _ask_psutil(number: int) -> list[Interface]:
    # Loaded where nothing else tells: it takes longer than the rest of opening a node.
    import psutil  # noqa: PLC0415 (see above)

    addresses = psutil.net_if_addrs()
    families = (number,) if number in _FAMILIES else _FAMILIES
    found: list[Interface] = []
    for name, stats in psutil.net_if_stats().items():
        try:
            index = socket.if_nametoindex(name)
        except OSError:
            continue  # it went away between the two questions
        # An alias ("eth0:1") is one more address of its interface, not an interface.
        own = tuple(
            _address(entry.address.partition("%")[0], _prefix_length(entry.netmask))
            for label, entries in addresses.items()
            if label == name or label.startswith(f"{name}:")
            for entry in entries
            if entry.family in families
        )
        # Windows reports no flags: what is up there can do multicast as far as can be told.
        flags = stats.flags or ("up,running,multicast" if stats.isup else "")
        found.append(Interface(name, index, frozenset(flags.split(",")), own, stats.mtu))
    return found


def choose(
    interfaces: Iterable[Interface], number: int, *, asked: Sequence[str] = (), loopback: bool = False
) -> Choice:
    """Pick the interfaces to join and send on for an address family (protocol section 9).

    Without names that is every interface that is up, running, able to do multicast, neither loopback nor
    point-to-point, and has an address of the family. Interfaces `asked` for by name may be loopback or
    point-to-point. With `loopback`, and no names, that is the loopback interface alone.
    """
    eligible: list[Interface] = []
    skipped: list[Skipped] = []
    interfaces = tuple(interfaces)
    for interface in interfaces:
        if asked:
            reason = _unusable(interface, number) if interface.name in asked else "it was not asked for"
        elif loopback:
            reason = (
                _unusable(interface, number) if _is_loopback(interface) else "reach host uses loopback only"
            )
        else:
            reason = _unasked(interface) or _unusable(interface, number)
        if reason is None:
            eligible.append(interface)
        else:
            skipped.append(Skipped(interface.name, interface.index, reason))
    for name in dict.fromkeys(asked):
        names = {interface.name for interface in interfaces}
        if name not in names:
            there = ", ".join(sorted(names)) or "none at all"
            skipped.append(Skipped(name, 0, f"there is no interface of this name (there is: {there})"))
    return Choice(tuple(eligible), tuple(skipped))


def _is_loopback(interface: Interface) -> bool:
    return "loopback" in interface.flags


def _unasked(interface: Interface) -> str | None:
    """Say why an interface is left alone unless it is named."""
    if _is_loopback(interface):
        return "it is a loopback interface and was not asked for by name"
    if "pointopoint" in interface.flags:
        return "it is a point-to-point interface (often a VPN) and was not asked for by name"
    return None


def _unusable(interface: Interface, number: int) -> str | None:
    """Say why an interface cannot be used at all."""
    if "up" not in interface.flags:
        return "it is down"
    if "running" not in interface.flags:
        return "it is not running (no cable, no carrier)"
    # Linux gives its loopback interface no MULTICAST flag, and yet multicast works there.
    if "multicast" not in interface.flags and not _is_loopback(interface):
        return "it cannot do multicast (no MULTICAST flag)"
    if not interface.has(number):
        return f"it has no {'IPv6' if number == socket.AF_INET6 else 'IPv4'} address"
    return None


# A node asks once for each of its channels, and reading an address takes as long as asking for it.
@lru_cache(maxsize=256)
def _address(host: str | bytes, prefix_length: int | None) -> IPv4Interface | IPv6Interface:
    return ip_interface(host if prefix_length is None else (host, prefix_length))


@lru_cache(maxsize=64)
def _words(flags: int) -> frozenset[str]:
    return frozenset(word for bit, word in _FLAG_WORDS.items() if flags & bit)


def _prefix_length(netmask: str | None) -> int | None:
    if netmask is None:
        return None
    if ":" in netmask:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, netmask)).bit_count()
    return int.from_bytes(socket.inet_aton(netmask)).bit_count()
