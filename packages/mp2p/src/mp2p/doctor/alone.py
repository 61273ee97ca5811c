"""Group B: what this machine can try alone. It joins and sends to its own group, and listens for itself.

The echo proves the stack of this machine and never the wire: a switch does not send a datagram back.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv4Address, IPv6Address

import anyio

from mp2p.doctor.findings import Finding, Level
from mp2p.doctor.system import System
from mp2p.doctor.wanted import Wanted
from mp2p_core.errors import LocalNetworkError, PortTaken
from mp2p_core.proto.addresses import pack_ipv4, pack_ipv6
from mp2p_core.transport import Address, InterfaceStatus, Listen, Path, Reach, Train
from mp2p_udp import V4, V6, UdpChannel, open_channel

__all__ = ["check_alone"]

_ECHO_PATIENCE = 1.0


async def check_alone(system: System, wanted: Wanted, reach: Reach = Reach.GLOBAL) -> AsyncIterator[Finding]:
    """Join each group, compare with what the kernel says, and listen for a datagram of our own."""
    for group in wanted.groups:
        for finding in await _check_group(system, wanted, group, reach):
            yield finding


async def _check_group(
    system: System, wanted: Wanted, group: IPv4Address | IPv6Address, reach: Reach
) -> list[Finding]:
    version = group.version
    address = (pack_ipv4 if version == 4 else pack_ipv6)(str(group), wanted.port)
    listen = Listen(address, reach, wanted.asked)
    try:
        channel = open_channel(listen, V4 if version == 4 else V6)
    except PortTaken as error:
        return [
            Finding(
                f"B.port-v{version}", Level.FAIL, f"UDP port {wanted.port} is taken: {error}",
                "Another program holds it for itself.", f"ss -lunp sport = :{wanted.port}",
            )
        ]  # fmt: skip
    except LocalNetworkError as error:
        return [
            Finding(
                f"B.join-v{version}", Level.FAIL, f"Joining {group} failed.", str(error), "ip -brief address"
            )
        ]
    try:
        found = [_joined(version, group, channel.status()), *_listed(system, group, channel.status())]
        found.append(await _echo(version, channel, address))
    finally:
        await channel.aclose()
    return found


def _joined(version: int, group: IPv4Address | IPv6Address, statuses: Sequence[InterfaceStatus]) -> Finding:
    joined = [status.name for status in statuses if status.joined]
    failed = [status for status in statuses if not status.joined and "not asked" not in status.detail]
    fact = f"Joined {group} on {', '.join(joined)}."
    if failed:
        fact += f" Not on {'; '.join(f'{status.name}: {status.detail}' for status in failed)}."
    return Finding(f"B.join-v{version}", Level.PASS, fact)


def _listed(
    system: System, group: IPv4Address | IPv6Address, statuses: Sequence[InterfaceStatus]
) -> list[Finding]:
    """Compare with the kernel's own list of memberships."""
    listed = memberships(system, group.version)
    if listed is None:
        return []
    missing = [
        status.name for status in statuses if status.joined and (status.name, str(group)) not in listed
    ]
    name = f"B.kernel-v{group.version}"
    if missing:
        return [
            Finding(
                name, Level.FAIL, f"The kernel does not list {group} on {', '.join(missing)}.",
                "The join was accepted and did not take effect: the interface was made anew, or is going away.",
                f"ip maddress show dev {missing[0]}",
            )
        ]  # fmt: skip
    joined = ", ".join(status.name for status in statuses if status.joined)
    return [Finding(name, Level.PASS, f"The kernel lists {group} on {joined}.")]


def memberships(system: System, version: int) -> set[tuple[str, str]] | None:
    """Return (interface, group) for each membership that the kernel lists; None where it cannot be asked."""
    text = system.read("/proc/net/igmp" if version == 4 else "/proc/net/igmp6")
    if text is None:
        return None
    found: set[tuple[str, str]] = set()
    name = ""
    for line in text.splitlines():
        words = line.split()
        if version == 6:
            found.add((words[1], str(IPv6Address(int(words[2], 16)))))
        elif not line[:1].isspace() and len(words) > 1:
            name = words[1].rstrip(":")
        elif line[:1].isspace() and words:
            found.add((name, str(IPv4Address(int.from_bytes(bytes.fromhex(words[0]), "little")))))
    return found


async def _echo(version: int, channel: UdpChannel, address: Address) -> Finding:
    name = f"B.echo-v{version}"
    mark = b"mp2p doctor " + os.urandom(16)
    channel.send(Train(Path(address), (mark,), len(mark)))
    with anyio.move_on_after(_ECHO_PATIENCE):
        while True:
            for train in await channel.receive():
                if mark in train.datagrams():
                    fact = "A datagram to the own group came back: this proves the stack, never the wire."
                    return Finding(name, Level.PASS, fact)
    unsent = "; ".join(f"{status.name}: {status.detail}" for status in channel.status() if status.unsent)
    return Finding(
        name, Level.FAIL, f"A datagram to the own group did not come back within {_ECHO_PATIENCE:g} s.",
        unsent or "A firewall on this machine drops it, going out or coming in.", "nft list ruleset",
    )  # fmt: skip
