"""Ask Linux for its network interfaces, as rtnetlink(7) answers: two questions on one socket, and nothing else.

All that speaks here is the kernel. psutil asks the same in more words, for traffic counters too, and loading it
takes longer than connecting to a peer.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

__all__ = ["Addressed", "Link", "ask"]

# Linux, include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h. All in the machine's own byte order.
_HEADER: Final = Struct("=IHHII")  # nlmsghdr: length with this header, type, flags, sequence, port
_LINK: Final = Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS: Final = Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ATTRIBUTE: Final = Struct("=HH")  # rtattr: length with this header, type; padded to a multiple of 4
_NUMBER: Final = Struct("=I")
_STATUS: Final = Struct("=i")

_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR: Final = 2
_DONE: Final = 3
_GET_LINK: Final = 18
_GET_ADDRESS: Final = 22
_ANSWER_SIZE: Final = 65536

_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_EXT_MASK: Final = 29
_SKIP_STATISTICS: Final = 8  # RTEXT_FILTER_SKIP_STATS: they are most of an answer
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2  # where there is a peer, the address above is that one's

_WITHOUT_STATISTICS: Final = _ATTRIBUTE.pack(8, _IFLA_EXT_MASK) + _NUMBER.pack(_SKIP_STATISTICS)
_ASK_LINKS: Final = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _WITHOUT_STATISTICS


class Link(NamedTuple):
    """One interface. `flags` are those of netdevice(7)."""

    interface: int
    name: str
    flags: int
    mtu: int


class Addressed(NamedTuple):
    """One IPv4 or IPv6 address, packed, and the interface that has it."""

    interface: int
    packed: bytes
    prefix_length: int


def ask(number: int = socket.AF_UNSPEC) -> tuple[list[Link], list[Addressed]]:
    """Return all interfaces and their addresses: of one family, AF_INET or AF_INET6, or of both.

    Raises `OSError` where netlink may not be used.
    """
    links: list[Link] = []
    addresses: list[Addressed] = []
    if sys.platform == "linux":
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
            for message in _ask(sock, _GET_LINK, _ASK_LINKS):
                _, _, index, flags, _ = _LINK.unpack_from(message)
                found = _attributes(message, _LINK.size, _IFLA_MTU)
                (mtu,) = _NUMBER.unpack(found[_IFLA_MTU])
                links.append(Link(index, os.fsdecode(found[_IFLA_IFNAME].rstrip(b"\0")), flags, mtu))
            for message in _ask(sock, _GET_ADDRESS, _ADDRESS.pack(number, 0, 0, 0, 0)):
                family, length, _, _, index = _ADDRESS.unpack_from(message)
                if family in (socket.AF_INET, socket.AF_INET6):
                    found = _attributes(message, _ADDRESS.size, _IFA_LOCAL)
                    addresses.append(Addressed(index, found.get(_IFA_LOCAL) or found[_IFA_ADDRESS], length))
    return links, addresses


def _ask(sock: socket.socket, what: int, question: bytes) -> Iterator[bytes]:
    """Yield the bodies of the messages that answer.

    What changes meanwhile may be missing or come twice: whoever follows changes is told, and asks again.
    """
    sock.send(_HEADER.pack(_HEADER.size + len(question), what, _DUMP, 0, 0) + question)
    while True:
        answer = sock.recv(_ANSWER_SIZE)
        at = 0
        while at < len(answer):
            length, kind, _, _, _ = _HEADER.unpack_from(answer, at)
            body = answer[at + _HEADER.size : at + length]
            if kind == _DONE:
                return
            if kind == _ERROR:
                number = -_STATUS.unpack_from(body)[0]
                raise OSError(number, os.strerror(number))
            yield body
            at += length + 3 & ~3


def _attributes(message: bytes, at: int, last: int) -> dict[int, bytes]:
    """Read attributes up to the last one that is wanted, or to the end."""
    found: dict[int, bytes] = {}
    end = len(message)
    while at < end and last not in found:
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        found[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found
