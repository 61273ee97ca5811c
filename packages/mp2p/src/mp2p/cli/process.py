"""A process that a command runs beside it: takes orders and reports, one JSON object a line, and ends with it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import IO, Any, Final

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from mp2p.cli.errors import ClaimFailed

__all__ = ["Actor", "start"]

_PATIENCE: Final = 15.0  # s for any one report; a loaded single-board computer takes 2 s to import
_GRACE: Final = 2.0  # s for a process to say its goodbyes
_LONGEST_REPORT: Final = 1 << 20


class Actor:
    """A process that takes orders and reports."""

    def __init__(self, name: str, process: Process, errors: IO[bytes]) -> None:
        self.name = name
        self._process = process
        self._errors = errors
        assert process.stdout is not None
        self._reports = BufferedByteReceiveStream(process.stdout)
        self._unclaimed: list[dict[str, Any]] = []

    async def order(self, **order: object) -> None:
        """Tell the process what to do."""
        assert self._process.stdin is not None
        try:
            await self._process.stdin.send(json.dumps(order).encode() + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise await self._failure() from error

    async def expect(self, event: str) -> dict[str, Any]:
        """Wait for the report of `event`; others wait for their turn.

        Raises `ClaimFailed` with the process's own words when it fails, and when the report does not come.
        """
        for number, report in enumerate(self._unclaimed):
            if report["event"] == event:
                return self._unclaimed.pop(number)
        with anyio.move_on_after(_PATIENCE):
            while True:
                try:
                    line = await self._reports.receive_until(b"\n", _LONGEST_REPORT)
                except (anyio.IncompleteRead, anyio.EndOfStream) as error:
                    raise await self._failure() from error
                heard: dict[str, Any] = json.loads(line)
                if heard["event"] == "failed":
                    raise ClaimFailed(f"{self.name}: {heard['message']}", heard["exit_code"])
                if heard["event"] == event:
                    return heard
                self._unclaimed.append(heard)
        raise ClaimFailed(f"{self.name} has not reported {event!r} within {_PATIENCE:g} s")

    async def _failure(self) -> ClaimFailed:
        code = await self._process.wait()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        return ClaimFailed(f"{self.name} ended with exit code {code}: {words[-1] if words else 'no message'}")


@asynccontextmanager
async def start(name: str, *words: str) -> AsyncIterator[Actor]:
    """Run an interpreter with `words` for the length of the block; leaving it ends the process, whatever happens.

    Its standard input is closed first, which lets it say CLOSE to its peers. It has a session of its own
    (where the system knows such) so that Ctrl-C reaches the command, which then ends its processes in order.
    """
    # -P: the current folder may hold anything, and is not where modules are looked for.
    command = [sys.executable, "-P", *words]
    # A file takes what the process says to standard error, however much that is.
    with tempfile.TemporaryFile() as errors:
        process = await anyio.open_process(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        try:
            yield Actor(name, process, errors)
        finally:
            await _end(process)


async def _end(process: Process) -> None:
    assert process.stdin is not None
    with anyio.CancelScope(shield=True):
        await process.stdin.aclose()
        with anyio.move_on_after(_GRACE):
            await process.wait()
        if process.returncode is None:
            process.kill()
        await process.aclose()
