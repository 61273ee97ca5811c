"""A peer, as the application holds it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio
from anyio.lowlevel import checkpoint

from mp2p_core.errors import Closed
from mp2p_core.proto.constants import MAX_QUEUED_MESSAGES
from mp2p_core.waiting import Signal

if TYPE_CHECKING:
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.identity import PublicKey

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
        return self._connection.session.rtt.smoothed

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

    def end(self) -> None:
        """Wake everybody: the connection has ended."""
        if self._waiting is not None:
            self._waiting.set()
        for answered, _ in self._pings.values():
            answered.set()

    def __repr__(self) -> str:
        return f"<Peer {self.key}>"
