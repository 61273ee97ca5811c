"""Waiting on event loops that cannot watch a socket themselves."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import anyio
import pytest

from mp2p_core.transport import Path, Train
from mp2p_udp.reader import Reader

PATH = Path(bytes(20))


class Unwatchful(asyncio.SelectorEventLoop):
    """Knows no add_reader, as the proactor loop of Windows."""

    def add_reader(self, fd: object, callback: object, *args: object) -> None:
        raise NotImplementedError


def test_anyio_waits_where_the_loop_cannot_watch() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)

    def read() -> list[Train]:
        try:
            return [Train(PATH, (ours.recv(100),), 100)]
        except BlockingIOError:
            return []

    async def main() -> None:
        reader = Reader(ours, read)
        for number in range(3):
            theirs.send(bytes([number]))
            with anyio.fail_after(10):
                (train,) = await reader.receive()
            assert train.buffers == (bytes([number]),)
        async with anyio.create_task_group() as group:
            group.start_soon(closed, reader)
            await anyio.wait_all_tasks_blocked()
            reader.close()

    async def closed(reader: Reader) -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await reader.receive()

    with ours, theirs, asyncio.Runner(loop_factory=Unwatchful) as runner:
        runner.run(main())


GUEST = """
import asyncio, socket, trio
from mp2p_core.transport import Path, Train
from mp2p_udp.reader import Reader

ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
ours.setblocking(False)

async def guest():
    reader = Reader(ours, lambda: [Train(Path(bytes(20)), (ours.recv(100),), 100)])
    theirs.send(b"x")
    with trio.fail_after(10):
        print((await reader.receive())[0].buffers)

async def host():
    done = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    trio.lowlevel.start_guest_run(
        guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
    )
    (await done).unwrap()

asyncio.run(host())
"""


def test_trio_as_a_guest_of_asyncio_is_taken_for_trio() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GUEST], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "(b'x',)\n", done.stderr
