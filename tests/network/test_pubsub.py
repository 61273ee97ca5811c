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
        print("begin", flush=True)
        for _ in range(200):
            await pub.send(bytes(1000))
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


@pytest.mark.parametrize("count", [1, 4])
def test_the_publisher_sends_each_message_once_however_many_subscribe(lab: Lab, count: int) -> None:
    shared = one_switch(lab, count + 1)
    wire = Capture(shared.ports[0])
    process = shared.hosts[0].start(
        sys.executable, "-W", "error", "-c", PUBLISH, str(count), "0.002", label="publisher"
    )
    contact = process.wait_for_line("mp2p:").strip()
    subscribers = [
        subscribe(Device(host), contact, "load", "-c", "200", "--history", "0", "--transport", "v4")
        for host in shared.hosts[1:]
    ]
    for each in subscribers:
        outcome = Outcome(each)
        numbers = [record["number"] for record in outcome.events("value")]
        assert sorted(numbers) == list(range(min(numbers), min(numbers) + 200))
    sent = [packet for packet in wire.datagrams(outgoing=True) if packet.payload[:1] == b"\x15"]
    # Of the network layer on: 20 bytes of IP and 8 of UDP each.
    size = sum(len(packet.payload) + 28 for packet in sent) / 200
    assert size <= 1180, f"{size} bytes a message, of {Counter(len(packet.payload) for packet in sent)}"


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
    process = ends.left.start(sys.executable, "-W", "error", "-c", PUBLISH, "1", "0.1", label="publisher")
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
