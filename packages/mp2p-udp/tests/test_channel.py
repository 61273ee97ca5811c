"""Channels on loopback: what is sent arrives, what is not for us does not, and trouble is never silent."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest

from mp2p_core.errors import AddressError, NoMulticast, PortTaken
from mp2p_core.proto.addresses import format_host_port, ip, pack_ipv4, pack_ipv6, port
from mp2p_core.transport import MIN_DATAGRAM_SIZE, Listen, Path, Reach, Train
from mp2p_udp import V4, V6, Features, UdpChannel, detect, open_channel
from mp2p_udp.options import IP_MULTICAST_ALL

Open = Callable[..., UdpChannel]
Take = Callable[[UdpChannel, int], Awaitable[list[Train]]]
Flat = Callable[[Sequence[Train]], list[bytes]]

PORT = 10000 + os.getpid() % 20000
"""One for each process: tests run beside each other, and share this machine's loopback interface."""
GROUP = pack_ipv4("224.0.230.7", PORT)
OTHER_GROUP = pack_ipv4("224.0.230.8", PORT)
LOOPBACK = socket.if_nametoindex("lo") if sys.platform == "linux" else 1

FULL = detect(socket.AF_INET)
# Every way of lacking something that some system has.
LACKING = {
    "everything": FULL,
    "no trains out": replace(FULL, segment=False),
    "no trains in": replace(FULL, gro=False),
    "no trains": replace(FULL, segment=False, gro=False),
    "no pktinfo": replace(FULL, pktinfo=False),
    "no group binding": replace(FULL, bind_to_group=False),
    "nothing": Features(),
}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        sys.platform != "linux", reason="IPv4 multicast over lo needs no set-up on Linux only"
    ),
]


def plain_sender() -> socket.socket:
    """Make a socket that multicasts on loopback, and nowhere else."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 0)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    return sock


def endpoint(address: bytes) -> tuple[str, int]:
    return str(ip(address)), port(address)


@pytest.fixture(params=LACKING.values(), ids=LACKING.keys())
def features(request: pytest.FixtureRequest) -> Features:
    lacking: Features = request.param
    return lacking


async def test_every_set_of_features_carries_the_same_datagrams(
    opened: Open, take: Take, flat: Flat, features: Features
) -> None:
    sender, receiver = opened(OTHER_GROUP, features), opened(GROUP, features)
    # Sizes that divide and that do not, one buffer and several, trains longer than one call takes.
    sent: list[bytes] = []
    for buffers, size in (
        ((b"one",), 1200),
        ((b"",), 1200),
        ((bytes(1200), bytes(1200), b"last"), 1200),
        ((b"a", b"b", b"c"), 3),
        ((bytes(range(256)) * 40,), 1000),
        ((bytes(100_000), bytes(44)), 1452),
        ((bytes(150),), 1),
        ((bytes(80_000),), 40_000),
    ):
        train = Train(Path(GROUP), buffers, size)
        sent += train.datagrams()
        assert sender.send(train)
    with anyio.fail_after(10):
        trains = await take(receiver, len(sent))
    assert flat(trains) == sent
    assert sender.counters["unsent"] == 0
    assert {train.path.local for train in trains} == {GROUP}


async def test_source_destination_and_interface_are_told(opened: Open, take: Take) -> None:
    receiver = opened(GROUP)
    with plain_sender() as sock:
        sock.sendto(b"x", endpoint(GROUP))
        source = sock.getsockname()[1]
        with anyio.fail_after(10):
            (train,) = await take(receiver, 1)
    assert train.path == Path(pack_ipv4("127.0.0.1", source), GROUP, LOOPBACK)


async def test_the_source_is_the_port_listened_on(opened: Open, take: Take) -> None:
    sender, receiver = opened(OTHER_GROUP), opened(GROUP)
    sender.send(Train(Path(GROUP, interface=LOOPBACK), (b"x",), 1))
    with anyio.fail_after(10):
        (train,) = await take(receiver, 1)
    assert port(train.path.remote) == port(OTHER_GROUP)


@pytest.mark.parametrize("length", [0, 1, 1200, 65507])
async def test_P3_datagrams_of_every_size_arrive_whole(
    opened: Open, take: Take, flat: Flat, features: Features, length: int
) -> None:
    receiver = opened(GROUP, features)
    with plain_sender() as sock:
        sock.sendto(bytes(length), endpoint(GROUP))
    with anyio.fail_after(10):
        assert flat(await take(receiver, 1)) == [bytes(length)]
    assert receiver.max_datagram_size == 65507


async def test_another_group_on_the_same_port_is_not_delivered(opened: Open, take: Take, flat: Flat) -> None:
    """Also where the system cannot bind to a group, and another program here has joined the other one."""
    for features in (
        FULL,
        replace(FULL, bind_to_group=False),
        replace(FULL, bind_to_group=False, multicast_all=False),
    ):
        receiver, other = opened(GROUP, features), opened(OTHER_GROUP, features)
        with plain_sender() as sock:
            sock.sendto(b"theirs", endpoint(OTHER_GROUP))
            sock.sendto(b"to this host", ("127.0.0.1", port(GROUP)))
            sock.sendto(b"ours", endpoint(GROUP))
        with anyio.fail_after(10):
            assert flat(await take(receiver, 1)) == [b"ours"]
            assert flat(await take(other, 1)) == [b"theirs"]
        await receiver.aclose()
        await other.aclose()


async def test_foreign_datagrams_that_the_system_hands_over_are_counted(opened: Open, take: Take) -> None:
    receiver = opened(GROUP, replace(FULL, bind_to_group=False))
    with plain_sender() as sock:
        sock.sendto(b"to this host", ("127.0.0.1", port(GROUP)))
        sock.sendto(b"ours", endpoint(GROUP))
    with anyio.fail_after(10):
        await take(receiver, 1)
    assert receiver.counters["foreign"] == 1


LISTENER = """
import os, socket, struct, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sys.argv[3]))
sock.bind((sys.argv[1], int(sys.argv[2])))
lo = struct.pack("=4s4si", socket.inet_aton(sys.argv[1]), b"", socket.if_nametoindex("lo"))
sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, lo)
print("ready", flush=True)
print(sock.recv(100).decode(), flush=True)
"""


@contextmanager
def listener(address: bytes, *, sharing: bool) -> Iterator[subprocess.Popen[str]]:
    """Run a program that prints one datagram; it ends with the block, also when the test fails."""
    host, number = endpoint(address)
    command = [sys.executable, "-c", LISTENER, host, str(number), str(int(sharing))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("theirs", [GROUP, OTHER_GROUP], ids=["same group", "other group"])
async def test_processes_share_a_port(opened: Open, take: Take, flat: Flat, theirs: bytes) -> None:
    with listener(theirs, sharing=True) as process:
        receiver = opened(GROUP)
        with plain_sender() as sock:
            sock.sendto(b"to us", endpoint(GROUP))
            with anyio.fail_after(10):
                assert flat(await take(receiver, 1)) == [b"to us"]
            sock.sendto(b"to them", endpoint(theirs))
        output, _ = process.communicate(timeout=10)
    assert output.strip() == ("to us" if theirs == GROUP else "to them")


async def test_a_port_held_by_a_program_that_does_not_share_is_named(opened: Open) -> None:
    with listener(GROUP, sharing=False), pytest.raises(PortTaken, match=str(PORT)):
        opened(GROUP)


async def test_300_queued_datagrams_are_all_delivered(
    opened: Open, take: Take, flat: Flat, features: Features
) -> None:
    receiver = opened(GROUP, features)
    sent = [number.to_bytes(2) for number in range(300)]
    with plain_sender() as sock:
        for datagram in sent:
            sock.sendto(datagram, endpoint(GROUP))
    with anyio.fail_after(10):
        assert flat(await take(receiver, 300)) == sent


async def test_cancelled_receives_lose_nothing(opened: Open, flat: Flat) -> None:
    receiver = opened(GROUP)
    sent = [number.to_bytes(2) for number in range(200)]
    got: list[Train] = []
    with plain_sender() as sock, anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            for number, datagram in enumerate(sent):
                with anyio.CancelScope() as scope:
                    # Cancel before, while and after the datagram comes in, in turn.
                    if number % 3 == 0:
                        scope.cancel()
                    elif number % 3 == 1:
                        group.start_soon(_send_and_cancel, sock, datagram, scope)
                    if number % 3 != 1:
                        sock.sendto(datagram, endpoint(GROUP))
                    got += await receiver.receive()
        while len(flat(got)) < len(sent):
            got += await receiver.receive()
    assert sorted(flat(got)) == sent


async def _send_and_cancel(sock: socket.socket, datagram: bytes, scope: anyio.CancelScope) -> None:
    sock.sendto(datagram, endpoint(GROUP))
    await anyio.lowlevel.checkpoint()
    scope.cancel()


async def test_a_reader_that_is_never_emptied_keeps_a_bounded_number(opened: Open, take: Take) -> None:
    """What exceeds the bound waits in the kernel, and arrives when somebody asks."""
    receiver = opened(GROUP)
    with plain_sender() as sock, anyio.fail_after(30):
        with anyio.move_on_after(0):
            await receiver.receive()
        sock.sendto(b"first", endpoint(GROUP))
        await receiver.receive()
        for _ in range(300):
            sock.sendto(bytes(100), endpoint(GROUP))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        kept = await receiver.receive()
        assert len(kept) <= 64
        sock.sendto(b"more", endpoint(GROUP))
        rest = await take(receiver, 301 - len(kept))
        assert len(kept) + len(rest) == 301
        assert rest[-1].buffers == (b"more",)


async def test_closing_ends_a_waiting_receive(opened: Open) -> None:
    receiver = opened(GROUP)
    ended: list[bool] = []

    async def wait() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()
        ended.append(True)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await receiver.aclose()
    assert ended == [True]
    await receiver.aclose()
    with pytest.raises(anyio.ClosedResourceError):
        await receiver.receive()
    assert not receiver.send(Train(Path(GROUP), (b"x",), 1))


async def test_closing_between_wake_up_and_reading_ends_the_receive(opened: Open) -> None:
    receiver = opened(GROUP)

    async def drain() -> None:
        while True:
            await receiver.receive()

    async def wait() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await drain()

    with plain_sender() as sock, anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            sock.sendto(b"x", endpoint(GROUP))
            group.start_soon(receiver.aclose)


async def test_two_tasks_cannot_receive_at_once(opened: Open) -> None:
    receiver = opened(GROUP)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(receiver.receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await receiver.receive()
            group.cancel_scope.cancel()


async def test_sources_beyond_the_remembered_ones_arrive(
    opened: Open,
) -> None:
    receiver = opened(GROUP)
    with anyio.fail_after(60):
        for number in range(1100):
            with plain_sender() as sock:
                sock.sendto(number.to_bytes(2), endpoint(GROUP))
                (train,) = await receiver.receive()
                assert train.path.remote == pack_ipv4("127.0.0.1", sock.getsockname()[1])
                assert train.buffers == (number.to_bytes(2),)


# Trouble.


async def test_a_datagram_too_large_to_send_shows_in_status(opened: Open) -> None:
    sender = opened(GROUP)
    assert sender.send(Train(Path(OTHER_GROUP), (bytes(65508),), 65508))
    (status,) = [status for status in sender.status() if status.joined]
    assert "1 datagrams not sent" in status.detail
    assert "EMSGSIZE" in status.detail
    assert sender.counters["unsent"] == 1


async def test_a_full_queue_is_reported_as_no_room(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = opened(GROUP)
    for number in (errno.EAGAIN, errno.ENOBUFS):
        monkeypatch.setattr(sender._sender, "_call", lambda *_, number=number: number)
        assert not sender.send(Train(Path(OTHER_GROUP), (b"x",), 1))
        assert not sender.send(Train(Path(OTHER_GROUP), (b"xyz",), 1))
    assert sender.counters["unsent"] == 0


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPERM, errno.EINVAL, 9999])
async def test_trouble_on_the_network_is_counted_and_never_raised(
    opened: Open, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sender = opened(GROUP)
    with monkeypatch.context() as patch:
        patch.setattr(sender._sender, "_call", lambda *_: number)
        assert sender.send(Train(Path(OTHER_GROUP), (b"x",), 1))
        assert sender.send(Train(Path(OTHER_GROUP), (b"xyz",), 1))
    (status,) = [status for status in sender.status() if status.joined]
    assert "4 datagrams not sent" in status.detail
    assert sender.send(Train(Path(OTHER_GROUP), (b"x",), 1)), "the interface is still in use"
    assert sender.counters["unsent"] == 4


async def test_an_interface_that_cannot_segment_gets_datagrams_one_by_one(
    opened: Open, take: Take, flat: Flat, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = opened(OTHER_GROUP), opened(GROUP)
    call, tried = sender._sender._call, []

    def refuse_trains(
        buffers: Sequence[bytes], ancillary: Sequence[tuple[int, int, bytes]], target: object
    ) -> int:
        tried.append(len(ancillary))
        return errno.EIO if len(ancillary) > 1 else call(buffers, ancillary, target)

    monkeypatch.setattr(sender._sender, "_call", refuse_trains)
    train = Train(Path(GROUP), (bytes(500), bytes(499)), 100)
    for _ in range(2):
        assert sender.send(train)
    with anyio.fail_after(10):
        assert flat(await take(receiver, 20)) == [*train.datagrams()] * 2
    assert tried == [2] + [1] * 20, "refused once, not tried again"
    assert sender.counters["unsent"] == 0


async def test_reach_host_sends_unicast_to_this_host_only(opened: Open) -> None:
    sender = opened(GROUP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        sender.send(Train(Path(pack_ipv4("127.0.0.1", sock.getsockname()[1])), (b"x",), 1))
        data, source = sock.recvfrom(10)
    assert (data, source[1]) == (b"x", port(GROUP))
    assert sender.send(Train(Path(pack_ipv4("198.51.100.1", 9)), (b"x",), 1))
    assert sender.counters["refused by reach"] == 1


# Opening.


@pytest.mark.parametrize("host", ["224.0.0.251", "224.0.1.1", "232.1.1.1", "192.0.2.1"])
async def test_L3_groups_outside_the_ranges_are_refused_with_the_rule(host: str) -> None:
    with pytest.raises(AddressError, match=r"224\.0\.224\.0 to 224\.0\.249\.255"):
        open_channel(Listen(pack_ipv4(host, 1024), Reach.HOST), V4)


async def test_a_group_of_the_other_family_is_refused() -> None:
    with pytest.raises(AddressError, match="not an IPv4 address"):
        open_channel(Listen(pack_ipv6("ff1e::8000:1", 1024), Reach.HOST), V4)
    with pytest.raises(AddressError, match="not an IPv6 address"):
        open_channel(Listen(GROUP, Reach.HOST), V6)


async def test_an_interface_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NoMulticast, match=r"nosuch0.*there is: .*lo") as caught:
        open_channel(Listen(GROUP, Reach.HOST, ("nosuch0",)), V4)
    assert caught.value.interface == "nosuch0"


async def test_when_nothing_is_eligible_every_interface_has_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        NoMulticast, match=r"no0: there is no interface.*; no1: there is no interface"
    ) as caught:
        open_channel(Listen(GROUP, Reach.HOST, ("no0", "no1")), V4)
    assert caught.value.interface is None


async def test_status_names_used_and_unused_interfaces(opened: Open) -> None:
    channel = open_channel(Listen(GROUP, Reach.HOST, ("lo", "nosuch0")), V4)
    by_name = {status.name: status for status in channel.status()}
    await channel.aclose()
    assert by_name["lo"].joined
    assert by_name["lo"].index == LOOPBACK
    assert not by_name["nosuch0"].joined
    assert all(status.detail for status in by_name.values())


async def test_a_failed_join_is_status_and_the_last_one_an_error(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(V4.__class__, "membership", lambda *_: (socket.IP_ADD_MEMBERSHIP, 0, bytes(12)))
    with pytest.raises(NoMulticast, match=r"lo: .*EINVAL|lo: .*ENODEV"):
        opened(GROUP)


async def test_socket_options_are_those_of_section_9(opened: Open) -> None:
    sock = opened(GROUP)._sock
    assert not sock.getblocking()
    assert sock.getsockname() == endpoint(GROUP)
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL) == 0
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP) == 1
    assert sock.getsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL) == 0


async def test_sizes_never_fall_below_what_every_transport_carries(opened: Open) -> None:
    channel = opened(GROUP)
    assert channel.address == GROUP
    assert format_host_port(channel.address) == f"224.0.230.7:{PORT}"
    next(iter(channel._members)).mtu = 68
    assert channel.max_datagram_size == MIN_DATAGRAM_SIZE
