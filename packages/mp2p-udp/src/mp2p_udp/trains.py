"""Trains of datagrams through a socket: many in one system call where the kernel can, else one by one.

A system call costs about as much for one datagram as for 44 (UDP_SEGMENT out, UDP_GRO in), so trains
decide throughput. The plain path gives the same datagrams in the same order.
"""

from __future__ import annotations

import errno
import socket
from struct import Struct
from typing import TYPE_CHECKING, Final, TypeAlias

from mp2p_core.transport import Address, Path, Train
from mp2p_udp.errnos import NO_ROOM
from mp2p_udp.options import IPPROTO_UDP, UDP_GRO, UDP_SEGMENT, Features, set_quietly

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mp2p_udp.family import Family, SocketAddress
    from mp2p_udp.membership import Membership

__all__ = ["MAX_DATAGRAM_SIZE", "TrainReceiver", "TrainSender"]

# Limits of the system.

MAX_DATAGRAM_SIZE: Final = 65507
"""The largest UDP payload over IPv4, and the most that one segmented send may carry."""
_MAX_SEGMENTS: Final = 64  # UDP_MAX_SEGMENTS before Linux 6.9
_RECEIVE_SIZE: Final = 65535

# Choices of this implementation.

# Reads for one wake-up: bounds how long the event loop waits, and memory, at 2 MiB.
_READS_PER_WAKE: Final = 32
# Wake-ups that found all they looked for, after which the next one looks for twice as much.
_FULL_WAKES: Final = 8
# Calls for one wake-up where a train of so many bytes comes.
_LARGE_READS: Final = 4
_LARGE_TRAIN: Final = 16384
# Bounds what forged sources can make this remember; a flood costs lookups, not memory.
_MAX_PATHS: Final = 1024

_UINT16: Final = Struct("=H")
_INT: Final = Struct("=i")
_Ancillary: TypeAlias = tuple[int, int, bytes]
_NO_PATH: Final = Path(bytes(20))
_NOT_AS_TRAIN: Final = frozenset({errno.EINVAL, errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT})

# A plain number: "and" on the flags as socket has them takes longer than the rest of a read.
_CUT: Final = int(getattr(socket, "MSG_TRUNC", 0) | getattr(socket, "MSG_CTRUNC", 0))


class TrainReceiver:
    """Takes everything that waits on a non-blocking socket and sorts out what is not for `group`."""

    def __init__(self, sock: socket.socket, family: Family, group: Address, features: Features) -> None:
        self._sock = sock
        self._family = family
        self._group = group
        self._host = family.packed_host(group)
        self._features = features
        space = 0
        if features.recvmsg:
            space = socket.CMSG_SPACE(family.pktinfo_size) + socket.CMSG_SPACE(_INT.size)
        self._space = space
        self._paths: dict[tuple[object, bytes], Path | None] = {}
        self._calls = 1
        self._full_wakes = 0
        self.foreign = 0
        """Datagrams for another group or address that the kernel handed over all the same."""
        self.truncated = 0
        """Datagrams larger than any UDP datagram may be, or that lost their ancillary data."""
        self.errors = 0
        """Calls that failed for a reason other than an empty queue."""

    def read_some(self) -> list[Train]:
        """Read what is there, but look for no more than was there lately.

        The call that finds the queue empty, and raises, takes as long as the one that finds a datagram. So
        this looks for what the last wake-up found, and for more when that keeps being there; what it
        leaves behind wakes the event loop again.
        """
        trains = self.read(self._calls)
        # A call more costs nothing beside such a train, and some of them together cost less to verify.
        least = _LARGE_READS if trains and len(trains[0].buffers[0]) >= _LARGE_TRAIN else 1
        if len(trains) < self._calls:
            self._calls, self._full_wakes = max(len(trains), least), 0
        else:
            self._full_wakes += 1
            if self._full_wakes == _FULL_WAKES:
                self._calls, self._full_wakes = min(2 * self._calls, _READS_PER_WAKE), 0
            self._calls = max(self._calls, least)
        return trains

    def read(self, calls: int = _READS_PER_WAKE) -> list[Train]:
        """Read what is there with so many calls at most, in order. Never blocks; empty when nothing is."""
        if not self._features.recvmsg:
            return self._read_plain(calls)
        trains: list[Train] = []
        paths = self._paths
        recvmsg = self._sock.recvmsg
        space = self._space
        for _ in range(calls):
            try:
                data, ancillary, flags, source = recvmsg(_RECEIVE_SIZE, space)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # A pending error of the socket (an interface went down); the read has cleared it.
                self.errors += 1
                continue
            info = b""
            size = len(data)
            for _, kind, value in ancillary:
                if kind == UDP_GRO:
                    size = _INT.unpack(value)[0]
                else:
                    info = value
            try:
                path = paths[source, info]
            except KeyError:
                path = self._path(source, info)
            if flags & _CUT:
                self.truncated += 1
            elif path is None:
                self.foreign += 1
            else:
                trains.append(Train(path, (data,), size))
        return trains

    def _read_plain(self, calls: int) -> list[Train]:
        trains: list[Train] = []
        for _ in range(calls):
            try:
                data, source = self._sock.recvfrom(_RECEIVE_SIZE)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # Windows reports an ICMP answer to an earlier send here; it says nothing of this socket.
                self.errors += 1
                continue
            try:
                path = self._paths[source, b""]
            except KeyError:
                path = self._path(source, b"")
            if path is not None:
                trains.append(Train(path, (data,), len(data)))
        return trains

    def _path(self, source: SocketAddress, info: bytes) -> Path | None:
        """Work out, and remember, where datagrams of this source come from; None: they are not for us."""
        # Without PKTINFO, an IPv6 source still names its link.
        index, host = source[3] if len(source) == 4 else 0, self._host
        if info:
            index, host = self._family.unpack_pktinfo(info)
        path = None
        if host == self._host:
            path = Path(self._family.record(source), self._group, index)
        if len(self._paths) >= _MAX_PATHS:
            self._paths.clear()
        self._paths[source, info] = path
        return path


class TrainSender:
    """Puts trains into a non-blocking socket.

    Both ways to send return False when there was no room for the whole train; any other trouble is
    counted at the interface and never raised.
    """

    def __init__(self, sock: socket.socket, family: Family, features: Features) -> None:
        self._sock = sock
        self._family = family
        self._features = features
        self._outgoing = 0

    def send_out(self, member: Membership, target: SocketAddress, train: Train) -> bool:
        """Send a train out of this very interface."""
        if self._features.pktinfo:
            return self._send(member, member.ancillary, target, train)
        if self._outgoing != member.index:
            option, value = self._family.outgoing(member.index)
            if not set_quietly(self._sock, self._family.level, option, value):
                member.note(errno.ENODEV, 1)
                return True
            self._outgoing = member.index
        return self._send(member, (), target, train)

    def send_routed(self, member: Membership, target: SocketAddress, train: Train) -> bool:
        """Send a train to a host by whatever way the routes say; trouble is counted at `member`."""
        return self._send(member, (), target, train)

    def _send(
        self, member: Membership, ancillary: Sequence[_Ancillary], target: SocketAddress, train: Train
    ) -> bool:
        buffers, size = train.buffers, train.segment_size
        total = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        if total <= size:
            refused = self._call(buffers, ancillary, target)
            return not refused or _lost(member, refused, 1)
        if not self._features.segment or not member.segment or size > MAX_DATAGRAM_SIZE // 2:
            return self._send_singly(member, train.datagrams(), ancillary, target)
        ancillary = [*ancillary, (IPPROTO_UDP, UDP_SEGMENT or 0, _UINT16.pack(size))]
        at_once = min(_MAX_SEGMENTS, MAX_DATAGRAM_SIZE // size) * size
        if total <= at_once:
            return self._send_segmented(member, buffers, size, ancillary, target)
        whole = memoryview(b"".join(buffers))
        return all(
            self._send_segmented(member, (whole[start : start + at_once],), size, ancillary, target)
            for start in range(0, total, at_once)
        )

    def _send_segmented(
        self,
        member: Membership,
        buffers: Sequence[bytes | memoryview],
        size: int,
        ancillary: Sequence[_Ancillary],
        target: SocketAddress,
    ) -> bool:
        refused = self._call(buffers, ancillary, target)
        if not refused:
            return True
        whole = b"".join(buffers)
        if refused not in _NOT_AS_TRAIN:
            return _lost(member, refused, -(-len(whole) // size))
        # A driver that cannot segment (EIO), or a kernel that words EMSGSIZE as EINVAL: the datagrams one
        # by one show which. If all of them pass, no train is tried here again.
        before = member.unsent
        train = Train(_NO_PATH, (whole,), size)
        sent = self._send_singly(member, train.datagrams(), ancillary[:-1], target)
        member.segment = not sent or member.unsent != before
        return sent

    def _send_singly(
        self,
        member: Membership,
        datagrams: Iterable[bytes],
        ancillary: Sequence[_Ancillary],
        target: SocketAddress,
    ) -> bool:
        for datagram in datagrams:
            refused = self._call((datagram,), ancillary, target)
            if refused and not _lost(member, refused, 1):
                return False
        return True

    def _call(
        self, buffers: Sequence[bytes | memoryview], ancillary: Sequence[_Ancillary], target: SocketAddress
    ) -> int:
        """Make the one system call; returns 0 or the error number."""
        try:
            if self._features.recvmsg:
                self._sock.sendmsg(buffers, ancillary, 0, target)
            else:
                self._sock.sendto(b"".join(buffers), target)
        except OSError as error:
            return error.errno or errno.EIO
        return 0


def _lost(member: Membership, number: int, datagrams: int) -> bool:
    """Count datagrams lost to an error, unless full queues are all it was. Returns whether there was room."""
    if number in NO_ROOM:
        return False
    member.note(number, datagrams)
    return True
