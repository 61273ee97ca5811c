"""Numbers of socket options that Python 3.11 does not name, and what this system's sockets can do.

What a system can do is found by trying on a real socket, never from its version. `Features` is an
argument everywhere, so that a test, or a user chasing a driver's bug, can switch any of it off.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from functools import cache
from typing import Final

__all__ = [
    "IPPROTO_UDP",
    "IPV6_MTU_DISCOVER",
    "IPV6_MULTICAST_ALL",
    "IP_MTU_DISCOVER",
    "IP_MULTICAST_ALL",
    "IP_PKTINFO",
    "PMTUDISC_PROBE",
    "UDP_GRO",
    "UDP_SEGMENT",
    "Features",
    "detect",
    "set_quietly",
]

IPPROTO_UDP: Final = socket.IPPROTO_UDP

# Linux, include/uapi/linux/{in,in6,udp}.h. The numbers mean other things elsewhere, so they are None there.
_LINUX: Final[bool] = sys.platform == "linux"
IP_MULTICAST_ALL: Final = 49 if _LINUX else None
IPV6_MULTICAST_ALL: Final = 29 if _LINUX else None
IP_MTU_DISCOVER: Final = 10 if _LINUX else None
IPV6_MTU_DISCOVER: Final = 23 if _LINUX else None
PMTUDISC_PROBE: Final = 3
"""Never fragment, and do not heed what unauthenticated ICMP says of the path (as QUIC stacks do)."""
UDP_SEGMENT: Final = 103 if _LINUX else None
UDP_GRO: Final = 104 if _LINUX else None
# Darwin, netinet/in.h: 26 serves for receiving and for sending, as 8 does on Linux.
IP_PKTINFO: Final = 8 if _LINUX else 26 if sys.platform == "darwin" else None

_IPV6_RECVPKTINFO: Final[int | None] = getattr(socket, "IPV6_RECVPKTINFO", None)
_BIND_TRIALS: Final = {socket.AF_INET: "224.0.249.255", socket.AF_INET6: "ff1e::feff:ffff"}


@dataclass(frozen=True, slots=True)
class Features:
    """What the sockets of this system can do. Everything off is the plain path that works anywhere."""

    recvmsg: bool = False
    """`recvmsg` and `sendmsg` exist (not on Windows)."""
    pktinfo: bool = False
    """The interface and the destination of each datagram are told, and the interface can be chosen."""
    segment: bool = False
    """UDP_SEGMENT: one call sends many datagrams (Linux 4.18)."""
    gro: bool = False
    """UDP_GRO: one call receives many datagrams (Linux 5.0)."""
    multicast_all: bool = False
    """Groups that only other processes joined can be kept out (Linux)."""
    bind_to_group: bool = False
    """A socket can be bound to a group, so that nothing else arrives on it (POSIX)."""
    reuse_port: bool = False
    """SO_REUSEPORT is needed for processes to share a port (BSD, macOS; on Linux SO_REUSEADDR does)."""


@cache
def detect(number: int) -> Features:
    """Try out what sockets of an address family (AF_INET or AF_INET6) can do on this system."""
    try:
        trial = socket.socket(number, socket.SOCK_DGRAM)
    except OSError:
        return Features()
    with trial:
        v6 = number == socket.AF_INET6
        level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
        recvmsg = hasattr(trial, "recvmsg")
        reuse_port: int | None = None if _LINUX else getattr(socket, "SO_REUSEPORT", None)
        return Features(
            recvmsg=recvmsg,
            pktinfo=recvmsg and set_quietly(trial, level, _IPV6_RECVPKTINFO if v6 else IP_PKTINFO, 1),
            segment=recvmsg and set_quietly(trial, IPPROTO_UDP, UDP_SEGMENT, 1200),
            gro=recvmsg and set_quietly(trial, IPPROTO_UDP, UDP_GRO, 1),
            multicast_all=set_quietly(trial, level, IPV6_MULTICAST_ALL if v6 else IP_MULTICAST_ALL, 0),
            reuse_port=set_quietly(trial, socket.SOL_SOCKET, reuse_port, 1),
            bind_to_group=_binds(trial, _BIND_TRIALS[socket.AddressFamily(number)]),
        )


def set_quietly(sock: socket.socket, level: int, option: int | None, value: int | bytes) -> bool:
    """Set an option that a system may lack, and tell whether it took it."""
    if option is None:
        return False
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def _binds(sock: socket.socket, host: str) -> bool:
    try:
        sock.bind((host, 0))
    except OSError:
        return False
    return True
