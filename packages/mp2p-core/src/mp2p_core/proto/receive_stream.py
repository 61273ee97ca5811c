"""The receiving direction of a stream: bytes in order out of frames in any order (docs/protocol.md, section 6).

Large pieces are handed on as views of the packet that brought them. Where pieces overlap, the first one wins.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, TypeAlias

from mp2p_core.errors import StreamReset
from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import ReceiveCredit, StreamError

if TYPE_CHECKING:
    from mp2p_core.proto.flow import ReceiveBudget

__all__ = ["ReceiveStream"]

_Buffer: TypeAlias = bytes | memoryview


def _own(piece: _Buffer) -> _Buffer:
    """Return a large piece as a view of its packet, and a copy of one that would hold on to much more than it shows.

    Attack: packets of 64 KB with one byte of stream in each. This way a byte held costs at most two, and small
    pieces, which a view would outweigh, are ready to be joined.
    """
    if isinstance(piece, bytes):
        return piece
    size = len(piece)
    if size > c.JOIN_SIZE and 2 * size >= len(piece.obj):  # type: ignore[arg-type]  # obj is the packet, bytes
        return piece
    return bytes(piece)


class ReceiveStream:
    """One direction of one stream. `Streams` owns it.

    Memory: at most twice the window, and pieces joined so that small ones do not cost more than their data.
    """

    __slots__ = (
        "_begun", "_credit", "_low_water", "_next", "_pieces", "_ready", "_shared", "_starts", "final", "number",
        "readable_told", "reset_code", "stop_code", "told", "update_due",
    )  # fmt: skip

    def __init__(self, number: int, shared: ReceiveBudget) -> None:
        self.number = number
        self.final: int | None = None
        self.reset_code: int | None = None
        """The code of the peer's RESET, when it came before the end."""
        self.stop_code: int | None = None
        """The code of our own STOP."""
        self.update_due = False
        """Whether the peer is to be told of more credit. Cleared by who tells it."""
        self.readable_told = False
        """Whether an event says that reading brings something new."""
        self.told = False
        """Whether the application has seen the end or the reset, or wants neither."""
        self._shared = shared
        self._credit: ReceiveCredit | None = None
        self._low_water = 1  # bytes in order that make it readable, before the end
        self._next = 0
        self._begun = False  # something has come that counts as read only when it is
        self._ready: list[_Buffer] = []  # in order, from `credit.read` up to `_next`
        # Attack: every other byte. Bytes are bounded by the window, pieces by ReceiveBudget.add_pieces_untrusted.
        self._starts: list[int] = []  # offsets of `_pieces`, beyond `_next`
        self._pieces: list[_Buffer] = []

    @property
    def credit(self) -> ReceiveCredit:
        """What the peer may send, and what was read. Made when it is needed: most streams come in one piece."""
        if self._credit is None:
            self._credit = ReceiveCredit(c.STREAM_WINDOW, c.STREAM_WINDOW_CAP)
            self._credit.received = self._credit.read = self._next
        return self._credit

    # --- network --------------------------------------------------------------------------------------

    def receive_untrusted(self, offset: int, data: _Buffer, *, last: bool) -> None:
        """Take the body of a STREAM frame. Raises StreamError."""
        end = offset + len(data)
        self._check_final_untrusted(end, last=last)
        grown = end - self.credit.received
        if grown > 0:
            self._grow_untrusted(grown)
        if last:
            self.final = end
        if self.discarding:
            if grown > 0:
                self._shared.consume(grown)
        elif offset == self._next and not self._starts:
            self._deliver(_own(data))
        elif data and end > self._next:
            if offset < self._next:
                data = data[self._next - offset :]
                offset = self._next
            self._insert_untrusted(offset, end, data)

    def take_whole_untrusted(self, data: _Buffer) -> bytes:
        """Take all of a stream at once, as read, and return it: most streams are one small message each way.

        Returns nothing, and has done nothing, when it is not small or not the first that comes. Raises StreamError.
        Memory: at most WHOLE_SIZE for each stream that may be open, beside the window.
        """
        size = len(data)
        if not 0 < size <= c.WHOLE_SIZE or self.touched:
            return b""
        shared = self._shared
        shared.credit.take_untrusted(size, shared.now)
        shared.consume(size)
        self.final = self._next = size
        # What a reader has made before does not know of this: what comes again would count again.
        self._credit = None
        self.told = True
        return bytes(data)

    def reset_untrusted(self, code: int, final: int) -> None:
        """Take a RESET: what has not been read is dropped. Raises StreamError."""
        self._check_final_untrusted(final, last=True)
        grown = final - self.credit.received
        if grown > 0:
            self._grow_untrusted(grown)
        ended = self.final is not None
        self.final = final
        if self.reset_code is not None or (ended and self._next == final):
            return  # known already; or everything had come, its end included, and is no less whole now
        if self.stop_code is not None:
            self._shared.consume(grown)
            return
        self.reset_code = code
        self._discard()

    def _check_final_untrusted(self, end: int, *, last: bool) -> None:
        final = self.final
        if final is not None and end > final:
            raise StreamError(c.CLOSE_PROTOCOL, f"stream {self.number} ended at {final}, now {end}")
        if last and end < self.credit.received:
            raise StreamError(c.CLOSE_PROTOCOL, f"stream {self.number} ends before what was sent on it")

    def _grow_untrusted(self, count: int) -> None:
        self._begun = True
        shared = self._shared
        self.credit.take_untrusted(count, shared.now)
        shared.credit.take_untrusted(count, shared.now)

    def _deliver(self, piece: _Buffer) -> None:
        size = len(piece)
        if not size:
            return
        ready = self._ready
        if ready and len(ready[-1]) + size <= c.JOIN_SIZE:
            ready[-1] = b"".join((ready[-1], piece))
        else:
            ready.append(piece)
        self._next += size

    def _insert_untrusted(self, offset: int, end: int, data: _Buffer) -> None:
        """Keep a piece that is out of order, or that meets pieces that are."""
        starts, pieces = self._starts, self._pieces
        # The pieces from i up to j overlap or touch the new one.
        i = bisect_right(starts, offset)
        if i and starts[i - 1] + len(pieces[i - 1]) >= offset:
            i -= 1
        j = bisect_right(starts, end, i)
        new_starts: list[int] = []
        new_pieces: list[_Buffer] = []

        def add(start: int, piece: _Buffer) -> None:
            if new_pieces and len(new_pieces[-1]) + len(piece) <= c.JOIN_SIZE:
                new_pieces[-1] = b"".join((new_pieces[-1], piece))
            else:
                new_starts.append(start)
                new_pieces.append(piece)

        at = offset
        for k in range(i, j):
            start, piece = starts[k], pieces[k]
            if start > at:
                add(at, _own(data[at - offset : start - offset]))
            add(start, piece)
            at = start + len(piece)
        if at < end:
            add(at, _own(data[at - offset :]))
        starts[i:j] = new_starts
        pieces[i:j] = new_pieces
        self._shared.add_pieces_untrusted(len(new_pieces) - (j - i))
        if starts[0] == self._next:
            self._pull()

    def _pull(self) -> None:
        """Move the pieces that are in order now."""
        starts, pieces = self._starts, self._pieces
        count = 0
        for start, piece in zip(starts, pieces, strict=True):
            if start != self._next:
                break
            self._deliver(piece)
            count += 1
        del starts[:count], pieces[:count]
        self._shared.pieces -= count

    def _discard(self) -> None:
        """Drop what is held, and count everything that was received as read."""
        self._shared.pieces -= len(self._pieces)
        self._shared.consume(self.credit.received - self.credit.read)
        self.credit.read = self.credit.received
        self._ready.clear()
        self._starts.clear()
        self._pieces.clear()

    # --- application ----------------------------------------------------------------------------------

    def take(self, limit: int, at_least: int = 1) -> list[_Buffer] | None:
        """Return the next pieces, up to `limit` bytes; none at the end, None when there is too little yet.

        Half of the window always comes, so that no more is waited for. Raises StreamReset.
        """
        self._low_water = max(1, min(at_least, limit, self.credit.window // 2))
        if not self.readable:
            self.readable_told = False
            return None
        ready = self._ready
        if not ready:
            self.told = True
            if self.reset_code is not None:
                raise StreamReset(self.number, self.reset_code)
            return []
        count, left = 0, limit
        while count < len(ready) and len(ready[count]) <= left:
            left -= len(ready[count])
            count += 1
        pieces = ready[:count]
        del ready[:count]
        if left and ready:
            pieces.append(ready[0][:left])
            ready[0] = ready[0][left:]
            left = 0
        size = limit - left
        self._shared.consume(size)
        if self.credit.consume(size) and self.final is None:
            self.update_due = True
        return pieces

    def stop(self, code: int) -> bool:
        """Drop what came and what will come; False when there is nothing to say to the peer."""
        wanted = self.final is None and self.stop_code is None
        self.told = True
        if self.stop_code is None:
            self.stop_code = code
            self._discard()
        return wanted

    # --- state ----------------------------------------------------------------------------------------

    @property
    def discarding(self) -> bool:
        """Whether nobody wants the data any more."""
        return self.stop_code is not None or self.reset_code is not None

    @property
    def readable(self) -> bool:
        """Whether `take`, called as it was the last time, would not return None."""
        if self._next == self.final or self.reset_code is not None:
            return True
        return self._begun and self._next - self.credit.read >= self._low_water

    @property
    def complete(self) -> bool:
        """Whether everything up to the end has come, or nobody wants it any more."""
        return self.final is not None and (self.discarding or self._next == self.final)

    @property
    def touched(self) -> bool:
        """Whether anything has come, or was refused."""
        return self._begun or self.final is not None or self.stop_code is not None

    @property
    def pieces(self) -> int:
        """How many buffers are held."""
        return len(self._ready) + len(self._pieces)

    @property
    def held(self) -> int:
        """Bytes held."""
        return sum(map(len, self._ready)) + sum(map(len, self._pieces))
