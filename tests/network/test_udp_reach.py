"""Reach host keeps every datagram on this machine, read off the wire."""

from __future__ import annotations

import itertools
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from netlab.capture import Capture
from netlab.lab import Host, Lab
from netlab.topologies import two_hosts

from mp2p_core.proto.addresses import ip, pack_ipv4, pack_ipv6
from mp2p_core.transport import Listen, Path, Reach, Train
from mp2p_transport_v4 import IPV4
from mp2p_transport_v6 import IPV6
from mp2p_udp import MulticastTransport, UdpChannel, detect, open_channel

pytestmark = [pytest.mark.network, pytest.mark.anyio]

PORT = 21024
BOTH = pytest.mark.parametrize("transport", [IPV4, IPV6], ids=lambda transport: transport.name)
MARK = b"must not leave"


Open = Callable[..., UdpChannel]


@pytest.fixture
async def opened(anyio_backend: Any) -> AsyncIterator[Open]:
    """Open channels of reach host in namespaces and close them after the test."""
    channels: list[UdpChannel] = []

    def make(host: Host, transport: MulticastTransport, *names: str, trains: bool = True) -> UdpChannel:
        features = replace(detect(transport.ip.number), segment=trains, pktinfo=trains)
        with host.entered():
            listen = Listen(group(transport), Reach.HOST, names)
            channels.append(open_channel(listen, transport.ip, features=features))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.aclose()


NUMBERS = itertools.count(1)


def group(transport: MulticastTransport) -> bytes:
    """Return a group that no other call returned; random ones of IPv4 are few enough to meet."""
    number = next(NUMBERS)
    return transport.create_address(
        key=None,
        reach=Reach.HOST,
        port=PORT,
        interfaces=(),
        random=lambda count: number.to_bytes(4) + bytes(count - 4),
    )


@BOTH
async def test_the_system_alone_lets_datagrams_with_hop_limit_0_out(
    lab: Lab, transport: MulticastTransport
) -> None:
    """Why reach host joins what it sends to. When this fails, the kernel has learned better."""
    ends = two_hosts(lab)
    wire = Capture(ends.right_port)
    family, address = transport.ip, group(transport)
    sock = ends.left.socket(family.number, socket.SOCK_DGRAM)
    for option, value in family.socket_options(0):
        sock.setsockopt(family.level, option, value)
    sock.setsockopt(family.level, *family.outgoing(ends.left_port.index))
    sock.sendto(MARK, family.target(address, ends.left_port.index))
    wire.wait_for(MARK)
    assert {packet.hops for packet in wire.datagrams()} == {0}


@pytest.mark.parametrize("trains", [True, False], ids=["trains", "no trains"])
@BOTH
async def test_nothing_leaves_at_reach_host(
    lab: Lab, opened: Open, transport: MulticastTransport, trains: bool
) -> None:
    ends = two_hosts(lab)
    near, far = Capture(ends.left_port), Capture(ends.right_port)
    # IPv4 would use loopback alone; on a named interface it has to hold just as well.
    sender = opened(ends.left, transport, "eth0", trains=trains)
    receiver = opened(ends.left, transport, "eth0", trains=trains)
    elsewhere = opened(ends.right, transport, "eth0")
    unheard = [group(transport) for _ in range(20)]
    for address in (receiver.address, elsewhere.address, sender.address, *unheard, receiver.address):
        for interface in (0, ends.left_port.index):
            assert sender.send(Train(Path(address, None, interface), (MARK,), 1200))
            assert sender.send(Train(Path(address, None, interface), (MARK * 1000,), 1200))
    neighbour = (
        pack_ipv4(ends.right_port.v4, PORT) if transport is IPV4 else pack_ipv6(ends.right_port.v6, PORT)
    )
    for interface in (0, ends.left_port.index):
        assert sender.send(Train(Path(neighbour, None, interface), (MARK,), 1200))
    got: list[bytes] = []
    with anyio.fail_after(20):
        while len(got) < 2 * 2 * (1 + 12):
            got += [datagram for train in await receiver.receive() for datagram in train.datagrams()]
    assert got.count(MARK) == 4, "and it works on this machine, without duplicates"
    _flush(ends.left, ends.left_port.index, transport)
    for wire in (near, far):
        wire.wait_for(b"flush")
        assert [packet.payload for packet in wire.datagrams()] == [b"flush"]


def _flush(host: Host, index: int, transport: MulticastTransport) -> None:
    """Send what does leave, so that whatever left before it has been seen."""
    family = transport.ip
    sock = host.socket(family.number, socket.SOCK_DGRAM)
    for option, value in family.socket_options(1):
        sock.setsockopt(family.level, option, value)
    sock.setsockopt(family.level, *family.outgoing(index))
    sock.sendto(b"flush", family.target(group(transport), index))


async def test_ipv4_at_reach_host_joins_loopback_only(lab: Lab, opened: Open) -> None:
    ends = two_hosts(lab)
    channel = opened(ends.left, IPV4)
    text = str(ip(channel.address))
    assert {name for name, joined in ends.left.memberships() if joined == text} == {"lo"}


@BOTH
async def test_groups_joined_to_send_there_are_few(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    """The system allows 20 memberships a socket."""
    ends = two_hosts(lab)
    sender = opened(ends.left, transport, "eth0")
    before = ends.left.memberships()
    for _ in range(40):
        sender.send(Train(Path(group(transport)), (MARK,), 1200))
    assert len(ends.left.memberships() - before) <= 8
    assert sender.counters["refused by reach"] == 0
