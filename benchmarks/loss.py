"""Much data over a link that loses frames by chance: messages of 1 MiB in turn, and one long stream, beside TCP."""

from __future__ import annotations

import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from benchmarks.measure import Speed, Table, children, cpu_time, median, run_on, say
from benchmarks.network import PORT, bridged

if TYPE_CHECKING:
    from mp2p_core import Peer

_LOSSES: Final = (0.0, 0.001, 0.01)
_ROUNDS: Final = 3
_SECONDS: Final = 1.5
_LOOP: Final = "uvloop"
_SIZE: Final = 1 << 20
_DATA: Final = bytes(_SIZE)
_ANSWER: Final = b"ok"
_MESSAGES: Final = "mp2p, messages of 1 MiB, each answered"
_STREAM: Final = "mp2p, a long stream"
_TCP: Final = "TCP of the system, not encrypted"


def run() -> Table:
    """Measure, each share of losses with processes of its own, all kinds taking turns."""
    speed = Speed()
    rows: list[list[Any]] = []
    with bridged() as (place, lose):
        for loss in _LOSSES:
            lose(loss)
            found: dict[str, list[dict[str, float]]] = {}
            with children() as start:
                server = start("loss:mp2p_server", place.server, options=place.node)
                contact = server.hear()
                client = start("loss:mp2p_client", place.client, contact=contact, options=place.node)
                client.hear()
                tcp_server = start("loss:tcp_server", place.server, host=place.server.host)
                tcp_server.hear()
                tcp = start("loss:tcp_client", place.client, host=place.server.host)
                tcp.hear()
                for _ in range(_ROUNDS):
                    for kind, sender, receiver, word in (
                        (_MESSAGES, client, server, "messages"),
                        (_STREAM, client, server, "stream"),
                        (_TCP, tcp, tcp_server, "stream"),
                    ):
                        speed.look()
                        cpu = cpu_time(sender.pid), cpu_time(receiver.pid)
                        result = sender.ask(word)
                        for name, pid, before in zip(
                            ("client", "server"), (sender.pid, receiver.pid), cpu, strict=True
                        ):
                            result[name] = (cpu_time(pid) - before) / result["sent"] * 1e9
                        found.setdefault(kind, []).append(result)
            for kind, rounds in found.items():
                at = {key: median([each[key] for each in rounds]) for key in ("rate", "client", "server")}
                rates = [each["rate"] for each in rounds]
                rows.append(
                    [f"{loss:.1%}: {kind}", at["rate"], min(rates), max(rates), at["client"], at["server"]]
                )
    return Table(
        "Loss: frames dropped by chance on the way to the server",
        ["", "MB/s", "slowest", "fastest", "client's CPU s/GB", "server's"],
        rows,
        speed,
        notes=[
            f"medians of {_ROUNDS} rounds of {_SECONDS:g} s, the kinds taking turns; mp2p on {_LOOP}",
            "two namespaces joined by a bridge that drops single frames of at most 1500 bytes, each by chance; "
            "acknowledgements pass",
        ],
    )


# --- mp2p -------------------------------------------------------------------------------------------------


def mp2p_server(options: dict[str, Any]) -> None:
    """Answer every message and every stream of one client."""
    run_on(_LOOP, _mp2p_server, options)


async def _mp2p_server(options: dict[str, Any]) -> None:
    import anyio

    from mp2p_core import open_node

    async def answer_streams(peer: Peer) -> None:
        while True:
            async with await peer.accept_stream() as stream:
                try:
                    while True:
                        await stream.receive(_SIZE, at_least=_SIZE)
                except anyio.EndOfStream:
                    await stream.send(_ANSWER)

    async with open_node(allow="any", **options) as node, anyio.create_task_group() as tasks:
        say(str(node.contact))
        peer = await node.accept()
        tasks.start_soon(answer_streams, peer)
        while True:
            assert len(await peer.receive()) == _SIZE
            await peer.send(_ANSWER)


def mp2p_client(contact: str, options: dict[str, Any]) -> None:
    """Run a round of what each line on standard input names."""
    run_on(_LOOP, _mp2p_client, contact, options)


async def _mp2p_client(contact: str, options: dict[str, Any]) -> None:
    from mp2p_core import open_node

    async with open_node(**options) as node, node.connect(contact) as peer:
        await _messages(peer, 0)
        say("ready")
        # Blocks the loop between rounds: some seconds at most, so that no session falls idle.
        while word := sys.stdin.readline().strip():
            began = time.perf_counter()
            sent = await (_messages if word == "messages" else _stream)(peer, began + _SECONDS)
            say({"rate": sent / (time.perf_counter() - began) / 1e6, "sent": sent})


async def _messages(peer: Peer, until: float) -> int:
    sent = 0
    while not sent or time.perf_counter() < until:
        await peer.send(_DATA)
        assert await peer.receive() == _ANSWER
        sent += _SIZE
    return sent


async def _stream(peer: Peer, until: float) -> int:
    sent = 0
    async with await peer.open_stream() as stream:
        while time.perf_counter() < until:
            await stream.send(_DATA)
            sent += _SIZE
        await stream.send_eof()
        assert await stream.receive() == _ANSWER
    return sent


# --- TCP --------------------------------------------------------------------------------------------------


def tcp_server(host: str) -> None:
    """Answer the end of every connection."""
    with socket.create_server((host, PORT)) as listening:
        say("ready")
        while True:
            connection, _ = listening.accept()
            with connection:
                while connection.recv(_SIZE):
                    pass
                connection.sendall(_ANSWER)


def tcp_client(host: str) -> None:
    """Send on a connection of its own for each line on standard input."""
    say("ready")
    while sys.stdin.readline():
        with socket.create_connection((host, PORT)) as connection:
            began, sent = time.perf_counter(), 0
            while time.perf_counter() < began + _SECONDS:
                connection.sendall(_DATA)
                sent += _SIZE
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(len(_ANSWER)) == _ANSWER
            say({"rate": sent / (time.perf_counter() - began) / 1e6, "sent": sent})
