"""When what is published leaves, and in which form (docs/protocol.md, section 8).

A batch costs each subscriber a signature to verify and a wake-up, whatever is in it. So while there is much to send,
batches leave at intervals; and a packet of many datagrams is sealed and hashed in one go.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.layout import large_plain

if TYPE_CHECKING:
    from mp2p_core.proto.group.packing import Outgoing
    from mp2p_core.proto.group.sealing import Sealer

__all__ = ["Batches"]


class Batches:
    """Takes batches out of what waits."""

    __slots__ = (
        "_at",
        "_channel",
        "_datagram",
        "_due",
        "_first",
        "_large_from",
        "_much",
        "_outgoing",
        "_size",
        "sealed",
    )

    def __init__(self, outgoing: Outgoing, datagram: int, *, large: bool) -> None:
        """Make datagrams of at most so many bytes, and large packets of them if `large`."""
        self._outgoing = outgoing
        self._datagram = datagram
        self._large_from = -math.inf if large else math.inf
        self._at = -math.inf
        self._size = 0  # bytes, about, of what left then
        self._due = math.inf  # when what waits for more does so no longer
        self._channel = b""
        self._first = 0  # the first seq on this channel of a batch of several datagrams
        self._much = False  # whether the last batch was more than a datagram
        self.sealed = 0
        """Datagrams with messages so far."""

    def ready(self, members: int, now: float) -> bool:
        """Tell whether a batch may leave to so many subscribers: at once, unless there is much to send."""
        factor = c.GATHER_LONGER if self._size >= c.GATHER_MUCH else 1
        if not self._much or self.enough or self._outgoing.midway or now > self._at + factor * c.GATHER_AFTER:
            return True
        if self._due == math.inf and self._outgoing:
            self._due = now + factor * min(members * c.GATHER_TIME, c.GATHER_MAX)
        return now >= self._due

    @property
    def due(self) -> float:
        """When `ready` may be true, for what has been found to be waiting."""
        return -math.inf if self._due == math.inf or self.enough else self._due

    @property
    def more(self) -> bool:
        """Whether what waits is worth one more batch right behind the last one."""
        return self._outgoing.midway or self._outgoing.size >= c.MAX_PARTS * self._datagram

    @property
    def enough(self) -> bool:
        """Whether what waits is worth a batch at any time."""
        return len(self._outgoing) >= c.GATHER_MESSAGES or self._outgoing.size >= c.GATHER_BYTES

    def asked(self, channel: bytes, last: int, now: float) -> None:
        """Learn that somebody misses something up to seq `last`: in a large packet that delays all that is in it.

        Whoever has just come misses what was sent before it listened; that does not count.
        """
        if channel == self._channel and last >= self._first and self._large_from < math.inf:
            self._large_from = now + c.LARGE_AFTER

    def seal(
        self, sealer: Sealer, limit: int, *, boundary: bool, now: float
    ) -> tuple[list[bytes], list[bytes]]:
        """Return a batch of about `limit` datagrams, and the messages that end in it.

        With `boundary` it reaches no further than the end of a message that is midway.
        """
        if now > self._at:
            self._at = now
            self._size = 0
        self._due = math.inf
        seq = sealer.next_seq
        outgoing = self._outgoing
        plains, done = self._take_large(limit) if now >= self._large_from else ([], [])
        large = len(plains)
        if large:
            datagrams = sealer.large(plains, self._datagram)
        else:
            plains, done, signed = outgoing.batch(min(limit, c.MAX_MANIFEST), boundary=boundary)
            datagrams = [sealer.data(plains[0])] if signed else sealer.covered(plains)
        self._much = len(datagrams) > 1
        if self._much and sealer.keys.channel != self._channel:
            self._channel, self._first = sealer.keys.channel, seq
        self._size += len(datagrams) * self._datagram
        self.sealed += len(datagrams) - (large or self._much)
        return datagrams, done

    def _take_large(self, limit: int) -> tuple[list[bytes], list[bytes]]:
        """Return the plaintexts of large packets that leave together, and the messages in them.

        After the first packet only full ones: what is less waits for more.
        """
        outgoing = self._outgoing
        plains: list[bytes] = []
        done: list[bytes] = []
        while not plains or (limit >= c.MAX_PARTS and self.more):
            number = outgoing.next_number
            messages = outgoing.large(min(limit, c.MAX_PARTS))
            if not messages:
                break
            plains.append(large_plain(number, messages))
            done += messages
            limit -= 1 + c.MAX_PARTS
        return plains, done
