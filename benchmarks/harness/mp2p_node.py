"""The mp2p row for a harness that measures many peers on the same work.

Copy this file into the harness's `peers/` folder. It needs `serve(cx)` and `Client(cx)` with `open`, `call`
and `close`; `cx` gives the mode and `ready()`. Calls are frames of length and request number on one stream of a
live connection. The server has a fixed key, by which clients find it.
"""

import asyncio
import hashlib
import struct

import anyio

import mp2p_core

LOOP = "uvloop"
IMPORTS = "import mp2p_core"

_HEAD = struct.Struct("<II")  # length, request number
_SERVER = mp2p_core.Identity.from_seed(hashlib.sha256(b"benchmark server").digest())


def _node(**options):
    # One hop: the two ends of a veth pair.
    return mp2p_core.open_node(transports=["v4"], reach="link", **options)


def _contact():
    from mp2p_core.plugins import load_transports

    v4 = load_transports().transports["v4"]
    group = v4.derive_address(_SERVER.public.raw, mp2p_core.Reach.LINK, 1024)
    return f"mp2p:{_SERVER.public}?at=v4:{v4.format_address(group)}"


class _Frames:
    def __init__(self, stream):
        self._stream = stream
        self._buffer = bytearray()
        self._lock = asyncio.Lock()

    async def send(self, data, number):
        async with self._lock:
            await self._stream.send(_HEAD.pack(len(data), number) + data)

    async def receive(self):
        await self._need(8)
        size, number = _HEAD.unpack_from(self._buffer)
        await self._need(8 + size)
        data = bytes(memoryview(self._buffer)[8 : 8 + size])
        del self._buffer[: 8 + size]
        return data, number

    async def _need(self, size):
        while len(self._buffer) < size:
            self._buffer += await self._stream.receive(1 << 20)


async def serve(cx):
    async def answer(peer):
        try:
            frames = _Frames(await peer.accept_stream())
            while True:
                request, number = await frames.receive()
                await frames.send(request if len(request) <= 4096 else b"ok", number)
        except (mp2p_core.Closed, anyio.EndOfStream):
            pass

    tasks = set()
    async with _node(key=_SERVER, allow="any") as node:
        cx.ready()
        while True:
            task = asyncio.ensure_future(answer(await node.accept()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


class Client:
    def __init__(self, cx):  # noqa: ARG002  # the shape that the harness calls
        self._next = 0
        self._waiting = {}

    async def open(self):
        self._opened = _node()
        node = await self._opened.__aenter__()
        self._connecting = node.connect(_contact())
        peer = await self._connecting.__aenter__()
        self._frames = _Frames(await peer.open_stream())
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self):
        while True:
            reply, number = await self._frames.receive()
            self._waiting.pop(number).set_result(reply)

    async def call(self, data):
        self._next = number = (self._next + 1) & 0xFFFFFFFF
        self._waiting[number] = future = asyncio.get_running_loop().create_future()
        await self._frames.send(data, number)
        return await future

    async def close(self):
        self._reader.cancel()
        await self._connecting.__aexit__(None, None, None)
        await self._opened.__aexit__(None, None, None)
