"""Both event loops, also when this package is tested alone; and two nodes that call each other in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from mp2p_core import Identity
from mp2p_core.testing.memory import MemoryChannel, MemoryHub, MemoryTransport
from mp2p_core.transport import Address, Listen
from mp2p_rpc import Node, Peer, open_node


@pytest.fixture(params=[pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("trio", {}), id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Net(MemoryHub):
    """A network in memory. While `holding`, what is sent waits for the next `flight`."""

    def __init__(self) -> None:
        super().__init__()
        self.holding = False
        self.held: list[tuple[Channel, bytes, Address]] = []

    def transport(self) -> MemoryTransport:
        return Transport(self)

    async def flight(self) -> int:
        """Deliver what has been sent up to now, once everybody waits, and let everybody do what follows from it."""
        await anyio.wait_all_tasks_blocked()
        count = self.arrive()
        await anyio.wait_all_tasks_blocked()
        return count

    def arrive(self) -> int:
        """Deliver what has been sent up to now; tells how much."""
        flying, self.held = self.held, []
        for channel, datagram, source in flying:
            channel.arrive(datagram, source)
        return len(flying)

    @asynccontextmanager
    async def serving(
        self, *services: object, key: Identity | None = None, idle_timeout: float = 30.0, **options: Any
    ) -> AsyncIterator[tuple[Peer, Node]]:
        """Serve on one node and connect another; yields the peer to call, and the node that serves.

        Everything is allowed unless `allow` says otherwise.
        """
        async with (
            open_node(key, transports=[self.transport()], idle_timeout=idle_timeout) as server,
            open_node(transports=[self.transport()], idle_timeout=idle_timeout) as client,
        ):
            options.setdefault("allow", [client.key])
            async with server.serving(*services, **options), client.connect(server.contact) as peer:
                yield peer, server


class Transport(MemoryTransport):
    async def open(self, listen: Listen) -> MemoryChannel:
        return Channel(self._hub, listen.address)


class Channel(MemoryChannel):
    def _deliver(self, datagram: bytes, source: Address) -> None:
        hub = self._hub
        assert isinstance(hub, Net)
        if hub.holding:
            hub.held.append((self, datagram, source))
        else:
            self.arrive(datagram, source)

    def arrive(self, datagram: bytes, source: Address) -> None:
        super()._deliver(datagram, source)


@pytest.fixture
def net() -> Net:
    return Net()


async def _until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - for what no event tells
            await anyio.sleep(0.001)


@pytest.fixture
def until() -> Callable[[Callable[[], object]], Any]:
    """Wait for what no event tells."""
    return _until
