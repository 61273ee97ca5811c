"""From nothing to the first encrypted reply, beside pyzmq CURVE."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

from benchmarks import curve, floor
from benchmarks.measure import LOOPS, Aim, Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import Place

_TIMES = 20
_FLOOR = "floor, asyncio"
_PEER = "pyzmq CURVE"
_PEER_CHECKED = "pyzmq CURVE, keys checked"


def run(place: Place) -> Table:
    """Measure, one peer after the other in each round."""
    place = place.unpinned  # a library that works with several threads has several cores for them
    speed = Speed()
    found: dict[str, list[dict[str, float]]] = {}
    with children() as start:
        clients = {}
        server = start("set_up:mp2p_server", place.server, options=place.node)
        contact = server.hear()
        for loop in LOOPS:
            clients[f"mp2p, {loop}"] = start(
                "set_up:mp2p_client", place.client, loop=loop, contact=contact, server=server.pid,
                options=place.node,
            )  # fmt: skip
        server = start("set_up:floor_server", place.server, host=place.server.host)
        clients[_FLOOR] = start("set_up:floor_client", place.client, **server.hear(), server=server.pid)
        for name in (_PEER, _PEER_CHECKED):
            server = start(
                "set_up:zmq_server", place.server, host=place.server.host, checked=name == _PEER_CHECKED
            )
            clients[name] = start("set_up:zmq_client", place.client, **server.hear(), server=server.pid)
        for client in clients.values():
            client.hear()
        for _ in range(1 + _TIMES):
            speed.look()
            for name, client in clients.items():
                found.setdefault(name, []).append(client.ask())
    rows: list[list[Any]] = []
    for name, times in found.items():
        first, rest = times[0], times[1:]
        ms = {key: [each[key] * 1e3 for each in rest] for key in first}
        rows.append([
            name, median(ms["wall"]), min(ms["wall"]), median(ms["client"]) + median(ms["server"]),
            median(ms["client"]), median(ms["server"]), first["wall"] * 1e3,
        ])  # fmt: skip
    best = min(rows[: len(LOOPS)], key=lambda row: row[1])
    return Table(
        f"Set-up ({place.name}): nothing to the first encrypted reply, median of {_TIMES}, ms",
        ["", "wall", "fastest", "CPU", "client's", "server's", "first time"],
        rows,
        speed,
        [
            Aim("wall time on asyncio", rows[0][1], 3.0, "ms"),
            Aim(f"wall time on asyncio, of {_PEER}", rows[0][1] / rows[-2][1], 1.0, "times"),
        ],
        [
            f"fastest loop: {best[0]}",
            "floor: what the handshake computes, over a plain UDP socket, and nothing else that a protocol needs",
            "mp2p: open a node, draw its key, connect by the server's contact, one message there and one back; "
            "IPv4 multicast",
            "pyzmq: new context, draw a key, DEALER to ROUTER over TCP, one message there and one back; "
            "keys checked: with a ZAP authenticator that takes any key",
        ],
    )


def mp2p_server(options: dict[str, Any]) -> None:
    """Answer every message of everybody."""
    run_on("asyncio", _mp2p_server, options)


async def _mp2p_server(options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import Closed, Peer, open_node

    async def echo(peer: Peer) -> None:
        try:
            while True:
                await peer.send_datagram(await peer.receive_datagram())
        except Closed:
            pass

    async with (
        open_node(allow="any", **options) as node,
        anyio.create_task_group() as tasks,
    ):
        say(str(node.contact))
        while True:
            tasks.start_soon(echo, await node.accept())


def mp2p_client(loop: str, contact: str, server: int, options: dict[str, Any]) -> None:
    """Set up once for each line on standard input."""
    run_on(loop, _mp2p_client, contact, server, options)


async def _mp2p_client(contact: str, server: int, options: dict[str, Any]) -> None:
    from mp2p_core import open_node

    say("ready")
    while sys.stdin.readline():  # blocks the loop, on which nothing is running then
        began = _Stamp(server)
        async with (
            open_node(**options) as node,
            node.connect(contact) as peer,
        ):
            await peer.send_datagram(b"first")
            assert await peer.receive_datagram() == b"first"
            found = began.until_now()
        say(found)


def floor_server(host: str) -> None:
    """Answer everybody."""
    run_on("asyncio", _floor_server, host)


async def _floor_server(host: str) -> None:
    own = floor.KeyPair(os.urandom(32))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((host, 0))
        say({"host": host, "port": sock.getsockname()[1], "responder": own.public.hex()})
        await floor.answer_forever(sock, own)


def floor_client(host: str, port: int, responder: str, server: int) -> None:
    """Set up once for each line on standard input."""
    run_on("asyncio", _floor_client, host, port, bytes.fromhex(responder), server)


async def _floor_client(host: str, port: int, responder: bytes, server: int) -> None:
    say("ready")
    while sys.stdin.readline():
        began = _Stamp(server)
        await floor.set_up(host, port, responder)
        say(began.until_now())


def zmq_server(host: str, checked: bool) -> None:
    """Answer every message of everybody."""
    import zmq
    import zmq.auth
    from zmq.auth.thread import ThreadAuthenticator

    context = zmq.Context()
    if checked:
        authenticator = ThreadAuthenticator(context)
        authenticator.start()
        authenticator.configure_curve(domain="*", location=zmq.auth.CURVE_ALLOW_ANY)
    router = context.socket(zmq.ROUTER)
    curve.serve(router, host)
    while True:
        router.send_multipart(router.recv_multipart())


def zmq_client(address: str, key: str, server: int) -> None:
    """Set up once for each line on standard input."""
    import zmq

    say("ready")
    while sys.stdin.readline():
        began = _Stamp(server)
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.linger = 0
            curve.connect(dealer, address, key)
            dealer.send(b"first")
            assert dealer.recv() == b"first"
            found = began.until_now()
        say(found)


class _Stamp:
    """A moment on three clocks: wall, this process, the server."""

    def __init__(self, server: int) -> None:
        self._pid = server
        self._server = cpu_time(server)
        self._client = cpu_time()
        self._wall = time.perf_counter()

    def until_now(self) -> dict[str, float]:
        """Return the seconds since."""
        wall, client, server = time.perf_counter(), cpu_time(), cpu_time(self._pid)
        return {"wall": wall - self._wall, "client": client - self._client, "server": server - self._server}
