"""A channel on one multicast group: the socket, its memberships, and datagrams both ways."""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Final

import anyio

from mp2p_core.errors import AddressError, NoMulticast, PortTaken
from mp2p_core.proto.addresses import check_classic_group, check_group, format_host_port, is_multicast, port
from mp2p_core.transport import (
    MIN_DATAGRAM_SIZE,
    Address,
    InterfaceStatus,
    Listen,
    Reach,
    Train,
)
from mp2p_udp.errnos import of_bind
from mp2p_udp.family import Family, SocketAddress
from mp2p_udp.inventory import list_interfaces
from mp2p_udp.members import Members
from mp2p_udp.membership import Membership
from mp2p_udp.options import IPPROTO_UDP, UDP_GRO, Features, detect, set_quietly
from mp2p_udp.reader import Reader
from mp2p_udp.trains import MAX_DATAGRAM_SIZE, TrainReceiver, TrainSender
from mp2p_udp.upkeep import Upkeep
from mp2p_udp.watch import InterfaceWatch

__all__ = ["UdpChannel", "open_channel"]

# Asked for; the system grants what its limits allow. A train takes 64 KiB, so its default holds three.
_BUFFER_SIZE: Final = 4 << 20
# Bounds what unconfirmed return addresses can make this remember.
_MAX_TARGETS: Final = 1024
_RANDOM: Final = random.SystemRandom()


class UdpChannel:
    """An open place to listen on a group and to send from (the contract's `Channel`).

    Made by `open_channel`. All that it knows of an interface is in that interface's `Membership`.
    """

    def __init__(self, sock: socket.socket, family: Family, listen: Listen, features: Features) -> None:
        self._sock = sock
        self._family = family
        self._address = listen.address
        self._members = Members(sock, family, listen)
        self._receiver = TrainReceiver(sock, family, listen.address, features)
        self._sender = TrainSender(sock, family, features)
        self._reader = Reader(sock, self._read)
        self._targets: dict[tuple[Address, int], SocketAddress] = {}
        self._host_only = listen.reach is Reach.HOST
        self._upkeep: Upkeep | None = None
        self._changed: anyio.Event | None = None
        self._refused = 0
        self._closed = False

    @property
    def address(self) -> Address:
        """The group and port listened on."""
        return self._address

    @property
    def max_datagram_size(self) -> int:
        """Bytes that every joined interface carries without fragmenting."""
        fitting = min((member.mtu for member in self._members.joined()), default=0) - self._family.header_size
        return max(MIN_DATAGRAM_SIZE, min(fitting, MAX_DATAGRAM_SIZE))

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams that came to nothing, and why; an extra of this package."""
        return {
            "foreign": self._receiver.foreign,
            "truncated": self._receiver.truncated,
            "receive errors": self._receiver.errors,
            "refused by reach": self._refused,
            "unsent": sum(member.unsent for member in self._members),
        }

    def join(self) -> bool:
        """Join the group on every eligible interface not joined yet; False when none is joined after that."""
        self._members.follow(list_interfaces(self._family.number), time.monotonic())
        return bool(self._members.joined())

    async def maintain(self) -> None:
        """Stay a member while interfaces come, change and go, and switches forget (contract).

        Looks at the interfaces when the system says that they changed, and joins each again every 75 s or
        so: one at a time, on the same socket (protocol section 9).
        """
        now = time.monotonic()
        with closing(InterfaceWatch()) as watch:
            upkeep = Upkeep(now, random=_RANDOM.random, told=watch.tells, rejoin=not self._host_only)
            upkeep.changed(now)  # since the channel opened, for all that anybody has told
            self._upkeep = upkeep
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._listen_for_changes, watch, upkeep)
                while not self._closed:
                    self._keep_up(upkeep, time.monotonic())
                    self._changed = anyio.Event()
                    with anyio.move_on_after(upkeep.timeout() - time.monotonic()):
                        await self._changed.wait()
                tasks.cancel_scope.cancel()

    async def _listen_for_changes(self, watch: InterfaceWatch, upkeep: Upkeep) -> None:
        while True:
            await watch.wait()
            upkeep.changed(time.monotonic())
            self._look_again()

    def _look_again(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _keep_up(self, upkeep: Upkeep, now: float) -> None:
        if upkeep.look(now):
            self._members.follow(list_interfaces(self._family.number), now)
        joined = [member.index for member in self._members.joined()]
        upkeep.members(joined, now, waiting=len(joined) < len(self._members))
        index = upkeep.rejoin(now)
        if index is not None and (member := self._members.get(index)) is not None:
            member.rejoin(now)

    def rejoin(self) -> None:
        """Leave and join on every interface now, so that the kernel reports the group again."""
        for member in self._members.joined():
            member.rejoin(time.monotonic())

    def silent(self) -> None:
        """Hear that a peer has gone silent: a switch may have forgotten the group (contract)."""
        if self._upkeep is not None:
            heard_at = {member.index: member.heard_at for member in self._members}
            self._upkeep.silent(time.monotonic(), heard_at)
            self._look_again()

    def send(self, train: Train) -> bool:
        """Hand a train to the network without blocking (contract).

        To a group: out of the interface of the path, or out of every joined one when that is 0 or gone.
        To a host: out of the interface of the path, or by whatever way the routes say.
        """
        remote, _, index = train.path
        if self._closed or remote[0] != self._family.kind:
            self._refused += 1
            return False
        member = self._members.get(index)
        if not is_multicast(remote):
            return self._send_to_host(train, member)
        room = True
        for leaving in self._members.joined() if member is None else (member,):
            if self._host_only and not leaving.guard(remote):
                self._refused += 1
            elif not self._sender.send_out(leaving, self._target(remote, leaving.index), train):
                room = False
        return room

    async def receive(self) -> Sequence[Train]:
        """Wait for datagrams (contract).

        Raises `anyio.BusyResourceError` when another task waits already.
        """
        return await self._reader.receive()

    async def push(self, deliver: Callable[[Sequence[Train]], None]) -> None:
        """Hand over datagrams as they come, until closed (contract).

        Raises `anyio.BusyResourceError` when another task waits already.
        """
        await self._reader.push(deliver)

    async def aclose(self) -> None:
        """Leave the group, release the socket, and end a waiting `receive`."""
        self.close()

    def close(self) -> None:
        """Do what `aclose` does."""
        self._closed = True
        self._look_again()
        self._reader.close()
        self._sock.close()

    def status(self) -> Sequence[InterfaceStatus]:
        """Say what became of each interface, in the order of their index, unused ones last."""
        return self._members.status(time.monotonic())

    def _read(self) -> list[Train]:
        trains = self._receiver.read_some()
        self._members.heard(trains, time.monotonic())
        return trains

    def _send_to_host(self, train: Train, member: Membership | None) -> bool:
        remote = train.path.remote
        if self._host_only:
            # Hop limit 0 is no barrier to unicast: only addresses of this machine are sent to.
            host = self._family.packed_host(remote)
            if host not in self._members.own_hosts:
                self._refused += 1
                return True
            member = None
        target = self._target(remote, member.index if member else 0)
        if member is not None:
            return self._sender.send_out(member, target, train)
        anyone = next(iter(self._members), None)
        return anyone is not None and self._sender.send_routed(anyone, target, train)

    def _target(self, remote: Address, index: int) -> SocketAddress:
        try:
            return self._targets[remote, index]
        except KeyError:
            if len(self._targets) >= _MAX_TARGETS:
                self._targets.clear()
            target = self._targets[remote, index] = self._family.target(remote, index)
            return target


def open_channel(listen: Listen, family: Family, *, features: Features | None = None) -> UdpChannel:
    """Open a channel on a group of this family; `features` other than the detected ones serve tests.

    Raises `AddressError` for what is no group that a node may choose, `PortTaken`, and `NoMulticast` when
    no interface is left to listen on.
    """
    (check_classic_group if listen.classic else check_group)(listen.address)
    if listen.address[0] != family.kind:
        raise AddressError(f"{format_host_port(listen.address)} is not an {family.label} address")
    features = features or detect(family.number)
    sock = _open_socket(listen, family, features)
    channel = UdpChannel(sock, family, listen, features)
    if not channel.join():
        channel.close()
        raise _no_multicast(listen, [(status.name, status.detail) for status in channel.status()])
    return channel


def _open_socket(listen: Listen, family: Family, features: Features) -> socket.socket:
    try:
        sock = socket.socket(family.number, socket.SOCK_DGRAM)
    except OSError as error:
        raise NoMulticast(None, of_bind(error.errno).text) from error
    try:
        _prepare(sock, listen, family, features)
        host = family.packed_host(listen.address)
        bind_to_group = features.bind_to_group and not _is_link_scope(listen.address)
        text = socket.inet_ntop(family.number, host) if bind_to_group else family.any_host
        sock.bind((text, port(listen.address)))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(port(listen.address)) from error
        raise NoMulticast(None, of_bind(error.errno).text) from error
    return sock


def _is_link_scope(group: Address) -> bool:
    """Tell whether Linux binds this group on one interface only (ff12), which several do not fit."""
    return group[4:6] == b"\xff\x12"


def _prepare(sock: socket.socket, listen: Listen, family: Family, features: Features) -> None:
    sock.setblocking(False)
    # Several programs listen on one port, with one group or several.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if features.reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    for option, value in family.socket_options(listen.reach.value):
        sock.setsockopt(family.level, option, value)
    for quiet, value in family.quiet_options():
        set_quietly(sock, family.level, quiet, value)
    if features.pktinfo:
        set_quietly(sock, family.level, family.receive_pktinfo, 1)
    if features.multicast_all:
        set_quietly(sock, family.level, family.multicast_all, 0)
    if features.gro:
        set_quietly(sock, IPPROTO_UDP, UDP_GRO, 1)
    set_quietly(sock, socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_SIZE)
    set_quietly(sock, socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_SIZE)


def _no_multicast(listen: Listen, reasons: Sequence[tuple[str, str]]) -> NoMulticast:
    asked = listen.interfaces
    told = [(name, reason) for name, reason in reasons if not asked or name in asked]
    if len(asked) == 1 and len(told) == 1:
        return NoMulticast(asked[0], told[0][1])
    words = "; ".join(f"{name}: {reason}" for name, reason in told) or "it has no interfaces at all"
    return NoMulticast(None, f"{words}. Connect a network or name another interface")
