"""Publishing and subscribing between nodes in memory, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import mp2p_rpc
from mp2p_core import Closed, Identity, PeerUnreachable, UsageError, render_metrics
from mp2p_core.proto.constants import GROUP_WINDOW
from mp2p_core.proto.group.events import Suspicion
from mp2p_core.proto.group.layout import large_plain, parse_large_plain_untrusted
from mp2p_core.testing.memory import MemoryHub
from mp2p_core.transport import Path, Train
from mp2p_rpc import Gap, Message, Node, Topic
from mp2p_rpc.desk import Member, Topics
from mp2p_rpc.dropped import Dropped
from mp2p_rpc.held import Held
from mp2p_rpc.limits import Limits
from mp2p_rpc.outbox import ROOM, Outbox
from mp2p_rpc.schema import Codec
from mp2p_rpc.subscription import Overflow
from mp2p_rpc.topic import Reliability, matches, messages_untrusted

pytestmark = pytest.mark.anyio


Until = Callable[[Callable[[], object]], Any]


@dataclass
class Reading:
    sensor: str
    celsius: float


READINGS = Topic("weather/readings", Reading, retain=1)


class Scene:
    """A publisher and subscribers on a network in memory."""

    def __init__(self, stack: AsyncExitStack, hub: MemoryHub) -> None:
        self.stack = stack
        self.hub = hub

    async def node(self, identity: Identity | None = None) -> Node:
        opening = mp2p_rpc.open_node(identity, transports=[self.hub.transport()], idle_timeout=5)
        return await self.stack.enter_async_context(opening)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        yield Scene(stack, MemoryHub())


async def take(feed: Any, count: int) -> list[Any]:
    with anyio.fail_after(10):
        return [await anext(feed) for _ in range(count)]


async def test_messages_arrive_typed_numbered_and_proved() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with (
            publisher.publish(READINGS, allow=[subscriber.key]) as pub,
            subscriber.subscribe(publisher.contact, READINGS) as feed,
        ):
            with anyio.fail_after(10):
                await pub.ready(1)
            assert pub.subscribers() == (subscriber.key,)
            for number in range(5):
                await pub.send(Reading("roof", 20.0 + number))
            messages = await take(feed, 5)
            assert [message.value for message in messages] == [Reading("roof", 20.0 + n) for n in range(5)]
            assert {message.publisher for message in messages} == {publisher.key}
            numbers = [message.number for message in messages]
            assert numbers == list(range(numbers[0], numbers[0] + 5))
            assert {message.topic for message in messages} == {"weather/readings"}
            assert feed.sources[publisher.key].connected
            assert feed.topics == ("weather/readings",)


async def test_a_node_says_how_its_topics_do() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        assert publisher.topics() == ()
        async with publisher.publish(READINGS, allow="any") as pub:
            async with subscriber.subscribe(publisher.contact, "weather/*", type=Reading) as feed:
                with anyio.fail_after(10):
                    await pub.ready(1)
                for number in range(5):
                    await pub.send(Reading("roof", number))
                await take(feed, 5)
                (sent,), (received,) = publisher.topics(), subscriber.topics()
                assert (sent.topic, sent.publisher, sent.published) == (
                    "weather/readings",
                    publisher.key,
                    True,
                )
                assert (sent.subscribers, sent.messages, sent.gaps) == (1, 5, 0)
                assert sent.datagrams > 0
                assert (received.topic, received.publisher, received.published) == (
                    sent.topic,
                    publisher.key,
                    False,
                )
                assert (received.subscribers, received.messages, received.gaps) == (None, 5, 0)
                assert received.multicast
                text = render_metrics([*publisher.metrics(), *subscriber.metrics()])
                labels = f'topic="weather/readings",publisher="{publisher.key}"'
                for side in ("published", "subscribed"):
                    assert f'mp2p_topic_messages_total{{{labels},side="{side}"}} 5' in text
                assert f'mp2p_topic_subscribers{{{labels},side="published"}} 1' in text
                assert "mp2p_peers" in text
            assert subscriber.topics() == ()
        assert publisher.topics() == ()


async def test_one_datagram_serves_every_subscriber() -> None:
    async with scene() as net:
        publisher = await net.node()
        subscribers = [await net.node() for _ in range(8)]
        async with publisher.publish(READINGS, allow="any") as pub, AsyncExitStack() as stack:
            feeds = [
                await stack.enter_async_context(each.subscribe(publisher.contact, READINGS))
                for each in subscribers
            ]
            with anyio.fail_after(10):
                await pub.ready(8)
            before = pub.counters["data"]
            await pub.send(Reading("roof", 21.0))
            for feed in feeds:
                (message,) = await take(feed, 1)
                assert message.value == Reading("roof", 21.0)
            assert pub.counters["data"] == before + 1


@pytest.mark.parametrize("reliability", ["repaired", "ordered", "best-effort"])
async def test_ready_waits_until_what_is_sent_is_heard(reliability: Reliability) -> None:
    topic = Topic("numbers", int, reliability=reliability)
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        dropped: list[bytes] = []

        def drop(datagram: bytes) -> bool:
            """Lose the first two heartbeats, as to one whose network has not taken it into the group yet."""
            lost = datagram[0] == 0x15 and len(dropped) < 2
            if lost:
                dropped.append(datagram)
            return lost

        net.hub.drop = drop
        async with publisher.publish(topic, allow="any") as pub, AsyncExitStack() as stack:
            # Two of one process share a channel, and each has to hear.
            feeds = [
                await stack.enter_async_context(subscriber.subscribe(publisher.contact, topic, history=0))
                for _ in range(2)
            ]
            with anyio.fail_after(10):
                await pub.ready(2)
            assert len(dropped) == 2
            for number in range(3):
                await pub.send(number)
            for feed in feeds:
                assert [each.value for each in await take(feed, 3)] == [0, 1, 2]


async def test_a_subscriber_has_joined_when_it_can_read_whether_it_hears_or_not() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        net.hub.drop = lambda datagram: datagram[0] == 0x15
        async with publisher.publish(READINGS, allow="any") as pub:
            presence = pub.presence()
            async with subscriber.subscribe(publisher.contact, READINGS):
                with anyio.fail_after(10):
                    assert (await anext(presence)).joined
                    assert pub.subscribers() == (subscriber.key,)
                    with anyio.move_on_after(0.1) as scope:
                        await pub.ready(1)
                    assert scope.cancelled_caught
                    await pub.ready(1)
                    assert not subscriber.topics()[0].multicast


async def test_who_comes_late_gets_the_retained_message_or_the_last_ones() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        kept = Topic("log", str, history=3)
        async with (
            publisher.publish(READINGS, allow="any") as readings,
            publisher.publish(kept, allow="any") as log,
        ):
            for number in range(5):
                await readings.send(Reading("roof", float(number)))
                await log.send(f"line {number}")
            async with subscriber.subscribe(publisher.contact, READINGS) as feed:
                (message,) = await take(feed, 1)
                assert message.value.celsius == 4.0
                await readings.ready(1)
                await readings.send(Reading("roof", 5.0))
                assert [each.value.celsius for each in await take(feed, 1)] == [5.0]
            async with subscriber.subscribe(publisher.contact, kept, history=10) as feed:
                assert [each.value for each in await take(feed, 3)] == ["line 2", "line 3", "line 4"]
            async with subscriber.subscribe(publisher.contact, kept, history=0) as feed:
                await log.ready(1)
                await log.send("line 5")
                assert [each.value for each in await take(feed, 1)] == ["line 5"]


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (bytes, [b"as it is", None, b"", None, None, b"", None]),
        (int, [None, 21, None, None, None, None, None]),
    ],
    ids=["bytes", "int"],
)
async def test_messages_of_a_packet_are_read_as_single_ones_are(annotation: type, values: list[Any]) -> None:
    key = Identity.generate().public
    encoded = [Topic("any", type(value)).encode(value) for value in (b"as it is", 21, b"")]
    sent = [*encoded, b"", b"short", b"\x80sixth", bytes(6)]
    for count in range(1, len(sent) + 1):
        packet = parse_large_plain_untrusted(large_plain(5, sent[:count])).messages
        together, single = (
            [*messages_untrusted(Codec(annotation), Limits(), key, "any", 5, each)]
            for each in (packet, sent[:count])
        )
        assert together == single
        assert [each.value if isinstance(each, Message) else None for each in together] == values[:count]
        assert [each.number for each in together] == list(range(5, 5 + count))


async def test_patterns_follow_topics_that_come_later() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with publisher.publish(READINGS, allow="any") as pub:
            async with subscriber.subscribe(publisher.contact, "weather/*") as feed:
                await pub.send(Reading("roof", 1.0))
                (message,) = await take(feed, 1)
                assert message.value == {"sensor": "roof", "celsius": 1.0}
                async with (
                    publisher.publish(Topic("weather/alarms", str, retain=1), allow="any") as alarms,
                    publisher.publish(Topic("secret", str, retain=1), allow="any") as secret,
                ):
                    await secret.send("not for this feed")
                    await alarms.send("storm")
                    (message,) = await take(feed, 1)
                    assert (message.topic, message.value) == ("weather/alarms", "storm")


async def test_a_publisher_cannot_have_more_followed_than_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["evil", "weather/*", "weather/" + 300 * "x", *(f"weather/{n}" for n in range(600))]
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        monkeypatch.setattr("mp2p_rpc.desk.matches", lambda *_: True)
        monkeypatch.setattr(publisher._desk, "names", lambda _key: names)
        monkeypatch.setattr(publisher._desk, "_take_untrusted", lambda *_: None)
        async with (
            publisher.publish(READINGS, allow="any"),
            subscriber.subscribe(publisher.contact, "weather/*") as feed,
        ):
            (gap,) = await take(feed, 1)
            assert "more than 512" in gap.reason
            assert feed.topics == tuple(names[3 : 3 + 512])


async def test_a_publisher_is_not_kept_busy_with_one_pattern() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with publisher.publish(READINGS, allow="any"), subscriber.connect(publisher.contact) as peer:
            with pytest.raises(mp2p_rpc.RpcError, match="255 bytes"):
                await anext(peer.client(Topics).names(100 * "**/"))


async def test_a_publisher_does_not_take_the_channel_of_another() -> None:
    async with scene() as net:
        honest, other, subscriber = await net.node(), await net.node(), await net.node()
        async with (
            honest.publish(READINGS, allow="any") as first,
            other.publish(READINGS, allow="any") as second,
            subscriber.subscribe([honest.contact, other.contact], READINGS) as feed,
        ):
            with anyio.fail_after(10):
                await first.ready(1)
                await second.ready(1)
            mine, its = (feed._followed[node.key, READINGS.name] for node in (honest, other))
            (channel,) = mine.channels
            its.subscriber._by_channel[channel] = its.subscriber._lanes[0]  # as a GRANT of that channel does
            feed._after(its)
            assert feed._by_channel[channel] is mine
            del its.subscriber._by_channel[channel]
            feed._after(its)
            assert feed._by_channel[channel] is mine


def test_what_waits_for_a_peer_that_does_not_read_is_bounded() -> None:
    outbox = Outbox()
    for _ in range(ROOM):
        outbox.put(b"refused")
    assert ROOM <= outbox.size < ROOM + 7


def test_what_waits_for_a_slow_reader_is_bounded_in_bytes() -> None:
    held, train = Held(), Train(Path(bytes(20)), (bytes(60_000),), 60_000)
    for _ in range(GROUP_WINDOW):
        held.add(train)
    assert 4_000_000 < 60_000 * len(held.first(GROUP_WINDOW)) < 6_000_000
    held.drop(len(held.first(GROUP_WINDOW)))
    assert not held
    assert held.size == 0


async def test_only_who_is_allowed_may_subscribe_and_knows_the_topic() -> None:
    async with scene() as net:
        publisher, friend, stranger = await net.node(), await net.node(), await net.node()
        secret = Topic("secret", str, retain=1)
        async with (
            publisher.publish(READINGS, allow=[friend.key, stranger.key]),
            publisher.publish(secret, allow=[friend.key]) as pub,
        ):
            await pub.send("hidden")
            async with stranger.subscribe(publisher.contact, "secret") as feed:
                (gap,) = await take(feed, 1)
                assert isinstance(gap, Gap)
            async with stranger.subscribe(publisher.contact, "**") as feed:
                with anyio.move_on_after(0.2):
                    await anext(feed)
                assert feed.topics == ("weather/readings",)
            async with friend.subscribe(publisher.contact, "secret") as feed:
                assert [each.value for each in await take(feed, 1)] == ["hidden"]


async def test_a_publisher_that_is_not_there_is_an_error_once_it_was_waited_for() -> None:
    async with scene() as net:
        subscriber = await net.node()
        nobody = Identity.generate().public
        with pytest.raises(PeerUnreachable), anyio.fail_after(10):  # half of what it takes if nothing is said
            await subscriber.subscribe(nobody, "weather/*", timeout=0.1).__aenter__()


async def test_revoking_takes_effect_at_once_and_costs_the_others_nothing() -> None:
    async with scene() as net:
        publisher, good, bad = await net.node(), await net.node(), await net.node()
        async with (
            publisher.publish(READINGS, allow="any") as pub,
            good.subscribe(publisher.contact, READINGS) as kept,
            bad.subscribe(publisher.contact, READINGS) as lost,
        ):
            with anyio.fail_after(10):
                await pub.ready(2)
            await pub.send(Reading("roof", 1.0))
            await take(kept, 1)
            await take(lost, 1)
            await pub.revoke(bad.key)
            for number in range(5):
                await pub.send(Reading("roof", 2.0 + number))
            assert [each.value.celsius for each in await take(kept, 5)] == [2.0, 3.0, 4.0, 5.0, 6.0]
            (gap,) = await take(lost, 1)
            assert isinstance(gap, Gap)
            assert "revoked this key" in gap.reason
            assert pub.subscribers() == (good.key,)


async def test_presence_tells_who_comes_and_goes() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with publisher.publish(READINGS, allow="any") as pub:
            presence = pub.presence()
            async with subscriber.subscribe(publisher.contact, READINGS):
                with anyio.fail_after(10):
                    joined = await anext(presence)
            with anyio.fail_after(10):
                left = await anext(presence)
            assert (joined.key, joined.joined, left.key, left.joined) == (
                subscriber.key,
                True,
                subscriber.key,
                False,
            )


async def test_presence_is_of_keys_however_many_sessions_one_has() -> None:
    """One that is restarted has two until the first has fallen silent: it has neither come twice nor gone."""
    async with scene() as net:
        publisher, other = await net.node(), await net.node()
        twice = Identity.generate()
        first, second = await net.node(twice), await net.node(twice)
        async with publisher.publish(READINGS, allow="any") as pub:
            presence = pub.presence()
            with anyio.fail_after(10):
                async with first.subscribe(publisher.contact, READINGS):
                    await pub.ready(1)
                    async with second.subscribe(publisher.contact, READINGS):
                        await pub.ready(2)
                        assert pub.subscribers() == (twice.public,)
                    while len(pub.publisher.members) > 1:
                        await anyio.lowlevel.checkpoint()
                    async with other.subscribe(publisher.contact, READINGS):
                        await pub.ready(2)
                    while len(pub.publisher.members) > 1:
                        await anyio.lowlevel.checkpoint()
                while pub.subscribers():
                    await anyio.lowlevel.checkpoint()
        assert [(each.key, each.joined) async for each in presence] == [
            (twice.public, True),
            (other.key, True),
            (other.key, False),
            (twice.public, False),
        ]


async def test_attempts_in_all_topics_are_counted_together() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with (
            publisher.publish(Topic("a/1", int), allow="any") as one,
            publisher.publish(Topic("a/2", int), allow="any") as other,
            subscriber.subscribe(publisher.contact, "a/*", type=int) as feed,
        ):
            with anyio.fail_after(10):
                await one.ready()
                await other.ready()
            for name, forged in (("a/1", 5), ("a/2", 1), ("a/1", 7)):
                followed = feed._followed[publisher.key, name]
                followed.subscriber._feed.events.append(Suspicion(forged))
                feed._after(followed)
            assert feed.suspicions == 7 + 1


async def test_several_may_wait_for_the_same_publication() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with publisher.publish(READINGS, allow="any") as pub, anyio.create_task_group() as tasks:
            ready: list[bool] = []

            async def wait() -> None:
                await pub.ready()
                ready.append(True)

            with anyio.fail_after(10):
                for _ in range(3):
                    tasks.start_soon(wait)
                    await anyio.lowlevel.checkpoint()
                async with subscriber.subscribe(publisher.contact, READINGS):
                    await pub.ready()
                    while len(ready) < 3:
                        await anyio.lowlevel.checkpoint()


async def test_lost_datagrams_are_repaired() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with (
            publisher.publish(READINGS, allow="any") as pub,
            subscriber.subscribe(publisher.contact, READINGS) as feed,
        ):
            with anyio.fail_after(10):
                await pub.ready(1)
            await pub.send(Reading("roof", -1.0))
            await take(feed, 1)
            count = 0

            def drop(datagram: bytes) -> bool:
                nonlocal count
                count += datagram[0] == 0x15
                return datagram[0] == 0x15 and count % 4 == 0

            net.hub.drop = drop
            for number in range(40):
                await pub.send(Reading("roof", float(number)))
                await anyio.sleep(0.002)
            values = sorted(each.value.celsius for each in await take(feed, 40))
            assert values == [float(number) for number in range(40)]
            assert count > 10


async def test_what_was_sent_last_arrives_though_the_block_ends_and_datagrams_are_lost() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with AsyncExitStack() as stack:
            async with publisher.publish(READINGS, allow="any") as pub:
                feed = await stack.enter_async_context(subscriber.subscribe(publisher.contact, READINGS))
                with anyio.fail_after(10):
                    await pub.ready(1)
                lost = 0

                def drop(datagram: bytes) -> bool:
                    nonlocal lost
                    lost += datagram[0] == 0x15
                    return datagram[0] == 0x15 and lost < 6

                net.hub.drop = drop
                for number in range(300):
                    await pub.send(Reading("roof", float(number)))
            items = await take(feed, 301)
        assert lost >= 6
        assert sorted(item.value.celsius for item in items[:300]) == [float(number) for number in range(300)]
        assert "stopped" in items[300].reason


async def test_delivered_means_that_every_subscriber_has_it_also_in_a_new_epoch() -> None:
    async with scene() as net:
        publisher, one, two = await net.node(), await net.node(), await net.node()
        async with (
            publisher.publish(READINGS, allow="any") as pub,
            one.subscribe(publisher.contact, READINGS) as feed,
            two.subscribe(publisher.contact, READINGS),
        ):
            with anyio.fail_after(10):
                await pub.delivered()
                await pub.ready(2)
                for number in range(20):
                    await pub.send(Reading("roof", float(number)))
                await pub.delivered()
                assert len(feed._queue) == 20
                net.hub.drop = lambda datagram: datagram[0] == 0x15
                await pub.send(Reading("roof", 20.0))
                await pub.drained()
                await pub.revoke(two.key)
                await pub.delivered()  # it came over the session, on the third question
                assert len(feed._queue) == 21


async def test_without_multicast_messages_come_over_the_session_and_that_is_said(until: Until) -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        net.hub.drop = lambda datagram: datagram[0] == 0x15
        async with (
            publisher.publish(READINGS, allow="any") as pub,
            subscriber.subscribe(publisher.contact, READINGS) as feed,
        ):
            with anyio.fail_after(10):
                await pub.ready(1)
            await until(lambda: feed.sources[publisher.key].topics["weather/readings"] is False)
            await pub.send(Reading("roof", 3.0))
            assert (await take(feed, 1))[0].value.celsius == 3.0


@pytest.mark.parametrize("overflow", ["drop-oldest", "drop-newest"])
async def test_a_slow_reader_has_its_limit_and_is_told_what_was_dropped(
    until: Until, overflow: Overflow
) -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with (
            publisher.publish(Topic("numbers/a", int), allow="any") as one,
            publisher.publish(Topic("numbers/b", int), allow="any") as other,
            subscriber.subscribe(
                publisher.contact, "numbers/*", type=int, limit=10, overflow=overflow
            ) as feed,
        ):
            with anyio.fail_after(10):
                await one.ready(1)
                await other.ready(1)
            read: list[Any] = []
            for last in (50, 100):  # the second half comes once some was read, so that there is room again
                for number in range(
                    last - 50, last
                ):  # in turns, so that what is dropped is now of one, now of the other
                    await one.send(number)
                    await other.send(number)
                    if number % 10 == 9:
                        await until(
                            lambda sent=number + 1: all(t.messages == sent for t in subscriber.topics())
                        )
                assert len(feed._queue) <= 10 + 2  # and a gap for each topic
                if last == 50:
                    read += await take(feed, 5)
            read += await feed.take()
        for name in ("numbers/a", "numbers/b"):
            expected = 0
            for item in (item for item in read if item.topic == name):
                if isinstance(item, Gap):
                    assert item.missing is not None
                    expected += item.missing
                else:
                    assert item.value == expected  # its gap stands before it
                    expected += 1
            assert expected == 100
        assert getattr(read[-1], "value", None) == 99 if overflow == "drop-oldest" else read[0].value == 0


def test_what_is_dropped_adds_up_beside_what_nobody_can_count() -> None:
    key, dropped = Identity.generate().public, Dropped()
    for number in range(3):
        dropped.note(Message(None, key, "a", number, 0.0))
        dropped.note(Gap(key, "a", None, None, f"the publisher started anew, {number}"))
        dropped.note(Gap(key, "b", number, 2, "lost"))
    found = [(gap.topic, gap.number, gap.missing) for gap in dropped.take()]
    assert found == [("a", 0, 3), ("a", None, None), ("b", 0, 6)]
    assert not dropped.gaps


@pytest.mark.parametrize("name", ["", "a//b", "/a", "a" * 256, "\udcff"])
async def test_what_is_no_name_is_no_pattern_either(name: str) -> None:
    """A feed of such a pattern would wait for ever."""
    with pytest.raises(UsageError, match="no name"):
        Topic(name)
    async with scene() as net:
        subscriber = await net.node()
        with pytest.raises(UsageError, match="fits no topic"):
            async with subscriber.subscribe(Identity.generate().public, name):
                raise AssertionError


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"history": -1}, {"overflow": "drop_oldest"}])
async def test_what_a_feed_cannot_do_is_refused(wrong: dict[str, Any]) -> None:
    async with scene() as net:
        subscriber = await net.node()
        with pytest.raises(UsageError, match="1 or more"):
            async with subscriber.subscribe(Identity.generate().public, "a", **wrong):
                raise AssertionError


async def test_a_fast_publisher_waits_for_a_slow_reader() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        topic = Topic("load", bytes, reliability="ordered")
        async with (
            publisher.publish(topic, allow="any") as pub,
            subscriber.subscribe(publisher.contact, topic, limit=100) as feed,
            anyio.create_task_group() as tasks,
        ):
            with anyio.fail_after(20):
                await pub.ready(1)
                await pub.send(b"")
                await anext(feed)

                async def publish() -> None:
                    for number in range(4000):
                        await pub.send(number.to_bytes(2, "big") + bytes(1000))

                tasks.start_soon(publish)
                most = 0
                for number in range(4000):
                    message = await anext(feed)
                    assert int.from_bytes(message.value[:2], "big") == number
                    most = max(most, len(feed._queue))
                    if number % 100 == 0:
                        await anyio.sleep(0.001)
                assert most < 300, "about the limit waits, not everything"


async def test_all_that_waits_is_taken_at_once_and_nothing_is_lost() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        topic = Topic("load", int, reliability="ordered")
        async with publisher.publish(topic, allow="any") as pub:
            async with subscriber.subscribe(publisher.contact, topic, limit=50) as feed:
                with anyio.fail_after(20):
                    await pub.ready(1)
                    with anyio.move_on_after(0):
                        await feed.take()
                    numbers: list[int] = []
                    sizes = []
                    async with anyio.create_task_group() as tasks:

                        async def publish() -> None:
                            for number in range(2000):
                                await pub.send(number)

                        tasks.start_soon(publish)
                        while len(numbers) < 2000:
                            items = await feed.take()
                            sizes.append(len(items))
                            numbers += [item.value for item in items]
                    assert numbers == list(range(2000))
                    assert max(sizes) > 1
            with anyio.fail_after(10):
                left = await feed.take()
                assert all(isinstance(item, Gap) for item in left)
                assert await feed.take() == []


async def test_values_of_any_type_are_checked_also_when_bytes_travel_as_they_are() -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        data = Topic("data", bytes, history=9)
        async with publisher.publish(data, allow="any") as pub:
            for value in (b"", b"\xff" * 5000):
                await pub.send(value)
            with pytest.raises(mp2p_rpc.ArgumentError):
                await pub.send("text")  # type: ignore[arg-type]  # that is the point
            for type_ in (Any, bytes, bytes | int):
                async with subscriber.subscribe(publisher.contact, "data", type=type_, history=9) as feed:
                    assert [message.value for message in await take(feed, 2)] == [b"", b"\xff" * 5000]
            async with subscriber.subscribe(publisher.contact, "data", type=int, history=9) as feed:
                assert ["does not fit" in gap.reason for gap in await take(feed, 2)] == [True, True]


async def test_many_calls_of_one_key_share_the_room_of_one(until: Until) -> None:
    async with scene() as net:
        publisher, subscriber = await net.node(), await net.node()
        async with (
            publisher.publish(READINGS, allow=[subscriber.key]),
            subscriber.connect(publisher.contact) as peer,
        ):
            desk = publisher._desk

            async def follow() -> None:
                async for _ in peer.client(Topics).follow(Outbox()):
                    pass

            async with anyio.create_task_group() as tasks:
                for _ in range(60):
                    tasks.start_soon(follow)
                await until(lambda: desk.follows[subscriber.key] == 60)
                assert 60 * desk.room(Member(subscriber.key)) == pytest.approx(ROOM)
                assert desk.room(Member(publisher.key)) == ROOM
                tasks.cancel_scope.cancel()
            await until(lambda: not desk.follows)


async def test_a_publisher_that_starts_anew_is_followed_on(
    until: Callable[[Callable[[], object]], Any],
) -> None:
    async with scene() as net:
        subscriber = await net.node()
        identity = Identity.generate()
        async with AsyncExitStack() as first_life:
            publisher = await first_life.enter_async_context(
                mp2p_rpc.open_node(identity, transports=[net.hub.transport()])
            )
            pub = await first_life.enter_async_context(publisher.publish(READINGS, allow="any"))
            feed = await net.stack.enter_async_context(subscriber.subscribe(identity.public, READINGS))
            await pub.send(Reading("roof", 1.0))
            (message,) = await take(feed, 1)
            assert message.value.celsius == 1.0
        publisher = await net.node(identity)
        async with publisher.publish(READINGS, allow="any") as pub:
            await pub.send(Reading("roof", 2.0))
            items: list[Any] = []
            with anyio.fail_after(20):
                while not (items and isinstance(items[-1], Message)):
                    items.append(await anext(feed))
            assert items[-1].value.celsius == 2.0
            assert any(isinstance(item, Gap) for item in items[:-1]), "and a gap is told"


async def test_what_cannot_be_is_refused() -> None:
    async with scene() as net:
        publisher = await net.node()
        for name in ("", "a//b", "weather/*", "x" * 300):
            with pytest.raises(UsageError):
                Topic(name)
        with pytest.raises(UsageError):
            Topic("a", reliability="perhaps")  # type: ignore[arg-type]  # that is the point
        name: Any = "readings"
        with pytest.raises(UsageError, match="'readings' is no topic: give one, with the type"):
            async with publisher.publish(name, allow="any"):
                pass
        async with publisher.publish(READINGS, allow="any") as pub:
            with pytest.raises(UsageError, match="already"):
                async with publisher.publish(READINGS, allow="any"):
                    pass
            with pytest.raises(mp2p_rpc.ArgumentError):
                await pub.send("warm")  # type: ignore[arg-type]  # that is the point
        with pytest.raises(Closed):
            await pub.send(Reading("roof", 1.0))


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("*", "a", True),
        ("*", "a/b", False),
        ("**", "a/b", True),
        ("a/*", "a/b", True),
        ("a/*", "a", False),
        ("a/**", "a/b/c", True),
        ("a/**", "a", True),
        ("**/c", "a/b/c", True),
        ("a/*/c", "a/b/c", True),
        ("a/r*", "a/roof", True),
        ("a/r*", "a/wall", False),
        ("**/a/**", "b/a/c", True),
        ("**/a/**/a", "a/b", False),
        ("a*b*c", "axbyc", True),
        ("a*b*c", "ac", False),
        ("a*a", "a", False),
        ("?[a-z]*", "?[a-z]!", True),
        ("?[a-z]*", "xa", False),
        (2000 * "**/" + "x", "a/b/c/d", False),  # takes no time, and no depth
        (2000 * "**/" + "d", "a/b/c/d", True),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits
