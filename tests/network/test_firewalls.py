"""Stateful firewalls: what they stop, what the error says, and what lets mp2p through."""

from __future__ import annotations

import pytest
from netlab.devices import Device
from netlab.firewall import allow_groups, drop_new_inbound
from netlab.lab import ALL_GROUPS, Lab
from netlab.topologies import three_routers, two_hosts

pytestmark = pytest.mark.network


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_firewall_at_the_listener_until_it_allows_the_group(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    left, right = Device(ends.left), Device(ends.right)
    drop_new_inbound(ends.right)
    listener = right.listen("--transport", transport, allow=left.key)

    stopped = left.send(listener.key, "hello", "--transport", transport, "--timeout", "2")
    assert stopped.code == 3
    assert stopped.error["kind"] == "PeerUnreachable"
    assert stopped.error["stage"] == "nothing heard"
    assert "firewall" in stopped.error["message"]
    assert any(listener.group() in tried and "eth0" in tried for tried in stopped.error["tried"])

    allow_groups(ends.right, listener.group())
    assert left.send(listener.key, "hello again", "--transport", transport).code == 0
    assert listener.stop() == [(left.key, "hello again")]


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_firewall_at_the_caller_until_it_allows_the_ranges(lab: Lab, transport: str) -> None:
    ends = three_routers(lab)
    left, right = Device(ends.left), Device(ends.right)
    drop_new_inbound(ends.left)
    listener = right.listen("--transport", transport, allow=left.key)

    stopped = left.ping(listener.key, "--transport", transport, "--timeout", "2")
    assert stopped.code == 3
    assert stopped.error["stage"] == "nothing heard"

    allow_groups(ends.left, *ALL_GROUPS)
    assert left.ping(listener.key, "--transport", transport).code == 0
