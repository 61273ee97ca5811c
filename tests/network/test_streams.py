"""Many streams and messages at once between two hosts, one of which runs asyncio and the other trio."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from netlab.devices import wait_for_event
from netlab.firewall import lose
from netlab.lab import Host, Lab, wait_until
from netlab.processes import Process
from netlab.topologies import two_hosts

from mp2p_core.proto.constants import CLOSE_IDLE

pytestmark = pytest.mark.network

ECHO = Path(__file__).parent / "netlab" / "echo.py"


def echo(host: Host, *arguments: str) -> Process:
    return host.start(*(sys.executable, "-W", "error", str(ECHO)), *arguments, label="echo")


@pytest.mark.parametrize(
    ("transport", "loss", "loops"), [("v4", 0, ("asyncio", "trio")), ("v6", 3, ("trio", "asyncio"))]
)
def test_many_streams_and_messages_beside_one_that_nobody_reads(
    lab: Lab, transport: str, loss: int, loops: tuple[str, str]
) -> None:
    ends = two_hosts(lab)
    if loss:
        for host, port in ((ends.left, ends.left_port), (ends.right, ends.right_port)):
            port.segment_in_software()
            lose(host, loss)
    server = echo(ends.right, loops[0], transport)
    key = wait_for_event(server, "listening")["key"]
    caller = echo(ends.left, loops[1], transport, key)
    assert caller.wait() == 0, caller.transcript()
    assert json.loads(caller.stdout[-1]) == {"event": "checked", "streams": 30, "messages": 4}
    assert wait_for_event(server, "closed")["code"] == 0
    assert server.wait() == 0, server.transcript()
    assert caller.stderr + server.stderr == []


def test_a_peer_that_is_killed_ends_no_stream(lab: Lab) -> None:
    """What it had sent by then is no whole, and whoever reads is told so."""
    ends = two_hosts(lab)
    ends.right_port.limit_rate("5mbit")
    server = echo(ends.right, "asyncio", "v4")
    caller = echo(ends.left, "trio", "v4", wait_for_event(server, "listening")["key"])
    wait_until(lambda: ends.right_port.queued() > 10, "the server to send much")
    server.stop(signal.SIGKILL)
    assert caller.wait() == 0, caller.transcript()
    assert [json.loads(line) for line in caller.stdout] == [{"event": "closed", "code": CLOSE_IDLE}]
