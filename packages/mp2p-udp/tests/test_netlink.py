"""What the kernel's answers say of interfaces and addresses."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from mp2p_udp import netlink
from mp2p_udp.netlink import Addressed, Link

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")

LINK, ADDRESS, ERROR, DONE = 16, 20, 2, 3
UP = 0x1


def message(kind: int, body: bytes) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 2, 0, 0) + body
    return whole + bytes(-len(whole) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    whole = struct.pack("=HH", 4 + len(value), kind) + value
    return whole + bytes(-len(whole) % 4)


def link(index: int, name: str, mtu: int) -> bytes:
    head = struct.pack("=BxHiII", 0, 1, index, UP, 0)
    more = attribute(13, b"later")
    return message(
        LINK, head + attribute(3, name.encode() + b"\0") + attribute(4, struct.pack("=I", mtu)) + more
    )


def address(index: int, family: int, length: int, *attributes: bytes) -> bytes:
    return message(ADDRESS, struct.pack("=BBBBI", family, length, 0, 0, index) + b"".join(attributes))


class Kernel(socket.socket):
    """A socket that answers what it was told to."""

    answers: Iterator[bytes]

    def send(self, data: bytes, flags: int = 0) -> int:  # type: ignore[override] # only what is called here
        assert struct.unpack_from("=I", data)[0] == len(data)
        return len(data)

    def recv(self, size: int, flags: int = 0) -> bytes:
        return next(self.answers)


def answered(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> tuple[list[Link], list[Addressed]]:
    monkeypatch.setattr(Kernel, "answers", iter(answers), raising=False)
    monkeypatch.setattr(netlink.socket, "socket", Kernel)
    return netlink.ask()


def test_answers_come_in_several_pieces_of_several_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    links, addresses = answered(
        monkeypatch,
        link(1, "lo", 65536) + link(2, "eth0", 1500),
        link(70, "a", 1400),
        message(DONE, bytes(4)),
        address(1, socket.AF_INET, 8, attribute(1, bytes((127, 0, 0, 1)))),
        message(DONE, bytes(4)),
    )
    assert links == [Link(1, "lo", UP, 65536), Link(2, "eth0", UP, 1500), Link(70, "a", UP, 1400)]
    assert addresses == [Addressed(1, bytes((127, 0, 0, 1)), 8)]


def test_the_own_address_counts_and_not_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    own, peers = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
    _, addresses = answered(
        monkeypatch,
        message(DONE, bytes(4)),
        address(3, socket.AF_INET, 32, attribute(1, peers), attribute(2, own))
        + address(3, socket.AF_INET6, 64, attribute(6, bytes(16)), attribute(1, b"\xfe\x80" + bytes(14)))
        + address(3, 45, 0, attribute(7, b"?")),  # of a protocol that is not IP
        message(DONE, bytes(4)),
    )
    assert addresses == [Addressed(3, own, 32), Addressed(3, b"\xfe\x80" + bytes(14), 64)]


def test_a_refusal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PermissionError):
        answered(monkeypatch, message(ERROR, struct.pack("=i", -errno.EPERM) + bytes(16)))
