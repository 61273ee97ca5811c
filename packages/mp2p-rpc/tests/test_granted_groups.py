"""A publisher says where its subscribers are to listen. It may not have them join whatever it likes."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

import mp2p_rpc
from mp2p_core import AddressError
from mp2p_core.proto import addresses
from mp2p_core.testing.memory import MemoryChannel, MemoryHub, MemoryTransport
from mp2p_core.transport import Address, Listen, Reach
from mp2p_rpc import Gap, Node, Topic

pytestmark = pytest.mark.anyio

NEWS = Topic("news", int)


class Wire(MemoryTransport):
    """A network in memory with the addresses of IPv6, or of IPv4."""

    def __init__(self, hub: MemoryHub, kind: int) -> None:
        super().__init__(hub)
        self._kind = kind
        self.opened: list[Address] = []

    async def open(self, listen: Listen) -> MemoryChannel:
        self.opened.append(listen.address)
        return await super().open(listen)

    def parse_address(self, text: str) -> Address:
        return bytes([self._kind]) + super().parse_address(text)[1:]

    def derive_address(self, key: bytes, reach: Reach, port: int) -> Address:
        derive = addresses.derive_group_v4 if self._kind == addresses.IPV4 else addresses.derive_group_v6
        return derive(key, reach, port)

    def may_answer(self, _answer_to: Address, _heard_from: Address, _arrived_at: Address) -> bool:
        return True


@asynccontextmanager
async def two(kind: int, reach: Reach) -> AsyncIterator[tuple[Node, Node, list[Address]]]:
    """A publisher, a subscriber, and the groups that the subscriber listens on: its own first."""
    hub = MemoryHub()
    wire = Wire(hub, kind)
    async with (
        mp2p_rpc.open_node(transports=[Wire(hub, kind)], reach=reach, idle_timeout=5) as publisher,
        mp2p_rpc.open_node(transports=[wire], reach=reach, idle_timeout=5) as subscriber,
    ):
        yield publisher, subscriber, wire.opened


def record(text: str, port: int = 1024) -> Address:
    return (
        addresses.pack_ipv6(text, port)
        if ipaddress.ip_address(text).version == 6
        else addresses.pack_ipv4(text, port)
    )


REFUSED = {
    "a host": record("192.0.2.7"),
    "all hosts of the link": record("224.0.0.1"),
    "name resolution": record("224.0.0.251", 5353),
    "somebody's television": record("232.1.2.3", 5004),
    "a port of the system": record("239.255.1.2", 53),
    "wider than the node": record("239.192.1.2"),
    "anywhere": record("224.0.230.7"),
    "a host, IPv6": record("2001:db8::7"),
    "all nodes": record("ff02::1"),
    "name resolution, IPv6": record("ff02::fb", 5353),
    "wider than the node, IPv6": record("ff15::8000:1"),
    "anywhere, IPv6": record("ff1e::8000:1"),
    "nowhere": bytes([addresses.IPV6]) + bytes(19),
}


@pytest.mark.parametrize("group", REFUSED.values(), ids=REFUSED)
async def test_R9_a_group_that_is_not_the_publishers_to_choose_is_not_joined(group: Address) -> None:
    async with two(group[0], Reach.LINK) as (publisher, subscriber, joined):
        publisher.groups.choose = lambda _seed: [group]  # type: ignore[method-assign]  # what a hostile one would say
        async with (
            publisher.publish(NEWS, allow="any"),
            subscriber.subscribe(publisher.contact, NEWS) as feed,
        ):
            with anyio.fail_after(10):
                end = await anext(feed)
            assert isinstance(end, Gap)
            assert "reach" in end.reason or "not a group" in end.reason
            source = feed.sources[publisher.key]
            assert isinstance(source.error, AddressError)
            assert source.connected
            assert not source.topics
        assert len(joined) == 1


@pytest.mark.parametrize("kind", [addresses.IPV4, addresses.IPV6])
async def test_a_group_within_the_reach_is_joined(kind: int) -> None:
    async with two(kind, Reach.LINK) as (publisher, subscriber, joined):
        async with (
            publisher.publish(NEWS, allow="any") as pub,
            subscriber.subscribe(publisher.contact, NEWS) as feed,
        ):
            with anyio.fail_after(10):
                await pub.ready(1)
                await pub.send(1)
                assert (await anext(feed)).value == 1
        assert len(joined) == 2
        assert {addresses.scope(each) for each in joined} == {Reach.LINK}
