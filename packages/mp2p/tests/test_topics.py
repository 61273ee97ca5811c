"""Topics over real sockets of this host: what has been said of a subscriber is true of its sockets, too."""

from __future__ import annotations

import sys
from typing import Any

import anyio
import pytest

import mp2p

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="multicast over lo needs no set-up on Linux only"),
]


@pytest.mark.parametrize("transport", ["v4", "v6"])
@pytest.mark.parametrize("reliability", ["repaired", "ordered", "best-effort"])
async def test_what_is_sent_once_subscribers_are_ready_is_heard(reliability: Any, transport: str) -> None:
    topic = mp2p.Topic("numbers", int, reliability=reliability)
    with anyio.fail_after(20):
        async with (
            mp2p.open_node(mp2p.Identity.generate(), transports=[transport], reach="host") as publisher,
            mp2p.open_node(mp2p.Identity.generate(), transports=[transport], reach="host") as subscriber,
            publisher.publish(topic, allow="any") as pub,
            subscriber.subscribe(publisher.contact, topic) as one,
            subscriber.subscribe(publisher.contact, topic) as another,
        ):
            await pub.ready(2)
            for number in range(3):
                await pub.send(number)
            for feed in (one, another):
                assert [(await anext(feed)).value for _ in range(3)] == [0, 1, 2]
