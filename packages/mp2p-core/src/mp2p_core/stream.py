"""Streams, as the application holds them: ordered, reliable bytes both ways, with an end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from mp2p_core.errors import Closed, StreamClosed, StreamReset
from mp2p_core.proto.constants import UNSENT_FLOOR
from mp2p_core.proto.stream_table import StreamEventKind

if TYPE_CHECKING:
    from types import TracebackType

    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.session import Session
    from mp2p_core.waiting import Signal

__all__ = ["Stream", "StreamLinks"]

_CHUNK: Final = 1 << 20
"""Handed over at once; a task that sends much yields to others in between."""
_READABLE: Final = StreamEventKind.READABLE
_TURNS: Final = 16
"""Calls that may go through without waiting before other tasks get a turn."""


class StreamLinks(NamedTuple):
    """What a peer gives each stream of a connection."""

    connection: Connection
    flush: Callable[[Connection], None]
    make_signal: Callable[[], Signal]
    known: dict[tuple[Session, int], Stream]
    """Where events find it, until it is closed."""


class Stream(ByteStream):
    """One stream of a connection. Comes from `Peer.open_stream` or `Peer.accept_stream`.

    An anyio `ByteStream`: wrap it with anyio's own tools, iterate over what arrives. Bytes arrive once, in
    order, or the stream says why not; streams do not wait for each other. One task may send while another
    receives; a second one in either direction gets `anyio.BusyResourceError`.

    `async with stream` closes it, and resets what was being sent when the block is left by an exception: the
    peer must not take half for the whole. An error that has ended a direction is raised again by each later
    call in it. Protocol section 6.
    """

    def __init__(self, number: int, session: Session, links: StreamLinks, whole: bytes = b"") -> None:
        self.number = number
        """The stream's number: even when the side that connected opened it."""
        self.abandoned: Callable[[], None] | None = None
        """Called once when the peer reads no more, or the connection has ended: nobody waits for what is sent."""
        self._session = session
        self._streams = session.packer.streams
        self._connection, self._flush, self._make_signal, self._known = links
        self._known[session, number] = self
        self._turn = 0
        # Whether a task is at it, and what it waits for.
        self._sending = self._receiving = False
        self._writable: Signal | None = None
        self._readable: Signal | None = None
        # How each direction has ended. Ours: by us, or by the peer's STOP. The peer's: at its end, by its RESET, or
        # because we have stopped reading.
        self._finished = False
        self._stopped: int | None = None
        self._ended = bool(whole)
        self._reset: int | None = None
        self._ignored = False
        self._closed = False
        self._kept = whole  # read first: what was given back, or all of a stream that came in one small piece

    # --- sending --------------------------------------------------------------------------------------

    async def send(self, item: bytes | bytearray | memoryview) -> None:
        """Send bytes; returns once they are queued, at most 1 MiB ahead of the network.

        Waits while the peer does not read or the network is slow. Bytes objects are not copied; other
        buffers may be changed once this has returned.

        Cancelled, up to 64 KiB are queued whole or not at all, and the stream goes on as if this had never
        been called; of more, any part may have been queued: then `reset` it. Raises `StreamClosed` when the
        peer reads no more, `Closed`, or `anyio.ClosedResourceError` after `send_eof`, `reset` or `aclose`.
        """
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        self._sending = True
        try:
            await self._take_turn()
            view = memoryview(item)
            size = view.nbytes
            if size <= UNSENT_FLOOR:
                self._check_sending()
                while size and not self._write(item, whole=True):
                    await self._until_writable()
                return
            view = view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
            start = self._write(item if isinstance(item, bytes) and size <= _CHUNK else view[:_CHUNK])
            while start < size:
                await checkpoint()
                while not (taken := self._write(view[start : start + _CHUNK])):
                    await self._until_writable()
                start += taken
        finally:
            self._sending = False

    async def send_whole(self, head: bytes, data: bytes) -> None:
        """Send a few bytes and data after them, not copied: all or, when cancelled, nothing. By one task at a time."""
        await self._take_turn()
        while not self._write(data, whole=True, head=head):
            await self._until_writable()

    def send_nowait(self, item: bytes, *, last: bool = False) -> bool:
        """Queue all of `item` if there is room, and tell whether there was. Raises as `send` does.

        With `last` it ends our direction, too, and in the same packet.
        """
        if self._sending:
            raise anyio.BusyResourceError("sending to")
        if not last:
            return self._write(item, whole=True) == len(item)
        self._check_sending()
        try:
            self._finished = self._streams.write_last(self.number, item)
        except StreamClosed as error:
            self._stopped = error.code
            raise
        if self._finished:
            self._flush(self._connection)
        return self._finished

    def _write(self, data: bytes | bytearray | memoryview, *, whole: bool = False, head: bytes = b"") -> int:
        self._check_sending()
        try:
            taken = self._streams.write(self.number, data, whole=whole, head=head)
        except StreamClosed as error:
            self._stopped = error.code
            raise
        if taken:
            self._flush(self._connection)
        return taken

    def _check_sending(self) -> None:
        if self._closed or self._finished:
            raise anyio.ClosedResourceError
        if self._stopped is not None:
            raise StreamClosed(self.number, self._stopped)
        if not self._session.live:
            self._raise_closed()

    def _until_writable(self) -> Awaitable[None]:
        self._writable = self._make_signal()  # left behind afterwards: to set it once more does nothing
        return self._writable.wait()

    async def send_eof(self) -> None:
        """End our direction: the peer's `receive` raises `anyio.EndOfStream` after the last byte.

        Never waits, and does nothing the second time, or after `reset` or `aclose`. Raises `StreamClosed` when
        the peer reads no more, or `Closed`.
        """
        if self._finished or self._closed:
            return
        self._check_sending()
        self._finished = True
        try:
            self._streams.finish(self.number)
        except StreamClosed as error:
            self._finished, self._stopped = False, error.code
            raise
        self._flush(self._connection)
        self._wake(self._writable)

    async def reset(self, code: int = 0) -> None:
        """Give up our direction at once; the peer's `receive` raises `StreamReset` with this code.

        `code` is the application's own, from 0 to 65535. What the peer has acknowledged already, all of it and
        the end, stays delivered. Never waits. Raises `UsageError` for another code.
        """
        self._streams.reset(self.number, code)
        self._finished = True
        self._flush(self._connection)
        self._wake(self._writable)

    # --- receiving ------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = 65536, *, at_least: int = 1) -> bytes:
        """Wait for the next bytes and return at least one, at most `max_bytes`.

        With `at_least` it waits for so many where the peer may send that much ahead, which saves waking this
        task for each packet. Fewer come before the end, and when it is much, so go on until you have enough.

        Cancelling loses nothing. Raises `anyio.EndOfStream` at the peer's end, `StreamReset` when it gave up,
        `Closed` when the connection ended first: what was sent is then not known to be complete. Raises
        `anyio.ClosedResourceError` after `stop` or `aclose`.
        """
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            await self._take_turn()
            while (piece := self.receive_nowait(max_bytes, at_least)) is None:
                await self._until_readable()
            return piece
        finally:
            self._receiving = False

    def _until_readable(self) -> Awaitable[None]:
        if not self._session.live:
            self._raise_closed()
        self._readable = self._make_signal()  # left behind, too
        return self._readable.wait()

    def receive_nowait(self, max_bytes: int = 65536, at_least: int = 1) -> bytes | None:
        """Return what `receive` would, or None when it would wait, or raise `Closed`."""
        pieces = self.take_nowait(max_bytes, at_least)
        return None if pieces is None else b"".join(pieces)

    def take_nowait(self, max_bytes: int, at_least: int = 1) -> list[bytes | memoryview] | None:
        """Return what `receive_nowait` would, in the pieces that it came in: whoever joins many copies them once."""
        if self._closed or self._ignored:
            raise anyio.ClosedResourceError
        if self._kept:
            piece, self._kept = self._kept[:max_bytes], self._kept[max_bytes:]
            return [piece]
        if self._ended:
            raise anyio.EndOfStream
        if self._reset is not None:
            raise StreamReset(self.number, self._reset)
        try:
            # Once the connection has ended, what there is will not become more.
            pieces = self._streams.take(self.number, max_bytes, at_least if self._session.live else 1)
        except StreamReset as error:
            self._reset = error.code
            raise
        if pieces is None:
            return None
        if not pieces:
            self._ended = True
            raise anyio.EndOfStream
        if self._streams.control:
            self._flush(self._connection)
        return pieces

    def give_back(self, data: bytes) -> None:
        """Have the next `receive` return what this stream has brought once more, before anything else."""
        self._kept = data + self._kept

    async def receive_whole(self) -> bytes | None:
        """Wait until something has come, and return it if it is everything, the end included, in one small piece.

        Returns None, and has read nothing, when it is anything else: `receive` then does not wait. For small
        messages that have a stream of their own. Raises `Closed`; cancelling loses nothing.
        """
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            while not self._begun():
                await self._until_readable()
            return self.receive_whole_nowait()
        finally:
            self._receiving = False

    def _begun(self) -> bool:
        """Whether there is something for `take_nowait`, be it an error, or has been."""
        over = self._ended or self._closed or self._ignored or self._reset is not None
        return over or bool(self._kept) or self._streams.readable(self.number)

    def receive_whole_nowait(self) -> bytes | None:
        """Return what `receive_whole` would, or None also when it would wait. Never raises."""
        if not self._ended or self._ignored or self._closed:
            return None
        whole, self._kept = self._kept, b""
        return whole or None

    async def stop(self, code: int = 0) -> None:
        """Read no more: what has come and not been read is dropped, and the peer's `send` raises `StreamClosed`.

        `code` is the application's own, from 0 to 65535. Does nothing after the peer's end. Never waits.
        Raises `UsageError` for another code.
        """
        self._streams.stop(self.number, code)
        self._ignored = self._ignored or bool(self._kept) or not (self._ended or self._reset is not None)
        self._flush(self._connection)
        self._wake(self._readable)

    # --- both -----------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End our direction, read no more, and let go. What was sent still arrives.

        Never waits, so that it does its work in a cancelled task, too. May be called again.
        """
        self.close_now()

    def close_now(self) -> None:
        """Do what `aclose` does, where nothing can be awaited."""
        if self._closed:
            return
        self._closed = True
        self._known.pop((self._session, self.number), None)
        if self._ended and self._finished:  # in order: there is nothing to say
            self.abandoned = None
            if self._receiving or self._sending:
                self.wake()
            return
        if not self._finished and self.alive:
            self._finished = True
            with contextlib.suppress(StreamClosed):
                self._streams.finish(self.number)
        self._let_go(0)

    def abort(self, code: int = 0) -> None:
        """Give up both directions at once, as `reset` and `stop` do. Never waits."""
        if self._closed:
            return
        self._closed = self._finished = True
        self._known.pop((self._session, self.number), None)
        if self.alive:
            self._streams.reset(self.number, code)
        self._let_go(code)

    def _let_go(self, code: int) -> None:
        self.abandoned = None
        if self.alive:
            self._streams.stop(self.number, code)
            if self._streams.wants_to_send():  # a stream that has ended in order needs no word more
                self._flush(self._connection)
        self.wake()

    def serve(self) -> None:
        """Say that the application is at work on this stream: that the peer gives it up is then no attack."""
        self._streams.table.serve(self.number)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not self._finished:
            await self.reset()
        await self.aclose()

    def _raise_closed(self) -> NoReturn:
        self._connection.check_open()
        raise Closed(self._session.closing.code, self._session.closing.reason)

    async def _take_turn(self) -> None:
        self._turn += 1
        await (checkpoint_if_cancelled() if self._turn % _TURNS else checkpoint())

    # The peer's side of it.

    def notice(self, kind: StreamEventKind, whole: bytes) -> None:
        """Take what the protocol says about this stream."""
        if whole:
            self._kept, self._ended = whole, True
        if kind is _READABLE:
            self._wake(self._readable)
        else:
            self._wake(self._writable)
            if kind is StreamEventKind.STOPPED:
                self._abandon()

    def wake(self) -> None:
        """Wake whoever waits: the connection or the stream has ended."""
        self._wake(self._readable)
        self._wake(self._writable)
        if not self.alive:
            self._abandon()

    def _abandon(self) -> None:
        if (abandoned := self.abandoned) is not None:
            self.abandoned = None
            abandoned()

    @property
    def alive(self) -> bool:
        """Whether the protocol still knows this stream."""
        return self.number in self._streams.table.live and self._session.live

    @property
    def over(self) -> bool:
        """Whether nothing more is to be told of this stream: an event may still have all that the peer has sent."""
        ended = self._ended or self._ignored or self._closed or self._reset is not None
        return not self.alive and (ended or not self._session.live)

    def watch(self, signal: Signal | None) -> None:
        """Have a signal set when there may be something for `receive_nowait`."""
        self._readable = signal

    @staticmethod
    def _wake(signal: Signal | None) -> None:
        if signal is not None:
            signal.set()

    def __repr__(self) -> str:
        return f"<Stream {self.number}>"
