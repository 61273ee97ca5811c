"""What the endpoint hands out to be sent: trains for channels (docs/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from mp2p_core.transport import Path, Train

__all__ = ["TRAIN_BYTES", "Packet", "Transmit", "trains"]

TRAIN_BYTES: Final = 65000
"""A train goes out in one system call, which takes at most 65507 bytes."""


Packet: TypeAlias = tuple[bytes, int]
"""A sealed packet, and of how many bytes the datagrams are that it is to be cut into, the last one shorter."""
Transmit: TypeAlias = tuple[int, Train]
"""The number of a channel, and a train for it."""


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
