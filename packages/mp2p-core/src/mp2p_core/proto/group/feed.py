"""From what epochs pass on to what the application gets: each message once, and a gap where one is missing.

Numbers make it so (docs/protocol.md, section 8): they count a publisher's messages from its start, through
all epochs, and through what comes over the session.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.events import Gap, Messages, SubscriberEvent
from mp2p_core.proto.group.layout import BEGIN, END

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Entry", "Feed"]

LOST: Final = "lost on the way, and not to be had again"


class Entry(NamedTuple):
    """What a datagram added: `span` messages from `number` on, or a piece of message `number`.

    A piece has its flags, no `messages`, and a span of 0; whole messages that have gone to the
    application already are None. With a span of 0 and neither, it only says what the next number is.
    """

    number: int
    span: int
    messages: Sequence[bytes] | None = None
    piece: bytes | None = None
    flags: int = 0


class Feed:
    """Puts entries into messages and gaps. Entries come in the order of their seqs, but for `early`."""

    __slots__ = ("_assembly", "_assembly_number", "_assembly_size", "_stash", "events", "next_number")

    def __init__(self) -> None:
        self.events: deque[SubscriberEvent] = deque()
        self.next_number: int | None = None
        """All below has been delivered or reported; None before the first GRANT."""
        self._assembly: list[bytes] | None = None
        self._assembly_number = 0
        self._assembly_size = 0
        self._stash: dict[int, Entry] = {}

    def early(self, entry: Entry) -> Entry:
        """Deliver whole messages ahead of their turn; returns what is to be taken in its turn."""
        number = entry.number
        if entry.messages is None:
            return entry
        # An epoch that was joined anew brings again what it brought before.
        if number not in self._stash and (self.next_number is None or number >= self.next_number):
            self.events.append(Messages(number, entry.messages))
        return Entry(entry.number, entry.span)

    def take(self, entry: Entry) -> None:
        """Take the next entry."""
        number = entry.number
        if entry.piece is None:
            if number == self.next_number and not self._stash:
                if entry.messages:
                    self.events.append(Messages(number, entry.messages))
                if entry.span:  # else a heartbeat, which may stand between the pieces of a message
                    self.next_number = number + entry.span
                    self._assembly = None
            else:
                self._deliver(number, entry.span, entry.messages)
            return
        flags = entry.flags
        if flags & BEGIN:
            self._assembly, self._assembly_number, self._assembly_size = [], number, 0
        assembly = self._assembly
        if assembly is None or number != self._assembly_number:
            self._assembly = None
            return
        assembly.append(entry.piece)
        self._assembly_size += len(entry.piece)
        if self._assembly_size > c.MAX_GROUP_MESSAGE:
            self._assembly = None
        elif flags & END:
            self._deliver(number, 1, [b"".join(assembly)])

    def lost(self) -> None:
        """Learn that datagrams are missing here; the next entry's number tells whether messages are."""
        self._assembly = None

    def stash(self, entry: Entry) -> None:
        """Keep an entry whose epoch will not be completed, until numbers tell what is missing before it."""
        if entry.piece is None and entry.span:
            # Attack: a publisher that completes no epoch, and never says what comes first.
            if len(self._stash) >= c.GROUP_WINDOW:
                self._close(max(self._stash))
            self._stash[entry.number] = entry

    def begin(self, number: int) -> None:
        """Begin, as a newcomer, with this message."""
        self.next_number = number
        self._assembly = None
        self._stash.clear()

    def restart(self) -> None:
        """Begin anew, as the publisher has: what it sent before, and has not come, is not to be had."""
        self._close(None)
        self.events.append(Gap(None, None, "the publisher started anew"))
        self.next_number = None
        self._assembly = None

    def _deliver(self, number: int, count: int, messages: Sequence[bytes] | None) -> None:
        if count:
            self._assembly = None
        end = number + count
        stashed = sorted(each for each in self._stash if number < each < end)
        if stashed:  # in runs: a packet has many messages, and the stash many entries
            whole = list(messages or ())  # looked at once: each look may copy all of them out of a packet
            for start, stop in pairwise((number, *stashed, end)):
                self._deliver(start, stop - start, whole[start - number : stop - number])
            return
        self._close(number)
        assert self.next_number is not None
        behind = self.next_number - number
        if behind >= max(count, 1):
            return  # a repeat
        if messages:
            self.events.append(Messages(number + behind, messages[behind:]))
        self.next_number = number + count

    def _close(self, number: int | None) -> None:
        """Report what is missing before `number`, as far as it is not stashed; None: before the end."""
        if self.next_number is None:
            self.next_number = number
        stash = self._stash
        for each in sorted(key for key in stash if number is None or key <= number):
            entry = stash.pop(each)
            assert self.next_number is not None
            self._gap(each)
            behind = self.next_number - each
            if behind < entry.span:
                if entry.messages:
                    self.events.append(Messages(each + behind, entry.messages[behind:]))
                self.next_number = each + entry.span
        if number is not None:
            self._gap(number)

    def _gap(self, number: int) -> None:
        assert self.next_number is not None
        if number > self.next_number:
            self.events.append(Gap(self.next_number, number - self.next_number, LOST))
            self.next_number = number
