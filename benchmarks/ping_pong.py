"""One encrypted message there, one back, and again: beside raw UDP that seals and opens as often."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.measure import LOOPS, Aim, Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import Place

_ROUNDS = 15
_EXCHANGES = 200
_MESSAGE = bytes(range(64))

RAW, SEALED, WAITED, MP2P = "raw UDP", "raw UDP, sealed", "the same, anyio.wait_readable", "mp2p"
_FLOORS = (RAW, SEALED, WAITED)
_KINDS = (*_FLOORS, MP2P)


class Link(Protocol):
    """Sends and receives one message at a time."""

    @property
    def send(self) -> Callable[[bytes], Awaitable[None]]: ...

    @property
    def receive(self) -> Callable[[], Awaitable[bytes]]: ...


def run(place: Place) -> Table:
    """Measure: for each event loop two processes, which take the kinds in turn."""
    speed = Speed()
    rows: list[list[Any]] = []
    aims: list[Aim] = []
    for loop in LOOPS:
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in _KINDS}
        with children() as start:
            server = start(
                "ping_pong:server", place.server, loop=loop, host=place.server.host, options=place.node
            )
            client = start(
                "ping_pong:client", place.client, loop=loop, host=place.server.host, options=place.node,
                server=server.pid, **server.hear(),
            )  # fmt: skip
            client.hear()
            for turn in range(1 + _ROUNDS):
                speed.look()
                for kind in _KINDS:
                    figures = client.ask(kind)
                    if turn:  # the first one warms up
                        found[kind].append(figures)
        at = {
            kind: {key: median([each[key] for each in rounds]) for key in rounds[0]}
            for kind, rounds in found.items()
        }
        for kind in _KINDS:
            us = {key: value * 1e6 for key, value in at[kind].items()}
            times = [at[kind]["p50"] / at[floor]["p50"] for floor in (SEALED, WAITED)]
            cpu = at[kind]["cpu"] / at[SEALED]["cpu"]
            rows.append([f"{loop}: {kind}", us["p50"], us["mean"], us["cpu"], *times, cpu])
        aims += [
            Aim(f"time on {loop}", at[MP2P]["p50"] / at[SEALED]["p50"], 1.6, "times sealed"),
            Aim(f"time on {loop}", at[MP2P]["p50"] / at[WAITED]["p50"], 1.6, "times anyio.wait_readable"),
        ]
    return Table(
        f"Ping-pong ({place.name}): one exchange of {len(_MESSAGE)} bytes each way, us",
        ["", "p50", "mean", "CPU, both", "p50 : sealed", "p50 : anyio", "CPU : sealed"],
        rows,
        speed,
        aims,
        [
            f"medians of {_ROUNDS} rounds of {_EXCHANGES} exchanges, the kinds taking turns in one pair of processes",
            "IPv4: unicast for raw UDP, two multicast groups for mp2p",
            "sealed: ChaCha20-Poly1305, one open and one seal at each end, and nothing else that a protocol needs",
            "raw UDP is read as mp2p's reader reads: add_reader and a future on asyncio and uvloop, "
            "trio.lowlevel.wait_readable on trio; then as a program for anyio would, with anyio.wait_readable",
        ],
    )


# --- the floor --------------------------------------------------------------------------------------------


class WatchedLink:
    """A connected UDP socket that the event loop watches: mp2p's way on asyncio and uvloop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._got: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._on_readable)

    async def send(self, data: bytes) -> None:
        self._sock.send(data)

    async def receive(self) -> bytes:
        if not self._got:
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._got.pop(0)

    def _on_readable(self) -> None:
        self._got += _read(self._sock)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class WaitingLink:
    """A connected UDP socket for which its task waits: mp2p's way on trio."""

    def __init__(self, sock: socket.socket, wait: Callable[[socket.socket], Awaitable[None]]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._got: list[bytes] = []
        self._wait = wait

    async def send(self, data: bytes) -> None:
        self._sock.send(data)

    async def receive(self) -> bytes:
        if not self._got:
            await self._wait(self._sock)
            self._got += _read(self._sock)
        return self._got.pop(0)


def _read(sock: socket.socket) -> list[bytes]:
    got = []
    try:
        while True:
            got.append(sock.recv(65535))
    except BlockingIOError:
        return got


class SealedLink:
    """A link on which every message is sealed under a packet number and opened."""

    def __init__(self, link: Link) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._link = link
        self._seal = ChaCha20Poly1305(bytes(32)).encrypt
        self._open = ChaCha20Poly1305(bytes(32)).decrypt
        self._number = 0

    async def send(self, data: bytes) -> None:
        self._number += 1
        nonce = self._number.to_bytes(12, "little")
        await self._link.send(nonce + self._seal(nonce, data, None))

    async def receive(self) -> bytes:
        datagram = await self._link.receive()
        return self._open(datagram[:12], datagram[12:], None)


@dataclass(frozen=True)
class PeerLink:
    """An mp2p peer as a link: its own methods under other names, so that no call is added."""

    send: Callable[[bytes], Awaitable[None]]
    receive: Callable[[], Awaitable[bytes]]


# --- the two processes ------------------------------------------------------------------------------------


def server(loop: str, host: str, options: dict[str, Any]) -> None:
    """Echo on all kinds of links."""
    run_on(loop, _server, host, options)


async def _server(host: str, options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import open_node

    bound = {floor: _bound(host) for floor in _FLOORS}
    async with (
        open_node(allow="any", **options) as node,
        anyio.create_task_group() as tasks,
    ):
        say({"contact": str(node.contact), "ports": {kind: s.getsockname()[1] for kind, s in bound.items()}})
        peer = await node.accept()
        for sock in bound.values():
            _, source = sock.recvfrom(1)
            sock.connect(source)
        links = {**_floor_links(bound), MP2P: PeerLink(peer.send_datagram, peer.receive_datagram)}
        for link in links.values():
            tasks.start_soon(_echo, link)


def client(
    loop: str, host: str, options: dict[str, Any], server: int, contact: str, ports: dict[str, int]
) -> None:
    """Run a round of the kind that each line on standard input names."""
    run_on(loop, _client, host, options, server, contact, ports)


async def _client(
    host: str, options: dict[str, Any], server: int, contact: str, ports: dict[str, int]
) -> None:
    from mp2p_core import open_node

    bound = {kind: _bound("") for kind in ports}
    for kind, sock in bound.items():
        sock.connect((host, ports[kind]))
        sock.send(b"")  # tells the server where we are
    async with (
        open_node(**options) as node,
        node.connect(contact) as peer,
    ):
        links = {**_floor_links(bound), MP2P: PeerLink(peer.send_datagram, peer.receive_datagram)}
        say("ready")
        # Blocks the loop between rounds: a second at most, so that no session falls idle.
        while kind := sys.stdin.readline().strip():
            say(await _round(links[kind], server))


async def _round(link: Link, server: int) -> dict[str, float]:
    times = []
    clock = time.perf_counter
    cpu = cpu_time() + cpu_time(server)
    began = last = clock()
    for _ in range(_EXCHANGES):
        await link.send(_MESSAGE)
        assert await link.receive() == _MESSAGE
        now = clock()
        times.append(now - last)
        last = now
    cpu = cpu_time() + cpu_time(server) - cpu
    return {"p50": median(times), "mean": (last - began) / _EXCHANGES, "cpu": cpu / _EXCHANGES}


async def _echo(link: Link) -> None:
    while True:
        await link.send(await link.receive())


def _bound(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def _floor_links(bound: dict[str, socket.socket]) -> dict[str, Link]:
    """Make the links of the floor on connected sockets, on the event loop that is running."""
    import anyio
    import sniffio

    def fastest(sock: socket.socket) -> Link:
        if sniffio.current_async_library() == "asyncio":
            return WatchedLink(sock)
        import trio

        return WaitingLink(sock, trio.lowlevel.wait_readable)

    return {
        RAW: fastest(bound[RAW]),
        SEALED: SealedLink(fastest(bound[SEALED])),
        WAITED: SealedLink(WaitingLink(bound[WAITED], anyio.wait_readable)),
    }
