"""Run every async test on each event loop there is, also when this package is tested alone."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from mp2p_core.transport import Listen, Reach, Train
from mp2p_udp import V4, Features, UdpChannel, open_channel

UVLOOP = pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed")


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=UVLOOP),
        pytest.param(("trio", {}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def opened(anyio_backend: Any) -> AsyncIterator[Callable[..., UdpChannel]]:
    """Open channels on loopback, and close them after the test."""
    channels: list[UdpChannel] = []

    def make(address: bytes, features: Features | None = None) -> UdpChannel:
        channels.append(open_channel(Listen(address, Reach.HOST), V4, features=features))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.aclose()


@pytest.fixture
def take() -> Callable[[UdpChannel, int], Awaitable[list[Train]]]:
    """Receive until so many datagrams are there."""

    async def collect(channel: UdpChannel, count: int) -> list[Train]:
        trains: list[Train] = []
        while sum(1 for train in trains for _ in train.datagrams()) < count:
            trains += await channel.receive()
        return trains

    return collect


@pytest.fixture
def flat() -> Callable[[Iterable[Train]], list[bytes]]:
    """Cut trains into their datagrams."""
    return lambda trains: [datagram for train in trains for datagram in train.datagrams()]
