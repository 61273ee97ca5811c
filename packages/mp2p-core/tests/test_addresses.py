"""Address records, the ranges of section 5, and the answer policy (rows P10, R1, R2, L3)."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import AddressError
from mp2p_core.proto import addresses as a
from mp2p_core.transport import Reach

KEY = bytes(range(32))
REACHES = list(Reach)
V4_GROUP = a.pack_ipv4("224.0.230.7", 1024)
V6_GROUP = a.pack_ipv6("ff1e::8000:1", 1024)
V4_PEER = a.pack_ipv4("192.0.2.9", 40000)
V6_PEER = a.pack_ipv6("2001:db8::9", 40000)


def record(kind: int, host: str, port: int, second: int = 0) -> bytes:
    """Build a record without any of the checks."""
    address = IPv6Address(host) if ":" in host else IPv4Address(host)
    packed = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    return bytes([kind, second]) + port.to_bytes(2) + packed


def random_bytes(count: int) -> bytes:
    return random.Random(0).randbytes(count)


def test_layout_is_kind_zero_port_address() -> None:
    assert a.pack_ipv4("224.0.230.7", 1024).hex() == "04000400" + "00" * 10 + "ffff" + "e000e607"
    assert a.pack_ipv6("ff1e::8000:1", 0xABCD).hex() == "0600abcd" + "ff1e" + "00" * 10 + "80000001"


@pytest.mark.parametrize(
    ("text", "written"),
    [("224.0.230.7", "224.0.230.7:1024"), ("224.0.230.7:2000", "224.0.230.7:2000")],
)
def test_ipv4_text(text: str, written: str) -> None:
    assert a.format_host_port(a.parse_ipv4(text)) == written


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("ff1e::1", "[ff1e::1]:1024"),
        ("[ff1e::1]", "[ff1e::1]:1024"),
        ("[FF1E:0::1]:65535", "[ff1e::1]:65535"),
    ],
)
def test_ipv6_text(text: str, written: str) -> None:
    assert a.format_host_port(a.parse_ipv6(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "224.0.230",
        "224.0.230.7:",
        "224.0.230.7:x",
        "224.0.230.7:70000",
        "224.0.230.7:-1",
        "224.0.230.7:1_0",
        "224.0.230.07",
        " 224.0.230.7",
        "224.0.230.7:\u0661\u0660\u0662\u0664",
        "ff1e::1",
        "224.0.230.7:0001024",
    ],
)
def test_L3_bad_ipv4_text(text: str) -> None:
    with pytest.raises(AddressError):
        a.parse_ipv4(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[ff1e::1",
        "ff1e::1]:5",
        "[ff1e::1]:",
        "[ff1e::1]5",
        "[ff1e::1]:x",
        "[ff1e::1%eth0]:1024",
        "ff1e::1%2",
        "224.0.230.7",
        "::ffff:224.0.230.7",
        "[ff1e::1]:65536",
    ],
)
def test_L3_bad_ipv6_text(text: str) -> None:
    with pytest.raises(AddressError):
        a.parse_ipv6(text)


@given(st.ip_addresses(v=4), st.integers(0, 65535))
def test_ipv4_round_trip(host: IPv4Address, port: int) -> None:
    packed = a.pack_ipv4(str(host), port)
    assert (a.kind(packed), a.ip(packed), a.port(packed)) == (4, host, port)
    assert a.parse_ipv4(a.format_host_port(packed)) == packed
    assert a.is_multicast(packed) == host.is_multicast


@given(st.ip_addresses(v=6).filter(lambda host: host.ipv4_mapped is None), st.integers(0, 65535))
def test_ipv6_round_trip(host: IPv6Address, port: int) -> None:
    packed = a.pack_ipv6(str(host), port)
    assert (a.kind(packed), a.ip(packed), a.port(packed)) == (6, host, port)
    assert a.parse_ipv6(a.format_host_port(packed)) == packed
    assert a.is_multicast(packed) == host.is_multicast


def test_records_of_other_kinds_have_no_text() -> None:
    for address in (a.SOURCE_SEEN, record(7, "::1", 1), record(0x80, "ff1e::8000:1", 1024), b"", bytes(21)):
        with pytest.raises(AddressError):
            a.format_host_port(address)


# What may be listened on.

ALLOWED = [
    (4, "224.0.224.0", Reach.GLOBAL),
    (4, "224.0.249.255", Reach.GLOBAL),
    (4, "239.255.0.0", Reach.LINK),
    (4, "239.255.255.255", Reach.LINK),
    (4, "239.192.0.0", Reach.SITE),
    (4, "239.195.255.255", Reach.SITE),
    (6, "ff1e::8000:0", Reach.GLOBAL),
    (6, "ff1e:1:2:3:4:5:feff:ffff", Reach.GLOBAL),
    (6, "ff12::8000:0", Reach.LINK),
    (6, "ff15::8000:0", Reach.SITE),
    (6, "ff3e:40:2001:db8:1:2:8000:0", Reach.GLOBAL),
    (6, "ff3e:30:2001:db8:1:0:ffff:ffff", Reach.GLOBAL),
    (6, "ff3e:1:8000::8000:0", Reach.GLOBAL),
]
REFUSED = [
    (4, "224.0.0.1"),
    (4, "224.0.0.251"),
    (4, "224.0.223.255"),
    (4, "224.0.250.0"),
    (4, "224.128.0.5"),
    (4, "232.1.2.3"),
    (4, "239.191.255.255"),
    (4, "239.196.0.0"),
    (4, "239.254.255.255"),
    (4, "192.0.2.1"),
    (4, "255.255.255.255"),
    (4, "127.0.0.1"),
    (4, "0.0.0.0"),
    (6, "ff02::1"),
    (6, "ff02::8000:1"),
    (6, "ff0e::8000:1"),
    (6, "ff0e::1"),
    (6, "ff7e:140:2001:db8::8000:1"),
    (6, "ff10::8000:1"),
    (6, "ff1f::8000:1"),
    (6, "ff11::8000:1"),
    (6, "ff18::8000:1"),
    (6, "ff1e::7fff:ffff"),
    (6, "ff1e::ff00:0"),
    (6, "ff1e::1"),
    (6, "ff32:40:2001:db8::8000:1"),
    (6, "ff3e:0:2001:db8::8000:1"),
    (6, "ff3e:41:2001:db8::8000:1"),
    (6, "ff3e:ff:2001:db8::8000:1"),
    (6, "ff3e:140:2001:db8::8000:1"),
    (6, "ff3e:30:2001:db8:0:1:8000:1"),
    (6, "ff3e:40:2001:db8::7fff:ffff"),
    (6, "ff3f:40:2001:db8::8000:1"),
    (6, "2001:db8::1"),
    (6, "::"),
    (6, "::1"),
]


@pytest.mark.parametrize(("kind", "host", "reach"), ALLOWED)
def test_allowed_group(kind: int, host: str, reach: Reach) -> None:
    for port in (1024, 65535):
        assert a.scope(record(kind, host, port)) is reach


@pytest.mark.parametrize(("kind", "host"), REFUSED)
def test_L3_refused_group_names_itself(kind: int, host: str) -> None:
    address = record(kind, host, 1024)
    with pytest.raises(AddressError, match="may choose"):
        a.check_group(address)


@pytest.mark.parametrize("prefix", range(256))
def test_R2_prefix_length_is_1_to_64(prefix: int) -> None:
    address = record(6, f"ff3e:{prefix:x}::8000:1", 1024)
    if 1 <= prefix <= 64:
        a.check_group(address)
    else:
        with pytest.raises(AddressError, match="prefix length"):
            a.check_group(address)


@pytest.mark.parametrize("port", [0, 53, 1023])
def test_L3_port_of_a_group_is_at_least_1024(port: int) -> None:
    for kind, host in ((4, "224.0.230.7"), (6, "ff1e::8000:1")):
        with pytest.raises(AddressError, match="1024"):
            a.check_group(record(kind, host, port))


MALFORMED = [
    a.SOURCE_SEEN,
    record(7, "ff1e::8000:1", 1024),
    record(6, "224.0.230.7", 1024),
    record(4, "ff1e::8000:1", 1024),
    record(0x80, "ff1e::8000:1", 1024),
    record(6, "ff1e::8000:1", 1024, second=1),
    record(4, "224.0.230.7", 1024, second=1),
    b"",
    V4_GROUP[:-1],
    V4_GROUP + b"\0",
]


@pytest.mark.parametrize("address", MALFORMED, ids=bytes.hex)
def test_P10_malformed_record(address: bytes) -> None:
    with pytest.raises(AddressError):
        a.check_group(address)
    for others in ((V4_PEER, V4_GROUP), (V6_PEER, V6_GROUP)):
        assert not a.may_answer(address, *others)
        assert not a.may_answer(others[0], address, others[1])
        assert not a.may_answer(*others, address)
    assert not a.may_answer(address, address, address)


def test_no_ipv4_group_shares_a_mac_address_with_224_0_0() -> None:
    ends = [record(4, host, 1024) for kind, host, _ in ALLOWED if kind == 4]
    for first, last in zip(ends[::2], ends[1::2], strict=True):
        a.check_group(first)
        a.check_group(last)
        low, high = (int(a.ip(end)) & 0x7FFFFF for end in (first, last))
        assert 256 <= low < high, "a range that does not wrap round 23 bits and begins above 255"


# Groups made.


@pytest.mark.parametrize(
    ("reach", "v4", "v6"),
    [
        (Reach.GLOBAL, "224.0.230.146:1024", "[ff1e:ff15:9092:70b5:a96c:3e53:eaea:fa4e]:1024"),
        (Reach.HOST, "224.0.230.146:1024", "[ff1e:ff15:9092:70b5:a96c:3e53:eaea:fa4e]:1024"),
        (Reach.SITE, "239.193.101.146:1024", "[ff15:ff15:9092:70b5:a96c:3e53:eaea:fa4e]:1024"),
        (Reach.LINK, "239.255.165.146:1024", "[ff12:ff15:9092:70b5:a96c:3e53:eaea:fa4e]:1024"),
    ],
)
def test_derived_groups_are_frozen(reach: Reach, v4: str, v6: str) -> None:
    """Two nodes of different versions find each other by these very values."""
    assert a.format_host_port(a.derive_group_v4(KEY, reach, 1024)) == v4
    assert a.format_host_port(a.derive_group_v6(KEY, reach, 1024)) == v6


@given(st.binary(min_size=32, max_size=32), st.sampled_from(REACHES), st.integers(1024, 65535))
def test_made_groups_are_allowed_and_of_their_reach(key: bytes, reach: Reach, port: int) -> None:
    network = IPv6Network((b"\x20\x01" + key[:14], 128)).supernet(new_prefix=3 + key[0] % 126)
    groups = [
        a.derive_group_v4(key, reach, port),
        a.derive_group_v6(key, reach, port),
        a.random_group_v4(reach, port, lambda n: key[:n]),
        a.random_group_v6(reach, port, lambda n: key[:n]),
    ]
    for group in groups:
        a.check_group(group)
        assert a.port(group) == port
        assert a.scope(group) is (Reach.GLOBAL if reach is Reach.HOST else reach)
    for group in (
        a.derive_prefix_group(network, key, port),
        a.random_prefix_group(network, port, random_bytes),
    ):
        a.check_group(group)


def test_extreme_hashes_stay_inside_the_ranges() -> None:
    for filler in (b"\0", b"\x7f", b"\xfe", b"\xff"):
        for reach in REACHES:
            a.check_group(a.random_group_v4(reach, 1024, lambda n, filler=filler: filler * n))
            a.check_group(a.random_group_v6(reach, 1024, lambda n, filler=filler: filler * n))


def test_well_known_ends_of_administrative_ranges_are_never_made() -> None:
    """RFC 2365, section 9: 239.255.255.250 (SSDP), for one, is joined by most desktop computers."""
    for value in range(0, 1 << 32, 65521 * 7):
        made = a.random_group_v4(Reach.LINK, 1024, lambda n, value=value: value.to_bytes(4) + bytes(n - 4))
        assert a.ip(made) < IPv4Address("239.255.255.0")
    made = a.random_group_v4(Reach.SITE, 1024, lambda n: (261887).to_bytes(4) + bytes(n - 4))
    assert str(a.ip(made)) == "239.195.254.255"


@pytest.mark.parametrize(
    ("network", "lead"),
    [
        ("2001:db8:1:2::/64", "ff3e:40:2001:db8:1:2:"),
        ("2001:db8:1:2:3::/80", "ff3e:40:2001:db8:1:2:"),
        ("2001:db8:1:2::1/128", "ff3e:40:2001:db8:1:2:"),
        ("2001:db8::/32", "ff3e:20:2001:db8::"),
        ("fd00:1::/48", "ff3e:30:fd00:1::"),
    ],
)
def test_prefix_groups_carry_the_prefix(network: str, lead: str) -> None:
    group = a.derive_prefix_group(IPv6Network(network), KEY, 1024)
    assert str(a.ip(group)).startswith(lead)
    assert group[16:] == a.derive_group_v6(KEY, Reach.GLOBAL, 1024)[16:]


@pytest.mark.parametrize("network", ["::/0", "fe80::/64", "ff00::/8", "::1/128", "4000::/2", "64:ff9b::/96"])
def test_L3_prefix_that_is_no_global_or_unique_local_one(network: str) -> None:
    with pytest.raises(AddressError, match="unique-local"):
        a.random_prefix_group(IPv6Network(network), 1024, random_bytes)


@pytest.mark.parametrize("port", [0, 1023, 65536, -1])
def test_L3_groups_are_not_made_for_a_bad_port(port: int) -> None:
    for make in (
        lambda: a.derive_group_v4(KEY, Reach.GLOBAL, port),
        lambda: a.derive_group_v6(KEY, Reach.GLOBAL, port),
        lambda: a.random_group_v4(Reach.GLOBAL, port, random_bytes),
        lambda: a.random_prefix_group(IPv6Network("2001:db8::/64"), port, random_bytes),
    ):
        with pytest.raises(AddressError):
            make()


# Where a stranger may be answered.


@pytest.mark.parametrize(("peer", "group"), [(V4_PEER, V4_GROUP), (V6_PEER, V6_GROUP)], ids=["v4", "v6"])
def test_R1_unicast_answers_go_to_the_source_only(peer: bytes, group: bytes) -> None:
    assert a.may_answer(peer, peer, group)
    other_port = peer[:2] + (1).to_bytes(2) + peer[4:]
    assert a.may_answer(other_port, peer, group)
    assert not a.may_answer(peer[:2] + bytes(2) + peer[4:], peer, group), "port 0"
    for byte in range(16, 20):
        victim = bytearray(peer)
        victim[byte] ^= 1
        assert not a.may_answer(bytes(victim), peer, group)


def test_R1_loopback_is_answered_only_when_it_asked() -> None:
    for loopback, peer, group in (
        (a.pack_ipv4("127.0.0.1", 5000), V4_PEER, V4_GROUP),
        (a.pack_ipv6("::1", 5000), V6_PEER, V6_GROUP),
    ):
        assert a.may_answer(loopback, loopback, group)
        assert not a.may_answer(loopback, peer, group)


@pytest.mark.parametrize(
    ("kind", "host"),
    [(4, "0.0.0.0"), (4, "255.255.255.255"), (4, "0.1.2.3"), (4, "240.0.0.1"), (6, "::")],
)
def test_P10_places_that_are_no_hosts(kind: int, host: str) -> None:
    address = record(kind, host, 5000)
    group = V4_GROUP if kind == 4 else V6_GROUP
    assert not a.may_answer(address, address, group)


def test_R1_a_source_that_is_a_group_is_a_forgery() -> None:
    assert not a.may_answer(V4_GROUP, V4_GROUP, V4_GROUP)
    assert not a.may_answer(V6_GROUP, V6_GROUP, V6_GROUP)


def test_R2_answers_stay_in_the_family_of_the_request() -> None:
    assert not a.may_answer(V6_GROUP, V4_PEER, V4_GROUP)
    assert not a.may_answer(V4_GROUP, V6_PEER, V6_GROUP)
    assert not a.may_answer(V6_GROUP, V6_PEER, V4_GROUP)
    assert not a.may_answer(V6_GROUP, V4_PEER, V6_GROUP)


@pytest.mark.parametrize(("kind", "host"), REFUSED)
def test_R2_answers_to_groups_stay_in_the_allowed_ranges(kind: int, host: str) -> None:
    peer, group = (V4_PEER, V4_GROUP) if kind == 4 else (V6_PEER, V6_GROUP)
    assert not a.may_answer(record(kind, host, 1024), peer, group)


@pytest.mark.parametrize("port", [0, 1, 53, 1023])
def test_R2_answers_to_groups_spare_the_ports_of_services(port: int) -> None:
    assert not a.may_answer(record(4, "224.0.230.8", port), V4_PEER, V4_GROUP)
    assert not a.may_answer(record(6, "ff1e::8000:2", port), V6_PEER, V6_GROUP)
    assert a.may_answer(record(4, "224.0.230.8", 1024), V4_PEER, V4_GROUP)
    assert a.may_answer(record(6, "ff1e::8000:2", 1024), V6_PEER, V6_GROUP)


@pytest.mark.parametrize(
    ("peer", "groups"),
    [
        (V4_PEER, ["239.255.1.1", "239.192.1.1", "224.0.230.8"]),
        (V6_PEER, ["ff12::8000:1", "ff15::8000:1", "ff1e::8000:1"]),
        (V6_PEER, ["ff12::8000:1", "ff15::8000:1", "ff3e:40:2001:db8::8000:1"]),
    ],
    ids=["v4", "v6", "v6-prefix"],
)
def test_R2_answers_to_groups_are_no_wider_than_the_request(peer: bytes, groups: list[str]) -> None:
    records = [record(peer[0], host, 1024) for host in groups]
    for width, answer_to in enumerate(records):
        for asked, arrived_at in enumerate(records):
            assert a.may_answer(answer_to, peer, arrived_at) == (width <= asked)


def test_R2_a_request_to_no_group_is_not_answered_on_one() -> None:
    assert not a.may_answer(V4_GROUP, V4_PEER, a.pack_ipv4("192.0.2.1", 1024))
    assert not a.may_answer(V6_GROUP, V6_PEER, a.pack_ipv6("2001:db8::1", 1024))
    assert a.may_answer(V4_PEER, V4_PEER, a.pack_ipv4("192.0.2.1", 1024))


ANY_RECORD = st.one_of(
    st.binary(max_size=24),
    st.builds(
        lambda lead, rest: lead + rest,
        st.sampled_from([b"\4\0", b"\6\0"]),
        st.binary(min_size=18, max_size=18),
    ),
    st.sampled_from([V4_GROUP, V6_GROUP, V4_PEER, V6_PEER]),
)


@given(ANY_RECORD, ANY_RECORD, ANY_RECORD)
def test_P10_answer_policy_never_raises(answer_to: bytes, heard_from: bytes, arrived_at: bytes) -> None:
    if a.may_answer(answer_to, heard_from, arrived_at):
        assert answer_to[0] == heard_from[0] == arrived_at[0]
        assert a.is_multicast(answer_to) or answer_to[4:] == heard_from[4:]
