"""A bounded queue of control messages to one session, read by the stream that carries them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

import anyio

__all__ = ["ROOM", "Outbox"]

ROOM: Final = 256 * 1024
"""Bytes that wait for one session, from which on nothing is queued."""


class Outbox(AsyncIterator[bytes]):
    """Bytes in order, for one reader. `size` tells whoever fills it when to wait.

    Attack: a peer that asks, or has us ask, and never reads. What finds no room is lost: all of it is asked for, or
    told, again, and a publisher looks at the room beforehand.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes that wait."""
        self._items: deque[bytes] = deque()
        self._filled = anyio.Event()
        self._closed = False

    def put(self, item: bytes) -> None:
        """Queue something; nothing once closed, or while too much waits."""
        if not self._closed and self.size < ROOM:
            self._items.append(item)
            self.size += len(item)
            self._filled.set()

    def close(self) -> None:
        """End it: what waits still goes out."""
        self._closed = True
        self._filled.set()

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next item; ends once closed and empty. Cancelling loses nothing."""
        while not self._items:
            if self._closed:
                raise StopAsyncIteration
            self._filled = anyio.Event()
            await self._filled.wait()
        item = self._items.popleft()
        self.size -= len(item)
        return item
