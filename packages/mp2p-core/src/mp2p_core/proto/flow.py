"""Credits: how much the other side may send, and how much we may (docs/protocol.md, section 6; RFC 9000, 4).

Each stream has a credit and so has the connection, both counted in bytes from the first. The receiver moves
its limit on when half of the window has been read, or less where much lies unread; it doubles the window when
a window's worth was read in less than two round trips, because then the credit and not the network held the sender up.
"""

from __future__ import annotations

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c

__all__ = ["ReceiveBudget", "ReceiveCredit", "SendBudget", "StreamError"]


class StreamError(BadPacket):
    """A peer broke a rule of streams; `code` is what the connection closes with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ReceiveCredit:
    """What the peer may send, on one stream or on all together.

    `received` and `read` are bytes from the first on, `limit` the offset that the peer may not pass. What it
    has sent and nobody has read is never more than `window`, and `window` never more than `cap`.
    """

    __slots__ = ("_cap", "_read_before", "_shared", "_since", "limit", "read", "received", "window")

    def __init__(self, window: int, cap: int, *, shared: bool = False) -> None:
        self.window = window
        self.limit = window
        self.received = 0
        self.read = 0
        self._cap = cap
        self._shared = shared
        self._read_before = 0  # `read` at the last update
        self._since = 0.0  # time of the last update, or of the first byte

    def take_untrusted(self, count: int, now: float) -> None:
        """Note that the peer sent `count` bytes more. Raises StreamError (code 3) past the limit."""
        received = self.received + count
        if received > self.limit:
            raise StreamError(c.CLOSE_FLOW, f"{received} bytes sent, {self.limit} allowed")
        if not self.received:
            self._since = now
        self.received = received

    def consume(self, count: int) -> bool:
        """Note that `count` bytes more were read; True when the peer is to be told of a new limit.

        That is when half of the window has been read since the limit was told. Where streams share it, what lies
        unread is left out, down to a sixteenth of the window: a few streams that nobody reads would else hold up all
        the others.
        """
        self.read += count
        window = self.window
        untold = 2 * (self.read + window - self.limit)
        if self._shared:
            return untold >= window - self.received + self.read and untold >= window // 16
        return untold >= window

    def update(self, now: float, rtt: float) -> int:
        """Move the limit on, if that is worth telling, and return it.

        Called when the limit is told, and not at each read: a slow reader takes much at once, and that must
        not look fast.
        """
        if self.consume(0):
            elapsed = now - self._since
            if elapsed * self.window < 2 * rtt * (self.read - self._read_before):
                self.window = min(2 * self.window, self._cap)
            self._since = now
            self._read_before = self.read
            self.limit = self.read + self.window
        return self.limit


class ReceiveBudget:
    """What all receiving streams of a connection share."""

    __slots__ = ("credit", "now", "pieces", "rtt", "update_due")

    def __init__(self) -> None:
        self.credit = ReceiveCredit(c.CONNECTION_WINDOW, c.CONNECTION_WINDOW_CAP, shared=True)
        self.update_due = False
        """Whether the peer is to be told of more credit. Cleared by who tells it."""
        self.now = 0.0
        """When the last frame came. Reading has no clock of its own, and a round trip too early does no harm."""
        self.rtt = c.INITIAL_RTT
        self.pieces = 0

    def consume(self, count: int) -> None:
        """Give the peer credit for bytes that were read, or that nobody wants to read."""
        if self.credit.consume(count):
            self.update_due = True

    def add_pieces_untrusted(self, count: int) -> None:
        """Note pieces kept out of order.

        Attack: every other byte of the window, so that bookkeeping outgrows the data by far. Packets are
        acknowledged whole, so a piece cannot be refused quietly: too many close the connection (code 9).
        """
        self.pieces += count
        if self.pieces > c.MAX_PIECES:
            raise StreamError(c.CLOSE_EXCESSIVE, f"more than {c.MAX_PIECES} pieces out of order")


class SendBudget:
    """What all sending streams of a connection share: bytes, all of them."""

    __slots__ = ("limit", "released", "sent", "taken")

    def __init__(self) -> None:
        self.limit = c.CONNECTION_WINDOW
        """The peer's MAX_DATA."""
        self.taken = 0
        """Bytes ever taken from the application, but for those that were dropped unsent."""
        self.sent = 0
        """New bytes ever sent; what is sent again needs no credit."""
        self.released = 0
        """Of those, the ones that are not kept any more."""

    @property
    def unsent(self) -> int:
        """Bytes taken from the application ahead of sending."""
        return self.taken - self.sent

    @property
    def unacked(self) -> int:
        """Bytes kept because they may have to be sent again."""
        return self.sent - self.released

    @property
    def available(self) -> int:
        """How many new bytes may be sent now.

        Attack: a peer gives boundless credit and acknowledges nothing, or never the first byte. Its credit
        counts up to our own cap.
        """
        credit = self.limit - self.sent
        kept = c.CONNECTION_WINDOW_CAP - self.unacked
        return credit if credit < kept else kept

    def allowance(self, unsent: int) -> int:
        """Return how much a stream that has `unsent` bytes waiting may have waiting.

        A peer that reads nothing of many streams costs the connection's share and a floor for each stream;
        the floor keeps the other streams going.
        """
        others = self.unsent - unsent
        return min(c.UNSENT_STREAM, max(c.UNSENT_FLOOR, c.UNSENT_CONNECTION - others))
