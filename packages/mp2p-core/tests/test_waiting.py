"""One task waits, another wakes it: on asyncio, on trio, and where both run in one thread."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import anyio
import pytest

from mp2p_core.waiting import Signal, signal_maker, wait_up_to

pytestmark = pytest.mark.anyio


async def test_set_wakes_the_task_that_waits() -> None:
    signal = signal_maker()()
    woken: list[str] = []

    async def wait() -> None:
        await signal.wait()
        woken.append("woken")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not woken
        signal.set()
        signal.set()
    assert woken


async def test_a_signal_set_before_does_not_wait() -> None:
    signal = signal_maker()()
    signal.set()
    with anyio.fail_after(10):
        await signal.wait()


async def test_a_cancelled_wait_may_be_set_all_the_same() -> None:
    signal = signal_maker()()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_when_blocked, scope)
            await signal.wait()
    assert scope.cancelled_caught
    signal.set()


async def _cancel_when_blocked(scope: anyio.CancelScope) -> None:
    await anyio.wait_all_tasks_blocked()
    scope.cancel()


async def test_set_and_cancelled_at_once_ends_as_cancelled_or_woken(anyio_backend: Any) -> None:
    signal: Signal = signal_maker()()
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def both() -> None:
                await anyio.wait_all_tasks_blocked()
                signal.set()
                scope.cancel()

            tasks.start_soon(both)
            await signal.wait()


GUEST = """
import asyncio, trio
from mp2p_core.waiting import signal_maker

async def guest():
    signal = signal_maker()()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(signal.wait)
        await trio.testing.wait_all_tasks_blocked()
        signal.set()
    print(isinstance(signal, trio.Event))

async def host():
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    trio.lowlevel.start_guest_run(
        guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
    )
    (await done).unwrap()

import trio.testing
asyncio.run(host())
"""


def test_trio_as_a_guest_of_asyncio_gets_the_signal_of_trio() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUEST], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize("seconds", [60.0, float("inf")])
async def test_a_wait_with_a_limit_ends_when_the_signal_is_set(seconds: float) -> None:
    signal = signal_maker()()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_up_to, signal, seconds)
            await anyio.wait_all_tasks_blocked()
            signal.set()


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0001, 0.002])
async def test_a_wait_with_a_limit_ends_there(seconds: float) -> None:
    with anyio.fail_after(10):
        await wait_up_to(signal_maker()(), seconds)
