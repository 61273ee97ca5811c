"""Where subscribers ask: the service through which the control messages of topics travel (docs/pubsub.md).

One call of `follow` carries the control messages of a session both ways, for any number of topics; its items are
those of protocol section 8, GROUP_NACK included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

import anyio

from mp2p_core.boundary import Boundary
from mp2p_core.errors import BadPacket
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group.keys import topic_id
from mp2p_rpc.call import current_call
from mp2p_rpc.errors import RpcError
from mp2p_rpc.interface import Service
from mp2p_rpc.outbox import ROOM, Outbox
from mp2p_rpc.topic import MAX_NAME, are_words, matches

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mp2p_core import PublicKey
    from mp2p_rpc.access import Policy
    from mp2p_rpc.publication import Publication
    from mp2p_rpc.topic_status import TopicStatus

__all__ = ["NACK", "Desk", "Member", "Topics"]

NACK: Final = b"\x20"
"""First byte of an item that is a GROUP_NACK; the others are types of control messages."""


class Member:
    """One session with a subscriber."""

    def __init__(self, key: PublicKey) -> None:
        self.key = key
        self.outbox = Outbox()


class Topics(Service, name="mp2p-topics"):
    """What this node publishes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def follow(self, controls: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Exchange control messages."""
        desk, member = self._desk, Member(current_call().peer)
        scope = anyio.CancelScope()
        desk.tasks.start_soon(desk.read, member, controls, scope)
        desk.follows[member.key] += 1
        try:
            async for item in member.outbox:
                yield item
                desk.made_room()
        finally:
            scope.cancel()
            desk.follows[member.key] -= 1
            desk.follows += Counter()  # without those that are 0
            desk.ended(member)

    async def names(self, pattern: str) -> AsyncIterator[str]:
        """Yield the names of topics that fit a pattern and that the caller may read, also of those to come."""
        if not are_words(pattern):  # attack: a megabyte of `**/`, which takes a second for each topic
            raise RpcError(
                "pattern", f"no topic fits: write words with / between them, {MAX_NAME} bytes at most"
            )
        key, told = current_call().peer, set[str]()
        while True:
            changed = self._desk.changed
            for name in self._desk.names(key):
                if name not in told and matches(pattern, name):
                    told.add(name)
                    yield name
            told &= set(self._desk.names(key))
            await changed.wait()


class Desk:
    """The publications of a node, and the sessions that follow them."""

    def __init__(self, tasks: TaskGroup, clock: Callable[[], float]) -> None:
        self.tasks = tasks
        self.changed = anyio.Event()
        """Set when a topic comes or goes."""
        self.follows: Counter[PublicKey] = Counter()
        """How many calls of `follow` each key makes now."""
        self._clock = clock
        self._publications: dict[bytes, tuple[Publication[Any], Policy]] = {}

    def add(self, publication: Publication[Any], policy: Policy) -> None:
        """Publish something more."""
        self._publications[publication.publisher.topic] = publication, policy
        self._notify()

    def remove(self, publication: Publication[Any]) -> None:
        """Publish it no more."""
        self._publications.pop(publication.publisher.topic, None)
        self._notify()

    def publishes(self, owner: bytes, name: str) -> bool:
        """Tell whether a topic of this name is published."""
        return topic_id(owner, name) in self._publications

    def status(self, owner: PublicKey) -> list[TopicStatus]:
        """Say how each publication does; `owner` is this node's key."""
        return [publication.status(owner) for publication, _ in self._publications.values()]

    def _notify(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def names(self, key: PublicKey) -> list[str]:
        """List the topics that a key may read."""
        return [
            publication.topic.name
            for publication, policy in self._publications.values()
            if policy.may_call(key, publication.topic.name)
        ]

    def may_connect(self, _key: PublicKey) -> bool:
        """Let nobody in for this alone: `Node.publish` admits."""
        return False

    def may_call(self, key: PublicKey, _method: str) -> bool:
        """Who may read any topic may ask."""
        return bool(self.names(key))

    # --- sessions -----------------------------------------------------------------------------------

    async def read(self, member: Member, controls: AsyncIterator[bytes], scope: anyio.CancelScope) -> None:
        """Take in what a subscriber says, until it has said all."""
        with scope, Boundary():
            async for item in controls:
                self._take_untrusted(member, item)
        self.ended(member)
        member.outbox.close()

    def _take_untrusted(self, member: Member, item: bytes) -> None:
        now = self._clock()
        try:
            if item[:1] == NACK:
                nack, _ = g.parse_nack_untrusted(item, 1)
                for publication, _ in self._publications.values():
                    if member in publication.publisher.members:
                        publication.publisher.nack_untrusted(member, nack, now)
                        publication.wake()
                return
            control = g.parse_control_untrusted(item)
        except BadPacket:
            return  # a subscriber that errs gets nothing; it asks again
        found = self._publications.get(control.topic)
        if found is None:
            if isinstance(control, g.Ask) and self.room(member) > 0:
                member.outbox.put(
                    g.Refuse(control.topic, g.REFUSE_UNKNOWN, "nobody publishes this here").pack()
                )
            return
        found[0].publisher.take_control_untrusted(member, member.key.raw, control, now)
        found[0].wake()

    def ended(self, member: Member) -> None:
        """Forget a session."""
        for publication, _ in self._publications.values():
            publication.publisher.ended(member)
            publication.wake()

    def made_room(self) -> None:
        """Look again at what waited for room."""
        for publication, _ in self._publications.values():
            publication.wake()

    @staticmethod
    def tell(member: Hashable, data: bytes) -> None:
        """Send a control message to a session."""
        assert isinstance(member, Member)
        member.outbox.put(data)

    def room(self, member: Hashable) -> float:
        """Return how many bytes a session takes now. Attack: a hundred calls of `follow` that read nothing."""
        assert isinstance(member, Member)
        return ROOM / max(self.follows[member.key], 1) - member.outbox.size
