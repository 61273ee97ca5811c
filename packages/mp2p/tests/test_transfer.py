"""Files sent and received by real nodes over the in-memory transport, on both event loops."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

import mp2p
from mp2p.transfer import (
    FileReceiver,
    Reason,
    TransferBroken,
    TransferEvent,
    TransferRefused,
    TransferState,
    deliver_files,
    delivery,
    receive_files,
    receiving,
    send_file,
    wire,
)
from mp2p.transfer import receiver as receiver_module
from mp2p.transfer.files import CHUNK, PartFile, SourceFile
from mp2p.transfer.incoming import Incoming
from mp2p.transfer.sink import Sink
from mp2p_core import Closed, Identity, Node, Peer, PeerUnreachable, Stream, open_node
from mp2p_core.errors import RemoteError
from mp2p_core.proto.constants import CLOSE_NOT_ALLOWED
from mp2p_core.testing.memory import MemoryHub

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def inbox(tmp_path: Path) -> None:
    """Make the folder that files are received into."""
    (tmp_path / "in").mkdir()


BIG = 6 * CHUNK + 12345
"""More than everything that is under way at once, on either side."""


async def until_true(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells, such as the size of a file."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.001)


class Net(NamedTuple):
    """A node that sends and one that receives into a folder."""

    hub: MemoryHub
    client: Node
    server: Node
    receiver: FileReceiver
    inbox: Path
    heard: list[TransferEvent]
    """What the receiver has told."""

    def connect(self, seconds: float = 10) -> contextlib.AbstractAsyncContextManager[Peer]:
        return self.client.connect(self.server.contact, timeout=seconds)

    def states(self) -> list[TransferState]:
        return [event.state for event in self.heard if event.state is not TransferState.PROGRESS]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.inbox.iterdir() if path.suffix != ".part"}

    def parts(self) -> list[int]:
        return [path.stat().st_size for path in self.inbox.iterdir() if path.suffix == ".part"]

    async def until_failed(self) -> Exception:
        """Wait until the receiver has told of a failure, and return it."""
        await until_true(lambda: bool(self.heard) and self.heard[-1].state is TransferState.FAILED)
        error = self.heard[-1].error
        assert error is not None
        return error


@asynccontextmanager
async def network(
    inbox: Path, *, loss: float = 0, seed: int = 0, overwrite: bool = False
) -> AsyncIterator[Net]:
    dice = random.Random(seed)
    hub = MemoryHub()
    hub.drop = lambda _: dice.random() < loss
    heard: list[TransferEvent] = []
    receiver = FileReceiver(inbox, overwrite=overwrite, observer=heard.append)
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def serve(peer: Peer) -> None:
            with contextlib.suppress(RemoteError, mp2p.FileError):
                await receiver.serve(peer)

        async def accept() -> None:
            while True:
                group.start_soon(serve, await server.accept())

        group.start_soon(accept)
        yield Net(hub, client, server, receiver, inbox, heard)
        group.cancel_scope.cancel()


def make(path: Path, size: int = BIG, seed: int = 0) -> bytes:
    data = random.Random(seed).randbytes(size)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return data


class Hand:
    """A sender that is moved by hand."""

    def __init__(self, stream: Stream, path: Path, **changes: Any) -> None:
        source = SourceFile.open(path)
        facts = {"id": source.id, "name": path.name, "size": source.size}
        source.close()
        self.stream = stream
        self.offer = wire.Offer(**(facts | changes))
        self.incoming = Incoming(stream, path.name)
        self.data = path.read_bytes()

    async def reply(self) -> wire.Reply:
        """Return the next reply that is not just a sign of life."""
        with anyio.fail_after(10):
            while isinstance(reply := await self.incoming.message(wire.decode_reply_untrusted), wire.Written):
                pass
        return reply

    async def begin(self) -> wire.Have:
        await self.stream.send(wire.encode(self.offer))
        have = await self.reply()
        assert isinstance(have, wire.Have)
        return have

    async def go(self, offset: int = 0) -> None:
        await self.stream.send(wire.encode(wire.Go(offset)))

    async def send(self, start: int = 0, end: int | None = None) -> None:
        await self.stream.send(self.data[start:end])


# --- whole files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, BIG])
async def test_a_file_arrives(tmp_path: Path, size: int) -> None:
    data = make(tmp_path / "x.bin", size)
    told: list[TransferEvent] = []
    async with network(tmp_path / "in") as net, net.connect() as peer:
        file = await send_file(peer, tmp_path / "x.bin", observer=told.append)
        assert net.files() == {"x.bin": data}
        assert net.parts() == []
    assert (file.name, file.size, file.moved) == ("x.bin", size, size)
    assert file.path == tmp_path / "x.bin"
    assert file.digest == hashlib.sha256(data).digest()
    for events in (told, net.heard):
        first, *progress, last = events
        assert (first.state, first.offset, first.written) == (TransferState.STARTED, 0, 0)
        assert all(event.state is TransferState.PROGRESS for event in progress)
        assert (last.state, last.written, last.digest) == (TransferState.DONE, size, file.digest)
        assert {(event.name, event.size, event.number) for event in events} == {("x.bin", size, first.number)}
    assert {event.peer for event in told} == {net.server.key}
    assert {event.peer for event in net.heard} == {net.client.key}
    assert net.heard[-1].path == net.inbox / "x.bin"


async def test_receive_files_returns_what_one_peer_sent(tmp_path: Path) -> None:
    """The two calls of the documentation, and nothing else."""
    hub = MemoryHub()
    received: list[mp2p.TransferredFile] = []
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def receive() -> None:
            received.extend(await receive_files(await server.accept(), tmp_path / "in"))

        group.start_soon(receive)
        async with client.connect(server.contact) as peer:
            for name in "ab":
                make(tmp_path / name, 1000)
                await send_file(peer, tmp_path / name)
    assert [(file.name, file.size, file.path) for file in received] == [
        (name, 1000, tmp_path / "in" / name) for name in "ab"
    ]


async def test_several_at_once_on_one_connection(tmp_path: Path) -> None:
    sent = {f"{number}.bin": make(tmp_path / f"{number}.bin", 200_000, number) for number in range(10)}
    async with (
        network(tmp_path / "in") as net,
        net.connect() as peer,
        anyio.create_task_group() as group,
    ):
        for name in sent:
            group.start_soon(send_file, peer, tmp_path / name)
    assert net.files() == sent


async def test_no_more_than_a_few_are_worked_on_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: a file on each of a hundred streams."""
    monkeypatch.setattr(receiver_module, "_PER_CONNECTION", 1)
    monkeypatch.setattr(receiving, "_REPORT_INTERVAL", 0.01)
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        make(path, 10)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        one, two = [Hand(await peer.open_stream(), path) for path in paths]
        await one.begin()
        await two.stream.send(wire.encode(two.offer))
        with anyio.fail_after(10):
            for _ in range(3):  # not forgotten: the sender can tell it from a receiver that is gone
                assert await two.incoming.message(wire.decode_reply_untrusted) == wire.Written(0)
        await one.stream.reset()
        assert isinstance(await two.reply(), wire.Have)


async def test_a_name_and_a_time_may_be_given(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    os.utime(tmp_path / "x", ns=(1, 1_600_000_000_000_000_000))
    async with network(tmp_path / "in") as net, net.connect() as peer:
        file = await send_file(peer, tmp_path / "x", name="../.y", keep_time=True)
        assert file.name == "_y"
        assert (net.inbox / "_y").stat().st_mtime_ns == 1_600_000_000_000_000_000
        await send_file(peer, tmp_path / "x", name="z")
        assert (net.inbox / "z").stat().st_mtime_ns > 1_600_000_000_000_000_000


async def test_a_file_that_is_there_is_not_sent_again(tmp_path: Path) -> None:
    data = make(tmp_path / "x", 1000)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        assert (await send_file(peer, tmp_path / "x")).moved == 1000
        again = await send_file(peer, tmp_path / "x")
        assert (again.moved, again.name) == (0, "x")
        assert net.files() == {"x": data}


@pytest.mark.parametrize("what", ["sender's", "receiver's", "gone"])
async def test_a_file_that_is_not_the_same_any_more_is_sent_again(tmp_path: Path, what: str) -> None:
    old = make(tmp_path / "x", 1000)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        await send_file(peer, tmp_path / "x")
        if what == "sender's":
            new = make(tmp_path / "x", 1000, seed=1)
            expected = {"x": old, "x (1)": new}
        elif what == "receiver's":
            (net.inbox / "x").write_bytes(b"edited")
            expected = {"x": b"edited", "x (1)": old}
        else:
            (net.inbox / "x").unlink()
            expected = {"x": old}
        assert (await send_file(peer, tmp_path / "x")).moved == 1000
        assert net.files() == expected


async def test_a_file_that_is_there_is_confirmed_only_for_its_own_hash(tmp_path: Path) -> None:
    data = make(tmp_path / "x", 1000)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        await send_file(peer, tmp_path / "x")
        hand = Hand(await peer.open_stream(), tmp_path / "x")
        assert await hand.begin() == wire.Have(1000, hashlib.sha256(data).digest())
        await hand.go(1000)
        await hand.stream.send(bytes(32))
        assert isinstance(await net.until_failed(), TransferBroken)


async def test_only_so_many_files_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: new files without end. A sender that has not heard of an older one sends it once more."""
    monkeypatch.setattr(receiver_module, "_REMEMBERED", 2)
    for name in "abc":
        make(tmp_path / name, 10)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        assert [(await send_file(peer, tmp_path / name)).moved for name in "abcba"] == [10, 10, 10, 0, 10]
        assert sorted(net.files()) == ["a", "a (1)", "b", "c"]


def test_a_file_that_went_away_before_it_was_remembered_is_not_there(tmp_path: Path) -> None:
    offer = wire.Offer(bytes(16), "x", 0)
    assert not receiving.FinishedFile.of(offer, tmp_path / "x", bytes(32)).answers(offer)
    (tmp_path / "x").touch()
    assert receiving.FinishedFile.of(offer, tmp_path / "x", bytes(32)).answers(offer)


async def test_files_are_replaced_only_when_told_to(tmp_path: Path) -> None:
    data = make(tmp_path / "x", 10)
    (tmp_path / "in" / "x").write_bytes(b"old")
    async with network(tmp_path / "in") as net, net.connect() as peer:
        assert (await send_file(peer, tmp_path / "x")).name == "x (1)"
        assert net.files() == {"x": b"old", "x (1)": data}
    async with network(tmp_path / "in", overwrite=True) as net, net.connect() as peer:
        assert (await send_file(peer, tmp_path / "x")).name == "x"
        assert net.files() == {"x": data, "x (1)": data}


@pytest.mark.parametrize(("loss", "size"), [(0.01, 1_500_000), (0.05, 1_000_000), (0.2, 100_000)])
async def test_loss_costs_time_and_nothing_else(tmp_path: Path, loss: float, size: int) -> None:
    data = make(tmp_path / "x", size)
    async with network(tmp_path / "in", loss=loss) as net, net.connect(60) as peer:
        await send_file(peer, tmp_path / "x")
        assert net.files() == {"x": data}


# --- broken off and resumed ------------------------------------------------------------------------------

STAGES = ["opened", "offered", "agreed", "started", "midway", "all but the hash", "hash sent"]


async def until(hand: Hand, stage: str) -> None:
    """Do as a sender does, up to a stage."""
    number = STAGES.index(stage)
    if number == 0:
        await hand.stream.send(b"mp2p")
    if number >= 1:
        await hand.stream.send(wire.encode(hand.offer))
    if number >= 2:
        assert isinstance(await hand.reply(), wire.Have)
    if number >= 3:
        await hand.go()
    if number >= 4:
        await hand.send(0, len(hand.data) // 2 if number == 4 else None)
    if number >= 6:
        await hand.stream.send(hashlib.sha256(hand.data).digest())
        assert isinstance(await hand.reply(), wire.Done)


@pytest.mark.parametrize("how", ["end", "reset", "close", "vanish"])
@pytest.mark.parametrize("stage", STAGES)
async def test_C7_a_transfer_that_breaks_off_is_no_success_and_is_resumed(
    tmp_path: Path, stage: str, how: str
) -> None:
    data = make(tmp_path / "x")
    async with network(tmp_path / "in") as net:
        async with net.connect() as peer:
            hand = Hand(await peer.open_stream(), tmp_path / "x")
            await until(hand, stage)
            if stage == "midway":  # so that there is something to resume
                await until_true(lambda: sum(net.parts()) > 0)
            if how == "end":
                await hand.stream.send_eof()
            elif how == "reset":
                await hand.stream.reset()
            elif how == "vanish":
                net.hub.drop = lambda _: True
            heard_of = stage != "opened" and (stage, how) != (
                "offered",
                "reset",
            )  # a reset overtakes the offer
            if how in ("end", "reset") and heard_of and stage != "hash sent":
                assert isinstance(await net.until_failed(), TransferBroken)
                assert net.files() == {}
        if how == "close" and stage not in ("opened", "offered", "hash sent"):
            assert isinstance(await net.until_failed(), Closed)
            assert net.files() == {}
        net.hub.drop = lambda _: False
        async with net.connect() as peer:
            file = await send_file(peer, tmp_path / "x")
        if stage == "hash sent":
            assert file.moved == 0
        elif stage == "midway":
            assert file.moved < BIG
        assert net.files() == {"x": data}
        assert net.parts() == []


@pytest.mark.parametrize("moment", ["at the start", "midway"])
async def test_C7_a_receiver_that_stops_leaves_something_to_resume(tmp_path: Path, moment: str) -> None:
    """Cancelled, as Ctrl-C does it: the sender hears of it, and the receiver's program may start again."""
    data = make(tmp_path / "x", 3 * BIG)
    hub = MemoryHub()
    heard: list[TransferEvent] = []

    def parts() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "in").iterdir())

    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
    ):
        async with anyio.create_task_group() as group:
            stop = anyio.CancelScope()

            def observe(event: TransferEvent) -> None:
                heard.append(event)
                if moment == "at the start":
                    stop.cancel()

            async def serve() -> None:
                with stop:
                    await FileReceiver(tmp_path / "in", observer=observe).serve(await server.accept())

            async def watch() -> None:
                await until_true(lambda: parts() > 0)
                stop.cancel()

            group.start_soon(serve)
            if moment == "midway":
                group.start_soon(watch)
            async with client.connect(server.contact) as peer:
                with pytest.raises(TransferBroken, match="stopped"):
                    await send_file(peer, tmp_path / "x")
        assert [event.state for event in heard if event.state is not TransferState.PROGRESS] == [
            TransferState.STARTED,
            TransferState.FAILED,
        ]
        assert "kept" in str(heard[-1].error)
        there = parts()
        assert there < 3 * BIG
        assert (there > 0) == (moment == "midway")
        async with anyio.create_task_group() as group:

            async def serve_again() -> None:
                await receive_files(await server.accept(), tmp_path / "in")

            group.start_soon(serve_again)
            async with client.connect(server.contact) as peer:
                assert (await send_file(peer, tmp_path / "x")).moved == 3 * BIG - there
        assert (tmp_path / "in" / "x").read_bytes() == data


async def test_a_sender_that_is_cancelled_leaves_something_to_resume(tmp_path: Path) -> None:
    data = make(tmp_path / "x", 3 * BIG)
    async with network(tmp_path / "in") as net:
        async with net.connect() as peer:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:

                    async def watch() -> None:
                        await until_true(lambda: sum(net.parts()) > 0)
                        scope.cancel()

                    group.start_soon(watch)
                    await send_file(peer, tmp_path / "x")
            assert isinstance(await net.until_failed(), TransferBroken)
            # The connection is as good as before.
            file = await send_file(peer, tmp_path / "x")
        assert file.moved < 3 * BIG
        assert net.files() == {"x": data}


async def test_a_part_that_is_not_the_beginning_of_the_file_is_given_up(tmp_path: Path) -> None:
    make(tmp_path / "x")
    async with network(tmp_path / "in") as net:
        async with net.connect() as peer:
            hand = Hand(await peer.open_stream(), tmp_path / "x")
            await until(hand, "all but the hash")
            await hand.stream.send_eof()
            await net.until_failed()
            assert net.parts() == [BIG]
            data = make(tmp_path / "x", BIG + 1, seed=1)
            assert (await send_file(peer, tmp_path / "x")).moved == BIG + 1
        assert net.files() == {"x": data}
        assert net.parts() == []


async def test_a_part_that_is_longer_than_the_file_is_given_up(tmp_path: Path) -> None:
    make(tmp_path / "x")
    async with network(tmp_path / "in") as net:
        async with net.connect() as peer:
            hand = Hand(await peer.open_stream(), tmp_path / "x")
            await until(hand, "all but the hash")
            await hand.stream.send_eof()
            await net.until_failed()
            data = make(tmp_path / "x", 100)
            assert (await send_file(peer, tmp_path / "x")).moved == 100
        assert net.files() == {"x": data}


async def test_a_file_that_has_grown_is_resumed(tmp_path: Path) -> None:
    data = make(tmp_path / "log")
    async with network(tmp_path / "in") as net, net.connect() as peer:
        hand = Hand(await peer.open_stream(), tmp_path / "log")
        await until(hand, "all but the hash")
        await hand.stream.send_eof()
        await net.until_failed()
        (tmp_path / "log").write_bytes(data + b"more")
        assert (await send_file(peer, tmp_path / "log")).moved == 4
        assert net.files() == {"log": data + b"more"}


async def test_a_part_that_was_damaged_on_disk_is_given_up(tmp_path: Path) -> None:
    data = make(tmp_path / "x")
    async with network(tmp_path / "in") as net, net.connect() as peer:
        hand = Hand(await peer.open_stream(), tmp_path / "x")
        await until(hand, "all but the hash")
        await hand.stream.send_eof()
        await net.until_failed()
        (part,) = net.inbox.iterdir()
        part.write_bytes(data[:1000] + b"\0" * 1000 + data[2000:])
        assert (await send_file(peer, tmp_path / "x")).moved == BIG
        assert net.files() == {"x": data}


async def test_what_is_there_is_checked_in_sight_of_both_sides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading gigabytes once more takes a while, and silence would look like a fault."""
    data = make(tmp_path / "x")
    told: list[TransferEvent] = []
    gate = threading.Event()
    async with network(tmp_path / "in") as net, net.connect() as peer:
        hand = Hand(await peer.open_stream(), tmp_path / "x")
        await until(hand, "all but the hash")
        await hand.stream.send_eof()
        await net.until_failed()
        net.heard.clear()
        real = PartFile.hash_on

        def slow(part: PartFile, end: int) -> None:
            if part.hashed:
                assert gate.wait(10)
            real(part, end)

        def observe(event: TransferEvent) -> None:
            told.append(event)
            gate.set()

        monkeypatch.setattr(PartFile, "hash_on", slow)
        assert (await send_file(peer, tmp_path / "x", observer=observe)).moved == 0
        assert net.files() == {"x": data}
    for events in (told, net.heard):
        assert events[0].state is TransferState.CHECKING
        assert 0 < events[0].written < BIG
        others = [event.state for event in events if event.state is not TransferState.CHECKING]
        assert (others[0], others[-1]) == (TransferState.STARTED, TransferState.DONE)
        assert {event.offset for event in events if event.state is not TransferState.CHECKING} == {BIG}


async def test_nobody_else_resumes_or_learns_of_a_part(tmp_path: Path) -> None:
    data = make(tmp_path / "x")
    async with network(tmp_path / "in") as net:
        async with net.connect() as peer:
            hand = Hand(await peer.open_stream(), tmp_path / "x")
            await until(hand, "all but the hash")
            await until_true(lambda: net.parts() == [BIG])
        async with (
            open_node(Identity.generate(), transports=[net.hub.transport()]) as stranger,
            stranger.connect(net.server.contact) as peer,
        ):
            have = await Hand(await peer.open_stream(), tmp_path / "x").begin()
            assert have == wire.Have(0, hashlib.sha256().digest())
        async with net.connect() as peer:
            assert (await send_file(peer, tmp_path / "x")).moved == 0
        assert net.files() == {"x": data}


async def test_files_of_one_name_from_two_folders_do_not_mix(tmp_path: Path) -> None:
    one, two = make(tmp_path / "1" / "x", BIG, 1), make(tmp_path / "2" / "x", BIG, 2)
    async with network(tmp_path / "in") as net, net.connect() as peer, anyio.create_task_group() as group:
        group.start_soon(send_file, peer, tmp_path / "1" / "x")
        group.start_soon(send_file, peer, tmp_path / "2" / "x")
    assert sorted(net.files()) == ["x", "x (1)"]
    assert set(net.files().values()) == {one, two}


async def test_a_transfer_begun_anew_takes_over_from_one_that_hangs(tmp_path: Path) -> None:
    """As when the sender's connection has died, and the receiver does not know it yet."""
    data = make(tmp_path / "x")
    async with network(tmp_path / "in") as net, net.connect() as old, net.connect() as new:
        hand = Hand(await old.open_stream(), tmp_path / "x")
        await hand.begin()
        await hand.go()
        await hand.send(0, BIG // 2)
        await until_true(lambda: sum(net.parts()) > 0)
        assert (await send_file(new, tmp_path / "x")).moved < BIG
        assert net.files() == {"x": data}
        with pytest.raises(TransferRefused, match="sent anew") as raised:
            await hand.reply()
        assert raised.value.code == Reason.SUPERSEDED
    assert net.states() == [
        TransferState.STARTED,
        TransferState.FAILED,
        TransferState.STARTED,
        TransferState.DONE,
    ]


async def test_what_one_connection_did_not_finish_is_an_error_at_its_end(tmp_path: Path) -> None:
    make(tmp_path / "x")
    make(tmp_path / "y", 10)
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def receive() -> None:
            with pytest.raises(TransferBroken, match="'x'"):
                await receive_files(await server.accept(), tmp_path / "in")

        group.start_soon(receive)
        async with client.connect(server.contact) as peer:
            hand = Hand(await peer.open_stream(), tmp_path / "x")
            await until(hand, "midway")
            await hand.stream.send_eof()
            await send_file(peer, tmp_path / "y")


async def test_a_peer_that_begins_files_for_ever_is_not_remembered_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: new files without end. Too many to remember end the connection with an error, come what may."""
    monkeypatch.setattr(receiver_module, "_UNFINISHED", 2)
    make(tmp_path / "x", 10)
    heard: list[TransferState] = []
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def receive() -> None:
            with pytest.raises(TransferBroken):
                await receive_files(
                    await server.accept(), tmp_path / "in", observer=lambda event: heard.append(event.state)
                )

        group.start_soon(receive)
        async with client.connect(server.contact) as peer:
            for number in range(3):
                hand = Hand(await peer.open_stream(), tmp_path / "x", id=bytes([number]) * wire.ID_SIZE)
                await hand.begin()
                await hand.stream.reset()
            await until_true(lambda: heard.count(TransferState.FAILED) == 3)
            for number in range(3):
                hand = Hand(await peer.open_stream(), tmp_path / "x", id=bytes([number]) * wire.ID_SIZE)
                await until(hand, "hash sent")


# --- refused, and other trouble --------------------------------------------------------------------------


async def test_a_wrong_hash_gives_no_file(tmp_path: Path) -> None:
    make(tmp_path / "x")
    async with network(tmp_path / "in") as net, net.connect() as peer:
        hand = Hand(await peer.open_stream(), tmp_path / "x")
        await until(hand, "all but the hash")
        await hand.stream.send(bytes(32))
        failed = await hand.reply()
        assert isinstance(failed, wire.Failed)
        assert failed.code == Reason.WRONG_HASH
        assert "not what was sent" in failed.words
        error = await net.until_failed()
        assert isinstance(error, mp2p.FileError)
        assert "SHA-256" in str(error)
        assert (net.files(), net.parts()) == ({}, [])


async def test_bytes_that_changed_on_the_way_give_no_file(tmp_path: Path) -> None:
    """What no network can do, and a defect in here could: the hash is the sender's, the bytes are others."""
    data = make(tmp_path / "x")
    async with network(tmp_path / "in") as net, net.connect() as peer:
        hand = Hand(await peer.open_stream(), tmp_path / "x")
        await hand.begin()
        await hand.go()
        await hand.stream.send(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
        await hand.stream.send(hashlib.sha256(data).digest())
        assert isinstance(failed := await hand.reply(), wire.Failed)
        assert failed.code == Reason.WRONG_HASH
        await net.until_failed()
        assert (net.files(), net.parts()) == ({}, [])


async def test_no_room_is_said_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "x", 5000)
    real = shutil.disk_usage

    def nearly_full(path: Path) -> Any:
        return real(path)._replace(free=4999)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    told: list[TransferEvent] = []
    async with network(tmp_path / "in") as net, net.connect() as peer:
        with pytest.raises(
            TransferRefused, match=r"its disk is full \(4.9 KiB needed, 4.9 KiB free\)"
        ) as raised:
            await send_file(peer, tmp_path / "x", observer=told.append)
        assert raised.value.code == Reason.NO_SPACE
        error = await net.until_failed()
        assert isinstance(error, mp2p.FileError)
        assert str(net.inbox) in str(error)
    assert told == []


async def test_a_disk_that_fills_up_is_reported_on_both_sides_and_resumed_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(tmp_path / "x", 3 * BIG)
    real = os.writev
    left = BIG

    def fill_up(descriptor: int, pieces: list[bytes]) -> int:
        nonlocal left
        left -= sum(map(len, pieces))
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, pieces)

    monkeypatch.setattr(os, "writev", fill_up)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        with pytest.raises(TransferRefused, match="its disk is full") as raised:
            await send_file(peer, tmp_path / "x")
        assert raised.value.code == Reason.NO_SPACE
        assert str(net.inbox) not in str(raised.value)
        error = await net.until_failed()
        assert isinstance(error, mp2p.FileError)
        assert "No space left" in str(error)
        assert net.files() == {}
        (kept,) = net.parts()
        assert 0 < kept <= BIG
        monkeypatch.setattr(os, "writev", real)
        assert (await send_file(peer, tmp_path / "x")).moved == 3 * BIG - kept
        assert net.files() == {"x": data}


async def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        net.inbox.rmdir()
        with pytest.raises(TransferRefused, match="cannot write the file") as raised:
            await send_file(peer, tmp_path / "x")
        assert raised.value.code == Reason.CANNOT_WRITE
        net.inbox.mkdir()
        await send_file(peer, tmp_path / "x")
    with pytest.raises(mp2p.FileError, match="not a folder"):
        await receive_files(peer, tmp_path / "gone")


@pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
async def test_a_file_that_changes_while_it_is_sent(tmp_path: Path, change: str) -> None:
    path = tmp_path / "x"
    data = make(path, 3 * BIG)

    def observe(event: TransferEvent) -> None:
        if change == "longer":
            path.write_bytes(data + b"more")
        elif change == "shorter":
            os.truncate(path, BIG)
        else:
            os.utime(path, ns=(1, 1))

    async with network(tmp_path / "in") as net, net.connect() as peer:
        with pytest.raises(mp2p.FileError, match="changed while it was sent"):
            await send_file(peer, path, observer=observe)
        error = await net.until_failed()
        assert isinstance(error, TransferRefused)
        assert error.code == Reason.CHANGED
        assert "changed" in str(error)
        assert net.files() == {}
        assert (await send_file(peer, path)).size == path.stat().st_size
        assert net.files() == {"x": path.read_bytes()}


async def test_a_file_that_cannot_be_read_is_an_error_before_anything_is_sent(tmp_path: Path) -> None:
    async with network(tmp_path / "in") as net, net.connect() as peer:
        with pytest.raises(mp2p.FileError, match="No such file"):
            await send_file(peer, tmp_path / "gone")
        with pytest.raises(mp2p.FileError, match="folder"):
            await send_file(peer, tmp_path)
    assert net.heard == []


async def test_a_peer_that_receives_no_files(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as peer,
    ):
        with pytest.raises(TransferBroken, match=r"nothing about 'x' for 0.1 s.*receive-file"):
            await send_file(peer, tmp_path / "x", silence=0.1)


def words(*messages: wire.Offer | wire.Go | wire.Reply) -> bytes:
    return b"".join(map(wire.encode, messages))


EMPTY = hashlib.sha256().digest()
START = wire.Have(0, EMPTY)


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (b"\x77", TransferRefused, "speaks otherwise"),
        (b"HTTP/1.1 400 Bad Request", TransferRefused, "speaks otherwise"),
        (words(wire.Done(EMPTY, "x")), TransferBroken, "protocol"),
        (words(wire.Failed(2, "no room \x1b[31m")), TransferRefused, "no room \ufffd\\[31m$"),
        (words(wire.Failed(99, "")), TransferRefused, "code 99"),
        (words(wire.Failed(6, "")), TransferRefused, "not what was sent"),
        (words(START, START), TransferBroken, "protocol"),
        (words(START, wire.Written(11)), TransferBroken, "protocol"),
        (words(START, wire.Done(EMPTY, "x")), TransferBroken, "protocol"),
        (words(START, wire.Done(bytes(32), "x")), TransferBroken, "protocol"),
        (b"", TransferBroken, "before it was complete"),
        (words(START), TransferBroken, "before it was complete"),
        (words(wire.Have(10, bytes(32)), wire.Failed(1, "enough")), TransferRefused, "enough"),
        (words(wire.Have(2**63, bytes(32)), wire.Failed(1, "enough")), TransferRefused, "enough"),
    ],
)
async def test_receivers_that_misbehave(
    tmp_path: Path, said: bytes, error: type[Exception], match: str
) -> None:
    make(tmp_path / "x", 10)
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def misbehave() -> None:
            stream = await (await server.accept()).accept_stream()
            await stream.send(said)
            await stream.send_eof()

        group.start_soon(misbehave)
        async with client.connect(server.contact) as peer:
            with anyio.fail_after(10), pytest.raises(error, match=match):
                await send_file(peer, tmp_path / "x")


@pytest.mark.parametrize("offset", [10, 2**40])
async def test_a_receiver_that_claims_to_have_what_it_has_not_gets_everything(
    tmp_path: Path, offset: int
) -> None:
    data = make(tmp_path / "x", 10)
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def claim() -> None:
            stream = await (await server.accept()).accept_stream()
            incoming = Incoming(stream)
            await incoming.message(wire.decode_offer_untrusted)
            await stream.send(wire.encode(wire.Have(offset, bytes(32))))
            assert await incoming.message(wire.decode_go_untrusted) == wire.Go(0)
            assert await incoming.exactly(10) == data
            await stream.send(wire.encode(wire.Done(await incoming.exactly(32), "x")))

        group.start_soon(claim)
        async with client.connect(server.contact) as peer:
            assert (await send_file(peer, tmp_path / "x")).moved == 10


async def test_what_a_receiver_said_during_an_outage_is_not_reported_one_by_one(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    told: list[TransferState] = []
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def say_much() -> None:
            stream = await (await server.accept()).accept_stream()
            await stream.send(words(START, *[wire.Written(1)] * 1000))
            await stream.send_eof()

        group.start_soon(say_much)
        async with client.connect(server.contact) as peer:
            with pytest.raises(TransferBroken):
                await send_file(peer, tmp_path / "x", observer=lambda event: told.append(event.state))
    assert 0 < told.count(TransferState.PROGRESS) < 100


async def test_a_receiver_that_confirms_another_hash_has_not_got_the_file(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        anyio.create_task_group() as group,
    ):

        async def confirm() -> None:
            stream = await (await server.accept()).accept_stream()
            incoming = Incoming(stream)
            await incoming.message(wire.decode_offer_untrusted)
            await stream.send(wire.encode(START))
            await incoming.message(wire.decode_go_untrusted)
            await incoming.exactly(10 + wire.DIGEST_SIZE)
            await stream.send(wire.encode(wire.Done(bytes(wire.DIGEST_SIZE), "x")))
            await incoming.end()

        group.start_soon(confirm)
        async with client.connect(server.contact) as peer:
            with pytest.raises(TransferBroken, match="protocol"):
                await send_file(peer, tmp_path / "x")


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 44, b"mp2pfile\x02" + bytes(35)])
async def test_senders_that_speak_otherwise_are_cut_off(tmp_path: Path, said: bytes) -> None:
    data = make(tmp_path / "x", 10)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        stream = await peer.open_stream()
        await stream.send(said)
        with anyio.fail_after(10), pytest.raises(TransferRefused) as raised:
            await Incoming(stream).exactly(1)
        assert raised.value.code == Reason.NOT_UNDERSTOOD
        await send_file(peer, tmp_path / "x")  # and the connection lives
        assert net.files() == {"x": data}


@pytest.mark.parametrize("there", [False, True], ids=["a part", "a whole file"])
@pytest.mark.parametrize(
    "message", [b"\x77" + bytes(8), wire.encode(wire.Go(5)), wire.encode(wire.Go(2**62))]
)
async def test_senders_that_go_on_from_where_they_should_not(
    tmp_path: Path, there: bool, message: bytes
) -> None:
    make(tmp_path / "x", 10)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        if there:
            await send_file(peer, tmp_path / "x")
        hand = Hand(await peer.open_stream(), tmp_path / "x")
        await hand.begin()
        await hand.stream.send(message + bytes(100))
        assert isinstance(await net.until_failed(), (TransferBroken, TransferRefused))
        assert len(net.files()) == there
        assert net.parts() == []


async def test_a_sender_that_says_less_than_it_promised_leaves_no_empty_files(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        for _ in range(3):
            hand = Hand(await peer.open_stream(), tmp_path / "x", id=os.urandom(16))
            await hand.begin()
            await hand.stream.reset()
        await send_file(peer, tmp_path / "x")
    assert (sorted(net.files()), net.parts()) == (["x"], [])


# --- deliver_files ---------------------------------------------------------------------------------------


def breaking(
    net: Net, times: int, when: Callable[[TransferEvent], bool], code: int = 0
) -> Callable[[TransferEvent], None]:
    """Return an observer for a sender that has the receiver close the connection at some moments."""
    left = times

    def observe(event: TransferEvent) -> None:
        nonlocal left
        if left and when(event):
            left -= 1
            for peer in net.server.peers():
                peer.close_now(code, "cut")

    return observe


@pytest.mark.parametrize("moment", [TransferState.STARTED, TransferState.DONE])
async def test_files_go_on_after_the_connection_broke(tmp_path: Path, moment: TransferState) -> None:
    sent = {name: make(tmp_path / name, BIG, seed) for seed, name in enumerate("abc")}
    breaks: list[Any] = []
    async with network(tmp_path / "in") as net:
        files = await deliver_files(
            net.connect,
            [tmp_path / name for name in sent],
            observer=breaking(net, 2, lambda event: event.state is moment),
            interrupted=breaks.append,
        )
        assert [file.name for file in files] == list(sent)
        assert net.files() == sent
        assert net.parts() == []
    assert len(breaks) == 2
    assert all(isinstance(each.error, Closed) for each in breaks)
    assert all(0 < each.left <= 20 for each in breaks)


@pytest.mark.parametrize("seed", range(3))
async def test_files_go_on_over_a_bad_network_that_breaks_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE", 0.01)
    dice = random.Random(seed)
    sent = {name: make(tmp_path / name, dice.randrange(1_000_000), seed) for name in "abc"}
    async with network(tmp_path / "in", loss=0.02, seed=seed) as net:

        async def cut() -> None:
            for _ in range(5):
                await until_true(lambda: bool(net.server.peers()))
                await anyio.sleep(dice.random() * 0.1)
                for peer in net.server.peers():
                    await peer.aclose(0, "cut")

        async with anyio.create_task_group() as group:
            group.start_soon(cut)
            await deliver_files(net.connect, [tmp_path / name for name in sent])
            group.cancel_scope.cancel()
        assert net.files() == sent, f"seed {seed}"
        assert net.parts() == []


async def test_what_fails_at_first_is_not_tried_again(tmp_path: Path) -> None:
    make(tmp_path / "x", 10)
    breaks: list[Any] = []
    async with network(tmp_path / "in") as net:
        net.hub.drop = lambda _: True
        with pytest.raises(PeerUnreachable):
            await deliver_files(net.connect, [tmp_path / "x"], patience=0.1, interrupted=breaks.append)
        net.hub.drop = lambda _: False
        with pytest.raises(mp2p.FileError):
            await deliver_files(net.connect, [tmp_path / "gone"], interrupted=breaks.append)
        net.inbox.rmdir()
        with pytest.raises(TransferRefused):
            await deliver_files(net.connect, [tmp_path / "x"], interrupted=breaks.append)
    assert breaks == []


async def test_a_peer_that_lets_us_in_no_more_is_not_asked_again(tmp_path: Path) -> None:
    make(tmp_path / "x")
    breaks: list[Any] = []
    async with network(tmp_path / "in") as net:
        observer = breaking(net, 1, lambda event: event.state is TransferState.STARTED, CLOSE_NOT_ALLOWED)
        with pytest.raises(Closed) as raised:
            await deliver_files(net.connect, [tmp_path / "x"], observer=observer, interrupted=breaks.append)
    assert raised.value.code == CLOSE_NOT_ALLOWED
    assert breaks == []


async def test_a_connection_that_stays_broken_is_given_up(tmp_path: Path) -> None:
    make(tmp_path / "x")
    breaks: list[Any] = []
    async with network(tmp_path / "in") as net:

        def observe(event: TransferEvent) -> None:
            net.hub.drop = lambda _: True

        with pytest.raises((PeerUnreachable, TransferBroken, Closed)):
            await deliver_files(
                net.connect, [tmp_path / "x"], patience=0.7, observer=observe, interrupted=breaks.append
            )
        assert breaks
        assert isinstance(breaks[0].error, TransferBroken)


async def test_a_peer_that_agrees_and_never_takes_a_byte_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(delivery, "_LONGEST_PAUSE", 0.01)
    make(tmp_path / "x")
    breaks: list[Any] = []
    async with network(tmp_path / "in") as net:
        observer = breaking(net, 1000, lambda event: event.state is TransferState.STARTED)

        def start_over(event: TransferEvent) -> None:
            observer(event)
            for path in net.inbox.iterdir():
                os.truncate(path, 0)

        with anyio.fail_after(60), pytest.raises(Closed):
            await deliver_files(
                net.connect, [tmp_path / "x"], patience=1000, observer=start_over, interrupted=breaks.append
            )
    assert len(breaks) == 10


async def test_what_waits_for_a_slow_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    real = os.writev

    def slow(descriptor: int, pieces: list[bytes]) -> int:
        assert gate.wait(10)
        return real(descriptor, pieces)

    monkeypatch.setattr(os, "writev", slow)
    part = PartFile.open(tmp_path, "x", bytes(32), bytes(16))
    sink = Sink(part)
    taken = 0

    async def put() -> None:
        nonlocal taken
        for _ in range(20):
            await sink.put(bytes(CHUNK))
            taken += 1
        await sink.close()

    async with anyio.create_task_group() as group:
        group.start_soon(sink.run, group.cancel_scope)
        group.start_soon(put)
        await anyio.wait_all_tasks_blocked()
        assert 1 <= taken <= 8  # four wait, and as many are being written
        gate.set()
    assert (taken, part.size) == (20, 20 * CHUNK)
    part.discard()


async def test_sending_does_not_hold_up_the_event_loop_while_a_disk_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading, hashing and writing happen in threads: none of these is called in the loop's."""
    make(tmp_path / "x")
    here = threading.get_ident()
    callers: set[tuple[str, bool]] = set()
    for name in ("read", "writev", "fsync"):
        real = getattr(os, name)

        def noted(*arguments: Any, name: str = name, real: Any = real) -> Any:
            callers.add((name, threading.get_ident() == here))
            return real(*arguments)

        monkeypatch.setattr(os, name, noted)
    async with network(tmp_path / "in") as net, net.connect() as peer:
        await send_file(peer, tmp_path / "x")
    assert callers == {("read", False), ("writev", False), ("fsync", False)}
