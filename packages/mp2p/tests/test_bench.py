"""What `mp2p bench` measures with, over a network in memory. No figure is judged: that they count what they say is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

import mp2p
from mp2p import bench
from mp2p.bench import Bench, Direction, NotServed, check_served, measure_calls, measure_stream
from mp2p_core.testing.memory import MemoryHub

pytestmark = pytest.mark.anyio

SERVER, CLIENT = (mp2p.Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
SECONDS = 0.05


class Counting(Bench):
    """Keeps what came, and how many calls were under way at once."""

    def __init__(self) -> None:
        self.echoed = self.taken = self.under_way = self.most = 0

    async def echo(self, data: bytes) -> bytes:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await anyio.lowlevel.checkpoint()
        self.under_way -= 1
        self.echoed += 1
        assert len(data) == bench.CALL_SIZE
        return data

    async def take(self, chunks: AsyncIterator[bytes]) -> int:
        self.taken = await super().take(chunks)
        return self.taken


@asynccontextmanager
async def connected(service: object, interface: type = Bench) -> AsyncIterator[mp2p.Peer]:
    hub = MemoryHub()
    async with (
        mp2p.open_node(SERVER, transports=[hub.transport()]) as there,
        there.serving(service, interface=interface, allow=[CLIENT.public]),
        mp2p.open_node(CLIENT, transports=[hub.transport()]) as here,
        here.connect(there.contact) as peer,
    ):
        yield peer


@pytest.mark.parametrize("parallel", [1, 8])
async def test_calls_are_counted(parallel: int) -> None:
    service = Counting()
    async with connected(service) as peer:
        figures = await measure_calls(peer, SECONDS, parallel=parallel)
    assert figures.parallel == parallel
    assert figures.calls == service.echoed - bench._WARM_UP
    assert figures.calls >= parallel
    assert service.most <= parallel
    assert (service.most > 1) == (parallel > 1)
    assert figures.seconds >= SECONDS
    assert figures.rate == figures.calls / figures.seconds
    assert 0 < figures.median <= figures.slowest_percent <= figures.seconds
    assert figures.cpu_here > 0
    assert figures.cpu_there > 0


async def test_a_stream_to_the_peer_is_what_arrived() -> None:
    service = Counting()
    async with connected(service) as peer:
        figures = await measure_stream(peer, SECONDS, "to the peer")
    assert figures.size == service.taken > 0
    assert figures.size % bench.CHUNK_SIZE == 0
    assert figures.rate == figures.size / figures.seconds


async def test_a_stream_from_the_peer_ends_by_itself() -> None:
    async with connected(Bench()) as peer:
        figures = await measure_stream(peer, SECONDS, "from the peer")
    assert figures.size >= bench.CHUNK_SIZE
    assert figures.seconds >= SECONDS


async def test_nobody_keeps_a_device_sending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_LONGEST", SECONDS)
    async with connected(Bench()) as peer:
        with anyio.fail_after(10):
            await measure_stream(peer, 3600, "from the peer")


@pytest.mark.parametrize("direction", ["to the peer", "from the peer"])
async def test_the_session_is_of_use_after_a_stream_that_was_given_up(direction: Direction) -> None:
    async with connected(Bench()) as peer:
        with anyio.move_on_after(SECONDS):
            await measure_stream(peer, 60, direction)
        assert (await measure_calls(peer, SECONDS)).calls > 0


class Door(mp2p.Service):
    async def open(self) -> None: ...


async def test_a_peer_without_it_is_told_what_to_run() -> None:
    async with connected(Door(), Door) as peer:
        with pytest.raises(NotServed, match=r"run `mp2p serve mp2p\.bench:Bench --allow KEY` there"):
            await check_served(peer)
    async with connected(Bench()) as peer:
        await check_served(peer)
