"""Publishing a topic: what the application holds, and the tasks that move it (docs/pubsub.md)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Hashable
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

import anyio
from anyio.lowlevel import checkpoint

from mp2p_core import Closed, PublicKey
from mp2p_core.proto.group.events import MemberJoined
from mp2p_rpc.topic import MODES, Topic
from mp2p_rpc.topic_status import TopicStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mp2p_core.groups import Groups
    from mp2p_core.proto.group.events import PublisherEvent
    from mp2p_core.proto.group.publisher import Publisher
    from mp2p_core.transport import Address

__all__ = ["Presence", "Publication", "make_publisher"]

T = TypeVar("T")

_SENDS_PER_YIELD: Final = 256
"""Messages after which a task that does nothing but send lets others run: these are then sealed together."""
_PRESENCE: Final = 1024


class Presence:
    """A subscriber came or went."""

    __slots__ = ("joined", "key", "reason")

    def __init__(self, key: PublicKey, joined: bool, reason: str) -> None:
        self.key = key
        self.joined = joined
        self.reason = reason
        """Why it went: "" when of its own accord."""

    def __repr__(self) -> str:
        return f"Presence({str(self.key)[:8]}..., {'joined' if self.joined else 'left'})"


class Publication(Generic[T]):
    """A topic that is being published. Comes from `Node.publish`."""

    def __init__(
        self,
        topic: Topic[T],
        publisher: Publisher,
        groups: Groups,
        clock: Callable[[], float],
        tell: Callable[[Hashable, bytes], None],
        room: Callable[[Hashable], float],
    ) -> None:
        self.topic = topic
        self.publisher = publisher
        """The protocol's half of it."""
        self._groups = groups
        self._clock = clock
        self._tell = tell
        self._room = room
        self._wake = anyio.Event()
        self._changed = anyio.Event()
        self._waiting = 0  # tasks for it
        self._sends = 0
        self._began = clock()
        self._idle = False
        """Whether `run` waits and has not been woken."""
        self._gathers = False
        """Whether it waits for more to be sent."""
        self._presence: deque[Presence] = deque(maxlen=_PRESENCE)
        self._sessions: Counter[bytes] = Counter()  # of each key that is subscribed
        self._closed = False

    # --- the application ----------------------------------------------------------------------------

    async def send(self, value: T) -> int:
        """Publish a message and return its number; waits while too much waits to leave.

        Returns once it is queued: nobody confirms a message. Raises `ArgumentError`, `MessageTooLarge` or `Closed`.
        """
        data = self.topic.encode(value)
        publisher = self.publisher
        while self._closed or publisher.full:
            self._check_open()
            await self._change()
        self._sends += 1
        if self._sends == _SENDS_PER_YIELD:
            self._sends = 0
            await checkpoint()
            self._check_open()
        number = publisher.send(data)
        if self._idle and (not self._gathers or publisher.enough):
            self._idle = False
            self._wake.set()
        return number

    def send_nowait(
        self, value: T, *, when_full: Literal["raise", "drop-oldest", "drop-newest"] = "raise"
    ) -> int | None:
        """Publish a message at once and return its number.

        when_full: what happens when too much waits to leave: `anyio.WouldBlock`, or the oldest message that has not
        begun to leave is dropped and subscribers are told of the gap, or this one is (None is returned).
        """
        data = self.topic.encode(value)
        self._check_open()
        if self.publisher.full:
            if when_full == "raise":
                raise anyio.WouldBlock
            if when_full == "drop-newest" or not self.publisher.drop_oldest():
                return None
        return self._queue(data)

    def _queue(self, data: bytes) -> int:
        number = self.publisher.send(data)
        self.wake()
        return number

    async def _change(self) -> None:
        """Wait for something to change."""
        self._waiting += 1
        try:
            await self._changed.wait()
        finally:
            self._waiting -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(0, f"{self.topic.name} is no longer published")

    async def drained(self) -> None:
        """Wait until everything that was sent has left this machine, or nobody is subscribed."""
        while self.publisher.waiting and self.publisher.members:
            self._check_open()
            await self._change()

    async def delivered(self, within: float = 10) -> bool:
        """Wait until every subscriber has all that was sent, at most so many seconds; returns whether it has.

        What a subscriber has may still wait for its application there. Leaving the block of `Node.publish` does this
        for two seconds. Of a best-effort topic nobody is to have all, so this is `drained`. Raises `Closed`.
        """
        with anyio.move_on_after(within) as scope:
            await self.drained()
            self.publisher.confirm()
            self.wake()
            while self.publisher.undelivered:
                await self._change()
                self._check_open()
        return not scope.cancelled_caught

    async def ready(self, count: int = 1) -> None:
        """Wait until so many subscribers hear: each has said that multicast arrives. Raises `Closed`.

        That takes some 20 ms after one has come, and a second where multicast does not arrive, and messages go over
        the session. `subscribers` and `presence` name whoever can read, from the moment it has the keys.
        """
        while self.publisher.hearing < count:
            self._check_open()
            await self._change()

    @property
    def groups(self) -> tuple[Address, ...]:
        """Return the multicast groups that it is sent to where somebody listens, one for each kind of address."""
        return self.publisher.groups

    def subscribers(self) -> tuple[PublicKey, ...]:
        """Return the keys of those who are subscribed now."""
        return tuple(dict.fromkeys(PublicKey(member.key) for member in self.publisher.members.values()))

    def presence(self) -> AsyncIterator[Presence]:
        """Return an iterator of subscribers that come and go, from the first one on; of those not read, the last 1024.

        For one reader. Ends when the topic is no longer published.
        """
        return _PresenceReader(self)

    async def next_presence(self) -> Presence | None:
        """Wait for the next subscriber that comes or goes; None at the end."""
        while not self._presence:
            if self._closed:
                return None
            await self._change()
        return self._presence.popleft()

    async def revoke(self, key: PublicKey) -> None:
        """Take the topic away from a subscriber: once this returns, it can read nothing that is sent later."""
        self.publisher.revoke(key.raw, self._clock())
        self.flush()
        await checkpoint()

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams and requests by what became of them."""
        return Counter(self.publisher.counters)

    def status(self, publisher: PublicKey) -> TopicStatus:
        """Say how it does. For `Node.topics`, which knows its key."""
        counters = self.publisher.counters
        return TopicStatus(
            topic=self.topic.name,
            publisher=publisher,
            published=True,
            subscribers=len(self.publisher.members),
            multicast=True,
            messages=self.publisher.sent,
            datagrams=counters["data"],
            repairs=counters["repair"] + counters["repair-session"],
            gaps=0,
            active_for=self._clock() - self._began,
        )

    # --- driving it ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is due, until cancelled."""
        while not self._closed:
            now = self._clock()
            self.publisher.handle_timeout(now)
            self._wake = anyio.Event()
            self._idle = True
            self.flush()
            self._gathers = self.publisher.waiting
            when = self.publisher.timeout()
            with anyio.move_on_after(None if when is None else when - self._clock()):
                await self._wake.wait()

    def wake(self) -> None:
        """Look again: something came in."""
        self._idle = False
        self._wake.set()

    def flush(self) -> None:
        """Hand over everything that may leave now."""
        if datagrams := self.publisher.transmits(self._clock()):
            for group in self.publisher.destinations:
                self._groups.send(group, datagrams)
        for member, data in self.publisher.controls(self._room):
            self._tell(member, data)
        for event in self.publisher.events():
            self._note(event)
        if self._waiting:
            changed, self._changed = self._changed, anyio.Event()
            changed.set()

    def _note(self, event: PublisherEvent) -> None:
        """Tell of a key when its first session comes or its last one goes: who starts anew has two for a while."""
        joined = isinstance(event, MemberJoined)
        self._sessions[event.key] += 1 if joined else -1
        if self._sessions[event.key] == int(joined):
            reason = "" if isinstance(event, MemberJoined) else event.reason
            self._presence.append(Presence(PublicKey(event.key), joined, reason))
        if not self._sessions[event.key]:
            del self._sessions[event.key]

    def close(self) -> None:
        """Tell every subscriber that this is the end."""
        self._closed = True
        self.publisher.close()
        self.flush()
        self._wake.set()


class _PresenceReader(AsyncIterator[Presence]):
    def __init__(self, publication: Publication[Any]) -> None:
        self._publication = publication

    async def __anext__(self) -> Presence:
        found = await self._publication.next_presence()
        if found is None:
            raise StopAsyncIteration
        return found


def make_publisher(
    owner: bytes,
    topic: Topic[Any],
    groups: Sequence[Address],
    allow: Callable[[bytes], bool],
    now: float,
    datagram: int,
) -> Publisher:
    """Make the protocol's half of a publication."""
    # Here, because both halves take 10 ms to load, and most programs only make calls.
    from mp2p_core.proto.group.publisher import Publisher  # noqa: PLC0415 (see above)

    return Publisher(
        owner,
        topic.name,
        groups,
        allow=allow,
        now=now,
        mode=MODES[topic.reliability],
        history=topic.kept,
        datagram=datagram,
    )
