"""A node that takes files beside what it serves: `FileReceiver.serve_node`, on both event loops."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

import mp2p
from mp2p.transfer import FileReceiver, TransferEvent, TransferRefused, TransferState, send_file
from mp2p_core.testing.memory import MemoryHub

pytestmark = pytest.mark.anyio

SENDER, CALLER = (mp2p.Identity.from_seed(bytes([number]) * 32) for number in (1, 2))
DATA = random.Random(1).randbytes(300_000)


class Door(mp2p.Service):
    async def open(self, seconds: int) -> int:
        return seconds


class Scene:
    """A node that serves a door to CALLER and SENDER, and takes files of SENDER."""

    def __init__(self, folder: Path) -> None:
        self.hub = MemoryHub()
        self.heard: list[TransferEvent] = []
        self.receiver = FileReceiver(folder, observer=self.heard.append)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[mp2p.Node]:
        async with (
            mp2p.open_node(mp2p.Identity.generate(), transports=[self.hub.transport()]) as node,
            node.serving(Door(), allow=[CALLER.public, SENDER.public]),
            self.receiver.serving(node, allow=[SENDER.public]),
        ):
            yield node

    @asynccontextmanager
    async def connected(self, identity: mp2p.Identity, node: mp2p.Node) -> AsyncIterator[mp2p.Peer]:
        async with (
            mp2p.open_node(identity, transports=[self.hub.transport()]) as own,
            own.connect(node.contact) as peer,
        ):
            yield peer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "in").mkdir()
    (tmp_path / "photo.jpg").write_bytes(DATA)
    return Scene(tmp_path / "in")


async def test_files_and_calls_share_a_connection(scene: Scene, tmp_path: Path) -> None:
    async with scene.serving() as node, scene.connected(SENDER, node) as peer:
        done = await send_file(peer, tmp_path / "photo.jpg")
        assert await peer.client(Door).open(3) == 3
    assert done.digest == hashlib.sha256(DATA).digest()
    assert (tmp_path / "in" / "photo.jpg").read_bytes() == DATA
    assert [event.state for event in scene.heard if event.state is not TransferState.PROGRESS] == [
        TransferState.STARTED,
        TransferState.DONE,
    ]


async def test_each_of_several_connections_after_another(scene: Scene, tmp_path: Path) -> None:
    """A peer that comes back is attended again."""
    async with scene.serving() as node:
        for _ in range(3):
            async with scene.connected(SENDER, node) as peer:
                assert (await send_file(peer, tmp_path / "photo.jpg")).size == len(DATA)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["photo.jpg"]


async def test_C4_who_may_only_call_cannot_send_a_file(scene: Scene, tmp_path: Path) -> None:
    async with scene.serving() as node, scene.connected(CALLER, node) as peer:
        with pytest.raises(TransferRefused, match="takes no files from this key"):
            await send_file(peer, tmp_path / "photo.jpg")
        assert await peer.client(Door).open(4) == 4
    assert list((tmp_path / "in").iterdir()) == []
    assert scene.heard == []


async def test_C4_a_node_that_only_serves_takes_no_files(scene: Scene, tmp_path: Path) -> None:
    async with (
        mp2p.open_node(mp2p.Identity.generate(), transports=[scene.hub.transport()]) as node,
        node.serving(Door(), allow="any"),
        scene.connected(SENDER, node) as peer,
    ):
        with pytest.raises(TransferRefused, match="takes no files from this key"):
            await send_file(peer, tmp_path / "photo.jpg")


async def test_who_receives_is_told_of_a_second_one_and_of_a_folder_that_is_not_there(
    scene: Scene, tmp_path: Path
) -> None:
    async with scene.serving() as node:
        with pytest.raises(mp2p.UsageError, match="already"):
            async with scene.receiver.serving(node, allow="any"):
                pass
        with pytest.raises(mp2p.FileError):
            async with FileReceiver(tmp_path / "none").serving(node, allow="any"):
                pass


async def test_what_is_raised_within_the_block_leaves_it_as_it_is(scene: Scene) -> None:
    with pytest.raises(ZeroDivisionError):
        async with scene.serving():
            raise ZeroDivisionError


async def test_behind_the_block_what_is_under_way_has_stopped_and_is_kept(
    scene: Scene, tmp_path: Path
) -> None:
    count = itertools.count()
    async with (
        mp2p.open_node(mp2p.Identity.generate(), transports=[scene.hub.transport()]) as node,
        anyio.create_task_group() as tasks,
    ):
        errors = []

        async def send() -> None:
            async with scene.connected(SENDER, node) as peer:
                try:
                    await send_file(peer, tmp_path / "photo.jpg")
                except mp2p.RemoteError as error:
                    errors.append(error)

        scene.hub.drop = lambda _: next(count) > 150  # midway
        async with scene.receiver.serving(node, allow=[SENDER.public]):
            tasks.start_soon(send)
            with anyio.fail_after(10):
                while not any(event.written for event in scene.heard):  # noqa: ASYNC110 - no event tells
                    await anyio.sleep(0.001)
        (part,) = (tmp_path / "in").iterdir()
        assert part.suffix == ".part"
        scene.hub.drop = lambda _: False
    assert [type(error) for error in errors] == [mp2p.TransferBroken]
