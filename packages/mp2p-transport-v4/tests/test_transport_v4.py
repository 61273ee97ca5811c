"""The transport v4: its addresses, its plugin, and the transport kit on loopback."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from ipaddress import IPv4Address

import pytest

from mp2p_core.errors import AddressError
from mp2p_core.plugins import load_transports
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.testing.conformance import check_transport
from mp2p_core.transport import Reach
from mp2p_transport_v4 import IPV4, new_ipv4

KEY = bytes(range(32))


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="IPv4 multicast over lo needs no set-up on Linux only")
async def test_the_transport_kit_passes_on_loopback() -> None:
    assert "two nodes talk" in await check_transport(IPV4, port=21025)


def test_the_plugin_is_found() -> None:
    loaded = load_transports()
    assert "v4" not in loaded.failures
    assert loaded.transports["v4"] is IPV4
    (point,) = [point for point in metadata.entry_points(group="mp2p") if point.name == "v4"]
    assert point.value == "mp2p_transport_v4.plugin"


def test_new_ipv4_draws_from_the_range_of_its_reach() -> None:
    for reach, first, last in (
        (Reach.GLOBAL, "224.0.224.0", "224.0.249.255"),
        (Reach.HOST, "224.0.224.0", "224.0.249.255"),
        (Reach.SITE, "239.192.0.0", "239.195.255.255"),
        (Reach.LINK, "239.255.0.0", "239.255.255.255"),
    ):
        for _ in range(50):
            assert IPv4Address(first) <= IPv4Address(new_ipv4(reach=reach)) <= IPv4Address(last)
    assert new_ipv4(random=bytes) == "224.0.224.0"
    assert new_ipv4() != new_ipv4() or new_ipv4() != new_ipv4()


def test_addresses_are_derived_drawn_and_read_back() -> None:
    derived = IPV4.derive_address(KEY, Reach.GLOBAL, 1024)
    assert derived == IPV4.create_address(
        key=KEY, reach=Reach.GLOBAL, port=1024, interfaces=(), random=os.urandom
    )
    assert IPV4.format_address(derived) == "224.0.230.146:1024"
    assert IPV4.parse_address("224.0.230.146") == derived
    drawn = IPV4.create_address(key=None, reach=Reach.LINK, port=2000, interfaces=(), random=bytes)
    assert IPV4.format_address(drawn) == "239.255.0.0:2000"


@pytest.mark.parametrize(
    "text", ["224.0.0.251:1024", "192.0.2.1:1024", "224.0.230.7:53", "ff1e::8000:1", "x"]
)
def test_L3_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(AddressError):
        IPV4.parse_address(text)


def test_R1_strangers_are_answered_at_their_source_only() -> None:
    source, group = pack_ipv4("192.0.2.1", 5000), pack_ipv4("224.0.230.7", 1024)
    assert IPV4.may_answer(source, source, group)
    assert not IPV4.may_answer(pack_ipv4("192.0.2.2", 5000), source, group)
