"""Who subscribes to a publisher's topic, who may, and who no longer (docs/protocol.md, section 8)."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group.events import MemberJoined, MemberLeft, PublisherEvent
from mp2p_core.proto.group.members import Member

if TYPE_CHECKING:
    from mp2p_core.proto.group.control import Report
    from mp2p_core.proto.group.rate import Traffic
    from mp2p_core.transport import Address

__all__ = ["Roster"]

_TEXTS = {
    g.REFUSE_NOT_ALLOWED: "this key may not subscribe to this topic: ask its publisher",
    g.REFUSE_REVOKED: "the publisher has revoked this key for this topic: ask it for access",
    g.REFUSE_FULL: "this topic has as many subscribers as it takes: try again later",
    g.REFUSE_ENDED: "the publisher has stopped publishing this topic",
    g.REFUSE_EXCLUDED: "too much was lost on the way for too long: look at this host's network, then subscribe again",
}


class Roster:
    """The members of a topic by the caller's name for their session.

    Bounded by MAX_MEMBERS. Attack: a peer that asks again and again without listening. What waits for it stays
    one refusal.
    """

    __slots__ = (
        "_allow", "_excluded", "_keys", "_revoked", "_topic", "_traffic", "_waiting", "deaf", "events", "groups",
        "left", "members", "slow",
    )  # fmt: skip

    def __init__(self, topic: bytes, allow: Callable[[bytes], bool], traffic: Traffic) -> None:
        self._topic = topic
        self._traffic = traffic
        self._allow = allow
        self._revoked: set[bytes] = set()  # grows only by the application's own calls
        self._excluded: OrderedDict[bytes, float] = OrderedDict()
        self._waiting: dict[Hashable, Member] = {}
        self._keys: Counter[bytes] = Counter()  # how many members have which
        self.members: dict[Hashable, Member] = {}
        self.groups: Counter[Address] = Counter()
        """How many members listen on which group; no more of them than the publisher has."""
        self.deaf: dict[Hashable, Member] = {}
        """Those that multicast does not reach."""
        self.slow: dict[Hashable, Member] = {}
        """Those that are to be waited for."""
        self.left = False
        """Whether somebody who has the present keys is no member any more."""
        self.events: deque[PublisherEvent] = deque()

    def refusal(self, member: Hashable, key: bytes, now: float) -> int:
        """Return the code to refuse this key with, or 0."""
        if key in self._revoked:
            return g.REFUSE_REVOKED
        if now < self._excluded.get(key, 0.0):
            return g.REFUSE_EXCLUDED
        if not self._allow(key):
            return g.REFUSE_NOT_ALLOWED
        if member not in self.members and len(self.members) >= c.MAX_MEMBERS:
            return g.REFUSE_FULL
        return 0

    def refuse(self, member: Hashable, key: bytes, code: int, now: float) -> None:
        """Say no to a session that is no member; not twice while it does not listen."""
        if member not in self._waiting:
            Member(member, key, self._waiting, self._keys, self._traffic, now).tell(
                g.Refuse(self._topic, code, _TEXTS[code])
            )

    def admit(self, member: Hashable, key: bytes, group: Address, now: float) -> Member:
        """Make a session a member, or find it; it listens on this group."""
        found = self.members.get(member)
        if found is None:
            found = self.members[member] = Member(member, key, self._waiting, self._keys, self._traffic, now)
            self._keys[key] += 1
            self.events.append(MemberJoined(member, key))
        else:
            self.groups[found.group] -= 1
        found.group = group
        self.groups[group] += 1
        return found

    def has_room(self, key: bytes) -> bool:
        """Tell whether more may be queued for this key.

        Attack: one that subscribes again and again, for all that is kept for late subscribers, and reads nothing.
        """
        if not self._keys[key]:
            return True
        return sum(each.outbox_size for each in self.members.values() if each.key == key) <= c.RELAY_QUEUE

    def remove(self, member: Member, code: int = 0) -> None:
        """Strike a member off; with a code it is told why."""
        del self.members[member.id]
        self._keys[member.key] -= 1
        if not self._keys[member.key]:
            del self._keys[member.key]
        self.groups[member.group] -= 1
        self.deaf.pop(member.id, None)
        self.slow.pop(member.id, None)
        self.left = True
        text = _TEXTS.get(code, "")
        self.events.append(MemberLeft(member.id, member.key, code, text))
        if code:
            member.outbox.clear()  # nothing that was granted, kept or relayed follows
            member.outbox_size = 0
            member.tell(g.Refuse(self._topic, code, text))

    def ended(self, member: Hashable) -> None:
        """Forget a session that is gone."""
        found = self.members.get(member)
        if found is not None:
            self.remove(found)
        self._waiting.pop(member, None)

    def revoke(self, key: bytes) -> None:
        """Let nobody in with this key any more; `review` strikes off who is."""
        self._revoked.add(key)

    def readmit(self, key: bytes) -> None:
        """Take back what `revoke` or the network did to a key."""
        self._revoked.discard(key)
        self._excluded.pop(key, None)

    def review(self, now: float) -> None:
        """Ask for each member again whether it may stay."""
        for member in list(self.members.values()):
            code = self.refusal(member.id, member.key, now)
            if code:
                self.remove(member, code)

    def reported(self, member: Member, report: Report, now: float) -> None:
        """Take a report, and strike off who is hopeless."""
        member.reported(report, now)
        if member.deaf:
            self.deaf[member.id] = member
        else:
            self.deaf.pop(member.id, None)
        if member.slow:
            self.slow[member.id] = member
        else:
            self.slow.pop(member.id, None)
        if member.lossy >= c.GROUP_HOPELESS_TIME:
            self._excluded[member.key] = now + c.EXCLUSION_TIME
            self._excluded.move_to_end(member.key)
            if len(self._excluded) > c.MAX_MEMBERS:
                self._excluded.popitem(last=False)
            self.remove(member, g.REFUSE_EXCLUDED)

    def last_seq(self, now: float) -> float:
        """Return how far may be sent without losing whoever cannot follow. Attack: one that never moves."""
        waited = (each.next_seq for each in self.slow.values() if now < each.waited_until())
        return min(waited, default=math.inf) + c.GROUP_AHEAD

    def new_epoch(self, now: float) -> None:
        """Forget what was said of the seqs of an epoch that has ended."""
        for member in self.members.values():
            member.new_epoch(now)
        self.slow.clear()

    def confirm(self, channel: bytes, last: int) -> None:
        """Ask those who have not passed on everything up to this seq to report as soon as they have."""
        for member in self.members.values():
            if member.next_seq <= last:
                member.tell(g.Confirm(self._topic, channel, last))

    def relay(self, datagrams: Sequence[bytes], *, behind: bool = False) -> int:
        """Send what went to the group to those whom it does not reach; returns how many found no room.

        With `behind`, only if anybody lacks the end of what went before.
        """
        full = 0
        if behind and not any(member.behind for member in self.deaf.values()):
            return full
        for member in self.deaf.values():
            member.behind = False
            for datagram in datagrams:
                if not member.relay(self._topic, datagram):
                    member.behind = True
                    full += 1
        return full

    def controls(self, room: Callable[[Hashable], float]) -> Iterator[tuple[Hashable, bytes]]:
        """Yield what is to be told, for each session in order, about as many bytes as it has room for."""
        for member in list(self._waiting.values()):
            limit = room(member.id)
            if limit > 0:
                for data in member.take_outbox(limit):
                    yield member.id, data
