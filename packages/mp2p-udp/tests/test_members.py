"""Following interfaces as they come, change and go. The socket is real, and joins on loopback only."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.transport import Listen, Path, Reach, Train
from mp2p_udp import V4, Interface
from mp2p_udp.members import Members

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the loopback interface does multicast on Linux"
)

GROUP = pack_ipv4("224.0.230.7", 21024)
LO = Interface("lo", 1, frozenset({"up", "running", "loopback"}), (ip_interface("127.0.0.1/8"),), 65536)
ABSENT = Interface(
    "eth9", 9999, frozenset({"up", "running", "multicast"}), (ip_interface("192.0.2.1/24"),), 1500
)


class Watched:
    """A socket whose memberships are counted."""

    def __init__(self) -> None:
        self.real = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.joins = 0
        self.leaves = 0

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        self.joins += option == socket.IP_ADD_MEMBERSHIP
        self.leaves += option == socket.IP_DROP_MEMBERSHIP
        self.real.setsockopt(level, option, value)


@pytest.fixture
def sock() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.real.close()


def members(sock: Watched, *names: str) -> Members:
    return Members(sock, V4, Listen(GROUP, Reach.HOST, names))  # type: ignore[arg-type]  # only setsockopt is used


def test_an_interface_that_stays_as_it_is_joins_once(sock: Watched) -> None:
    table = members(sock)
    assert table.follow([LO], 1.0)
    assert not table.follow([LO], 2.0)
    assert (sock.joins, sock.leaves) == (1, 0)
    (status,) = table.status(5.0)
    assert (status.joined, status.joined_for, status.rejoins) == (True, 4.0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"addresses": (ip_interface("127.0.0.2/8"),)},
        {"mtu": 1500},
        {"flags": LO.flags | {"multicast"}},
        {"name": "loop"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_change_joins_again_on_the_same_socket(sock: Watched, change: dict[str, object]) -> None:
    table = members(sock)
    table.follow([LO], 1.0)
    changed = replace(LO, **change)  # type: ignore[arg-type]  # one field at a time
    assert table.follow([changed], 2.0)
    assert (sock.joins, sock.leaves) == (2, 1)
    (member,) = table
    assert (member.interface, member.mtu, member.name) == (changed, changed.mtu, changed.name)


def test_down_and_up_leaves_and_joins(sock: Watched) -> None:
    table = members(sock)
    table.follow([LO], 1.0)
    assert table.follow([replace(LO, flags=frozenset({"loopback"}))], 2.0)
    assert table.joined() == []
    (status,) = table.status(3.0)
    assert (status.joined, status.detail, status.joined_for) == (False, "it is down", None)
    assert table.follow([LO], 4.0)
    assert (sock.joins, sock.leaves) == (2, 1)
    assert [member.joined for member in table] == [True]


def test_all_may_go_and_come_back_under_another_index(sock: Watched) -> None:
    table = members(sock, "lo", "eth9")
    table.follow([LO], 1.0)
    assert table.follow([], 2.0)
    assert list(table) == []
    assert table.own_hosts == frozenset()
    assert table.follow([LO, ABSENT], 3.0)
    assert {status.name: status.joined for status in table.status(3.0)} == {"lo": True, "eth9": False}


def test_a_join_that_failed_is_tried_again_at_the_next_look(
    sock: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = members(sock)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOBUFS, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(sock, "setsockopt", refuse)
        assert table.follow([LO], 1.0)
    assert table.joined() == []
    assert table.follow([LO], 2.0)
    assert len(table.joined()) == 1


def test_what_is_heard_is_noted_where_it_came_in(sock: Watched) -> None:
    table = members(sock)
    table.follow([LO], 1.0)
    (status,) = table.status(2.0)
    assert status.heard_ago is None
    table.heard(
        [Train(Path(GROUP, GROUP, 1), (b"x",), 1200), Train(Path(GROUP, GROUP, 77), (b"x",), 1200)], 3.0
    )
    (status,) = table.status(5.0)
    assert status.heard_ago == 2.0


def test_a_reminder_keeps_the_membership_and_counts(sock: Watched) -> None:
    table = members(sock)
    table.follow([LO], 1.0)
    (member,) = table
    assert member.rejoin(4.0)
    assert (sock.joins, sock.leaves) == (2, 1)
    (status,) = table.status(5.0)
    assert (status.rejoins, status.joined_for) == (1, 1.0)
