"""Topics between hosts: one datagram on the wire for any number of subscribers, repaired, and proved."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from netlab.capture import Capture
from netlab.devices import Device, Outcome
from netlab.firewall import lose
from netlab.lab import Lab
from netlab.namespaces import scratch_folder
from netlab.processes import Process
from netlab.topologies import one_switch, three_routers, two_hosts

pytestmark = pytest.mark.network

EXAMPLE = Path(__file__).parents[2] / "examples" / "sensors"

PUBLISH = """
import sys, anyio, mp2p
async def main():
    topic = mp2p.Topic("load", bytes)
    opening = mp2p.open_node(mp2p.Identity.generate(), transports=["v4"])
    async with opening as node, node.publish(topic, allow="any") as pub:
        print(node.contact, flush=True)
        await pub.ready(int(sys.argv[1]))
        await anyio.sleep(float(sys.argv[4]))
        print("begin", flush=True)
        for number in range(200):
            await pub.send(bytes(1024))
            if number % int(sys.argv[3]) == int(sys.argv[3]) - 1:
                await anyio.sleep(float(sys.argv[2]))
        await pub.drained()
        print("end", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def subscribe(device: Device, contact: str, pattern: str, *options: str) -> Process:
    process = device.start("sub", *options, contact, pattern)
    process.wait_for_line("subscribed")
    return process


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_values_reach_a_subscriber_across_three_routers(lab: Lab, transport: str) -> None:
    ends = three_routers(lab)
    publisher, subscriber = Device(ends.left), Device(ends.right)
    options = ("--allow", "any", "--transport", transport, "--wait", "1")
    process = publisher.start("pub", *options, "weather/roof", "21.5", '{"sky": "clear"}', "windy")
    contact = json.loads(process.wait_for_line("listening"))["contact"]
    outcome = Outcome(subscribe(subscriber, contact, "weather/*", "-c", "3", "--transport", transport))
    assert [each["value"] for each in outcome.events("value")] == [21.5, {"sky": "clear"}, "windy"]
    assert outcome.code == 0
    assert process.wait() == 0


SUBSCRIBE = """
import sys, anyio, mp2p
async def main():
    opening = mp2p.open_node(mp2p.Identity.generate(), transports=["v4"])
    async with opening as node, node.subscribe(sys.argv[1], "load", type=bytes, history=0) as feed:
        numbers = []
        async for message in feed:
            numbers.append(message.number)
            if len(numbers) == 200:
                break
        print(*sorted(numbers), flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


@pytest.mark.parametrize(("count", "burst"), [(1, 1), (4, 10), (16, 1), (16, 10)])
def test_the_publisher_sends_each_message_once_however_many_subscribe(
    lab: Lab, count: int, burst: int
) -> None:
    """At most 1,180 bytes on the wire for a message of 1,024.

    Of the topic alone when each message is signed by itself, which is the most that it can be. In bursts, of all that
    leaves the publisher meanwhile; the second before it is for what sessions do when they are new.
    """
    shared = one_switch(lab, count + 1)
    process = shared.hosts[0].start(
        *(sys.executable, "-W", "error", "-c", PUBLISH, str(count), str(0.002 * burst), str(burst), "1"),
        label="publisher",
    )
    contact = process.wait_for_line("mp2p:").strip()
    wire = Capture(shared.ports[0])
    subscribers = [
        host.start(sys.executable, "-W", "error", "-c", SUBSCRIBE, contact, label=f"subscriber {n}")
        for n, host in enumerate(shared.hosts[1:])
    ]
    process.wait_for_line("begin")
    for each in subscribers:
        numbers = [int(number) for number in each.wait_for_line(" ").split()]
        assert numbers == list(range(min(numbers), min(numbers) + 200))
    sent = wire.datagrams(outgoing=True)
    data = [
        n for n, packet in enumerate(sent) if packet.payload[:1] == b"\x15" and len(packet.payload) > 1000
    ]
    meanwhile = [
        packet for packet in sent[data[0] : data[-1] + 1] if burst > 1 or packet.payload[:1] == b"\x15"
    ]
    # 14 bytes of Ethernet, 20 of IP and 8 of UDP each.
    size = sum(len(packet.payload) + 42 for packet in meanwhile) / 200
    assert size <= 1180, f"{size} bytes a message, of {Counter(len(packet.payload) for packet in meanwhile)}"


def test_subscribers_of_different_transports_hear_the_same_publisher(lab: Lab) -> None:
    """Each by multicast, one datagram for each transport that somebody listens on."""
    shared = one_switch(lab, 3)
    process = shared.hosts[0].start(
        sys.executable, "-W", "error", "-c", PUBLISH.replace('["v4"]', '["v4", "v6"]'), "2", "0.01", "1", "0",
        label="publisher",
    )  # fmt: skip
    contact = process.wait_for_line("mp2p:").strip()
    wire = Capture(shared.ports[0])
    options = ("-c", "200", "--history", "0")
    ends = zip(shared.hosts[1:], ("v4", "v6"), strict=True)
    subscribers = [
        subscribe(Device(host), contact, "load", *options, "--transport", name) for host, name in ends
    ]
    for each in subscribers:
        assert len(Outcome(each).events("value")) == 200
    sent = [packet for packet in wire.datagrams(outgoing=True) if packet.payload[:1] == b"\x15"]
    each_way = Counter(packet.destination for packet in sent)
    assert len(each_way) == 2
    assert all(200 <= count < 250 for count in each_way.values()), each_way


def test_what_is_lost_is_repaired(lab: Lab) -> None:
    ends = two_hosts(lab)
    publisher, subscriber = Device(ends.left), Device(ends.right)
    process = publisher.start(
        "pub", "--allow", "any", "--transport", "v4", "--wait", "1", "numbers", *map(str, range(300))
    )
    contact = json.loads(process.wait_for_line("listening"))["contact"]
    lose(ends.right, 10)
    outcome = Outcome(subscribe(subscriber, contact, "numbers", "-c", "300", "--transport", "v4"))
    assert sorted(each["value"] for each in outcome.events("value")) == list(range(300))
    assert outcome.events("gap") == []


def test_a_subscriber_that_multicast_does_not_reach_gets_it_over_its_session(lab: Lab) -> None:
    ends = two_hosts(lab)
    process = ends.left.start(
        sys.executable, "-W", "error", "-c", PUBLISH, "1", "0.1", "1", "0", label="publisher"
    )
    contact = process.wait_for_line("mp2p:").strip()
    # What is published, by the first byte of the datagram, and nothing else is kept back.
    ends.right.nft(
        "table ip f {\nchain i {\ntype filter hook input priority 0;\nmeta l4proto udp @th,64,8 0x15 drop\n}\n}"
    )
    # Until that is noticed, what comes is repaired, or told as a gap.
    outcome = Outcome(subscribe(Device(ends.right), contact, "load", "-c", "60", "--transport", "v4"))
    numbers = [each["number"] for each in outcome.events("value")]
    assert sorted(numbers)[-20:] == list(range(max(numbers) - 19, max(numbers) + 1))


def test_the_example_of_a_feed_and_a_watcher(lab: Lab) -> None:
    ends = two_hosts(lab)
    homes = [scratch_folder() / f"{host.name}-home" for host in (ends.left, ends.right)]
    for home in homes:
        home.mkdir()
    environments = [
        {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONPATH": str(EXAMPLE)} for home in homes
    ]
    key = ends.right.start(sys.executable, "-m", "mp2p", "id", "--json", label="mp2p id", env=environments[1])
    assert key.wait() == 0
    added = ends.left.start(
        *(sys.executable, "-m", "mp2p", "contacts", "add", "laptop", json.loads(key.stdout[0])["key"]),
        label="mp2p contacts add", env=environments[0],
    )  # fmt: skip
    assert added.wait() == 0
    program = str(EXAMPLE / "feed.py")
    script = (
        f"import os, runpy; os.chdir({str(homes[0])!r}); runpy.run_path({program!r}, run_name='__main__')"
    )
    feed = ends.left.start(sys.executable, "-W", "error", "-c", script, label="feed.py", env=environments[0])
    contact = feed.wait_for_line("mp2p:").strip()
    watch = ends.right.start(
        *(sys.executable, "-W", "error", str(EXAMPLE / "watch.py"), contact, "10"),
        label="watch.py",
        env=environments[1],
    )
    assert watch.wait() == 0
    assert any("degrees" in line for line in watch.stdout)
