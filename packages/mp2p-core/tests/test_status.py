"""What a node says of itself and of its peers, over the in-memory transport."""

from __future__ import annotations

import pytest

from mp2p_core import Metric, open_node, render_metrics
from mp2p_core.metrics import collect_metrics
from mp2p_core.status import ChannelStatus
from mp2p_core.testing.memory import MemoryHub
from mp2p_core.transport import InterfaceStatus

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that the test sets forward."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_a_peer_tells_how_its_connection_does() -> None:
    hub, clock = MemoryHub(), Clock()
    async with (
        open_node(allow="any", transports=[hub.transport()], clock=clock) as server,
        open_node(transports=[hub.transport()], clock=clock) as client,
        client.connect(server.key) as peer,
    ):
        heard = await server.accept()
        await peer.ping()
        before = peer.status()
        for number in range(10):
            await peer.send_datagram(bytes(500))
            assert await heard.receive_datagram() == bytes(500), number
        await peer.ping()
        clock.now += 7
        here, there = peer.status(), heard.status()
        assert here.key == server.key
        assert here.path == peer.path
        assert here.rtt == peer.rtt
        assert here.connected_for == there.connected_for == 7
        assert here.packets_sent - before.packets_sent >= 10
        assert 10 * 500 < here.bytes_sent - before.bytes_sent < 10 * 600
        assert (here.packets_sent, here.bytes_sent) == (there.packets_received, there.bytes_received)
        assert (there.packets_sent, there.bytes_sent) == (here.packets_received, here.bytes_received)
        assert here.packets_lost == here.unsent_messages == here.rekeys == 0
        for _ in range(1025):
            await peer.send_datagram(b"x")
        await peer.ping()
        assert heard.status().unread_messages == 1
    assert peer.status().packets_sent > here.packets_sent  # it can still be asked


async def test_large_packets_are_counted_alike_on_both_sides() -> None:
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.key) as peer,
    ):
        heard = await server.accept()
        for _ in range(20):
            await peer.send(bytes(100_000))
            assert len(await heard.receive()) == 100_000
        await peer.ping()
        here, there = peer.status(), heard.status()
        assert here.bytes_sent > 2_000_000
        assert here.bytes_sent / here.packets_sent > 2000  # they were large
        assert (here.packets_sent, here.bytes_sent) == (there.packets_received, there.bytes_received)


async def test_a_node_tells_all_in_metrics() -> None:
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.key) as peer,
        client.connect(server.key) as second,
    ):
        await peer.ping()
        await second.ping()
        found = {(each.name, *each.labels.values()): each.value for each in client.metrics()}
        assert len(found) == len(list(client.metrics()))  # each series once, though the key is there twice
        assert found["mp2p_peers",] == 2
        assert found["mp2p_table_entries", "connections"] == 2
        received = found["mp2p_events_total", "data-received"]
        assert received == client.counters["data-received"]
        assert found["mp2p_peer_packets_received_total", str(server.key)] == received
        assert found["mp2p_peer_rtt_seconds", str(server.key)] > 0
        for metric in client.metrics():
            assert metric.name.endswith("_total") == (metric.kind == "counter")


def test_interfaces_are_in_the_metrics() -> None:
    status = InterfaceStatus("eth0", 2, joined=True, detail="", joined_for=5.0, rejoins=3, unsent=1)
    off = InterfaceStatus("tun0", 3, joined=False, detail="no multicast")
    channel = ChannelStatus("v4", "v4:224.0.230.7:1024", (status, off))
    found = {
        (each.name, each.labels.get("interface")): each.value
        for each in collect_metrics({}, {}, [channel], [])
    }
    assert found == {
        ("mp2p_peers", None): 0,
        ("mp2p_interface_joined", "eth0"): 1,
        ("mp2p_interface_joined", "tun0"): 0,
        ("mp2p_interface_joined_seconds", "eth0"): 5.0,
        ("mp2p_interface_rejoins_total", "eth0"): 3,
        ("mp2p_interface_rejoins_total", "tun0"): 0,
        ("mp2p_interface_unsent_total", "eth0"): 1,
        ("mp2p_interface_unsent_total", "tun0"): 0,
    }


def test_the_text_format() -> None:
    hostile = 'a"b\\c\nd'
    text = render_metrics(
        [
            Metric("a_total", "counter", "First\nline \\ more.", 3, {"interface": hostile, "x": "y"}),
            Metric("b", "gauge", "Plain.", 0.25),
            Metric("a_total", "counter", "First", 4, {"interface": "eth0", "x": "y"}),
        ]
    )
    assert text == (
        "# HELP a_total First\\nline \\\\ more.\n"
        "# TYPE a_total counter\n"
        'a_total{interface="a\\"b\\\\c\\nd",x="y"} 3\n'
        'a_total{interface="eth0",x="y"} 4\n'
        "# HELP b Plain.\n"
        "# TYPE b gauge\n"
        "b 0.25\n"
    )
    assert render_metrics([]) == ""
