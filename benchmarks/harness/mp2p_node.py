"""The mp2p row for a harness that measures many peers on the same work.

Copy this file into the harness's `peers/` folder. It needs `serve(cx)` and `Client(cx)` with `open`, `call`
and `close`, `Publisher(cx)` with `open`, `send` and `close`, and `subscribe(cx, on_message)`; `cx` gives the mode
and `ready()`. In the mode "rpc" a call is a typed call of mp2p-rpc, arguments and results validated at both ends,
by a key that the server lists (one of 32: a key that connects again and again within a second has to wait). In any
other mode it is a reliable message there and one back over a live connection: they arrive in order, and so do the
answers.
Publishing is of a repaired topic of bytes, through the API of mp2p-rpc. Server and publisher have a fixed key, by
which clients and subscribers find them. MP2P_LOOP=asyncio in the environment leaves out uvloop.

The harness's publisher sleeps 0.2 ms, again and again, while it is too far ahead. uvloop counts milliseconds and would
not sleep at all, but take the subscribers' CPU; so there it is asyncio, which sleeps at least as long.
"""

import asyncio
import functools
import hashlib
import itertools
import os
import sys
from collections import deque

import mp2p_core

_PUBLISHES = any('"role": "pub"' in each for each in sys.argv[1:])
LOOP = os.environ.get("MP2P_LOOP", "asyncio" if _PUBLISHES else "uvloop")
IMPORTS = "import mp2p_rpc"

_SERVER = mp2p_core.Identity.from_seed(hashlib.sha256(b"benchmark server").digest())
_CLIENTS = [mp2p_core.Identity.from_seed(hashlib.sha256(b"client %d" % n).digest()) for n in range(32)]
_next_client = itertools.cycle(_CLIENTS).__next__


def _node(**options):
    # One hop: the two ends of a veth pair.
    return mp2p_core.open_node(transports=["v4"], reach="link", **options)


def _contact():
    from mp2p_core.plugins import load_transports

    v4 = load_transports().transports["v4"]
    group = v4.derive_address(_SERVER.public.raw, mp2p_core.Reach.LINK, 1024)
    return f"mp2p:{_SERVER.public}?at=v4:{v4.format_address(group)}"


async def serve(cx):
    await (_serve_calls if cx.mode == "rpc" else _serve_messages)(cx)


async def _serve_messages(cx):
    async def answer(peer):
        try:
            while True:
                request = await peer.receive()
                await peer.send(request if len(request) <= 4096 else b"ok")
        except mp2p_core.Closed:
            pass

    tasks = set()
    async with _node(key=_SERVER, allow="any") as node:
        cx.ready()
        while True:
            task = asyncio.ensure_future(answer(await node.accept()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


def Client(cx):  # noqa: N802  # the name that the harness calls
    return _Calls() if cx.mode == "rpc" else _Messages()


class _Messages:
    def __init__(self):
        self._waiting = deque()

    async def open(self):
        self._opened = _node()
        node = await self._opened.__aenter__()
        self._connecting = node.connect(_contact())
        self._peer = await self._connecting.__aenter__()
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self):
        while True:
            answer = await self._peer.receive()
            self._waiting.popleft().set_result(answer)

    async def call(self, data):
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await self._peer.send(data)
        return await future

    async def close(self):
        self._reader.cancel()
        await self._connecting.__aexit__(None, None, None)
        await self._opened.__aexit__(None, None, None)


def _typed_node(**options):
    import mp2p_rpc

    return mp2p_rpc.open_node(transports=["v4"], reach="link", **options)


@functools.cache
def _echo():
    import mp2p_rpc

    class Echo(mp2p_rpc.Service):
        async def echo(self, data: bytes) -> bytes:
            return data if len(data) <= 4096 else b"ok"

    return Echo


async def _serve_calls(cx):
    async with _typed_node(key=_SERVER) as node:
        cx.ready()
        await node.serve(_echo()(), allow=[str(each.public) for each in _CLIENTS])


class _Calls:
    async def open(self):
        self._opened = _typed_node(key=_next_client())
        node = await self._opened.__aenter__()
        self._connecting = node.connect(_contact())
        self.call = (await self._connecting.__aenter__()).client(_echo()).echo

    async def close(self):
        await self._connecting.__aexit__(None, None, None)
        await self._opened.__aexit__(None, None, None)


def _topic():
    import mp2p_rpc

    return mp2p_rpc.Topic("bench/pub", bytes)


class Publisher:
    def __init__(self, cx):  # noqa: ARG002  # the shape that the harness calls
        self._opened = _typed_node(key=_SERVER)

    async def open(self):
        node = await self._opened.__aenter__()
        self._publishing = node.publish(_topic(), allow="any")
        self.send = (await self._publishing.__aenter__()).send

    async def close(self):
        await self._publishing.__aexit__(None, None, None)
        await self._opened.__aexit__(None, None, None)


async def subscribe(cx, on_message):
    import mp2p_rpc

    async with _typed_node() as node, node.subscribe(_contact(), _topic(), history=0) as feed:
        cx.ready()
        while items := await feed.take():
            for item in items:
                if isinstance(item, mp2p_rpc.Message):  # a gap shows as loss
                    on_message(item.value)
