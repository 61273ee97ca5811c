"""All streams of one connection (docs/protocol.md, section 6; the rules are those of RFC 9000, sections 2 to 4).

What goes out next is decided here, and what happens when it arrives or is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mp2p_core.errors import StreamClosed, StreamReset, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import (
    MAX_DATA,
    MAX_STREAM,
    MAX_STREAMS,
    RESET,
    STOP,
    STREAM,
    STREAM_LAST,
    STREAM_OVERHEAD,
    MaxData,
    MaxStreamData,
    MaxStreams,
    ResetStream,
    StreamData,
)
from mp2p_core.proto.stream_control import ControlFrames
from mp2p_core.proto.stream_table import StreamEventKind, StreamTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mp2p_core.proto.frames import StreamFrame
    from mp2p_core.proto.send_stream import Buffer, SendStream, Sent
    from mp2p_core.proto.stream_table import LiveStream

__all__ = ["Streams"]

_MAX_U16: Final = 0xFFFF
_DATA: Final = (STREAM, STREAM_LAST)
_OPENED: Final = StreamEventKind.OPENED
_READABLE: Final = StreamEventKind.READABLE
_FINISHED: Final = StreamEventKind.FINISHED
_OF_A_STREAM: Final = (RESET, STOP, MAX_STREAM)


class Streams:
    """The streams of one connection. Sans-IO: frames go in and come out; time only as an argument.

    Calls on a stream that is not open raise UsageError, but `finish`, `reset` and `stop` on one that is gone
    do nothing: cleaning up twice is no mistake.
    """

    __slots__ = (
        "_control_frames",
        "_ready",
        "_receiving",
        "_sending",
        "_urgent",
        "control",
        "events",
        "table",
    )

    def __init__(self, *, initiator: bool) -> None:
        table = StreamTable(initiator=initiator)
        self.events = table.events
        """To be emptied by the owner. A call of `receive_untrusted`, `fill` or `acked` adds few, or one a frame."""
        self.table = table
        """Which there are."""
        self._sending = table.sending
        self._receiving = table.receiving
        self._control_frames = ControlFrames(table)
        self.control = self._control_frames.due
        """Credit and other control frames that wait, by type and stream: reading may lead to sending."""
        self._urgent: list[SendStream] = []  # those with something that needs no credit
        self._ready: list[SendStream] = []  # those with new data within their own credit

    # --- application ----------------------------------------------------------------------------------

    def open(self) -> int | None:
        """Open a stream and return its number; None when the peer allows no more, until STREAMS_AVAILABLE.

        The peer learns of it with the first frame, so from `write`, `finish`, `reset` or `stop`.
        """
        return self.table.open()

    def write(self, stream: int, data: Buffer | bytearray, *, whole: bool = False, head: bytes = b"") -> int:
        """Queue bytes, in order and reliably; returns how many were taken, maybe none: then wait for WRITABLE.

        Taken are up to 1 MiB ahead of sending (64 KiB when the connection's streams have 16 MiB waiting
        together). With `whole`, all of `data` or nothing, after `head`: all as soon as it fits, or nothing else
        waits in this stream. `data` is kept as it is until the peer has acknowledged it; what could change is copied.
        Raises StreamClosed when the peer stopped reading, UsageError after `finish` or `reset`.
        """
        if type(data) is not bytes:
            view = memoryview(data)
            data = view.cast("B") if view.readonly and view.c_contiguous else view.tobytes()
        live = self.table.get(stream)
        send = live.send
        try:
            taken = send.write(data, whole=whole, head=head)
        except StreamClosed:
            self._forget_if_done(stream, live)
            raise
        if not send.in_ready:
            self._queue(send)
        return taken

    def finish(self, stream: int) -> None:
        """End our direction after what was written. Raises StreamClosed when the peer stopped reading."""
        live = self.table.find(stream)
        if live is None:
            return
        try:
            live.send.finish()
        except StreamClosed:
            self._forget_if_done(stream, live)
            raise
        self._queue(live.send)

    def write_last(self, stream: int, data: bytes) -> bool:
        """Do what `write`, of all of `data`, and `finish` do; False, and nothing, when there is no room."""
        table = self.table
        live = table.get(stream)
        send = live.send
        try:
            if not send.write_last(data):
                return False
        except StreamClosed:
            self._forget_if_done(stream, live)
            raise
        if not send.in_ready:
            if data and not send.next:  # the first that is sent, for which there is credit
                send.in_ready = True
                self._ready.append(send)
            else:
                self._queue(send)
        if stream & 1 != table.parity and table.part(stream, live):
            self.control[MAX_STREAMS, 0] = None
        return True

    def reset(self, stream: int, code: int) -> None:
        """End our direction at once and drop what was not sent; `code` (16 bits) is for the peer's application."""
        _check_code(code)
        live = self.table.find(stream)
        if live is not None:
            live.send.told = True
            self._reset(live.send, code)
            self._forget_if_done(stream, live)

    def read(self, stream: int, limit: int, at_least: int = 1) -> Buffer | None:
        """Return the next bytes in order, as `take` does, joined; b"" at the end."""
        pieces = self.take(stream, limit, at_least)
        if pieces is None:
            return None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def take(self, stream: int, limit: int, at_least: int = 1) -> list[Buffer] | None:
        """Return the next pieces in order, at most `limit` bytes; none at the end, None when there is too little yet.

        Too little is less than `at_least`: a reader that needs much is not woken for each packet. It still has
        to call again for the rest, for what waits is kept to a part of the windows, and may be less at the end.

        Large pieces are views of the packets that brought them, read-only. Raises StreamReset; what came before
        a reset and was not read is lost.
        """
        if limit < 1:
            raise UsageError("a read takes at least one byte: give a limit above 0")
        live = self.table.get(stream)
        receive = live.receive
        if receive.stop_code is not None:
            raise UsageError(f"stream {stream} was stopped: nothing more can be read from it")
        if at_least > 1:  # all that wait together must leave the peer credit to go on
            at_least = min(at_least, self._receiving.credit.window // (2 * len(self.table.live)))
        try:
            pieces = receive.take(limit, at_least)
        except StreamReset:
            self._forget_if_done(stream, live)
            raise
        if receive.update_due:
            receive.update_due = False
            self.control[MAX_STREAM, stream] = None
        self._tell_max_data()
        if receive.told:
            self._forget_if_done(stream, live)
        return pieces

    def readable(self, stream: int) -> bool:
        """Tell whether there is something to `take`, be it the end or a reset; if not, READABLE says when."""
        live = self.table.live.get(stream)
        if live is None:
            return False
        receive = live.receive
        receive.readable_told = receive.readable
        return receive.readable_told

    def stop(self, stream: int, code: int) -> None:
        """Read no more and drop what comes; `code` (16 bits) is for the peer's application."""
        _check_code(code)
        live = self.table.find(stream)
        if live is not None:
            if live.receive.stop(code):
                self.control[STOP, stream] = None
            self.control.pop((MAX_STREAM, stream), None)
            self._tell_max_data()
            self._forget_if_done(stream, live)

    def set_rtt(self, rtt: float) -> None:
        """Tell the smoothed round-trip time in seconds, for auto-tuning."""
        self._receiving.rtt = max(rtt, c.TUNING_RTT)

    def sizes(self) -> Mapping[str, int]:
        """Count what is held. Bytes are those of the data; see the modules for what comes on top."""
        control, queued = len(self.control), len(self._urgent) + len(self._ready)
        return {**self.table.sizes(), "control": control, "queued": queued}

    # --- network: receiving ---------------------------------------------------------------------------

    def receive_untrusted(self, frame: StreamFrame, now: float) -> None:
        """Take a frame. Raises StreamError, whose code the connection closes with."""
        self._receiving.now = now
        if isinstance(frame, StreamData):
            self._data_untrusted(frame)
        elif isinstance(frame, MaxData):
            self._sending.limit = max(self._sending.limit, frame.limit)
        elif isinstance(frame, MaxStreams):
            self.table.more_streams_untrusted(frame.limit)
        elif isinstance(frame, MaxStreamData):
            live = self.table.reach_untrusted(frame.stream)
            if live is not None and frame.limit > live.send.limit:
                live.send.limit = frame.limit
                self._queue(live.send)
        elif isinstance(frame, ResetStream):
            live = self.table.reach_untrusted(frame.stream)
            if live is None:
                self.table.late_untrusted(frame.stream, frame.final, last=True)
                return
            self.table.count_cancelled_untrusted(frame.stream, live, now)
            live.receive.reset_untrusted(frame.code, frame.final)
            self._received(frame.stream, live)
        else:
            live = self.table.reach_untrusted(frame.stream)
            if live is not None:
                self.table.count_cancelled_untrusted(frame.stream, live, now)
                self._stopped(live.send, frame.code)

    def _data_untrusted(self, frame: StreamData) -> None:
        number, offset, data, last = frame.stream, frame.offset, frame.data, frame.last
        known = self.table.live.get(number)
        live = known or self.table.reach_untrusted(number)
        if live is None:
            self.table.late_untrusted(number, offset + len(data), last=last)
            return
        receive = live.receive
        # Whoever was told already may read before the next word, and must find it here.
        told = known and receive.readable_told
        if last and not offset and not told and (whole := receive.take_whole_untrusted(data)):
            if known:
                self.events.append((_READABLE, number, whole))
                self._forget_if_done(number, live)
            else:
                self.events[-1] = _OPENED, number, whole
            self._tell_max_data()
            return
        receive.receive_untrusted(offset, data, last=last)
        if receive.told or not receive.readable_told or self._receiving.update_due:
            self._received(number, live)

    def _received(self, number: int, live: LiveStream) -> None:
        receive = live.receive
        if receive.told:
            self._forget_if_done(number, live)
        elif not receive.readable_told and receive.readable:
            receive.readable_told = True
            self.events.append((_READABLE, number, b""))
        self._tell_max_data()

    def _stopped(self, send: SendStream, code: int) -> None:
        if send.done or send.reset_code is not None:
            return
        send.stopped_code = code
        self._reset(send, code)
        self.events.append((StreamEventKind.STOPPED, send.number, b""))

    # --- network: sending -----------------------------------------------------------------------------

    def wants_to_send(self) -> bool:
        """Tell whether `fill` has something for a packet with at least 64 bytes of room."""
        return bool(self.control or self._urgent or (self._ready and self._sending.available > 0))

    def exceed(self, room: int) -> bool:
        """Tell whether so many bytes may be too few for what `fill` has."""
        return self._sending.unsent > room or bool(self._urgent)

    @property
    def only_repeats(self) -> bool:
        """Whether what `fill` has was all sent before."""
        return bool(self._urgent) and not self._ready

    def fill(self, room: int, out: list[Buffer]) -> list[Sent]:
        """Append frames of at most `room` bytes together; returns what `acked` or `lost` is to be called with.

        Control frames go first, then what was lost, then new data of one stream after another. Stream data is
        appended as it is held, beside its header: joining is the caller's. An empty list means that the room
        was too small for what comes next.
        """
        sent: list[Sent] = []
        if self.control:
            room = self._control_frames.fill(room, out, sent)
        urgent = self._urgent
        while urgent:
            send = urgent[0]
            frame = send.fill_lost(room, out)
            if frame is None:
                return sent
            _, _, start, end = frame
            sent.append(frame)
            room -= STREAM_OVERHEAD + end - start
            if not send.urgent:
                send.in_urgent = False
                del urgent[0]
        budget, ready = self._sending, self._ready
        credit = budget.available
        while ready and credit > 0 and room >= STREAM_OVERHEAD:
            send = ready[0]
            frame = send.fill_whole(room, credit, out) or send.fill_new(room, credit, out)
            if frame is None:
                break
            _, _, start, end = frame
            sent.append(frame)
            room -= STREAM_OVERHEAD + end - start
            credit -= end - start
            del ready[0]
            send.in_ready = end != send.final and send.sendable > 0
            if send.in_ready:
                ready.append(send)
            if send.blocked and 2 * send.unsent <= budget.allowance(send.unsent):
                send.blocked = False
                self.events.append((StreamEventKind.WRITABLE, send.number, b""))
        return sent

    def acked(self, sent: Sequence[Sent]) -> None:
        """Note that the packet with these frames arrived, be it after it was called lost."""
        for kind, number, start, end in sent:
            live = self.table.live.get(number)
            if live is None:
                continue
            send = live.send
            if kind in _DATA:
                finished = send.acked(start, end, last=kind == STREAM_LAST)
                if send.in_urgent and not send.urgent:
                    send.in_urgent = False
                    self._urgent.remove(send)
                if finished:
                    if self.table.tells_finished:
                        self.events.append((_FINISHED, number, b""))
                    if live.receive.told:
                        self._forget_if_done(number, live)
                elif not send.in_ready and send.unsent:
                    self._queue(send)
            elif kind == RESET:
                send.reset_acked = True
                self._forget_if_done(number, live)

    def lost(self, sent: Sequence[Sent]) -> None:
        """Note that the packet with these frames is taken for lost; what still matters goes out again, first."""
        for kind, number, start, end in sent:
            if kind not in _DATA:
                self._control_frames.lost(kind, number, start)
            elif (live := self.table.live.get(number)) is not None:
                live.send.lost(start, end, last=kind == STREAM_LAST)
                self._queue(live.send)

    # --- bookkeeping ----------------------------------------------------------------------------------

    def _queue(self, send: SendStream) -> None:
        """Put a stream where `fill` finds it, as far as it has something to send."""
        if not send.in_urgent and send.urgent:
            send.in_urgent = True
            self._urgent.append(send)
        if not send.in_ready and send.sendable > 0:
            send.in_ready = True
            self._ready.append(send)

    def _reset(self, send: SendStream, code: int) -> None:
        if not send.reset(code):
            return
        if send.in_urgent:
            send.in_urgent = False
            self._urgent.remove(send)
        if send.in_ready:
            send.in_ready = False
            self._ready.remove(send)
        self.control[RESET, send.number] = None

    def _tell_max_data(self) -> None:
        if self._receiving.update_due:
            self._receiving.update_due = False
            self.control[MAX_DATA, 0] = None

    def _forget_if_done(self, number: int, live: LiveStream) -> None:
        if not self.table.forget_if_done(number, live):
            return
        if self.control:
            for kind in _OF_A_STREAM:
                self.control.pop((kind, number), None)
        if number & 1 != self.table.parity and self.table.raise_accept_limit():
            self.control[MAX_STREAMS, 0] = None


def _check_code(code: int) -> None:
    if not 0 <= code <= _MAX_U16:
        raise UsageError(f"{code} is no stream code: give one from 0 to {_MAX_U16}")
