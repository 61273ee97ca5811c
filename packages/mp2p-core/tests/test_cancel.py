"""Cancel everywhere: whatever a call was doing, the peer is then closed or as usable as before."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mp2p_core import Closed, Node, Peer, Stream, StreamClosed, StreamReset, open_node
from mp2p_core.testing.memory import MemoryHub
from mp2p_core.testing.pair import pair

pytestmark = pytest.mark.anyio

MUCH = 3 << 20
LARGE = (1 << 20) - 2
ENDS = (Closed, StreamClosed, StreamReset, anyio.EndOfStream)


class CancelledAt:
    """An awaitable that runs a coroutine and cancels a scope when it suspends for the n-th time.

    With `late` it does so when what the coroutine waited for that time has come, so that the wait is over and
    the next one is not allowed any more.
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], n: int, scope: anyio.CancelScope, *, late: bool
    ) -> None:
        self._coroutine = coroutine
        self._n = n
        self._late = late
        self._scope = scope
        self.suspended = 0

    def __await__(self) -> Generator[Any, Any, None]:
        send: Callable[..., Any] = self._coroutine.send
        value: Any = None
        while True:
            try:
                wanted = send(value)
            except StopIteration:
                return
            self.suspended += 1
            if self.suspended == self._n and not self._late:
                self._scope.cancel()
            try:
                value = yield wanted
                send = self._coroutine.send
                if self.suspended == self._n:
                    self._scope.cancel()
            except BaseException as error:  # noqa: BLE001 - for the coroutine to judge
                value, send = error, self._coroutine.throw


async def cancelled_at(n: int, call: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Cancel a call where it suspends for the n-th time, and once more after that; tells whether it came so far."""
    for late in (False, True):
        with anyio.CancelScope() as scope:
            await CancelledAt(call(), n, scope, late=late)
        if not scope.cancel_called:
            return False
    return True


class Server:
    """The other side: answers whatever comes, and bears whatever is cancelled."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def serve(self, node: Node) -> None:
        async with anyio.create_task_group() as tasks:
            while True:
                peer = await node.accept()
                tasks.start_soon(self._streams, peer)
                tasks.start_soon(self._messages, peer)
                tasks.start_soon(self._datagrams, peer)

    async def _streams(self, peer: Peer) -> None:
        async with anyio.create_task_group() as tasks:
            with contextlib.suppress(Closed):
                while True:
                    tasks.start_soon(self._stream, peer, await peer.accept_stream())

    async def _stream(self, peer: Peer, stream: Stream) -> None:
        with contextlib.suppress(*ENDS):
            async with stream:
                total = 0
                with contextlib.suppress(anyio.EndOfStream):
                    while True:
                        total += len(await stream.receive(10_000))
                        await checkpoint()
                for _ in range(10):
                    await stream.send(total.to_bytes(4, "big") * 5_000)
                    await checkpoint()

    async def _messages(self, peer: Peer) -> None:
        with contextlib.suppress(Closed):
            while True:
                message = await peer.receive()
                self.messages.append(message[:2])
                assert message[1:2] != b"!" or message[2:] == bytes(LARGE)
                await peer.send(message[:2])
                if message[:2] == b"-o":
                    async with await peer.open_stream() as stream:
                        await stream.send(b"opened as asked")

    async def _datagrams(self, peer: Peer) -> None:
        with contextlib.suppress(Closed):
            while True:
                await peer.send_datagram(await peer.receive_datagram())


async def streams(peer: Peer) -> None:
    async with await peer.open_stream() as stream:
        await stream.send(b"x" * 10)
        await stream.send(bytes(MUCH))
        await stream.send_eof()
        assert b"".join([chunk async for chunk in stream]) == (MUCH + 10).to_bytes(4, "big") * 50_000


async def messages(peer: Peer) -> None:
    for number in range(12):
        await peer.send(bytes([number]) + b"!" + bytes(LARGE))
    for number in range(12):
        while await peer.receive() != bytes([number]) + b"!":
            pass  # what a round before this one was cancelled too early to receive


async def accept(peer: Peer) -> None:
    await peer.send(b"-o")
    async with await peer.accept_stream() as stream:
        assert b"".join([chunk async for chunk in stream]) == b"opened as asked"


MARKS = itertools.count()


async def datagrams(peer: Peer) -> None:
    mark = b"%d" % next(MARKS)
    for _ in range(100):
        await peer.send_datagram(b"before it")
    await peer.send_datagram(mark)
    while await peer.receive_datagram() != mark:
        pass  # what was sent before it, also in a round that was cancelled
    await peer.ping()


async def check(peer: Peer, number: int) -> None:
    """See that everything works."""
    with anyio.fail_after(10):
        async with await peer.open_stream() as stream:
            await stream.send(b"?")
            await stream.send_eof()
            assert b"".join([chunk async for chunk in stream]) == (1).to_bytes(4, "big") * 50_000
        mark = b"=" + bytes([number % 256])
        await peer.send(mark)
        while await peer.receive() != mark:
            pass
        await datagrams(peer)


@pytest.mark.parametrize("scenario", [streams, messages, accept, datagrams])
async def test_a_peer_stays_usable_wherever_a_call_is_cancelled(
    scenario: Callable[[Peer], Coroutine[Any, Any, None]],
) -> None:
    hub, server = MemoryHub(), Server()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as there,
        open_node(transports=[hub.transport()]) as here,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.serve, there)
        async with here.connect(there.contact) as peer:
            n = 1
            while await cancelled_at(n, lambda: scenario(peer)):
                await check(peer, n)
                n += 1
            assert n > 1
            sizes = peer._connection.session.packer.streams.sizes()
            assert sizes["streams"] <= 3  # those for messages, and one that is about to go
        tasks.cancel_scope.cancel()


async def test_a_peer_is_closed_or_usable_wherever_connecting_and_closing_are_cancelled() -> None:
    hub, server = MemoryHub(), Server()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as there,
        open_node(transports=[hub.transport()]) as here,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(server.serve, there)

        async def whole_life() -> None:
            async with here.connect(there.contact) as peer:
                stream = await peer.open_stream()
                await stream.send(bytes(100_000))
                await stream.aclose()
                await peer.send(b"last words")

        n = 1
        while await cancelled_at(n, whole_life):
            assert here.peers() == ()
            n += 1
        assert n > 3
        async with here.connect(there.contact) as peer:
            await check(peer, 0)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("call", ["receive", "stream", "datagram", "accept"])
async def test_tasks_that_asyncio_itself_cancels_lose_nothing(call: str) -> None:
    """As `asyncio.wait_for` does, also when what the task waited for has just come."""
    async with pair() as (here, there):
        near = await here.open_stream()
        await near.send(b"-")
        far = await there.accept_stream()
        assert await far.receive() == b"-"

        async def give(number: int) -> None:
            if call == "receive":
                await here.send(bytes([number]))
            elif call == "stream":
                await near.send(bytes([number]))
            elif call == "datagram":
                await here.send_datagram(bytes([number]))
            else:
                (await here.open_stream()).send_nowait(bytes([number]), last=True)

        async def take() -> bytes:
            if call == "receive":
                return await there.receive()
            if call == "stream":
                return await far.receive(1)
            if call == "datagram":
                return await there.receive_datagram()
            stream = await there.accept_stream()
            with anyio.CancelScope(shield=True):
                return await stream.receive()

        found: list[int] = []
        for number in range(60):
            task = asyncio.create_task(take())
            for _ in range(number % 3):
                await asyncio.sleep(0)
            await give(number)
            for _ in range(number % 7):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                found.append((await task)[0])
        with anyio.fail_after(10):
            while len(found) < 60:
                found.append((await take())[0])
        assert found == list(range(60))
