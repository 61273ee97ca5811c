"""Group A: what this machine's configuration says, read and not tried. Protocol section 9."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

from mp2p.doctor.findings import Finding, Level
from mp2p.doctor.system import System
from mp2p.doctor.wanted import LEAST_MTU, Wanted
from mp2p_udp import Choice, Interface, choose

__all__ = ["check_host", "eligible"]

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_CONF: Final = "/proc/sys/net/ipv{}/conf/{}/{}"

Check: TypeAlias = Callable[[System, Wanted, Sequence[Interface]], Iterator[Finding]]


def check_host(system: System, wanted: Wanted) -> Iterator[Finding]:
    """Run every check of group A; findings come as they are made."""
    usable = eligible(system, wanted)
    for check in _CHECKS:
        yield from check(system, wanted, usable)


def eligible(system: System, wanted: Wanted) -> list[Interface]:
    """Return the interfaces that a node would use for at least one of its groups."""
    found: dict[int, Interface] = {}
    for group in wanted.groups:
        for interface in _choice(system, wanted, group.version).eligible:
            found[interface.index] = interface
    return list(found.values())


def _choice(system: System, wanted: Wanted, version: int) -> Choice:
    return choose(system.interfaces(), _FAMILIES[version], asked=wanted.asked)


_CURES: Final = {"is down": "up", "no MULTICAST flag": "multicast on"}


def _interfaces(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    del usable
    for group in wanted.groups:
        choice = _choice(system, wanted, group.version)
        name = f"A.interfaces-v{group.version}"
        skipped = [skip for skip in choice.skipped if not wanted.asked or skip.name in wanted.asked]
        told = "; ".join(f"{skip.name}: {skip.reason}" for skip in skipped)
        if not choice.eligible:
            cures = [
                f"ip link set dev {skip.name} {cure}"
                for skip in skipped
                for words, cure in _CURES.items()
                if words in skip.reason
            ]
            command = cures[0] if len(cures) == 1 and not wanted.asked else "ip -brief address"
            yield Finding(
                name, Level.FAIL, f"No interface can be used for IPv{group.version} ({told or 'there is none'}).",
                "Nothing can be heard or sent: an interface must be up, running, able to do multicast, and "
                f"have an IPv{group.version} address.", command,
            )  # fmt: skip
            continue
        used = ", ".join(interface.name for interface in choice.eligible)
        loop = [i.name for i in choice.eligible if "loopback" in i.flags]
        if loop:
            yield Finding(
                name, Level.WARN, f"IPv{group.version} would use {', '.join(loop)}, a loopback interface.",
                "A join there succeeds, and nothing from another machine ever arrives.", "ip -brief address",
            )  # fmt: skip
            continue
        rest = f" Not used: {told}." if told else ""
        yield Finding(name, Level.PASS, f"IPv{group.version} uses {used}.{rest}")


def _route(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    if wanted.of(4) is None or not usable:
        return
    table = system.read("/proc/net/route")
    if table is None:
        return
    rows = [row.split() for row in table.splitlines()[1:]]
    default = [row[0] for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    names = {interface.name for interface in usable}
    if default and default[0] not in names:
        yield Finding(
            "A.route", Level.PASS,
            f"The default route leaves by {default[0]}, which mp2p does not use; it names its interface for each "
            "datagram, so the route does not matter to it.",
        )  # fmt: skip
    else:
        told = f"The default route leaves by {default[0]}." if default else "There is no default route."
        yield Finding("A.route", Level.PASS, f"{told} mp2p does not depend on it.")


def _mtu(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    del system, wanted
    small = [interface for interface in usable if interface.mtu < LEAST_MTU]
    for interface in small:
        yield Finding(
            "A.mtu", Level.FAIL, f"{interface.name} has an MTU of {interface.mtu}.",
            f"mp2p sends datagrams of up to 1200 bytes and never fragments: they need {LEAST_MTU}.",
            f"ip link set dev {interface.name} mtu 1500",
        )  # fmt: skip
    if usable and not small:
        sizes = ", ".join(f"{interface.name} {interface.mtu}" for interface in usable)
        yield Finding("A.mtu", Level.PASS, f"Every MTU is large enough ({sizes}).")


def _ipv6(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    if wanted.of(6) is None:
        return
    names = ["all", *(interface.name for interface in usable)]
    off = [name for name in names if system.read(_CONF.format(6, name, "disable_ipv6")) == "1"]
    if off:
        yield Finding(
            "A.ipv6", Level.WARN, f"IPv6 is switched off (disable_ipv6 is 1 for {', '.join(off)}).",
            "Peers that are reached over IPv6 only stay out of reach.",
            f"sysctl -w net.ipv6.conf.{off[0]}.disable_ipv6=0",
        )  # fmt: skip
    else:
        yield Finding("A.ipv6", Level.PASS, "IPv6 is on.")


def _rp_filter(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    if wanted.of(4) is None:
        return
    every = system.read(_CONF.format(4, "all", "rp_filter"))
    if every is None:
        return
    # The larger of both counts (Documentation/networking/ip-sysctl.rst); 1 is strict, 2 is loose.
    strict = [
        interface.name
        for interface in usable
        if max(int(every), int(system.read(_CONF.format(4, interface.name, "rp_filter")) or "0")) == 1
    ]
    if strict and len(usable) > 1:
        yield Finding(
            "A.rp-filter", Level.WARN,
            f"rp_filter is strict (1) on {', '.join(strict)}; {len(usable)} interfaces are in use.",
            "The kernel drops multicast from a sender that it would answer by another interface; nothing counts or "
            "logs that. Loose (2) is enough, and set for all it counts for each:",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        )  # fmt: skip
    else:
        yield Finding("A.rp-filter", Level.PASS, "rp_filter does not stand in the way.")


def _limit(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    text = system.read("/proc/sys/net/ipv4/igmp_max_memberships")
    if wanted.of(4) is None or text is None:
        return
    limit, needed = int(text), len(usable)
    if limit < needed:
        yield Finding(
            "A.membership-limit", Level.FAIL,
            f"A socket may be a member on {limit} interfaces (igmp_max_memberships), and {needed} are in use.",
            "Joins fail on the interfaces that are left over.",
            f"sysctl -w net.ipv4.igmp_max_memberships={max(20, 2 * needed)}",
        )  # fmt: skip
    else:
        yield Finding(
            "A.membership-limit",
            Level.PASS,
            f"A socket may be a member on {limit} interfaces; in use: {needed}.",
        )


def _bridges(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    del wanted
    for interface in usable:
        bridge = f"/sys/class/net/{interface.name}/bridge"
        if (
            system.read(f"{bridge}/multicast_snooping") == "1"
            and system.read(f"{bridge}/multicast_querier") == "0"
        ):
            yield Finding(
                "A.bridge-snooping", Level.WARN,
                f"{interface.name} is a bridge of this machine that snoops, and does not query itself.",
                "Unless a router queries, it forgets members after some minutes.",
                f"ip link set {interface.name} type bridge mcast_querier 1",
            )  # fmt: skip


def _surroundings(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    del wanted
    kernel = system.read("/proc/sys/kernel/osrelease") or ""
    if "microsoft" in kernel.lower():
        yield Finding(
            "A.wsl", Level.WARN, "This is WSL.",
            "Its default network is behind NAT, and multicast from other machines does not reach it.",
            r"printf '[wsl2]\nnetworkingMode=mirrored\n' >> /mnt/c/Users/$USER/.wslconfig",
        )  # fmt: skip
    if system.read("/run/.containerenv") is not None or system.read("/.dockerenv") is not None:
        yield Finding(
            "A.container", Level.PASS,
            "This runs in a container: unless it shares the host's network, its network is a bridge that other "
            "machines are not on (docker run --network host).",
        )  # fmt: skip
    wireless = [i.name for i in usable if system.read(f"/sys/class/net/{i.name}/phy80211/name")]
    if wireless:
        yield Finding(
            "A.wifi", Level.PASS,
            f"{', '.join(wireless)} is Wi-Fi: access points send multicast slowly, without repeats, and some "
            "keep it from other stations (client isolation).",
        )  # fmt: skip


def _buffers(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    del wanted, usable
    text = system.read("/proc/sys/net/core/rmem_max")
    if text is not None:
        size = int(text) // 1024
        yield Finding(
            "A.buffers", Level.PASS, f"Receive buffers of up to {size} KiB (rmem_max); 4096 are asked for."
        )


_CHECKS: Final[tuple[Check, ...]] = (
    _interfaces, _route, _mtu, _ipv6, _rp_filter, _limit, _bridges, _surroundings, _buffers,
)  # fmt: skip
