"""The memory of idle sessions, and of one session whose reader has stalled."""

from __future__ import annotations

import gc
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import Speed, Table, children, run_on, say
from benchmarks.network import Place

if TYPE_CHECKING:
    from mp2p_core import Peer

_SESSIONS: Final = 1000
_OF_ONE_KEY: Final = 16
"""A node keeps so many sessions of one key."""
_LOOP: Final = "asyncio"
_MIB: Final = 1 << 20
_STALLS: Final = {
    "1 stream, nothing read": (1, 0),
    "100 streams, nothing read": (100, 0),
    "1 stream, 256 MiB read": (1, 256 * _MIB),
    "100 streams, 256 MiB read": (100, 256 * _MIB),
}
"""How many streams are sent on without pause, and how much of them is read at full speed before nothing is."""


def run(place: Place) -> Table:
    """Measure what sessions add to the resident memory of a process that has a node open."""
    speed = Speed()
    speed.look()
    rows: list[list[Any]] = []
    with children() as start:
        server = start("memory:idle_server", place.server, options=place.node)
        contact = server.hear()
        start("memory:idle_clients", place.client, contact=contact, options=place.node)
        held = server.hear(patience=200)
    rows.append([f"{_SESSIONS} idle sessions in one node", "-", held / 1e6])
    rows.append(["one of them", "-", held / _SESSIONS / 1e6])
    for name, (streams, read) in _STALLS.items():
        speed.look()
        with children() as start:
            reader = start("memory:stalled_reader", place.server, read=read, options=place.node)
            contact = reader.hear()
            sender = start(
                "memory:sender", place.client, contact=contact, streams=streams, options=place.node
            )
            sender.hear()  # it can send no more
            rows.append([f"a stalled reader: {name}", sender.ask() / 1e6, reader.ask() / 1e6])
    return Table(
        f"Memory ({place.name}): resident, beyond that of a process with an open node, MB",
        ["", "sender's", "receiver's"],
        rows,
        speed,
        notes=[
            f"on {_LOOP}; clients of {_OF_ONE_KEY} sessions a key; the application of each idle session waits for "
            "nothing",
            "docs/protocol.md, section Limits, states the bounds",
        ],
    )


# --- idle sessions ----------------------------------------------------------------------------------------


def idle_server(options: dict[str, Any]) -> None:
    """Accept that many sessions and tell what they hold."""
    run_on(_LOOP, _idle_server, options)


async def _idle_server(options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import open_node

    async with open_node(allow="any", **options) as node:
        say(str(node.contact))
        peers = [await node.accept()]  # what it takes to have one at all does not count
        empty = _resident()
        while len(peers) <= _SESSIONS:
            peers.append(await node.accept())
        await anyio.sleep(1)
        say(_resident() - empty)
        await anyio.sleep_forever()


def idle_clients(contact: str, options: dict[str, Any]) -> None:
    """Connect that many times, by as many keys as it takes."""
    run_on(_LOOP, _idle_clients, contact, options)


async def _idle_clients(contact: str, options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import open_node

    async def connect(count: int) -> None:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(open_node(**options))
            for _ in range(count):
                await stack.enter_async_context(node.connect(contact))
            await anyio.sleep_forever()

    # One is answered at most ten times a second.
    async with anyio.create_task_group() as tasks:
        for first in range(0, _SESSIONS + 1, _OF_ONE_KEY):
            tasks.start_soon(connect, min(_OF_ONE_KEY, _SESSIONS + 1 - first))


# --- a stalled reader -------------------------------------------------------------------------------------


def stalled_reader(read: int, options: dict[str, Any]) -> None:
    """Read so much of what comes, then nothing more; tell what is held when asked."""
    run_on(_LOOP, _stalled_reader, read, options)


async def _stalled_reader(read: int, options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import Stream, open_node

    left = read

    async def take(stream: Stream) -> None:
        nonlocal left
        while left > 0:
            piece = await stream.receive(_MIB)
            left -= len(piece)

    async with open_node(allow="any", **options) as node, anyio.create_task_group() as tasks:
        say(str(node.contact))
        peer = await node.accept()
        empty = _resident()

        async def accept() -> None:
            while True:
                tasks.start_soon(take, await peer.accept_stream())

        tasks.start_soon(accept)
        await _asked()
        say(_resident() - empty)
        await anyio.sleep_forever()


def sender(contact: str, streams: int, options: dict[str, Any]) -> None:
    """Send until nothing more is taken, say so, and tell what is held when asked."""
    run_on(_LOOP, _sender, contact, streams, options)


async def _sender(contact: str, streams: int, options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import open_node

    taken = 0

    async def flood(peer: Peer) -> None:
        nonlocal taken
        stream = await peer.open_stream()
        while True:
            await stream.send(bytes(32768))
            taken += 1

    async with (
        open_node(**options) as node,
        node.connect(contact) as peer,
        anyio.create_task_group() as tasks,
    ):
        empty = _resident()
        for _ in range(streams):
            tasks.start_soon(flood, peer)
        before = -1
        while taken != before:
            before = taken
            await anyio.sleep(1)
        say("full")
        await _asked()
        say(_resident() - empty)
        await anyio.sleep_forever()


async def _asked() -> None:
    import anyio

    await anyio.to_thread.run_sync(sys.stdin.readline)


def _resident() -> int:
    gc.collect()
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
