"""Half an hour in which a switch keeps forgetting where a host listens (protocol section 9)."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from netlab.firewall import block_membership_queries
from netlab.lab import Lab
from netlab.processes import Process
from netlab.topologies import Shared, one_switch

pytestmark = [pytest.mark.network, pytest.mark.soak]

SECONDS = float(os.environ.get("MP2P_SOAK_SECONDS", "1800"))
FORGETS_AFTER = float(os.environ.get("MP2P_SOAK_FORGETS", "20"))
"""Seconds after the last report; 260 by the book (RFC 3376, section 8.4): every 75 a rejoin comes first."""
PROGRAM = str(Path(__file__).parent / "calls_under_deadline.py")


def calls(shared: Shared, transport: str, seconds: float) -> tuple[Process, Process]:
    """Start the server and its caller."""
    server_host, caller_host = shared.hosts
    server = server_host.start(sys.executable, PROGRAM, "asyncio", transport, label="server")
    key = json.loads(server.wait_for_line("listening"))["key"]
    return server, caller_host.start(
        sys.executable, PROGRAM, "asyncio", transport, key, str(seconds), label="caller"
    )


@pytest.mark.parametrize("transport", ["v4", "v6"])
@pytest.mark.parametrize("deaf", ["caller", "server"])
def test_no_call_fails_while_a_switch_forgets_a_host(lab: Lab, deaf: str, transport: str) -> None:
    """The switch forgets a group long before the next rejoin is due; one host hears no queries, and so never reports.

    What reminds the switch is that host's own upkeep. Calls are idempotent and have 30 seconds each, within which one
    that breaks off may be made again; each that takes more than a second counts as an outage.
    """
    shared = one_switch(lab, 2, snooping=True, querier=True)
    shared.switch.ip(f"link set br0 type bridge mcast_membership_interval {round(100 * FORGETS_AFTER)}")
    deaf_port = shared.ports[1 if deaf == "caller" else 0]
    block_membership_queries(deaf_port.node)
    _, caller = calls(shared, transport, SECONDS)
    done = json.loads(caller.wait_for_line('"done"', timeout=SECONDS + 120))
    print(f"{transport}, {deaf} deaf to queries:", json.dumps(done))
    assert done["failed"] == 0, done
    assert done["calls"] > SECONDS / 60, "hardly any call was made"
    # By the clock it is one in 67 s at most; the others are for a silence, and to keep the next one from coming.
    assert done["rejoins"][deaf] > SECONDS / 45, "the switch has forgotten nothing"
    assert done["connected_for"] > SECONDS - 1, "the connection did not last"
    assert "sessions-replaced" not in done["caller"]


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_no_call_fails_when_the_server_stands_still_and_then_the_switch_forgets_the_caller(
    lab: Lab, transport: str
) -> None:
    """Whoever has waited 12 s for an answer takes that for the round trip, and must notice silence all the same."""
    shared = one_switch(lab, 2, snooping=True, querier=True)
    shared.switch.ip("link set br0 type bridge mcast_membership_interval 26000")
    block_membership_queries(shared.hosts[1])
    server, caller = calls(shared, transport, 45)
    time.sleep(4)  # some calls
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(12)
    os.kill(server.pid, signal.SIGCONT)
    caller.wait_for_line('"slow"')
    shared.switch.forget(shared.ports[1])
    done = json.loads(caller.wait_for_line('"done"', timeout=120))
    assert done["failed"] == 0, done
    assert done["outages"] == 2, done
    assert done["connected_for"] > 44, "the connection did not last"
