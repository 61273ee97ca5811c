"""The frames of one call over its stream, for both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from mp2p_rpc.errors import BadMessage
from mp2p_rpc.frames import Frame, FrameReader

if TYPE_CHECKING:
    from mp2p_core import Stream

__all__ = ["CANCELLED", "STOPPED", "Exchange"]

CANCELLED: Final = 1
"""Code of the reset and stop with which a caller gives a call up."""
STOPPED: Final = 2
"""Code of the reset and stop with which a handler's side gives a call up, where it cannot say more."""

_READ: Final = 1 << 20
_TURNS: Final = 16
_FRAMES: Final = 128
"""Frames read one behind the other before other tasks have their turn: a read has hundreds of thousands."""


class Exchange(FrameReader):
    """A stream, as frames. `limit` is how large a message from the other side may be."""

    _turn = 0
    _taken = 0
    _fresh = True  # nothing has been read: most requests and answers come whole, and are read so

    torn = False
    """Whether a frame may have been sent in part, because sending it was cancelled: nothing may follow it."""

    def __init__(self, stream: Stream, limit: int) -> None:
        super().__init__(limit)
        self.stream = stream

    async def receive_untrusted(self) -> Frame | None:
        """Wait for the next frame; None at the end. Raises BadMessage, and the errors of `Stream.receive`."""
        self._taken += 1
        if self._taken % _FRAMES == 0:
            await checkpoint()
        if self._fresh:
            self._fresh = False
            if (whole := await self.stream.receive_whole()) is not None:
                self.feed(whole)
        while (frame := self.next_untrusted()) is None:
            try:
                data = await self.stream.receive(_READ)
            except anyio.EndOfStream:
                self._ended_untrusted()
                return None
            self.feed(data)
        return frame

    def receive_nowait_untrusted(self) -> Frame | None:
        """Return the next frame if it is here, as `receive_untrusted` would. Raises BadMessage at the end."""
        if self._fresh:
            self._fresh = False
            if (whole := self.stream.receive_whole_nowait()) is not None:
                self.feed(whole)
        while (frame := self.next_untrusted()) is None:
            try:
                data = self.stream.receive_nowait(_READ)
            except anyio.EndOfStream:
                self._ended_untrusted()
                raise BadMessage("malformed", "the stream ends before the message") from None
            if data is None:
                return None
            self.feed(data)
        return frame

    def _ended_untrusted(self) -> None:
        if not self.empty:
            raise BadMessage("malformed", "the stream ends within a message")

    async def send(self, data: bytes, *, last: bool = False) -> None:
        """Send frames, waiting for room; `last` ends our direction. Raises as `Stream.send` does.

        Lets other tasks have their turn every now and then, for items may come without any waiting.
        """
        self._turn += 1
        if self._turn % _TURNS == 0:
            await checkpoint()
        if not self.stream.send_nowait(data, last=last):
            self.torn = True
            await self.stream.send(data)
            self.torn = False
            if last:
                await self.stream.send_eof()
