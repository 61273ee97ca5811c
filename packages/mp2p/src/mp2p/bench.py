"""How fast two devices talk: a service that answers, and what measures calls and streams against it.

On one device `mp2p serve mp2p.bench:Bench --allow KEY`, on the other `mp2p bench CONTACT`; in a program the service is
served like any other, and `measure_calls` and `measure_stream` take a peer. Everything goes through typed calls, as an
application's own data would.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import anyio

import mp2p_rpc

__all__ = [
    "CALL_SIZE",
    "CHUNK_SIZE",
    "Bench",
    "CallFigures",
    "Direction",
    "NotServed",
    "StreamFigures",
    "check_served",
    "measure_calls",
    "measure_stream",
]

CALL_SIZE: Final = 64
"""Bytes there, and the same bytes back, of each call that is measured."""
CHUNK_SIZE: Final = 1 << 18
"""Bytes of each item of a stream that is measured."""

_LONGEST: Final = (
    60.0  # s that a caller may have a stream sent to it: whoever may call may not keep a device busy
)
_WARM_UP: Final = 20  # calls before those that count: the first ones load and compile what later ones have

Direction: TypeAlias = Literal["to the peer", "from the peer"]


class NotServed(mp2p_rpc.CallError):
    """The peer serves no `Bench`, or not to this key."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}; run `mp2p serve mp2p.bench:Bench --allow KEY` there, with the key that `mp2p id` shows here"
        )


class Bench(mp2p_rpc.Service):
    """Answers what `mp2p bench` asks."""

    async def echo(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    async def take(self, chunks: AsyncIterator[bytes]) -> int:
        """Take a stream, and return how many bytes came."""
        return sum([len(chunk) async for chunk in chunks])

    async def give(self, seconds: float) -> AsyncIterator[bytes]:
        """Send a stream for so many seconds, 60 at most."""
        for chunk in _chunks(min(seconds, _LONGEST)):
            yield chunk

    async def cpu_time(self) -> float:
        """Return the processor time that this process has used so far, in seconds."""
        return time.process_time()


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Calls that were made for some time, `parallel` of them under way at any moment. Times are in seconds.

    `cpu_here` and `cpu_there` are processor seconds of the two processes.
    """

    parallel: int
    calls: int
    seconds: float
    median: float
    slowest_percent: float
    """What 99 of 100 calls took at most."""
    cpu_here: float
    cpu_there: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """A stream that was sent for some time, from the first call to the last byte at its receiver."""

    direction: Direction
    size: int
    seconds: float
    cpu_here: float
    cpu_there: float

    @property
    def rate(self) -> float:
        """Bytes a second."""
        return self.size / self.seconds


async def check_served(peer: mp2p_rpc.Peer) -> None:
    """Raise `NotServed` unless `peer` serves a `Bench` to this key. One that serves nothing may leave this waiting."""
    try:
        await peer.client(Bench).cpu_time()
    except (mp2p_rpc.UnknownMethod, mp2p_rpc.NotAllowed) as error:
        raise NotServed(str(error)) from error


async def measure_calls(peer: mp2p_rpc.Peer, seconds: float, *, parallel: int = 1) -> CallFigures:
    """Call `Bench.echo` of `peer` for so many seconds, from `parallel` tasks (100 at most: what a peer takes).

    Raises what calls raise.
    """
    bench = peer.client(Bench)
    data = bytes(CALL_SIZE)
    for _ in range(_WARM_UP):
        await bench.echo(data)
    took: list[float] = []

    async def call(until: float) -> None:
        began = time.perf_counter()
        while began < until:
            await bench.echo(data)
            now = time.perf_counter()
            took.append(now - began)
            began = now

    cpu = await _Processors.of(bench)
    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(parallel):
            group.start_soon(call, began + seconds)
    lasted = time.perf_counter() - began
    here, there = await cpu.used(bench)
    return CallFigures(
        parallel, len(took), lasted, statistics.median(took), sorted(took)[len(took) * 99 // 100], here, there
    )


async def measure_stream(peer: mp2p_rpc.Peer, seconds: float, direction: Direction) -> StreamFigures:
    """Send a stream to `peer`, or have it send one (for 60 seconds at most), in chunks of 256 KiB.

    Raises what calls raise.
    """
    bench = peer.client(Bench)
    cpu = await _Processors.of(bench)
    began = time.perf_counter()
    if direction == "to the peer":
        size = await bench.take(_sent(seconds))
    else:
        size = sum([len(chunk) async for chunk in bench.give(seconds)])
    lasted = time.perf_counter() - began
    here, there = await cpu.used(bench)
    return StreamFigures(direction, size, lasted, here, there)


async def _sent(seconds: float) -> AsyncIterator[bytes]:
    for chunk in _chunks(seconds):
        yield chunk


def _chunks(seconds: float) -> Iterator[bytes]:
    chunk = bytes(CHUNK_SIZE)
    until = time.perf_counter() + seconds
    yield chunk
    while time.perf_counter() < until:
        yield chunk


@dataclass(frozen=True, slots=True)
class _Processors:
    """What both processes had used of their processors at one moment, in seconds."""

    here: float
    there: float

    @classmethod
    async def of(cls, bench: Bench) -> _Processors:
        there = await bench.cpu_time()
        return cls(time.process_time(), there)

    async def used(self, bench: Bench) -> tuple[float, float]:
        """Return what they have used since, here and there."""
        here = time.process_time() - self.here
        return here, await bench.cpu_time() - self.there
