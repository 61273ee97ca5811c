"""Read standard input line by line without stopping the event loop, and words that may stand for it."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, Self

import anyio

from mp2p_core import UsageError

__all__ = ["StandardInput", "texts"]

_CHUNK: Final = 1 << 16


class StandardInput:
    """The lines of standard input.

    A terminal, a pipe and a file are waited for in three different ways, and not on every system; a thread
    reads any of them. It is a daemon on a raw descriptor, so that nothing waits for it when the command ends.
    """

    def __init__(self) -> None:
        self._ours, self._threads = socket.socketpair()
        self._ours.setblocking(False)
        self._buffer = b""
        self._lines: list[bytes] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self._copy, name="mp2p stdin", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ours.close()

    def _copy(self) -> None:
        with self._threads:
            try:
                while chunk := os.read(sys.stdin.fileno(), _CHUNK):
                    self._threads.sendall(chunk)
            except OSError:
                return  # the command has ended, or there is no standard input

    async def line(self) -> bytes | None:
        """Wait for the next line, without its end, or None after the last. One task at a time may wait."""
        while not self._lines:
            await anyio.wait_readable(self._ours)
            chunk = self._ours.recv(_CHUNK)
            if not chunk:
                rest, self._buffer = self._buffer, b""
                return rest or None
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            self._lines = lines[::-1]
        return self._lines.pop().removesuffix(b"\r")


async def texts(words: Sequence[str]) -> AsyncIterator[str]:
    """Yield each word, and in place of `-` the lines of standard input as they come.

    Raises `UsageError` for a line that is not UTF-8.
    """
    for word in words:
        if word != "-":
            yield word
            continue
        with StandardInput() as standard_input:
            while (line := await standard_input.line()) is not None:
                yield _text(line)


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input holds a line that is not UTF-8: {line[:40]!r}") from error
