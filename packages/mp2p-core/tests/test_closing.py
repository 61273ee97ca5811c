"""What closing does to what was sent: in order it arrives, at once it may not (docs/protocol.md, section 6)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
import trio
from trio.testing import MockClock

from mp2p_core import Closed, Node, Peer, Stream, open_node
from mp2p_core.messages import MAX_MESSAGE_SIZE
from mp2p_core.peer import LINGER, LINGER_SILENCE
from mp2p_core.proto.constants import MAX_ACK_DELAY, STREAM_WINDOW
from mp2p_core.testing.memory import MemoryHub
from mp2p_core.testing.pair import pair

pytestmark = pytest.mark.anyio

MUCH = 3 << 20
"""More than a peer takes that does not read."""


@asynccontextmanager
async def nodes() -> AsyncIterator[tuple[Node, Node, MemoryHub]]:
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
    ):
        yield client, server, hub


async def read_all(stream: Stream) -> int:
    return sum([len(chunk) async for chunk in stream])


async def take_all(peer: Peer) -> tuple[list[int], Closed]:
    """Receive messages until the end; returns their sizes and the end."""
    sizes = []
    try:
        while True:
            sizes.append(len(await peer.receive()))
    except Closed as closed:
        return sizes, closed


async def test_what_was_sent_arrives_although_the_block_is_left_at_once() -> None:
    async with nodes() as (client, server, _), anyio.create_task_group() as group:

        async def call() -> None:
            async with client.connect(server.contact) as peer:
                async with await peer.open_stream() as stream:
                    await stream.send(bytes(MUCH))
                for _ in range(3):
                    await peer.send(bytes(MAX_MESSAGE_SIZE))

        group.start_soon(call)
        peer = await server.accept()
        async with anyio.create_task_group() as reading:

            async def read() -> None:
                assert await read_all(await peer.accept_stream()) == MUCH

            reading.start_soon(read)
            sizes, closed = await take_all(peer)
        assert sizes == 3 * [MAX_MESSAGE_SIZE]
        assert (closed.code, closed.reason) == (0, "")


async def test_what_was_sent_arrives_although_the_node_is_left_at_once() -> None:
    hub = MemoryHub()
    async with open_node(transports=[hub.transport()]) as client:
        async with open_node(allow="any", transports=[hub.transport()]) as server:
            async with client.connect(server.contact) as peer, anyio.create_task_group() as group:

                async def answer() -> None:
                    there = await server.accept()
                    await there.send(bytes(MAX_MESSAGE_SIZE))
                    stream = await there.open_stream()
                    await stream.send(b"and this")
                    await stream.send_eof()
                    await server.aclose()

                group.start_soon(answer)
                sizes, closed = await take_all(peer)
                assert (sizes, closed.code) == ([MAX_MESSAGE_SIZE], 0)
                assert await read_all(await peer.accept_stream()) == len("and this")


async def test_the_peer_may_read_after_the_end_what_came_before_it() -> None:
    async with nodes() as (client, server, _):
        async with client.connect(server.contact) as peer:
            await peer.send(b"one")
            async with await peer.open_stream() as stream:
                await stream.send(b"two")
        there = await server.accept()
        assert await there.receive() == b"one"
        assert await read_all(await there.accept_stream()) == 3
        with pytest.raises(Closed):
            await there.accept_stream()


async def _wait_in_aclose(peer: Peer) -> anyio.CancelScope:
    """Close, and cancel that as soon as it waits."""
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(peer.aclose)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    return scope


async def _fill(peer: Peer) -> None:
    """Send more than the peer takes, and end it."""
    stream = await peer.open_stream()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(stream.send, bytes(MUCH))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    await stream.send_eof()


async def test_cancelled_it_closes_at_once() -> None:
    async with pair() as (here, there):
        await _fill(here)
        scope = await _wait_in_aclose(here)
        assert scope.cancelled_caught
        assert here.closed is not None
        with pytest.raises(Closed):
            await there.receive()


@pytest.mark.parametrize("how", ["code", "error", "nothing to wait for"])
async def test_it_does_not_wait_with_a_code_nor_after_an_error_nor_for_nothing(how: str) -> None:
    async with pair() as (here, there):
        if how != "nothing to wait for":
            await _fill(here)
        with anyio.CancelScope() as scope:
            scope.cancel()  # whatever would wait now, raises
            if how == "error":
                with pytest.raises(KeyError):
                    async with here:
                        raise KeyError("mine")
            else:
                await here.aclose(99 if how == "code" else 0, "enough")
        assert not scope.cancelled_caught
        assert here.closed is not None
        with pytest.raises(Closed) as failure:
            await there.receive()
        assert failure.value.code == (99 if how == "code" else 0)


async def test_a_stream_without_an_end_is_not_waited_for() -> None:
    async with pair() as (here, _there):
        stream = await here.open_stream()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(stream.send, bytes(MUCH))
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        assert not (await _wait_in_aclose(here)).cancelled_caught


# --- on a clock that jumps whenever all tasks wait ------------------------------------------------------

jumping = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("trio", {"clock": MockClock(autojump_threshold=0.01)}), id="trio")]
)


@asynccontextmanager
async def jumping_pair() -> AsyncIterator[tuple[Peer, Peer, MemoryHub]]:
    hub = MemoryHub()
    clock = trio.current_time
    async with (
        open_node(allow="any", transports=[hub.transport()], idle_timeout=1e6, clock=clock) as server,
        open_node(transports=[hub.transport()], idle_timeout=1e6, clock=clock) as client,
        client.connect(server.contact) as peer,
    ):
        yield peer, await server.accept(), hub


def _warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.WARNING for record in caplog.records)


@jumping
@pytest.mark.parametrize("cause", ["stalled", "gone", "ends"])
async def test_it_waits_for_seconds_and_no_longer(cause: str, caplog: pytest.LogCaptureFixture) -> None:
    async with jumping_pair() as (here, there, hub):
        await _fill(here)
        began = trio.current_time()
        if cause == "gone":
            hub.drop = lambda _datagram: True
        async with anyio.create_task_group() as group:
            group.start_soon(here.aclose)
            if cause == "ends":
                await anyio.wait_all_tasks_blocked()
                await there.aclose(77)
        assert trio.current_time() - began < 2.5 * LINGER_SILENCE
        assert here.closed is not None
        assert here.closed.code == (77 if cause == "ends" else 0)
        assert _warnings(caplog) == (cause != "ends")


@jumping
async def test_it_waits_no_longer_than_until_everything_has_arrived() -> None:
    async with jumping_pair() as (here, there, _):
        async with await here.open_stream() as stream:
            await stream.send(b"hello")
        began = trio.current_time()
        await here.aclose()
        assert await (await there.accept_stream()).receive() == b"hello"
        assert trio.current_time() - began < MAX_ACK_DELAY, "the peer is asked"


@jumping
async def test_it_waits_as_long_as_something_arrives(caplog: pytest.LogCaptureFixture) -> None:
    async with jumping_pair() as (here, there, _):
        await _fill(here)
        began = trio.current_time()
        lasted = 0.0

        async def close() -> None:
            nonlocal lasted
            await here.aclose()
            lasted = trio.current_time() - began

        async with anyio.create_task_group() as group:
            group.start_soon(close)
            read = 0
            async for chunk in await there.accept_stream():
                read += len(chunk)
                if read >= STREAM_WINDOW // 2:  # so much at a time that the peer is told of more
                    read = 0
                    await trio.sleep(0.8 * LINGER_SILENCE)
        assert lasted > 1.5 * LINGER_SILENCE
        assert not _warnings(caplog)


@jumping
async def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with jumping_pair() as (here, _there, _):
        await _fill(here)
        left = itertools.count(10**9, -1)  # a peer that always acknowledges a little more
        monkeypatch.setattr(here, "_unfinished", lambda: next(left))
        began = trio.current_time()
        await here.aclose()
        assert trio.current_time() - began == pytest.approx(LINGER)
