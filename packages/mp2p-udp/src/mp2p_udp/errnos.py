"""What the system's error numbers mean for multicast, and what to do about each."""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

__all__ = ["NO_ROOM", "TOO_LARGE", "Meaning", "of_bind", "of_join", "of_send"]


class Meaning(NamedTuple):
    """One sentence with one thing to do, and whether waiting may be enough."""

    text: str
    transient: bool


NO_ROOM: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
"""Sending: a queue is full, so this datagram is lost and the next may pass."""

TOO_LARGE: Final = errno.EMSGSIZE

_SEND: Final = {
    errno.EACCES: Meaning("this program may not send here: look at the sandbox or security policy", True),
    errno.EADDRNOTAVAIL: Meaning("the interface has no usable address yet: wait, or give it one", True),
    errno.ECONNREFUSED: Meaning("the other machine says that nothing listens there: check the address", True),
    errno.EHOSTUNREACH: Meaning("no way leads there at present: check the network connection", True),
    errno.EINVAL: Meaning("the interface takes no multicast of this kind: name another one", False),
    errno.EMSGSIZE: Meaning(
        "the datagram is larger than the interface carries whole: send less at once", False
    ),
    errno.ENETDOWN: Meaning("the interface is down: bring it up", True),
    errno.ENETUNREACH: Meaning("no multicast route leads out here: add one for this interface", True),
    errno.ENODEV: Meaning("the interface is gone: plug it in again", True),
    errno.ENXIO: Meaning("the interface is gone: plug it in again", True),
    errno.EPERM: Meaning("a firewall on this machine refused it: allow UDP out to the group", True),
}
_JOIN: Final = {
    errno.EADDRINUSE: Meaning("the group is joined here already: close the other channel", False),
    errno.EADDRNOTAVAIL: Meaning("the interface has no usable address: give it one", True),
    errno.EINVAL: Meaning("the interface takes no groups: name another one", False),
    errno.ENETDOWN: Meaning("the interface is down: bring it up", True),
    errno.ENOBUFS: Meaning(
        "the system's limit of memberships is reached: raise net.ipv4.igmp_max_memberships", True
    ),
    errno.ENODEV: Meaning("the interface is gone: plug it in again", True),
    errno.ENOMEM: Meaning("the system's limit of memberships is reached: raise net.core.optmem_max", True),
    errno.ENOPROTOOPT: Meaning("this system has no multicast: use a kernel built with it", False),
    errno.ENXIO: Meaning("the interface is gone: plug it in again", True),
    errno.EPERM: Meaning("this program may not join groups: look at the sandbox or security policy", False),
}
_BIND: Final = {
    errno.EACCES: Meaning("this program may not use the port: choose another port", False),
    errno.EADDRINUSE: Meaning("another program holds the port: choose another port", False),
    errno.EADDRNOTAVAIL: Meaning("this system has the address family switched off: switch it on", False),
    errno.EAFNOSUPPORT: Meaning("this system does not have the address family: use the other one", False),
    errno.EINVAL: Meaning("this system does not bind to such a group: choose another address", False),
    errno.EMFILE: Meaning("this program has too many files open: close some", True),
    errno.EPERM: Meaning("this program may not open sockets: look at the sandbox or security policy", False),
}


def of_send(number: int | None) -> Meaning:
    """Explain why a datagram could not be sent."""
    return _look_up(_SEND, number)


def of_join(number: int | None) -> Meaning:
    """Explain why a group could not be joined."""
    return _look_up(_JOIN, number)


def of_bind(number: int | None) -> Meaning:
    """Explain why a socket could not be opened or bound."""
    return _look_up(_BIND, number)


def _look_up(table: dict[int, Meaning], number: int | None) -> Meaning:
    # What is not in the table is taken for transient: an interface is never given up for an unknown reason.
    number = number or 0
    meaning = table.get(number)
    if meaning is None:
        return Meaning(f"the system says {os.strerror(number)!r}: look in its log", True)
    return Meaning(f"{meaning.text} ({errno.errorcode[number]})", meaning.transient)
