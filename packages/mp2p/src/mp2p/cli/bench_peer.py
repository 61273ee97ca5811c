"""The other end of `mp2p bench` on one machine: `python -m mp2p.cli.bench_peer answering TRANSPORT`."""

from __future__ import annotations

import sys

import anyio

import mp2p_rpc
from mp2p.bench import Bench
from mp2p.cli.acting import Orders, play, report
from mp2p_core import PublicKey, Reach

__all__ = ["answering"]


async def answering(orders: Orders, transport: str) -> None:
    """Serve a `Bench` to the one key that the order names, on this machine alone."""
    allowed = [PublicKey.parse((await orders.receive())["allow"])]
    async with (
        mp2p_rpc.open_node(transports=[transport], reach=Reach.HOST) as node,
        node.serving(Bench(), allow=allowed),
    ):
        report("serving", contact=str(node.contact))
        await anyio.sleep_forever()


if __name__ == "__main__":
    sys.exit(play({"answering": answering}, sys.argv[1:]))
