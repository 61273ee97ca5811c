"""Plain sockets that speak multicast from inside a node: what the network itself lets through."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import struct

from netlab.capture import Capture
from netlab.lab import Interface, wait_until

__all__ = ["Receiver", "crosses", "send", "wait_until_selective"]

IP_MULTICAST_ALL = 49
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75


def _family(group: str) -> int:
    return socket.AF_INET6 if ":" in group else socket.AF_INET


class Receiver:
    """A socket that has joined a group on one interface."""

    def __init__(self, interface: Interface, group: str, port: int = 1024) -> None:
        index = interface.index
        self.socket = interface.node.socket(_family(group), socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        raw = socket.inet_pton(self.socket.family, group)
        if self.socket.family == socket.AF_INET:
            self.socket.bind((group, port))
            self.socket.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            self._level, self._join, self._leave = (
                *(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP),
            )
            self._membership = raw + struct.pack("@4si", bytes(4), index)
        else:
            self.socket.bind((group, port, 0, index))
            self._level, self._join, self._leave = (
                *(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.IPV6_LEAVE_GROUP),
            )
            self._membership = raw + struct.pack("@i", index)
        self.socket.setsockopt(self._level, self._join, self._membership)

    def rejoin(self) -> None:
        """Leave and join again, which makes the kernel announce the membership anew."""
        self.socket.setsockopt(self._level, self._leave, self._membership)
        self.socket.setsockopt(self._level, self._join, self._membership)

    def receive(self, timeout: float = 5) -> tuple[bytes, str] | None:
        """Return the next datagram and its source address, or None when none came in time (seconds)."""
        if not select.select([self.socket], [], [], timeout)[0]:
            return None
        data, source = self.socket.recvfrom(1 << 16)
        return data, source[0]


def send(
    interface: Interface,
    destination: str,
    payload: bytes,
    *,
    port: int = 1024,
    hops: int = 255,
    source: str = "",
    source_port: int = 0,
) -> None:
    """Send one datagram out of an interface, from any source address: a false one if need be."""
    index = interface.index
    family = _family(destination)
    with contextlib.closing(interface.node.socket(family, socket.SOCK_DGRAM)) as out:
        out.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("@4s4si", b"", b"", index))
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
            out.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
            out.bind((source, source_port))
            out.sendto(payload, (destination, port))
        else:
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            out.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
            out.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            out.bind((source or "::", source_port))
            out.sendto(
                payload, (destination, port, 0, index if destination.startswith(("fe80", "ff02")) else 0)
            )


def crosses(sender: Interface, receiver: Interface, group: str, *, hops: int = 255) -> str | None:
    """Join a group at one end, send to it from the other, and return the source that arrived, or None."""
    listening = Receiver(receiver, group)
    send(sender, group, b"probe", hops=hops)
    heard = listening.receive()
    return heard[1] if heard else None


def wait_until_selective(sender: Interface, bystander: Interface, group: str) -> None:
    """Wait until a switch with a querier has stopped flooding groups that nobody joined.

    It floods until its first query has had time for answers. `group` must not be joined by anybody.
    """
    everyone = "ff02::1" if ":" in group else "224.0.0.1"
    wire = Capture(bystander)
    rounds = itertools.count()

    def pruned() -> bool:
        flooded, marked = (f"{name} {next(rounds)}".encode() for name in ("flooded", "marked"))
        send(sender, group, flooded)
        send(sender, everyone, marked)
        wire.wait_for(marked)
        return flooded not in (packet.payload for packet in wire.packets())

    wait_until(pruned, "the switch to stop flooding")
