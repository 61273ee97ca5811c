"""A call that was sent: its items on their way, and its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import anyio

from mp2p_core import Closed, StreamClosed, StreamReset
from mp2p_core.boundary import Boundary
from mp2p_rpc.answers import bad_answer, error_from
from mp2p_rpc.errors import ArgumentError, BadAnswer, BadMessage, CallError, OutcomeUnknown
from mp2p_rpc.exchange import CANCELLED, Exchange
from mp2p_rpc.frames import Frame, FrameType, decode_error_untrusted, encode_frame, split_result_untrusted
from mp2p_rpc.schema import Codec, Misfit

if TYPE_CHECKING:
    from mp2p_core import Stream
    from mp2p_rpc.limits import Limits
    from mp2p_rpc.method import Method

__all__ = ["Pump", "Sent"]

_END: Final = encode_frame(FrameType.END)
_RESULT, _ITEM, _ERROR = FrameType.RESULT, FrameType.ITEM, FrameType.ERROR


class Sent(Exchange):
    """A call whose request is on its way: its answer is read here, for results of either kind."""

    pump: Pump | None = None
    items = 0
    """Items of the answer so far."""
    _complete = False

    def __init__(self, method: Method, stream: Stream, limits: Limits) -> None:
        super().__init__(stream, limits.message)
        self._method = method
        self._limits = limits

    async def result(self) -> Any:
        """Wait for the answer, if it is to be one result, and return that. Raises CallError."""
        self._fresh = False
        try:
            whole = await self.stream.receive_whole()
        except Closed as error:
            raise self._unknown(str(error)) from error
        if whole is not None:
            if (body := split_result_untrusted(whole)) is not None:
                self._complete = True
                return self.decode(body)
            self.feed(whole)
        frame = await self.next()
        if frame.type is not _RESULT:
            raise self.broken("the answer ends before the result")
        return self.decode(frame.body)

    async def next(self) -> Frame:
        """Wait for the next frame of the answer that is no error. Raises CallError."""
        try:
            frame = await self.receive_untrusted()
            if frame is not None and frame.type is _ERROR:
                self._complete = True
                raise error_from(decode_error_untrusted(frame.body), self._method, self._limits)
        except BadMessage as bad:
            raise bad_answer(bad, self._method) from bad
        except StreamReset as error:
            raise self._unknown("the peer gave the call up") from error
        except Closed as error:
            raise self._unknown(str(error)) from error
        except anyio.ClosedResourceError:
            if self.pump is not None and self.pump.error is not None:
                raise self.pump.error from None
            raise
        if frame is None:
            raise self.broken("the answer breaks off")
        self._complete = frame.type is not _ITEM
        return frame

    def decode(self, body: bytes) -> Any:
        """Read the result in a frame, or one item of it. Raises CallError."""
        try:
            return self._method.result.decode_untrusted(body, self._limits)
        except BadMessage as bad:
            self._complete = False
            raise bad_answer(bad, self._method) from bad

    def _unknown(self, cause: str) -> CallError:
        error = OutcomeUnknown(f"after {self.items} items" if self.items else "sent", cause)
        error.method = self._method.full_name
        return error

    def broken(self, message: str) -> CallError:
        """Word an answer that is none."""
        self._complete = False
        error = BadAnswer(f"{self._method.full_name}: {message}")
        error.method = self._method.full_name
        return error

    def finish(self) -> None:
        """Let go of the stream: in order when the answer is complete, or else by giving the call up. Never waits."""
        if self.pump is not None:
            self.pump.scope.cancel()
        if self._complete:
            self.stream.close_now()
        else:
            self.stream.abort(CANCELLED)


class Pump:
    """Sends the items that the application yields, in a task of its own."""

    def __init__(self, method: Method, exchange: Exchange, items: AsyncIterator[Any], limits: Limits) -> None:
        assert method.items is not None
        self.error: Exception | None = None
        """What the application's iterator raised; the caller gets it."""
        self.scope = anyio.CancelScope()
        self._method = method
        self._codec: Codec = method.items
        self._exchange = exchange
        self._items = items
        self._limits = limits

    async def run(self) -> None:
        boundary = Boundary()
        with self.scope, boundary:
            try:
                await self._send_all()
            finally:
                if (close := getattr(self._items, "aclose", None)) is not None:
                    await close()
        if boundary.error is not None and not isinstance(boundary.error, (StreamClosed, Closed)):
            self.error = boundary.error
            self._exchange.stream.abort(CANCELLED)

    async def _send_all(self) -> None:
        count = 0
        name = self._method.items_name
        async for item in self._items:
            try:
                data = self._codec.encode(item)
            except Misfit as misfit:
                path = f"$.{name}[{count}]{misfit.path[1:]}"
                raise ArgumentError(self._method.full_name, str(misfit), path) from misfit
            if len(data) > self._limits.message:
                raise ArgumentError(
                    self._method.full_name,
                    f"an item of {len(data)} bytes, at most {self._limits.message} are sent",
                    f"$.{name}[{count}]",
                )
            await self._exchange.send(encode_frame(FrameType.ITEM, data))
            count += 1
        await self._exchange.send(_END, last=True)
