"""A subscriber to one topic of one publisher, without I/O (docs/protocol.md, section 8).

The caller brings the datagrams of this subscription's `channels` and the control messages of the session with
the publisher, sends what `controls` and `nacks` return over that session, and comes back at `timeout`.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group.events import Gap, GroupChosen, Joined, Left, Reached, Refused, Suspicion
from mp2p_core.proto.group.feed import Entry, Feed
from mp2p_core.proto.group.keys import ED25519_CHACHAPOLY, topic_id
from mp2p_core.proto.group.lane import Lane
from mp2p_core.proto.group.layout import Heartbeat, Rotate, Unproven, group_fields
from mp2p_core.proto.group.reporting import Reporter

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Backlog, Control, Grant, Nack
    from mp2p_core.proto.group.events import SubscriberEvent
    from mp2p_core.proto.group.keys import GroupSuite
    from mp2p_core.transport import RandomBytes

__all__ = ["Subscriber"]

_MAX_LANES: Final = 1 + c.MAX_OLD_EPOCHS
"""The present epoch, and those before it that are not complete yet: as many as a publisher still repairs."""


class Subscriber:
    """Verifies and orders what one publisher sends on one topic.

    After any call that changes something: send what `controls` and `nacks` return, handle `events`, and look at
    `timeout`. Nothing here raises for what the network brought, and nothing that the publisher has not signed
    changes anything but counters.
    """

    def __init__(
        self,
        publisher: bytes,
        name: str,
        *,
        history: int = 0,
        kinds: bytes = b"",
        random: RandomBytes = os.urandom,
        suite: GroupSuite = ED25519_CHACHAPOLY,
    ) -> None:
        """Wish to hear topic `name` of the node with public key `publisher`, and the last `history` messages.

        `kinds` of group addresses can be listened on here; none named: all.
        """
        self.publisher = publisher
        self.topic = topic_id(publisher, name)
        self.counters: Counter[str] = Counter()
        self.ended = False
        """Whether it is over: the publisher said no, or this side left."""
        self._history = history
        self._kinds = kinds
        self._random = random
        self._suite = suite
        self._feed = Feed()
        self._lanes: list[Lane] = []
        self._by_channel: dict[bytes, Lane] = {}
        self._run = g.NO_RUN
        self._controls: deque[bytes] = deque()
        self._nacks: list[Nack] = []
        self._online = False
        self._rtt = c.INITIAL_RTT
        self._fresh = True  # nothing granted yet on this session
        self._ask_at = math.inf
        self._ask_wait = c.ASK_FIRST
        # When to stop waiting for it; nothing goes to the feed until it is there.
        self._backlog_until = math.inf
        self._patience = math.inf  # how long nothing may come: four heartbeats
        self._deaf = False
        self._deaf_at = math.inf
        self._silent_at = math.inf
        self._reporter = Reporter(self.topic, random)
        self._forged = 0
        self._suspected_at = -math.inf

    # --- the application ----------------------------------------------------------------------------

    @property
    def channels(self) -> tuple[bytes, ...]:
        """The channel ids whose datagrams are for this subscription."""
        return tuple(self._by_channel)

    @property
    def multicast(self) -> bool:
        """Whether datagrams come by multicast; else over the session."""
        return not self._deaf

    def set_rtt(self, rtt: float) -> None:
        """Take the round-trip time of the session with the publisher, in seconds."""
        self._rtt = rtt
        for lane in self._lanes:
            lane.wanted.rtt = rtt

    def leave(self) -> None:
        """End the subscription."""
        if not self.ended:
            self._tell(g.Leave(self.topic))
            self._end()
            self._feed.events.append(Left())

    # --- the session --------------------------------------------------------------------------------

    def connected(self, now: float) -> None:
        """Learn that there is a session with the publisher, or another one."""
        if not self.ended:
            self._controls.clear()
            self._online = True
            self._fresh = True
            self._ask_wait = c.ASK_FIRST
            self._ask(now)

    def disconnected(self) -> None:
        """Learn that there is no session any more. What comes by multicast is taken in all the same."""
        self._online = False
        self._ask_at = math.inf
        self._controls.clear()
        self._nacks.clear()

    def _tell(self, control: Control) -> None:
        self._controls.append(control.pack())

    def _ask(self, now: float) -> None:
        number = self._feed.next_number or 0
        self._tell(g.Ask(self.topic, self._run, number, self._history, self._fresh, self._kinds))
        self._ask_at = now + max(self._ask_wait, 2 * self._rtt)
        self._ask_wait = min(2 * self._ask_wait, c.ASK_LAST)

    def receive_control_untrusted(self, peer: bytes, data: bytes, now: float) -> None:
        """Take a control message that came on the confirmed session with the key `peer`."""
        try:
            control = g.parse_control_untrusted(data)
        except BadPacket as error:
            self.counters[str(error)] += 1
            return
        self.take_control_untrusted(peer, control, now)

    def take_control_untrusted(self, peer: bytes, control: Control, now: float) -> None:
        """Take a control message that has been parsed."""
        if peer != self.publisher or control.topic != self.topic:
            self.counters["control-foreign"] += 1
        elif self.ended:
            self.counters["control-late"] += 1
        elif isinstance(control, g.Grant):
            self._granted(control, now)
        elif isinstance(control, g.Backlog):
            self._backlog(control, now)
        elif isinstance(control, g.Relay):
            self._take(control.datagram, now, relayed=True)
        elif isinstance(control, g.Confirm):
            if self._lanes and self._lanes[-1].channel == control.channel:
                self._lanes[-1].known(control.last, now)
                self._reporter.confirm(control.last)
                self._reporter.look(self._lanes[-1], now)
        elif isinstance(control, g.Refuse):
            self._feed.events.append(Refused(control.code, control.text))
            self._end()
        else:
            self.counters["control-unexpected"] += 1

    def _end(self) -> None:
        self.ended = True
        self._lanes.clear()
        self._by_channel.clear()
        self._ask_at = self._backlog_until = self._deaf_at = self._silent_at = self._reporter.due = math.inf

    # --- epochs -------------------------------------------------------------------------------------

    def _granted(self, grant: Grant, now: float) -> None:
        last = self._lanes[-1] if self._lanes else None
        restarted = grant.run != self._run
        if last is not None and not restarted:
            if grant.epoch < last.epoch or (grant.epoch == last.epoch) != (grant.channel == last.channel):
                self.counters["grant-old"] += 1
                return
            if grant.epoch == last.epoch and not (grant.backlog and self._fresh):
                self._ask_at = math.inf
                self.counters["grant-again"] += 1
                return
        if last is None:
            self._feed.events.append(Joined(grant.mode, grant.history))
        follows = last is not None and not restarted and grant.epoch == last.epoch + 1 and not grant.backlog
        if last is not None and follows:
            last.end(grant.last_seq, now)
        else:
            self._abandon(grant, restarted=restarted)
        if grant.backlog:
            self._backlog_until = now + c.BACKLOG_PATIENCE
        self._run = grant.run
        self._patience = c.DEAF_HEARTBEATS * grant.heartbeat_ms / 1000
        lane = Lane(self.publisher, grant, self._feed, rtt=self._rtt, random=self._random, suite=self._suite)
        lane.early = self._backlog_until == math.inf
        if last is not None and follows:
            lane.wanted.members = last.wanted.members
        self._lanes.append(lane)
        self._by_channel[grant.channel] = lane
        self._feed.events.append(GroupChosen(grant.group))
        self._fresh = False
        self._ask_at = math.inf
        self._deaf_at = now + (c.DEAF_AT_FIRST if grant.backlog else self._patience)
        self._silent_at = now + 1.25 * self._patience
        self._reporter.granted(grant, lane.wanted.members, now, deaf=self._deaf)
        self._settle()

    def _abandon(self, grant: Grant, *, restarted: bool) -> None:
        """Give up the lanes there are: numbers, and what the publisher still has, tell what was missed."""
        for lane in self._lanes:
            lane.abandon()
        self._lanes.clear()
        self._by_channel.clear()
        if restarted and self._feed.next_number is not None:
            self._feed.restart()
        if not grant.backlog and self._feed.next_number is None:
            self._feed.begin(grant.number)

    def _backlog(self, backlog: Backlog, now: float) -> None:
        if self._backlog_until == math.inf or backlog.run != self._run:
            self.counters["backlog-unexpected"] += 1
            return
        if self._feed.next_number is None:
            self._feed.begin(backlog.number)
        self._feed.take(Entry(backlog.number, len(backlog.messages), list(backlog.messages)))
        if backlog.last:
            self._backlog_until = math.inf
            self._settle()
            self._reporter.look(self._lanes[-1], now)

    def _settle(self) -> None:
        """Give the feed to the first lane that is not complete, once the backlog is in."""
        # Where several keys are revoked in a row there are epochs in which nothing was sent: nothing to wait for.
        for lane in [each for each in self._lanes[1:-1] if each.finished]:
            self._lanes.remove(lane)
            del self._by_channel[lane.channel]
        if self._backlog_until < math.inf:
            if self._lanes[0].waiting < c.GROUP_WINDOW and len(self._lanes) <= _MAX_LANES:
                return
            self._backlog_missing()
        for lane in self._lanes:
            lane.early = True
        if len(self._lanes) > 1 and (
            len(self._lanes) > _MAX_LANES
            or any(each.waiting > c.GROUP_WINDOW // 2 for each in self._lanes[1:])
        ):
            self._lanes[0].give_up()
        self._lanes[0].begin_turn()
        while len(self._lanes) > 1 and self._lanes[0].finished:
            del self._by_channel[self._lanes.pop(0).channel]
            self._lanes[0].begin_turn()

    def _backlog_missing(self) -> None:
        self._backlog_until = math.inf
        if self._feed.next_number is None:
            self._feed.events.append(
                Gap(None, None, "what the publisher kept for late subscribers did not arrive")
            )

    # --- datagrams ----------------------------------------------------------------------------------

    def receive_untrusted(self, datagram: bytes, now: float) -> None:
        """Take a datagram that came by multicast."""
        self._take(datagram, now, relayed=False)

    def receive_train_untrusted(self, datagrams: Sequence[bytes], now: float) -> None:
        """Take datagrams that came by multicast one behind the other: at less cost than each by itself."""
        at = 0
        while at < len(datagrams):
            taken = 0
            if len(self._lanes) == 1 and self._backlog_until == math.inf:
                taken = self._lanes[0].receive_covered_untrusted(datagrams[at:])
            if taken:
                self._heard(taken, now, relayed=False)
            else:
                self._take(datagrams[at], now, relayed=False)
            at += taken or 1

    def receive_large_untrusted(self, trains: Sequence[tuple[bytes, int]], now: float) -> int:
        """Take trains that came by multicast, each with the size of its datagrams, if they are large packets.

        Returns how many it took from the beginning: all others are for `receive_train_untrusted`. Much cheaper
        than that, the more so the more trains there are.
        """
        if len(self._lanes) != 1 or self._backlog_until < math.inf:
            return 0
        taken = self._lanes[0].receive_large_untrusted(trains)
        if taken:
            self._heard(sum(taken), now, relayed=False)
        return len(taken)

    def _take(self, datagram: bytes, now: float, *, relayed: bool) -> None:
        # The last part of a large packet may have one byte more than a header. Attack: strangers' datagrams of 64 KiB,
        # thousands of which may wait for a manifest.
        if not c.GROUP_HEADER_SIZE < len(datagram) <= c.MAX_GROUP_DATAGRAM:
            self.counters["group-malformed"] += 1
            return
        kind, zero, generation, channel, seq = group_fields(datagram)
        lane = self._by_channel.get(channel)
        if lane is None or zero or kind != c.TYPE_GROUP:
            self.counters["group-unknown"] += 1
            return
        try:
            content = lane.receive_untrusted(datagram, generation, seq, now)
        except BadPacket as error:
            self.counters[str(error)] += 1
            content = None
        if lane.forged:
            self._suspect(lane, now)
        if content is None or type(content) is Unproven:
            return
        self._heard(1, now, relayed=relayed)
        if type(content) is Heartbeat:
            self._reporter.within(content.members, now)
        if type(content) is Rotate and lane is self._lanes[-1] and self._ask_at == math.inf:
            self._ask_at = now + c.ASK_FIRST  # unless the GRANT comes by itself
        if len(self._lanes) > 1 or self._backlog_until < math.inf:
            self._settle()

    def _heard(self, count: int, now: float, *, relayed: bool) -> None:
        """Note that so many datagrams of the publisher have come."""
        self.counters["group-received"] += count
        self._silent_at = now + 1.25 * self._patience
        if not relayed:
            self._deaf_at = now + self._patience
            if self._deaf:
                self._hears(now, multicast=True)
        self._reporter.look(self._lanes[-1], now)

    def held(self, count: int, now: float) -> None:
        """Learn how many datagrams wait with the caller, which has no room for what they would bring.

        Meanwhile nothing is asked for again: it may be among them.
        """
        self._reporter.held = count
        if self._lanes:
            self._silent_at = now + 1.25 * self._patience
            self._deaf_at = now + self._patience
            self._reporter.look(self._lanes[-1], now)

    def _suspect(self, lane: Lane, now: float) -> None:
        self._forged += lane.forged
        lane.forged = 0
        if now - self._suspected_at >= c.SUSPICION_SPACING:
            self._suspected_at = now
            self._feed.events.append(Suspicion(self._forged))

    def _hears(self, now: float, *, multicast: bool) -> None:
        self._deaf = not multicast
        self._feed.events.append(Reached(multicast))
        self._report(now)

    def _report(self, now: float) -> None:
        report = self._reporter.report(self._lanes[-1], self._rtt, now, deaf=self._deaf)
        if self._online:
            self._tell(report)

    # --- time ---------------------------------------------------------------------------------------

    def timeout(self) -> float | None:
        """Return when `handle_timeout` is due."""
        due = min(self._ask_at, self._backlog_until, self._deaf_at, self._silent_at, self._reporter.due)
        if not self._reporter.held:
            for lane in self._lanes:
                due = min(due, lane.timeout())
        return None if due == math.inf else due

    def handle_timeout(self, now: float) -> None:
        """Do what is due."""
        if now >= self._ask_at:
            self._ask(now)
        if now >= self._backlog_until:
            self._backlog_missing()
        for lane in self._lanes:
            if now >= lane.timeout() and not self._reporter.held:
                nacks = lane.handle_timeout(now)
                if self._online:
                    self._nacks += nacks
                    self.counters["nack"] += len(nacks)
        if now >= self._deaf_at:
            self._deaf_at = math.inf
            if not self._deaf:
                self._hears(now, multicast=False)
        if now >= self._silent_at:
            self._silent_at = now + 1.25 * self._patience
            if self._online and self._ask_at == math.inf and not self._deaf:
                self._ask_wait = c.ASK_FIRST
                self._ask(now)
        if now >= self._reporter.due:
            self._report(now)
        if self._lanes:
            self._settle()
            self._reporter.look(self._lanes[-1], now)

    def controls(self) -> list[bytes]:
        """Return what is to be told to the publisher, in order and reliably."""
        found = list(self._controls)
        self._controls.clear()
        return found

    def nacks(self) -> list[Nack]:
        """Return the GROUP_NACK frames to send; they need not arrive."""
        found, self._nacks = self._nacks, []
        return found

    def events(self) -> Iterator[SubscriberEvent]:
        """Yield what has happened, in order."""
        while self._feed.events:
            yield self._feed.events.popleft()
