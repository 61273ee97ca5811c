"""Frames of streams that are not data, and are due: credit, RESET and STOP (docs/protocol.md, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mp2p_core.proto.frames import (
    MAX_DATA,
    MAX_STREAM,
    MAX_STREAMS,
    RESET,
    encode_max_data,
    encode_max_stream,
    encode_max_streams,
    encode_reset,
    encode_stop,
)

if TYPE_CHECKING:
    from mp2p_core.proto.send_stream import Buffer, Sent
    from mp2p_core.proto.stream_table import StreamTable

__all__ = ["ControlFrames"]


class ControlFrames:
    """What is due, and how it is said when it goes out: with the limits of that moment."""

    __slots__ = ("_table", "due")

    def __init__(self, table: StreamTable) -> None:
        self._table = table
        # At most three for each live stream, and two more.
        self.due: dict[tuple[int, int], None] = {}
        """By (type, stream), oldest first."""

    def fill(self, room: int, out: list[Buffer], sent: list[Sent]) -> int:
        """Append the frames that fit, and what is to be known of them; returns the room that is left."""
        said = []
        table = self._table
        receiving = table.receiving
        for kind, number in self.due:
            limit = 0
            if kind == MAX_DATA:
                limit = receiving.credit.update(receiving.now, receiving.rtt)
                frame = encode_max_data(limit)
            elif kind == MAX_STREAMS:
                limit = table.accept_limit
                frame = encode_max_streams(limit)
            elif kind == MAX_STREAM:
                limit = table.live[number].receive.credit.update(receiving.now, receiving.rtt)
                frame = encode_max_stream(number, limit)
            elif kind == RESET:
                send = table.live[number].send
                frame = encode_reset(number, send.reset_code or 0, send.next)
            else:
                frame = encode_stop(number, table.live[number].receive.stop_code or 0)
            if len(frame) > room:
                break
            room -= len(frame)
            out.append(frame)
            sent.append((kind, number, limit, 0))
            said.append((kind, number))
        for key in said:
            del self.due[key]
        return room

    def lost(self, kind: int, number: int, limit: int) -> None:
        """Note that a frame is taken for lost: it is due again, unless what it said is out of date."""
        table = self._table
        live = table.live.get(number)
        if kind == MAX_DATA:
            matters = table.receiving.credit.limit == limit
        elif kind == MAX_STREAMS:
            matters = table.accept_limit == limit
        elif live is None:
            return
        elif kind == MAX_STREAM:
            receive = live.receive
            matters = receive.credit.limit == limit and receive.final is None and not receive.discarding
        elif kind == RESET:
            matters = not live.send.reset_acked
        else:
            matters = live.receive.final is None
        if matters:
            self.due[kind, number] = None
