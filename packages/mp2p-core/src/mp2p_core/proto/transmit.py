"""What the endpoint hands out to be sent: trains for channels (docs/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from mp2p_core.transport import Path, Train

if TYPE_CHECKING:
    from mp2p_core.proto.epoch import Packet

__all__ = ["TRAIN_BYTES", "Transmit", "trains"]

TRAIN_BYTES: Final = 65000
"""A train goes out in one system call, which takes at most 65507 bytes."""


class Transmit(NamedTuple):
    """A train for a channel."""

    channel: int
    train: Train


def trains(path: Path, packets: Iterable[Packet]) -> Iterator[Train]:
    """Make trains of packets whose datagrams are of one size, the last one possibly shorter.

    A train comes out as soon as no other packet like the last one fits into it, before the next one is asked for.
    """
    buffers: list[bytes] = []
    size = total = 0
    for data, datagram in packets:
        length = len(data)
        if buffers and (
            datagram > size or (length > datagram and datagram < size) or total + length > TRAIN_BYTES
        ):
            yield Train(path, buffers, size)
            buffers = []
        if not buffers:
            size, total = datagram, 0
        buffers.append(data)
        total += length
        if length % size or total + length > TRAIN_BYTES:
            yield Train(path, buffers, size)
            buffers = []
    if buffers:
        yield Train(path, buffers, size)
