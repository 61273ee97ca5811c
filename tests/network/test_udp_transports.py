"""The UDP transports against the transport kit, on wires; and groups of a network's own prefix."""

from __future__ import annotations

import os
from ipaddress import IPv6Address, IPv6Network

import pytest
from netlab.lab import Host, Lab, Subnet
from netlab.topologies import two_hosts

from mp2p_core.errors import NoMulticast
from mp2p_core.proto.addresses import ip
from mp2p_core.testing.conformance import check_transport
from mp2p_core.transport import Reach
from mp2p_transport_v4 import IPV4
from mp2p_transport_v6 import IPV6, IPV6_PREFIX, new_prefixed_ipv6
from mp2p_udp import MulticastTransport

pytestmark = pytest.mark.network


@pytest.mark.anyio
@pytest.mark.parametrize("reach", list(Reach))
@pytest.mark.parametrize("transport", [IPV4, IPV6, IPV6_PREFIX], ids=lambda transport: transport.name)
async def test_the_transport_kit_passes_on_a_wire(
    lab: Lab, transport: MulticastTransport, reach: Reach
) -> None:
    host = two_hosts(lab).left
    # Channels open in the namespace of the thread, and every task runs in this one.
    with host.entered():
        assert "two nodes talk" in await check_transport(transport, reach=reach)


def create(host: Host, *interfaces: str, key: bytes | None = None) -> IPv6Address:
    with host.entered():
        address = IPV6_PREFIX.create_address(
            key=key, reach=Reach.GLOBAL, port=1024, interfaces=interfaces, random=os.urandom
        )
    group = ip(address)
    assert isinstance(group, IPv6Address)
    return group


def prefix_of(group: IPv6Address) -> IPv6Network:
    """Read the prefix out of a group (RFC 3306, section 4)."""
    packed = group.packed
    assert packed[:3] == b"\xff\x3e\x00"
    return IPv6Network((packed[4:12] + bytes(8), packed[3]))


def test_a_group_of_the_prefix_of_the_interface(lab: Lab) -> None:
    host = two_hosts(lab).left
    assert host.interfaces[0].subnet.v6 is not None
    prefix = host.interfaces[0].subnet.v6
    first, second = create(host), create(host, "eth0")
    assert prefix_of(first) == prefix_of(second) == prefix
    assert first != second
    assert create(host, key=bytes(32)) == create(host, key=bytes(32)) != create(host, key=bytes(31) + b"x")
    with host.entered():
        text, interface = new_prefixed_ipv6()
        assert (prefix_of(IPv6Address(text)), interface) == (prefix, "eth0")
        assert new_prefixed_ipv6("eth0")[1] == "eth0"


@pytest.mark.parametrize(
    ("subnet", "prefix"),
    [
        ("2001:db8:7::/48", "2001:db8:7::/48"),
        ("2001:db8:7:8:9::/80", "2001:db8:7:8::/64"),
        ("2001:db8:7:8::/126", "2001:db8:7:8::/64"),
        ("fd00:7:8:9::/64", "fd00:7:8:9::/64"),
    ],
)
def test_prefixes_longer_than_64_are_cut(lab: Lab, subnet: str, prefix: str) -> None:
    host, other = lab.host("host"), lab.host("other")
    lab.link(host, other, Subnet(v6=subnet))
    assert prefix_of(create(host)) == IPv6Network(prefix)


def test_a_global_prefix_is_preferred_to_a_unique_local_one(lab: Lab) -> None:
    host, other = lab.host("host"), lab.host("other")
    lab.link(host, other, Subnet(v6="fd00:1::/64"))
    lab.link(host, other, Subnet(v6="2001:db8:2::/64"))
    assert prefix_of(create(host)) == IPv6Network("2001:db8:2::/64")
    assert prefix_of(create(host, "eth0")) == IPv6Network("fd00:1::/64")


def test_without_a_prefix_the_error_says_what_to_do(lab: Lab) -> None:
    host, other = lab.host("host"), lab.host("other")
    lab.link(host, other, Subnet(v4="10.7.0.0/24"))
    with pytest.raises(NoMulticast, match=r"no global or unique-local.*lo: .*eth0: .*transport v6"):
        create(host)
    with pytest.raises(NoMulticast) as caught, host.entered():
        new_prefixed_ipv6("eth0")
    assert caught.value.interface == "eth0"
    assert "lo:" not in str(caught.value)
