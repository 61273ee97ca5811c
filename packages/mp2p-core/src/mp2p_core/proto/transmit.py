"""What the endpoint hands out to be sent: trains for channels (docs/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from mp2p_core.transport import Path, Train

if TYPE_CHECKING:
    from mp2p_core.proto.epoch import Packet

__all__ = ["Transmit", "trains"]


class Transmit(NamedTuple):
    """A train for a channel."""

    channel: int
    train: Train


def trains(path: Path, packets: Iterable[Packet]) -> Iterator[Train]:
    """Make a train of each large packet, and of packets of equal size, the last one possibly shorter.

    A large packet comes out before the next one is asked for.
    """
    buffers: list[bytes] = []
    size = 0
    for data, datagram in packets:
        large = len(data) > datagram
        if buffers and (large or datagram > size):
            yield Train(path, buffers, size)
            buffers = []
        if not buffers:
            size = datagram
        buffers.append(data)
        if large or datagram < size:
            yield Train(path, buffers, size)
            buffers = []
    if buffers:
        yield Train(path, buffers, size)
