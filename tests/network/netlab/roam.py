"""A stream that goes on while its path dies: `python roam.py LOOP writes|reads [KEY]` serves, or calls KEY.

Opens IPv4 and IPv6. Whoever writes goes on until the connection has changed its path, and for two more MiB. Whoever
reads sends back the SHA-256 of everything. Each prints JSON lines.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from functools import partial

import anyio

import mp2p_core
from mp2p_core import Node, Peer

CHUNK = 1 << 16
AFTER = 2 << 20


def say(event: str, **facts: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, **facts}), flush=True)


async def write(peer: Peer) -> None:
    """Write until the path has changed and AFTER more bytes, and compare the digest that comes back."""
    dice, digest = random.Random(1), hashlib.sha256()
    before = peer.path
    left = AFTER
    async with await peer.open_stream() as stream:
        say("writing", path=before)
        while left > 0:
            chunk = dice.randbytes(CHUNK)
            digest.update(chunk)
            await stream.send(chunk)
            if peer.path != before:
                left -= CHUNK
        await stream.send_eof()
        assert await peer.receive() == digest.digest()


async def read(peer: Peer) -> None:
    """Read a stream to its end, and say what it was."""
    digest = hashlib.sha256()
    async with await peer.accept_stream() as stream:
        async for chunk in stream:
            digest.update(chunk)
    await peer.send(digest.digest())


async def main(part: str, key: str = "") -> None:
    """Open a node and call, or be called."""
    async with mp2p_core.open_node(allow="nobody" if key else "any") as node:
        if key:
            async with node.connect(key) as peer:
                await both(node, peer, part)
        else:
            say("listening", key=str(node.key))
            await both(node, await node.accept(), part)


async def both(node: Node, peer: Peer, part: str) -> None:
    """Do this side's part, and wait until the other one has done its."""
    await (write if part == "writes" else read)(peer)
    await peer.send(b"done")
    assert await peer.receive() == b"done"
    rekeys = node.counters.get("rekeys-done", 0)
    say("done", path=peer.path, changes=node.counters["paths-changed"], rekeys=rekeys)


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[2:]), backend=sys.argv[1])
