"""What users of a `Peer` see when its process is started anew, on a clock that jumps whenever all tasks wait.

Row H17; how the endpoint finds out is in test_sim_life.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
import trio
from anyio.abc import TaskGroup, TaskStatus
from trio.testing import MockClock

from mp2p_core import Closed, Identity, Node, Peer, open_node
from mp2p_core.testing.memory import MemoryHub

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0.01)}), id="trio")]
    ),
]


class Server:
    """A node that can be killed, so that nobody hears of it, and started again."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.hub = MemoryHub()
        self.identity = Identity.generate()
        self._tasks = tasks
        self._stop = anyio.Event()
        self._stopped = anyio.Event()

    async def start(self) -> Node:
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        node: Node = await self._tasks.start(self._run)
        return node

    async def _run(self, *, task_status: TaskStatus[Node]) -> None:
        async with open_node(
            self.identity, allow="any", transports=[self.hub.transport()], clock=trio.current_time
        ) as node:
            task_status.started(node)
            await self._stop.wait()
            await node.leave()
        self._stopped.set()

    async def restart(self) -> Node:
        self.hub.drop = lambda _datagram: True
        self._stop.set()
        await self._stopped.wait()
        self.hub.drop = lambda _datagram: False
        return await self.start()


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, Peer, Peer]]:
    """Yield the server, the peer as its client holds it, and as the server does."""
    async with anyio.create_task_group() as tasks:
        server = Server(tasks)
        node = await server.start()
        async with (
            open_node(transports=[server.hub.transport()], clock=trio.current_time) as client,
            client.connect(server.identity.public) as peer,
        ):
            yield server, peer, await node.accept()
        tasks.cancel_scope.cancel()


async def restarted(server: Server, peer: Peer) -> Peer:
    """Start the server anew, have the client notice, and return it as the new server holds it."""
    node = await server.restart()
    await peer.send_datagram(b"are you there?")
    return await node.accept()


async def ends_with_11(call: Callable[[], Awaitable[Any]]) -> None:
    with pytest.raises(Closed) as failure:
        await call()
    assert failure.value.code == 11


async def exchange(here: Peer, there: Peer) -> None:
    """See that everything works."""
    await here.send(b"message")
    assert await there.receive() == b"message"
    await there.send(b"answer")
    assert await here.receive() == b"answer"
    for one, other in ((here, there), (there, here)):
        stream = await one.open_stream()
        await stream.send(b"stream")
        await stream.send_eof()
        taken = await other.accept_stream()
        assert b"".join([chunk async for chunk in taken]) == b"stream"
        await taken.aclose()
        await stream.aclose()
    await here.send_datagram(b"datagram")
    while await there.receive_datagram() != b"datagram":
        pass
    assert await here.ping() < 1


async def test_H17_an_idle_peer_goes_on_and_nothing_is_raised() -> None:
    async with connected() as (server, peer, _):
        anew = await restarted(server, peer)
        assert peer.closed is None
        await exchange(peer, anew)


async def test_H17_streams_fail_and_new_ones_work() -> None:
    async with connected() as (server, peer, there):
        ours = await peer.open_stream()
        await ours.send(b"before")
        theirs = await there.accept_stream()
        await theirs.send(b"arrived")
        await theirs.aclose()
        await peer.ping()
        anew = await restarted(server, peer)
        for _ in range(2):
            await ends_with_11(lambda: ours.send(b"after"))
        assert await ours.receive() == b"arrived"
        with pytest.raises(anyio.EndOfStream):
            await ours.receive()
        await ours.aclose()
        await exchange(peer, anew)


async def test_H17_who_waits_is_told_or_goes_on() -> None:
    async with connected() as (server, peer, there):
        await exchange(peer, there)
        stream = await peer.open_stream()
        await stream.send(b"!")
        ended: list[str] = []

        async def expect(name: str, call: Callable[[], Awaitable[Any]]) -> None:
            await ends_with_11(call)
            ended.append(name)

        accepted: list[bytes] = []

        async def accept() -> None:
            accepted.append(await (await peer.accept_stream()).receive())
            accepted.append(await peer.receive_datagram())

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(accept)
            await anyio.wait_all_tasks_blocked()
            server.hub.drop = lambda _datagram: True  # so that no ping is answered
            async with anyio.create_task_group() as failing:
                failing.start_soon(expect, "receive", peer.receive)
                failing.start_soon(expect, "stream.receive", stream.receive)
                failing.start_soon(expect, "stream.send", lambda: stream.send(bytes(3 << 20)))
                failing.start_soon(expect, "send", lambda: _send_for_ever(peer))
                failing.start_soon(expect, "ping", lambda: peer.ping(timeout=1000))
                await anyio.wait_all_tasks_blocked()
                anew = await restarted(server, peer)
            assert sorted(ended) == ["ping", "receive", "send", "stream.receive", "stream.send"]
            answer = await anew.open_stream()
            await answer.send(b"a stream")
            await anew.send_datagram(b"a datagram")
        assert accepted == [b"a stream", b"a datagram"]
        await exchange(peer, anew)


async def _send_for_ever(peer: Peer) -> None:
    while True:
        await peer.send(bytes(100_000))


async def test_H17_a_break_in_the_messages_is_told_once_to_who_uses_them() -> None:
    async with connected() as (server, peer, there):
        await exchange(peer, there)
        await there.send(b"arrived before")
        await peer.ping()
        anew = await restarted(server, peer)
        assert await peer.receive() == b"arrived before"
        await ends_with_11(peer.receive)
        await ends_with_11(lambda: peer.send(b"not sent"))
        assert peer.closed is None
        await exchange(peer, anew)


async def test_H17_half_of_a_message_is_not_joined_with_what_comes_after() -> None:
    async with connected() as (server, peer, there):
        await there._begin_messages().send((100).to_bytes(4, "big") + b"half")
        await peer.ping()
        anew = await restarted(server, peer)
        await anew.send(b"whole")
        await ends_with_11(peer.receive)
        assert await peer.receive() == b"whole"


async def test_H17_closing_goes_on_with_the_new_connection() -> None:
    async with connected() as (server, peer, _):
        anew = await restarted(server, peer)
        await peer.aclose(4711, "enough")
        with pytest.raises(Closed) as failure:
            await anew.receive()
        assert failure.value.code == 4711


async def test_a_peer_that_calls_by_itself_is_another_one() -> None:
    async with connected() as (server, peer, _):
        ours = peer.key
        node = await server.restart()
        async with (
            open_node(allow="any", transports=[server.hub.transport()], clock=trio.current_time) as client,
            node.connect(client.key) as there,
        ):
            again = await client.accept()
            assert again is not peer
            assert again.key == ours
            await exchange(again, there)
