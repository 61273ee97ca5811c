"""Wait for a socket to become readable, on asyncio, uvloop and trio, and lose nothing on the way.

The datagram endpoints of asyncio and anyio drop datagrams that wait behind others and keep errors to
themselves, so this reads the plain non-blocking socket. On asyncio the socket is registered with the
event loop once, not once for every wake-up as `anyio.wait_readable` must: two calls of epoll_ctl and
some objects fewer for each. What comes in while nobody waits is kept up to a bound; past that the
socket is left alone, and the kernel's buffer is the queue.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from mp2p_core.transport import Train

__all__ = ["Reader"]

# With the 32 reads of a wake-up, at most 4 MiB for a reader that nobody empties.
_MAX_KEPT: Final = 32


class Reader:
    """Hands over what `read` finds on a socket, to one task at a time.

    `read` must not block, and returns an empty list when nothing is there. It takes datagrams from the
    socket only when they can be kept or delivered, so a cancelled `receive` or `push` loses none.
    """

    def __init__(self, sock: socket.socket, read: Callable[[], list[Train]]) -> None:
        self._sock = sock
        self._read = read
        self._kept: list[Train] = []
        self._deliver: Callable[[list[Train]], None] | None = None
        self._receiving = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = False
        self._waiter: asyncio.Future[None] | None = None
        self._watchable: bool | None = None

    async def receive(self) -> list[Train]:
        """Wait for at least one train.

        Raises `anyio.ClosedResourceError` once closed, also when that happens while waiting, and
        `anyio.BusyResourceError` when another task waits already.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        with self._alone():
            if self._kept:
                await checkpoint_if_cancelled()
            else:
                await self._wait()
        if self._closed:
            raise anyio.ClosedResourceError
        kept, self._kept = self._kept, []
        return kept

    async def push(self, deliver: Callable[[list[Train]], None]) -> None:
        """Call `deliver` with at least one train whenever there is one, until closed.

        Where the event loop watches the socket, it makes the call: no task has to be woken. Raises what
        `deliver` raises, and `anyio.BusyResourceError` when another task waits already.
        """
        with self._alone():
            while not self._closed:
                if self._kept:
                    kept, self._kept = self._kept, []
                    deliver(kept)
                    continue
                self._deliver = deliver
                try:
                    await self._wait()
                finally:
                    self._deliver = None

    def close(self) -> None:
        """Stop reading and end a waiting `receive` or `push`. Call this before closing the socket."""
        if self._closed:
            return
        self._closed = True
        self._kept.clear()
        self._unwatch()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self._receiving:
            anyio.notify_closing(self._sock)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            yield
        finally:
            self._receiving = False

    async def _wait(self) -> None:
        """Wait until something is kept, or until closed."""
        if self._watchable is None:
            self._watchable = _on_asyncio()
        if self._watchable:
            await self._wait_watching()
        else:
            await self._wait_once()

    async def _wait_once(self) -> None:
        while not self._kept:
            try:
                await anyio.wait_readable(self._sock)
            except anyio.ClosedResourceError:
                return
            if self._closed:
                return
            self._kept = self._read()

    async def _wait_watching(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        if not self._watching:
            try:
                loop.add_reader(self._sock.fileno(), self._on_readable)
            except NotImplementedError:  # Windows' proactor loop
                self._watchable = False
                return await self._wait_once()
            self._loop = loop
            self._watching = True
        self._waiter = waiter
        try:
            await waiter
        finally:
            self._waiter = None

    def _on_readable(self) -> None:
        if self._deliver is not None:
            self._hand_over(self._deliver)
            return
        if len(self._kept) >= _MAX_KEPT:
            self._unwatch()
            return
        self._kept += self._read()
        if self._kept and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _hand_over(self, deliver: Callable[[list[Train]], None]) -> None:
        try:
            if trains := self._read():
                deliver(trains)
        finally:
            # What is raised here ends in a log of the event loop. It is for whoever waits in `push`.
            error = sys.exception()
            if error is not None and self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)

    def _unwatch(self) -> None:
        if self._watching and self._loop is not None:
            self._watching = False
            self._loop.remove_reader(self._sock.fileno())


def _on_asyncio() -> bool:
    """Tell whether this runs in a task of asyncio; a trio guest of an asyncio loop does not."""
    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False
