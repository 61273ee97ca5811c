"""Reliable messages over a pair of streams: each a length and that many bytes (docs/protocol.md, section 6).

The first stream of each side carries its messages: stream 0 those of the side that connected, stream 1 those of
the other. Nobody resets or stops them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Final

import anyio

from mp2p_core.errors import Closed, MessageTooLarge, StreamClosed, StreamReset
from mp2p_core.proto.constants import CLOSE_RESTARTED

if TYPE_CHECKING:
    from mp2p_core.stream import Stream
    from mp2p_core.waiting import Signal

__all__ = ["MAX_MESSAGE_SIZE", "MessageReader", "MessageWriter"]

MAX_MESSAGE_SIZE: Final = 1 << 20
_LENGTH: Final = 4
_READ: Final = 65536
_STEP: Final = 1 << 17
"""Bytes of a large message that are taken at once: at its end little is left to be copied, and packets that are let go
soon make room for others in the caches. It is also what has to have come before room is made for all of it."""


def _broken() -> Closed:
    return Closed(CLOSE_RESTARTED, "the peer has started anew: messages may be lost")


class MessageWriter:
    """Sends messages in the order of the calls.

    `begin` makes the stream for them on the session that sends now. A session that has one is kept to for as
    long as it lives, for order holds within a stream only.
    """

    def __init__(self, begin: Callable[[], Stream]) -> None:
        self._begin = begin
        self._stream: Stream | None = None
        self._broken: Closed | None = None

    @cached_property
    def _lock(self) -> anyio.Lock:
        """Made with the first message: many peers never have one."""
        return anyio.Lock(fast_acquire=True)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Queue one message, whole or, when cancelled, not at all. Raises as `Peer.send` does."""
        size = memoryview(data).nbytes
        if size > MAX_MESSAGE_SIZE:
            raise MessageTooLarge(size, MAX_MESSAGE_SIZE)
        length = size.to_bytes(_LENGTH, "big")
        async with self._lock:
            if self._broken is not None:
                broken, self._broken = self._broken, None
                raise broken
            if self._stream is None or not self._stream.alive:
                self._stream = self._begin()
            try:
                await self._stream.send_whole(length, bytes(data))
            except Closed:
                self._broken = None  # this tells it
                raise

    async def finish(self) -> None:
        """Send no more. Never waits."""
        if self._stream is not None:
            with contextlib.suppress(StreamClosed, Closed):
                await self._stream.send_eof()

    def renew(self, *, tell: bool) -> None:
        """Go on over a new connection. With `tell`, whoever has sent learns once that something may be lost."""
        self._broken = _broken() if tell and self._stream is not None else None
        self._stream = None


class _Incoming:
    """A stream of messages, and the bytes of it that make no whole message yet."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.buffer = bytearray()
        self.large: BytesIO | None = None
        """A large message, in place of `buffer`: made in its full size, so that it is not copied to be handed over."""
        self.missing = 0
        """Bytes that it lacks."""
        self.broken: Closed | None = None
        """What the application has to know after its last message."""


def _room(incoming: _Incoming) -> BytesIO:
    """Make room for a large message, and write its beginning there."""
    beginning = memoryview(incoming.buffer)[_LENGTH:]
    room = BytesIO()
    room.seek(len(beginning) + incoming.missing - 1)
    room.write(b"\0")
    room.seek(0)
    room.write(beginning)
    incoming.buffer = bytearray()
    return room


class MessageReader:
    """Receives messages.

    `check_open` raises `Closed` once the connection has ended; `fail` ends it because of what the peer has
    sent.
    """

    def __init__(
        self,
        *,
        check_open: Callable[[], None],
        fail: Callable[[str], None],
        make_signal: Callable[[], Signal],
    ) -> None:
        self._check_open = check_open
        self._fail = fail
        self._make_signal = make_signal
        # Usually one. Those before the last are of sessions, or of a connection, that the peer has given up.
        self._streams: list[_Incoming] = []
        self._signal: Signal | None = None
        self._broken: Closed | None = None

    def attach(self, stream: Stream) -> None:
        """Take a stream that the peer has opened for messages."""
        self._streams.append(_Incoming(stream))
        self.wake()

    def renew(self, *, tell: bool) -> None:
        """Go on over a new connection. With `tell`, whoever has received, or waits, learns that something may be lost.

        First comes what arrived whole before.
        """
        if tell and self._streams:
            self._streams[-1].broken = _broken()
        elif tell and self._signal is not None:
            self._broken = _broken()
        self.wake()

    def wake(self) -> None:
        """Have whoever waits look again."""
        if self._signal is not None:
            self._signal.set()

    @cached_property
    def _lock(self) -> anyio.Lock:
        """Made with the first message: many peers never have one."""
        return anyio.Lock(fast_acquire=True)

    async def receive(self) -> bytes:
        """Wait for the next whole message. Cancelling loses nothing. Raises as `Peer.receive` does."""
        async with self._lock:
            while (message := self._next()) is None:
                if self._broken is not None:
                    broken, self._broken = self._broken, None
                    raise broken
                self._check_open()
                signal = self._signal = self._make_signal()
                for each in self._streams:
                    each.stream.watch(signal)
                try:
                    await signal.wait()
                finally:
                    self._signal = None
            return message

    def _next(self) -> bytes | None:
        for incoming in list(self._streams):
            message = self._take(incoming)
            if message is not None:
                return message
            if not incoming.stream.alive:
                self._streams.remove(incoming)
                if incoming.broken is not None:
                    raise incoming.broken
        return None

    def _take(self, incoming: _Incoming) -> bytes | None:
        """Return the stream's next message; None when that takes more than there is."""
        buffer = incoming.buffer
        while not incoming.missing:
            held, needed = len(buffer), _LENGTH
            if held >= _LENGTH:
                size = int.from_bytes(buffer[:_LENGTH], "big")
                if size > MAX_MESSAGE_SIZE:
                    self._refuse(incoming, f"a message of {size} bytes, {MAX_MESSAGE_SIZE} allowed")
                    return None
                needed += size
                if held >= needed:
                    with memoryview(buffer) as view:
                        message = bytes(view[_LENGTH:needed])
                    del buffer[:needed]
                    return message
                if size > _READ:
                    incoming.missing = needed - held
                    break
            pieces = self._read(incoming, max(_READ, needed - held), needed - held)
            if pieces is None:
                return None
            for piece in pieces:
                buffer += piece
        while incoming.missing:
            pieces = self._read(incoming, incoming.missing, min(incoming.missing, _STEP))
            if pieces is None:
                return None
            if incoming.large is None:
                incoming.large = _room(incoming)
            for piece in pieces:
                incoming.missing -= incoming.large.write(piece)
        assert incoming.large is not None
        message = incoming.large.getvalue()
        incoming.large = None
        return message

    def _read(self, incoming: _Incoming, limit: int, at_least: int) -> list[bytes | memoryview] | None:
        """Read what a message lacks, at most `limit`; None when there is too little yet."""
        try:
            return incoming.stream.take_nowait(limit, at_least)
        except anyio.EndOfStream:
            if incoming.buffer or incoming.missing:
                self._refuse(incoming, "a message without its end")
        except StreamReset:
            self._refuse(incoming, "the stream of messages was reset")
        return None  # the peer closes, and says why in a moment

    def _refuse(self, incoming: _Incoming, why: str) -> None:
        if incoming.stream.alive:  # else it is of a connection that has ended already
            self._fail(why)
