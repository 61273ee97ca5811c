"""What is published and not sealed yet, and how it is put into datagrams (docs/protocol.md, section 8)."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final, NamedTuple

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.layout import (
    BEGIN,
    DATA,
    DATA_COVERED,
    DATA_HEAD,
    DATA_OVERHEAD,
    END,
    LARGE_HEAD,
    LENGTH_SIZE,
    SIGNATURE_SIZE,
    WHOLE,
    data_plain,
    several_plain,
)

__all__ = ["Batch", "Outgoing"]

_MAX_SEVERAL: Final = 255
_LENGTH: Final = LENGTH_SIZE
_LARGE_FROM: Final = 4
"""Datagrams that are worth a large packet."""
_MAX_LARGE: Final = 65535
"""Messages of a large packet, and bytes of each."""
_MESSAGE_COST: Final = 64
"""Bytes of memory that a message in the queue takes beside its content."""


class Batch(NamedTuple):
    """Plaintexts of DATA: one to be signed itself, or several, or a large one, to be covered by a manifest.

    `done` are the messages that end in them.
    """

    plains: list[bytes]
    done: list[bytes]
    signed: bool


class Outgoing:
    """Messages in order, each with its number, until the last byte of them is in a datagram.

    `room` of a datagram is what its content may take beside the overhead of a covered one.
    """

    __slots__ = ("_offset", "_queue", "next_number", "numbered", "room", "size")

    def __init__(self, datagram: int) -> None:
        self.room = datagram - DATA_OVERHEAD
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self.next_number = 0
        """Of the oldest message that waits."""
        self.numbered = 0
        """Of the next message that comes."""
        self.size = 0
        """Bytes that wait."""

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def memory(self) -> int:
        """How much memory those that wait take, in bytes."""
        return self.size + len(self._queue) * _MESSAGE_COST

    @property
    def midway(self) -> bool:
        """Whether a part of a message has been taken, and the rest has not."""
        return self._offset > 0

    def put(self, data: bytes) -> int:
        """Take a message; returns its number."""
        self._queue.append(data)
        self.size += len(data)
        number = self.numbered
        self.numbered = number + 1
        return number

    def restart(self) -> None:
        """Begin the message that is midway anew."""
        self.size += self._offset
        self._offset = 0

    def drop_oldest(self) -> bool:
        """Give up the oldest message of which nothing has been taken; False when there is none."""
        if not self._queue or self._offset:
            return False
        self.size -= len(self._queue.popleft())
        self.next_number += 1
        return True

    def drain(self) -> list[bytes]:
        """Take all messages out, whole."""
        found = list(self._queue)
        self._queue.clear()
        self._offset = self.size = 0
        self.next_number = self.numbered
        return found

    def batch(self, limit: int, *, boundary: bool = False) -> Batch:
        """Take what fits `limit` datagrams; with `boundary`, no further than the end of a message that is midway."""
        plains: list[bytes] = []
        done: list[bytes] = []
        signed = limit < 2 or self._fits(self.room - SIGNATURE_SIZE)
        room = self.room - SIGNATURE_SIZE if signed else self.room
        kind = DATA if signed else DATA_COVERED
        if signed:
            limit = 1
        while self._queue and len(plains) < limit:
            plains.append(self._plain(kind, room, done))
            if boundary and not self._offset:
                break
        return Batch(plains, done, signed)

    def large(self, parts: int) -> list[bytes]:
        """Take whole messages for a large packet of so many datagrams; none if that takes less than four.

        `next_number` is the one after the last of them then.
        """
        queue = self._queue
        part = self.room + DATA_HEAD
        left = parts * (part + c.TAG_SIZE) - c.TAG_SIZE - LARGE_HEAD
        if self._offset or parts < _LARGE_FROM or self.size < (_LARGE_FROM - 1) * self.room:
            return []
        messages = []
        size = 0
        for message in islice(queue, _MAX_LARGE):
            left -= len(message) + _LENGTH
            if left < 0 or len(message) > _MAX_LARGE:
                break
            messages.append(message)
            size += len(message)
        if size < (_LARGE_FROM - 1) * self.room:
            return []
        if len(messages) == len(queue):
            queue.clear()
        else:
            for _ in messages:
                queue.popleft()
        self.size -= size
        self.next_number += len(messages)
        return messages

    def _fits(self, room: int) -> bool:
        waiting = len(self._queue)
        if waiting == 1 or self._offset:
            return waiting == 1 and self.size <= room
        return waiting <= _MAX_SEVERAL and self.size + waiting * _LENGTH + 1 <= room

    def _plain(self, kind: int, room: int, done: list[bytes]) -> bytes:
        queue = self._queue
        number = self.next_number
        first = queue[0]
        size = len(first)
        at = self._offset
        if at or size > room:
            piece = first[at : at + room]
            self.size -= len(piece)
            flags = 0 if at else BEGIN
            if at + len(piece) < size:
                self._offset = at + len(piece)
            else:
                flags |= END
                self._offset = 0
                self.next_number = number + 1
                done.append(queue.popleft())
            return data_plain(kind, flags, number, piece)
        room -= 1
        messages = []
        for message in islice(queue, _MAX_SEVERAL):
            room -= len(message) + _LENGTH
            if room < 0:
                break
            messages.append(message)
        if len(messages) < 2:  # alone it may be longer than that
            self.next_number = number + 1
            self.size -= size
            done.append(queue.popleft())
            return data_plain(kind, WHOLE, number, first)
        for _ in messages:
            queue.popleft()
        self.next_number = number + len(messages)
        self.size -= sum(map(len, messages))
        done += messages
        return several_plain(kind, number, messages)
