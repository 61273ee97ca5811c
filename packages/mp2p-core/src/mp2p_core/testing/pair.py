"""Two nodes of one process, connected: for tests of what runs on top of a `Peer`.

async with pair() as (here, there):
    await here.send(b"hello")
    assert await there.receive() == b"hello"
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mp2p_core.lifetime import open_node
from mp2p_core.peer import Peer
from mp2p_core.testing.memory import MemoryHub

__all__ = ["pair"]


@asynccontextmanager
async def pair(
    hub: MemoryHub | None = None, *, idle_timeout: float = 30.0
) -> AsyncIterator[tuple[Peer, Peer]]:
    """Connect two nodes in memory; yields the peer as the one that called holds it, and as the other does."""
    hub = hub or MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()], idle_timeout=idle_timeout) as server,
        open_node(transports=[hub.transport()], idle_timeout=idle_timeout) as client,
        client.connect(server.contact) as here,
        await server.accept() as there,
    ):
        yield here, there
