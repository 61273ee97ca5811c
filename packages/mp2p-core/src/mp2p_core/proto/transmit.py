"""What the endpoint hands out to be sent: trains for channels (docs/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from mp2p_core.transport import Path, Train

if TYPE_CHECKING:
    from mp2p_core.proto.epoch import Packet

__all__ = ["Transmit", "trains"]


class Transmit(NamedTuple):
    """A train for a channel."""

    channel: int
    train: Train


def trains(path: Path, packets: list[Packet]) -> Iterator[Train]:
    """Make a train of each large packet, and of packets of equal size, the last one possibly shorter."""
    at = 0
    while at < len(packets):
        data, size = packets[at]
        buffers = [data]
        at += 1
        if len(data) == size:
            while at < len(packets) and len(packets[at].data) == packets[at].datagram <= size:
                buffers.append(packets[at].data)
                at += 1
                if len(buffers[-1]) < size:
                    break
        yield Train(path, buffers, size)
