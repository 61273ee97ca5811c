"""What a session holds when the peer's application does not read: the bound that docs/protocol.md states."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import anyio
import pytest

from mp2p_core import Peer, Stream
from mp2p_core.messages import MAX_MESSAGE_SIZE
from mp2p_core.proto import constants as c
from mp2p_core.testing.pair import pair

pytestmark = pytest.mark.anyio

SLACK = 2 << 20
"""Bookkeeping, and whatever the event loop and the test keep."""


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


def held(peer: Peer) -> dict[str, int]:
    return dict(peer._connection.session.packer.streams.sizes())


async def until_still(*peers: Peer) -> None:
    """Wait until credit lets nothing more out, and everything that went out is acknowledged."""
    packers = [peer._connection.session.packer for peer in peers]
    await anyio.wait_all_tasks_blocked()
    with anyio.fail_after(60):
        while any(packer.streams.wants_to_send() or packer._recovery.in_flight for packer in packers):  # noqa: ASYNC110
            await anyio.sleep(0.001)


async def flood(stream: Stream) -> None:
    while True:
        await stream.send(bytes(c.UNSENT_FLOOR))  # a new object each time, as an application's would be


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("streams", [1, 60])
async def test_F7_who_never_reads_costs_each_side_a_bounded_amount(streams: int) -> None:
    async with pair() as (here, there), anyio.create_task_group() as tasks:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(streams):
            tasks.start_soon(flood, await here.open_stream())
        await until_still(here, there)
        sending, receiving = held(here), held(there)
        window = min(streams * c.STREAM_WINDOW, c.CONNECTION_WINDOW)
        assert receiving["receive bytes"] == window
        ahead = min(streams * c.UNSENT_STREAM, c.UNSENT_CONNECTION + streams * c.UNSENT_FLOOR)
        assert ahead // 2 < sending["send bytes"] <= ahead
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        in_calls = streams * c.UNSENT_FLOOR
        assert grown <= ahead + in_calls + 2 * window + SLACK
        tasks.cancel_scope.cancel()
        here.close_now()


@pytest.mark.usefixtures("traced")
async def test_F7_nor_does_who_read_fast_and_then_stopped() -> None:
    async with pair() as (here, there), anyio.create_task_group() as tasks:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        tasks.start_soon(flood, await here.open_stream())
        stream = await there.accept_stream()
        total = 0
        while total < 40 << 20:
            total += len(await stream.receive(1 << 20))
        await until_still(here, there)
        window = held(there)["receive bytes"]
        assert c.STREAM_WINDOW <= window <= c.STREAM_WINDOW_CAP
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        assert grown <= c.UNSENT_STREAM + 2 * window + SLACK
        tasks.cancel_scope.cancel()
        here.close_now()


@pytest.mark.usefixtures("traced")
async def test_F7_messages_that_nobody_receives_are_bounded_too() -> None:
    async with pair() as (here, there), anyio.create_task_group() as tasks:
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]

        async def send() -> None:
            while True:
                await here.send(bytes(1 << 20))

        tasks.start_soon(send)
        await until_still(here, there)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
        # One message waits in the stream, one in the call.
        assert grown <= 2 * MAX_MESSAGE_SIZE + 2 * c.STREAM_WINDOW + SLACK
        tasks.cancel_scope.cancel()
        here.close_now()
