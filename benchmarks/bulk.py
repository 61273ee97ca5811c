"""Messages of 1 MiB, one at a time, each answered by two bytes, beside pyzmq CURVE and a floor."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from benchmarks import bare, curve
from benchmarks.measure import LOOPS, Aim, Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import Place, as_between_machines

_ROUNDS: Final = 7
_CALLS: Final = 80
_WARM: Final = 40
"""Calls before the first round: packets and windows begin small."""
_SIZE: Final = 1 << 20
_ANSWER: Final = b"ok"
_SINGLY: Final = "mp2p, uvloop, no trains"
_PEER: Final = "pyzmq CURVE"
_FLOOR: Final = "floor, uvloop"


def run(place: Place) -> Table:
    """Measure, all kinds taking turns."""
    place = place.unpinned  # a library that works with several threads has several cores for them
    offload = _segmentation(place)
    speed = Speed()
    found: dict[str, list[dict[str, float]]] = {}
    with children() as start:
        clients = {}
        for name in (*(f"mp2p, {loop}" for loop in LOOPS), _SINGLY):
            how = {"loop": name.split(", ")[1], "trains": name != _SINGLY, "options": place.node}
            server = start("bulk:mp2p_server", place.server, **how)
            clients[name] = start(
                "bulk:mp2p_client", place.client, contact=server.hear(), server=server.pid, **how
            )
        server = start("bulk:zmq_server", place.server, host=place.server.host)
        clients[_PEER] = start("bulk:zmq_client", place.client, **server.hear(), server=server.pid)
        if os.geteuid() == 0:
            server = start("bulk:floor_server", place.server, host=place.server.host)
            clients[_FLOOR] = start("bulk:floor_client", place.client, **server.hear(), server=server.pid)
        for client in clients.values():
            client.hear()
        for _ in range(_ROUNDS):
            for name, client in clients.items():
                speed.look()
                found.setdefault(name, []).append(client.ask("go"))
    at = {
        name: {key: median([each[key] for each in rounds]) for key in rounds[0]}
        for name, rounds in found.items()
    }
    rows = [
        [
            name, each["rate"], max(one["rate"] for one in found[name]), each["client"] + each["server"],
            each["client"], each["server"], each["loop"], each["rate"] / at[_PEER]["rate"],
        ]
        for name, each in at.items()
    ]  # fmt: skip
    fast = at["mp2p, uvloop"]
    return Table(
        f"Bulk ({place.name}): messages of 1 MiB, one at a time, each answered by {len(_ANSWER)} bytes",
        ["", "MB/s", "fastest", "CPU s/GB", "client's", "server's", "loop", "MB/s : pyzmq"],
        rows,
        speed,
        [
            Aim("CPU on uvloop", fast["client"] + fast["server"], 4.0, "s/GB"),
            Aim(f"time on uvloop, of {_PEER}", at[_PEER]["rate"] / fast["rate"], 1.0, "times"),
        ],
        [
            f"medians of {_ROUNDS} rounds of {_CALLS} calls, the kinds taking turns; MB and GB are powers of ten",
            "loop: what the slowest core made of a plain loop just before or after a round, iterations/us; a virtual "
            "core that shares its silicon with others' work falls to half for milliseconds to seconds, and all else "
            "with it: the CPU time of an end is that of the core which it had",
            f"segmentation offload of the interfaces: {offload}",
            "floor: packets of 64 KB, sealed, over a plain UDP socket, and nothing else (root only)",
            "no trains: UDP_SEGMENT and UDP_GRO not used, so one system call for each datagram, as where the "
            "system has neither",
        ],
    )


def _segmentation(place: Place) -> str:
    """Have trains cut as between two machines, and say how they are."""
    if place.client.namespace is None:
        return "as it is: the loopback interface carries trains whole"
    if shutil.which("ethtool") is None:
        return "as it is, for lack of ethtool: trains cross whole, which no link between two machines does"
    for end in (place.client, place.server):
        as_between_machines(str(end.namespace))
    return (
        "off, so that frames of at most 1500 bytes cross; the receiver's (GRO) on, as network cards have it"
    )


# --- the processes ------------------------------------------------------------------------------------


def mp2p_server(loop: str, options: dict[str, Any], *, trains: bool) -> None:
    """Answer every message of one client."""
    _use(trains=trains)
    run_on(loop, _mp2p_server, options)


async def _mp2p_server(options: dict[str, Any]) -> None:
    from mp2p_core import open_node

    async with open_node(allow="any", **options) as node:
        say(str(node.contact))
        peer = await node.accept()
        while True:
            assert len(await peer.receive()) == _SIZE
            await peer.send(_ANSWER)


def mp2p_client(loop: str, contact: str, server: int, options: dict[str, Any], *, trains: bool) -> None:
    """Run a round for each line on standard input."""
    _use(trains=trains)
    run_on(loop, _mp2p_client, contact, server, options)


async def _mp2p_client(contact: str, server: int, options: dict[str, Any]) -> None:
    from mp2p_core import open_node

    async with (
        open_node(**options) as node,
        node.connect(contact) as peer,
    ):

        async def call(data: bytes) -> None:
            await peer.send(data)
            assert await peer.receive() == _ANSWER

        await _rounds(call, server)


def _use(*, trains: bool) -> None:
    if trains:
        return
    from mp2p_udp import channel

    detect = channel.detect
    channel.detect = lambda family: replace(detect(family), segment=False, gro=False)


def zmq_server(host: str) -> None:
    """Answer every message of everybody."""
    run_on("uvloop", _zmq_server, host)


async def _zmq_server(host: str) -> None:
    import zmq
    import zmq.asyncio

    router = zmq.asyncio.Context().socket(zmq.ROUTER)
    curve.serve(router, host)
    while True:
        who, message = await router.recv_multipart()
        assert len(message) == _SIZE
        await router.send_multipart([who, _ANSWER])


def zmq_client(address: str, key: str, server: int) -> None:
    """Run a round for each line on standard input."""
    run_on("uvloop", _zmq_client, address, key, server)


async def _zmq_client(address: str, key: str, server: int) -> None:
    import zmq
    import zmq.asyncio

    dealer = zmq.asyncio.Context().socket(zmq.DEALER)
    curve.connect(dealer, address, key)

    async def call(data: bytes) -> None:
        await dealer.send(data)
        assert await dealer.recv() == _ANSWER

    await _rounds(call, server)


async def _ok(_: bytes) -> bytes:
    return _ANSWER


def floor_server(host: str) -> None:
    """Answer every message of one client."""
    run_on("uvloop", bare.serve, host, _ok, _SIZE)


def floor_client(host: str, port: int, server: int) -> None:
    """Run a round for each line on standard input."""
    run_on("uvloop", _floor_client, host, port, server)


async def _floor_client(host: str, port: int, server: int) -> None:
    async with bare.connected(host, port, _SIZE) as exchange:

        async def call(data: bytes) -> None:
            assert await exchange(data) == _ANSWER

        await _rounds(call, server)


async def _rounds(call: Callable[[bytes], Awaitable[None]], server: int) -> None:
    data = bytes(range(256)) * (_SIZE // 256)
    for _ in range(_WARM):
        await call(data)
    say("ready")
    # Blocks the loop between rounds: some seconds at most, so that no session falls idle.
    while sys.stdin.readline():
        speed = Speed()
        speed.look_everywhere()
        began, own, its = time.perf_counter(), cpu_time(), cpu_time(server)
        for _ in range(_CALLS):
            await call(data)
        wall, own, its = time.perf_counter() - began, cpu_time() - own, cpu_time(server) - its
        speed.look_everywhere()
        sent = _CALLS * _SIZE
        say(
            {
                "rate": sent / wall / 1e6,
                "client": own / sent * 1e9,
                "server": its / sent * 1e9,
                "loop": min(speed.seen),
            }
        )
