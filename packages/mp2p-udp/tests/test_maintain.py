"""A channel's upkeep while it is open, on loopback: the interfaces it is told of are made up."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.transport import MaintainedChannel
from mp2p_udp import UdpChannel, channel, list_interfaces
from mp2p_udp.watch import InterfaceWatch

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="the loopback interface does multicast on Linux"),
]

PORT = 10000 + os.getpid() % 20000
"""One for each process: tests run beside each other, and share this machine's loopback interface."""
GROUP = pack_ipv4("224.0.230.7", PORT)

LO = next((each for each in list_interfaces() if "loopback" in each.flags), None)


class FakeWatch(InterfaceWatch):
    """Tells of a change when the test says so."""

    happened: anyio.Event

    def __init__(self) -> None:
        self._sock = None
        FakeWatch.happened = anyio.Event()

    @property
    def tells(self) -> bool:
        return True

    async def wait(self) -> None:
        await FakeWatch.happened.wait()
        FakeWatch.happened = anyio.Event()


@pytest.fixture
async def maintained(
    opened: Callable[..., UdpChannel], monkeypatch: pytest.MonkeyPatch
) -> tuple[UdpChannel, list[object]]:
    found: list[object] = [LO]
    monkeypatch.setattr(channel, "list_interfaces", lambda _: tuple(found))
    monkeypatch.setattr(channel, "InterfaceWatch", FakeWatch)
    return opened(GROUP), found


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await checkpoint()


def test_it_is_what_the_node_looks_for() -> None:
    assert all(hasattr(UdpChannel, name) for name in ("maintain", "silent"))
    assert {"maintain", "silent"} <= set(dir(MaintainedChannel))


async def test_interfaces_are_followed_when_the_system_tells(
    maintained: tuple[UdpChannel, list[object]],
) -> None:
    opened, found = maintained
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(opened.maintain)
        await until(lambda: hasattr(FakeWatch, "happened"))
        assert LO is not None
        found[:] = [replace(LO, flags=LO.flags - {"up"})]
        FakeWatch.happened.set()
        await until(lambda: not opened.status()[0].joined)
        found[:] = [LO]
        FakeWatch.happened.set()
        await until(lambda: opened.status()[0].joined)
        await opened.aclose()  # ends it


async def test_cancelling_ends_it_and_the_channel_goes_on(
    maintained: tuple[UdpChannel, list[object]],
) -> None:
    opened, _ = maintained
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(opened.maintain)
        await until(lambda: hasattr(FakeWatch, "happened"))
        tasks.cancel_scope.cancel()
    assert opened.status()[0].joined


async def test_silence_is_no_trouble_before_nor_while_it_is_maintained(
    maintained: tuple[UdpChannel, list[object]],
) -> None:
    opened, _ = maintained
    opened.silent()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(opened.maintain)
        await until(lambda: hasattr(FakeWatch, "happened"))
        opened.silent()
        tasks.cancel_scope.cancel()


async def test_without_netlink_it_looks_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("sandbox")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        watch = InterfaceWatch()
    assert not watch.tells
    with anyio.move_on_after(0.01) as waited:
        await watch.wait()
    assert waited.cancelled_caught
    watch.close()


async def test_the_system_tells() -> None:
    watch = InterfaceWatch()
    if not watch.tells:
        pytest.skip("netlink is not permitted here")
    with anyio.move_on_after(0) as waited:
        await watch.wait()
    assert waited.cancelled_caught
    watch.close()


async def test_upkeep_that_begins_after_the_end_ends_at_once(opened: Callable[..., UdpChannel]) -> None:
    """As in a node whose block raises before any of its tasks has had a turn."""
    channel = opened(GROUP)
    await channel.aclose()
    with anyio.fail_after(20):
        await channel.maintain()


async def test_what_changed_before_upkeep_is_found(maintained: tuple[UdpChannel, list[object]]) -> None:
    """Nobody listens for changes from when a channel opens: its upkeep begins with a look."""
    opened, found = maintained
    assert LO is not None
    found[:] = [replace(LO, flags=LO.flags - {"up"})]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(opened.maintain)
        await until(lambda: not opened.status()[0].joined)
        await opened.aclose()
