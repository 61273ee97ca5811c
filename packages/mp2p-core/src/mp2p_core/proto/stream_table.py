"""Which streams there are: numbers, limits, and what is left of those that are gone (docs/protocol.md, section 6).

Streams are numbered from 0, even ones opened by the initiator and odd ones by the responder. A frame for a
stream opens all lower ones of its side too (RFC 9000, section 3.2), so that every number is either yet to
come, live, or gone, and the live ones are all there is to remember.

A stream is live until both of its directions have ended on the wire and the application knows: it has read to
the end or the reset, or stopped reading; it has finished or reset, or seen StreamClosed.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, TypeAlias

from mp2p_core.errors import UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import ReceiveBudget, SendBudget, StreamError
from mp2p_core.proto.receive_stream import ReceiveStream
from mp2p_core.proto.send_stream import SendStream

__all__ = ["LiveStream", "StreamEvent", "StreamEventKind", "StreamTable"]


class StreamEventKind(Enum):
    """What happened. READABLE and WRITABLE come once, until a call has found nothing to read or no room."""

    OPENED = auto()
    """The peer opened the stream, and may have sent something: READABLE comes only after `read` returned None."""
    READABLE = auto()
    """`read` returned None before, or was never called, and now has data, the end or a reset."""
    WRITABLE = auto()
    """`write` took less than it was given, and now takes more."""
    STOPPED = auto()
    """The peer reads no more: `write` raises StreamClosed, and the rest of what was written is dropped."""
    FINISHED = auto()
    """The peer has acknowledged everything up to the end of our direction. Only where `tells_finished`."""
    STREAMS_AVAILABLE = auto()
    """`open` returned None before, and now does not. The stream is 0 and means nothing."""


StreamEvent: TypeAlias = tuple[StreamEventKind, int, bytes]
"""Something the application may be waiting for: what, the stream, and what has come of it.

With OPENED or READABLE the bytes are all of a stream that came in one frame, its end included, and count as read. Else
there are none. A plain tuple: there is one for each small message.
"""


_OPENED: Final = StreamEventKind.OPENED


class LiveStream:
    """Both directions of a stream."""

    __slots__ = ("cancelled", "parting", "receive", "send")

    def __init__(self, send: SendStream, receive: ReceiveStream) -> None:
        self.send = send
        self.receive = receive
        self.cancelled = False
        """Whether the peer has cancelled it, which counts once, or may do so because the application serves it."""
        self.parting = False
        """Whether another may be opened in its place already: see `StreamTable.part`."""

    @property
    def touched(self) -> bool:
        """Whether anybody has done anything with it."""
        return self.send.served or self.receive.touched


class StreamTable:
    """The live streams of a connection, and the numbers of all."""

    __slots__ = (
        "_accepted", "_cancelled_at", "_gone", "_open_limit", "_open_wanted", "_opened", "_parting", "_retired",
        "accept_limit", "events", "live", "parity", "receiving", "sending", "tells_finished",
    )  # fmt: skip

    def __init__(self, *, initiator: bool) -> None:
        self.events: list[StreamEvent] = []
        self.tells_finished = False
        """Whether somebody waits for FINISHED: most streams finish unwatched."""
        self.sending = SendBudget()
        self.receiving = ReceiveBudget()
        # Attack: a peer that opens streams for ever. `accept_limit` holds it to MAX_OPEN_STREAMS at a time, and as many
        # that are parting.
        self.live: dict[int, LiveStream] = {}
        self.accept_limit = c.MAX_OPEN_STREAMS
        """How many streams the peer may open, from the first on: our MAX_STREAMS."""
        self.parity = 0 if initiator else 1
        """The last bit of the numbers of our streams."""
        self._opened = 0  # streams of ours ever opened
        self._open_limit = c.MAX_OPEN_STREAMS  # the peer's MAX_STREAMS
        self._open_wanted = False
        self._accepted = 0  # the peer's streams ever opened
        self._retired = 0  # those of them that are gone
        self._parting = 0  # those of them that are about to
        # Attack: numbers used again. The last few final sizes tell that from late packets; older ones are ignored.
        # (number, final) by the place that the number shares with those FORGOTTEN_STREAMS before and after it.
        self._gone: dict[int, tuple[int, int]] = {}
        # Attack: opening and cancelling, each of which costs the application more than the peer.
        self._cancelled_at: list[float] = []

    # --- application ----------------------------------------------------------------------------------

    def open(self) -> int | None:
        """Open a stream of ours; None when the peer allows no more."""
        if self._opened >= self._open_limit:
            self._open_wanted = True
            return None
        number = 2 * self._opened + self.parity
        self._opened += 1
        self._add(number)
        return number

    def find(self, number: int) -> LiveStream | None:
        """Return a stream; None when it is gone. Raises UsageError when it never was."""
        live = self.live.get(number)
        if live is None:
            known = self._opened if number & 1 == self.parity else self._accepted
            if not 0 <= number >> 1 < known:
                raise UsageError(f"stream {number} was never opened")
        return live

    def get(self, number: int) -> LiveStream:
        """Return a live stream. Raises UsageError."""
        live = self.live.get(number) or self.find(number)
        if live is None:
            raise UsageError(f"stream {number} has ended in both directions: open another one")
        return live

    def serve(self, number: int) -> None:
        """Note that the application is at work on a stream: that the peer gives it up is then no attack."""
        if (live := self.live.get(number)) is not None:
            live.cancelled = True

    @property
    def unfinished(self) -> int:
        """Bytes, ends included, of ended streams that the peer has not acknowledged."""
        return sum(live.send.unfinished for live in self.live.values())

    # --- network --------------------------------------------------------------------------------------

    def reach_untrusted(self, number: int) -> LiveStream | None:
        """Find the stream of a frame, opening those of the peer that are due; None when it is gone."""
        live = self.live.get(number)
        if live is not None:
            return live
        index = number >> 1
        if number & 1 == self.parity:
            if index >= self._opened:
                raise StreamError(c.CLOSE_PROTOCOL, f"stream {number} was never opened")
            return None
        if index < self._accepted:
            return None
        if index >= self.accept_limit:
            raise StreamError(c.CLOSE_STREAMS, f"stream {number} opened, {self.accept_limit} allowed")
        while self._accepted <= index:
            opened = 2 * self._accepted + 1 - self.parity
            self._accepted += 1
            self._add(opened).receive.readable_told = True
            self.events.append((_OPENED, opened, b""))
        return self.live[number]

    def late_untrusted(self, number: int, end: int, *, last: bool) -> None:
        """Pass over a frame of a stream that is gone, unless it cannot be a late one (row C3)."""
        gone, final = self._gone.get(_place(number), (-1, 0))
        if gone == number and (end > final or (last and end != final)):
            raise StreamError(c.CLOSE_PROTOCOL, f"stream {number} ended at {final}, now {end}")

    def more_streams_untrusted(self, limit: int) -> None:
        """Take a MAX_STREAMS."""
        if limit > c.MAX_STREAM_COUNT:
            raise StreamError(c.CLOSE_PROTOCOL, f"{limit} streams cannot be numbered")
        if limit > self._open_limit:
            self._open_limit = limit
            if self._open_wanted:
                self._open_wanted = False
                self.events.append((StreamEventKind.STREAMS_AVAILABLE, 0, b""))

    def count_cancelled_untrusted(self, number: int, live: LiveStream, now: float) -> None:
        """Count a stream that the peer opened and cancels before the application has done anything with it."""
        if live.cancelled or live.send.served or number & 1 == self.parity:
            return
        live.cancelled = True
        times = self._cancelled_at
        if len(times) == c.RESET_LIMIT and now - times[0] < c.RESET_SPAN:
            raise StreamError(c.CLOSE_EXCESSIVE, f"more than {c.RESET_LIMIT} streams cancelled at once")
        times.append(now)
        del times[: -c.RESET_LIMIT]

    @property
    def unused(self) -> bool:
        """Whether there is no stream but those for messages, and nothing was said on these."""
        return all(number < 2 and not live.touched for number, live in self.live.items())

    @property
    def settled(self) -> bool:
        """Whether all streams have ended on the wire, in both directions, but perhaps for the last acknowledgements."""
        return all(
            (live.send.said and live.receive.complete) or (number < 2 and not live.touched)
            for number, live in self.live.items()
        )

    def settle(self) -> None:
        """Take what went out for acknowledged: the peer has said that it has everything."""
        for number, live in list(self.live.items()):
            send = live.send
            if send.reset_code is not None:
                send.reset_acked = True
            elif (
                send.final is not None
                and send.acked(send.base, send.final, last=True)
                and self.tells_finished
            ):
                self.events.append((StreamEventKind.FINISHED, number, b""))
            self.forget_if_done(number, live)

    def forget_if_done(self, number: int, live: LiveStream) -> bool:
        """Forget a stream that has ended in every respect; True when it has."""
        send, receive = live.send, live.receive
        final = receive.final
        if final is None or not (send.told and receive.told and (send.finished or send.reset_acked)):
            return False
        del self.live[number]
        self._gone[_place(number)] = number, final
        if number & 1 != self.parity:
            self._retired += 1
            self._parting -= live.parting
        return True

    def part(self, number: int, live: LiveStream) -> bool:
        """Let the peer open another stream in place of one that waits for nothing but acknowledgements.

        So calls need not wait for those before them to be acknowledged. Returns whether the peer is to be told.
        Attack: a peer that calls and acknowledges nothing. There are never more such streams than others, and each
        holds few bytes.
        """
        if (
            number & 1 == self.parity
            or not live.receive.told
            or live.receive.final is None
            or live.send.written > c.JOIN_SIZE
            or self._parting >= c.MAX_OPEN_STREAMS
        ):
            return False
        live.parting = True
        self._parting += 1
        return self.raise_accept_limit()

    def raise_accept_limit(self) -> bool:
        """Let the peer open as many streams more as have gone; False when that is not worth a frame yet."""
        limit = self.accept_limit
        more = self._retired + self._parting + c.MAX_OPEN_STREAMS - limit
        if more < c.STREAMS_REPORTED and (not more or 2 * (limit - self._accepted) > c.MAX_OPEN_STREAMS):
            return False
        self.accept_limit = min(limit + more, c.MAX_STREAM_COUNT)
        return self.accept_limit > limit

    def sizes(self) -> dict[str, int]:
        """Count what is held."""
        live = self.live.values()
        return {
            "streams": len(live),
            "send bytes": self.sending.unacked + self.sending.unsent,
            "send chunks": sum(each.send.chunks for each in live),
            "send spans": sum(each.send.spans for each in live),
            "receive bytes": sum(each.receive.held for each in live),
            "receive pieces": sum(each.receive.pieces for each in live),
            "out of order": self.receiving.pieces,
            "events": len(self.events),
            "gone": len(self._gone),
            "cancelled": len(self._cancelled_at),
        }

    def _add(self, number: int) -> LiveStream:
        send, receive = SendStream(number, self.sending), ReceiveStream(number, self.receiving)
        live = self.live[number] = LiveStream(send, receive)
        return live


def _place(number: int) -> int:
    return (number >> 1) % c.FORGOTTEN_STREAMS
