"""How many calls at once, and how much memory a slow reader or a large request costs (rows C1 and F7)."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

import mp2p_core
from mp2p_core import StreamClosed
from mp2p_rpc import Busy, Call, Deadline, InternalError, Limits, OutcomeUnknown, Service
from mp2p_rpc.frames import CallHeader, FrameType, encode_call, encode_frame

pytestmark = pytest.mark.anyio


class Lab(Service):
    """One instrument that does one thing at a time."""

    def __init__(self) -> None:
        self.release = anyio.Event()
        self.order: list[int] = []
        self.sent = 0

    async def measure(self, number: int) -> int:
        self.order.append(number)
        await self.release.wait()
        return number

    async def samples(self, size: int) -> AsyncIterator[bytes]:
        while True:
            yield bytes(size)
            self.sent += size

    async def store(self, samples: AsyncIterator[bytes]) -> int:
        await self.release.wait()
        return sum([len(each) async for each in samples])

    async def take(self, data: bytes) -> int:
        return len(data)


async def test_calls_wait_for_a_handler_in_order_and_then_the_peer_is_busy(net: Any, until: Any) -> None:
    lab, answers = Lab(), []
    async with net.serving(lab, limits=Limits(running=1, waiting=2)) as (peer, _):
        client = peer.client(Lab)

        async def measure(number: int) -> None:
            answers.append(await client.measure(number))

        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(measure, number)
                await until(lambda number=number: sum(len(each.incoming) for each in _.peers()) == number + 1)
            with pytest.raises(Busy, match="as many calls wait as may") as busy, anyio.fail_after(10):
                await client.measure(3)
            assert busy.value.method == "Lab.measure"
            assert lab.order == [0]
            lab.release.set()
        assert (lab.order, sorted(answers)) == ([0, 1, 2], [0, 1, 2])  # those of one packet wake in any order
        assert await client.measure(4) == 4


async def test_who_gives_up_waiting_makes_room(net: Any, until: Any) -> None:
    lab = Lab()
    async with net.serving(lab, limits=Limits(running=1, waiting=1)) as (peer, server):
        client = peer.client(Lab)

        def under_way() -> int:
            return sum(len(each.incoming) for each in server.peers())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.measure, 0)
            await until(lambda: under_way() == 1)
            for number in (1, 2):
                async with anyio.create_task_group() as waiting:
                    waiting.start_soon(client.measure, number)
                    await until(lambda: under_way() == 2)
                    waiting.cancel_scope.cancel()
                await until(lambda: under_way() == 1)
            tasks.start_soon(client.measure, 3)
            await until(lambda: under_way() == 2)
            lab.release.set()
        assert lab.order == [0, 3]


async def test_one_peer_has_its_share(net: Any, until: Any) -> None:
    lab = Lab()
    async with net.serving(lab, limits=Limits(calls_per_peer=2)) as (peer, server):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.client(Lab).measure, 0)
            tasks.start_soon(peer.client(Lab).measure, 1)
            await until(lambda: len(lab.order) == 2)
            with pytest.raises(Busy, match="2 calls of this key"), anyio.fail_after(10):
                await peer.client(Lab).measure(2)
            async with peer._node.connect(server.contact):  # the share is that of the key's connection
                pass
            lab.release.set()


@pytest.mark.parametrize("size", [100_000, 200])
async def test_a_slow_reader_of_results_stops_the_handler(net: Any, until: Any, size: int) -> None:
    """Measured: what the handler has produced, and the memory of all of it, network and both ends included."""
    lab = Lab()
    async with net.serving(lab) as (peer, server):
        results = peer.client(Lab).samples(size)
        await anext(results)
        packer = server.peers()[0]._connection.session.packer
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        await anyio.wait_all_tasks_blocked()
        # What it sends is paced: until credit lets nothing more out, and everything that went out is acknowledged.
        await until(lambda: not packer.streams.wants_to_send() and not packer._recovery.in_flight)
        await anyio.wait_all_tasks_blocked()
        stopped_at = lab.sent
        await peer.ping()
        await anyio.wait_all_tasks_blocked()
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert lab.sent == stopped_at
        assert stopped_at < 3_000_000  # 1 MiB ahead of the network, 256 KiB of credit, what one read took
        assert used < 8_000_000, used
        while lab.sent == stopped_at:  # as it is read, it goes on
            assert len(await anext(results)) == size
        await results.aclose()


@pytest.mark.parametrize("end", ["stop serving", "deadline", "error"])
async def test_an_end_that_finds_no_room_waits_for_nobody(net: Any, until: Any, end: str) -> None:
    """The reader has stopped reading, and what the handler has sent fills the stream."""

    class Full(Service):
        async def fill(self) -> AsyncIterator[bytes]:
            for _ in range(13):
                yield bytes(100_000)
            if end == "error":
                raise KeyError(end)
            await anyio.sleep_forever()

        async def more(self) -> AsyncIterator[bytes]:
            while True:
                yield bytes(100_000)

    @contextmanager
    def short(call: Call) -> Iterator[None]:
        call.deadline = anyio.current_time() + (0.1 if end == "deadline" else 1000)
        yield

    async with net.serving(Lab()) as (peer, server):

        async def nothing_runs() -> None:
            await until(lambda: not any(each.incoming for each in server.peers()))

        async def call() -> None:
            async with server.serving(Full(), allow="any"):
                client = peer.client(Full, interceptors=[short])
                results = client.fill() if end == "error" else client.more()
                await anext(results)
                await (nothing_runs() if end == "deadline" else anyio.wait_all_tasks_blocked())
            # `serving` has come to its end, though nobody has read on.
            async for _ in results:
                pass

        # What there is no room for cannot be told; on a slow machine the deadline comes before it is full.
        with pytest.raises((OutcomeUnknown, InternalError, Deadline)):
            await call()
        await nothing_runs()
        assert await peer.client(Lab).take(b"x") == 1


async def test_a_slow_handler_stops_the_caller(net: Any) -> None:
    lab, produced = Lab(), 0

    async def samples() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(100):
            produced += 100_000
            yield bytes(100_000)

    async with net.serving(lab) as (peer, _):
        async with anyio.create_task_group() as tasks:
            total: list[int] = []

            async def store() -> None:
                total.append(await peer.client(Lab).store(samples()))

            tasks.start_soon(store)
            await anyio.wait_all_tasks_blocked()
            stopped_at = produced
            assert stopped_at < 3_000_000
            lab.release.set()
        assert total == [produced]
        assert produced == 10_000_000


async def test_F7_requests_that_are_never_finished_cost_a_few_megabytes(net: Any, until: Any) -> None:
    """Ninety at once, each as large as can be, but for its last byte. Small ones still get through."""
    request = encode_call(CallHeader(1, "Lab", 1, "take")) + encode_frame(
        FrameType.ARGUMENTS, b"\x81\xa4data\xc6\x00\x0f\xff\x00" + bytes(0xFFF00)
    )
    async with net.serving(Lab(), allow="any") as (good, server):
        async with (
            mp2p_core.open_node(transports=[net.transport()]) as client,
            client.connect(server.contact) as peer,
            anyio.create_task_group() as tasks,
        ):

            async def send_most() -> None:
                stream = await peer.open_stream()
                with suppress(StreamClosed):
                    await stream.send(request[:-1])

            tracemalloc.start()
            for _ in range(90):
                tasks.start_soon(send_most)
            await anyio.wait_all_tasks_blocked()
            await peer.ping()
            held = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.Filter(True, "*/mp2p_rpc/*"), tracemalloc.Filter(True, "*/mp2p_core/stream.py")]
            )
            tracemalloc.stop()
            assert sum(each.size for each in held.statistics("filename")) < 16_000_000
            assert await good.client(Lab).take(bytes(1000)) == 1000
            assert await good.client(Lab).take(bytes(1_000_000)) == 1_000_000
            tasks.cancel_scope.cancel()


class Reader(Service):
    """Reads items, and makes some, one behind the other: never waits for anything else."""

    def __init__(self) -> None:
        self.begin = anyio.Event()
        self.done = 0

    async def read(self, numbers: AsyncIterator[int]) -> int:
        await self.begin.wait()
        async for _ in numbers:
            self.done += 1
        return self.done


async def test_what_reads_many_items_that_are_here_lets_other_tasks_run(net: Any, until: Any) -> None:
    reader, seen = Reader(), [0]
    sent = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal sent
        for sent in range(5000):
            yield sent

    async with net.serving(reader) as (peer, _), anyio.create_task_group() as tasks:
        tasks.start_soon(peer.client(Reader).read, numbers())
        await until(lambda: sent == 4999)
        await anyio.wait_all_tasks_blocked()
        reader.begin.set()
        with anyio.fail_after(10):
            while reader.done < 5000:
                await checkpoint()
                seen.append(reader.done)
    # trio has both tasks run once in each round, in any order.
    assert max(after - before for before, after in pairwise(seen)) <= 2 * 128
