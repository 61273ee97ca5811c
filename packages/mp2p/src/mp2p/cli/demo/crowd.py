"""What alice publishes in the demo, and the eight subscribers: one process, eight nodes, each with its own key."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import anyio

import mp2p_core
import mp2p_rpc
from mp2p.cli.acting import Orders, report
from mp2p_core.transport import Transport

__all__ = ["FORECAST", "Weather", "follow", "publish"]

_SUBSCRIBERS: Final = 8


@dataclass
class Weather:
    """What is published."""

    number: int
    forecast: str


FORECAST: Final = "sunshine over the greenhouse"
_TOPIC: Final[mp2p_rpc.Topic[Weather]] = mp2p_rpc.Topic("greenhouse/weather", Weather)


async def publish(
    node: mp2p_rpc.Node,
    orders: Orders,
    allow: Collection[mp2p_core.PublicKey],
    transport: Transport,
) -> None:
    """Publish as many messages as is ordered, once all subscribers are there."""
    async with node.publish(_TOPIC, allow=lambda key, _name: key in allow) as pub:
        report("publishing", group=f"{transport.family}:{transport.format_address(pub.groups[0])}")
        count: int = (await orders.receive())["send"]
        await pub.ready(_SUBSCRIBERS)
        for number in range(count):
            await pub.send(Weather(number, FORECAST))
            await anyio.sleep(0.01)  # one by one: sent together, several would share a datagram
        report("published", subscribers=len(pub.subscribers()))
        await orders.receive()


async def follow(orders: Orders, transport: str) -> None:
    """Be eight subscribers, each of which has to hear everything."""
    async with AsyncExitStack() as stack:
        opening = [
            mp2p_rpc.open_node(transports=[transport], reach=mp2p_core.Reach.HOST)
            for _ in range(_SUBSCRIBERS)
        ]
        nodes = [await stack.enter_async_context(each) for each in opening]
        report("ready", keys=[str(node.key) for node in nodes])
        order = await orders.receive()
        feeds = [
            await stack.enter_async_context(node.subscribe(order["subscribe"], _TOPIC, history=0))
            for node in nodes
        ]
        report("subscribed")
        heard: list[list[int]] = [[] for _ in feeds]

        async def hear(feed: mp2p_rpc.Feed, numbers: list[int]) -> None:
            while len(numbers) < order["count"]:
                item = await anext(feed)
                if isinstance(item, mp2p_rpc.Gap) or item.value.forecast != FORECAST:
                    report("astray", item=repr(item))
                    return
                numbers.append(item.value.number)

        async with anyio.create_task_group() as group:
            for feed, numbers in zip(feeds, heard, strict=True):
                group.start_soon(hear, feed, numbers)
        report("heard", complete=sum(sorted(numbers) == list(range(order["count"])) for numbers in heard))
        await orders.receive()
