"""How far datagrams go: read off the wire."""

from __future__ import annotations

import pytest
from netlab.capture import Capture
from netlab.devices import Device
from netlab.lab import ALL_GROUPS, Lab
from netlab.topologies import two_hosts

pytestmark = pytest.mark.network

LINK_GROUPS = {"v4": "239.255.0.0/16", "v6": "ff12::/16"}


@pytest.mark.parametrize("transport", ["v4", "v6"])
@pytest.mark.parametrize(("reach", "hops"), [("link", 1), ("site", 32), ("global", 255)])
def test_the_hop_limit_on_the_wire_is_the_reach_asked_for(
    lab: Lab, transport: str, reach: str, hops: int
) -> None:
    ends = two_hosts(lab)
    left, right = Device(ends.left), Device(ends.right)
    wire = Capture(ends.left_port)
    options = ("--transport", transport, "--reach", reach)
    listener = right.listen(*options)
    assert left.ping(listener.contact, *options).code == 0
    multicast = [packet for packet in wire.datagrams() if packet.destination.startswith(("2", "ff"))]
    assert {packet.hops for packet in wire.datagrams()} == {hops}
    assert {packet.outgoing for packet in multicast} == {False, True}


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_reach_link_is_not_forwarded_by_a_router_that_would(lab: Lab, transport: str) -> None:
    left, right, router = lab.host("left"), lab.host("right"), lab.router("router")
    neighbour = lab.host("neighbour")
    lan = lab.bridge("lan")
    lab.link(left, lan)
    lab.link(neighbour, lan)
    lab.link(router, lan)
    right_port, _ = lab.link(right, router)
    router.start_multicast((*ALL_GROUPS, LINK_GROUPS[transport]))
    beyond = Capture(right_port)
    options = ("--transport", transport, "--reach", "link")
    caller = Device(left)
    near, far = Device(neighbour).listen(*options), Device(right).listen(*options)
    assert caller.ping(near.contact, *options).code == 0
    stopped = caller.ping(far.contact, *options, "--timeout", "1.5")
    assert stopped.code == 3
    assert stopped.error["stage"] == "nothing heard"
    assert beyond.datagrams() == []


@pytest.mark.parametrize("transport", ["v4", "v6"])
@pytest.mark.parametrize("interface", [(), ("--interface", "eth0")], ids=["chosen", "eth0"])
def test_reach_host_works_on_the_host_and_never_touches_the_wire(
    lab: Lab, transport: str, interface: tuple[str, ...]
) -> None:
    ends = two_hosts(lab)
    first, second, elsewhere = Device(ends.left, "first"), Device(ends.left, "second"), Device(ends.right)
    wire = Capture(ends.left_port)
    options = ("--transport", transport, "--reach", "host", *interface)
    listener = first.listen(*options)
    assert second.send(listener.contact, "hello", *options, "--port", "2000").code == 0
    # Nor does a call to somebody who is not on this host.
    assert second.ping(elsewhere.key, *options, "--timeout", "1.5").code == 3
    assert listener.stop() == [(second.key, "hello")]
    assert wire.datagrams() == []
