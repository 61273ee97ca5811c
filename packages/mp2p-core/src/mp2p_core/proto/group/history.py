"""Messages kept for those who come late (docs/protocol.md, section 8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from mp2p_core.proto.group.control import Backlog

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Ask

__all__ = ["History"]

_CHUNK: Final = 65536
"""Bytes of messages in a BACKLOG, unless one alone is longer."""
_MAX_COUNT: Final = 4096


class History:
    """The last messages sent, with their numbers, which may leave some out."""

    __slots__ = ("_messages", "_run", "_topic", "limit")

    def __init__(self, topic: bytes, run: bytes, limit: int) -> None:
        self._topic = topic
        self._run = run
        self.limit = limit
        self._messages: deque[tuple[int, bytes]] = deque(maxlen=limit)

    def add(self, number: int, messages: Sequence[bytes]) -> None:
        """Keep messages, the first one numbered so."""
        if self.limit:
            self._messages.extend(enumerate(messages, number))

    def backlog(self, ask: Ask, end: int) -> Iterator[Backlog]:
        """Yield what a subscriber gets before message number `end`: the last one says so.

        One that has a part of this run already gets what follows it, as far as it is kept; a newcomer as many
        of the last ones as it asks for.
        """
        if ask.run == self._run:
            wanted = [each for each in self._messages if each[0] >= ask.number]
        else:
            skip = max(len(self._messages) - ask.history, 0)
            wanted = list(islice(self._messages, skip, None))
        first = wanted[0][0] if wanted else end
        chunk: list[bytes] = []
        size = 0
        for number, message in wanted:
            consecutive = number == first + len(chunk)
            if chunk and (not consecutive or size + len(message) > _CHUNK or len(chunk) == _MAX_COUNT):
                yield Backlog(self._topic, self._run, first, last=False, messages=chunk)
                first, chunk, size = number, [], 0
            chunk.append(message)
            size += len(message)
        yield Backlog(self._topic, self._run, first, last=True, messages=chunk)
