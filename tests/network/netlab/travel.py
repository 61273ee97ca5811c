"""A file and a stream of items at once: `travel.py serve FOLDER`, or `travel.py call TICKER FILES FILE`.

Serves the items and takes files with a node each. The caller has one node, and prints JSON lines: how far the file
is, and in the end what became of both.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

import anyio

import mp2p

INTERVAL = 0.01
AFTER = 100
"""Items that are awaited once the file is there."""


class Ticker(mp2p.Service):
    """Counts."""

    @mp2p.method()
    async def ticks(self) -> AsyncIterator[int]:
        """Count without end."""
        for number in itertools.count():
            yield number
            await anyio.sleep(INTERVAL)


def say(event: str, **facts: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, **facts}), flush=True)


async def serve(folder: str) -> None:
    """Serve until the end."""
    async with (
        mp2p.open_node(mp2p.Identity.generate(), allow="any") as files,
        mp2p.open_node(mp2p.Identity.generate()) as ticker,
        ticker.serving(Ticker(), allow="any"),
    ):
        say("listening", ticker=str(ticker.key), files=str(files.key))
        await mp2p.receive_files(await files.accept(), folder)


async def call(ticker: str, files: str, file: str) -> None:
    """Send the file, and count along until it is there and a little longer."""
    arrived = anyio.Event()
    counted, longest = 0, 0.0

    async def count(peer: mp2p.Peer) -> None:
        nonlocal counted, longest
        left = AFTER
        last = time.monotonic()
        async with aclosing(peer.client(Ticker).ticks()) as ticks:
            async for number in ticks:
                assert number == counted, (number, counted)
                counted += 1
                now = time.monotonic()
                longest, last = max(longest, now - last), now
                left -= arrived.is_set()
                if not left:
                    return

    async with (
        mp2p.open_node(mp2p.Identity.generate()) as node,
        node.connect(ticker) as first,
        node.connect(files) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(count, first)
        done = await mp2p.send_file(second, file, observer=lambda event: say("progress", bytes=event.written))
        arrived.set()
        say("arrived", moved=done.moved, sha256=done.digest.hex(), counted=counted)
    connects = node.counters["sessions-connected"]
    replaced = node.counters.get("sessions-replaced", 0)
    say("done", connects=connects, replaced=replaced, longest_pause=round(longest, 2))


if __name__ == "__main__":
    loop, part, *words = sys.argv[1:]
    anyio.run(partial(serve if part == "serve" else call, *words), backend=loop)
