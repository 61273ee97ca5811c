"""Both event loops, also when this package is tested alone; and two nodes that call each other in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from mp2p_core.testing.memory import MemoryHub
from mp2p_rpc import Node, Peer, open_node


@pytest.fixture(params=[pytest.param(("asyncio", {}), id="asyncio"), pytest.param(("trio", {}), id="trio")])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@dataclass
class Net:
    """A network in memory."""

    hub: MemoryHub = field(default_factory=MemoryHub)

    @asynccontextmanager
    async def serving(self, *services: object, **options: Any) -> AsyncIterator[tuple[Peer, Node]]:
        """Serve on one node and connect another; yields the peer to call, and the node that serves.

        Everything is allowed unless `allow` says otherwise.
        """
        async with (
            open_node(transports=[self.hub.transport()]) as server,
            open_node(transports=[self.hub.transport()]) as client,
        ):
            options.setdefault("allow", [client.key])
            async with (
                server.serving(*services, **options),
                client.connect(server.contact) as peer,
            ):
                yield peer, server


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
