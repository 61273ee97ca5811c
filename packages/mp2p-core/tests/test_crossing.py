"""Two nodes that call each other at once: one connection of two sessions, and nothing of it shows (row H10)."""

from __future__ import annotations

import anyio
import pytest
import trio
from trio.testing import MockClock

from mp2p_core import Node, Peer, open_node
from mp2p_core.testing.memory import MemoryHub

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0.01)}), id="trio")]
    ),
]

MESSAGES = 30
STREAMS = 8


async def talk(peer: Peer) -> None:
    """Send messages and streams, and see that those of the other side arrive whole and in order."""

    async def send() -> None:
        for number in range(MESSAGES):
            await peer.send(bytes([number]) * 1000)
            await trio.sleep(0.001 * (number % 5))

    async def open_streams() -> None:
        for number in range(STREAMS):
            async with await peer.open_stream() as stream:
                await stream.send(bytes([number]) * 10_000)
                await stream.send_eof()
                assert b"".join([chunk async for chunk in stream]) == b"answer " + bytes([number])

    async def answer_streams() -> None:
        found = []
        for _ in range(STREAMS):
            async with await peer.accept_stream() as stream:
                asked = b"".join([chunk async for chunk in stream])
                assert len(asked) == 10_000
                found.append(asked[0])
                await stream.send(b"answer " + asked[:1])
        assert sorted(found) == list(range(STREAMS))

    async with anyio.create_task_group() as tasks:
        for task in (send, open_streams, answer_streams):
            tasks.start_soon(task)
        for number in range(MESSAGES):
            assert await peer.receive() == bytes([number]) * 1000


@pytest.mark.parametrize("dropped", range(12))
async def test_H10_messages_and_streams_of_two_calls_at_once_are_all_there(dropped: int) -> None:
    """One datagram is lost, each time another one, so that the calls cross in many ways."""
    hub = MemoryHub()
    seen = 0

    def drop(_datagram: bytes) -> bool:
        nonlocal seen
        seen += 1
        return seen == dropped

    hub.drop = drop
    peers: list[Peer] = []
    over = anyio.Event()

    async def call(one: Node, other: Node) -> None:
        async with one.connect(other.key) as peer:
            peers.append(peer)
            await talk(peer)
            if len(peers) == 2 and all(each.closed is None for each in peers):
                over.set()
            await over.wait()

    async with (
        open_node(allow="any", transports=[hub.transport()], clock=trio.current_time) as one,
        open_node(allow="any", transports=[hub.transport()], clock=trio.current_time) as other,
    ):
        with anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(call, one, other)
                tasks.start_soon(call, other, one)
        assert len(peers) == 2
