"""The transports v6 and v6-prefix: addresses, plugin, and errors; sockets are tested on a network."""

from __future__ import annotations

import os
from importlib import metadata
from ipaddress import IPv6Address, ip_interface

import pytest

from mp2p_core.errors import AddressError, NoMulticast
from mp2p_core.plugins import load_transports
from mp2p_core.proto.addresses import pack_ipv6
from mp2p_core.transport import Reach, Transport
from mp2p_transport_v6 import IPV6, IPV6_PREFIX, new_ipv6, new_ipv6_from_prefix, new_prefixed_ipv6, prefix
from mp2p_udp import Interface

KEY = bytes(range(32))
USABLE = frozenset({"up", "running", "multicast"})


def set_interfaces(monkeypatch: pytest.MonkeyPatch, **addresses: str) -> None:
    """Let this machine have these interfaces, each with the addresses given."""
    found = [
        Interface(name, index, USABLE, tuple(map(ip_interface, text.split())), 1500)
        for index, (name, text) in enumerate(addresses.items(), 1)
    ]
    monkeypatch.setattr(prefix, "list_interfaces", lambda: found)


def test_the_plugins_are_found() -> None:
    loaded = load_transports()
    assert "v6" not in loaded.failures
    assert loaded.transports["v6"] is IPV6
    assert loaded.transports["v6-prefix"] is IPV6_PREFIX
    (point,) = [point for point in metadata.entry_points(group="mp2p") if point.name == "v6"]
    assert point.value == "mp2p_transport_v6.plugin"
    assert all(isinstance(transport, Transport) for transport in (IPV6, IPV6_PREFIX))
    assert (IPV6.default, IPV6_PREFIX.default) == (True, False)
    assert IPV6.family == IPV6_PREFIX.family


def test_new_ipv6_draws_from_the_range_of_its_reach() -> None:
    for reach, lead in (
        (Reach.GLOBAL, 0xFF1E),
        (Reach.HOST, 0xFF1E),
        (Reach.SITE, 0xFF15),
        (Reach.LINK, 0xFF12),
    ):
        for _ in range(50):
            address = int(IPv6Address(new_ipv6(reach=reach)))
            assert address >> 112 == lead
            assert 0x80000000 <= address & 0xFFFFFFFF <= 0xFEFFFFFF
    assert new_ipv6(random=bytes) == "ff1e::8000:0"
    assert new_ipv6() != new_ipv6()


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("2001:db8:1:2::/64", "ff3e:40:2001:db8:1:2:8000:0"),
        ("2001:db8:1:2:3::/96", "ff3e:40:2001:db8:1:2:8000:0"),
        ("2001:db8::/32", "ff3e:20:2001:db8::8000:0"),
        ("fd12:3456:789a::/48", "ff3e:30:fd12:3456:789a:0:8000:0"),
    ],
)
def test_new_ipv6_from_prefix(network: str, address: str) -> None:
    assert new_ipv6_from_prefix(network, random=bytes) == str(IPv6Address(address))
    assert new_ipv6_from_prefix(network) != new_ipv6_from_prefix(network)
    IPV6.parse_address(address)


@pytest.mark.parametrize(
    "network", ["", "x", "192.0.2.0/24", "2001:db8::1/64", "fe80::/64", "::/0", "2001:db8::/129"]
)
def test_L3_bad_prefixes_are_refused(network: str) -> None:
    with pytest.raises(AddressError):
        new_ipv6_from_prefix(network)


def test_new_prefixed_ipv6_prefers_a_global_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    set_interfaces(
        monkeypatch,
        eth0="192.0.2.1/24 fe80::1/64",
        eth1="fe80::1/64 fd00:1::1/64",
        eth2="fd00:2::1/64 2001:db8:2::1/64",
    )
    assert new_prefixed_ipv6(random=bytes) == ("ff3e:40:2001:db8:2:0:8000:0", "eth2")
    assert new_prefixed_ipv6("eth1", random=bytes) == ("ff3e:40:fd00:1::8000:0", "eth1")


def test_without_a_prefix_the_error_lists_why(monkeypatch: pytest.MonkeyPatch) -> None:
    set_interfaces(monkeypatch, eth0="192.0.2.1/24", eth1="fe80::1/64")
    with pytest.raises(NoMulticast, match="eth0: it has no IPv6 address; eth1: it has neither") as caught:
        new_prefixed_ipv6()
    assert caught.value.interface is None
    with pytest.raises(NoMulticast, match="eth1: it has neither") as caught:
        new_prefixed_ipv6("eth1")
    assert caught.value.interface == "eth1"
    with pytest.raises(NoMulticast, match="no interface of this name"):
        new_prefixed_ipv6("eth9")
    set_interfaces(monkeypatch)
    with pytest.raises(NoMulticast, match="no interfaces at all"):
        new_prefixed_ipv6()


def test_v6_addresses_are_derived_drawn_and_read_back() -> None:
    derived = IPV6.derive_address(KEY, Reach.GLOBAL, 1024)
    assert derived == IPV6.create_address(
        key=KEY, reach=Reach.GLOBAL, port=1024, interfaces=(), random=os.urandom
    )
    assert IPV6.format_address(derived) == "[ff1e:ff15:9092:70b5:a96c:3e53:eaea:fa4e]:1024"
    for transport in (IPV6, IPV6_PREFIX):
        assert transport.parse_address("ff1e:ff15:9092:70b5:a96c:3e53:eaea:fa4e") == derived
        transport.parse_address("[ff3e:40:2001:db8::8000:1]:1026")


def test_v6_prefix_addresses_follow_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    set_interfaces(monkeypatch, eth0="2001:db8:7:8::1/56")
    assert IPV6_PREFIX.derive_address(KEY, Reach.GLOBAL, 1024) is None
    for key, ending in ((KEY, "eaea:fa4e"), (None, "8000:0")):
        address = IPV6_PREFIX.create_address(
            key=key, reach=Reach.SITE, port=1026, interfaces=("eth0",), random=bytes
        )
        assert IPV6_PREFIX.format_address(address) == f"[ff3e:38:2001:db8:7:0:{ending}]:1026"


@pytest.mark.parametrize(
    "text", ["ff02::1", "[ff1e::1]:1024", "[ff1e::8000:1]:53", "2001:db8::1", "224.0.230.7"]
)
def test_L3_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        IPV6.parse_address(text)


def test_R1_strangers_are_answered_at_their_source_only() -> None:
    source, group = pack_ipv6("2001:db8::1", 5000), pack_ipv6("ff1e::8000:1", 1024)
    assert IPV6.may_answer(source, source, group)
    assert not IPV6.may_answer(pack_ipv6("2001:db8::2", 5000), source, group)
