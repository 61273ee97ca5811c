"""One interface of one channel: joined or not, what it counted, and why.

Everything a channel knows about an interface is here. Upkeep (joining again, following interfaces that
come and go, in `members`) works on these objects and needs nothing else: `join` and `leave` may be called
any number of times on the channel's own socket. A join from a second socket would not do: it does not make the
kernel report the group again.
"""

from __future__ import annotations

import math
import socket
from typing import TYPE_CHECKING

from mp2p_core.transport import Address, InterfaceStatus
from mp2p_udp.errnos import of_join, of_send
from mp2p_udp.options import set_quietly

if TYPE_CHECKING:
    from mp2p_udp.family import Family
    from mp2p_udp.inventory import Interface

__all__ = ["Membership"]

# Bounds the groups that a node of reach host joins only to send there; below Linux's 20 for a socket.
_MAX_GUARDS = 8


class Membership:
    """Membership of a group on one interface, and the sending there."""

    __slots__ = (
        "_family",
        "_group",
        "_guards",
        "_loopback",
        "_sock",
        "ancillary",
        "cause",
        "heard_at",
        "index",
        "interface",
        "joined",
        "joined_at",
        "last_error",
        "mtu",
        "name",
        "rejoins",
        "segment",
        "unsent",
    )

    def __init__(self, sock: socket.socket, family: Family, group: Address, interface: Interface) -> None:
        self._sock = sock
        self._family = family
        self._group = group
        self._guards: dict[bytes, Address] = {}
        self.describe(interface)
        self.joined = False
        self.cause = "not joined yet"
        self.segment = True
        """False once the kernel has refused to segment trains on this interface."""
        self.ancillary = [(family.level, family.pktinfo_type, family.pack_pktinfo(interface.index))]
        """Ancillary data that sends a datagram out here."""
        self.unsent = 0
        """Datagrams that could not be sent for a reason other than full queues."""
        self.last_error: int | None = None
        self.joined_at = math.nan
        """When it joined, on the channel's clock."""
        self.heard_at = math.nan
        """When the last datagram came in here."""
        self.rejoins = 0

    def describe(self, interface: Interface) -> None:
        """Take in what the system says of the interface now."""
        self.interface = interface
        self.name, self.index, self.mtu = interface.name, interface.index, interface.mtu
        self._loopback = "loopback" in interface.flags

    def join(self, now: float) -> bool:
        """Join the group here; when that fails, `cause` says why. Not an error: other interfaces may do."""
        join, _, value = self._family.membership(self._group, self.index)
        try:
            self._sock.setsockopt(self._family.level, join, value)
        except OSError as error:
            self.joined, self.cause = False, of_join(error.errno).text
        else:
            self.joined, self.cause = True, ""
            self.joined_at = now
        return self.joined

    def rejoin(self, now: float) -> bool:
        """Leave and join, so that the kernel reports the group again. The socket stays the same."""
        self.leave()
        self.rejoins += 1
        return self.join(now)

    def leave(self) -> None:
        """Leave the group here, if it is joined and the interface still exists."""
        if self.joined:
            self._drop(self._group)
            self.joined, self.cause = False, "left"

    def guard(self, group: Address) -> bool:
        """Make sure that hop limit 0 keeps datagrams to this group on the machine.

        Linux holds back a multicast datagram with hop limit 0 only when the group is joined on the
        interface it would leave by: without that it goes out to the wire, hop limit 0 and all (seen on
        6.18, IPv4 and IPv6). So a node of reach host joins the groups that it sends to. Returns False
        when that fails; then nothing may be sent.
        """
        host = group[4:]
        if self._loopback or host in self._guards or (self.joined and host == self._group[4:]):
            return True
        join, _, value = self._family.membership(group, self.index)
        try:
            self._sock.setsockopt(self._family.level, join, value)
        except OSError as error:
            self.cause = of_join(error.errno).text
            return False
        while len(self._guards) >= _MAX_GUARDS:
            self._drop(self._guards.pop(next(iter(self._guards))))
        self._guards[host] = group
        return True

    def note(self, number: int | None, datagrams: int) -> None:
        """Count datagrams that could not be sent. The interface stays in use, whatever the reason."""
        self.unsent += datagrams
        self.last_error = number

    def status(self, now: float) -> InterfaceStatus:
        """Say in words how it stands with this interface."""
        words = [f"listening, MTU {self.mtu}" if self.joined else self.cause]
        if self.unsent:
            words.append(
                f"{self.unsent} datagrams not sent, the last because {of_send(self.last_error).text}"
            )
        return InterfaceStatus(
            self.name,
            self.index,
            self.joined,
            "; ".join(words),
            joined_for=now - self.joined_at if self.joined else None,
            heard_ago=None if math.isnan(self.heard_at) else now - self.heard_at,
            rejoins=self.rejoins,
            unsent=self.unsent,
        )

    def _drop(self, group: Address) -> None:
        _, leave, value = self._family.membership(group, self.index)
        # Fails when the interface is gone; the membership went with it.
        set_quietly(self._sock, self._family.level, leave, value)
