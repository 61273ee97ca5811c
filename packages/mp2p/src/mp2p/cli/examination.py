"""All checks of the doctor, for the node that a command line describes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import anyio

import mp2p
from mp2p.cli.groups import planned_groups
from mp2p.cli.options import NodeOptions
from mp2p.doctor.alone import check_alone
from mp2p.doctor.answering import Asked, Listener, unicast_socket
from mp2p.doctor.findings import Finding, for_a_user
from mp2p.doctor.firewall import check_firewall
from mp2p.doctor.host import check_host, eligible
from mp2p.doctor.pair import check_pair
from mp2p.doctor.system import LocalSystem
from mp2p.doctor.wanted import Wanted
from mp2p_core.keyfile import load_or_create_identity
from mp2p_core.opening import select
from mp2p_core.proto.addresses import ip, port
from mp2p_core.proto.responder import Access
from mp2p_core.transport import Address, Listen
from mp2p_udp import V4, V6, open_channel

__all__ = ["Examination"]


class Examination:
    """What the doctor looks at, and in which order."""

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._transports = select(options.transports or None)
        self.own = load_or_create_identity(options.key or mp2p.default_key_path()).public
        self._groups = [address for _, address in planned_groups(options, self._transports, self.own.raw)]
        self._wanted = Wanted(tuple(ip(group) for group in self._groups), options.port, options.interfaces)

    async def run(self, peer: mp2p.Contact | None, host: str | None) -> AsyncIterator[Finding]:
        """Run every check once; findings come as they are made."""
        system = LocalSystem()
        async for finding in self._run(system, peer, host):
            yield finding if system.privileged else for_a_user(finding)

    async def _run(
        self, system: LocalSystem, peer: mp2p.Contact | None, host: str | None
    ) -> AsyncIterator[Finding]:
        wanted = self._wanted
        for finding in check_host(system, wanted):
            yield finding
        for finding in check_firewall(system, wanted, usable := eligible(system, wanted)):
            yield finding
        async for finding in check_alone(system, wanted, self._options.reach):
            yield finding
        if peer is not None and usable:
            pairs = self._pairs(peer)
            async for finding in check_pair(
                self.own,
                peer.key,
                pairs,
                host=host,
                reach=self._options.reach,
                asked=wanted.asked,
                interfaces=usable,
            ):
                yield finding

    def _pairs(self, peer: mp2p.Contact) -> list[tuple[Address, Address]]:
        """Pair each of our groups with the peer's of the same IP version."""
        theirs: list[Address] = []
        for transport in self._transports:
            told = [
                transport.parse_address(text) for family, text in peer.addresses if family == transport.family
            ]
            derived = transport.derive_address(peer.key.raw, mp2p.Reach.GLOBAL, 1024)
            theirs += told or ([derived] if derived is not None else [])
        return [(ours, group) for ours in self._groups for group in theirs if ours[0] == group[0]]

    async def listen(self, access: Access, tell: Callable[[Asked], None]) -> None:
        """Answer another machine's questions, until cancelled."""
        listener = Listener(self.own, access.allows, tell)
        async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
            for group in self._groups:
                family = V4 if group[0] == 4 else V6
                channel = open_channel(Listen(group, self._options.reach, self._wanted.asked), family)
                stack.push_async_callback(channel.aclose)
                beside = stack.enter_context(unicast_socket(family, port(group)))
                tasks.start_soon(listener.serve_channel, channel, beside)
                tasks.start_soon(listener.serve_unicast, beside, channel)
