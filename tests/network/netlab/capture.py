"""What crosses an interface, both ways, read from a packet socket."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from netlab.lab import Interface, wait_until

__all__ = ["Capture", "Packet"]

ETH_P_ALL: Final = 0x0003
ETH_P_IP: Final = 0x0800
ETH_P_IPV6: Final = 0x86DD
PACKET_OUTGOING: Final = 4
SO_RCVBUFFORCE: Final = 33
IPV6_FRAGMENT: Final = 44
IPV6_HOP_BY_HOP: Final = 0


@dataclass(frozen=True)
class Packet:
    """An IP packet. Ports are 0 and the payload is that of the IP packet where it is not (first) UDP."""

    outgoing: bool
    source: str
    destination: str
    hops: int
    protocol: int
    source_port: int
    destination_port: int
    payload: bytes


class Capture:
    """Collects every IP packet on one interface from now on."""

    def __init__(self, interface: Interface) -> None:
        self._socket = interface.node.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((interface.name, ETH_P_ALL))
        self._packets: list[Packet] = []

    def packets(self) -> list[Packet]:
        """Return every packet so far, oldest first."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, ethertype, direction, _, _) = self._socket.recvfrom(1 << 17)
                if packet := _parse(frame, ethertype, outgoing=direction == PACKET_OUTGOING):
                    self._packets.append(packet)
        return list(self._packets)

    def datagrams(self, *, outgoing: bool | None = None, port: int | None = None) -> list[Packet]:
        """Return the UDP datagrams so far: all, or those of one direction, or those to or from a port."""
        return [
            packet
            for packet in self.packets()
            if packet.protocol == socket.IPPROTO_UDP
            and outgoing in (None, packet.outgoing)
            and port in (None, packet.source_port, packet.destination_port)
        ]

    def wait_until(self, wanted: Callable[[Packet], bool]) -> None:
        """Wait until a packet has crossed for which the function is true."""
        wait_until(lambda: any(map(wanted, self.packets())), "a packet to cross")

    def wait_for(self, payload: bytes) -> None:
        """Wait until a datagram with this payload has crossed; what came before it has been seen then."""
        self.wait_until(lambda packet: packet.payload == payload)


def _parse(frame: bytes, ethertype: int, *, outgoing: bool) -> Packet | None:
    if ethertype == ETH_P_IP:
        start = (frame[0] & 15) * 4
        end = struct.unpack_from(">H", frame, 2)[0]
        first = struct.unpack_from(">H", frame, 6)[0] & 0x1FFF == 0
        hops, protocol = frame[8:10]
        source, destination = (str(ipaddress.IPv4Address(frame[i : i + 4])) for i in (12, 16))
    elif ethertype == ETH_P_IPV6:
        start = 40
        end = 40 + struct.unpack_from(">H", frame, 4)[0]
        first = True
        protocol, hops = frame[6:8]
        source, destination = (str(ipaddress.IPv6Address(frame[i : i + 16])) for i in (8, 24))
        if protocol == IPV6_FRAGMENT:
            first = struct.unpack_from(">H", frame, 42)[0] & 0xFFF8 == 0
            protocol, start = frame[40], 48
        elif protocol == IPV6_HOP_BY_HOP:
            protocol, start = frame[40], 48 + frame[41] * 8
    else:
        return None
    ports = 0, 0
    if protocol == socket.IPPROTO_UDP and first:
        ports = struct.unpack_from(">HH", frame, start)
        start += 8
    return Packet(outgoing, source, destination, hops, protocol, *ports, frame[start:end])
