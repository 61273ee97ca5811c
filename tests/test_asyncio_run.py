"""Programs that run under `asyncio.run`, or a runner of uvloop, rather than under `anyio.run`."""

from __future__ import annotations

import asyncio

import anyio
import sniffio  # it comes with trio, and anyio asks it which event loop is running
import uvloop

import mp2p_rpc


class Echo(mp2p_rpc.Service):
    async def echo(self, data: bytes) -> bytes:
        return data


async def call() -> None:
    assert sniffio.current_async_library_cvar.get() is None, "some runner has said which loop this is"
    async with (
        mp2p_rpc.open_node(transports=["v4"], reach="host", address="random") as server,
        mp2p_rpc.open_node(transports=["v4"], reach="host", address="random") as client,
        server.serving(Echo(), allow="any"),
        client.connect(server.contact) as peer,
    ):
        with anyio.fail_after(10):
            assert await peer.client(Echo).echo(b"said") == b"said"


def test_calls_are_served_under_asyncio_run() -> None:
    asyncio.run(call())


def test_calls_are_served_under_a_runner_of_uvloop() -> None:
    uvloop.run(call())
