"""Carry short texts over a session's datagrams, each one until the other application has taken it.

The datagrams of a session may be lost, doubled and reordered. On top of them, this protocol of `listen`
and `send` has two messages:

    TEXT     0  1  0x01    1  8  id, random    9  n  UTF-8
    TAKEN    0  1  0x02    1  8  id of the TEXT that the application has taken

A TEXT is repeated with growing pauses until its TAKEN arrives. The receiver hands each id to the
application once and answers every copy, since the TAKEN before may be the one that was lost. A sender
has one TEXT on its way at a time, which keeps texts in order.

The upper half of this module is without I/O, clock and randomness; `Courier` below drives it.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from mp2p.cli.errors import NotTaken
from mp2p_core.errors import BadPacket, Closed, UsageError

__all__ = [
    "HEADER_SIZE",
    "Courier",
    "DatagramPeer",
    "Inbox",
    "Inboxes",
    "Taken",
    "Text",
    "decode_untrusted",
    "encode_taken",
    "encode_text",
    "pauses",
]

_TEXT: Final = 0x01
_TAKEN: Final = 0x02
_ID_SIZE: Final = 8
HEADER_SIZE: Final = 1 + _ID_SIZE

# Implementation constants.
_REMEMBERED_IDS: Final = 256  # a sender has one text on its way, so a handful would do
_REMEMBERED_PEERS: Final = 256
_SHORTEST_PAUSE: Final = 0.05  # s; a busy receiver is not lost
_LONGEST_PAUSE: Final = 2.0  # s
_PAUSE_GROWTH: Final = 1.6


@dataclass(frozen=True, slots=True)
class Text:
    """A text on its way."""

    id: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The word that the application of the other side has taken a text."""

    id: bytes


def encode_text(message_id: bytes, text: str, limit: int) -> bytes:
    """Write a TEXT of at most `limit` bytes.

    Raises `UsageError` when it is longer, or when `text` is not valid Unicode.
    """
    try:
        body = text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("the text is not valid UTF-8: only text can be sent") from error
    room = limit - HEADER_SIZE
    if len(body) > room:
        raise UsageError(
            f"the text is {len(body)} bytes long as UTF-8, and one message holds {room}: send it as several texts"
        )
    return bytes((_TEXT,)) + message_id + body


def encode_taken(message_id: bytes) -> bytes:
    """Write a TAKEN."""
    return bytes((_TAKEN,)) + message_id


def decode_untrusted(datagram: bytes) -> Text | Taken:
    """Read a message. Raises `BadPacket`."""
    kind, message_id, body = datagram[:1], datagram[1:HEADER_SIZE], datagram[HEADER_SIZE:]
    if len(message_id) != _ID_SIZE:
        raise BadPacket("shorter than a message's header")
    if kind[0] == _TAKEN and not body:
        return Taken(message_id)
    if kind[0] == _TEXT:
        try:
            return Text(message_id, body.decode())
        except UnicodeDecodeError as error:
            raise BadPacket("a text that is not UTF-8") from error
    raise BadPacket("no message of this protocol")


class Inbox:
    """The texts of one peer that were taken already.

    Bounded, oldest out first, against a peer that sends new texts for ever.
    """

    def __init__(self, size: int = _REMEMBERED_IDS) -> None:
        self._size = size
        self._taken: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._taken

    def __len__(self) -> int:
        return len(self._taken)

    def add(self, message_id: bytes) -> None:
        """Remember that this text was taken."""
        self._taken[message_id] = None
        if len(self._taken) > self._size:
            self._taken.popitem(last=False)


class Inboxes:
    """The inbox of each peer, which outlives its sessions: a text repeated on a new one is still the same.

    Bounded, least recently used out first, against an open listener that meets new keys for ever.
    """

    def __init__(self, size: int = _REMEMBERED_PEERS) -> None:
        self._size = size
        self._inboxes: OrderedDict[bytes, Inbox] = OrderedDict()

    def __len__(self) -> int:
        return len(self._inboxes)

    def of(self, key: bytes) -> Inbox:
        """Return the inbox of the peer with this public key."""
        inbox = self._inboxes.setdefault(key, Inbox())
        self._inboxes.move_to_end(key)
        if len(self._inboxes) > self._size:
            self._inboxes.popitem(last=False)
        return inbox


def pauses(handshake_time: float) -> Iterator[float]:
    """Yield how long to wait after each copy of a text, in seconds, without end.

    The handshake took one round trip and some arithmetic, which makes it a careful first guess.
    """
    pause = min(max(2 * handshake_time, _SHORTEST_PAUSE), _LONGEST_PAUSE)
    while True:
        yield pause
        pause = min(pause * _PAUSE_GROWTH, _LONGEST_PAUSE)


class DatagramPeer(Protocol):
    """What the courier needs of a `mp2p.Peer`."""

    @property
    def handshake_time(self) -> float:
        """Seconds that the handshake took."""

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest datagram."""

    async def send_datagram(self, data: bytes, /) -> None:
        """Send a datagram that may get lost."""

    async def receive_datagram(self) -> bytes:
        """Wait for a datagram. Raises `Closed` at the end of the session."""


class Courier:
    """Sends and receives texts on one session.

    `take` is called with each text once, in order of arrival; when it returns, the text counts as taken.
    Without it, texts from the peer stay unanswered.
    """

    def __init__(
        self, peer: DatagramPeer, take: Callable[[str], None] | None = None, inbox: Inbox | None = None
    ) -> None:
        self._peer = peer
        self._take = take
        self._inbox = Inbox() if inbox is None else inbox
        self._waiting: dict[bytes, anyio.Event] = {}
        self._closed: Closed | None = None

    async def pump(self) -> None:
        """Read and answer what arrives until the session ends; run it in a task beside `send`."""
        try:
            while True:
                await self._handle(await self._peer.receive_datagram())
        except Closed as closed:
            self._closed = closed
            for event in self._waiting.values():
                event.set()

    async def _handle(self, datagram: bytes) -> None:
        try:
            message = decode_untrusted(datagram)
        except BadPacket:
            return  # from another application, or a later version of this one
        if isinstance(message, Taken):
            event = self._waiting.get(message.id)
            if event is not None:
                event.set()
        elif self._take is not None:
            if message.id not in self._inbox:
                self._take(message.text)
                self._inbox.add(message.id)
            await self._peer.send_datagram(encode_taken(message.id))

    async def send(self, text: str, timeout: float) -> int:
        """Send `text` until the peer's application has taken it, and return how many copies that took.

        Raises `UsageError` for a text that does not fit, `NotTaken` after `timeout` seconds, and `Closed`.
        """
        message_id = os.urandom(_ID_SIZE)
        datagram = encode_text(message_id, text, self._peer.max_datagram_size)
        answered = self._waiting[message_id] = anyio.Event()
        copies = 0
        try:
            with anyio.move_on_after(timeout):
                for pause in pauses(self._peer.handshake_time):
                    if self._closed is not None:
                        raise self._closed
                    await self._peer.send_datagram(datagram)
                    copies += 1
                    with anyio.move_on_after(pause):
                        await answered.wait()
                        if self._closed is None:
                            return copies
        finally:
            del self._waiting[message_id]
        raise NotTaken(
            f"the session stands, but the peer's application has not taken the message within {timeout:g} s "
            f"({copies} copies sent): it is busy, or it is not `mp2p listen`"
        )
