"""Where a running command shows its node's status to its own user: a Unix socket that answers with one JSON object."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import ByteStream

import mp2p
from mp2p.cli.output import dump
from mp2p.paths import default_status_folder
from mp2p_core import UsageError

__all__ = ["AUTO", "Snapshot", "read_snapshot", "show_status", "snapshot", "sockets"]

AUTO: Final = "auto"
"""In place of a file's name: one named after the process, in the user's folder of such sockets."""
_PATIENCE: Final = 2.0
"""Seconds for a whole answer, on either side."""
_LARGEST: Final = 16 << 20

Snapshot = dict[str, Any]


def snapshot(node: mp2p.Node) -> Snapshot:
    """Say how a node does, in words and numbers."""
    return {
        "event": "snapshot",
        "pid": os.getpid(),
        "key": str(node.key),
        "channels": [asdict(channel) for channel in node.status()],
        "peers": [
            {**asdict(status), "key": str(status.key)} for status in map(mp2p.Peer.status, node.peers())
        ],
        "topics": [{**asdict(status), "publisher": str(status.publisher)} for status in node.topics()],
        "counters": dict(node.counters),
    }


@asynccontextmanager
async def show_status(node: mp2p.Node, where: str | None) -> AsyncIterator[None]:
    """Answer at a socket while the block runs; nobody but this user can ask. Raises `UsageError`."""
    if where is None:
        yield
        return
    if sys.platform == "win32":
        raise UsageError("there is no --status on Windows: leave it out")
    path = _folder() / f"{os.getpid()}.sock" if where == AUTO else Path(where)
    try:
        listener = await anyio.create_unix_listener(path, mode=0o600)
    except OSError as error:
        raise UsageError(f"no socket can be made at {path} ({error}): name another file") from error

    async def answer(stream: ByteStream) -> None:
        async with stream:
            with anyio.move_on_after(_PATIENCE):
                try:
                    await stream.send(dump(snapshot(node)).encode())
                except anyio.BrokenResourceError:
                    return  # whoever asked has left

    scope = anyio.CancelScope()

    async def serve() -> None:
        with scope:
            await listener.serve(answer)

    async with listener:
        node.tasks.start_soon(serve)
        try:
            yield
        finally:
            scope.cancel()
            path.unlink(missing_ok=True)


def _folder() -> Path:
    folder = default_status_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _ours(folder):
        raise UsageError(f"others can use {folder}: remove it, or name a file of yours with --status FILE")
    return folder


def _ours(folder: Path) -> bool:
    """Tell whether nobody else may use the folder.

    Attack: somebody made it first, where all may write, to put other sockets there.
    """
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077


def sockets() -> list[Path]:
    """Return the sockets of this user's commands. Some may be left over."""
    folder = default_status_folder()
    return sorted(folder.glob("*.sock")) if folder.exists() and _ours(folder) else []


async def read_snapshot(path: Path) -> Snapshot | None:
    """Ask a running command how its node does; None when nobody answers there."""
    data = bytearray()
    try:
        with anyio.fail_after(_PATIENCE):
            async with await anyio.connect_unix(path) as stream:
                async for chunk in stream:
                    data += chunk
                    if len(data) > _LARGEST:
                        return None
    except (OSError, anyio.BrokenResourceError):  # TimeoutError is an OSError
        return None
    return _parse(bytes(data))


def _parse(data: bytes) -> Snapshot | None:
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("event") == "snapshot" else None
