"""Write to a file in a thread while more arrives, in steps that are worth a thread's while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from mp2p.transfer.errors import FileError
from mp2p.transfer.files import CHUNK

if TYPE_CHECKING:
    from mp2p.transfer.files import PartFile

__all__ = ["Sink"]

_HELD: Final = 4 * CHUNK
"""Bytes that wait for the disk, beside at most as many that are being written; then the network waits."""
_LINGER: Final = 0.05
"""Seconds that a few bytes wait for more, so that a slow network is not written byte by byte."""


class Sink:
    """Takes bytes from one task and has another write them, in order. Run `run` beside whoever calls `put`."""

    def __init__(self, part: PartFile) -> None:
        self._part = part
        self._pieces: list[bytes] = []
        self._size = 0
        self._closed = False
        self._changed = anyio.Event()
        self._drained = anyio.Event()
        self._ended = anyio.Event()
        self.error: FileError | None = None
        """Why nothing more can be written."""

    async def run(self, stop: anyio.CancelScope) -> None:
        """Write until closed, or until the file cannot be written, which cancels `stop`."""
        try:
            while batch := await self._batch():
                await to_thread.run_sync(self._part.write, batch)
        except FileError as error:
            self.error = error
            stop.cancel()
        finally:
            self._ended.set()

    async def put(self, piece: bytes) -> None:
        """Hand over bytes; waits while the disk is behind."""
        self._pieces.append(piece)
        self._size += len(piece)
        if len(self._pieces) == 1 or self._size >= CHUNK:
            self._changed.set()
        while self._size >= _HELD:
            self._drained = anyio.Event()
            await self._drained.wait()

    async def close(self) -> None:
        """Wait until everything is written, or cannot be."""
        self._closed = True
        self._changed.set()
        await self._ended.wait()

    async def _batch(self) -> list[bytes]:
        while not (self._pieces or self._closed):
            await self._wait()
        with anyio.move_on_after(_LINGER):
            while self._size < CHUNK and not self._closed:
                await self._wait()
        batch, self._pieces, self._size = self._pieces, [], 0
        self._drained.set()
        return batch

    async def _wait(self) -> None:
        self._changed = anyio.Event()
        await self._changed.wait()
