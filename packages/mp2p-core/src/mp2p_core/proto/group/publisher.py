"""A publisher of one topic, without I/O (docs/protocol.md, section 8).

The caller names each subscriber's session as it likes (`member`). It brings what came on them
(`receive_control_untrusted`, `nack_untrusted`, `ended`), sends what `transmits` returns to the `destinations` and what
`controls` yields to the sessions, and comes back at `timeout`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from mp2p_core.errors import BadPacket, MessageTooLarge
from mp2p_core.proto import constants as c
from mp2p_core.proto.buckets import BucketTable
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group.batches import Batches
from mp2p_core.proto.group.epochs import Epochs
from mp2p_core.proto.group.history import History
from mp2p_core.proto.group.keys import ED25519_CHACHAPOLY, topic_id
from mp2p_core.proto.group.packing import Outgoing
from mp2p_core.proto.group.parity import PARITY_OVERHEAD
from mp2p_core.proto.group.pulse import Pulse
from mp2p_core.proto.group.rate import RateControl, Traffic
from mp2p_core.proto.group.repairing import Repairs
from mp2p_core.proto.group.roster import Roster

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Ask, Control, Grant, Nack
    from mp2p_core.proto.group.events import PublisherEvent
    from mp2p_core.proto.group.keys import GroupSuite
    from mp2p_core.proto.group.members import Member
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["Publisher"]


def _unlimited(_member: Hashable) -> float:
    return math.inf


class Publisher:
    """Seals what is sent for whoever may read it.

    After any call that changes something: send what `transmits` returns, what `controls` yields, handle
    `events`, and look at `timeout`. Nothing here raises for what a peer sent, and no datagram costs more for
    one more subscriber.
    """

    def __init__(
        self,
        owner: bytes,
        name: str,
        groups: Sequence[Address],
        *,
        allow: Callable[[bytes], bool],
        now: float,
        mode: int = g.REPAIRED,
        history: int = 0,
        datagram: int = c.BASE_DATAGRAM_SIZE,
        rate: float = c.GROUP_RATE_START,
        random: RandomBytes = os.urandom,
        suite: GroupSuite = ED25519_CHACHAPOLY,
    ) -> None:
        """Begin publishing topic `name` of the node with public key `owner` to multicast groups, the best one first.

        One for each kind of address; each subscriber hears the first one of which it can.
        `allow` is asked for each key when keys are granted to it. `history` messages are kept for those who come
        late, `datagram` is the largest UDP payload, `rate` the bytes a second to begin with.
        """
        self.topic = topic_id(owner, name)
        self.run = random(8)
        self.counters: Counter[str] = Counter()
        self.groups = tuple(groups)
        self._mode = mode
        datagram = min(datagram, c.MAX_GROUP_DATAGRAM)
        self._traffic = traffic = Traffic()
        self._roster = Roster(self.topic, allow, traffic)
        self._joining: dict[Hashable, tuple[bytes, Ask]] = {}
        # Attack: one that leaves and asks, again and again: each time it gets all that is kept, and others new keys.
        self._newcomers = BucketTable(c.ASK_RATE, c.JOIN_BURST)
        self._history = History(self.topic, self.run, history)
        # A sum of datagrams is larger than each of them, and has to fit too.
        room = datagram if mode == g.BEST_EFFORT else datagram - PARITY_OVERHEAD
        self._outgoing = Outgoing(room)
        # Of what nobody repairs, each loss would take a whole large packet away.
        self._batches = Batches(self._outgoing, room, large=mode != g.BEST_EFFORT)
        self._datagram = datagram
        self._rate = RateControl(datagram, rate, now)
        self._held = False
        kept = 0 if mode == g.BEST_EFFORT else c.GROUP_WINDOW
        self._epochs = Epochs(owner, kept, now, random=random, suite=suite)
        self._repairs = Repairs(self.topic, self._epochs, traffic, self.counters, now)
        self._settled = now
        self._joined = -math.inf
        self._end_seq = 0  # behind the last datagram with messages
        self._pulse = Pulse()

    # --- the application ----------------------------------------------------------------------------

    @property
    def members(self) -> dict[Hashable, Member]:
        """The subscribers, by session."""
        return self._roster.members

    @property
    def hearing(self) -> int:
        """How many subscribers have said that what is sent now reaches them, by multicast or over their sessions."""
        return sum(member.hears for member in self.members.values())

    @property
    def destinations(self) -> list[Address]:
        """The groups that somebody listens on: what `transmits` returns goes to each of them."""
        return [group for group in self.groups if self._roster.groups[group]]

    @property
    def rate(self) -> float:
        """Bytes a second that may leave."""
        return self._rate.rate

    @property
    def full(self) -> bool:
        """Whether `send` has to wait for what was sent before."""
        return self._outgoing.memory >= c.GROUP_QUEUE

    @property
    def waiting(self) -> bool:
        """Whether anything that was sent has not left yet."""
        return bool(self._outgoing)

    @property
    def enough(self) -> bool:
        """Whether so much waits that there is no need to wait for more until `timeout`."""
        return self._batches.enough

    @property
    def undelivered(self) -> bool:
        """Whether a subscriber has not said yet that it has passed on all that has left.

        They say so with their next report, or when asked to `confirm`. Nobody repairs a best-effort topic, so there
        it is False.
        """
        return self._mode != g.BEST_EFFORT and any(
            member.next_seq < self._end_seq for member in self.members.values()
        )

    @property
    def sent(self) -> int:
        """Messages that were given to `send` so far."""
        return self._outgoing.numbered

    def send(self, data: bytes) -> int:
        """Publish a message; returns its number. It leaves with the next `transmits` that may send.

        Raises MessageTooLarge. Takes it even when `full`: waiting, or dropping, is the caller's choice.
        """
        if len(data) > c.MAX_GROUP_MESSAGE:
            raise MessageTooLarge(len(data), c.MAX_GROUP_MESSAGE)
        return self._outgoing.put(data)

    def drop_oldest(self) -> bool:
        """Give up the oldest message that has not begun to leave; subscribers are told of the gap."""
        return self._outgoing.drop_oldest()

    def confirm(self) -> None:
        """Ask every subscriber to report as soon as it has passed on all that has left."""
        self._roster.confirm(self._epochs.store.channel, max(self._end_seq - 1, 0))

    def revoke(self, key: bytes, now: float) -> None:
        """Take the topic away from a key: whatever leaves from now on, it cannot read."""
        self._joining = {member: each for member, each in self._joining.items() if each[0] != key}
        self._roster.revoke(key)
        self._rotate(now)

    def readmit(self, key: bytes) -> None:
        """Let a key that was revoked, or excluded for its losses, ask again."""
        self._roster.readmit(key)

    def review(self, now: float) -> None:
        """Ask `allow` about every member again: it has changed."""
        self._roster.review(now)
        if self._roster.left:
            self._rotate(now)

    def close(self) -> None:
        """Tell every subscriber that this is the end."""
        self._joining.clear()
        for member in list(self.members.values()):
            self._roster.remove(member, g.REFUSE_ENDED)

    # --- the sessions -------------------------------------------------------------------------------

    def receive_control_untrusted(self, member: Hashable, key: bytes, data: bytes, now: float) -> None:
        """Take a control message that came on the confirmed session with this key."""
        try:
            control = g.parse_control_untrusted(data)
        except BadPacket as error:
            self.counters[str(error)] += 1
            return
        self.take_control_untrusted(member, key, control, now)

    def take_control_untrusted(self, member: Hashable, key: bytes, control: Control, now: float) -> None:
        """Take a control message that has been parsed."""
        known = self.members.get(member)
        if control.topic != self.topic:
            self.counters["control-topic"] += 1
        elif isinstance(control, g.Ask):
            self._asked(member, key, known, control, now)
        elif known is None:
            self.counters["control-stranger"] += 1
        elif isinstance(control, g.Leave):
            self._roster.remove(known)
        elif isinstance(control, g.Report):
            if control.channel == self._epochs.store.channel:
                heard = not known.deaf
                self._roster.reported(known, control, now)
                self._rate.reported(known.loss, len(self.members), now)
                if heard and known.deaf:
                    known.catch_up(self.topic, self._epochs.store, control.highest)
        else:
            self.counters["control-unexpected"] += 1

    def _asked(self, member: Hashable, key: bytes, known: Member | None, ask: Ask, now: float) -> None:
        code = self._roster.refusal(member, key, now)
        if code:
            self.counters["ask-refused"] += 1
            self._joining.pop(member, None)
            if known is not None:
                self._roster.remove(known, code)
            else:
                self._roster.refuse(member, key, code, now)
        elif not self._roster.has_room(key) or (known is not None and not known.asks.take(now)):
            self.counters["ask-too-often"] += 1
        elif known is not None and known.grant is not None and not ask.fresh:
            known.tell(known.grant)
        elif len(self._joining) < c.MAX_MEMBERS:
            self._joining[member] = key, ask

    def nack_untrusted(self, member: Hashable, nack: Nack, now: float) -> None:
        """Take a GROUP_NACK that came on a session."""
        last = self._repairs.nack_untrusted(self.members.get(member), nack, now)
        if last is not None:
            self._batches.asked(nack.channel, last, now)

    def ended(self, member: Hashable) -> None:
        """Forget a subscriber whose session is gone; it asks again when it comes back."""
        self._joining.pop(member, None)
        self._roster.ended(member)

    # --- epochs -------------------------------------------------------------------------------------

    def _rotate(self, now: float) -> None:
        """Begin an epoch with new random keys, and grant it to those who stay."""
        self._outgoing.restart()
        self._epochs.rotate(self._outgoing.next_number, now)
        self._roster.review(now)
        self._roster.left = False
        self._roster.new_epoch(now)
        # A report of the new epoch with a seq says that the subscriber has all of the one before.
        self._end_seq = min(self._end_seq, self._epochs.sealer.next_seq)
        rtt = 0.0
        for member in self.members.values():
            member.grant = self._grant(member.group)
            member.tell(member.grant)
            rtt = max(rtt, member.rtt)
        if self.members:
            # Time for the keys to arrive: datagrams that come before them have to be repaired.
            self._settled = now + min(max(2 * rtt, c.SETTLE_MIN), c.SETTLE_MAX)

    def _grant(self, group: Address) -> Grant:
        return self._epochs.grant(
            self.topic, group=group, history=self._history.limit, number=self._outgoing.next_number, run=self.run,
            mode=self._mode,
        )  # fmt: skip

    def _rotation_due(self, now: float) -> bool:
        if self._roster.left:
            return now >= self._epochs.began + c.LEAVE_SPACING
        return self._epochs.worn_out(self._outgoing.next_number, now)

    def _admit(self, now: float) -> None:
        """Grant the keys, from here on, to those who have asked. Between two messages only."""
        self._joined = now
        joining, self._joining = self._joining, {}
        admitted = False
        for name, (key, ask) in joining.items():
            code = self._roster.refusal(name, key, now)
            if code:
                self._roster.refuse(name, key, code, now)
                continue
            known = name in self.members
            if not self._roster.has_room(key) or not (known or self._newcomers.take(key, now)):
                continue  # it asks again
            if not admitted and not self._epochs.step():
                self._rotate(now)
            admitted = True
            heard = (group for group in self.groups if group[0] in ask.kinds)
            member = self._roster.admit(name, key, next(heard, self.groups[0]), now)
            member.grant = self._grant(member.group)
            member.next_seq = max(member.next_seq, member.grant.next_seq)
            member.tell(member.grant._replace(backlog=True))
            for part in self._history.backlog(ask, member.grant.number):
                member.tell(part)
        if admitted:
            self._pulse.joined(now)

    # --- sending ------------------------------------------------------------------------------------

    def transmits(self, now: float) -> list[bytes]:
        """Return the datagrams to send to the group now, in order; sealing happens here."""
        if self._joining and not self._outgoing.midway and now >= self._joined + c.JOIN_SPACING:
            self._admit(now)
        if not self.members:
            if self._outgoing:  # with nobody to hear it, it goes into the history alone
                self._history.add(self._outgoing.next_number, self._outgoing.drain())
            return []
        out = self._epochs.rotates(now)
        for datagram in self._repairs.due(now):
            self._rate.sent(len(datagram) * len(self.destinations))
            out.append(datagram)
        more = self._batches.ready(len(self.members), now)
        while more and self._outgoing and self.members and self._may_send(now):
            if self._outgoing.midway or not self._new_page(now):
                self._data(out, now)
                more = self._batches.more
        if now >= self._pulse.due:
            self._heartbeat(out, now)
        return out

    def _may_send(self, now: float) -> bool:
        """Tell whether a datagram may leave: for the new keys, for the rate, for who cannot follow."""
        slow = self._roster.slow
        self._held = bool(slow) and self._epochs.sealer.next_seq > self._roster.last_seq(now)
        return (
            now >= self._settled and self._rate.budget(now) > 0 and not (self._held and now < self._next_at())
        )

    def _next_at(self) -> float:
        """Return when a datagram leaves also while somebody is waited for."""
        return self._traffic.data_at + self._datagram / c.GROUP_RATE_MIN

    def _new_page(self, now: float) -> bool:
        """Between two messages: begin an epoch, or let newcomers in, if either is due."""
        if self._rotation_due(now):
            self._rotate(now)
        elif self._joining and now >= self._joined + c.JOIN_SPACING:
            self._admit(now)
        else:
            return False
        return True

    def _data(self, out: list[bytes], now: float) -> None:
        limit = max(1, int(self._rate.batch(now)) // self._datagram)
        if self._roster.slow:
            ahead = self._roster.last_seq(now) - self._epochs.sealer.next_seq
            limit = int(max(1, min(limit, ahead)))
        boundary = self._outgoing.midway and (bool(self._joining) or self._rotation_due(now))
        sealer = self._epochs.sealer
        datagrams, done = self._batches.seal(sealer, limit, boundary=boundary, now=now)
        self._history.add(self._outgoing.next_number - len(done), done)
        self._sent(datagrams, out)
        self.counters["relay-full"] += self._roster.relay(datagrams)
        self._end_seq = sealer.next_seq
        self.counters["data"] = self._batches.sealed
        self._traffic.data_at = now
        self._pulse.data(now)

    def _sent(self, datagrams: list[bytes], out: list[bytes]) -> None:
        self._epochs.store.add(datagrams)
        size = sum(map(len, datagrams))
        self._rate.sent(size * len(self.destinations))
        self._traffic.size += size
        self._traffic.datagrams += len(datagrams)
        out += datagrams

    def _heartbeat(self, out: list[bytes], now: float) -> None:
        oldest = self._epochs.store.oldest
        datagram = self._epochs.sealer.heartbeat(oldest, len(self.members), self._outgoing.next_number)
        self._sent([datagram], out)
        self.counters["heartbeat"] += 1
        # Heartbeats are not relayed: by them a deaf subscriber learns that multicast arrives again.
        self.counters["relay-full"] += self._roster.relay([datagram], behind=True)
        self._pulse.sent(now)

    def controls(self, room: Callable[[Hashable], float] = _unlimited) -> Iterator[tuple[Hashable, bytes]]:
        """Yield what is to be told to which session, in order and reliably; `room` is how many bytes it takes."""
        return self._roster.controls(room)

    def events(self) -> Iterator[PublisherEvent]:
        """Yield what the application should know."""
        while self._roster.events:
            yield self._roster.events.popleft()

    def timeout(self) -> float | None:
        """Return when `handle_timeout` is due."""
        due = math.inf
        if self._joining and not self._outgoing.midway:
            due = self._joined + c.JOIN_SPACING
        if self.members:
            due = min(due, self._pulse.due, self._epochs.next_rotate())
            if self._outgoing:
                waits = self._next_at() if self._held else 0.0
                due = min(due, max(self._settled, self._rate.ready_at(), waits, self._batches.due))
            due = min(due, self._repairs.timeout())
        due = min(due, self._epochs.next_expiry())
        return None if due == math.inf else due

    def handle_timeout(self, now: float) -> None:
        """Forget what is old; what is due is in the next `transmits`."""
        self._epochs.expire(now)
