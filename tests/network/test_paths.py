"""A connection over two families of addresses, one of which stops working under it."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from netlab.devices import wait_for_event
from netlab.firewall import block_family
from netlab.lab import Bridge, Host, Interface, Lab
from netlab.processes import Process
from netlab.topologies import two_hosts

pytestmark = pytest.mark.network

ROAM = Path(__file__).parent / "netlab" / "roam.py"
TRAVEL = ROAM.with_name("travel.py")


def roam(host: Host, *arguments: str) -> Process:
    return host.start(*(sys.executable, "-W", "error", str(ROAM)), *arguments, label="roam")


def travel(host: Host, *arguments: str) -> Process:
    return host.start(*(sys.executable, "-W", "error", str(TRAVEL)), *arguments, label="travel")


@pytest.mark.parametrize(
    ("writer", "loops"), [("caller", ("asyncio", "trio")), ("server", ("trio", "asyncio"))]
)
def test_a_stream_goes_on_over_ipv6_when_ipv4_is_blocked_and_the_other_way_round(
    lab: Lab, writer: str, loops: tuple[str, str]
) -> None:
    """Whichever the two met on. Without new keys, and so without a new handshake."""
    ends = two_hosts(lab)
    part = {"caller": "reads", "server": "reads", writer: "writes"}
    server = roam(ends.right, loops[0], part["server"])
    caller = roam(ends.left, loops[1], part["caller"], wait_for_event(server, "listening")["key"])
    used = wait_for_event(caller if writer == "caller" else server, "writing")["path"]
    for host in (ends.left, ends.right):
        block_family(host, 4 if used.startswith("v4 ") else 6)
    for process in (caller, server):
        assert process.wait() == 0, process.transcript()
        done = wait_for_event(process, "done")
        assert done["path"].split()[0] == ("v6" if used.startswith("v4 ") else "v4")
        assert (done["changes"], done["rekeys"]) == (1, 0)
        assert process.stderr == []


def _other_interface(lab: Lab, port: Interface, there: Bridge) -> None:
    port.down()
    lab.link(port.node, there)


def _same_interface(_lab: Lab, port: Interface, there: Bridge) -> None:
    port.replug(there)
    port.assign(there.subnet)


@pytest.mark.parametrize(
    ("move", "loop"), [(_other_interface, "asyncio"), (_same_interface, "trio")], ids=["other", "same"]
)
def test_a_laptop_goes_from_one_lan_to_another_amid_a_large_file_and_a_stream_of_items(
    lab: Lab, tmp_path: Path, move: Callable[[Lab, Interface, Bridge], None], loop: str
) -> None:
    """By another interface that comes up as the first one goes, or by the same one carried to another switch."""
    here, there = lab.bridge("here"), lab.bridge("there")
    server, laptop = lab.host("server"), lab.host("laptop")
    lab.link(server, here)
    lab.link(server, there)
    port, _ = lab.link(laptop, here)
    port.limit_rate("400mbit", burst="64kb")
    file, inbox = tmp_path / "x.bin", tmp_path / "in"
    inbox.mkdir()
    file.write_bytes(random.Random(1).randbytes(100 << 20))
    serving = travel(server, loop, "serve", str(inbox))
    keys = wait_for_event(serving, "listening")
    caller = travel(laptop, loop, "call", keys["ticker"], keys["files"], str(file))
    wait_for_event(caller, "progress", lambda record: record["bytes"] > 20 << 20)
    assert not any('"arrived"' in line for line in caller.stdout)
    move(lab, port, there)
    assert caller.wait() == 0, caller.transcript()
    arrived, done = wait_for_event(caller, "arrived"), wait_for_event(caller, "done")
    with (inbox / "x.bin").open("rb") as copy:
        assert hashlib.file_digest(copy, "sha256").hexdigest() == arrived["sha256"]
    assert arrived["moved"] == 100 << 20, "it was resumed"
    print(move.__name__, done)
    assert (done["connects"], done["replaced"]) == (2, 0)
