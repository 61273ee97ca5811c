"""A connection over two families of addresses, one of which stops working under it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from netlab.devices import wait_for_event
from netlab.firewall import block_family
from netlab.lab import Host, Lab
from netlab.processes import Process
from netlab.topologies import two_hosts

pytestmark = pytest.mark.network

ROAM = Path(__file__).parent / "netlab" / "roam.py"


def roam(host: Host, *arguments: str) -> Process:
    return host.start(*(sys.executable, "-W", "error", str(ROAM)), *arguments, label="roam")


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
