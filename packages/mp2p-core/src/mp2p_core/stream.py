"""Streams, as the application holds them: ordered, reliable bytes both ways, with an end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from mp2p_core.errors import StreamClosed
from mp2p_core.proto.stream_table import StreamEventKind

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.stream_table import StreamEvent
    from mp2p_core.proto.streams import Streams

__all__ = ["Stream"]

_CHUNK = 1 << 20
"""Handed over at once; a task that sends much yields to others in between."""


class Stream(ByteStream):
    """One stream of a connection. Comes from `Peer.open_stream` or `Peer.accept_stream`.

    An anyio `ByteStream`: wrap it with anyio's own tools. Bytes arrive once, in order, or the stream says
    why not; streams do not wait for each other. One task may send while another receives.
    """

    def __init__(self, number: int, connection: Connection, flush: Callable[[Connection], None]) -> None:
        self.number = number
        """The stream's number on its connection: even when the side that connected opened it."""
        self._connection = connection
        self._streams: Streams = connection.session.packer.streams
        self._flush = flush
        self._readable: anyio.Event | None = None
        self._writable: anyio.Event | None = None
        self._eof = False
        self._ended = False
        self._closed = False

    async def send(self, item: bytes | memoryview) -> None:
        """Send bytes; returns once they are queued, at most 1 MiB ahead of the network.

        Waits while the peer does not read or the network is slow. Bytes objects are not copied: leave
        other buffers alone only until this returns. Raises `StreamClosed` when the peer reads no more,
        `Closed`, or `anyio.ClosedResourceError` after `send_eof`.
        """
        self._check(self._eof)
        view = memoryview(item)
        start = 0
        while start < len(view):
            self._connection.check_open()
            piece = item if start == 0 and len(view) <= _CHUNK else view[start : start + _CHUNK]
            taken = self._streams.write(self.number, piece)
            if taken:
                start += taken
                self._flush(self._connection)
                await checkpoint()
            else:
                await self._wait_writable()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Wait for the next bytes and return at least one, at most `max_bytes`.

        Raises `anyio.EndOfStream` at the peer's end, `StreamReset` when it gave up, `Closed` when the
        connection ended first: what was sent is then not known to be complete.
        """
        self._check(closed=False)
        if self._ended:
            raise anyio.EndOfStream
        while (piece := self._streams.read(self.number, max_bytes)) is None:
            self._connection.check_open()
            if self._readable is not None:
                raise anyio.BusyResourceError("receiving from")
            self._readable = anyio.Event()
            try:
                await self._readable.wait()
            finally:
                self._readable = None
        if not piece:
            self._ended = True
            raise anyio.EndOfStream
        if self._streams.has_control():
            self._flush(self._connection)
        return bytes(piece)

    async def send_eof(self) -> None:
        """End our direction: the peer's `receive` raises `anyio.EndOfStream` after the last byte."""
        if not self._eof:
            self._check(closed=False)
            self._eof = True
            self._streams.finish(self.number)
            self._flush(self._connection)

    async def reset(self, code: int = 0) -> None:
        """Give up our direction at once; the peer's `receive` raises `StreamReset` with this code."""
        self._eof = True
        self._streams.reset(self.number, code)
        self._flush(self._connection)

    async def aclose(self) -> None:
        """End our direction, read no more, and let go. What was sent still arrives. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._connection.closed is None:
            if not self._eof:
                self._eof = True
                with contextlib.suppress(StreamClosed):  # the peer has let go already
                    self._streams.finish(self.number)
            if not self._ended:
                self._streams.stop(self.number, 0)
            self._flush(self._connection)
        self.wake()

    def _check(self, closed: bool) -> None:
        if closed or self._closed:
            raise anyio.ClosedResourceError

    async def _wait_writable(self) -> None:
        if self._writable is not None:
            raise anyio.BusyResourceError("sending to")
        self._writable = anyio.Event()
        try:
            await self._writable.wait()
        finally:
            self._writable = None

    def notice(self, event: StreamEvent) -> None:
        """Take what the protocol says about this stream."""
        waiting = None
        if event.kind is StreamEventKind.READABLE:
            waiting = self._readable
        elif event.kind in (StreamEventKind.WRITABLE, StreamEventKind.STOPPED):
            waiting = self._writable
        if waiting is not None:
            waiting.set()

    def wake(self) -> None:
        """Wake whoever waits: the connection or the stream has ended."""
        for waiting in (self._readable, self._writable):
            if waiting is not None:
                waiting.set()
