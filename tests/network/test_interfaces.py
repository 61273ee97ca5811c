"""Several nodes on a host, several interfaces, and who shares a group and a port."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from netlab.devices import Device, Outcome
from netlab.lab import Lab, Subnet
from netlab.namespaces import scratch_folder
from netlab.probes import Receiver, send
from netlab.topologies import two_hosts, two_lans

pytestmark = pytest.mark.network

STRICT = {"net/ipv4/conf/all/rp_filter": 1}


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_two_nodes_on_one_host_and_one_elsewhere(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    first, second, caller = Device(ends.right, "first"), Device(ends.right, "second"), Device(ends.left)
    here, there = (device.listen("--transport", transport) for device in (first, second))
    for listener in (here, there):
        assert caller.send(listener.key, f"to {listener.key}", "--transport", transport).code == 0
    # And to each other, on the same host.
    assert first.send(there.key, "to my neighbour", "--transport", transport, "--port", "2000").code == 0
    assert here.stop() == [(caller.key, f"to {here.key}")]
    assert there.stop() == [(caller.key, f"to {there.key}"), (first.key, "to my neighbour")]


@pytest.mark.parametrize(
    ("transport", "address"), [("v4", "v4:224.0.230.7:3000"), ("v6", "v6:[ff1e::9000:1]:3000")]
)
def test_two_processes_share_a_group_and_a_port(lab: Lab, transport: str, address: str) -> None:
    ends = two_hosts(lab)
    first, second, caller = Device(ends.right, "first"), Device(ends.right, "second"), Device(ends.left)
    options = ("--transport", transport, "--address", address)
    listeners = [device.listen(*options) for device in (first, second)]
    assert listeners[0].groups == listeners[1].groups == [address]
    for listener in listeners:
        assert caller.send(listener.contact, f"to {listener.key}", "--transport", transport).code == 0
    for listener in listeners:
        assert listener.stop() == [(caller.key, f"to {listener.key}")]


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_the_peer_on_the_second_interface_is_found_without_options(lab: Lab, transport: str) -> None:
    lans = two_lans(lab)
    # The default route leads into the first network, and so would the kernel's own choice.
    caller, peer = Device(lans.host), Device(lans.second)
    listener = peer.listen("--transport", transport)
    assert caller.send(listener.key, "hello", "--transport", transport).code == 0
    assert listener.stop() == [(caller.key, "hello")]


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_listener_with_two_interfaces_answers_where_it_was_called(lab: Lab, transport: str) -> None:
    lans = two_lans(lab)
    listener = Device(lans.host).listen("--transport", transport)
    callers = Device(lans.first), Device(lans.second)
    for caller in callers:
        assert caller.send(listener.key, "hello", "--transport", transport).code == 0
    assert listener.stop() == [(caller.key, "hello") for caller in callers]


def test_an_interface_that_was_not_asked_for_is_left_alone(lab: Lab) -> None:
    lans = two_lans(lab)
    listener = Device(lans.host).listen("--interface", "eth0", "--transport", "v4")
    assert {name for name, group in lans.host.memberships() if group == listener.group()} == {"eth0"}
    assert Device(lans.first).send(listener.key, "hello", "--transport", "v4").code == 0
    stopped = Device(lans.second).send(listener.key, "hello", "--transport", "v4", "--timeout", "1")
    assert stopped.code == 3


def test_a_host_without_a_network_says_so(lab: Lab) -> None:
    alone = Device(lab.host("alone"))
    failed = alone.ping(alone.key)
    assert failed.code == 5
    assert failed.error["kind"] == "NoMulticast"
    assert "loopback" in failed.error["message"]


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_default_route_through_a_tunnel_and_lo_first_in_the_list(lab: Lab, transport: str) -> None:
    """Neither is where multicast belongs, and the kernel's own choice would be the tunnel."""
    ends = two_hosts(lab)
    for host in (ends.left, ends.right):
        host.ip(
            "tuntap add vpn0 mode tun",
            "addr add 10.8.0.1/24 dev vpn0",
            "addr add 2001:db8:8::1/64 dev vpn0",
            "link set vpn0 up",
            "route add default dev vpn0",
            "route add ::/0 dev vpn0",
        )
    with ends.right.entered():
        assert socket.if_nameindex()[0] == (1, "lo")
    listener = Device(ends.right).listen("--transport", transport)
    joined = {name for name, group in ends.right.memberships() if group == listener.group()}
    assert joined == {"eth0"}
    caller = Device(ends.left)
    assert caller.send(listener.key, "hello", "--transport", transport, "--timeout", "5").code == 0
    assert listener.stop() == [(caller.key, "hello")]


# --- what a kernel keeps back, and what it brings that nobody asked for ------------------------------


def test_strict_rp_filter_lets_both_networks_of_a_host_through(lab: Lab) -> None:
    lans = two_lans(lab)
    lans.host.sysctl(STRICT)
    listener = Device(lans.host).listen("--transport", "v4")
    for host in (lans.first, lans.second):
        assert Device(host).ping(listener.key, "--transport", "v4", "--timeout", "5").code == 0


def test_strict_rp_filter_and_a_sender_that_the_routes_see_elsewhere(lab: Lab) -> None:
    """Over IPv4 nothing can be done but to say so; IPv6 knows no such filter, and what the doctor says helps."""
    lans = two_lans(lab)
    lans.host.sysctl(STRICT)
    # Its address is in none of the host's networks, so that an answer would leave by the default route: eth0.
    lans.second_port.assign(Subnet("172.30.0.0/24", str(lans.second_port.subnet.v6)))
    listening, caller = Device(lans.host), Device(lans.second)
    listener = listening.listen()
    assert caller.ping(listener.key, "--timeout", "5").code == 0
    over_v4 = ("--transport", "v4", "--timeout", "2")
    assert caller.ping(listener.key, *over_v4).error["stage"] == "nothing heard"
    examined = Outcome(listening.start("doctor"))
    (finding,) = (each for each in examined.events("finding") if each["id"] == "A.rp-filter")
    assert finding["level"] == "WARN"
    lans.host.run(*finding["command"].split())
    assert caller.ping(listener.key, "--transport", "v4", "--timeout", "5").code == 0


@pytest.mark.parametrize(
    ("transport", "reach", "foreign"),
    [("v4", "global", "224.0.230.77"), ("v6", "global", "ff1e::77"), ("v6", "link", "ff12::77")],
)
def test_a_foreign_group_on_the_same_port(lab: Lab, transport: str, reach: str, foreign: str) -> None:
    """Another program's group is loud, and none of it comes to the node, which hears its own."""
    ends = two_hosts(lab)
    neighbour = Receiver(ends.right_port, foreign)
    status = str(scratch_folder() / "status")
    options = ("--transport", transport, "--reach", reach)
    device = Device(ends.right)
    listener = device.listen(*options, "--status", status)
    for _ in range(200):
        send(ends.left_port, foreign, b"for another program")
        assert neighbour.receive() is not None
    assert Device(ends.left).ping(listener.contact, *options, "--timeout", "5").code == 0
    snapshot = json.loads(ends.right.run(*(sys.executable, "-m", "mp2p", "top", status, "--once", "--json")))
    assert snapshot["counters"].get("type-unknown", 0) == 0
    assert snapshot["counters"]["sessions-accepted"] == 1
