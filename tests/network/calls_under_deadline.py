"""Calls over one session, for as long as the test says: `TRANSPORT` serves, `TRANSPORT KEY SECONDS` calls.

The caller makes one call every half second, each of which has `DEADLINE` seconds; the method is idempotent, so a
call that breaks off may be made again within them. It prints a JSON line for every call that took longer than
`SLOW`, and in the end how many there were, how many failed, and what the node has counted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from functools import partial

import anyio

import mp2p

DEADLINE = 30.0
SLOW = 1.0
PAUSE = 0.5


def rejoins(node: mp2p.Node) -> int:
    """Count how often a node has left and joined again."""
    return sum(each.rejoins for channel in node.status() for each in channel.interfaces)


class Echo(mp2p.Service):
    """Gives back what it gets, and tells how its node does."""

    def __init__(self, node: mp2p.Node) -> None:
        self._node = node

    @mp2p.method(idempotent=True)
    async def counted(self) -> dict[str, int]:
        """Return the node's counters, and how often it has joined again."""
        return {**self._node.counters, "rejoins": rejoins(self._node)}

    @mp2p.method(idempotent=True)
    async def echo(self, number: int) -> int:
        """Return the number."""
        return number


def say(event: str, **facts: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, **facts}), flush=True)


async def serve(transport: str) -> None:
    """Serve until the end."""
    async with mp2p.open_node(mp2p.Identity.generate(), transports=[transport]) as node:
        async with node.serving(Echo(node), allow="any"):
            say("listening", key=str(node.key), groups=node.addresses)
            await anyio.sleep_forever()


async def call(transport: str, key: str, seconds: str) -> None:
    """Call again and again over one session."""
    calls = failed = 0
    slow: list[float] = []
    async with (
        mp2p.open_node(mp2p.Identity.generate(), transports=[transport]) as node,
        node.connect(key, timeout=DEADLINE) as peer,
    ):
        echo = peer.client(Echo)
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            calls += 1
            began = time.monotonic()
            try:
                with anyio.fail_after(DEADLINE):
                    assert await echo.echo(calls) == calls
            except (TimeoutError, mp2p.CallError, mp2p.Mp2pError) as error:
                failed += 1
                say("failed", call=calls, error=f"{type(error).__name__}: {error}")
                if peer.closed is not None:
                    break
            took = time.monotonic() - began
            if took > SLOW:
                slow.append(took)
                say("slow", call=calls, seconds=round(took, 2))
            await anyio.sleep(PAUSE)
        status = peer.status()
        server = await echo.counted()
        say(
            "done",
            calls=calls,
            failed=failed,
            outages=len(slow),
            longest=round(max(slow, default=0.0), 2),
            slow=round(sum(slow), 1),
            rtt=status.rtt,
            lost=status.packets_lost,
            sent=status.packets_sent,
            rekeys=status.rekeys,
            connected_for=round(status.connected_for, 1),
            rejoins={"caller": rejoins(node), "server": server.pop("rejoins")},
            caller=_of_handshakes(node.counters),
            server=_of_handshakes(server),
        )


def _of_handshakes(counters: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counters.items() if not name.startswith("data-")}


if __name__ == "__main__":
    loop, *words = sys.argv[1:]
    anyio.run(partial(serve if len(words) == 1 else call, *words), backend=loop)
