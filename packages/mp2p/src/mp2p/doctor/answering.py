"""`mp2p doctor --listen`: answer the questions of `mp2p doctor --pair` on another machine.

Whoever knows the key is told what was heard of the question, and how: by multicast or unicast, on which interface.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio

from mp2p.doctor.probes import LEAST_SIZE, Probe, pack, unpack
from mp2p_core.errors import BadKey
from mp2p_core.proto.addresses import format_host_port, may_answer, pack_ipv4, pack_ipv6, port
from mp2p_core.proto.buckets import TokenBucket
from mp2p_core.proto.identity import PublicKey
from mp2p_core.transport import Address, Path, Train
from mp2p_udp import Family, UdpChannel

__all__ = ["Asked", "Listener", "unicast_socket"]

_ANSWERS: Final = 200.0
"""Answers a second: whoever knows the key may ask, and each question may cost two."""
_SIZE: Final = 65535


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that came in, for whoever watches."""

    key: str
    how: str
    source: str


class Listener:
    """Answers questions that come in on channels and on unicast sockets beside them."""

    def __init__(
        self, key: PublicKey, allows: Callable[[PublicKey], bool], tell: Callable[[Asked], None]
    ) -> None:
        self._key = key.raw
        self._allows = allows
        self._tell = tell
        self._budget = TokenBucket(_ANSWERS, _ANSWERS, time.monotonic())

    async def serve_channel(self, channel: UdpChannel, beside: socket.socket) -> None:
        """Answer what comes in on a group, until cancelled."""
        names = {status.index: status.name for status in channel.status()}
        while True:
            for train in await channel.receive():
                for datagram in train.datagrams():
                    name = names.get(train.path.interface, "?")
                    self._answer(datagram, train.path, f"multicast on {name}", channel, beside)

    async def serve_unicast(self, sock: socket.socket, channel: UdpChannel) -> None:
        """Answer what comes in beside the group, until cancelled."""
        while True:
            await anyio.wait_readable(sock)
            try:
                datagram, source = sock.recvfrom(_SIZE)
            except OSError:  # an ICMP answer to something sent before, or nothing there after all
                continue
            pack_address = pack_ipv4 if sock.family == socket.AF_INET else pack_ipv6
            remote = pack_address(source[0].partition("%")[0], source[1])
            self._answer(datagram, Path(remote, channel.address), "unicast", channel, sock)

    def _answer(
        self, datagram: bytes, path: Path, how: str, channel: UdpChannel, beside: socket.socket
    ) -> None:
        question = unpack(self._key, datagram)
        if question is None or question.answer or len(datagram) < LEAST_SIZE:
            return
        try:
            asker = PublicKey.parse(question.body["key"])
            group: Address = bytes.fromhex(question.body["group"])
        except (BadKey, KeyError, ValueError, TypeError):
            return
        if not self._budget.take(time.monotonic()):
            return
        source = format_host_port(path.remote)
        if question.body.get("rejoin") and how == "unicast":
            channel.rejoin()
        body = {
            "how": how,
            "source": source,
            "size": len(datagram),
            "time": time.time(),
            "allowed": self._allows(asker),
        }
        said = pack(self._key, Probe(True, question.nonce, body))
        if len(said) <= len(datagram):
            self._send(said, path, group, channel, beside)
        self._tell(Asked(str(asker), how, source))

    @staticmethod
    def _send(said: bytes, path: Path, group: Address, channel: UdpChannel, beside: socket.socket) -> None:
        """Answer to the source, and to the asker's group where the address policy lets us (protocol section 5)."""
        host = format_host_port(path.remote).rpartition(":")[0].strip("[]")
        with contextlib.suppress(OSError):  # it shows on the other side, as silence
            beside.sendto(said, (host, port(path.remote)))
        if may_answer(group, path.remote, channel.address):
            channel.send(Train(Path(group, None, path.interface), (said,), len(said)))


def unicast_socket(family: Family, number: int) -> socket.socket:
    """Open a socket at a port, beside a group's: what is bound to the group hears no unicast, and this no group."""
    sock = socket.socket(family.number, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family.number == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if family.multicast_all is not None:
        # Linux would hand it what the group's own socket has joined, and that would look like unicast.
        sock.setsockopt(family.level, family.multicast_all, 0)
    sock.bind(("", number))
    return sock
