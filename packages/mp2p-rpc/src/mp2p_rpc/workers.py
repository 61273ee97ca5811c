"""Tasks that run handlers, one after another: to start a task for each call takes longer than most handlers do."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from mp2p_core.boundary import Boundary

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mp2p_core.waiting import Signal

__all__ = ["Work", "Workers"]

_SPARE: Final = 8
"""Tasks that are kept although there is nothing to do."""


class Work(Protocol):
    """Something to be done by a worker, in two parts, neither of which raises an Exception."""

    async def run(self, scope: anyio.CancelScope) -> bool:
        """Do it; cancelling the scope, whose deadline may be set, cancels this. True when it is done."""

    async def settle(self) -> None:
        """Do what is left to do, outside of that scope: after False, or when it was cancelled."""


class Workers:
    """Does works in the order they come, each as soon as those before it wait for something.

    Works share a task, and a cancel scope while it is as good as new; what one of them does to its context is not
    seen by another: the task that it did that in takes no more.
    """

    def __init__(self, tasks: TaskGroup, make_signal: Callable[[], Signal]) -> None:
        self._tasks = tasks
        self._make_signal = make_signal
        self._due: deque[Work] = deque()
        self._idle: list[Signal] = []
        self._called = False
        """Whether a task is on its way to look for what is due."""

    def add(self, work: Work) -> None:
        """Have a work done; returns at once."""
        self._due.append(work)
        if not self._called:
            self._call()

    def _call(self) -> None:
        self._called = True
        if self._idle:
            self._idle.pop().set()
        else:
            self._tasks.start_soon(self._serve)

    async def _serve(self) -> None:
        context = copy_context()
        self._called = False
        try:
            while True:
                done = True
                with anyio.CancelScope() as scope:
                    while done and not scope.cancel_called and _same(copy_context(), context):
                        while not self._due:
                            if not await self._until_called():
                                return
                        work = self._due.popleft()
                        if self._due and not self._called:
                            # For the case that this one waits. If not, that other task finds nothing: once, however
                            # many are done here.
                            self._call()
                        done = False
                        done = await work.run(scope)
                if not done or scope.cancel_called:
                    await work.settle()
                if not _same(copy_context(), context):
                    return
        finally:
            if self._due and not self._called:
                self._call()

    async def _until_called(self) -> bool:
        """Wait for something to do; False when enough others do."""
        if len(self._idle) >= _SPARE:
            return False
        signal = self._make_signal()
        self._idle.append(signal)
        try:
            await signal.wait()
        finally:
            if signal in self._idle:
                self._idle.remove(signal)
            else:
                self._called = False
        return True


def _same(context: Context, other: Context) -> bool:
    with Boundary():  # comparing values of the application's
        return context == other
    return False
