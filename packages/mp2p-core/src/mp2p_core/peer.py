"""A peer, as the application holds it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self, TypedDict, Unpack

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from mp2p_core.messages import MessageReader, MessageWriter
from mp2p_core.proto.constants import (
    CLOSE_BAD_FRAME,
    CLOSE_DONE,
    CLOSE_RESTARTED,
    MAX_QUEUED_MESSAGES,
)
from mp2p_core.proto.stream_table import StreamEventKind
from mp2p_core.status import PeerStatus, peer_status
from mp2p_core.stream import Stream, StreamLinks
from mp2p_core.waiting import Bell, Signal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from mp2p_core.errors import Closed
    from mp2p_core.proto.connection import Connection
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.proto.session import Session
    from mp2p_core.proto.stream_table import StreamEvent

__all__ = ["LINGER", "LINGER_SILENCE", "Peer", "PeerLinks"]

_log = logging.getLogger("mp2p")

LINGER: Final = 30.0
"""Seconds that closing waits at most for what was sent to arrive."""
LINGER_SILENCE: Final = 3.0
"""Seconds without any acknowledgement after which it waits no more."""
_SENDS_PER_YIELD: Final = 32
# On Python 3.11 each look at a member of an enumeration takes as long as a call.
_OPENED: Final = StreamEventKind.OPENED
_FINISHED: Final = StreamEventKind.FINISHED
_STOPPED: Final = StreamEventKind.STOPPED
_STREAMS_AVAILABLE: Final = StreamEventKind.STREAMS_AVAILABLE
_ENDED_STREAMS: Final = 32
"""Streams that have ended and may be remembered before somebody looks for them."""


class PeerLinks(TypedDict):
    """What a node gives each of its peers."""

    flush: Callable[[Connection], None]
    close: Callable[[Connection, int, str], None]
    describe: Callable[[Connection], str]
    make_signal: Callable[[], Signal]
    clock: Callable[[], float]


class _Ping:
    """A ping on its way."""

    __slots__ = ("answered", "rtt")

    def __init__(self, answered: Signal) -> None:
        self.answered = answered
        self.rtt: float | None = None


class Peer:
    """An encrypted connection to one node, whose key is proved.

    Comes from `Node.connect` or `Node.accept`; not made by hand. `async with peer` closes it at the end: in
    order, as `aclose` does, or at once when the block is left by an exception.

    Every call may be cancelled; what that leaves behind is said at each. Many tasks may use a peer at once.

    **When the peer starts anew** (its process was restarted and knows nothing of this connection), this object
    goes on over a new connection, and `closed` stays None. What the old one had under way is lost, and said so:
    its streams raise `Closed` with code 11 from then on, and so do, once each, `send`, if messages were sent
    before, and `receive`, if any came before or it is waiting. After that they work on the new connection, as
    `open_stream`, `accept_stream` and datagrams do at once. A peer that calls again by itself is another `Peer`,
    from `Node.accept`.
    """

    def __init__(
        self,
        connection: Connection,
        **links: Unpack[PeerLinks],
    ) -> None:
        self._connection = connection
        self._flush = links["flush"]
        self._close = links["close"]
        self._describe = links["describe"]
        self._clock = links["clock"]
        make_signal = self._make_signal = links["make_signal"]
        self._inbox: list[bytes] = []
        self._waiting: Signal | None = None
        self._pings: dict[int, _Ping] = {}
        self._sends = 0
        # Those that somebody may wait for. The protocol bounds the live ones; closed ones leave by themselves, and
        # see `_remember` for those that nobody closes.
        self._streams: dict[tuple[Session, int], Stream] = {}
        self._links = StreamLinks(connection, self._flush, make_signal, self._streams)
        self._look_at = _ENDED_STREAMS
        self._opened: list[Stream] = []
        self._changed = Bell(make_signal)
        self._writer = MessageWriter(self._begin_messages)
        self._reader = MessageReader(
            check_open=self._check_open,
            fail=lambda why: self.close_now(CLOSE_BAD_FRAME, why),
            make_signal=make_signal,
        )
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

    def status(self) -> PeerStatus:
        """Say how the connection does: path, round-trip time, traffic, losses. The last numbers stay when it ends."""
        return peer_status(self._connection, self.path, self.dropped, self._clock())

    @property
    def max_datagram_size(self) -> int:
        """The largest message in bytes that `send_datagram` takes."""
        return self._connection.max_message

    @property
    def closed(self) -> Closed | None:
        """Why the connection ended, or None while it lives."""
        return self._connection.closed

    # --- datagrams ------------------------------------------------------------------------------------

    async def send_datagram(self, data: bytes) -> None:
        """Send a message in one datagram: encrypted, at most once, unordered, and lost without notice.

        Yields to other tasks, and may be cancelled, every 32 calls; a fast sender overruns a slow network, which
        then loses datagrams. Raises `Closed`, or `DatagramTooLarge` above `max_datagram_size`.
        Protocol section 6, frame MSG.
        """
        self._sends += 1
        if not self._sends % _SENDS_PER_YIELD:
            await checkpoint()
        self._connection.send_message(data)
        self._flush(self._connection)

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
        return self._inbox.pop(0)

    async def ping(self, timeout: float = 1.0) -> float:
        """Ask for a sign of life and return the round-trip time in seconds.

        Raises `TimeoutError` when none came in time (a datagram was lost: the session may be well), or
        `Closed`.
        """
        connection = self._connection
        number = connection.ping()
        ping = self._pings[number] = _Ping(self._make_signal())
        try:
            self._flush(connection)
            with anyio.fail_after(timeout):
                await ping.answered.wait()
        finally:
            if self._pings.get(number) is ping:
                del self._pings[number]
        if ping.rtt is None:
            connection.check_open()
        assert ping.rtt is not None
        return ping.rtt

    # --- messages -------------------------------------------------------------------------------------

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send a message of up to 1 MiB: reliable, in order with the others, whole.

        Returns once it is queued, at most 1 MiB ahead of the network; the peer's application may not have
        taken it yet. Waits while the peer does not receive. Cancelled, it has not been sent, and no part of it.
        Raises `MessageTooLarge` or `Closed`, and `anyio.ClosedResourceError` during `aclose`.
        Protocol section 6.
        """
        await self._writer.send(data)

    async def receive(self) -> bytes:
        """Wait for the next message sent with `send`, each once and in order.

        What came in before the end is still delivered; then raises `Closed`. Cancelling loses nothing. Several
        tasks may wait: each message goes to one of them.
        """
        return await self._reader.receive()

    # --- streams --------------------------------------------------------------------------------------

    async def open_stream(self) -> Stream:
        """Open a stream; the peer hears of it with the first bytes.

        Waits while as many are open as the peer allows (100). Cancelled, it has opened none. Raises `Closed`.
        """
        await checkpoint_if_cancelled()
        while (stream := self.open_stream_nowait()) is None:
            await self._changed.wait()
        return stream

    def open_stream_nowait(self) -> Stream | None:
        """Return what `open_stream` would, or None when it would wait. Raises `Closed`."""
        self._connection.check_open()
        session = self._connection.sessions[0]
        number = session.packer.streams.table.open()
        return None if number is None else self._remember(session, number)

    async def accept_stream(self) -> Stream:
        """Wait for the next stream that the peer opens, in the order of opening.

        What came in before the end is still delivered; then raises `Closed`. Cancelling loses nothing. Several
        tasks may wait: each stream goes to one of them.
        """
        await checkpoint_if_cancelled()
        while not self._opened:
            self._connection.check_open()
            await self._changed.wait()
        return self._opened.pop(0)

    def _check_open(self) -> None:
        self._connection.check_open()

    def _begin_messages(self) -> Stream:
        session = self._connection.session
        return self._remember(session, 0 if session.initiator else 1)

    def _remember(self, session: Session, number: int, whole: bytes = b"") -> Stream:
        streams = self._streams
        if len(streams) >= self._look_at:
            for key, ended in [(key, stream) for key, stream in streams.items() if stream.over]:
                ended.wake()
                streams.pop(key, None)
            self._look_at = 2 * len(streams) + _ENDED_STREAMS
        return Stream(number, session, self._links, whole)

    # --- closing --------------------------------------------------------------------------------------

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Close the connection and tell the peer. Does nothing when it has ended.

        `code` and `reason` (at most 255 bytes of UTF-8) reach the peer's `Closed`. With code 0, the default,
        first waits until the peer has acknowledged every message, and every stream that was ended: at most
        30 s, 3 s without any acknowledgement, or until cancelled. What was sent on a stream without an end is
        dropped. Any other code closes at once.
        """
        try:
            if code == CLOSE_DONE:
                await self._linger()
        finally:
            self.close_now(code, reason)

    async def _linger(self) -> None:
        connection = self._connection
        for session in connection.sessions:
            session.packer.streams.table.tells_finished = True
        await self._writer.finish()
        best, since = self._unfinished(), anyio.current_time()
        if best:
            for session in connection.sessions:
                session.packer.ping()  # what is out already would be acknowledged some time later
            self._flush(connection)
        with anyio.move_on_after(LINGER):
            while (left := self._unfinished()) and connection.closed is None:
                now = anyio.current_time()
                if left < best:
                    best, since = left, now
                elif now >= since + LINGER_SILENCE:
                    break
                with anyio.move_on_after(since + LINGER_SILENCE - now):
                    await self._changed.wait()
        if connection.closed is None and (left := self._unfinished()):
            _log.warning("closing with %s: %d bytes that it has not acknowledged are lost", self.key, left)

    def _unfinished(self) -> int:
        return sum(session.packer.streams.table.unfinished for session in self._connection.sessions)

    def close_now(self, code: int = CLOSE_DONE, reason: str = "") -> None:
        """Close the connection at once; what the peer has not acknowledged is dropped. See `aclose`."""
        self._close(self._connection, code, reason)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            await self.aclose()
        else:
            self.close_now()

    # The node's side of it.

    def deliver(self, data: bytes) -> None:
        """Take a message from the network."""
        # Attack: a peer that sends faster than the application reads. Bounded as a socket's buffer is.
        if len(self._inbox) >= MAX_QUEUED_MESSAGES:
            del self._inbox[0]
            self.dropped += 1
        self._inbox.append(data)
        if self._waiting is not None:
            self._waiting.set()

    def answer_ping(self, number: int, rtt: float) -> None:
        """Wake whoever waits for this ping."""
        if (ping := self._pings.get(number)) is not None:
            ping.rtt = rtt
            ping.answered.set()

    def notice_streams(self, session: Session, events: Sequence[StreamEvent]) -> None:
        """Take what the protocol says about streams."""
        for kind, number, whole in events:
            if kind is _OPENED:
                opened = self._remember(session, number, whole)
                if number == (1 if session.initiator else 0):
                    self._reader.attach(opened)
                else:
                    self.stream_opened(opened)
            elif kind is _FINISHED or kind is _STREAMS_AVAILABLE:
                self._changed.ring()
            elif (stream := self._streams.get((session, number))) is not None:
                stream.notice(kind, whole)
                if kind is _STOPPED:
                    self._changed.ring()

    def stream_opened(self, stream: Stream) -> None:
        """Keep a stream of the peer for `accept_stream`. To be overridden by those who know better what to do."""
        self._opened.append(stream)
        self._changed.ring()

    def renew(self, connection: Connection) -> None:
        """Go on over a new connection: the peer has started anew, or was called again."""
        restarted = self.closed is not None and self.closed.code == CLOSE_RESTARTED
        self._connection = connection
        self._links = self._links._replace(connection=connection)
        self._writer.renew(tell=restarted)
        self._reader.renew(tell=restarted)
        self._wake()
        self._pings.clear()
        self._streams.clear()

    def end(self) -> None:
        """Wake everybody: the connection has ended."""
        self._wake()
        self._streams.clear()
        if self._waiting is not None:
            self._waiting.set()

    def _wake(self) -> None:
        for stream in list(self._streams.values()):  # some are closed by this
            stream.wake()
        self._reader.wake()
        for ping in self._pings.values():
            ping.answered.set()
        self._changed.ring()

    def __repr__(self) -> str:
        return f"<Peer {self.key}>"
