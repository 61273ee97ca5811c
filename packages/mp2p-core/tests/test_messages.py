"""Reliable messages and the ends of streams, over the in-memory transport, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from mp2p_core import Closed, MessageTooLarge, Peer, open_node
from mp2p_core.messages import MAX_MESSAGE_SIZE
from mp2p_core.testing.memory import MemoryHub

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Peer, Peer]]:
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as here,
    ):
        yield here, await server.accept()


async def test_messages_arrive_whole_and_in_order_up_to_the_limit() -> None:
    async with pair() as (here, there):
        sent = [b"", b"one", bytes(MAX_MESSAGE_SIZE), b"last"]
        async with anyio.create_task_group() as group:

            async def send() -> None:
                for message in sent:
                    await here.send(message)

            group.start_soon(send)
            assert [await there.receive() for _ in sent] == sent
        await there.send(b"and back")
        assert await here.receive() == b"and back"
        with pytest.raises(MessageTooLarge):
            await here.send(bytes(MAX_MESSAGE_SIZE + 1))


async def test_a_message_that_is_cancelled_midway_ends_messages_and_says_so() -> None:
    """Whoever waits for the next one hears `Closed`, not an error of the stream underneath."""
    async with pair() as (here, there):
        with anyio.move_on_after(0.1):
            while True:  # nobody reads: one of them waits for credit
                await here.send(bytes(MAX_MESSAGE_SIZE))
        with anyio.fail_after(5), pytest.raises(Closed, match="no more messages"):
            await _until_the_end(there)


async def _until_the_end(peer: Peer) -> None:
    while True:
        await peer.receive()


async def test_a_cancelled_wait_for_a_message_loses_nothing() -> None:
    async with pair() as (here, there):
        with anyio.move_on_after(0.01):
            await there.receive()
        await here.send(b"still there")
        assert await there.receive() == b"still there"


async def test_closing_a_stream_that_the_peer_has_let_go_of_raises_nothing() -> None:
    async with pair() as (here, there):
        stream = await here.open_stream()
        await stream.send(b"hello")
        other = await there.accept_stream()
        assert await other.receive() == b"hello"
        await other.aclose()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await there.send(b"after the STOP")
        assert await here.receive() == b"after the STOP"
        await stream.aclose()
