"""A peer, as the application holds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from mp2p_core.errors import Closed
from mp2p_core.messages import MessageReader, MessageWriter
from mp2p_core.proto.constants import MAX_QUEUED_MESSAGES
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.stream import Stream
from mp2p_core.waiting import Signal

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.stream_table import StreamEvent

__all__ = ["Peer"]

_SENDS_PER_YIELD: Final = 32


class Peer:
    """An encrypted connection to one node, whose key is proved.

    Comes from `Node.connect` or `Node.accept`; not made by hand. One task may receive while others send.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        flush: Callable[[Connection], None],
        close: Callable[[Connection, int, str], None],
        describe: Callable[[Connection], str],
        make_signal: Callable[[], Signal],
    ) -> None:
        self._connection = connection
        self._flush = flush
        self._close = close
        self._describe = describe
        self._make_signal = make_signal
        self._inbox: deque[bytes] = deque()
        self._waiting: Signal | None = None
        self._pings: dict[int, tuple[anyio.Event, list[float]]] = {}
        self._sends = 0
        self._streams: dict[int, Stream] = {}
        self._begin_messages()
        self._opened: deque[Stream] = deque()
        self._stream_waiters: list[anyio.Event] = []
        self.dropped = 0
        """Datagrams that arrived while the application had 1024 of them waiting; the oldest went."""

    @property
    def key(self) -> PublicKey:
        """The peer's public key."""
        return self._connection.peer

    @property
    def handshake_time(self) -> float:
        """Seconds from the first INIT to the answer that proved the peer's key; 0 for a peer that called us."""
        return self._connection.session.handshake_time

    @property
    def rtt(self) -> float:
        """The smoothed round-trip time in seconds; a guess until the peer has acknowledged something."""
        return self._connection.session.packer.rtt.smoothed

    @property
    def path(self) -> str:
        """Where datagrams to this peer go now, such as "v4 224.0.230.7:1024"."""
        return self._describe(self._connection)

    @property
    def max_datagram_size(self) -> int:
        """The largest message in bytes that `send_datagram` takes."""
        return self._connection.max_message

    @property
    def closed(self) -> Closed | None:
        """Why the connection ended, or None while it lives."""
        return self._connection.closed

    async def send_datagram(self, data: bytes) -> None:
        """Send a message in one datagram: encrypted, at most once, unordered, and lost without notice.

        Yields to other tasks at least every 32 calls; a fast sender overruns a slow network, which
        then loses datagrams. Raises `Closed`, or `DatagramTooLarge` above `max_datagram_size`.
        Protocol section 6, frame MSG.
        """
        self._connection.send_message(data)
        self._flush(self._connection)
        self._sends += 1
        if self._sends % _SENDS_PER_YIELD == 0:
            await checkpoint()

    async def receive_datagram(self) -> bytes:
        """Wait for the next message and return it, each at most once, in the order they arrived.

        What came in before the end is still delivered; then raises `Closed`. Cancelling loses nothing.
        Raises `anyio.BusyResourceError` when another task is waiting already.
        """
        while not self._inbox:
            self._connection.check_open()
            if self._waiting is not None:
                raise anyio.BusyResourceError("receiving a datagram from")
            self._waiting = self._make_signal()
            try:
                await self._waiting.wait()
            finally:
                self._waiting = None
        return self._inbox.popleft()

    async def ping(self, timeout: float = 1.0) -> float:
        """Ask for a sign of life and return the round-trip time in seconds.

        Raises `TimeoutError` when none came in time (a datagram was lost: the session may be well), or
        `Closed`.
        """
        number = self._connection.ping()
        answered = anyio.Event()
        result: list[float] = []
        self._pings[number] = (answered, result)
        try:
            self._flush(self._connection)
            with anyio.fail_after(timeout):
                await answered.wait()
        finally:
            del self._pings[number]
        if not result:
            self._connection.check_open()
        return result[0]

    async def send(self, data: bytes) -> None:
        """Send a message of up to 1 MiB: reliable, in order with the others, whole.

        Returns once it is queued, at most 1 MiB ahead of the network; the peer's application may not have
        taken it yet. Raises `MessageTooLarge`, `StreamClosed` or `Closed`. Cancelled midway, it ends
        messages to this peer, for half of one cannot be taken back.
        """
        await self._writer.send(data)

    async def receive(self) -> bytes:
        """Wait for the next message sent with `send`. Cancelling loses nothing. Raises `Closed`."""
        return await self._reader.receive()

    async def open_stream(self) -> Stream:
        """Open a stream; the peer hears of it with the first bytes.

        Waits while as many are open as the peer allows (100). Raises `Closed`.
        """
        while True:
            self._connection.check_open()
            number = self._connection.session.packer.streams.open()
            if number is not None:
                return self._stream(number)
            await self._wait_for_streams()

    async def accept_stream(self) -> Stream:
        """Wait for the next stream that the peer opens. Raises `Closed`."""
        while not self._opened:
            self._connection.check_open()
            await self._wait_for_streams()
        return self._opened.popleft()

    async def _wait_for_streams(self) -> None:
        waiter = anyio.Event()
        self._stream_waiters.append(waiter)
        try:
            await waiter.wait()
        finally:
            if waiter in self._stream_waiters:
                self._stream_waiters.remove(waiter)

    def _begin_messages(self) -> None:
        """Each side's first stream is for messages: protocol section 6."""
        own = 0 if self._connection.session.initiator else 1
        self._writer = MessageWriter(self._stream(own))
        self._reader = MessageReader()
        self._theirs = 1 - own

    def _stream(self, number: int) -> Stream:
        stream = self._streams[number] = Stream(number, self._connection, self._flush)
        return stream

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Close the connection and tell the peer. Does nothing when it has ended.

        `code` and `reason` (at most 255 bytes of UTF-8) reach the peer's `Closed`.
        """
        self._close(self._connection, code, reason)

    # The node's side of it.

    def deliver(self, data: bytes) -> None:
        """Take a message from the network."""
        # Attack: a peer that sends faster than the application reads. Bounded as a socket's buffer is.
        if len(self._inbox) >= MAX_QUEUED_MESSAGES:
            self._inbox.popleft()
            self.dropped += 1
        self._inbox.append(data)
        if self._waiting is not None:
            self._waiting.set()

    def answer_ping(self, number: int, rtt: float) -> None:
        """Wake whoever waits for this ping."""
        if (waiting := self._pings.get(number)) is not None:
            waiting[1].append(rtt)
            waiting[0].set()

    def notice_stream(self, event: StreamEvent) -> None:
        """Take what the protocol says about a stream."""
        if event.kind is StreamEventKind.OPENED:
            opened = self._stream(event.stream)
            if event.stream == self._theirs:
                self._reader.attach(opened)
                return
            self._opened.append(opened)
        elif event.kind is not StreamEventKind.STREAMS_AVAILABLE:
            if (stream := self._streams.get(event.stream)) is not None:
                stream.notice(event)
            return
        for waiter in self._stream_waiters:
            waiter.set()

    def renew(self, connection: Connection) -> None:
        """Go on over a new connection: the peer has started anew, and what was under way is lost."""
        self._end_streams()
        self._connection = connection
        self._begin_messages()

    def end(self) -> None:
        """Wake everybody: the connection has ended."""
        for waiter in self._stream_waiters:
            waiter.set()
        self._end_streams()
        if self._waiting is not None:
            self._waiting.set()
        for answered, _ in self._pings.values():
            answered.set()

    def _end_streams(self) -> None:
        for stream in self._streams.values():
            stream.wake()
        self._streams.clear()
        self._reader.attach(None)

    def __repr__(self) -> str:
        return f"<Peer {self.key}>"
