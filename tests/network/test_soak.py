"""Half an hour in which a switch keeps forgetting where a host listens (protocol section 9)."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from netlab.firewall import block_membership_queries
from netlab.lab import Lab
from netlab.topologies import one_switch

pytestmark = [pytest.mark.network, pytest.mark.soak]

SECONDS = float(os.environ.get("MP2P_SOAK_SECONDS", "1800"))
FORGETS_AFTER = float(os.environ.get("MP2P_SOAK_FORGETS", "20"))
"""Seconds after the last report; 260 by the book (RFC 3376, section 8.4): every 75 a rejoin comes first."""
PROGRAM = str(Path(__file__).parent / "calls_under_deadline.py")


@pytest.mark.parametrize("transport", ["v4", "v6"])
@pytest.mark.parametrize("deaf", ["caller", "server"])
def test_no_call_fails_while_a_switch_forgets_a_host(lab: Lab, deaf: str, transport: str) -> None:
    """The switch forgets a group long before the next rejoin is due; one host hears no queries, and so never reports.

    What reminds the switch is that host's own upkeep. Calls are idempotent and have 30 seconds each, within which one
    that breaks off may be made again; each that takes more than a second counts as an outage.
    """
    shared = one_switch(lab, 2, snooping=True, querier=True)
    server_host, caller_host = shared.hosts
    shared.switch.ip(f"link set br0 type bridge mcast_membership_interval {round(100 * FORGETS_AFTER)}")
    deaf_port = shared.ports[1 if deaf == "caller" else 0]
    block_membership_queries(deaf_port.node)
    server = server_host.start(sys.executable, PROGRAM, "asyncio", transport, label="server")
    key = json.loads(server.wait_for_line("listening"))["key"]
    caller = caller_host.start(
        sys.executable, PROGRAM, "asyncio", transport, key, str(SECONDS), label="caller"
    )
    done = json.loads(caller.wait_for_line('"done"', timeout=SECONDS + 120))
    print(f"{transport}, {deaf} deaf to queries:", json.dumps(done))
    assert done["failed"] == 0, done
    assert done["calls"] > SECONDS / 60, "hardly any call was made"
    # By the clock it is one in 67 s at most; the others are for a silence, and to keep the next one from coming.
    assert done["rejoins"][deaf] > SECONDS / 45, "the switch has forgotten nothing"
    assert done["connected_for"] > SECONDS, "the connection did not last"
    assert "sessions-replaced" not in done["caller"]
