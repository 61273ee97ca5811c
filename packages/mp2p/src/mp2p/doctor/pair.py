"""Groups C and D: what a second machine sees, from `mp2p doctor --pair CONTACT` here and `--listen` there.

Multicast both ways with unicast beside it, so that what differs tells what is wrong: nothing there, a firewall, a
hop limit, a router, or a switch that forgot (protocol section 9).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address
from typing import Final

import anyio

from mp2p.doctor.asking import Asker, Heard
from mp2p.doctor.findings import Finding, Level
from mp2p_core.proto.addresses import format_host_port, ip, port
from mp2p_core.proto.identity import PublicKey
from mp2p_core.transport import Address, Listen, Reach
from mp2p_udp import V4, V6, Interface, UdpChannel, open_channel

__all__ = ["check_pair"]

_LOSS_PROBES: Final = 50
_LOSS_INTERVAL: Final = 0.02
_LOSS_BAD: Final = 0.02
_CLOCK_FAR: Final = 60.0
_SIZES: Final = (1200, 1400, 1472)


class _Pair:
    """One group of the peer's and one of ours, of the same IP version."""

    def __init__(
        self,
        own: PublicKey,
        peer: PublicKey,
        channel: UdpChannel,
        group: Address,
        host: str | None,
        interfaces: list[Interface],
    ) -> None:
        self._asker = Asker(own, peer, channel, group)
        self._channel = channel
        self._group = group
        self._host = (host, port(group)) if host is not None else None
        self._interfaces = interfaces
        self._version = 4 if group[0] == 4 else 6
        self._peer = peer
        self._own = own

    async def check(self, reach: Reach, listen: Listen) -> list[Finding]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._asker.listen)
            try:
                heard = await self._asker.ask()
                found = await (self._good(heard) if heard.answered else self._bad(reach, listen))
            finally:
                self._asker.close()
            tasks.cancel_scope.cancel()
        return found

    # --- the peer heard our multicast -----------------------------------------------------------------

    async def _good(self, heard: Heard) -> list[Finding]:
        group = format_host_port(self._group)
        there = heard.said.get("how", "multicast")
        found = [
            self._finding("C.multicast-out", Level.PASS, f"The peer hears its group {group} by {there}.")
        ]
        if heard.by_multicast:
            found.append(self._finding("C.multicast-in", Level.PASS, "Its answers reach our group."))
        else:
            found.append(
                self._finding(
                    "C.multicast-in", Level.FAIL,
                    "The peer hears us by multicast, and its multicast does not reach our group.",
                    "A firewall on this machine, or a switch or router that does not know that this machine listens.",
                    "sudo mp2p doctor",
                )
            )  # fmt: skip
        unicast = "Unicast from the peer arrives."
        if not heard.by_unicast:
            unicast = (
                "Unicast from the peer does not arrive (a firewall, most likely). mp2p does not need it."
            )
        found.append(self._finding("C.unicast", Level.PASS, unicast))
        found += await self._sizes()
        found.append(await self._loss())
        found += self._state(heard)
        return found

    async def _sizes(self) -> list[Finding]:
        largest = 0
        for size in _SIZES:
            if (
                size <= self._channel.max_datagram_size
                and (await self._asker.ask(count=2, size=size)).answered
            ):
                largest = size
        if largest >= _SIZES[0]:
            return [self._finding("C.size", Level.PASS, f"Datagrams of {largest} bytes arrive.")]
        return [
            self._finding(
                "C.size", Level.FAIL, "Small datagrams arrive, and datagrams of 1200 bytes do not.",
                "Some link between has an MTU below 1280: a tunnel, or a misconfigured interface.",
                "tracepath -n PEER",
            )
        ]  # fmt: skip

    async def _loss(self) -> Finding:
        heard = await self._asker.ask(count=_LOSS_PROBES, interval=_LOSS_INTERVAL)
        share = 100 * heard.loss
        fact = f"Of {heard.sent} questions {len(heard.answered)} were answered ({share:.0f} % lost)."
        if heard.loss <= _LOSS_BAD:
            return self._finding("C.loss", Level.PASS, fact)
        return self._finding(
            "C.loss", Level.WARN, fact,
            "A weak radio link, or a network that carries multicast slowly and drops the rest.", "mp2p ping CONTACT",
        )  # fmt: skip

    def _state(self, heard: Heard) -> list[Finding]:
        found = []
        if heard.ahead is not None:
            off = abs(heard.ahead)
            bad = off > _CLOCK_FAR
            found.append(
                Finding(
                    "D.clock", Level.WARN if bad else Level.PASS, f"The clocks differ by {off:.0f} s.",
                    "After a clock went back, a peer that knew us refuses us until it is past the old time, or for "
                    "5 s at each call." if bad else "", "timedatectl set-ntp true" if bad else "",
                )
            )  # fmt: skip
        if heard.said.get("allowed") is False:
            found.append(
                Finding(
                    "D.access", Level.FAIL, "The peer does not allow this key.",
                    "It is not in the access list there, so the peer stays silent to it. To let it in, over there:",
                    f"mp2p listen --allow {self._own}",
                )
            )  # fmt: skip
        elif heard.said.get("allowed") is True:
            found.append(Finding("D.access", Level.PASS, "The peer allows this key."))
        return found

    # --- it did not -----------------------------------------------------------------------------------

    async def _bad(self, reach: Reach, listen: Listen) -> list[Finding]:
        if reach.value < Reach.GLOBAL.value and await self._wider(listen):
            return [
                self._finding(
                    "C.hops", Level.FAIL,
                    f"With reach {reach.name.lower()} nothing arrives, with reach global it does.",
                    f"The peer is behind a router, and a hop limit of {reach.value} does not get there.",
                    "mp2p doctor --reach global",
                )
            ]  # fmt: skip
        if self._host is None:
            return [
                self._finding(
                    "C.multicast-out", Level.FAIL, f"The peer at {format_host_port(self._group)} does not answer.",
                    "It is not running `mp2p doctor --listen`, has another key, or multicast does not get there. "
                    f"With its IPv{self._version} address these can be told apart:",
                    f"mp2p doctor --pair {self._peer} --host ADDRESS",
                )
            ]  # fmt: skip
        direct = await self._asker.ask(host=self._host)
        if direct.refused:
            return [
                self._finding(
                    "C.peer", Level.FAIL, f"{self._host[0]} is there, and nobody listens at UDP port {self._host[1]}.",
                    "The peer is not running. To start it, over there:", "mp2p doctor --listen --allow any",
                )
            ]  # fmt: skip
        if not direct.answered:
            return [
                self._finding(
                    "C.peer", Level.FAIL, f"{self._host[0]} answers neither multicast nor unicast.",
                    "The peer has another key than this contact says (it stays silent to whoever has the wrong one), "
                    "its firewall drops UDP, or the host is off."
                    + (" A switch that forgot a host keeps IPv6 unicast from it, too." if self._version == 6 else "")
                    + " What its firewall does, and its key, over there:", "mp2p doctor --listen --allow any",
                )
            ]  # fmt: skip
        return [*await self._multicast_only(self._host), *self._state(direct)]

    async def _wider(self, listen: Listen) -> bool:
        wide = open_channel(
            Listen(listen.address, Reach.GLOBAL, listen.interfaces), V4 if self._version == 4 else V6
        )
        try:
            return bool((await self._asker.ask(through=wide)).answered)
        finally:
            await wide.aclose()

    async def _multicast_only(self, host: tuple[str, int]) -> list[Finding]:
        """Unicast gets there and multicast does not: have the peer join again, and see."""
        yes = f"Unicast to {host[0]} arrives, multicast to {format_host_port(self._group)} does not"
        await self._asker.ask(count=1, host=host, more={"rejoin": True})
        again = await self._asker.ask()
        if again.answered:
            return [
                self._finding(
                    "C.forgotten", Level.FAIL, f"{yes}, until the peer joined again.",
                    "A switch forgot the peer: membership queries do not reach it. Either a firewall on the peer "
                    "drops them (`mp2p doctor` says so there), or nobody queries. To have a Linux bridge query:",
                    "ip link set dev BRIDGE type bridge mcast_querier 1",
                )
            ]  # fmt: skip
        if not self._near(host[0]):
            return [
                self._finding(
                    "C.router", Level.FAIL, f"{yes}, and the peer is in another network.",
                    "A router between does not forward the group: it needs multicast routing (PIM, or a proxy for "
                    "IGMP and MLD).",
                    f"smcroutectl add IN {ip(self._group)} OUT",
                )
            ]  # fmt: skip
        return [
            self._finding(
                "C.multicast-out", Level.FAIL, f"{yes}, though the peer is in the same network.",
                "The switch or access point keeps multicast back (client isolation, filtering), or a firewall on the "
                "peer drops the group. What that does, over there:", "sudo mp2p doctor",
            )
        ]  # fmt: skip

    def _near(self, host: str) -> bool:
        """Tell whether a host is in a network of ours."""
        address = ip_address(host)
        networks = (each.network for interface in self._interfaces for each in interface.addresses)
        return any(network.version == address.version and address in network for network in networks)

    def _finding(self, name: str, level: Level, fact: str, cause: str = "", command: str = "") -> Finding:
        return Finding(f"{name}-v{self._version}", level, fact, cause, command)


async def check_pair(
    own: PublicKey,
    peer: PublicKey,
    groups: list[tuple[Address, Address]],
    *,
    host: str | None,
    reach: Reach,
    asked: tuple[str, ...],
    interfaces: list[Interface],
) -> AsyncIterator[Finding]:
    """Ask the peer about each pair of (our group, its group)."""
    said: set[str] = set()
    for ours, theirs in groups:
        listen = Listen(ours, reach, asked)
        channel = open_channel(listen, V4 if ours[0] == 4 else V6)
        try:
            usable = host if host is None or ("." in host) == (ours[0] == 4) else None
            pair = _Pair(own, peer, channel, theirs, usable, interfaces)
            for finding in await pair.check(reach, listen):
                if finding.id not in said:  # the clock and the access list are the same for both
                    yield finding
                said.add(finding.id)
        finally:
            await channel.aclose()
