"""Multicast groups besides a node's own: sending to them, and listening on them (docs/protocol.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import anyio

from mp2p_core.errors import AddressError, LocalNetworkError, UsageError
from mp2p_core.proto import addresses
from mp2p_core.proto.constants import BASE_DATAGRAM_SIZE
from mp2p_core.proto.transmit import trains
from mp2p_core.transport import Listen, Path
from mp2p_core.waiting import name_event_loop

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mp2p_core.opening import Opened
    from mp2p_core.transport import Address, Channel, MaintainedChannel, PushingChannel, Train

__all__ = ["Groups", "receive_from", "start_upkeep"]

Deliver = Callable[[Sequence["Train"]], None]


class _Membership:
    """A channel on a group, for everyone here who listens on it."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.listeners: list[Deliver] = []

    def deliver(self, trains: Sequence[Train]) -> None:
        for listener in list(self.listeners):
            listener(trains)


class Groups:
    """What one node has of other groups. Channels are opened as its own were: same reach, interfaces, transports."""

    def __init__(self, opened: Opened, tasks: TaskGroup) -> None:
        self._opened = opened
        self._tasks = tasks
        self._memberships: dict[Address, _Membership] = {}

    def choose(self, seed: bytes) -> list[Address]:
        """Choose groups that follow from 32 bytes: one for each kind of address, on the first transport that has it."""
        wanted = self._opened.wanted
        found: dict[int, Address] = {}
        for transport, channel in self._opened.channels:
            if channel.address[0] in found:
                continue
            address = transport.derive_address(seed, wanted.reach, wanted.port)
            if address is None:
                address = transport.create_address(
                    key=seed, reach=wanted.reach, port=wanted.port, interfaces=wanted.interfaces,
                    random=lambda n: seed[:n],
                )  # fmt: skip
            found[address[0]] = address
        if not found:
            raise UsageError("this node has no channel open")
        return list(found.values())

    @property
    def kinds(self) -> bytes:
        """The kinds of group addresses that this node can listen on, a byte each."""
        return bytes({channel.address[0]: None for _, channel in self._opened.channels})

    def send(self, group: Address, datagrams: Sequence[bytes]) -> None:
        """Hand datagrams to the network, in order, on the transport that the group is an address of. Never blocks."""
        channel = self._channel(group)
        if channel is not None:
            for train in trains(Path(group), [(datagram, len(datagram)) for datagram in datagrams]):
                channel.send(train)

    def _channel(self, group: Address) -> Channel | None:
        return next((channel for _, channel in self._opened.channels if channel.address[0] == group[0]), None)

    @property
    def datagram_size(self) -> int:
        """The size of datagrams that every path carries."""
        return BASE_DATAGRAM_SIZE

    @contextmanager
    def listening(self, group: Address, deliver: Deliver) -> Iterator[None]:
        """Listen on a group within the block: `deliver` gets what comes in.

        A group that this machine cannot listen on brings nothing: whoever sends there learns that and sends over
        sessions instead. Raises `AddressError` for one that no node may choose, or that reaches further than this
        node does: a publisher must not have its subscribers join what it likes.
        """
        self._check(group)
        membership = self._memberships.get(group)
        if membership is None:
            membership = self._memberships[group] = _Membership()
            self._tasks.start_soon(self._listen, group, membership)
        membership.listeners.append(deliver)
        try:
            yield
        finally:
            membership.listeners.remove(deliver)
            if not membership.listeners:
                membership.scope.cancel()
                self._memberships.pop(group, None)

    def _check(self, group: Address) -> None:
        """Raise `AddressError` unless the group is in the ranges of section 5, and in the scope of ours."""
        ours = [each for each in self._opened.channels if each.channel.address[0] == group[0]]
        if not ours or group[0] not in (addresses.IPV4, addresses.IPV6):
            return
        addresses.check_group(group)
        if all(addresses.reaches_further(group, each.channel.address) for each in ours):
            raise AddressError(
                f"{addresses.format_host_port(group)}, where the publisher sends, reaches further than this node at "
                f"{', '.join(each.text for each in ours)}: open this node with the reach of the publisher"
            )

    async def _listen(self, group: Address, membership: _Membership) -> None:
        wanted = self._opened.wanted
        for transport, channel in self._opened.channels:
            if channel.address[0] != group[0]:
                continue
            with membership.scope:
                try:
                    opened = await transport.open(Listen(group, wanted.reach, wanted.interfaces))
                except (LocalNetworkError, UsageError):
                    return
                try:
                    await _run(opened, membership.deliver)
                finally:
                    with anyio.CancelScope(shield=True):
                        await opened.aclose()
            return


async def _run(channel: Channel, deliver: Deliver) -> None:
    async with anyio.create_task_group() as tasks:
        start_upkeep(channel, tasks)
        await receive_from(channel, deliver)
        tasks.cancel_scope.cancel()


def start_upkeep(channel: Channel, tasks: TaskGroup) -> None:
    """Have a channel look after itself until it is closed, where it has anything to do."""
    if hasattr(channel, "maintain"):
        tasks.start_soon(cast("MaintainedChannel", channel).maintain)


async def receive_from(channel: Channel, deliver: Deliver) -> None:
    """Hand over what comes in on a channel until it is closed. For a task of its own."""
    name_event_loop()  # a channel may call `deliver` outside of tasks
    if hasattr(channel, "push"):  # isinstance would look at every member, for 25 us
        await cast("PushingChannel", channel).push(deliver)
        return
    while True:
        try:
            found = await channel.receive()
        except anyio.ClosedResourceError:
            return
        deliver(found)
