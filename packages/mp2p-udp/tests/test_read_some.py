"""How many datagrams a wake-up looks for."""

from __future__ import annotations

import socket
from typing import Any, cast

from mp2p_core.proto.addresses import pack_ipv4
from mp2p_udp import V4, Features
from mp2p_udp.trains import TrainReceiver


class CountedSocket:
    """Has so many datagrams waiting, and counts the calls."""

    def __init__(self, datagram: bytes = b"x") -> None:
        self.datagram = datagram
        self.waiting = 0
        self.calls = 0

    def recvfrom(self, _size: int) -> Any:
        self.calls += 1
        if not self.waiting:
            raise BlockingIOError
        self.waiting -= 1
        return self.datagram, ("192.0.2.1", 1024)


def receiver(sock: CountedSocket) -> TrainReceiver:
    return TrainReceiver(cast("socket.socket", sock), V4, pack_ipv4("224.0.230.7", 1024), Features())


def test_one_datagram_at_a_time_is_mostly_read_with_one_call() -> None:
    sock = CountedSocket()
    some = receiver(sock)
    for _ in range(90):
        sock.waiting += 1
        assert len(some.read_some()) == 1
    assert sock.calls == 100


def test_behind_a_large_train_it_looks_for_others_at_once() -> None:
    sock = CountedSocket(bytes(60_000))
    some = receiver(sock)
    found = []
    for waiting in (5, 4, 1, 1, 100):
        sock.waiting, sock.calls = waiting, 0
        found.append((len(some.read_some()), sock.calls))
    assert found == [(1, 1), (4, 4), (1, 2), (1, 2), (4, 4)]


def test_a_flood_is_soon_read_32_at_a_time_and_no_more() -> None:
    sock = CountedSocket()
    some = receiver(sock)
    sock.waiting = 10_000
    found = [len(some.read_some()) for _ in range(60)]
    assert found[0] == 1
    assert found[-1] == max(found) == 32
    assert sorted(found) == found


def test_after_a_flood_it_looks_for_what_is_there() -> None:
    sock = CountedSocket()
    some = receiver(sock)
    sock.waiting = 10_000
    while sock.waiting:
        some.read_some()
    assert some.read_some() == []
    sock.waiting, sock.calls = 1, 0
    assert len(some.read_some()) == 1
    assert sock.calls == 1
