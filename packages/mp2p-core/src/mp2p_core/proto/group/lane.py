"""One epoch at a subscriber: verified, windowed, asked for, and passed on in order (docs/protocol.md, section 8)."""

from __future__ import annotations

import math
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group.control import BEST_EFFORT, ORDERED, Nack, nacks_for
from mp2p_core.proto.group.feed import Entry, Feed
from mp2p_core.proto.group.layout import (
    FIRST_PARITY,
    PARITY,
    UNPROVEN,
    Data,
    Heartbeat,
    Manifest,
    Part,
    Rotate,
    group_fields,
)
from mp2p_core.proto.group.opening import Opener
from mp2p_core.proto.group.parity import MAX_PARITIES, Block, block_of, block_start, parity_fields
from mp2p_core.proto.group.wanted import Wanted
from mp2p_core.proto.group.window import Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core.proto.group.control import Grant
    from mp2p_core.proto.group.keys import GroupSuite
    from mp2p_core.proto.group.layout import Content
    from mp2p_core.transport import RandomBytes

__all__ = ["Lane"]

_U32: Final = 0xFFFFFFFF
_NOTHING: Final = Entry(0, 0)
"""A manifest has its place in the order, and nothing for the application."""


class Lane:
    """Takes an epoch's datagrams and passes what they bring to a feed, once it is this epoch's turn."""

    __slots__ = (
        "_blocks", "_counted", "_counted_lost", "_feed", "_first", "_newcomer", "_number", "_opener", "_ordered",
        "_passed", "_restored", "_trains", "begun", "channel", "early", "epoch", "expires", "forged",
        "wanted", "window",
    )  # fmt: skip

    def __init__(
        self, owner: bytes, grant: Grant, feed: Feed, *, rtt: float, random: RandomBytes, suite: GroupSuite
    ) -> None:
        self.channel = grant.channel
        self.epoch = grant.epoch
        self.window: Window[Entry] = Window(grant.next_seq)
        self.wanted = Wanted(random, rtt=rtt, repaired=grant.mode != BEST_EFFORT)
        self.expires = math.inf
        """When the rest of it is given up, once it has ended."""
        self.early = False
        """Whether messages may overtake others that are missing."""
        self.forged = 0
        """Datagrams that a member made, and not the publisher."""
        self._restored: list[bytes] = []  # made from others, and to be taken as if they had come
        self._blocks: dict[int, Block] | None = {} if grant.mode != BEST_EFFORT else None
        # Proven datagrams one behind the other, with the first one's seq and the size of each. They are put into
        # blocks when a sum comes that needs them.
        self._trains: deque[tuple[int, bytes, int]] = deque()
        self.begun = False
        """Whether it is its turn: all epochs before it are complete."""
        self._number = grant.number
        self._ordered = grant.mode == ORDERED
        self._opener = Opener(owner, grant, suite)
        self._feed = feed
        self._passed: deque[Entry | None] = deque()  # until it is this epoch's turn
        self._first = grant.next_seq
        self._newcomer = grant.backlog
        self._counted = grant.next_seq - 1
        self._counted_lost = 0

    @property
    def waiting(self) -> int:
        """How many entries wait for the epoch's turn."""
        return len(self._passed)

    @property
    def finished(self) -> bool:
        """Whether everything of it has been passed on."""
        return self.window.finished and not self._passed

    def receive_untrusted(self, datagram: bytes, generation: int, seq: int, now: float) -> Content:
        """Take a datagram of this channel; returns what it was.

        Raises BadPacket, which names the counter: a repeat, or not the publisher's. Nothing has changed then.
        """
        if seq >= FIRST_PARITY:
            self._sum(datagram, generation, seq, now)
            self._restore(now)
            return UNPROVEN
        try:
            return self._receive(datagram, generation, seq, now)
        finally:
            if self._restored:
                self._restore(now)

    def _receive(self, datagram: bytes, generation: int, seq: int, now: float) -> Content:
        window = self.window
        if not window.is_new(seq):
            raise BadPacket("group-repeated")
        try:
            content = self._opener.open_untrusted(datagram, generation, seq, window.highest + c.GROUP_WINDOW)
        except BadPacket as error:
            self.forged += str(error) == "group-forged"
            early = str(error) == "group-unsealed" and seq < window.highest + c.GROUP_WINDOW
            if early and self._blocks is not None:
                self._opener.hold_early(seq, datagram)
                self._keep(seq, datagram, now, proven=False)
            raise
        if self._blocks is not None:
            self._keep(seq, datagram, now, proven=content is not UNPROVEN)
        if type(content) is Data:
            self._take(seq, self._entry(content), now)
        elif type(content) is Part:
            self._take(seq, _NOTHING, now)
        elif type(content) is Manifest:
            self._take(seq, _NOTHING, now)
            self._prove(seq + 1, content.covered, now)
            self._opener.forget_before(window.base)
        elif type(content) is Heartbeat:
            self._take(seq, Entry(self._full(content.number), 0), now)
            self.wanted.members = content.members
            if self.wanted:
                self._give_up([each for each in self.wanted.seqs() if each < content.oldest])
        elif type(content) is Rotate:
            self.end(content.last, now)
        return content

    def receive_covered_untrusted(self, datagrams: Sequence[bytes]) -> int:
        """Take datagrams for as long as each is the next one and covered; returns how many those were.

        All others, and whatever is not the usual course, are for `receive_untrusted`.
        """
        window = self.window
        if not self._smooth:
            return 0
        seq = window.base
        count, found = self._opener.open_covered_untrusted(datagrams, seq)
        if count:
            if self._blocks is not None:
                for at in range(count):
                    self._keep_train(seq + at, datagrams[at], len(datagrams[at]))
            window.skip(count)
            for data in found:
                self._feed.take(self._entry(data))
        return count

    @property
    def _smooth(self) -> bool:
        """Whether nothing is missing, and what comes next goes on at once."""
        window = self.window
        return self.begun and not window and not self.wanted and window.last is None

    def receive_large_untrusted(self, trains: Sequence[tuple[bytes, int]]) -> list[int]:
        """Take trains for as long as each is the next large packet; returns how many datagrams each of those had.

        A train is given with the size of its datagrams. All others are for `receive_untrusted`.
        """
        if not self._smooth:
            return []
        window = self.window
        taken = []
        for (train, size), (count, data) in zip(
            trains, self._opener.open_large_untrusted(trains, window.base), strict=False
        ):
            if self._blocks is not None:
                self._keep_train(window.base, train, size)
            window.skip(count)
            self._feed.take(self._entry(data))
            taken.append(count)
        return taken

    def _keep_train(self, seq: int, train: bytes, size: int) -> None:
        trains = self._trains
        trains.append((seq, train, size))
        done = block_start(block_of(self.window.base)) - c.PARITY_BLOCK
        while trains[0][0] < done:
            trains.popleft()

    def _cut_trains(self) -> None:
        while self._trains:
            seq, train, size = self._trains.popleft()
            self._keep_all(seq, [train[at : at + size] for at in range(0, len(train), size)])

    def _keep_all(self, seq: int, datagrams: Sequence[bytes]) -> None:
        at = 0
        while at < len(datagrams):
            number = block_of(seq + at)
            size = block_start(number + 1) - seq - at
            self._block(number).extend(seq + at, datagrams[at : at + size])
            at += size

    def _block(self, number: int) -> Block:
        """Return a block, for which those that are complete are forgotten."""
        assert self._blocks is not None
        block = self._blocks.get(number)
        if block is None:
            done = block_of(self.window.base)
            for old in [each for each in self._blocks if each < done]:
                del self._blocks[old]
            block = self._blocks[number] = Block()
        return block

    def _keep(self, seq: int, datagram: bytes, now: float, *, proven: bool) -> None:
        """Remember a datagram for as long as something of its block may be missing."""
        assert self._blocks is not None
        number = block_of(seq)
        known = self._blocks.get(number)
        if proven and not (known and known.has_sums):
            self._keep_train(seq, datagram, len(datagram))
            return
        self._cut_trains()
        block = self._block(number)
        block.add(seq, datagram, proven=proven)
        if block.has_sums:
            self._solve(number, block, now)

    def _solve(self, number: int, block: Block, now: float) -> None:
        try:
            self._restored += block.restore_untrusted(self.channel, number)
        except BadPacket:
            self._spoil(number, now)

    def _spoil(self, number: int, now: float) -> None:
        """Believe no sum of this block any more."""
        self.forged += not self._opener.early  # what a stranger made may be among it
        block = self._blocks and self._blocks.get(number)
        if block and not block.spoiled:
            block.spoil()
            self.wanted.begin_again(number, now)

    def _sum(self, datagram: bytes, generation: int, seq: int, now: float) -> None:
        """Take a PARITY, which anybody with the keys can make: alone it moves nothing."""
        number, index, count = parity_fields(seq)
        first = block_start(number)
        if first < self._first:
            raise BadPacket("group-needless")  # it is also the sum of what came before the GRANT
        if self._blocks is None or not 0 < count <= c.PARITY_BLOCK or index >= MAX_PARITIES:
            raise BadPacket("group-malformed")
        if not any(each in self.wanted for each in range(first, first + count)):
            raise BadPacket("group-needless")
        plaintext = self._opener.decrypt_untrusted(datagram, generation, seq)
        if plaintext[0] != PARITY:
            raise BadPacket("group-malformed")
        self._cut_trains()
        block = self._blocks.setdefault(number, Block())
        self.wanted.scattered_at = now
        block.add_sum(index, count, plaintext[1:])
        self.wanted.answered()
        self._solve(number, block, now)

    def _restore(self, now: float) -> None:
        """Take what was restored. If anything of it is not genuine, no sum of its block is believed."""
        while self._restored:
            datagram = self._restored.pop(0)
            _, _, generation, _, seq = group_fields(datagram)
            if self.window.is_new(seq):
                try:
                    self._receive(datagram, generation, seq, now)
                except BadPacket:
                    # A part of a large packet does not open before its LARGE is there, which may be missing too.
                    if not any(seq - c.MAX_PARTS <= each < seq for each in self.wanted.seqs()):
                        self._spoil(block_of(seq), now)

    def _full(self, number: int) -> int:
        """Complete a number of which 32 bits travel: an epoch has fewer messages than those can tell apart."""
        return self._number + ((number - self._number) & _U32)

    def _entry(self, data: Data) -> Entry:
        number = self._full(data.number)
        if data.piece is None:
            return Entry(number, len(data.messages), data.messages)
        return Entry(number, 0, None, data.piece, data.flags)

    def _prove(self, first: int, count: int, now: float) -> None:
        """Take what waited for the manifest that has just come."""
        for seq, datagram in self._opener.take_early(first, count):
            if self.window.is_new(seq):
                with suppress(BadPacket):  # and the genuine one may still come
                    self._receive(datagram, group_fields(datagram)[2], seq, now)
        if not self._opener.holding:
            return
        for seq in range(first, first + count):
            if self.window.is_new(seq):
                try:
                    data = self._opener.proven_untrusted(seq)
                except BadPacket:
                    self.forged += 1  # and the genuine one may still come
                    continue
                if data is not None:
                    self._take(seq, self._entry(data), now)

    def _take(self, seq: int, entry: Entry, now: float) -> None:
        window = self.window
        wanted = self.wanted
        if window.in_order(seq):
            if wanted:
                wanted.found(seq, now)
                self._completed(block_of(seq - 1), now)
            self._pass(entry)
            return
        if seq > window.highest:
            if self._newcomer and window.highest < self._first:
                # What went out before this subscriber listened was not lost on the way.
                wanted.lost_from = seq
                self._counted = seq - 1
            self._extend(seq, now)
        wanted.found(seq, now)
        if self.early and not self._ordered:
            entry = self._feed.early(entry)
        window.take(seq, entry)
        self._advance()

    def _extend(self, highest: int, now: float) -> None:
        before = block_of(self.window.highest)
        missing = self.window.extend(highest)
        if missing:
            self.wanted.notice(missing, now)
        self._completed(before, now)
        floor = self.window.highest + 1 - c.GROUP_WINDOW
        if self.window.base < floor:
            self.wanted.give_up([each for each in self.wanted.seqs() if each < floor])

    def _completed(self, before: int, now: float) -> None:
        if self.wanted and block_of(self.window.highest) > before:
            self.wanted.completed(block_of(self.window.highest) - 1, now)

    def _advance(self) -> None:
        for entry in self.window.passed():
            self._pass(entry)

    def _pass(self, entry: Entry | None) -> None:
        if entry is _NOTHING:
            return
        if not self.begun:
            self._passed.append(entry)
        elif entry is None:
            self._feed.lost()
        else:
            self._feed.take(entry)

    def begin_turn(self) -> None:
        """Pass on what waits, and from now on everything."""
        self.begun = True
        while self._passed:
            self._pass(self._passed.popleft())

    def end(self, last: int, now: float) -> None:
        """Learn the last seq of the epoch; what is missing of it is worth asking for a while longer."""
        window = self.window
        if window.last is None:
            window.last = max(last, window.highest)
            self._extend(window.last, now)
            self._advance()
            self.expires = now + c.OLD_EPOCH_LIFE

    def known(self, last: int, now: float) -> None:
        """Learn that there are seqs up to this one."""
        if last > self.window.highest:
            self._extend(last, now)

    def give_up(self) -> None:
        """Give up all that is missing."""
        self._give_up(self.wanted.seqs())

    def abandon(self) -> None:
        """Leave to the feed what has come, out of order: numbers will tell what was missing."""
        self.begin_turn()
        for entry in self.window.rest():
            self._feed.stash(entry)

    def _give_up(self, seqs: list[int]) -> None:
        if seqs:
            self.wanted.give_up(seqs)
            for seq in seqs:
                self.window.give_up(seq)
            self._advance()

    def timeout(self) -> float:
        """Return when `handle_timeout` is due."""
        due = self.wanted.timeout()
        return self.expires if due is None else min(due, self.expires)

    def handle_timeout(self, now: float) -> list[Nack]:
        """Return what to ask for."""
        if now >= self.expires:
            self.give_up()
            return []
        ask, gone = self.wanted.due(now, self._opener.holds)
        self._give_up(gone)
        return nacks_for(self.channel, self._without_sums(ask))

    def _without_sums(self, seqs: list[int]) -> list[int]:
        """Leave out what is only waiting for other datagrams of its block to be restored."""
        for number in {block_of(seq) for seq in seqs}:
            block = self._blocks and self._blocks.get(number)
            if block and block.has_sums:
                missing = [seq for seq in self.wanted.seqs() if block_of(seq) == number]
                needed = block.unrestored(missing)
                seqs = [seq for seq in seqs if block_of(seq) != number or seq in needed]
        return seqs

    def counts(self) -> tuple[int, int]:
        """Return how many seqs there were since the last call, and how many of them did not come by themselves."""
        expected = self.window.highest - self._counted
        lost = self.wanted.lost - self._counted_lost
        self._counted, self._counted_lost = self.window.highest, self.wanted.lost
        return expected, min(lost, expected)
