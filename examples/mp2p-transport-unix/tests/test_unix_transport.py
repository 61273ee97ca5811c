"""The transport keeps the contract, and what is particular to it holds."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mp2p_transport_unix import UnixTransport, mp2p_transports

from mp2p_core import Identity, NoMulticast, open_node
from mp2p_core.testing.conformance import check_transport
from mp2p_core.transport import Listen, Reach, Train
from mp2p_core.transport import Path as DatagramPath


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: those of pytest leave no room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="mp2p") as path:
        yield Path(path)


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def leave_behind(name: str) -> None:
    """Leave a socket that nobody reads, a folder and a file, all of which look like channels of an address."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(f"{name}.killed")
    Path(f"{name}.folder").mkdir()
    Path(f"{name}.file").write_text("of somebody else", encoding="ascii")


def some_address() -> bytes:
    return UnixTransport().derive_address(os.urandom(32), Reach.HOST, 1024)


@pytest.mark.anyio
async def test_it_passes_the_kit(folder: Path) -> None:
    assert await check_transport(UnixTransport(folder))
    assert not names(folder), "closed channels leave no files"


def test_the_hook_returns_it() -> None:
    assert [transport.name for transport in mp2p_transports()] == ["unix"]


@pytest.mark.anyio
async def test_the_key_alone_reaches_a_node(folder: Path) -> None:
    alice, bob = Identity.generate(), Identity.generate()
    transports = [UnixTransport(folder)]
    with anyio.fail_after(10):
        async with (
            open_node(alice, allow=[bob.public], transports=transports) as server,
            open_node(bob, transports=transports) as client,
            client.connect(alice.public) as peer,
        ):
            assert not server.contact.addresses
            await peer.send_datagram(b"through a folder")
            assert await (await server.accept()).receive_datagram() == b"through a folder"


@pytest.mark.anyio
async def test_the_sockets_of_an_address_form_a_group(folder: Path) -> None:
    listen = Listen(some_address())
    first, second = [await UnixTransport(folder).open(listen) for _ in range(2)]
    try:
        assert first.send(Train(DatagramPath(listen.address), (b"all",), 3))
        for channel in (first, second):
            with anyio.fail_after(10):
                (train,) = await channel.receive()
            assert list(train.datagrams()) == [b"all"]
            assert train.path.remote == listen.address
    finally:
        await first.aclose()
        await second.aclose()


@pytest.mark.anyio
async def test_only_sockets_that_nobody_reads_are_removed(folder: Path) -> None:
    address = some_address()
    name = UnixTransport().format_address(address)
    leave_behind(f"{folder}/{name}")
    channel = await UnixTransport(folder).open(Listen(some_address()))
    try:
        assert channel.send(Train(DatagramPath(address), (b"x",), 1))
    finally:
        await channel.aclose()
    assert names(folder) == [f"{name}.file", f"{name}.folder"]


@pytest.mark.anyio
async def test_senders_without_a_name_in_the_folder_are_not_heard(folder: Path) -> None:
    inside = folder / "inside"
    address = some_address()
    channel = await UnixTransport(inside).open(Listen(address))
    try:
        file = f"{inside}/{names(inside)[0]}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"who", file)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as elsewhere:
            elsewhere.bind(f"{folder}/{UnixTransport().format_address(address)}.x")
            elsewhere.sendto(b"where", file)
        channel.send(Train(DatagramPath(address), (b"here",), 4))
        with anyio.fail_after(10):
            (train,) = await channel.receive()
        assert list(train.datagrams()) == [b"here"]
    finally:
        await channel.aclose()


@pytest.mark.anyio
async def test_a_full_queue_is_told(folder: Path) -> None:
    channel = await UnixTransport(folder).open(Listen(some_address()))
    try:
        train = Train(DatagramPath(channel.address), (b"x",), 1)
        assert channel.send(train)
        while channel.send(train):
            pass
        with anyio.fail_after(10):
            assert await channel.receive()
        assert channel.send(train)
    finally:
        await channel.aclose()


@pytest.mark.anyio
async def test_a_folder_that_does_not_work_is_named(folder: Path) -> None:
    deep = folder / ("long" * 40)
    with pytest.raises(NoMulticast, match="MP2P_UNIX_FOLDER") as caught:
        async with open_node(transports=[UnixTransport(deep)]):
            pass
    assert str(deep) in str(caught.value)
