"""Datagrams handed over by the event loop: `push` of the contract."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

import anyio
import pytest

from mp2p_core.transport import Path, PushingChannel, Train
from mp2p_udp import V4, UdpChannel
from mp2p_udp.reader import Reader

pytestmark = pytest.mark.anyio

Opened = Callable[..., UdpChannel]
PORT = 10000 + os.getpid() % 20000
"""One for each process: tests run beside each other, and share this machine's loopback interface."""
ADDRESS = V4.record(("224.0.230.9", PORT))
OTHER = V4.record(("224.0.230.10", PORT))


def one(data: bytes) -> Train:
    return Train(Path(ADDRESS), (data,), len(data))


async def test_trains_are_delivered_in_order_until_the_channel_closes(opened: Opened) -> None:
    channel, sender = opened(ADDRESS), opened(OTHER)
    assert isinstance(channel, PushingChannel)
    got: list[bytes] = []
    enough = anyio.Event()

    def deliver(trains: Sequence[Train]) -> None:
        assert trains
        got.extend(datagram for train in trains for datagram in train.datagrams())
        if len(got) >= 20:
            enough.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.push, deliver)
        for number in range(20):
            sender.send(one(bytes([number])))
        with anyio.fail_after(10):
            await enough.wait()
        await channel.aclose()  # ends the push, and so the task group
    assert got == [bytes([number]) for number in range(20)]


async def test_what_deliver_raises_is_raised_by_push(opened: Opened) -> None:
    channel, sender = opened(ADDRESS), opened(OTHER)

    def deliver(trains: Sequence[Train]) -> None:
        raise LookupError(len(trains))

    loop_is_asyncio = _is_asyncio()
    complaints: list[object] = []
    if loop_is_asyncio:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    sender.send(one(b"x"))
    with anyio.fail_after(10), pytest.raises(LookupError):
        await channel.push(deliver)


async def test_a_cancelled_push_loses_nothing_and_may_be_followed_by_another(opened: Opened) -> None:
    channel, sender = opened(ADDRESS), opened(OTHER)
    got: list[bytes] = []
    enough = anyio.Event()

    def deliver(trains: Sequence[Train]) -> None:
        got.extend(datagram for train in trains for datagram in train.datagrams())
        if len(got) >= 3:
            enough.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.push, deliver)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    sender.send(one(b"1"))
    with anyio.fail_after(10):
        (train,) = await channel.receive()
    got.extend(train.datagrams())
    sender.send(one(b"2"))
    sender.send(one(b"3"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.push, deliver)
        with anyio.fail_after(10):
            await enough.wait()
        tasks.cancel_scope.cancel()
    assert got == [b"1", b"2", b"3"]


async def test_one_task_at_a_time(opened: Opened) -> None:
    channel = opened(ADDRESS)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(channel.push, lambda _trains: None)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await channel.receive()
        with pytest.raises(anyio.BusyResourceError):
            await channel.push(lambda _trains: None)
        tasks.cancel_scope.cancel()


async def test_a_closed_channel_pushes_nothing(opened: Opened) -> None:
    channel = opened(ADDRESS)
    await channel.aclose()
    with anyio.fail_after(10):
        await channel.push(lambda _trains: pytest.fail("delivered"))


class Unwatchful(asyncio.SelectorEventLoop):
    """Knows no add_reader, as the proactor loop of Windows."""

    def add_reader(self, fd: object, callback: object, *args: object) -> None:
        raise NotImplementedError


def test_push_works_where_the_loop_cannot_watch() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)

    def read() -> list[Train]:
        try:
            return [one(ours.recv(100))]
        except BlockingIOError:
            return []

    async def main() -> None:
        reader = Reader(ours, read)
        got: list[bytes] = []

        def deliver(trains: Sequence[Train]) -> None:
            got.extend(train.buffers[0] for train in trains)
            if len(got) == 3:
                reader.close()
            else:
                theirs.send(bytes([len(got)]))

        theirs.send(b"\0")
        with anyio.fail_after(10):
            await reader.push(deliver)
        assert got == [b"\0", b"\1", b"\2"]

    with ours, theirs, asyncio.Runner(loop_factory=Unwatchful) as runner:
        runner.run(main())


def _is_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
