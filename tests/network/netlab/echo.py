"""Streams and messages between two hosts: `python echo.py LOOP TRANSPORT` serves, with a key it calls that.

The server sends back what it gets on every stream and in every message, but for a stream that begins with
"wait", which it reads no further. The caller checks every byte of it. Each prints JSON lines.
"""

from __future__ import annotations

import json
import random
import sys
from functools import partial

import anyio

import mp2p_core
from mp2p_core import Closed, Node, Peer, Stream

STREAMS = 30
LARGEST = 300_000
MESSAGES = 4


def say(event: str, **facts: object) -> None:
    """Print an event."""
    print(json.dumps({"event": event, **facts}), flush=True)


async def serve(node: Node) -> None:
    """Send back what one peer sends."""
    say("listening", key=str(node.key))
    peer = await node.accept()
    async with anyio.create_task_group() as group:
        group.start_soon(messages_back, peer)
        try:
            while True:
                group.start_soon(stream_back, await peer.accept_stream())
        except Closed as closed:
            say("closed", code=closed.code)
        group.cancel_scope.cancel()


async def messages_back(peer: Peer) -> None:
    """Send each message back."""
    while True:
        try:
            await peer.send(await peer.receive())
        except Closed:
            return


async def stream_back(stream: Stream) -> None:
    """Send the bytes of a stream back, up to its end."""
    async with stream:
        async for chunk in stream:
            if chunk.startswith(b"wait"):
                await anyio.sleep_forever()
            await stream.send(chunk)


async def call(node: Node, key: str) -> None:
    """Send much at once, and check what comes back, or that the end of the connection is said everywhere."""
    try:
        async with node.connect(key) as peer, anyio.create_task_group() as group:
            group.start_soon(fill, await peer.open_stream())
            async with anyio.create_task_group() as checks:
                checks.start_soon(check_messages, peer)
                for number in range(STREAMS):
                    checks.start_soon(check_stream, await peer.open_stream(), number)
            group.cancel_scope.cancel()
            say("checked", streams=STREAMS, messages=MESSAGES)
    except* Closed:
        assert peer.closed is not None
        say("closed", code=peer.closed.code)


async def fill(stream: Stream) -> None:
    """Send as much as is taken on a stream that nobody reads."""
    await stream.send(b"wait")
    while True:
        await stream.send(bytes(1 << 16))


async def check_messages(peer: Peer) -> None:
    """Check that messages come back whole and in order; the last is as large as may be."""
    sent = [
        random.Random(number).randbytes((1 << 20) >> (2 * number)) for number in reversed(range(MESSAGES))
    ]
    async with anyio.create_task_group() as group:
        for message in sent:
            group.start_soon(peer.send, message)
            assert await peer.receive() == message


async def check_stream(stream: Stream, number: int) -> None:
    """Check that the bytes of a stream come back, and nothing after them."""
    dice = random.Random(number)
    data = dice.randbytes(dice.randrange(LARGEST))
    back = bytearray()

    async def send() -> None:
        await stream.send(data)
        await stream.send_eof()

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        async for chunk in stream:
            back += chunk
    assert bytes(back) == data, f"stream {number}"


async def main(transport: str, key: str = "") -> None:
    """Open a node and serve, or call."""
    allow = "nobody" if key else "any"
    async with mp2p_core.open_node(transports=[transport], allow=allow, idle_timeout=3) as node:
        await (call(node, key) if key else serve(node))


if __name__ == "__main__":
    anyio.run(partial(main, *sys.argv[2:]), backend=sys.argv[1])
