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
from collections.abc import Callable
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
    socket only when they can be kept, so a cancelled `receive` loses none.
    """

    def __init__(self, sock: socket.socket, read: Callable[[], list[Train]]) -> None:
        self._sock = sock
        self._read = read
        self._kept: list[Train] = []
        self._receiving = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watching = False
        self._waiter: asyncio.Future[None] | None = None
        self._watchable = True

    async def receive(self) -> list[Train]:
        """Wait for at least one train.

        Raises `anyio.ClosedResourceError` once closed, also when that happens while waiting, and
        `anyio.BusyResourceError` when another task waits already.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            if self._kept:
                await checkpoint_if_cancelled()
            elif self._watchable and _on_asyncio():
                await self._wait_watching()
            else:
                await self._wait_once()
        finally:
            self._receiving = False
        if self._closed:
            raise anyio.ClosedResourceError
        kept, self._kept = self._kept, []
        return kept

    def close(self) -> None:
        """Stop reading and end a waiting `receive`. Call this before closing the socket."""
        if self._closed:
            return
        self._closed = True
        self._kept.clear()
        self._unwatch()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self._receiving:
            anyio.notify_closing(self._sock)

    async def _wait_once(self) -> None:
        while not self._kept:
            await anyio.wait_readable(self._sock)
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
        if len(self._kept) >= _MAX_KEPT:
            self._unwatch()
            return
        self._kept += self._read()
        if self._kept and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

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
