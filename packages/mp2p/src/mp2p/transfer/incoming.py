"""The stream of a transfer: read its messages and bytes, and let go of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio

from mp2p.transfer.errors import Reason, TransferBroken, TransferRefused
from mp2p_core.errors import BadPacket, Closed, StreamClosed, StreamReset

if TYPE_CHECKING:
    from mp2p_core import Stream

__all__ = ["Incoming", "let_go"]

_Message = TypeVar("_Message")


class Incoming:
    """The other side's half of a stream. Raises `TransferBroken` at an end too soon, and `Closed`."""

    def __init__(self, stream: Stream, name: str = "a file") -> None:
        self._stream = stream
        self._buffer = b""
        self.name = name
        """What is being transferred, for errors."""

    async def message(
        self, decode_untrusted: Callable[[bytes], tuple[_Message, int] | None], silence: float | None = None
    ) -> _Message:
        """Wait for the next message, at most `silence` seconds for each part of it."""
        while True:
            try:
                found = decode_untrusted(self._buffer)
            except BadPacket as error:
                raise TransferRefused(
                    self.name, Reason.NOT_UNDERSTOOD, f"it speaks otherwise: {error}"
                ) from error
            if found is not None:
                self._buffer = self._buffer[found[1] :]
                return found[0]
            self._buffer += await self._receive(1 << 16, silence)

    async def exactly(self, count: int) -> bytes:
        """Wait for this many bytes."""
        while len(self._buffer) < count:
            self._buffer += await self._receive(count - len(self._buffer))
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    async def some(self, limit: int) -> bytes:
        """Wait for the next bytes, at most `limit`."""
        if self._buffer:
            return await self.exactly(min(limit, len(self._buffer)))
        return await self._receive(limit)

    async def end(self) -> None:
        """Wait for the end, and pass over whatever comes before it."""
        try:
            while True:
                await self._stream.receive()
        except (anyio.EndOfStream, StreamReset):
            return

    async def _receive(self, limit: int, silence: float | None = None) -> bytes:
        try:
            if silence is None:  # the path of the bytes: without the cost of a cancel scope
                return await self._stream.receive(limit)
            with anyio.move_on_after(silence):
                return await self._stream.receive(limit)
        except anyio.EndOfStream:
            raise TransferBroken(f"the transfer of {self.name!r} ended before it was complete") from None
        except StreamReset as reset:
            if reset.code != Reason.CANCELLED:
                raise TransferRefused(self.name, reset.code) from reset
            raise TransferBroken(f"the peer has stopped the transfer of {self.name!r}") from reset
        raise TransferBroken(
            f"the peer has said nothing about {self.name!r} for {silence:g} s: it is busy or gone, or it is not "
            "`mp2p receive-file`"
        )


async def let_go(stream: Stream, code: Reason | None) -> None:
    """End the stream, in order or with a code. Never waits, so that it does its work in a cancelled task too."""
    with contextlib.suppress(StreamClosed, Closed):
        if code is None:
            await stream.send_eof()
        else:
            await stream.reset(code)
    await stream.aclose()
