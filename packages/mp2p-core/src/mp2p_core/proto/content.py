"""What a packet that is out holds (docs/protocol.md, section 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mp2p_core.proto.frames import STREAM, STREAM_LAST, STREAM_OVERHEAD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core.proto.send_stream import Sent

__all__ = ["Content"]


class Content:
    """What to do about a packet once it is known to be there, or not to be."""

    __slots__ = ("announced", "datagrams", "largest", "pings", "streams")

    def __init__(
        self, pings: Sequence[int], announced: bytes, streams: Sequence[Sent], datagrams: int, largest: int
    ) -> None:
        self.pings = pings
        self.announced = announced
        self.streams = streams
        self.datagrams = datagrams
        self.largest = largest
        """Bytes of its largest datagram."""

    def beginning(self, room: int) -> list[Sent]:
        """Return the first frames of streams, and the first bytes of the last of them, that fit in so many bytes."""
        found: list[Sent] = []
        for frame in self.streams:
            kind, stream, start, end = frame
            room -= STREAM_OVERHEAD
            if room <= 0:
                break
            if kind in (STREAM, STREAM_LAST):
                if end - start > room:
                    found.append((STREAM, stream, start, start + room))
                    break
                room -= end - start
            found.append(frame)
        return found
