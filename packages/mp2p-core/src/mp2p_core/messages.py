"""Reliable messages over a pair of streams: each a length and that many bytes (docs/protocol.md, section 6).

Stream 0 carries the messages of the side that connected, stream 1 those of the other. Both are opened with
the first message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio

from mp2p_core.errors import Closed, MessageTooLarge, StreamReset
from mp2p_core.proto.constants import CLOSE_BAD_FRAME

if TYPE_CHECKING:
    from mp2p_core.stream import Stream

__all__ = ["MAX_MESSAGE_SIZE", "MessageReader", "MessageWriter"]

MAX_MESSAGE_SIZE: Final = 1 << 20
_LENGTH: Final = 4


class MessageWriter:
    """Sends messages in the order of the calls."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lock = anyio.Lock()

    async def send(self, data: bytes) -> None:
        """Send one message; the stream's errors, and `MessageTooLarge`. Cancelling it midway ends the stream."""
        if len(data) > MAX_MESSAGE_SIZE:
            raise MessageTooLarge(len(data), MAX_MESSAGE_SIZE)
        async with self._lock:
            whole = False
            try:
                await self._stream.send(len(data).to_bytes(_LENGTH, "big") + data)
                whole = True
            finally:
                if not whole:
                    # Half a message cannot be taken back, and what followed would be read as its rest.
                    await self._stream.reset(CLOSE_BAD_FRAME)


class MessageReader:
    """Receives messages. Cancelling loses nothing."""

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._opened = anyio.Event()
        self._buffer = bytearray()
        self._lock = anyio.Lock()

    def attach(self, stream: Stream | None) -> None:
        """Take the peer's stream, or None when the connection ended before there was one."""
        self._stream = self._stream or stream
        self._opened.set()

    async def receive(self) -> bytes:
        """Wait for the next whole message."""
        async with self._lock:
            await self._opened.wait()
            if self._stream is None:
                raise Closed(0, "the connection ended before any message")
            await self._need(_LENGTH)
            size = int.from_bytes(self._buffer[:_LENGTH], "big")
            if size > MAX_MESSAGE_SIZE:
                raise Closed(CLOSE_BAD_FRAME, f"the peer sent a message of {size} bytes")
            await self._need(_LENGTH + size)
            message = bytes(self._buffer[_LENGTH : _LENGTH + size])
            del self._buffer[: _LENGTH + size]
            return message

    async def _need(self, size: int) -> None:
        assert self._stream is not None
        while len(self._buffer) < size:
            try:
                self._buffer += await self._stream.receive(1 << 20)
            except (anyio.EndOfStream, StreamReset) as error:
                raise Closed(CLOSE_BAD_FRAME, "the peer sends no more messages") from error
