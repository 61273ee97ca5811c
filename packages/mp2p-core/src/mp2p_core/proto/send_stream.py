"""The sending direction of a stream: what waits, what is out, what came back (docs/protocol.md, section 6).

Bytes are kept as the application handed them over, and released as they are acknowledged. Losses are kept as
ranges, so that a packet may be reported lost and acknowledged after all, in any order and more than once.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, TypeAlias

from mp2p_core.errors import StreamClosed, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import STREAM, STREAM_LAST, STREAM_OVERHEAD, encode_stream_head

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mp2p_core.proto.flow import SendBudget

__all__ = ["Buffer", "SendStream", "Sent", "Spans"]

Buffer: TypeAlias = bytes | memoryview


Sent: TypeAlias = tuple[int, int, int, int]
"""A frame that went out: what `Streams.acked` and `Streams.lost` have to know, (type, stream, start, end).

STREAM has the range of bytes from `start` to `end`, MAX_* the limit in `start`. A plain tuple: there is one for each
small message.
"""


class Spans:
    """Ranges of offsets, from `start` up to and without `end`; sorted, never touching.

    There are never more of them than frames in flight, and the sender decides on those.
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Put a range in; an empty one leaves nothing behind, for `remove` would not find it again."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        i = bisect_left(ends, start)
        j = bisect_right(starts, end)
        if i < j:
            start = min(start, starts[i])
            end = max(end, ends[j - 1])
        starts[i:j] = [start]
        ends[i:j] = [end]

    def remove(self, start: int, end: int) -> None:
        """Take a range out, where it is there."""
        starts, ends = self._starts, self._ends
        i = bisect_right(ends, start)
        j = bisect_left(starts, end)
        if i >= j:
            return
        kept = [(starts[i], start)] if starts[i] < start else []
        if ends[j - 1] > end:
            kept.append((end, ends[j - 1]))
        starts[i:j] = [a for a, _ in kept]
        ends[i:j] = [b for _, b in kept]

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """List the ranges that overlap this one, whole."""
        i = bisect_right(self._ends, start)
        j = bisect_left(self._starts, end)
        return list(zip(self._starts[i:j], self._ends[i:j], strict=True))

    @property
    def first(self) -> tuple[int, int]:
        """The lowest range."""
        return self._starts[0], self._ends[0]

    def clear(self) -> None:
        """Take out everything."""
        self._starts.clear()
        self._ends.clear()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end), lowest first."""
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)


class SendStream:
    """One direction of one stream. `Streams` owns it and decides when it may send.

    Offsets: `base` <= `next` <= `written`. Below `base` everything is acknowledged and released, from `next`
    on nothing has been sent.
    """

    __slots__ = (
        "_acked", "_chunks", "_end_acked", "_end_due", "_lost", "_shared", "_starts", "_whole", "base", "blocked",
        "final", "finished", "in_ready", "in_urgent", "limit", "next", "number", "reset_acked", "reset_code",
        "stopped_code", "told", "written",
    )  # fmt: skip

    def __init__(self, number: int, shared: SendBudget) -> None:
        self.number = number
        self.limit = c.STREAM_WINDOW
        """The peer's MAX_STREAM."""
        self.base = self.next = self.written = 0
        self.final: int | None = None
        """Where the application ended it."""
        self.reset_code: int | None = None
        self.reset_acked = False
        self.stopped_code: int | None = None
        """The code of the peer's STOP."""
        self.told = False
        """Whether the application knows that this direction has ended: it ended it, or was told of a STOP."""
        self.blocked = False
        """Whether `write` took less than it was given."""
        self.finished = False
        """Whether the peer has acknowledged everything, the end included."""
        self.in_ready = self.in_urgent = False
        self._shared = shared
        self._chunks: list[Buffer] = []
        self._starts: list[int] = []
        self._whole = b""  # all of it and its end, while that waits in one piece
        self._acked: Spans | None = None
        self._lost: Spans | None = None
        self._end_due = False  # the end has to be said by itself, or again
        self._end_acked = False

    # --- application ----------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Raise StreamClosed after a STOP, UsageError when the application has ended this direction."""
        if self.stopped_code is not None:
            self.told = True
            raise StreamClosed(self.number, self.stopped_code)
        if self.reset_code is not None or self.final is not None:
            raise UsageError(f"stream {self.number} has been ended: nothing more can be written to it")

    def write(self, data: Buffer, *, whole: bool = False, head: bytes = b"") -> int:
        """Take what there is room for; returns how many bytes. A `memoryview` must not change afterwards.

        With `whole`, all of it or nothing: all when there is room for it, or when nothing else waits. Then `head`
        may go before the data, which need not be copied for that.
        """
        self.check_open()
        size = len(head) + len(data)
        taken = min(size, self._shared.allowance(self.unsent) - self.unsent)
        if taken < size:
            if whole:
                taken = 0 if self.unsent else size
            self.blocked = taken < size
            data = memoryview(data)[: max(taken, 0)]
        if taken <= 0:
            return 0
        self._shared.taken += taken
        chunks = self._chunks
        for piece in (head, data) if head else (data,):
            length = len(piece)
            if chunks and len(chunks[-1]) + length <= c.JOIN_SIZE:
                chunks[-1] = b"".join((chunks[-1], piece))
            else:
                # Slices of a view share the application's buffer; small ones are copied, to be joined cheaply.
                chunks.append(memoryview(piece) if length > c.JOIN_SIZE else bytes(piece))
                self._starts.append(self.written)
            self.written += length
        return taken

    def write_last(self, data: bytes) -> bool:
        """Take all of the data and end this direction; False, and nothing, when there is no room."""
        size = len(data)
        shared = self._shared
        if (
            self.written
            or not 0 < size <= c.UNSENT_FLOOR
            or size > self.limit
            or shared.taken + size > shared.sent + c.UNSENT_CONNECTION
        ):
            if data and not self.write(data, whole=True):
                return False
            self.finish()
            return True
        self.check_open()
        self._whole = data
        self._chunks.append(data)
        self._starts.append(0)
        shared.taken += size
        self.written = self.final = size
        self.told = True
        return True

    def finish(self) -> None:
        """End this direction after what has been written."""
        if self.final is None or self.stopped_code is not None:
            self.check_open()
            self.final = self.written
            self._end_due = True
            self.told = True

    def reset(self, code: int) -> bool:
        """Give up on what has not been acknowledged; False when there is nothing to say to the peer."""
        if self.done or self.reset_code is not None:
            return False
        self.reset_code = code
        self._shared.taken -= self.unsent
        self._shared.released += self.next - self.base
        self.written = self.base = self.next
        self._whole = b""
        self._end_due = False
        self._chunks.clear()
        self._starts.clear()
        self._acked = self._lost = None
        return True

    # --- state ----------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that wait to be sent for the first time."""
        return self.written - self.next

    @property
    def sendable(self) -> int:
        """Bytes that this stream's own credit lets go out now for the first time; see `SendBudget.available`."""
        return min(self.written, self.limit, self.base + c.STREAM_WINDOW_CAP) - self.next

    @property
    def urgent(self) -> bool:
        """Whether there is something that needs no credit: what was lost, or a bare end."""
        return bool(self._lost) or (self._end_due and self.next == self.final)

    @property
    def unfinished(self) -> int:
        """Bytes, the end included, that the peer has yet to acknowledge; 0 when there is no end."""
        if self.final is None or self.reset_code is not None or self.finished:
            return 0
        return self.written - self.base + 1

    @property
    def done(self) -> bool:
        """Whether nothing of this direction can go out any more."""
        return self.reset_acked or self.finished

    @property
    def said(self) -> bool:
        """Whether this direction has ended, and all of it has gone out once."""
        return self.reset_code is not None or (self.final is not None and not (self._end_due or self.unsent))

    @property
    def served(self) -> bool:
        """Whether the application has done anything with this direction."""
        return self.written > 0 or self.final is not None or self.reset_code is not None

    @property
    def chunks(self) -> int:
        """How many buffers are held."""
        return len(self._chunks)

    @property
    def spans(self) -> int:
        """How many ranges are held."""
        return len(self._acked or ()) + len(self._lost or ())

    # --- network --------------------------------------------------------------------------------------

    def fill_lost(self, room: int, out: list[Buffer]) -> Sent | None:
        """Append a frame of what needs no credit; None when the room is too small for it."""
        lost = self._lost
        start, end = lost.first if lost else (self.next, self.next)
        size = self._fitting(room, end - start)
        if size is None:
            return None
        if lost:
            lost.remove(start, start + size)
        return self._frame(start, start + size, out)

    def fill_new(self, room: int, credit: int, out: list[Buffer]) -> Sent | None:
        """Append a frame of new bytes, at most `credit` of them; None when the room is too small for it."""
        size = self._fitting(room, min(self.sendable, credit))
        if size is None:
            return None
        start = self.next
        self.next = end = start + size
        self._whole = b""
        self._shared.sent += size
        return self._frame(start, end, out)

    def fill_whole(self, room: int, credit: int, out: list[Buffer]) -> Sent | None:
        """Append all of a stream, its end included, if that waits in one piece and fits; None when it does not."""
        data = self._whole
        size = len(data)
        if not data or size > credit or size > room - STREAM_OVERHEAD:
            return None
        self._whole = b""
        self._shared.sent += size
        self.next = size
        number = self.number
        out += encode_stream_head(number, 0, size, last=True), data
        return STREAM_LAST, number, 0, size

    @staticmethod
    def _fitting(room: int, size: int) -> int | None:
        room -= STREAM_OVERHEAD
        if size <= room:
            return size
        return room if room >= c.SMALLEST_FRAGMENT - STREAM_OVERHEAD else None

    def _frame(self, start: int, end: int, out: list[Buffer]) -> Sent:
        last = end == self.final
        if last:
            self._end_due = False
        out.append(encode_stream_head(self.number, start, end - start, last=last))
        chunks, starts = self._chunks, self._starts
        i = bisect_right(starts, start) - 1
        at = start
        while at < end:
            chunk, first = chunks[i], starts[i]
            after = first + len(chunk)
            out.append(chunk if at == first and after <= end else chunk[at - first : end - first])
            at = after
            i += 1
        return STREAM_LAST if last else STREAM, self.number, start, end

    def acked(self, start: int, end: int, *, last: bool) -> bool:
        """Note that the peer has a range, and release what it has from the beginning; True when that was all."""
        if self.finished:
            return False
        if last:
            self._end_acked = True
            self._end_due = False
            if start == self.base and not self._lost and not self._acked:  # all there is
                self._shared.released += end - start
                self.base = end
                self._chunks, self._starts = [], []
                self.finished = self.reset_code is None
                return self.finished
        if self._lost:
            self._lost.remove(start, end)
        if start > self.base:
            if self._acked is None:
                self._acked = Spans()
            self._acked.add(start, end)
            return False
        if end > self.base:
            self._release(end)
        self.finished = self._end_acked and self.base == self.final and self.reset_code is None
        return self.finished

    def _release(self, end: int) -> None:
        acked = self._acked
        while acked and acked.first[0] <= end:
            span = acked.first
            acked.remove(*span)
            end = max(end, span[1])
        self._shared.released += end - self.base
        self.base = end
        chunks, starts = self._chunks, self._starts
        gone = bisect_right(starts, end)
        if gone and starts[gone - 1] + len(chunks[gone - 1]) > end:
            gone -= 1
        del chunks[:gone], starts[:gone]

    def lost(self, start: int, end: int, *, last: bool) -> None:
        """Put a range up for sending again, where the peer has not acknowledged it since."""
        if self.reset_code is not None:
            return
        if last and not self._end_acked:
            self._end_due = True
        start = max(start, self.base)
        if start >= end:
            return
        if self._lost is None:
            self._lost = Spans()
        self._lost.add(start, end)
        if self._acked:
            for span in self._acked.within(start, end):
                self._lost.remove(*span)
