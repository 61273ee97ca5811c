"""Carry texts over a session's reliable messages, each one until the other application has taken it.

Messages arrive whole, once and in order, but that they arrived does not say that anybody read them. On top of
them, this protocol of `listen` and `send` has two:

    TEXT     0  1  0x01    1  n  UTF-8
    TAKEN    0  1  0x02    the application has taken the oldest TEXT that is not confirmed yet

The upper half of this module is without I/O, clock and randomness; `Courier` below drives it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from mp2p.cli.errors import NotTaken
from mp2p_core.errors import BadPacket, RemoteError, UsageError
from mp2p_core.messages import MAX_MESSAGE_SIZE

__all__ = [
    "MAX_TEXT_SIZE",
    "Courier",
    "MessagePeer",
    "Taken",
    "Text",
    "decode_untrusted",
    "encode_taken",
    "encode_text",
]

_TEXT: Final = 0x01
_TAKEN: Final = 0x02
MAX_TEXT_SIZE: Final = MAX_MESSAGE_SIZE - 1
"""Bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text on its way."""

    text: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The word that the application of the other side has taken a text."""


def encode_text(text: str) -> bytes:
    """Write a TEXT. Raises `UsageError` when it is too long, or not valid Unicode."""
    try:
        body = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the text is not valid UTF-8: only text can be sent") from error
    if len(body) > MAX_TEXT_SIZE:
        raise UsageError(
            f"the text is {len(body)} bytes long as UTF-8, and one message holds {MAX_TEXT_SIZE}: send it as "
            "several texts, or as a file with `mp2p send-file`"
        )
    return bytes((_TEXT,)) + body


def encode_taken() -> bytes:
    """Write a TAKEN."""
    return bytes((_TAKEN,))


def decode_untrusted(message: bytes) -> Text | Taken:
    """Read a message. Raises `BadPacket`."""
    kind, body = message[:1], message[1:]
    if kind == bytes((_TAKEN,)) and not body:
        return Taken()
    if kind == bytes((_TEXT,)):
        try:
            return Text(body.decode())
        except UnicodeDecodeError as error:
            raise BadPacket("a text that is not UTF-8") from error
    raise BadPacket("no message of this protocol")


class MessagePeer(Protocol):
    """What the courier needs of a `mp2p.Peer`."""

    async def send(self, data: bytes, /) -> None:
        """Send a reliable message. Raises `Closed`."""

    async def receive(self) -> bytes:
        """Wait for the next reliable message. Raises `Closed` at the end of the session."""


class _Waiting:
    """A text that is on its way."""

    def __init__(self) -> None:
        self.settled = anyio.Event()
        self.taken = False


class Courier:
    """Sends and receives texts on one session.

    `take` is called with each text, in order; when it returns, the text counts as taken. Without it, texts
    from the peer stay unanswered.
    """

    def __init__(self, peer: MessagePeer, take: Callable[[str], None] | None = None) -> None:
        self._peer = peer
        self._take = take
        self._sending = anyio.Lock()
        # In the order of their TEXTs; one that was given up stays, because its TAKEN may still come.
        self._waiting: deque[_Waiting] = deque()
        self._ended: RemoteError | None = None

    async def pump(self) -> None:
        """Read and answer what arrives until the session ends; run it in a task beside `send`."""
        try:
            while True:
                await self._handle(await self._peer.receive())
        except RemoteError as error:
            # `Closed`; or the peer, which may be anything, reads no more of what it is told.
            self._ended = error
            for waiting in self._waiting:
                waiting.settled.set()

    async def _handle(self, data: bytes) -> None:
        try:
            message = decode_untrusted(data)
        except BadPacket:
            return  # from another application, or a later version of this one
        if isinstance(message, Taken):
            if self._waiting:
                waiting = self._waiting.popleft()
                waiting.taken = True
                waiting.settled.set()
        elif self._take is not None:
            self._take(message.text)
            await self._peer.send(encode_taken())

    async def send(self, text: str, timeout: float) -> None:
        """Send `text` and wait until the peer's application has taken it.

        Raises `UsageError` for a text that does not fit, `NotTaken` after `timeout` seconds, and `Closed`.
        """
        message = encode_text(text)
        waiting = _Waiting()
        with anyio.move_on_after(timeout):
            async with self._sending:
                if self._ended is None:
                    self._waiting.append(waiting)
                    await self._peer.send(message)
            if self._ended is None:
                await waiting.settled.wait()
            if waiting.taken:
                return
            assert self._ended is not None
            raise self._ended
        raise NotTaken(
            f"the session stands, but the peer's application has not taken the message within {timeout:g} s: "
            "it is busy, or it is not `mp2p listen`"
        )
