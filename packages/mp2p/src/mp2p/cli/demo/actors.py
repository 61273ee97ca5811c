"""The processes of the demo: `python -m mp2p.cli.demo.actors ROLE TRANSPORT`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import Final

import anyio

import mp2p_core
import mp2p_rpc
from mp2p.cli.acting import Orders, play, report
from mp2p.cli.courier import Courier
from mp2p.cli.demo.crowd import follow, publish
from mp2p.cli.demo.greenhouse import Greenhouse
from mp2p.cli.demo.watcher import watch
from mp2p.cli.demo.words import REPLY, milliseconds
from mp2p_core.plugins import load_transports

__all__ = ["main"]


async def called(orders: Orders, transport: str) -> None:
    """Be the node that is called: lets one key in, and answers its message."""
    allowed: set[mp2p_core.PublicKey] = set()
    async with (
        mp2p_rpc.open_node(
            allow=allowed.__contains__, transports=[transport], reach=mp2p_core.Reach.HOST
        ) as node,
        node.serving(Greenhouse(), allow=lambda key, _method: key in allowed),
    ):
        _report_ready(node)
        allowed.add(mp2p_core.PublicKey.parse((await orders.receive())["allow"]))
        report("allowing")
        peer = await node.accept()
        async with anyio.create_task_group() as group:
            arrived = anyio.Event()

            def take(text: str) -> None:
                report("message", **{"from": str(peer.key), "text": text})
                arrived.set()

            courier = Courier(peer, take)
            group.start_soon(courier.pump)
            await arrived.wait()
            await _deliver(courier, REPLY)
            crowd = {mp2p_core.PublicKey.parse(key) for key in (await orders.receive())["crowd"]}
            await publish(node, orders, crowd, load_transports().transports[transport])


async def caller(orders: Orders, transport: str) -> None:
    """Be the node that calls: knows nothing but a contact."""
    async with mp2p_rpc.open_node(transports=[transport], reach=mp2p_core.Reach.HOST) as node:
        _report_ready(node)
        order = await orders.receive()
        async with (
            node.connect(order["call"], timeout=5) as peer,
            anyio.create_task_group() as group,
        ):
            report("connected", handshake_ms=milliseconds(peer.handshake_time))
            courier = Courier(peer, lambda text: report("message", **{"from": str(peer.key), "text": text}))
            group.start_soon(courier.pump)
            await _deliver(courier, order["text"])
            order = await orders.receive()
            await _call(peer, order["target"], order["count"])
            await orders.receive()
            report("pong", rtt_ms=milliseconds(await peer.ping(timeout=5)))
            await anyio.sleep_forever()


async def _call(peer: mp2p_rpc.Peer, target: float, count: int) -> None:
    greenhouse = peer.client(Greenhouse)
    began = time.perf_counter()
    result = await greenhouse.set_target(target)
    report("result", value=result, took_ms=milliseconds(time.perf_counter() - began))
    began = time.perf_counter()
    readings = [reading async for reading in greenhouse.readings(count)]
    report("readings", values=readings, took_ms=milliseconds(time.perf_counter() - began))


def _report_ready(node: mp2p_core.Node) -> None:
    used = {one.name for channel in node.status() for one in channel.interfaces if one.joined}
    report(
        "ready",
        key=str(node.key),
        contact=str(node.contact),
        groups=list(node.addresses),
        interfaces=sorted(used),
        process=os.getpid(),
    )


async def _deliver(courier: Courier, text: str) -> None:
    began = time.perf_counter()
    await courier.send(text, timeout=5)
    report("taken", text=text, taken_ms=milliseconds(time.perf_counter() - began))


_ROLES: Final = {"called": called, "caller": caller, "watcher": watch, "crowd": follow}


def main(words: Sequence[str]) -> int:
    """Play the role that `words` names, and return the exit code."""
    return play(_ROLES, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
