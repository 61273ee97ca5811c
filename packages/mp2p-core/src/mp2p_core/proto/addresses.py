"""Address records, the ranges groups may come from, and where a stranger may be answered (sections 3 and 5).

A record is 20 bytes, in big-endian order:

    0  1 kind: 0 = the source that was seen, 4 = IPv4, 6 = IPv6, 0x80..0xff = the transport's own
    1  1 zero
    2  2 port
    4 16 address; IPv4 as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2)

Groups that a node may choose for itself, and the only ones it listens on or answers to:

    224.0.224.0 to 224.0.249.255      IPv4, reach global and host
    239.192.0.0/14                    IPv4, reach site
    239.255.0.0/16                    IPv4, reach link
    ff1e::/16, ff15::/16, ff12::/16   IPv6 transient: global and host, site, link;
                                      low 32 bits 0x80000000 to 0xfeffffff (RFC 3307, section 4.3)
    ff3e:00LL:prefix64:gid32          IPv6 unicast-prefix-based (RFC 3306): LL 1 to 64,
                                      prefix bits past LL zero, gid from 0x80000000

Of the IPv4 ranges no address has its low 23 bits below 256, so none shares a MAC address with 224.0.0.x,
which switches flood; a test holds the ranges to that.
"""

from __future__ import annotations

from hashlib import blake2s
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from struct import Struct
from typing import Final

from mp2p_core.errors import AddressError
from mp2p_core.proto.constants import DEFAULT_PORT
from mp2p_core.transport import ADDRESS_SIZE, Address, RandomBytes, Reach

__all__ = [
    "DEFAULT_PORT",
    "IPV4",
    "IPV6",
    "SOURCE_SEEN",
    "check_classic_group",
    "check_group",
    "derive_group_v4",
    "derive_group_v6",
    "derive_prefix_group",
    "format_host_port",
    "ip",
    "is_multicast",
    "kind",
    "may_answer",
    "may_answer_classic",
    "pack_ipv4",
    "pack_ipv6",
    "parse_ipv4",
    "parse_ipv6",
    "port",
    "random_group_v4",
    "random_group_v6",
    "random_prefix_group",
    "reaches_further",
    "scope",
    "unspecified",
]

# Specification constants (section 5).

SOURCE_SEEN: Final[Address] = bytes(ADDRESS_SIZE)
"""The record that means "answer to the source you saw"."""
IPV4: Final = 4
IPV6: Final = 6
MIN_GROUP_PORT: Final = 1024

_MAPPED: Final = bytes(10) + b"\xff\xff"
_GROUP_LABEL: Final = b"mp2p-v1 group\0"
_GROUP_ID_SIZE: Final = 14

# (first address, number of addresses accepted, number generated from). RFC 2365, section 9 reserves the
# highest 256 addresses of an administratively scoped range, so they are accepted and never generated:
# 239.255.255.250, for one, is joined by almost every desktop computer (SSDP).
_V4_RANGES: Final = {
    Reach.GLOBAL: (0xE000_E000, 6656, 6656),
    Reach.SITE: (0xEFC0_0000, 1 << 18, (1 << 18) - 256),
    Reach.LINK: (0xEFFF_0000, 1 << 16, (1 << 16) - 256),
}
_V6_TRANSIENT: Final = {b"\xff\x1e": Reach.GLOBAL, b"\xff\x15": Reach.SITE, b"\xff\x12": Reach.LINK}
_V6_LEADS: Final = {reach: lead for lead, reach in _V6_TRANSIENT.items()}
_V6_PREFIXED: Final = b"\xff\x3e\x00"
_MAX_PREFIX: Final = 64
_MAX_CLASSIC_PREFIX: Final = 128
# Where RFC 3306, section 4 lets a prefix-based group of global scope come from.
_UNICAST: Final = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
_MIN_GID: Final = 0x8000_0000
# 0xff...... would share its MAC addresses with solicited-node groups (RFC 4291, section 2.7.1).
_END_GID: Final = 0xFF00_0000

_HEAD: Final = Struct("!BBH")


def kind(address: Address) -> int:
    """Return the kind of a record."""
    return address[0]


def port(address: Address) -> int:
    """Return the port of a record."""
    return address[2] << 8 | address[3]


def ip(address: Address) -> IPv4Address | IPv6Address:
    """Return the IP address of a record; raises `AddressError` when the record holds none."""
    if (rule := _malformed(address)) is not None:
        raise AddressError(f"this address record names no IP address: {rule}")
    return IPv4Address(address[16:]) if address[0] == IPV4 else IPv6Address(address[4:])


def is_multicast(address: Address) -> bool:
    """Tell whether a well-formed IPv4 or IPv6 record names a group."""
    return address[16] >> 4 == 0xE if address[0] == IPV4 else address[0] == IPV6 and address[4] == 0xFF


def pack_ipv4(host: str | bytes, port: int) -> Address:
    """Make a record from dotted text, or 4 bytes, and a port; raises `AddressError`."""
    try:
        packed = IPv4Address(host).packed
    except ValueError as error:
        raise AddressError(f"{host!r} is no IPv4 address: {error}") from None
    return _head(IPV4, port) + _MAPPED + packed


def pack_ipv6(host: str, port: int) -> Address:
    """Make a record from IPv6 text and a port; raises `AddressError`."""
    try:
        address = IPv6Address(host)
    except ValueError as error:
        raise AddressError(f"{host!r} is no IPv6 address: {error}") from None
    if address.scope_id is not None:
        raise AddressError(f"{host!r} names an interface after '%': addresses of peers do not, leave it out")
    if address.ipv4_mapped is not None:
        raise AddressError(f"{host!r} is an IPv4 address inside IPv6: write {address.ipv4_mapped} with v4")
    return _head(IPV6, port) + address.packed


def parse_ipv4(text: str) -> Address:
    """Read "HOST" or "HOST:PORT" (port 1024 when not given); raises `AddressError` naming the rule."""
    host, colon, digits = text.partition(":")
    return pack_ipv4(host, _parse_port(text, digits) if colon else DEFAULT_PORT)


def parse_ipv6(text: str) -> Address:
    """Read "HOST", "[HOST]" or "[HOST]:PORT" (port 1024 when not given); raises `AddressError`."""
    if not text.startswith("["):
        return pack_ipv6(text, DEFAULT_PORT)
    host, bracket, rest = text[1:].partition("]")
    if not bracket or (rest and not rest.startswith(":")):
        raise AddressError(f"{text!r} is no IPv6 address with a port: write [ADDRESS]:PORT")
    return pack_ipv6(host, _parse_port(text, rest[1:]) if rest else DEFAULT_PORT)


def format_host_port(address: Address) -> str:
    """Write "224.0.230.7:1024" or "[ff1e::8000:1]:1024"; raises `AddressError` for other kinds."""
    host = ip(address)
    return f"{host}:{port(address)}" if address[0] == IPV4 else f"[{host}]:{port(address)}"


def check_group(address: Address) -> None:
    """Raise `AddressError`, naming the rule, unless a node may choose this group for itself (section 5)."""
    rule = _malformed(address) or _broken_rule(address)
    if rule is not None:
        name = format_host_port(address) if _malformed(address) is None else address.hex()
        raise AddressError(f"{name} is not a group that a node may choose: {rule}")


def check_classic_group(address: Address) -> None:
    """Raise `AddressError`, naming the rule, unless the original may have chosen this group (section 10)."""
    rule = _malformed(address) or _broken_classic_rule(address)
    if rule is not None:
        name = format_host_port(address) if _malformed(address) is None else address.hex()
        raise AddressError(f"{name} is not a group of the classic profile: {rule}")


def scope(group: Address) -> Reach:
    """Return how far a group may be routed by its very address: LINK, SITE or GLOBAL. It has passed `check_group`."""
    if group[0] == IPV6:
        return _V6_TRANSIENT.get(group[4:6], Reach.GLOBAL)
    if group[16] == 0xE0:
        return Reach.GLOBAL
    return Reach.LINK if group[17] == 0xFF else Reach.SITE


def reaches_further(one: Address, other: Address) -> bool:
    """Tell whether a group may be routed further than another; False for what are no two groups of one family.

    Both have passed `check_group`.
    """
    if one[0] not in (IPV4, IPV6) or other[0] != one[0]:
        return False
    if not (is_multicast(one) and is_multicast(other)):
        return False
    return scope(one).value > scope(other).value


def derive_group_v4(key: bytes, reach: Reach, port: int) -> Address:
    """Compute the IPv4 group where the node with this key listens (section 5).

    The first 4 bytes of the hash, modulo 6656 (site 261888, link 65280), are added to the first address.
    """
    return _group_v4(_group_id(key), reach, port)


def derive_group_v6(key: bytes, reach: Reach, port: int) -> Address:
    """Compute the IPv6 group where the node with this key listens (section 5).

    The hash follows ff1e (site ff15, link ff12); its low 32 bits become 0x80000000 + (them mod 0x7f000000).
    """
    return _group_v6(_group_id(key), reach, port)


def derive_prefix_group(network: IPv6Network, key: bytes, port: int) -> Address:
    """Compute the prefix-based group of a key: its group id is the low 32 bits of the derived group."""
    return _prefix_group(network, _group_id(key), port)


def random_group_v4(reach: Reach, port: int, random: RandomBytes) -> Address:
    """Draw an IPv4 group of the range that fits `reach`; raises `AddressError` for a port below 1024."""
    return _group_v4(random(_GROUP_ID_SIZE), reach, port)


def random_group_v6(reach: Reach, port: int, random: RandomBytes) -> Address:
    """Draw a transient IPv6 group of the scope that fits `reach`; raises `AddressError` as for IPv4."""
    return _group_v6(random(_GROUP_ID_SIZE), reach, port)


def random_prefix_group(network: IPv6Network, port: int, random: RandomBytes) -> Address:
    """Draw a group of this unicast prefix (RFC 3306), cut to 64 bits; raises `AddressError`."""
    return _prefix_group(network, random(_GROUP_ID_SIZE), port)


def may_answer(answer_to: Address, heard_from: Address, arrived_at: Address) -> bool:
    """Decide whether a stranger's request may be answered at `answer_to` (section 5, rules 4 and 5).

    A unicast answer goes to the very address the request came from, at any port; an answer to a group
    only within the ranges above, no wider than the group the request was sent to, and to a port from
    1024. `SOURCE_SEEN` is refused: the caller puts the source in its place. Never raises, whatever the
    arguments hold.
    """
    if _malformed(answer_to) or _malformed(heard_from) or _malformed(arrived_at):
        return False
    if not answer_to[0] == heard_from[0] == arrived_at[0] or is_multicast(heard_from):
        return False
    if not is_multicast(answer_to):
        return answer_to[4:] == heard_from[4:] and port(answer_to) >= 1 and not _nowhere(answer_to)
    if _broken_rule(answer_to) is not None or _broken_rule(arrived_at) is not None:
        return False
    return scope(answer_to).value <= scope(arrived_at).value


def may_answer_classic(answer_to: Address, arrived_at: Address) -> bool:
    """Decide whether a peer of the classic profile may be answered where it says it listens (section 10).

    Only at a group, of the family and within the scope of the one that its message was sent to. Never raises.
    """
    return (
        not (_malformed(answer_to) or _malformed(arrived_at))
        and answer_to[0] == arrived_at[0]
        and _broken_classic_rule(answer_to) is None
        and _broken_classic_rule(arrived_at) is None
        and scope(answer_to).value <= scope(arrived_at).value
    )


def unspecified(address: Address) -> Address:
    """Return the record of the same kind that names nobody: "not heard from" for an address policy.

    0.0.0.0 or :: with port 0; zeros after the kind for a transport's own addresses.
    """
    return address[:1] + bytes(3) + (_MAPPED + bytes(4) if address[0] == IPV4 else bytes(16))


def _head(kind: int, port: int) -> bytes:
    if not 0 <= port <= 0xFFFF:
        raise AddressError(f"{port} is no UDP port: use 1024 to 65535")
    return _HEAD.pack(kind, 0, port)


def _parse_port(text: str, digits: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 0xFFFF):
        raise AddressError(f"{text!r} does not end in a UDP port: use 1024 to 65535")
    return int(digits)


def _malformed(address: Address) -> str | None:
    """Say what is wrong with a record as such, before asking what it names."""
    if len(address) != ADDRESS_SIZE:
        return f"a record has {ADDRESS_SIZE} bytes, not {len(address)}"
    if address[1]:
        return "its second byte is not zero"
    mapped = address[4:16] == _MAPPED
    if address[0] == IPV4:
        return None if mapped else "kind 4 holds no ::ffff:a.b.c.d"
    if address[0] == IPV6:
        return "kind 6 holds an IPv4 address" if mapped else None
    return f"kind {address[0]} is neither IPv4 nor IPv6"


def _broken_rule(address: Address) -> str | None:
    """Name the rule of section 5 that keeps a well-formed record from being a self-chosen group."""
    if port(address) < MIN_GROUP_PORT:
        return f"its port is below {MIN_GROUP_PORT}, where other services live"
    if address[0] == IPV4:
        host = int.from_bytes(address[16:])
        for first, count, _ in _V4_RANGES.values():
            if first <= host < first + count:
                return None
        return "IPv4 groups come from 224.0.224.0 to 224.0.249.255, 239.192.0.0/14 or 239.255.0.0/16"
    gid = int.from_bytes(address[16:])
    if address[4:6] in _V6_TRANSIENT:
        if _MIN_GID <= gid < _END_GID:
            return None
        return "the low 32 bits of a transient IPv6 group lie in 8000:0000 to feff:ffff (RFC 3307)"
    if address[4:7] != _V6_PREFIXED:
        return "IPv6 groups begin with ff1e, ff15, ff12 or ff3e:00LL (transient or prefix-based)"
    if not 1 <= address[7] <= _MAX_PREFIX:
        return f"the prefix length of an ff3e group is 1 to {_MAX_PREFIX}, not {address[7]} (RFC 3306)"
    if int.from_bytes(address[8:16]) & ((1 << _MAX_PREFIX - address[7]) - 1):
        return f"the prefix of this ff3e group has bits set past its length of {address[7]} (RFC 3306)"
    if gid < _MIN_GID:
        return "the low 32 bits of an ff3e group are at least 8000:0000 (RFC 3307)"
    return None


def _broken_classic_rule(address: Address) -> str | None:
    """Name the rule that keeps a well-formed record from being a group of the original's, or of section 5.

    The original drew the low 32 bits of IPv6 groups freely, and wrote prefix lengths up to 128.
    """
    rule = _broken_rule(address)
    if rule is None or address[0] == IPV4 or port(address) < MIN_GROUP_PORT:
        return rule
    drawn = address[4:6] == _V6_LEADS[Reach.GLOBAL]
    prefixed = address[4:7] == _V6_PREFIXED and 1 <= address[7] <= _MAX_CLASSIC_PREFIX
    return None if drawn or prefixed else rule


def _nowhere(unicast: Address) -> bool:
    """Tell whether a well-formed unicast record is the unspecified or the broadcast address."""
    host = unicast[16:] if unicast[0] == IPV4 else unicast[4:]
    return not any(host) or (unicast[0] == IPV4 and (host[0] == 0 or host[0] >= 0xF0))


def _group_id(key: bytes) -> bytes:
    return blake2s(key, digest_size=_GROUP_ID_SIZE, key=_GROUP_LABEL).digest()


def _gid(group_id: bytes) -> bytes:
    value = _MIN_GID + int.from_bytes(group_id[-4:]) % (_END_GID - _MIN_GID)
    return value.to_bytes(4)


def _range_of(reach: Reach) -> Reach:
    """Reach host shares the groups of reach global: there, the hop limit alone keeps datagrams home."""
    return Reach.GLOBAL if reach is Reach.HOST else reach


def _group_v4(group_id: bytes, reach: Reach, port: int) -> Address:
    first, _, count = _V4_RANGES[_range_of(reach)]
    host = first + int.from_bytes(group_id[:4]) % count
    return _checked(_head(IPV4, port) + _MAPPED + host.to_bytes(4))


def _group_v6(group_id: bytes, reach: Reach, port: int) -> Address:
    lead = _V6_LEADS[_range_of(reach)]
    return _checked(_head(IPV6, port) + lead + group_id[:-4] + _gid(group_id))


def _prefix_group(network: IPv6Network, group_id: bytes, port: int) -> Address:
    if not any(network.subnet_of(unicast) for unicast in _UNICAST):
        raise AddressError(
            f"{network} is neither a global (2000::/3) nor a unique-local (fc00::/7) prefix: give one"
        )
    length = min(network.prefixlen, _MAX_PREFIX)
    prefix = int(network.network_address) >> 128 - length << _MAX_PREFIX - length
    lead = _V6_PREFIXED + bytes([length])
    return _checked(_head(IPV6, port) + lead + prefix.to_bytes(8) + _gid(group_id))


def _checked(group: Address) -> Address:
    check_group(group)
    return group
