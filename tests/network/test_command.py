"""`mp2p listen`, `send` and `ping` between hosts, on every network that they should cross."""

from __future__ import annotations

import pytest
from netlab.capture import Capture
from netlab.devices import Device, Listener
from netlab.firewall import lose
from netlab.lab import Lab
from netlab.topologies import Ends, nat_on_both_sides, three_routers, two_hosts

pytestmark = pytest.mark.network

TRANSPORTS = ["v4", "v6", "v6-prefix"]


def converse(sender: Device, listener: Listener, contact: str, *options: str) -> None:
    """Send a message, and ping, and check both ends' word on it."""
    sent = sender.send(contact, "hello, thermostat", *options)
    assert sent.code == 0
    assert listener.wait_for_message("hello, thermostat")["from"] == sender.key
    pinged = sender.ping(contact, *options)
    assert pinged.code == 0
    (summary,) = pinged.events("summary")
    assert summary["handshake_ms"] > 0
    assert summary["rtt_ms"]["min"] <= summary["rtt_ms"]["median"] <= summary["rtt_ms"]["max"]


def devices(ends: Ends) -> tuple[Device, Device]:
    return Device(ends.left), Device(ends.right)


def told(listener: Listener, transport: str) -> str:
    """Return what a client must be told: the key alone, but for prefix groups, which do not follow from it."""
    return listener.contact if transport == "v6-prefix" else listener.key


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_two_hosts_on_one_link(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    left, right = devices(ends)
    wire = Capture(ends.left_port)
    listener = right.listen("--transport", transport, allow=left.key)
    converse(left, listener, told(listener, transport), "--transport", transport)
    assert listener.stop() == [(left.key, "hello, thermostat")]
    crossed = b"".join(packet.payload for packet in wire.datagrams())
    assert len(crossed) > 1000
    assert b"thermostat" not in crossed


def test_two_hosts_with_everything_installed_and_nothing_chosen(lab: Lab) -> None:
    left, right = devices(two_hosts(lab))
    listener = right.listen(allow=left.key)
    assert {text.partition(":")[0] for text in listener.groups} == {"v4", "v6"}
    assert listener.contact == f"mp2p:{listener.key}"
    converse(left, listener, listener.contact)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_three_multicast_routers(lab: Lab, transport: str) -> None:
    left, right = devices(three_routers(lab))
    listener = right.listen("--transport", transport, allow=left.key)
    converse(left, listener, told(listener, transport), "--transport", transport)


def test_nat_on_both_sides_of_equal_private_addresses(lab: Lab) -> None:
    left, right = devices(nat_on_both_sides(lab))
    listener = right.listen("--transport", "v4", allow=left.key)
    converse(left, listener, listener.key, "--transport", "v4")


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_random_group_by_contact(lab: Lab, transport: str) -> None:
    left, right = devices(three_routers(lab))
    listener = right.listen("--transport", transport, "--address", "random", allow=left.key)
    assert "?at=" in listener.contact
    converse(left, listener, listener.contact, "--transport", transport)


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_fifth_of_all_datagrams_lost_each_way(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    left, right = devices(ends)
    for host in (ends.left, ends.right):
        lose(host, 20)
    listener = right.listen("--transport", transport, allow=left.key)
    for number in range(3):
        assert left.send(listener.key, f"message {number}", "--transport", transport).code == 0
    # One probe in five is lost now and costs two seconds; that all are is one chance in 15,000.
    lose(ends.left, 0)
    assert left.ping(listener.key, "--transport", transport, count=6).code == 0
    assert listener.stop() == [(left.key, f"message {number}") for number in range(3)]
