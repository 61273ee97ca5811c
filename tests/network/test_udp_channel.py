"""UDP channels between hosts: trains, interfaces, and what goes wrong on real networks."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pathlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import IO, Any, Final

import anyio
import pytest
from netlab.capture import Capture
from netlab.lab import Host, Lab, Node, wait_until
from netlab.topologies import two_hosts, two_lans

from mp2p_core.errors import NoMulticast
from mp2p_core.proto.addresses import ip
from mp2p_core.transport import Address, InterfaceStatus, Listen, Path, Reach, Train
from mp2p_transport_v4 import IPV4
from mp2p_transport_v6 import IPV6
from mp2p_udp import Features, MulticastTransport, UdpChannel, detect, list_interfaces, open_channel
from mp2p_udp.options import IPV6_MTU_DISCOVER, IPV6_MULTICAST_ALL, PMTUDISC_PROBE

pytestmark = [pytest.mark.network, pytest.mark.anyio]

PORT = 21024

TUNSETIFF: Final = 0x400454CA
IFF_TUN: Final = 0x0001
IFF_NO_PI: Final = 0x1000

TRANSPORTS = [IPV4, IPV6]

Open = Callable[..., UdpChannel]


@pytest.fixture(params=TRANSPORTS, ids=lambda transport: transport.name)
def transport(request: pytest.FixtureRequest) -> MulticastTransport:
    chosen: MulticastTransport = request.param
    return chosen


@pytest.fixture
async def opened(anyio_backend: Any) -> AsyncIterator[Open]:
    """Open channels in namespaces and close them after the test."""
    channels: list[UdpChannel] = []

    def make(
        node: Node,
        transport: MulticastTransport,
        address: Address | None = None,
        *interfaces: str,
        reach: Reach = Reach.LINK,
        features: Features | None = None,
    ) -> UdpChannel:
        listen = Listen(address or group(transport), reach, interfaces)
        with node.entered():
            channels.append(open_channel(listen, transport.ip, features=features))
        return channels[-1]

    yield make
    for channel in channels:
        await channel.aclose()


NUMBERS = itertools.count(1)


def group(transport: MulticastTransport, reach: Reach = Reach.GLOBAL) -> Address:
    """Return a group that no other call returned; random ones of IPv4 are few enough to meet."""
    number = next(NUMBERS)
    return transport.create_address(
        key=None,
        reach=reach,
        port=PORT,
        interfaces=(),
        random=lambda count: number.to_bytes(4) + bytes(count - 4),
    )


async def take(channel: UdpChannel, count: int) -> list[Train]:
    trains: list[Train] = []
    with anyio.fail_after(20):
        while len(flat(trains)) < count:
            trains += await channel.receive()
    return trains


def flat(trains: list[Train]) -> list[bytes]:
    return [datagram for train in trains for datagram in train.datagrams()]


def status_of(channel: UdpChannel, name: str) -> InterfaceStatus:
    return next(status for status in channel.status() if status.name == name)


@pytest.mark.parametrize("trains_in", [True, False], ids=["gro", "no gro"])
async def test_a_train_of_44_crosses_in_one_packet(
    lab: Lab, opened: Open, transport: MulticastTransport, trains_in: bool
) -> None:
    ends = two_hosts(lab)
    features = replace(detect(transport.ip.number), gro=trains_in)
    receiver = opened(ends.right, transport, features=features)
    sender = opened(ends.left, transport)
    wire = Capture(ends.right_port)
    train = Train(Path(receiver.address), [os.urandom(1452) for _ in range(43)] + [b"end"], 1452)
    assert sender.send(train)
    trains = await take(receiver, 44)
    assert flat(trains) == list(train.datagrams())
    assert len(trains) == (1 if trains_in else 44)
    (packet,) = wire.datagrams(port=PORT)
    assert len(packet.payload) == 43 * 1452 + 3


async def test_the_plain_path_delivers_what_trains_do(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    ends = two_hosts(lab)
    receiver = opened(ends.right, transport, features=Features(bind_to_group=True))
    sender = opened(ends.left, transport, features=Features(bind_to_group=True))
    wire = Capture(ends.right_port)
    train = Train(Path(receiver.address), (os.urandom(1000 * 10 + 1),), 1000)
    assert sender.send(train)
    assert flat(await take(receiver, 11)) == list(train.datagrams())
    assert len(wire.datagrams(port=PORT)) == 11


async def test_trains_are_cut_where_the_network_card_cannot(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    ends = two_hosts(lab)
    ends.left_port.segment_in_software()
    sender, receiver = opened(ends.left, transport), opened(ends.right, transport)
    train = Train(Path(receiver.address), (os.urandom(1400 * 44),), 1400)
    assert sender.send(train)
    assert flat(await take(receiver, 44)) == list(train.datagrams())


async def test_a_datagram_tells_its_source_and_its_interface(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    lans = two_lans(lab)
    receiver = opened(lans.host, transport)
    for number, host in enumerate((lans.first, lans.second)):
        opened(host, transport).send(Train(Path(receiver.address), (b"x",), 1))
        (train,) = await take(receiver, 1)
        interface, far = lans.host.interfaces[number], host.interfaces[0]
        assert train.path.interface == interface.index
        assert train.path.local == receiver.address
        source = str(ip(train.path.remote))
        assert source == far.v4 if transport is IPV4 else source == far.v6 or source.startswith("fe80:")


async def test_a_path_is_left_by_its_interface_and_0_means_all(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    lans = two_lans(lab)
    for features in (None, replace(detect(transport.ip.number), pktinfo=False)):
        sender = opened(lans.host, transport, features=features)
        receivers = [opened(host, transport, group(transport)) for host in (lans.first, lans.second)]
        address = receivers[0].address
        others = opened(lans.second, transport, address)
        indexes = [interface.index for interface in lans.host.interfaces]
        sender.send(Train(Path(address, interface=indexes[1]), (b"second only",), 20))
        assert flat(await take(others, 1)) == [b"second only"]
        sender.send(Train(Path(address), (b"both",), 20))
        sender.send(Train(Path(address, interface=9999), (b"both, for the interface is gone",), 40))
        assert flat(await take(receivers[0], 2)) == [b"both", b"both, for the interface is gone"]
        assert flat(await take(others, 2)) == [b"both", b"both, for the interface is gone"]


@pytest.mark.parametrize("reach", [Reach.GLOBAL, Reach.LINK], ids=["global", "link"])
async def test_another_group_on_the_same_port_is_not_delivered(
    lab: Lab, opened: Open, transport: MulticastTransport, reach: Reach
) -> None:
    """Groups of link scope (ff12) cannot be bound to on several interfaces, and are sorted out by hand."""
    ends = two_hosts(lab)
    features = detect(transport.ip.number)
    for able in (
        features,
        replace(features, bind_to_group=False),
        replace(features, bind_to_group=False, multicast_all=False),
    ):
        ours, theirs = (opened(ends.right, transport, group(transport, reach), features=able) for _ in "12")
        sender = opened(ends.left, transport)
        for channel, text in ((theirs, b"theirs"), (ours, b"ours")):
            sender.send(Train(Path(channel.address), (text,), 20))
        assert flat(await take(ours, 1)) == [b"ours"]
        assert flat(await take(theirs, 1)) == [b"theirs"]


async def test_a_datagram_larger_than_the_mtu_is_refused_and_shown(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    ends = two_hosts(lab)
    sender, receiver = opened(ends.left, transport), opened(ends.right, transport)
    fitting = 1500 - transport.ip.header_size
    assert sender.max_datagram_size == fitting
    for size in (fitting + 1, 65507):
        assert sender.send(Train(Path(receiver.address), (bytes(size),), size))
    assert sender.send(Train(Path(receiver.address), (bytes(1600 * 3),), 1600))
    assert "5 datagrams not sent" in status_of(sender, "eth0").detail
    assert "EMSGSIZE" in status_of(sender, "eth0").detail
    assert sender.send(Train(Path(receiver.address), (bytes(fitting * 3),), fitting))
    assert flat(await take(receiver, 3)) == [bytes(fitting)] * 3, "trains are still in use"


async def test_an_interface_that_goes_down_is_kept(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    lans = two_lans(lab)
    sender = opened(lans.host, transport)
    first, second = opened(lans.first, transport), opened(lans.second, transport)
    first_port = lans.host.interfaces[0]
    first_port.down()
    for receiver in (first, second):
        assert sender.send(Train(Path(receiver.address), (b"one down",), 20))
        assert sender.send(Train(Path(receiver.address, interface=first_port.index), (b"lost",), 20))
    assert flat(await take(second, 1)) == [b"one down"]
    assert "datagrams not sent" in status_of(sender, "eth0").detail
    assert status_of(sender, "eth0").joined
    assert "not sent" not in status_of(sender, "eth1").detail
    first_port.up()
    assert sender.send(Train(Path(first.address), (b"up again",), 20))
    assert flat(await take(first, 1)) == [b"up again"]


async def test_an_interface_that_vanishes_raises_nothing(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    ends = two_hosts(lab)
    sender = opened(ends.left, transport)
    ends.left_port.unplug()
    assert sender.send(Train(Path(group(transport)), (b"x",), 1))
    assert sender.send(Train(Path(group(transport)), (bytes(3000),), 1000))
    assert "ENODEV" in status_of(sender, "eth0").detail


async def test_a_firewall_on_this_host_is_named(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    ends = two_hosts(lab)
    sender, receiver = opened(ends.left, transport), opened(ends.right, transport)
    ends.left.nft(
        f"table inet lock {{ chain out {{ type filter hook output priority 0; udp dport {PORT} drop; }}; }}"
    )
    assert sender.send(Train(Path(receiver.address), (b"dropped",), 20))
    assert "EPERM" in status_of(sender, "eth0").detail
    ends.left.nft("delete table inet lock")
    assert sender.send(Train(Path(receiver.address), (b"sent",), 20))
    assert flat(await take(receiver, 1)) == [b"sent"]


async def test_a_full_queue_is_no_room(lab: Lab, opened: Open, transport: MulticastTransport) -> None:
    ends = two_hosts(lab)
    sender = opened(ends.left, transport)
    ends.left_port.limit_rate("80kbit", burst="3kb", latency="4000s")
    train = Train(Path(group(transport)), (bytes(1400 * 44),), 1400)
    room = [sender.send(train) for _ in range(400)]
    assert room[0]
    assert not room[-1]
    assert sender.counters["unsent"] == 0


@pytest.mark.parametrize("reach", [Reach.GLOBAL, Reach.LINK], ids=["global", "link"])
@pytest.mark.parametrize("plain", [False, True], ids=["all features", "plain"])
async def test_unicast_reaches_the_source_that_was_heard(
    lab: Lab, opened: Open, transport: MulticastTransport, reach: Reach, plain: bool
) -> None:
    """Also the link-local source that IPv6 chooses for a group of link scope."""
    lans = two_lans(lab)
    features = Features(bind_to_group=True) if plain else None
    receiver = opened(lans.host, transport, group(transport, reach), features=features)
    sender = opened(lans.second, transport)
    wire = Capture(lans.second.interfaces[0])
    sender.send(Train(Path(receiver.address), (b"knock",), 20))
    (heard,) = await take(receiver, 1)
    assert receiver.send(Train(Path(heard.path.remote, None, heard.path.interface), (b"answer",), 20))
    wire.wait_for(b"answer")
    (answer,) = [packet for packet in wire.datagrams(outgoing=False) if packet.payload == b"answer"]
    assert answer.destination == str(ip(heard.path.remote))
    assert answer.destination.startswith("fe80") == (transport is IPV6 and reach is Reach.LINK)
    assert (answer.source_port, answer.destination_port, answer.hops) == (PORT, PORT, Reach.LINK.value)


async def test_ipv6_socket_options_are_those_of_section_9(lab: Lab, opened: Open) -> None:
    sock = opened(two_hosts(lab).left, IPV6, reach=Reach.SITE)._sock
    level = socket.IPPROTO_IPV6
    assert sock.getsockopt(level, socket.IPV6_V6ONLY) == 1
    assert sock.getsockopt(level, socket.IPV6_MULTICAST_HOPS) == 32
    assert sock.getsockopt(level, socket.IPV6_MULTICAST_LOOP) == 1
    assert sock.getsockopt(level, IPV6_MULTICAST_ALL) == 0
    assert sock.getsockopt(level, IPV6_MTU_DISCOVER) == PMTUDISC_PROBE


# Which interfaces are used.


def wait_running(host: Host, name: str) -> None:
    """Wait for a carrier, of which the kernel takes notice up to a second late."""

    def running() -> bool:
        with host.entered():
            return any(each.name == name and "running" in each.flags for each in list_interfaces())

    wait_until(running, f"{name} to run")


async def test_every_interface_skipped_has_its_reason(
    lab: Lab, opened: Open, transport: MulticastTransport
) -> None:
    host, other = lab.host("host"), lab.host("other")
    lab.link(host, other)
    host.sysctl({"net/ipv6/conf/default/addr_gen_mode": 1})  # no link-local addresses by themselves
    for name in ("off0", "mute0", "bare0", "unplugged0"):
        host.ip(f"link add {name} type veth peer name far-{name}")
    host.ip(
        "addr add 10.9.1.1/24 dev off0",
        "link set mute0 multicast off",
        *(f"link set {name} up" for name in ("mute0", "far-mute0", "bare0", "far-bare0", "unplugged0")),
        "tuntap add vpn0 mode tun",
        "link set vpn0 up",
    )
    wait_running(host, "bare0")
    channel = opened(host, transport)
    reasons = {status.name: status.detail for status in channel.status()}
    assert {status.name for status in channel.status() if status.joined} == {"eth0"}
    assert "loopback" in reasons["lo"]
    assert "down" in reasons["off0"]
    assert "MULTICAST" in reasons["mute0"]
    assert f"no {transport.ip.label} address" in reasons["bare0"]
    assert "not running" in reasons["unplugged0"]
    assert "point-to-point" in reasons["vpn0"]
    await channel.aclose()
    with pytest.raises(NoMulticast, match="cannot do multicast") as caught:
        opened(host, transport, None, "mute0")
    assert caught.value.interface == "mute0"
    host.ip("link set eth0 down")
    with pytest.raises(NoMulticast) as caught:
        opened(host, transport)
    for name in ("lo", "eth0", "off0", "mute0", "bare0", "unplugged0", "vpn0"):
        assert f"{name}: it" in str(caught.value)


@pytest.fixture
def tunnel(lab: Lab) -> Iterator[tuple[Host, IO[bytes]]]:
    """Give a host with a tunnel, and the file that its packets come out of."""
    host = lab.host("host")
    host.ip("tuntap add vpn0 mode tun", "addr add 10.8.0.1/24 dev vpn0", "link set vpn0 up")
    with host.entered(), pathlib.Path("/dev/net/tun").open("r+b", buffering=0) as packets:
        fcntl.ioctl(packets, TUNSETIFF, b"vpn0".ljust(16, b"\0") + struct.pack("=H22x", IFF_TUN | IFF_NO_PI))
        wait_running(host, "vpn0")
        yield host, packets


async def test_a_point_to_point_interface_is_used_when_asked_for(
    tunnel: tuple[Host, IO[bytes]], opened: Open
) -> None:
    host, packets = tunnel
    with pytest.raises(NoMulticast, match="vpn0: it is a point-to-point interface"):
        opened(host, IPV4)
    channel = opened(host, IPV4, None, "vpn0")
    assert status_of(channel, "vpn0").joined
    train = Train(Path(group(IPV4)), (os.urandom(1000 * 10),), 1000)
    assert channel.send(train)
    # A tunnel takes datagrams one by one, after reports of the membership.
    got: list[bytes] = []
    with anyio.fail_after(20):
        while len(got) < 10:
            await anyio.wait_readable(packets)
            packet = packets.read(2000)
            if packet[0] == 0x45 and packet[9] == socket.IPPROTO_UDP:
                got.append(packet[28:])
    assert got == list(train.datagrams())


async def test_more_interfaces_than_the_system_allows_is_status(lab: Lab, opened: Open) -> None:
    host, other = lab.host("host"), lab.host("other")
    host.sysctl({"net/ipv4/igmp_max_memberships": 2})
    for _ in range(3):
        lab.link(host, other)
    channel = opened(host, IPV4)
    assert [status_of(channel, f"eth{number}").joined for number in range(3)] == [True, True, False]
    assert "igmp_max_memberships" in status_of(channel, "eth2").detail


async def test_without_ipv6_the_error_says_so(lab: Lab, opened: Open) -> None:
    host = Host("host")
    with contextlib.closing(host):
        host.sysctl({"net/ipv6/conf/all/disable_ipv6": 1})
        with pytest.raises(NoMulticast, match="lo: "):
            opened(host, IPV6)
