"""The transport kit: what every transport must do, checked on real channels.

    async def test_my_transport() -> None:
        await check_transport(MyTransport())

Needs no test framework: a failed check raises `AssertionError` that says what is wrong and where the
contract says so. Sends a few dozen datagrams, by default with reach "host".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mp2p_core.errors import AddressError
from mp2p_core.lifetime import open_node
from mp2p_core.peer import Peer
from mp2p_core.proto.addresses import unspecified
from mp2p_core.proto.constants import DEFAULT_PORT
from mp2p_core.transport import (
    ADDRESS_SIZE,
    MIN_DATAGRAM_SIZE,
    TRANSPORT_API,
    Address,
    Channel,
    InterfaceStatus,
    Listen,
    Path,
    Reach,
    Train,
    Transport,
)

__all__ = ["check_transport"]

_ATTEMPTS = 20
"""A transport may lose some datagrams, but not one of them twenty times."""


async def check_transport(
    transport: Transport,
    *,
    interfaces: Sequence[str] = (),
    reach: Reach = Reach.HOST,
    port: int = DEFAULT_PORT,
    patience: float = 0.5,
) -> list[str]:
    """Check a transport and return the names of the checks that it passed, in order.

    Opens up to three channels at a time on `interfaces` (all eligible ones when empty), and waits `patience`
    seconds for a datagram before it sends it again. Raises
    AssertionError at the first check that fails. Run it on every event loop that you support.
    """
    passed: list[str] = []
    key = os.urandom(32)
    _check_members(transport)
    passed.append("members")
    create = _creator(transport, interfaces, reach, port)
    _check_addresses(transport, key, create(key), create(None), create(None), reach, port)
    passed.append("addresses")
    _check_may_answer(transport, create(None))
    passed.append("may_answer survives strangers")

    listen = [Listen(create(os.urandom(32)), reach, tuple(interfaces)) for _ in range(3)]
    a, b, c = [await transport.open(each) for each in listen]
    try:
        for channel, asked in zip((a, b, c), listen, strict=True):
            _check_channel(channel, asked)
        passed.append("open")
        path = await _check_delivery(transport, a, b, patience)
        passed.append("delivery, and the way back")
        await _check_sizes(a, b, patience)
        passed.append("sizes")
        await _check_trains(a, b, patience)
        passed.append("trains")
        await _check_only_ours(a, b, c, patience)
        passed.append("only what is addressed to a channel")
        await _check_cancelling(a, b, patience)
        passed.append("cancelling loses nothing")
        _check_nowhere(a, path)
        passed.append("sending to nowhere raises nothing")
        await _check_closing(a, b, patience)
        passed.append("closing")
    finally:
        for channel in (a, b, c):
            await channel.aclose()
    await _check_nodes(transport, interfaces, reach, port, patience)
    passed.append("two nodes talk")
    return passed


def _creator(
    transport: Transport, interfaces: Sequence[str], reach: Reach, port: int
) -> Callable[[bytes | None], Address]:
    return lambda key: transport.create_address(
        key=key, reach=reach, port=port, interfaces=interfaces, random=os.urandom
    )


def _check_members(transport: Transport) -> None:
    assert isinstance(transport, Transport), f"{transport!r} lacks members of mp2p_core.transport.Transport"
    assert transport.api == TRANSPORT_API, f"api is {transport.api}, this contract is version {TRANSPORT_API}"
    for what, name in (("name", transport.name), ("family", transport.family)):
        assert re.fullmatch(r"[a-z][a-z0-9-]{0,31}", name), (
            f"{what} {name!r}: use lower-case letters, digits and hyphens"
        )
    assert isinstance(transport.default, bool), "default is a bool"


def _check_record(address: Address) -> None:
    assert isinstance(address, bytes), f"an address is bytes, not {type(address).__name__}"
    assert len(address) == ADDRESS_SIZE, f"an address has {ADDRESS_SIZE} bytes, not {len(address)}"
    assert address[0] in (4, 6) or address[0] >= 0x80, f"kind {address[0]:#x} is not a transport's to use"
    assert address[1] == 0, "the second byte of an address is zero"


def _check_addresses(
    transport: Transport,
    key: bytes,
    derived: Address,
    first: Address,
    second: Address,
    reach: Reach,
    port: int,
) -> None:
    known = transport.derive_address(key, reach, port)
    assert known == transport.derive_address(key, reach, port), "derive_address always gives the same address"
    if transport.default:
        assert known is not None, "a default transport derives its address from the key alone"
        assert derived == known, "create_address(key=...) of a default transport is derive_address"
    for address in (derived, first, second) if known is None else (known, derived, first, second):
        _check_record(address)
        text = transport.format_address(address)
        assert text.isprintable(), f"an address that does not print: {text!r}"
        assert transport.parse_address(text) == address, f"parse_address does not read back {text!r}"
    assert first != second, "create_address(key=None) gave the same address twice"
    for nonsense in ("", ":", "nonsense", "[", "\x00", "9" * 500, "::::", "%"):
        try:
            transport.parse_address(nonsense)
        except AddressError:
            continue
        raise AssertionError(f"parse_address took {nonsense!r}: raise AddressError")


def _check_may_answer(transport: Transport, ours: Address) -> None:
    strange = [bytes(ADDRESS_SIZE), b"\xff" * ADDRESS_SIZE, ours, unspecified(ours)]
    strange += [bytes([kind, 0]) + os.urandom(18) for kind in (0, 1, 4, 6, 7, 0x7F, 0x80, 0xFF)]
    for answer_to in strange:
        for heard_from in strange:
            verdict = transport.may_answer(answer_to, heard_from, ours)
            assert isinstance(verdict, bool), "may_answer returns a bool, whatever a stranger wrote"
            if answer_to[0] in (0, 1, 7, 0x7F):
                assert not verdict, f"may_answer accepts kind {answer_to[0]}, which names no place"


def _check_channel(channel: Channel, asked: Listen) -> None:
    assert isinstance(channel, Channel), f"{channel!r} lacks members of mp2p_core.transport.Channel"
    assert channel.address == asked.address, "a channel listens where it was told to"
    size = channel.max_datagram_size
    assert MIN_DATAGRAM_SIZE <= size <= 65507, f"max_datagram_size is {size}"
    status = channel.status()
    assert all(isinstance(each, InterfaceStatus) for each in status), "status returns InterfaceStatus values"
    assert any(each.joined for each in status), "an open channel listens on some interface"


async def _collect(channel: Channel, wanted: set[bytes], found: dict[bytes, Path], done: anyio.Event) -> None:
    while not wanted <= found.keys():
        for train in await channel.receive():
            assert isinstance(train, Train), "receive returns trains"
            for datagram in train.datagrams():
                found[datagram] = train.path
    done.set()


async def _transfer(
    sender: Channel, receiver: Channel, path: Path, datagrams: list[bytes], size: int, patience: float
) -> dict[bytes, Path]:
    """Send one train until all of it has arrived; returns all that was received meanwhile, with its path."""
    found: dict[bytes, Path] = {}
    done = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_collect, receiver, set(datagrams), found, done)
        for _ in range(_ATTEMPTS):
            sender.send(Train(path, datagrams, size))
            with anyio.move_on_after(patience):
                await done.wait()
                break
        tasks.cancel_scope.cancel()
    missing = [len(each) for each in datagrams if each not in found]
    assert not missing, (
        f"sent {_ATTEMPTS} times and never arrived unchanged: datagrams of {missing[:5]} bytes"
    )
    return found


async def _check_delivery(transport: Transport, a: Channel, b: Channel, patience: float) -> Path:
    there = os.urandom(14)
    path = (await _transfer(a, b, Path(b.address), [there], 14, patience))[there]
    _check_record(path.remote)
    assert path.local == b.address, "the path of a received datagram names the address that it was sent to"
    assert isinstance(transport.format_address(path.remote), str), "every source seen can be formatted"
    # Answered as the protocol does it: to the address that the other side listens at, where it was heard.
    await _transfer(b, a, Path(a.address, None, path.interface), [b"back " + os.urandom(8)], 13, patience)
    return path


async def _check_sizes(a: Channel, b: Channel, patience: float) -> None:
    for size in (1, MIN_DATAGRAM_SIZE, min(a.max_datagram_size, b.max_datagram_size)):
        await _transfer(a, b, Path(b.address), [os.urandom(size)], size, patience)


async def _check_trains(a: Channel, b: Channel, patience: float) -> None:
    whole = [os.urandom(300) for _ in range(9)]
    await _transfer(a, b, Path(b.address), whole, 300, patience)
    await _transfer(a, b, Path(b.address), [*whole[:4], os.urandom(17)], 300, patience)


async def _check_only_ours(a: Channel, b: Channel, c: Channel, patience: float) -> None:
    """What goes to b is not heard at c, as far as c's next datagram tells."""
    secret, marker = os.urandom(32), os.urandom(32)
    await _transfer(a, b, Path(b.address), [secret], 32, patience)
    found = await _transfer(a, c, Path(c.address), [marker], 32, patience)
    assert secret not in found, "a channel received a datagram that was sent to another address"


async def _check_cancelling(a: Channel, b: Channel, patience: float) -> None:
    with anyio.move_on_after(0):
        await b.receive()
    await _transfer(a, b, Path(b.address), [os.urandom(40)], 40, patience)


def _check_nowhere(a: Channel, path: Path) -> None:
    for remote in (bytes(ADDRESS_SIZE), bytes([0x7F, 0]) + os.urandom(18), path.remote):
        verdict = a.send(Train(Path(remote, None, 2**31 - 1), [b"x"], 1))
        assert isinstance(verdict, bool), "send returns a bool, wherever it is told to send"


async def _check_closing(a: Channel, b: Channel, patience: float) -> None:
    ended = anyio.Event()

    async def wait() -> None:
        try:
            while True:
                await b.receive()
        except anyio.ClosedResourceError:
            ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await checkpoint()
        await b.aclose()
        await _within(ended, tasks, patience)
    await b.aclose()
    assert b.send(Train(Path(a.address), [b"x"], 1)) is False, "sending on a closed channel returns False"
    try:
        with anyio.move_on_after(patience):
            await b.receive()
    except anyio.ClosedResourceError:
        return
    raise AssertionError("receive on a closed channel raises anyio.ClosedResourceError")


async def _within(event: anyio.Event, tasks: TaskGroup, patience: float) -> None:
    with anyio.move_on_after(patience * _ATTEMPTS):
        await event.wait()
    tasks.cancel_scope.cancel()
    assert event.is_set(), "closing ends a waiting receive with anyio.ClosedResourceError"


async def _check_nodes(
    transport: Transport, interfaces: Sequence[str], reach: Reach, port: int, patience: float
) -> None:
    with anyio.fail_after(patience * _ATTEMPTS):
        async with (
            open_node(
                allow="any", transports=[transport], interfaces=interfaces, reach=reach, port=port
            ) as one,
            open_node(transports=[transport], interfaces=interfaces, reach=reach, port=port) as other,
            other.connect(one.contact) as peer,
        ):
            heard = await one.accept()
            await _talk(peer, heard, patience)
            await _talk(heard, peer, patience)


async def _talk(sender: Peer, receiver: Peer, patience: float) -> None:
    text = os.urandom(100)
    received = anyio.Event()

    async def receive() -> None:
        while await receiver.receive_datagram() != text:
            pass
        received.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        while not received.is_set():
            await sender.send_datagram(text)
            with anyio.move_on_after(patience):
                await received.wait()
