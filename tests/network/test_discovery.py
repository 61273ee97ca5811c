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
