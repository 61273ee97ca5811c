"""How IPv4 and IPv6 multicast sockets differ: options, structures, and address records.

Everything else in this package is the same for both, and takes a `Family`.
"""

from __future__ import annotations

import socket
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from struct import Struct
from typing import Final, TypeAlias

from mp2p_core.proto.addresses import pack_ipv4, pack_ipv6
from mp2p_core.transport import Address
from mp2p_udp import options

__all__ = ["V4", "V6", "Family", "SocketAddress"]

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""What Python's socket calls take and give."""

_WINDOWS: Final[bool] = sys.platform == "win32"

# struct ip_mreqn from its second member on, the index of ipv6_mreq, in_pktinfo and in6_pktinfo.
_MREQN_REST: Final = Struct("=Ii")
_INDEX: Final = Struct("=I")
_IN_PKTINFO: Final = Struct("=i4s4s")
_IN6_PKTINFO: Final = Struct("=16sI")


@dataclass(frozen=True, slots=True)
class Family(ABC):
    """What a channel needs to know about an address family. Stateless."""

    label: str
    number: int
    kind: int
    """Kind byte of its address records."""
    header_size: int
    """Bytes of the IP and UDP headers of a datagram."""
    level: int
    any_host: str
    pktinfo_type: int
    """Type of the ancillary data that tells, or chooses, the interface of a datagram."""
    pktinfo_size: int
    receive_pktinfo: int | None
    """Option that makes the system tell each datagram's destination and interface."""
    multicast_all: int | None
    """Option that, when 0, keeps out groups that only other processes joined."""
    host_uses_loopback: bool
    """Whether reach host means the loopback interface. Linux routes no IPv6 multicast on its own."""

    @abstractmethod
    def socket_options(self, hops: int) -> tuple[tuple[int, int], ...]:
        """List the options that must be set for multicast with this hop limit."""

    @abstractmethod
    def quiet_options(self) -> tuple[tuple[int | None, int], ...]:
        """List the options that are worth having and that not every system has."""

    @abstractmethod
    def membership(self, group: Address, index: int) -> tuple[int, int, bytes]:
        """Return the options to join and to leave a group on an interface, and their value."""

    @abstractmethod
    def outgoing(self, index: int) -> tuple[int, bytes | int]:
        """Return the option, and its value, that picks the interface multicast leaves by."""

    @abstractmethod
    def pack_pktinfo(self, index: int) -> bytes:
        """Make the ancillary data that picks the interface of one datagram."""

    @abstractmethod
    def unpack_pktinfo(self, data: bytes) -> tuple[int, bytes]:
        """Return interface index and packed destination from a received datagram's ancillary data."""

    @abstractmethod
    def packed_host(self, address: Address) -> bytes:
        """Return the 4 or 16 bytes of a record's IP address."""

    @abstractmethod
    def record(self, source: SocketAddress) -> Address:
        """Make the record of a source."""

    @abstractmethod
    def target(self, address: Address, index: int) -> SocketAddress:
        """Make the destination of a datagram that leaves by this interface (0: any)."""


class _IPv4(Family):
    __slots__ = ()

    def socket_options(self, hops: int) -> tuple[tuple[int, int], ...]:
        # 0 is no unicast TTL. Reach host sends no unicast off the machine in the first place.
        return (
            (socket.IP_MULTICAST_TTL, hops),
            (socket.IP_MULTICAST_LOOP, 1),
            (socket.IP_TTL, max(hops, 1)),
        )

    def quiet_options(self) -> tuple[tuple[int | None, int], ...]:
        return ((options.IP_MTU_DISCOVER, options.PMTUDISC_PROBE),)

    def membership(self, group: Address, index: int) -> tuple[int, int, bytes]:
        # struct ip_mreqn; Windows has only ip_mreq, and takes the index as 0.0.0.index.
        interface = index.to_bytes(4) if _WINDOWS else _MREQN_REST.pack(0, index)
        return socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP, group[16:] + interface

    def outgoing(self, index: int) -> tuple[int, bytes | int]:
        interface = index.to_bytes(4) if _WINDOWS else bytes(4) + _MREQN_REST.pack(0, index)
        return socket.IP_MULTICAST_IF, interface

    def pack_pktinfo(self, index: int) -> bytes:
        return _IN_PKTINFO.pack(index, b"", b"")

    def unpack_pktinfo(self, data: bytes) -> tuple[int, bytes]:
        index, _, destination = _IN_PKTINFO.unpack(data)
        return index, destination

    def packed_host(self, address: Address) -> bytes:
        return address[16:]

    def record(self, source: SocketAddress) -> Address:
        return pack_ipv4(socket.inet_aton(source[0]), source[1])

    def target(self, address: Address, index: int) -> SocketAddress:  # noqa: ARG002 -- scopes are IPv6's
        return socket.inet_ntop(socket.AF_INET, address[16:]), int.from_bytes(address[2:4])


class _IPv6(Family):
    __slots__ = ()

    def socket_options(self, hops: int) -> tuple[tuple[int, int], ...]:
        return (
            (socket.IPV6_V6ONLY, 1),
            (socket.IPV6_MULTICAST_HOPS, hops),
            (socket.IPV6_MULTICAST_LOOP, 1),
            (socket.IPV6_UNICAST_HOPS, max(hops, 1)),
        )

    def quiet_options(self) -> tuple[tuple[int | None, int], ...]:
        return (
            (options.IPV6_MTU_DISCOVER, options.PMTUDISC_PROBE),
            (getattr(socket, "IPV6_DONTFRAG", None), 1),
        )

    def membership(self, group: Address, index: int) -> tuple[int, int, bytes]:
        return socket.IPV6_JOIN_GROUP, socket.IPV6_LEAVE_GROUP, group[4:] + _INDEX.pack(index)

    def outgoing(self, index: int) -> tuple[int, bytes | int]:
        return socket.IPV6_MULTICAST_IF, index

    def pack_pktinfo(self, index: int) -> bytes:
        return _IN6_PKTINFO.pack(b"", index)

    def unpack_pktinfo(self, data: bytes) -> tuple[int, bytes]:
        destination, index = _IN6_PKTINFO.unpack(data)
        return index, destination

    def packed_host(self, address: Address) -> bytes:
        return address[4:]

    def record(self, source: SocketAddress) -> Address:
        return pack_ipv6(source[0].partition("%")[0], source[1])

    def target(self, address: Address, index: int) -> SocketAddress:
        # Only link-local addresses mean another place on each link (RFC 4007, section 6).
        unicast = address[4] == 0xFE and address[5] & 0xC0 == 0x80
        multicast = address[4] == 0xFF and address[5] & 0x0F == 2
        scope = index if unicast or multicast else 0
        return socket.inet_ntop(socket.AF_INET6, address[4:]), int.from_bytes(address[2:4]), 0, scope


V4: Final[Family] = _IPv4(
    label="IPv4",
    number=socket.AF_INET,
    kind=4,
    header_size=28,
    level=socket.IPPROTO_IP,
    any_host="0.0.0.0",  # noqa: S104 -- only where a system cannot bind to the group
    pktinfo_type=options.IP_PKTINFO or 0,
    pktinfo_size=_IN_PKTINFO.size,
    receive_pktinfo=options.IP_PKTINFO,
    multicast_all=options.IP_MULTICAST_ALL,
    host_uses_loopback=True,
)

V6: Final[Family] = _IPv6(
    label="IPv6",
    number=socket.AF_INET6,
    kind=6,
    header_size=48,
    level=socket.IPPROTO_IPV6,
    any_host="::",
    pktinfo_type=getattr(socket, "IPV6_PKTINFO", 0),
    pktinfo_size=_IN6_PKTINFO.size,
    receive_pktinfo=getattr(socket, "IPV6_RECVPKTINFO", None),
    multicast_all=options.IPV6_MULTICAST_ALL,
    host_uses_loopback=False,
)
