"""Typed calls of 64 bytes, one by one and 64 in flight, and the first from nothing, beside pyzmq CURVE and a floor."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Final

from benchmarks import bare, curve
from benchmarks.measure import LOOPS, Aim, Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import Place

_ROUNDS: Final = 5
_SECONDS: Final = 0.6
_SIZE: Final = 64
_AT_ONCE: Final = 64
_FIRST: Final = 15
"""Times that everything is set up anew."""
_PEER: Final = "pyzmq CURVE"
_FLOOR: Final = "floor, uvloop"

Call = Callable[[bytes], Awaitable[bytes]]


def run(place: Place) -> Table:
    """Measure, all kinds taking turns."""
    place = place.unpinned  # a library that works with several threads has several cores for them
    speed = Speed()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    with children() as start:
        clients = {}
        for loop in LOOPS:
            server = start("rpc:mp2p_server", place.server, loop=loop, options=place.node)
            clients[f"mp2p, {loop}"] = start(
                "rpc:mp2p_client", place.client, loop=loop, contact=server.hear(), server=server.pid,
                options=place.node,
            )  # fmt: skip
        server = start("rpc:zmq_server", place.server, host=place.server.host)
        clients[_PEER] = start("rpc:zmq_client", place.client, **server.hear(), server=server.pid)
        server = start("rpc:floor_server", place.server, host=place.server.host)
        clients[_FLOOR] = start("rpc:floor_client", place.client, **server.hear(), server=server.pid)
        for client in clients.values():
            client.hear()
        for what, rounds in (("first", _FIRST), ("one", _ROUNDS), ("many", _ROUNDS)):
            for turn in range(1 + rounds):
                speed.look()
                for name, client in clients.items():
                    figures = client.ask(what)
                    if turn:  # the first one warms up
                        found.setdefault(name, {}).setdefault(what, []).append(figures)
    at = {
        name: {
            what: {key: median([each[key] for each in all_]) for key in all_[0]}
            for what, all_ in kinds.items()
        }
        for name, kinds in found.items()
    }
    rows = [
        [
            name, each["one"]["rate"], max(one["rate"] for one in found[name]["one"]),
            each["one"]["client"] + each["one"]["server"], each["many"]["rate"],
            max(one["rate"] for one in found[name]["many"]), each["many"]["client"] + each["many"]["server"],
            each["many"]["client"], each["many"]["server"], "" if name == _FLOOR else each["first"]["wall"] * 1e3,
        ]
        for name, each in at.items()
    ]  # fmt: skip
    one, many, first = (at["mp2p, uvloop"][what] for what in ("one", "many", "first"))
    return Table(
        f"Calls ({place.name}): {_SIZE} bytes there and back, a second; CPU us of both ends; first reply in ms",
        ["", "in turn", "fastest", "CPU", "64 at once", "fastest", "CPU", "client's", "server's", "first"],
        rows,
        speed,
        [
            Aim("time of one call on uvloop", 1e6 / one["rate"], 1e6 / 2700, "us"),
            Aim("time a call takes of 64 at once on uvloop", 1e6 / many["rate"], 1e6 / 25000, "us"),
            Aim("CPU a call of 64 at once on uvloop", many["client"] + many["server"], 60, "us"),
            Aim("first reply from nothing on uvloop", first["wall"] * 1e3, 3.0, "ms"),
        ],
        [
            f"medians of {_ROUNDS} rounds of {_SECONDS:g} s, the kinds taking turns; first: of {_FIRST}",
            "mp2p: a method with one argument of bytes; argument and result are validated at both ends",
            "first: open a node, draw its key, connect by the server's contact, call; pyzmq: context, key, socket",
            "pyzmq: asyncio on uvloop, DEALER to ROUTER over TCP, bytes as they are",
            "floor: typed calls in sealed datagrams over a plain UDP socket, and nothing else that a protocol needs",
        ],
    )


# --- the processes ------------------------------------------------------------------------------------


def _echo() -> Any:
    import mp2p_rpc

    class Echo(mp2p_rpc.Service):
        async def echo(self, data: bytes) -> bytes:
            return data

    return Echo


def mp2p_server(loop: str, options: dict[str, Any]) -> None:
    """Answer every call of everybody."""
    run_on(loop, _mp2p_server, options)


async def _mp2p_server(options: dict[str, Any]) -> None:
    import mp2p_rpc

    async with mp2p_rpc.open_node(**options) as node:
        say(str(node.contact))
        await node.serve(_echo()(), allow="any")


def mp2p_client(loop: str, contact: str, server: int, options: dict[str, Any]) -> None:
    """Run a round for each line on standard input."""
    import mp2p_rpc

    interface = _echo()

    @asynccontextmanager
    async def connected() -> AsyncIterator[Call]:
        async with mp2p_rpc.open_node(**options) as node, node.connect(contact) as peer:
            yield peer.client(interface).echo

    run_on(loop, _rounds, connected, server)


def zmq_server(host: str) -> None:
    """Answer every message of everybody."""
    run_on("uvloop", _zmq_server, host)


async def _zmq_server(host: str) -> None:
    import zmq
    import zmq.asyncio

    router = zmq.asyncio.Context().socket(zmq.ROUTER)
    curve.serve(router, host)
    while True:
        await router.send_multipart(await router.recv_multipart())


def zmq_client(address: str, key: str, server: int) -> None:
    """Run a round for each line on standard input."""
    import asyncio

    import zmq
    import zmq.asyncio

    @asynccontextmanager
    async def connected() -> AsyncIterator[Call]:
        with zmq.asyncio.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            curve.connect(dealer, address, key)
            waiting: dict[bytes, asyncio.Future[bytes]] = {}
            number = 0

            async def read() -> None:
                while True:
                    which, data = await dealer.recv_multipart()
                    waiting.pop(which).set_result(data)

            async def call(data: bytes) -> bytes:
                nonlocal number
                number += 1
                which = number.to_bytes(4, "little")
                answer = waiting[which] = asyncio.get_running_loop().create_future()
                await dealer.send_multipart([which, data])
                return await answer

            reader = asyncio.ensure_future(read())
            yield call
            reader.cancel()

    run_on("uvloop", _rounds, connected, server)


async def _echoed(data: bytes) -> bytes:
    return data


def floor_server(host: str) -> None:
    """Answer every call of one client at a time."""
    run_on("uvloop", bare.serve, host, _echoed)


def floor_client(host: str, port: int, server: int) -> None:
    """Run a round for each line on standard input."""
    run_on("uvloop", _rounds, partial(bare.connected, host, port), server)


async def _rounds(connected: Callable[[], AbstractAsyncContextManager[Call]], server: int) -> None:
    from anyio import create_task_group

    data = bytes(range(_SIZE))
    async with connected() as call:

        async def loop(until: float) -> None:
            nonlocal calls
            while time.perf_counter() < until:
                assert await call(data) == data
                calls += 1

        calls = 0
        await loop(time.perf_counter() + _SECONDS)
        say("ready")
        # Blocks the loop between rounds: some seconds at most, so that no session falls idle.
        while what := sys.stdin.readline().strip():
            calls = 0
            began, own, its = time.perf_counter(), cpu_time(), cpu_time(server)
            if what == "first":
                async with connected() as fresh:
                    assert await fresh(data) == data
                    say({"wall": time.perf_counter() - began})
                continue
            async with create_task_group() as tasks:
                for _ in range(_AT_ONCE if what == "many" else 1):
                    tasks.start_soon(loop, began + _SECONDS)
            wall, own, its = time.perf_counter() - began, cpu_time() - own, cpu_time(server) - its
            say({"rate": calls / wall, "client": own / calls * 1e6, "server": its / calls * 1e6})
