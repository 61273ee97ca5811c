"""Nodes that wish to be found are found on their link, under the name they claim, and only there."""

from __future__ import annotations

import json
import sys

import pytest
from netlab.devices import Device, Outcome
from netlab.lab import Lab
from netlab.topologies import one_switch

BRIEF = ("--timeout", "1.5")

pytestmark = pytest.mark.network

WATCH = """
import anyio, mp2p
async def main():
    async with mp2p.discover() as found:
        print("ready", flush=True)
        async for each in found:
            print(each.name, each.contact, flush=True)
anyio.run(main, backend="trio")  # the command, below, runs on asyncio
"""

LIES = """
import socket, struct, sys

def name(*labels):
    return b"".join(bytes((len(label),)) + label for label in labels) + b"\\0"

def record(owner, kind, data):
    return owner + struct.pack("!HHIH", kind, 1, 120, len(data)) + data

def say(*records):
    sock.sendto(struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records), ("224.0.0.251", 5353))

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
sock.bind(("", 5353))
ours = b"_mp2p", b"_udp", b"local"
for target in [(b"evil", b"com"), (b"a", b"b", *ours), ours, (b"\\xff\\0", *ours), ()]:
    say(record(name(*ours), 12, name(*target)))
for n in range(100):
    say(record(name(*ours), 12, name(b"ghost%d" % n, *ours)))
garage = name(b"garage", *ours)
say(record(name(*ours), 12, garage), record(garage, 16, b"\\x08contact="))
print("said")
"""


def test_lies_about_names_hold_nothing_up(lab: Lab) -> None:
    shared = one_switch(lab, 3)
    watcher = shared.hosts[0].start(sys.executable, "-W", "error", "-c", WATCH, label="watcher")
    watcher.wait_for_line("ready")
    liar = shared.hosts[1]
    liar.start(sys.executable, "-c", LIES, shared.ports[1].v4, label="liar").wait_for_line("said")
    loud = Device(shared.hosts[2]).listen("--announce", "garage")
    assert watcher.wait_for_line("garage") == f"garage {loud.contact}"


def test_a_node_that_announces_itself_is_found(lab: Lab) -> None:
    shared = one_switch(lab, 3)
    watcher = shared.hosts[0].start(sys.executable, "-W", "error", "-c", WATCH, label="watcher")
    watcher.wait_for_line("ready")
    first, second = Device(shared.hosts[1]), Device(shared.hosts[2])
    quiet = first.listen()
    loud = second.listen("--announce", "garage", "--port", "2000")
    line = watcher.wait_for_line("garage")
    assert line == f"garage {loud.contact}"
    # And whoever looks later hears of it as well, and of nobody who did not ask for it.
    outcome = Outcome(
        shared.hosts[0].start(sys.executable, "-m", "mp2p", "discover", "--json", *BRIEF, label="discover")
    )
    assert [(each["name"], each["contact"]) for each in outcome.events("found")] == [("garage", loud.contact)]
    assert quiet.key not in json.dumps(outcome.records)
    assert outcome.code == 0
    assert first.send(loud.contact, "found you").code == 0
    assert loud.stop() == [(first.key, "found you")]
    late = Outcome(
        shared.hosts[0].start(sys.executable, "-m", "mp2p", "discover", "--json", *BRIEF, label="too late")
    )
    assert late.records == []
    assert late.code == 3


def test_a_name_that_is_taken_is_refused(lab: Lab) -> None:
    shared = one_switch(lab, 2)
    first, second = map(Device, shared.hosts)
    first.listen("--announce", "garage")
    refused = Outcome(second.start("listen", "--allow", "any", "--announce", "garage"))
    assert refused.code == 2
    assert "choose another name" in refused.error["message"]
