"""The items of a request, as its handler reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from mp2p_core import Closed, StreamReset
from mp2p_rpc.errors import BadMessage, RequestRefused
from mp2p_rpc.frames import FrameType

if TYPE_CHECKING:
    from mp2p_rpc.exchange import Exchange
    from mp2p_rpc.limits import Limits
    from mp2p_rpc.schema import Codec

__all__ = ["BadItem", "Items"]


class BadItem(RequestRefused):
    """What an item that cannot be read raises in the handler; one that lets it pass has its caller told."""


class Items(AsyncIterator[Any]):
    """The items that a caller sends, as its handler reads them: at the handler's pace."""

    def __init__(self, exchange: Exchange, codec: Codec, limits: Limits) -> None:
        self._exchange = exchange
        self._codec = codec
        self._limits = limits
        self._over = False

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        if self._over:
            raise StopAsyncIteration
        try:
            try:
                frame = await self._exchange.receive_untrusted()
            except (StreamReset, Closed, anyio.ClosedResourceError):
                await checkpoint()  # the caller has given the call up: its handler is cancelled, here
                frame = None
            if frame is not None and frame.type is FrameType.ITEM:
                return self._codec.decode_untrusted(frame.body, self._limits)
            if frame is None or frame.type is not FrameType.END:
                raise BadMessage("malformed", "the items of the request break off")
        except BadMessage as bad:
            self._over = True
            raise BadItem(bad.reason, f"an item of the request: {bad}") from bad
        self._over = True
        raise StopAsyncIteration
