"""What the endpoint hands out to be sent: trains for channels (docs/protocol.md, section 7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mp2p_core.transport import Path, Train

__all__ = ["Transmit", "trains"]


class Transmit(NamedTuple):
    """A train for a channel."""

    channel: int
    train: Train


def trains(path: Path, packets: list[bytes]) -> Iterator[Train]:
    """Group packets of equal size, the last one possibly shorter, so that one call sends them."""
    at = 0
    while at < len(packets):
        size = len(packets[at])
        end = at + 1
        while end < len(packets) and len(packets[end]) == size:
            end += 1
        if end < len(packets) and len(packets[end]) < size:
            end += 1
        yield Train(path, packets[at:end], size)
        at = end
