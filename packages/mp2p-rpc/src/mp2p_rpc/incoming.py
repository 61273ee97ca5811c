"""One call from a peer: reading its request, deciding about it, running its handler, answering."""

from __future__ import annotations

import logging
import math
import random
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final

import anyio

from mp2p_core import Closed, StreamClosed, StreamReset
from mp2p_core.boundary import Boundary
from mp2p_rpc.answers import describe_bad_message, refusal
from mp2p_rpc.call import CURRENT, Call
from mp2p_rpc.errors import BadMessage
from mp2p_rpc.exchange import STOPPED, Exchange
from mp2p_rpc.frames import (
    MAX_HEADER_SIZE,
    CallHeader,
    ErrorBody,
    ErrorKind,
    Frame,
    FrameType,
    UnknownFrame,
    decode_call_untrusted,
    encode_error,
    encode_frame,
    split_request_untrusted,
)
from mp2p_rpc.items import BadItem, Items
from mp2p_rpc.method import Shape
from mp2p_rpc.schema import Misfit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core import Stream
    from mp2p_rpc.call import Interceptor
    from mp2p_rpc.method import Method
    from mp2p_rpc.node import Peer
    from mp2p_rpc.offer import Offer
    from mp2p_rpc.server import Server

__all__ = ["Incoming"]

_log = logging.getLogger("mp2p.rpc")

_END: Final = encode_frame(FrameType.END)
_CALL, _ARGUMENTS, _RESULT = FrameType.CALL, FrameType.ARGUMENTS, FrameType.RESULT
_ONE_RESULT: Final = (Shape.UNARY, Shape.CLIENT_STREAM)
_LARGE: Final = 65536
"""Bytes of a request from which on only a few of a peer's are read at a time."""


class Incoming:
    """A call from a peer. `begin` reads what is here; the rest follows by itself."""

    __slots__ = (
        "_abandoned", "_answered", "_arguments", "_call", "_deadline", "_entered", "_error", "_exchange", "_header",
        "_left", "_method", "_offer", "_peer", "_scope", "_server", "_stopped", "_stream", "_target",
    )  # fmt: skip

    def __init__(self, server: Server, peer: Peer, stream: Stream) -> None:
        self._server = server
        self._peer = peer
        self._stream = stream
        stream.abandoned = self.abandon
        self._header: CallHeader | None = None
        self._offer: Offer | None = None
        self._target: Any = None
        self._method: Method | None = None
        self._arguments: dict[str, Any] = {}
        self._deadline = math.inf
        self._call: Call | None = None
        self._exchange: Exchange | None = None
        self._scope: anyio.CancelScope | None = None
        self._answered = self._abandoned = self._stopped = self._entered = self._left = False
        self._error: Exception | None = None

    # --- the request ----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read what is here; wait for the rest in a task of its own. Never raises for what the peer sends."""
        try:
            if (whole := self._stream.receive_whole_nowait()) is not None:
                if (request := split_request_untrusted(whole)) is not None:
                    header, arguments = request
                    if not self._take_header(decode_call_untrusted(header)):
                        self._take_arguments(arguments)
                    return
                self._frames.feed(whole)
            while (frame := self._frames.receive_nowait_untrusted()) is not None:
                if self._take_untrusted(frame):
                    return
        except BadMessage as bad:
            if not self._pass_on(bad):
                self._refuse(describe_bad_message(bad, arguments=False))
        except (StreamReset, Closed):
            self._drop()
        else:
            self._server.tasks.start_soon(self._read_on, self._frames)

    @property
    def _frames(self) -> Exchange:
        """The stream as frames: made for requests that are not whole yet, items, and answers that have to wait."""
        if self._exchange is None:
            self._exchange = Exchange(self._stream, MAX_HEADER_SIZE)
            if self._offer is not None:
                self._exchange.limit = self._offer.limits.message
        return self._exchange

    async def _read_on(self, exchange: Exchange) -> None:
        try:
            if exchange.wanted > _LARGE:
                # Attack: a hundred requests that are never finished, each as large as can be.
                async with self._peer.large_requests:
                    await self._read_rest(exchange)
            else:
                await self._read_rest(exchange)
        except BadMessage as bad:
            if not self._pass_on(bad):
                self._refuse(describe_bad_message(bad, arguments=False))
        except (StreamReset, Closed, anyio.ClosedResourceError):
            self._drop()

    async def _read_rest(self, exchange: Exchange) -> None:
        while (frame := await exchange.receive_untrusted()) is not None:
            if self._take_untrusted(frame):
                return
            if exchange.wanted > _LARGE and self._peer.large_requests.value:
                continue
        raise BadMessage("malformed", "the request ends before its arguments")

    def _pass_on(self, bad: BadMessage) -> bool:
        """Leave a stream of another protocol to whoever has asked for such; tells whether anybody has."""
        if self._header is not None or not isinstance(bad, UnknownFrame):
            return False
        data = self._frames.unread
        if not self._server.wants(data[0], self._peer):
            return False
        self._end()
        self._stream.give_back(data)
        self._peer.leave(self._stream)
        return True

    def _take_untrusted(self, frame: Frame) -> bool:
        """Take a frame of the request; True when there is no more to read. Raises BadMessage."""
        if self._header is None:
            if frame.type is not _CALL:
                raise BadMessage("malformed", f"a request begins with CALL, not {frame.type.name}")
            return self._take_header(decode_call_untrusted(frame.body))
        if frame.type is not _ARGUMENTS:
            raise BadMessage("malformed", f"ARGUMENTS come after CALL, not {frame.type.name}")
        self._take_arguments(frame.body)
        return True

    def _take_header(self, header: CallHeader) -> bool:
        """Decide by the header whether to read on; True when there is an answer already."""
        self._header = header
        name = f"{header.service}.{header.method}" if header.service else header.method
        key = self._peer.key
        found = self._server.find(header.service, header.version)
        if found is None or not found.offer.allows(key, name):
            return self._deny(header, name, found is not None)
        method = found.binding.interface.methods.get(header.method)
        if method is None:
            return self._refuse(ErrorBody(ErrorKind.UNKNOWN_METHOD, "", "the peer has no such method"))
        self._offer, self._target, self._method = found.offer, found.binding.target, method
        limits = found.offer.limits
        if len(self._peer.incoming) > limits.calls_per_peer:
            return self._refuse(ErrorBody(ErrorKind.BUSY, "", f"{limits.calls_per_peer} calls of this key"))
        if found.offer.full:
            return self._refuse(ErrorBody(ErrorKind.BUSY, "", "as many calls wait as may"))
        if header.timeout is not None:
            if not header.timeout > 0:
                return self._refuse(ErrorBody(ErrorKind.DEADLINE))
            self._deadline = anyio.current_time() + header.timeout
        if self._exchange is not None:
            self._exchange.limit = limits.message
        self._stream.serve()
        return False

    @property
    def call(self) -> Call:
        """The call, as handlers and interceptors see it."""
        if self._call is None:
            header, method = self._header, self._method
            assert header is not None
            assert method is not None
            self._call = Call(
                id=f"{header.id & 0xFFFFFFFFFFFFFFFF:016x}",
                method=method.full_name,
                version=header.version,
                shape=method.shape,
                peer=self._peer.key,
                incoming=True,
                deadline=self._deadline,
                metadata=header.metadata,
            )
        return self._call

    def _deny(self, header: CallHeader, name: str, exists: bool) -> bool:
        """Refuse what is not there, or not for this key; who may call nothing is not told which."""
        if exists or not self._server.knows(self._peer.key):
            self._server.log_denial(self._peer.key, name, header.id)
            return self._refuse(ErrorBody(ErrorKind.NOT_ALLOWED))
        return self._refuse(
            ErrorBody(
                ErrorKind.UNKNOWN_METHOD,
                "",
                f"the peer does not serve {header.service!r} version {header.version}",
            )
        )

    def _take_arguments(self, body: bytes) -> None:
        assert self._method is not None
        assert self._offer is not None
        try:
            record = self._method.arguments.decode_untrusted(body, self._offer.limits)
        except BadMessage as bad:
            self._refuse(describe_bad_message(bad, arguments=True))
            return
        self._arguments = self._method.unbind(record)
        if self._offer.stopped:
            self._refuse(ErrorBody(ErrorKind.STOPPED))
            return
        self._entered = self._offer.enter(self)
        if not self._entered:
            self._refuse(ErrorBody(ErrorKind.BUSY, "", "as many calls wait as may"))

    # --- the end --------------------------------------------------------------------------------------

    def abandon(self) -> None:
        """Give the call up: the caller has, or the connection has ended. The stream is free at once."""
        if self._over:
            return
        self._abandoned = True
        if self._scope is not None:
            self._scope.cancel()  # first, so that a handler that waits for the stream sees this and not its end
        self._stream.abort(STOPPED)
        if self._scope is not None:
            return
        if not self._entered or (self._offer is not None and self._offer.withdraw(self)):
            self._end()

    def stop(self) -> None:
        """End the call from this side: what it is part of is served no more."""
        if self._scope is not None:
            self._stopped = True
            self._scope.cancel()
        else:
            self._refuse(ErrorBody(ErrorKind.STOPPED))

    def _drop(self) -> None:
        """Let go of a request that its caller has given up: of the STOP, which may come later, nobody is told."""
        self._stream.abort(STOPPED)
        self._end()

    def _refuse(self, body: ErrorBody) -> bool:
        """Answer with an error, without a handler. Returns True."""
        if not self._abandoned:
            self._say(body)
        self._end()
        return True

    def _say(self, body: ErrorBody) -> None:
        """Answer with an error where nothing can be awaited, or give the stream up if there is no room for it."""
        self._answered = True
        with suppress(StreamClosed, Closed):
            torn = self._exchange is not None and self._exchange.torn
            if not torn and self._stream.send_nowait(encode_error(body), last=True):
                self._stream.close_now()
        self._stream.abort(STOPPED)

    def _end(self) -> None:
        self._stream.abandoned = None
        self._peer.incoming.discard(self)

    # --- the handler ----------------------------------------------------------------------------------

    async def run(self, scope: anyio.CancelScope) -> bool:
        """Run the handler and answer with its result; False when it has none, and `settle` is to say why."""
        assert self._offer is not None
        if self._over:
            return False
        self._scope = scope
        if self._deadline != math.inf:
            scope.deadline = self._deadline
        interceptors = self._offer.interceptors
        token = CURRENT.set(self)
        try:
            with Boundary() as boundary:
                await (self._intercept(interceptors) if interceptors else self._handle())
        finally:
            CURRENT.reset(token)
        self._error = boundary.error
        if not self._answered:
            return False
        if self._deadline != math.inf:
            scope.deadline = math.inf
        self._leave()
        return True

    async def settle(self) -> None:
        """Answer with an error, behind what the handler has sent already, if nothing else has ended the call."""
        try:
            if not self._over:
                await self._report(self._error)
        finally:
            if not self._over:  # the node is closing
                self._say(ErrorBody(ErrorKind.STOPPED))
            self._leave()

    @property
    def _over(self) -> bool:
        """Whether nothing is to be said any more."""
        return self._answered or self._abandoned

    def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        self._scope = None  # others run in it now
        self._stream.close_now()
        self._end()
        assert self._offer is not None
        self._offer.leave(self)

    async def _report(self, error: Exception | None) -> None:
        if error is None:
            # Nobody waits for the room that this may need: the time is over, or `serve` is to end.
            self._say(ErrorBody(ErrorKind.STOPPED if self._stopped else ErrorKind.DEADLINE))
            return
        answer = encode_error(self._answer_to(error))
        with anyio.CancelScope() as self._scope, suppress(StreamClosed, Closed, anyio.ClosedResourceError):
            await self._send(answer, last=True)

    async def _intercept(self, interceptors: Sequence[Interceptor]) -> None:
        with ExitStack() as stack:
            for each in interceptors:
                stack.enter_context(each(self.call))
            await self._handle()

    async def _handle(self) -> None:
        method = self._method
        assert method is not None
        function = getattr(self._target, method.attribute)
        if method.items_name is not None:
            assert method.items is not None
            assert self._offer is not None
            self._arguments[method.items_name] = Items(self._frames, method.items, self._offer.limits)
        if method.shape in _ONE_RESULT:
            result = await function(**self._arguments)
            await self._send(encode_frame(_RESULT, self._encode(result)), last=True)
            return
        iterator = function(**self._arguments)
        try:
            async for item in iterator:
                await self._send(encode_frame(FrameType.ITEM, self._encode(item)))
        finally:
            if (close := getattr(iterator, "aclose", None)) is not None:
                await close()
        await self._send(_END, last=True)

    def _encode(self, value: Any) -> bytes:
        assert self._method is not None
        assert self._offer is not None
        data = self._method.result.encode(value)
        if len(data) > (limit := self._offer.limits.message):
            raise Misfit(f"{len(data)} bytes, at most {limit} are sent: return an AsyncIterator of parts")
        return data

    async def _send(self, data: bytes, *, last: bool = False) -> None:
        if not (last and self._exchange is None and self._stream.send_nowait(data, last=True)):
            await self._frames.send(data, last=last)
        if last:
            self._answered = True

    def _answer_to(self, error: Exception) -> ErrorBody:
        """Decide what a caller is told of what has ended its call: never more than the handler meant to say."""
        assert self._method is not None
        if isinstance(error, BadItem):
            return ErrorBody(ErrorKind.REQUEST, error.reason, str(error))
        call = self.call
        if isinstance(error, Misfit):
            _log.error("call %s of %s: the result does not fit: %s", call.id, call.method, error)
            return ErrorBody(ErrorKind.RESULT, "", str(error)[:1024], error.path[:1024])
        try:
            if (meant := refusal(error, self._method)) is not None:
                return meant
        except Misfit as misfit:
            error = misfit
        incident = f"{random.getrandbits(32):08x}"
        _log.error(
            "call %s of %s by %s failed: incident %s",
            call.id,
            call.method,
            call.peer,
            incident,
            exc_info=error,
        )
        return ErrorBody(ErrorKind.INTERNAL, incident)
