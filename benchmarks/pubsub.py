"""One publisher, many subscribers, beside pyzmq CURVE: messages a second, and what one more subscriber costs."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks import curve
from benchmarks.measure import LOOPS, Aim, Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import Place, receive_apart

_ROUNDS = 3
_SECONDS = 1.0
_SMALL = bytes(64)
_AHEAD = 1024
_LARGE = bytes(1024)
_A_SECOND = 500
_BURST = 10
_MANY = (1, 4, 16)
_PEER = "pyzmq CURVE"
_KINDS = (*(f"mp2p, {loop}" for loop in LOOPS), _PEER)


def run(place: Place) -> Table:
    """Measure, the kinds taking turns."""
    speed = Speed()
    closed: dict[str, list[dict[str, float]]] = {}
    for _ in range(_ROUNDS):
        for kind in _KINDS:
            speed.look()
            closed.setdefault(kind, []).append(_measure(place, kind, 1, paced=False))
    rows: list[list[Any]] = []
    for kind, rounds in closed.items():
        at = {key: median([each[key] for each in rounds]) for key in rounds[0]}
        rows.append(_row(f"64 bytes to 1: {kind}", at))
    best = max(row[1] for row in rows[: len(LOOPS)])
    aims = [Aim("time a message of 64 bytes takes on the fastest loop", 1e6 / best, 6.67, "us")]
    if place.client.namespace:
        with receive_apart(place):
            for kind in (_KINDS[0], _PEER):
                found = {count: _measure(place.unpinned, kind, count, paced=True) for count in _MANY}
                for count, at in found.items():
                    rows.append(_row(f"1 KiB, {_A_SECOND}/s, to {count}: {kind}", at))
                if kind != _PEER:
                    cost = {count: at["cpu"] / at["sent"] for count, at in found.items()}
                    wire = max(at["wire"] / at["sent"] for at in found.values())
                    aims += [
                        Aim(
                            f"publisher's CPU with 16, of that with 1, {kind}",
                            cost[16] / cost[1],
                            1.3,
                            "times",
                        ),
                        Aim("bytes leaving the publisher for 1 KiB, at most", wire, 1180, "bytes"),
                    ]
    return Table(
        f"Publish and subscribe ({place.name})",
        ["", "messages/s", "lost", "CPU us/sent", "CPU us/received", "bytes/message"],
        rows,
        speed,
        aims,
        [
            f"64 bytes: at most {_AHEAD} ahead of the subscriber, which is known without the library; "
            f"{_SECONDS:g} s each, median of {_ROUNDS}",
            f"1 KiB: bursts of {_BURST}, two seconds; the receiving kernel works in a thread of its own",
            "mp2p: a repaired topic of bytes, every message signed; pyzmq: blocking PUB and SUB over TCP",
            "bytes: everything that the publisher's interface sends, of Ethernet on; on loopback what subscribers "
            "send counts, too",
        ],
    )


def _row(name: str, at: dict[str, float]) -> list[Any]:
    lost = 1 - at["received"] / at["expected"]
    return [
        name, at["sent"] / at["wall"], f"{max(lost, 0.0):.0%}", at["cpu"] / at["sent"] * 1e6,
        at["subscriber_cpu"] / at["received"] * 1e6, at["wire"] / at["sent"],
    ]  # fmt: skip


def _measure(place: Place, kind: str, count: int, *, paced: bool) -> dict[str, float]:
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as shared, children() as start:
        shared.truncate(4096)
        peer = kind == _PEER
        side = "zmq" if peer else "mp2p"
        options: dict[str, Any] = {"host": place.client.host} if peer else {
            "loop": kind.split(", ")[1], "options": place.node
        }  # fmt: skip
        publisher = start(
            f"pubsub:{side}_publisher", place.client, path=shared.name, count=count, paced=paced, **options
        )
        where = publisher.hear()
        for index in range(count):
            if not peer:
                options["contact"] = where
            arguments = where if peer else options
            start(f"pubsub:{side}_subscriber", place.server, path=shared.name, index=index, **arguments)
        found: dict[str, float] = publisher.hear()
    return found


class Counts:
    """How many messages each subscriber has had, where every process can see it."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self.values = memoryview(mmap.mmap(file.fileno(), 4096)).cast("Q")

    def subscriber(self, index: int) -> Callable[[], None]:
        """Make what a subscriber calls for each message."""
        values = self.values
        values[256 + index] = os.getpid()
        had = 0

        def count() -> None:
            nonlocal had
            had += 1
            values[index] = had

        return count

    def least(self, count: int) -> int:
        """Return how many the slowest of so many has had."""
        return self.values[0] if count == 1 else min(self.values[:count].tolist())


class Meter:
    """Time, CPU and bytes from now on."""

    def __init__(self, counts: Counts, count: int) -> None:
        self._counts = counts
        self._count = count
        self._pids = counts.values[256 : 256 + count].tolist()
        self._before = counts.values[:count].tolist()
        self._cpu, self._theirs, self._wire = cpu_time(), sum(map(cpu_time, self._pids)), _bytes_sent()
        self.began = time.perf_counter()

    def least(self) -> int:
        """Return how many the slowest subscriber has had since."""
        return self._counts.least(self._count) - min(self._before)

    def result(self, sent: int, ended: float) -> dict[str, float]:
        """Return what it came to."""
        had = sum(self._counts.values[: self._count].tolist()) - sum(self._before)
        return {
            "sent": sent, "expected": sent * self._count, "received": had, "wall": ended - self.began,
            "cpu": cpu_time() - self._cpu, "subscriber_cpu": sum(map(cpu_time, self._pids)) - self._theirs,
            "wire": _bytes_sent() - self._wire,
        }  # fmt: skip


def _bytes_sent() -> int:
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    sent = {
        name.strip(): int(values.split()[8]) for name, _, values in (line.partition(":") for line in lines)
    }
    others = [value for name, value in sent.items() if name != "lo"]
    return sum(others) if any(others) else sent["lo"]


async def _drive(send: Callable[[bytes], Awaitable[Any]], counts: Counts, count: int, paced: bool) -> None:
    from anyio import sleep

    while not all(counts.values[:count].tolist()):  # until everybody hears
        await send(_SMALL)
        await sleep(0.02)
    await sleep(0.5)
    meter = Meter(counts, count)
    sent = 0
    if paced:
        while sent < 2 * _A_SECOND:
            for _ in range(_BURST):
                await send(_LARGE)
            sent += _BURST
            await sleep(max(0.0, meter.began + sent / _A_SECOND - time.perf_counter()))
    else:
        while time.perf_counter() < meter.began + _SECONDS:
            for _ in range(16):
                await send(_SMALL)
            sent += 16
            patience = time.perf_counter() + 1
            while sent - meter.least() > _AHEAD - 16 and time.perf_counter() < patience:  # noqa: ASYNC110 -- no event tells
                await sleep(0.0002)
    ended = time.perf_counter()
    while meter.least() < sent and time.perf_counter() < ended + 1:  # noqa: ASYNC110 -- no event tells
        await sleep(0.001)
    say(meter.result(sent, ended))


def mp2p_publisher(loop: str, path: str, count: int, paced: bool, options: dict[str, Any]) -> None:
    """Publish, as soon as everybody is there."""
    run_on(loop, _mp2p_publisher, path, count, paced, options)


async def _mp2p_publisher(path: str, count: int, paced: bool, options: dict[str, Any]) -> None:
    import mp2p_rpc

    topic = mp2p_rpc.Topic("benchmark", bytes)
    async with mp2p_rpc.open_node(**options) as node, node.publish(topic, allow="any") as pub:
        say(str(node.contact))
        await _drive(pub.send, Counts(path), count, paced)


def mp2p_subscriber(loop: str, contact: str, path: str, index: int, options: dict[str, Any]) -> None:
    """Count messages until killed."""
    run_on(loop, _mp2p_subscriber, contact, path, index, options)


async def _mp2p_subscriber(contact: str, path: str, index: int, options: dict[str, Any]) -> None:
    import mp2p_rpc

    count = Counts(path).subscriber(index)
    async with (
        mp2p_rpc.open_node(**options) as node,
        node.subscribe(contact, "benchmark", type=bytes, history=0) as feed,
    ):
        async for item in feed:
            if isinstance(item, mp2p_rpc.Message):
                count()


def zmq_publisher(host: str, path: str, count: int, paced: bool) -> None:
    """Publish, as soon as everybody is there."""
    import zmq

    socket = zmq.Context().socket(zmq.PUB)
    socket.sndhwm = 10_000
    curve.serve(socket, host)

    async def send(message: bytes) -> None:
        socket.send(message)

    run_on("asyncio", _drive, send, Counts(path), count, paced)


def zmq_subscriber(address: str, key: str, path: str, index: int) -> None:
    """Count messages until killed."""
    import zmq

    socket = zmq.Context().socket(zmq.SUB)
    socket.rcvhwm = 10_000
    socket.subscribe(b"")
    curve.connect(socket, address, key)
    count = Counts(path).subscriber(index)
    while True:
        socket.recv()
        count()
