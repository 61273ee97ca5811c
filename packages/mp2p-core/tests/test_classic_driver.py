"""Classic servers and clients on a channel, on both event loops, over a network in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path as FilePath
from typing import Any

import anyio
import pytest

from mp2p_core import Closed, Identity, NoMulticast, open_node
from mp2p_core.classic import (
    ClassicIdentity,
    ClassicKeys,
    ClassicPlace,
    connect_classic,
    open_classic_server,
)
from mp2p_core.errors import (
    AddressError,
    ContactError,
    KeyFileError,
    PeerUnreachable,
    TransportError,
    UsageError,
)
from mp2p_core.proto.addresses import (
    derive_group_v4,
    derive_group_v6,
    format_host_port,
    ip,
    parse_ipv4,
    parse_ipv6,
    random_group_v4,
    random_group_v6,
)
from mp2p_core.testing.memory import MemoryChannel, MemoryHub, MemoryTransport
from mp2p_core.transport import Address, Listen, RandomBytes, Reach

pytestmark = pytest.mark.anyio

SERVER, CLIENT = (ClassicKeys(ClassicIdentity(seed * 32)) for seed in (b"s", b"c"))


class IpTransport(MemoryTransport):
    """Memory with IP addresses, as the declarations of this wire hold them."""

    def __init__(self, hub: MemoryHub, name: str = "v4") -> None:
        super().__init__(hub)
        self.name = name
        self.family = name[:2]
        self.opened: list[Listen] = []

    def parse_address(self, text: str) -> Address:
        return parse_ipv4(text) if self.family == "v4" else parse_ipv6(text)

    def format_address(self, address: Address) -> str:
        return format_host_port(address)

    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        v4 = self.family == "v4"
        if key is None:
            return random_group_v4(reach, port, random) if v4 else random_group_v6(reach, port, random)
        return derive_group_v4(key, reach, port) if v4 else derive_group_v6(key, reach, port)

    async def open(self, listen: Listen) -> MemoryChannel:
        self.opened.append(listen)
        return await super().open(listen)


@pytest.fixture
def transport() -> IpTransport:
    return IpTransport(MemoryHub())


@pytest.mark.parametrize("name", ["v4", "v6", "v6-prefix"])
async def test_a_server_and_a_client(name: str) -> None:
    place = ClassicPlace(IpTransport(MemoryHub(), name))
    async with (
        open_classic_server(SERVER, place) as server,
        connect_classic(CLIENT, server.key, server.address, place) as connection,
    ):
        assert server.port == (1026 if name == "v6-prefix" else 1024)
        assert connection.session.peer == server.key
        connection.send(b"Hello server, how are you?")
        session, text = await server.receive()
        assert (session.peer, text) == (CLIENT.identity.public, b"Hello server, how are you?")
        server.send(session, b"Well.")
        assert await connection.receive() == b"Well."
        assert server.status()[0].joined
        assert connection.status()[0].joined
        assert not server.counters


async def test_ports_of_the_original_and_an_address_that_stays(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    for _ in range(2):
        async with (
            open_classic_server(SERVER, place) as server,
            connect_classic(CLIENT, server.key, f"{server.address}:{server.port}", place),
        ):
            pass
    servers, clients = transport.opened[::2], transport.opened[1::2]
    assert servers[0].address == servers[1].address
    assert clients[0].address != clients[1].address
    assert [listen.address[2:4] for listen in transport.opened] == [b"\x04\x00", b"\x04\x01"] * 2
    assert all(listen.classic for listen in transport.opened)


async def test_a_port_and_interfaces_of_ones_own(transport: IpTransport) -> None:
    async with open_classic_server(SERVER, ClassicPlace(transport, ["eth7"], 2000, "link")) as server:
        assert server.port == 2000
        assert server.address.startswith("239.255.")
    assert transport.opened[0].interfaces == ("eth7",)
    assert transport.opened[0].reach is Reach.LINK


@pytest.mark.parametrize(
    ("name", "group"),
    [("v4", "224.0.245.100"), ("v6", "ff1e:92a8:3287:fe8b:9103:a9e6:26f:73c6"), ("v6-prefix", "")],
)
async def test_the_groups_of_a_configuration_taken_over(name: str, group: str) -> None:
    groups = (IPv4Address("224.0.245.100"), IPv6Address("ff1e:92a8:3287:fe8b:9103:a9e6:26f:73c6"))
    async with open_classic_server(
        ClassicKeys(SERVER.identity, groups), ClassicPlace(IpTransport(MemoryHub(), name))
    ) as server:
        assert server.address == (group or str(ip(derive_group_v6(server.key.raw, Reach.GLOBAL, 1026))))


async def test_a_prefix_group_of_a_configuration_taken_over() -> None:
    groups = (IPv4Address(0), IPv6Address("ff3e:80:2001:db8:1:2:8000:1"))
    keys = ClassicKeys(SERVER.identity, groups)
    async with open_classic_server(keys, ClassicPlace(IpTransport(MemoryHub(), "v6-prefix"))) as server:
        assert (server.address, server.port) == ("ff3e:80:2001:db8:1:2:8000:1", 1026)
    async with open_classic_server(keys, ClassicPlace(IpTransport(MemoryHub()))) as server:
        assert server.address == str(ip(derive_group_v4(server.key.raw, Reach.GLOBAL, 1024)))


async def test_it_repeats_until_the_server_hears_it(transport: IpTransport) -> None:
    hub, dropped = transport._hub, list[bytes]()

    def drop(datagram: bytes) -> bool:
        if len(dropped) < 2:
            dropped.append(datagram)
            return True
        return False

    hub.drop = drop
    place = ClassicPlace(transport)
    async with (
        open_classic_server(SERVER, place) as server,
        connect_classic(CLIENT, server.key, server.address, place) as connection,
    ):
        connection.send(b"x")
        assert (await server.receive()).text == b"x"
    assert [datagram[0] for datagram in dropped] == [0, 1]


async def test_nobody_answers(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    with pytest.raises(PeerUnreachable) as caught:
        async with connect_classic(CLIENT, SERVER.identity.public, "224.0.230.7", place, timeout=0.01):
            raise AssertionError("connected to nobody")
    assert caught.value.stage == "nothing heard"
    assert caught.value.tried == ("v4 224.0.230.7:1024",)
    assert transport._hub.channels == []


async def test_a_server_that_allows_others_only(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    async with open_classic_server(SERVER, place, allow=[SERVER.identity.public]) as server:
        with pytest.raises(PeerUnreachable):
            async with connect_classic(CLIENT, server.key, server.address, place, timeout=0.01):
                raise AssertionError("let in")
        assert server.counters["classic-not-allowed"] == 1


async def test_what_a_block_raises_leaves_it_as_it_is(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    with pytest.raises(RuntimeError, match="mine"):
        async with (
            open_classic_server(SERVER, place) as server,
            connect_classic(CLIENT, server.key, server.address, place),
        ):
            raise RuntimeError("mine")
    assert transport._hub.channels == []


async def test_a_closed_server_says_so(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    heard: list[str] = []

    async with anyio.create_task_group() as group:
        async with (
            open_classic_server(SERVER, place) as server,
            connect_classic(CLIENT, server.key, server.address, place) as connection,
        ):
            connection.send(b"x")
            session, _ = await server.receive()

            async def wait() -> None:
                try:
                    await server.receive()
                except Closed as error:
                    heard.append(str(error))

            group.start_soon(wait)
            await anyio.lowlevel.checkpoint()
    assert len(heard) == 1
    with pytest.raises(Closed):
        server.send(session, b"late")
    with pytest.raises(Closed):
        connection.send(b"late")


async def test_texts_that_nobody_takes_are_bounded(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    async with (
        open_classic_server(SERVER, place) as server,
        connect_classic(CLIENT, server.key, server.address, place) as connection,
    ):
        for start in range(0, 2048, 256):
            for number in range(start, start + 256):
                connection.send(b"%d" % number)
            await anyio.wait_all_tasks_blocked()
        assert (await server.receive()).text == b"1024"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("10.0.0.1", AddressError, "IPv4 groups come from"),
        ("224.0.230.7:53", AddressError, "below 1024"),
        ("ff1e::8000:1", AddressError, "For an IPv6 group leave out --ipv4"),
        ("nonsense", AddressError, "is no IPv4 address"),
    ],
)
async def test_L3_an_address_that_cannot_be_a_server_s(
    transport: IpTransport, text: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        async with connect_classic(CLIENT, SERVER.identity.public, text, ClassicPlace(transport)):
            raise AssertionError


async def test_a_client_to_its_own_key_leaves_nothing_open(transport: IpTransport) -> None:
    with pytest.raises(UsageError, match="the client's own"):
        async with connect_classic(CLIENT, CLIENT.identity.public, "224.0.230.7", ClassicPlace(transport)):
            raise AssertionError
    assert transport._hub.channels == []


async def test_default_ports_in_addresses() -> None:
    for name, text, expected in (
        ("v6", "ff1e::1", 1024),
        ("v6", "[ff1e::1]:2000", 2000),
        ("v6-prefix", "ff3e:40:2001:db8:0:1:8000:1", 1026),
        ("v6-prefix", "[ff3e:40:2001:db8:0:1:8000:1]:1024", 1024),
        ("v4", "224.0.230.7", 1024),
        ("v4", "224.0.230.7:1100", 1100),
    ):
        address = ClassicPlace(IpTransport(MemoryHub(), name)).parse_server(text)
        assert int.from_bytes(address[2:4]) == expected


async def test_a_transport_without_ip_addresses(transport: IpTransport) -> None:
    with pytest.raises(UsageError, match="names IP addresses"):
        async with open_classic_server(SERVER, ClassicPlace(MemoryTransport(MemoryHub()))):
            raise AssertionError
    with pytest.raises(TransportError, match="unknown transport"):
        async with open_classic_server(SERVER, ClassicPlace("pigeons")):
            raise AssertionError


async def test_D4_key_files(transport: IpTransport, tmp_path: FilePath) -> None:
    place = ClassicPlace(transport)
    async with open_node(tmp_path / "v1", transports=[MemoryHub().transport()]) as node:
        pass
    with pytest.raises(KeyFileError, match="version 1"):
        async with open_classic_server(tmp_path / "v1", place):
            raise AssertionError
    with pytest.raises(KeyFileError, match="version 1"):
        async with connect_classic(tmp_path / "v1", SERVER.identity.public, "224.0.230.7", place):
            raise AssertionError
    async with open_classic_server(tmp_path / "v1", place, share_key=True) as server:
        assert server.key == node.key


async def test_D5_what_belongs_to_one_protocol_is_refused_by_the_other(transport: IpTransport) -> None:
    """Also where no type checker has looked. tests/test_classic_types.py has the checker's word."""
    classic: Any = SERVER.identity
    v1: Any = Identity.from_seed(bytes(32))
    with pytest.raises(TypeError):
        async with open_node(classic, transports=[MemoryHub().transport()]):
            raise AssertionError
    with pytest.raises((TypeError, AttributeError)):
        async with open_classic_server(v1, ClassicPlace(transport)):
            raise AssertionError
    place = ClassicPlace(transport)
    async with (
        open_classic_server(SERVER, place) as server,
        connect_classic(CLIENT, server.key, server.address, place) as connection,
        open_node(v1, transports=[MemoryHub().transport()]) as node,
    ):
        session: Any = connection.session
        with pytest.raises(ContactError, match="ClassicSession is no contact"):
            async with node.connect(session):
                raise AssertionError
        for name in ("send_datagram", "receive_datagram", "ping", "open_stream"):
            assert not hasattr(session, name)
            assert not hasattr(connection, name)


async def test_no_multicast_is_said(transport: IpTransport) -> None:
    class Broken(IpTransport):
        async def open(self, listen: Listen) -> MemoryChannel:
            raise NoMulticast("eth0", "unplugged")

    with pytest.raises(NoMulticast, match="unplugged"):
        async with open_classic_server(SERVER, ClassicPlace(Broken(MemoryHub()))):
            raise AssertionError


async def test_random_clients_do_not_meet(transport: IpTransport) -> None:
    place = ClassicPlace(transport)
    async with open_classic_server(SERVER, place) as server:
        others = [ClassicKeys(ClassicIdentity(os.urandom(32))) for _ in range(2)]
        async with (
            connect_classic(others[0], server.key, server.address, place) as one,
            connect_classic(others[1], server.key, server.address, place) as two,
        ):
            for connection, text in ((one, b"one"), (two, b"two")):
                connection.send(text)
                session, heard = await server.receive()
                server.send(session, b"re " + heard)
            assert (await one.receive(), await two.receive()) == (b"re one", b"re two")
