"""How many small messages a second one task can push through `send_datagram`. For information."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.measure import LOOPS, Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import Place

_ROUNDS = 3
_SECONDS = 0.5
_MESSAGE = bytes(64)


def run(place: Place) -> Table:
    """Measure, the event loops taking turns."""
    speed = Speed()
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(_ROUNDS):
        for loop in LOOPS:
            speed.look()
            with children() as start:
                sink = start("rate:sink", place.server, loop=loop, options=place.node)
                contact = sink.hear()
                source = start(
                    "rate:source", place.client, loop=loop, contact=contact, sink=sink.pid,
                    options=place.node,
                )  # fmt: skip
                figures = source.hear()
                figures["received"] = sink.hear()
                found.setdefault(loop, []).append(figures)
    rows: list[list[Any]] = []
    for loop, rounds in found.items():
        at = {key: median([each[key] for each in rounds]) for key in rounds[0]}
        rows.append([
            loop, at["sent"] / at["wall"], at["received"] / at["wall"],
            f"{max(0.0, 1 - at['received'] / at['sent']):.0%}",
            at["source_cpu"] / at["sent"] * 1e6, at["sink_cpu"] / at["received"] * 1e6,
        ])  # fmt: skip
    return Table(
        f"One-way rate ({place.name}): messages of {len(_MESSAGE)} bytes, one task sending without pause",
        ["", "sent/s", "received/s", "lost", "CPU us/sent", "CPU us/received"],
        rows,
        speed,
        notes=[
            f"{_SECONDS} s each, median of {_ROUNDS}; one datagram a message and one system call a datagram",
            "there is no flow control on datagrams: what the receiver does not keep up with is lost",
        ],
    )


def sink(loop: str, options: dict[str, Any]) -> None:
    """Count messages until the peer goes."""
    run_on(loop, _sink, options)


async def _sink(options: dict[str, Any]) -> None:
    from mp2p_core import Closed, open_node

    async with open_node(allow="any", **options) as node:
        say(str(node.contact))
        peer = await node.accept()
        count = 0
        try:
            while True:
                await peer.receive_datagram()
                count += 1
        except Closed:
            say(count)


def source(loop: str, contact: str, sink: int, options: dict[str, Any]) -> None:
    """Send for a while, then say how much that was."""
    run_on(loop, _source, contact, sink, options)


async def _source(contact: str, sink: int, options: dict[str, Any]) -> None:
    from anyio import sleep

    from mp2p_core import open_node

    async with (
        open_node(**options) as node,
        node.connect(contact) as peer,
    ):
        sent, own, its = 0, cpu_time(), cpu_time(sink)
        began = time.perf_counter()
        while time.perf_counter() < began + _SECONDS:
            for _ in range(32):
                await peer.send_datagram(_MESSAGE)
            sent += 32
        wall = time.perf_counter() - began
        await sleep(0.2)  # let the other side empty its queue, so that its CPU is counted whole
        say({"sent": sent, "wall": wall, "source_cpu": cpu_time() - own, "sink_cpu": cpu_time(sink) - its})
