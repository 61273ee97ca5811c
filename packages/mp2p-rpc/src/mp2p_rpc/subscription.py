"""Subscribing to topics: one feed from any number of publishers (docs/pubsub.md)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import anyio
from anyio.lowlevel import checkpoint

from mp2p_core import AddressError, AuthRejected, Closed, PeerUnreachable, PublicKey, UsageError
from mp2p_core.proto.group import events as ev
from mp2p_core.proto.group.control import REFUSE_ENDED, REFUSE_UNKNOWN
from mp2p_core.proto.group.layout import CHANNEL
from mp2p_core.transport import Train
from mp2p_core.waiting import signal_maker
from mp2p_rpc.desk import NACK, Topics
from mp2p_rpc.dropped import Dropped
from mp2p_rpc.errors import CallError, NotAllowed
from mp2p_rpc.followed import Followed, Source
from mp2p_rpc.held import Held
from mp2p_rpc.limits import Limits
from mp2p_rpc.outbox import Outbox
from mp2p_rpc.topic import Gap, Message, are_words, is_name, matches, messages_untrusted

if TYPE_CHECKING:
    from mp2p_core import Mp2pError
    from mp2p_core.transport import Address
    from mp2p_rpc.node import Node, Peer
    from mp2p_rpc.schema import Codec
    from mp2p_rpc.topic_status import TopicStatus

__all__ = ["Feed", "Overflow"]

Overflow: TypeAlias = Literal["drop-oldest", "drop-newest", "block"]

_LIMITS: Final = Limits()
_RETRY_FIRST: Final = 0.5
_RETRY_LAST: Final = 10.0
_TRAINS_AT_ONCE: Final = 4
"""Trains that are taken before looking whether there is room for more."""
_MAX_TOPICS: Final = 512
"""Topics of one publisher. Attack: names without end, with a group to listen on for each."""
_CONTROL_HEAD: Final = 17
"""Type and topic id, which every control message begins with."""


class Feed(AsyncIterator[Any]):
    """Messages and gaps of every topic followed, as they come. Comes from `Node.subscribe`; for one reader.

    A `Gap` stands in the place of what cannot be delivered. When the reader is slow, about `limit` messages wait; what
    happens then is `overflow`. "block": nothing more is taken in until there is room, and the publisher waits, unless
    the topic is best effort; what goes beyond what it waits for becomes a gap. Else the oldest or the newest are
    dropped, with a gap in their place.
    """

    def __init__(
        self, node: Node, sources: Sequence[Source], pattern: str, codec: Codec, *, history: int, limit: int,
        overflow: Overflow, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        if limit < 1 or history < 0 or overflow not in get_args(Overflow):
            raise UsageError(
                f"limit is 1 or more, history 0 or more, and overflow one of {', '.join(get_args(Overflow))}"
            )
        if not are_words(pattern):
            raise UsageError(
                f"{pattern!r} fits no topic: write words with / between them; * and ** stand for any"
            )
        self.sources = {source.contact.key: source for source in sources}
        """How it stands with each publisher, by key."""
        self.suspicions = 0
        """Datagrams of other subscribers that pretended to be a publisher's, all refused; up to ten seconds old."""
        self._node = node
        self._pattern = pattern
        self._codec = codec
        self._history = history
        self._limit = limit
        self._overflow = overflow
        self._drops_oldest = overflow == "drop-oldest"
        self._dropped = Dropped()
        self._clock = clock
        self._queue: deque[Message[Any] | Gap] = deque()
        self._held = Held()
        self._room = anyio.Event()
        self._waiting = False
        self._make_signal = signal_maker()
        self._filled = self._make_signal()
        self._wake = anyio.Event()
        self._due = math.inf
        """When `keep_time` comes back without being woken."""
        self._followed: dict[tuple[PublicKey, str], Followed] = {}
        self._by_topic: dict[bytes, Followed] = {}
        self._by_channel: dict[bytes, Followed] = {}
        self._closed = False

    # --- the application ----------------------------------------------------------------------------

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Message[Any] | Gap:
        """Wait for the next message or gap. Cancelling loses nothing; ends when the block is left."""
        if self._dropped.gaps and (self._drops_oldest or not self._queue):
            self._tell_dropped()
        try:
            return self._queue.popleft()
        except IndexError:
            await self._refill()
            return self._queue.popleft()

    async def take(self) -> list[Message[Any] | Gap]:
        """Wait for messages or gaps, and return all that are there; none at the end. Cancelling loses nothing."""
        if self._dropped.gaps:
            self._tell_dropped()
        if not self._queue:
            with suppress(StopAsyncIteration):
                await self._refill()
        items = list(self._queue)
        self._queue.clear()
        return items

    async def _refill(self) -> None:
        """Take in what waits for room, or wait for something. Raises StopAsyncIteration at the end."""
        self._resume()
        if self._queue:
            await checkpoint()  # a reader that finds something each time lets other tasks run
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._filled = self._make_signal()
            self._waiting = True
            await self._filled.wait()

    @property
    def topics(self) -> tuple[str, ...]:
        """Return the topics followed, of all publishers."""
        return tuple(dict.fromkeys(name for _, name in self._followed))

    def status(self) -> list[TopicStatus]:
        """Say how each topic does that is followed."""
        now = self._clock()
        return [each.status(now) for each in self._followed.values() if not each.subscriber.ended]

    # --- publishers ---------------------------------------------------------------------------------

    async def follow(self, source: Source) -> None:
        """Stay connected to a publisher and follow its topics, until cancelled."""
        pause = _RETRY_FIRST
        while True:
            try:
                async with self._node.connect(source.contact, timeout=source.timeout) as peer:
                    source.settle(None)
                    pause = _RETRY_FIRST
                    await self._exchange(source, peer)
                    source.settle(Closed(0, "the publisher ended the exchange"))
            except (PeerUnreachable, AuthRejected, Closed, CallError) as error:
                source.settle(error)
            await anyio.sleep(pause)
            pause = min(2 * pause, _RETRY_LAST)

    async def _exchange(self, source: Source, peer: Peer) -> None:
        outbox = Outbox()
        client = peer.client(Topics)
        mine = [each for each in self._followed.values() if each.source is source]
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    if "*" in self._pattern:
                        tasks.start_soon(self._discover, source, peer, outbox)
                    else:
                        self._begin(source, peer, self._pattern, outbox)
                    for each in mine:
                        self._connect(each, peer, outbox)
                    async for item in client.follow(outbox):
                        while self._full:
                            self._room = anyio.Event()
                            await self._room.wait()
                        self._take_control_untrusted(source, item)
                finally:
                    tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            outbox.close()
            for each in self._followed.values():
                if each.source is source:
                    each.outbox = None
                    each.subscriber.disconnected()

    async def _discover(self, source: Source, peer: Peer, outbox: Outbox) -> None:
        async for name in peer.client(Topics).names(self._pattern):
            if not (is_name(name) and matches(self._pattern, name)):
                continue
            if len(source.topics) >= _MAX_TOPICS and name not in source.topics:
                reason = f"the publisher has more than {_MAX_TOPICS} such topics: subscribe to fewer at once"
                self._put(Gap(source.contact.key, name, None, None, reason))
                return
            self._begin(source, peer, name, outbox)

    def _begin(self, source: Source, peer: Peer, name: str, outbox: Outbox) -> None:
        key = source.contact.key
        known = self._followed.get((key, name))
        if known is not None and not known.subscriber.ended:
            return
        from mp2p_core.proto.group.subscriber import Subscriber  # noqa: PLC0415 (as publication loads its half)

        for old, each in list(self._followed.items()):
            if each.subscriber.ended:
                del self._followed[old], self._by_topic[each.subscriber.topic]
        subscriber = Subscriber(key.raw, name, history=self._history, kinds=self._node.groups.kinds)
        found = self._followed[key, name] = Followed(source, name, subscriber, self._clock())
        self._by_topic[subscriber.topic] = found
        source.topics[name] = True
        self._connect(found, peer, outbox)

    def _connect(self, followed: Followed, peer: Peer, outbox: Outbox) -> None:
        followed.outbox = outbox
        followed.subscriber.set_rtt(peer.rtt)
        followed.subscriber.connected(self._clock())
        self._after(followed)

    # --- what comes in ------------------------------------------------------------------------------

    def _take_control_untrusted(self, source: Source, item: bytes) -> None:
        found = self._by_topic.get(item[1:_CONTROL_HEAD])
        if found is not None and found.source is source:
            found.subscriber.receive_control_untrusted(source.contact.key.raw, item, self._clock())
            self._after(found)

    def _deliver(self, trains: Iterable[Train]) -> None:
        """Take datagrams of a group, or keep them until there is room for what they bring."""
        now = self._clock()
        waiting = list(trains)
        at = 0
        while at < len(waiting):
            if self._held or self._full:
                self._held.add(waiting[at])
                at += 1
            else:
                at += self._take_some_untrusted(waiting[at : at + _TRAINS_AT_ONCE], now)
        if self._held:
            self._tell_held(now)

    @property
    def _full(self) -> bool:
        return self._overflow == "block" and len(self._queue) >= self._limit

    def _resume(self) -> None:
        """Take what was kept, as long as there is room."""
        self._room.set()
        if not self._held:
            return
        now = self._clock()
        while self._held and len(self._queue) < self._limit:
            self._held.drop(self._take_some_untrusted(self._held.first(_TRAINS_AT_ONCE), now))
        self._tell_held(now)

    def _tell_held(self, now: float) -> None:
        for each in self._followed.values():
            each.subscriber.held(self._held.size, now)
            self._after(each)

    def _take_some_untrusted(self, trains: Sequence[Train], now: float) -> int:
        """Take one train or more; returns how many."""
        first = trains[0]
        whole = first.buffers[0]
        if isinstance(whole, bytes) and len(whole) > first.segment_size:
            found = self._by_channel.get(whole[CHANNEL])
            if found is not None:
                large = [(bytes(each.buffers[0]), each.segment_size) for each in trains]
                taken = found.subscriber.receive_large_untrusted(large, now)
                if taken:
                    self._after(found)
                    return taken
        self._take_train_untrusted(first, now)
        return 1

    def _take_train_untrusted(self, train: Train, now: float) -> None:
        datagrams = train.datagrams()
        # Two topics may share a group, and the system may have joined their datagrams.
        channel = datagrams[0][CHANNEL]
        if any(datagram[CHANNEL] != channel for datagram in datagrams):
            for datagram in datagrams:
                self._take_train_untrusted(Train(train.path, (datagram,), len(datagram)), now)
            return
        found = self._by_channel.get(channel)
        if found is not None:
            found.subscriber.receive_train_untrusted(datagrams, now)
            self._after(found)

    def _after(self, followed: Followed) -> None:
        """Follow up on whatever a subscriber has been told."""
        subscriber, outbox = followed.subscriber, followed.outbox
        controls, nacks = subscriber.controls(), subscriber.nacks()
        if outbox is not None:
            for control in controls:
                outbox.put(control)
            for nack in nacks:
                outbox.put(NACK + nack.pack())
        for event in subscriber.events():
            self._tell(followed, event)
        if subscriber.channels != followed.channels:
            for channel in followed.channels:
                if self._by_channel.get(channel) is followed:
                    del self._by_channel[channel]
            followed.channels = subscriber.channels
            for channel in followed.channels:  # attack: a publisher that names the channel of another one
                self._by_channel.setdefault(channel, followed)
        due = subscriber.timeout()
        if due is not None and due < self._due:
            self._wake.set()

    def _tell(self, followed: Followed, event: ev.SubscriberEvent) -> None:
        key, name = followed.source.contact.key, followed.name
        if isinstance(event, ev.Messages):
            followed.messages += len(event.messages)
            self._messages(key, name, event.number, event.messages)
        elif isinstance(event, ev.Gap):
            followed.gaps += 1
            self._put(Gap(key, name, event.number, event.missing, event.reason))
        elif isinstance(event, ev.GroupChosen):
            if event.group != followed.group:
                self._join_untrusted(followed, event.group)
        elif isinstance(event, ev.Reached):
            followed.source.topics[name] = event.multicast
        elif isinstance(event, ev.Suspicion):
            self.suspicions += event.forged - followed.forged
            followed.forged = event.forged
        elif isinstance(event, ev.Refused):
            refused = event.code not in (REFUSE_UNKNOWN, REFUSE_ENDED)
            reason = event.text or "the publisher has ended this topic"
            self._give_up(followed, reason, NotAllowed(name) if refused else None)

    def _join_untrusted(self, followed: Followed, group: Address) -> None:
        """Listen where the publisher says; a group that is not its to choose ends the subscription."""
        followed.memberships.close()
        followed.group = group
        try:
            followed.memberships.enter_context(self._node.groups.listening(group, self._deliver))
        except AddressError as error:
            followed.subscriber.leave()
            self._give_up(followed, str(error), error)
            self._after(followed)

    def _give_up(self, followed: Followed, reason: str, error: Mp2pError | None) -> None:
        followed.memberships.close()
        followed.source.topics.pop(followed.name, None)
        followed.source.error = error or followed.source.error
        self._put(Gap(followed.source.contact.key, followed.name, None, None, reason))

    def _messages(self, key: PublicKey, name: str, number: int, messages: Sequence[bytes]) -> None:
        items = messages_untrusted(self._codec, _LIMITS, key, name, number, messages)
        if self._overflow == "block":
            self._queue.extend(items)
            self._fill()
        else:
            for item in items:
                self._put(item)

    def _put(self, item: Message[Any] | Gap) -> None:
        queue = self._queue
        if self._drops_oldest:
            while len(queue) >= self._limit:
                self._dropped.note(queue.popleft())
        elif self._overflow == "drop-newest":
            if len(queue) >= self._limit:
                self._dropped.note(item)
                return
            if self._dropped.gaps:
                self._tell_dropped()
        queue.append(item)
        self._fill()

    def _fill(self) -> None:
        """Wake the reader."""
        if self._waiting:
            self._waiting = False
            self._filled.set()

    def _tell_dropped(self) -> None:
        """Put gaps in the place of what was dropped."""
        if self._drops_oldest:
            self._queue.extendleft(reversed(self._dropped.take()))
        else:
            self._queue.extend(self._dropped.take())

    # --- time ---------------------------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Call every subscriber when it is due, until cancelled."""
        while True:
            now, due = self._clock(), math.inf
            self._wake = anyio.Event()
            self._due = -math.inf  # what is done here needs no waking
            for each in list(self._followed.values()):
                when = each.subscriber.timeout()
                if when is not None and when <= now:
                    each.subscriber.handle_timeout(now)
                    self._after(each)
                    when = each.subscriber.timeout()
                due = min(due, math.inf if when is None else when)
            self._due = due
            with anyio.move_on_after(max(0.0, due - self._clock())):
                await self._wake.wait()

    async def leave(self) -> None:
        """End every subscription, and tell the publishers."""
        self._closed = True
        for each in self._followed.values():
            each.subscriber.leave()
            self._after(each)
            each.memberships.close()
        self._fill()


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error
