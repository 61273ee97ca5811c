"""Make calls: the typed client, streams of results, retries."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio

from mp2p_core import Closed, PeerUnreachable, StreamClosed
from mp2p_rpc.call import Call, Interceptor
from mp2p_rpc.errors import ArgumentError, OutcomeUnknown
from mp2p_rpc.exchange import CANCELLED
from mp2p_rpc.frames import CallHeader, Frame, FrameType, encode_call
from mp2p_rpc.sent import Pump, Sent

if TYPE_CHECKING:
    from mp2p_rpc.interface import Interface
    from mp2p_rpc.limits import Limits
    from mp2p_rpc.method import Method
    from mp2p_rpc.node import Peer

__all__ = ["Caller", "ResultStream", "Retry", "make_call", "make_client"]

_ITEM, _END = FrameType.ITEM, FrameType.END


@dataclass(frozen=True, slots=True)
class Retry:
    """How often, and how far apart, a call of an idempotent method is made again when its outcome is unknown."""

    attempts: int = 5
    """Calls in all. The caller's own deadline ends them earlier."""
    first: float = 0.1
    """Seconds before the second; each pause after that is `factor` times as long, up to `longest`."""
    factor: float = 2.0
    longest: float = 5.0

    def pauses(self) -> Iterator[float]:
        """Yield the pause after each attempt but the last; half of each is drawn, so that callers spread."""
        pause = self.first
        for _ in range(self.attempts - 1):
            yield pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, protects nothing
            pause = min(pause * self.factor, self.longest)


class Caller:
    """Makes the calls of one client."""

    __slots__ = ("_interceptors", "_interface", "_limits", "_metadata", "_retry", "peer")

    def __init__(
        self,
        peer: Peer,
        interface: Interface,
        *,
        limits: Limits,
        retry: Retry,
        metadata: Mapping[str, str],
        interceptors: Sequence[Interceptor],
    ) -> None:
        self.peer = peer
        self._interface = interface
        self._limits = limits
        self._retry = retry
        self._metadata = metadata
        self._interceptors = interceptors

    async def call(self, method: Method, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call a method that has one result, and return it."""
        body, items = method.bind(args, kwargs)
        if not (self._interceptors or method.idempotent):
            deadline = anyio.current_effective_deadline()
            sent = await self._send(
                method, random.getrandbits(64), deadline, dict(self._metadata), body, items
            )
            try:
                return await sent.result()
            finally:
                sent.finish()
        call = self.begin(method)
        with self.intercept(call):
            return await self.repeat(method, lambda: self._once(method, call, body, items))

    def begin(self, method: Method) -> Call:
        """Describe a call that is to be made, with the deadline of the caller's cancel scopes."""
        return Call(
            id=f"{random.getrandbits(64):016x}",
            method=method.full_name,
            version=self._interface.version,
            shape=method.shape,
            peer=self.peer.key,
            incoming=False,
            deadline=anyio.current_effective_deadline(),
            metadata=dict(self._metadata),  # to which interceptors add
        )

    def intercept(self, call: Call) -> ExitStack:
        """Enter the interceptors."""
        stack = ExitStack()
        with stack:
            for each in self._interceptors:
                stack.enter_context(each(call))
            return stack.pop_all()
        raise AssertionError("an interceptor swallowed the failure of another to begin")

    async def repeat(self, method: Method, attempt: Callable[[], Any]) -> Any:
        """Make a call, again and again if that does no harm and its outcome is unknown."""
        if method.idempotent:
            for pause in self._retry.pauses():
                try:
                    return await attempt()
                except (OutcomeUnknown, Closed):
                    await anyio.sleep(pause)
                    with contextlib.suppress(PeerUnreachable):  # the next attempt says that it is closed
                        await self.peer.reconnect()
        return await attempt()

    async def _once(self, method: Method, call: Call, body: bytes, items: Any) -> Any:
        sent = await self.send(method, call, body, items)
        try:
            return await sent.result()
        finally:
            sent.finish()

    async def send(self, method: Method, call: Call, body: bytes, items: Any) -> Sent:
        """Open a stream and send the request. Raises `Closed` when that was certainly not begun."""
        return await self._send(method, int(call.id, 16), call.deadline, call.metadata, body, items)

    async def _send(
        self,
        method: Method,
        identifier: int,
        deadline: float,
        metadata: dict[str, str],
        body: bytes,
        items: Any,
    ) -> Sent:
        if len(body) > self._limits.message:
            raise ArgumentError(
                method.full_name,
                f"the arguments are {len(body)} bytes, at most {self._limits.message} are sent: use a stream of items",
            )
        left = None if deadline == math.inf else max(deadline - anyio.current_time(), 0.0)
        interface = self._interface
        header = CallHeader(identifier, interface.name, interface.version, method.name, left, metadata)
        request = encode_call(header, body)
        # A deadline of -inf is how anyio says that this task is cancelled: it ends here, where it waits.
        stream = self.peer.open_stream_nowait() if deadline > 0 else None
        if stream is None:
            stream = await self.peer.open_stream()
        sent = Sent(method, stream, self._limits)
        begun = False
        try:
            if not stream.send_nowait(request, last=items is None):
                await sent.send(request, last=items is None)
            begun = True
        except StreamClosed:
            begun = True  # the peer has its answer already: it is an error
        except Closed as closed:
            raise OutcomeUnknown("sent", str(closed)) from closed
        finally:
            if not begun:
                stream.abort(CANCELLED)
        if items is not None:
            sent.pump = Pump(method, sent, items, self._limits)
            self.peer.background(sent.pump.run)
        return sent


class ResultStream(AsyncIterator[Any]):
    """The results of a call that has many, as they come. The call begins with the first `anext`.

    The handler sends as fast as they are read and no faster. Giving it up, by cancelling `anext`, `aclose`, or
    leaving a loop and letting go of it, cancels the handler. After an error there is nothing more to come.
    """

    def __init__(
        self, caller: Caller, method: Method, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> None:
        self._over = False
        self._sent: Sent | None = None
        self._caller = caller
        self._method = method
        self._body, self._items = method.bind(args, kwargs)
        self._stack = ExitStack()
        self._reading = anyio.ResourceGuard("iterating over")

    def __aiter__(self) -> ResultStream:
        return self

    async def __anext__(self) -> Any:
        with self._reading:
            if self._over:
                raise StopAsyncIteration
            with ExitStack() as ending:
                ending.push(self._finish)
                frame = await self._next()
                if frame.type is _ITEM:
                    assert self._sent is not None
                    item = self._sent.decode(frame.body)
                    self._sent.items += 1
                    ending.pop_all()
                    return item
            raise StopAsyncIteration

    async def _next(self) -> Frame:
        if self._sent is None:
            call = self._caller.begin(self._method)
            self._stack = self._caller.intercept(call)
            frame: Frame = await self._caller.repeat(self._method, lambda: self._first(call))
        else:
            frame = await self._sent.next()
        if frame.type not in (_ITEM, _END):
            assert self._sent is not None
            raise self._sent.broken("the answer is no stream of items")
        return frame

    async def _first(self, call: Call) -> Frame:
        """Make the call and wait for the first frame of the answer: up to there it may be made again."""
        if self._sent is not None:
            self._sent.finish()
        self._sent = await self._caller.send(self._method, call, self._body, self._items)
        return await self._sent.next()

    async def aclose(self) -> None:
        """Give the call up, if it is not over. Never waits."""
        self._finish()

    def _finish(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> bool:
        if not self._over:
            self._over = True
            if self._sent is not None:
                self._sent.finish()
            self._stack.__exit__(kind, error, trace)
        return False

    def __del__(self) -> None:
        # A loop that was left by `break` has let go of this: the handler must not go on for nobody.
        sent = getattr(self, "_sent", None)  # None, too, when `bind` refused the arguments
        if sent is not None and not self._over and sent.stream.alive:
            self._finish()


def make_client(caller: Caller, interface: Interface) -> Any:
    """Make an object with the methods of an interface, each of which is a call."""
    client = _Client(interface, caller)
    for method in interface.methods.values():
        setattr(client, method.attribute, make_call(caller, method))
    return client


def make_call(caller: Caller, method: Method) -> Callable[..., Any]:
    """Make a function that calls a method."""
    if method.shape.streams_results:

        def call(*args: Any, **kwargs: Any) -> Any:
            return ResultStream(caller, method, args, kwargs)
    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            return caller.call(method, args, kwargs)

    call.__name__ = call.__qualname__ = method.full_name
    call.__doc__ = method.doc
    return call


class _Client:
    """The methods of an interface, as calls."""

    def __init__(self, interface: Interface, caller: Caller) -> None:
        self.__doc__ = interface.doc
        self._text = f"<client of {interface.name} at {caller.peer.key}>"

    def __repr__(self) -> str:
        return self._text
