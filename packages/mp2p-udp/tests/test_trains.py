"""What trains do at the limits of the system, on a socket that only pretends."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Sequence
from typing import Any, cast

import pytest

from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.transport import Path, Train
from mp2p_udp import V4, Features, Interface
from mp2p_udp.membership import Membership
from mp2p_udp.options import UDP_SEGMENT
from mp2p_udp.trains import TrainReceiver, TrainSender

GROUP = pack_ipv4("224.0.230.7", 1024)
TARGET = ("224.0.230.7", 1024)
FEATURES = Features(recvmsg=True, pktinfo=True, segment=True, gro=True, bind_to_group=True)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="trains are Linux's")


class PretendedSocket:
    """Records what is sent, and receives what it is given."""

    def __init__(self, incoming: Sequence[Any] = ()) -> None:
        self.incoming = list(incoming)
        self.calls: list[tuple[bytes, int]] = []
        self.refusals: list[int] = []

    def recvmsg(self, size: int, space: int) -> Any:
        if not self.incoming:
            raise BlockingIOError
        found = self.incoming.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    recvfrom = recvmsg

    def sendmsg(self, buffers: Sequence[bytes], ancillary: Sequence[Any], flags: int, target: object) -> None:
        assert target == TARGET
        segments = [
            int.from_bytes(value, sys.byteorder) for _, kind, value in ancillary if kind == UDP_SEGMENT
        ]
        if self.refusals and (number := self.refusals.pop(0)):
            raise OSError(number, "")
        self.calls.append((b"".join(buffers), segments[0] if segments else 0))


def receiver(sock: PretendedSocket) -> TrainReceiver:
    return TrainReceiver(cast("socket.socket", sock), V4, GROUP, FEATURES)


def sender(sock: PretendedSocket) -> tuple[TrainSender, Membership]:
    real = cast("socket.socket", sock)
    member = Membership(real, V4, GROUP, Interface("eth0", 3, frozenset(), (), 1500))
    return TrainSender(real, V4, FEATURES), member


@pytest.mark.parametrize(
    ("size", "count"),
    [(1, 300), (1, 64), (1, 65), (1452, 45), (1452, 46), (1452, 500), (32753, 2), (32753, 5)],
)
def test_no_call_exceeds_64_datagrams_or_what_udp_carries(size: int, count: int) -> None:
    sock = PretendedSocket()
    trains, member = sender(sock)
    whole = bytes(index % 251 for index in range(size * count - size // 2))
    train = Train(Path(GROUP), (whole[:100], whole[100:]), size)
    assert trains.send_out(member, TARGET, train)
    assert b"".join(data for data, _ in sock.calls) == whole
    for data, segment in sock.calls:
        assert segment == size
        assert len(data) <= 65507
        assert len(data) <= 64 * size
    for data, _ in sock.calls[:-1]:
        assert len(data) % size == 0


def test_without_room_the_rest_of_a_train_is_left() -> None:
    sock = PretendedSocket()
    trains, member = sender(sock)
    sock.refusals = [0, errno.EAGAIN]
    assert not trains.send_out(member, TARGET, Train(Path(GROUP), (bytes(1452 * 200),), 1452))
    assert len(sock.calls) == 1
    assert member.unsent == 0


def test_errors_that_are_no_fault_of_trains_leave_them_in_use() -> None:
    sock = PretendedSocket()
    trains, member = sender(sock)
    train = Train(Path(GROUP), (bytes(3000),), 1000)
    # Some kernels word a datagram beyond the MTU as EINVAL for a train; one by one it is EMSGSIZE.
    sock.refusals = [errno.EINVAL, errno.EMSGSIZE, errno.EMSGSIZE, errno.EMSGSIZE]
    assert trains.send_out(member, TARGET, train)
    assert (member.segment, member.unsent, member.last_error) == (True, 3, errno.EMSGSIZE)
    sock.refusals = [errno.EIO, 0, errno.EAGAIN]
    assert not trains.send_out(member, TARGET, train)
    assert member.segment
    sock.refusals = [errno.EIO]
    assert trains.send_out(member, TARGET, train)
    assert not member.segment


def test_what_was_cut_off_is_counted_and_not_delivered() -> None:
    source = ("192.0.2.1", 1024)
    trains = receiver(
        PretendedSocket(
            [
                (b"cut", [], socket.MSG_TRUNC, source),
                (b"no ancillary data", [], socket.MSG_CTRUNC, source),
                (b"whole", [], 0, source),
            ]
        )
    )
    assert [train.buffers for train in trains.read()] == [(b"whole",)]
    assert trains.truncated == 2


def test_errors_of_the_socket_do_not_stop_the_reading() -> None:
    source = ("192.0.2.1", 1024)
    trains = receiver(PretendedSocket([OSError(errno.ENETDOWN, ""), (b"after", [], 0, source)]))
    assert [train.buffers for train in trains.read()] == [(b"after",)]
    assert trains.errors == 1
    endless = receiver(PretendedSocket([OSError(errno.EIO, "")] * 1000))
    assert endless.read() == []
    assert endless.errors <= 64


def test_F10_forged_sources_fill_no_memory() -> None:
    forged = [(b"x", [], 0, (f"192.0.{number >> 8}.{number & 255}", 1024)) for number in range(5000)]
    trains = receiver(PretendedSocket(forged))
    for number in range(0, 5000, 32):
        assert len(trains.read()) == min(32, 5000 - number)
        assert len(trains._paths) <= 1024
