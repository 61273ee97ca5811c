"""Let tasks wait for a word from another: by an event of trio's, or on asyncio by the one future inside such.

An application that waits for each message waits often. Making, awaiting and setting an event of anyio's passes
through its layer and the one below, and takes as long again as the turn of the event loop that it is for.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import anyio

if TYPE_CHECKING:
    import asyncio

__all__ = ["Bell", "Signal", "name_event_loop", "signal_maker", "turn_caller", "wait_up_to"]


class Signal(Protocol):
    """What one task waits for, once."""

    def set(self) -> object:
        """Wake the task, now or when it comes to wait. May be called again."""

    def wait(self) -> Awaitable[None]:
        """Return what the task awaits."""


class Bell:
    """What any number of tasks wait for, again and again; each looks for itself what has changed."""

    __slots__ = ("_make_signal", "_waiting")

    def __init__(self, make_signal: Callable[[], Signal]) -> None:
        self._make_signal = make_signal
        self._waiting: list[Signal] = []

    def ring(self) -> None:
        """Wake every task that waits now."""
        for signal in self._waiting:
            signal.set()
        self._waiting.clear()

    async def wait(self) -> None:
        """Wait until it rings the next time."""
        signal = self._make_signal()
        self._waiting.append(signal)
        try:
            await signal.wait()
        finally:
            if signal in self._waiting:
                self._waiting.remove(signal)


class _FutureSignal:
    __slots__ = ("_future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future: asyncio.Future[None] = loop.create_future()

    def set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def wait(self) -> Awaitable[None]:
        return self._future

    async def wait_up_to(self, seconds: float) -> None:
        timer = self._future.get_loop().call_later(seconds, self.set)
        try:
            await self._future
        finally:
            timer.cancel()


async def wait_up_to(signal: Signal, seconds: float) -> None:
    """Wait until a signal is set, or for so long, rounded up to milliseconds.

    The timers of uvloop count those, and round: a shorter wait would end early, and be begun again and again.
    """
    if seconds == math.inf:
        await signal.wait()
        return
    seconds = math.ceil(seconds * 1000) / 1000
    if isinstance(signal, _FutureSignal):
        await signal.wait_up_to(seconds)
        return
    with anyio.move_on_after(seconds):
        await signal.wait()


def signal_maker() -> Callable[[], Signal]:
    """Return what makes signals for the event loop of the calling task."""
    if (loop := _asyncio_loop()) is not None:
        return partial(_FutureSignal, loop)
    trio = sys.modules.get("trio")
    return anyio.Event if trio is None else cast("Callable[[], Signal]", trio.Event)


def turn_caller() -> Callable[[Callable[[], object]], object] | None:
    """Return what calls a function once the callbacks and tasks that are ready now have had their turn.

    None where the event loop has nothing for that but to wake a task.
    """
    loop = _asyncio_loop()
    if loop is None:
        return None
    context = copy_context()
    context.run(_name_asyncio)
    return partial(loop.call_soon, context=context)


def name_event_loop() -> None:
    """Have anyio find its event loop in callbacks, too, that the calling task registers from now on.

    Only `anyio.run` says which loop it is. Under `asyncio.run` anyio asks sniffio, where that is installed, and
    sniffio looks for a task: a callback has none.
    """
    if _asyncio_loop() is not None:
        _name_asyncio()


def _name_asyncio() -> None:
    if (sniffio := sys.modules.get("sniffio")) is not None:
        sniffio.current_async_library_cvar.set("asyncio")


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    loaded = sys.modules.get("asyncio")  # imported here it would take 15 ms, on trio for nothing
    if loaded is None:
        return None
    try:
        task: asyncio.Task[object] | None = loaded.current_task()
    except RuntimeError:  # no loop of asyncio is running
        return None
    # A trio guest of an asyncio loop finds the loop, and no task.
    return None if task is None else task.get_loop()
