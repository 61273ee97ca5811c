"""Run a command's coroutine until it is done or a signal ends it, with its sessions closed either way."""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Final

import anyio
from anyio.abc import TaskStatus

from mp2p.cli.errors import ExitCode

__all__ = ["run"]

_CODES: Final = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


def run(command: Callable[[], Awaitable[int]]) -> int:
    """Run `command` and return its exit code, or 128 plus the number of the signal that ended it.

    SIGINT and SIGTERM cancel the command, so that its context managers run: nodes say CLOSE to their
    peers, child processes are ended. A second signal does not wait for that.
    """
    return anyio.run(_supervised, command)


async def _supervised(command: Callable[[], Awaitable[int]]) -> int:
    if not gc.isenabled():  # since the command's start: all that was loaded by now stays
        gc.freeze()
        gc.enable()
    received: list[int] = []

    async def watch(*, task_status: TaskStatus[None]) -> None:
        # Left after the first signal, which gives the second one its usual, immediate effect.
        with anyio.open_signal_receiver(*_CODES) as signals:
            task_status.started()
            async for number in signals:
                received.append(number)
                group.cancel_scope.cancel()
                return

    code: int = ExitCode.DONE
    async with anyio.create_task_group() as group:
        if (
            sys.platform != "win32"
        ):  # no signal handlers in event loops there: Ctrl-C raises KeyboardInterrupt
            await group.start(watch)
        code = await command()
        group.cancel_scope.cancel()
    return _CODES[signal.Signals(received[0])] if received else code
