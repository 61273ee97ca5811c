"""Programs that run inside a namespace, with every line they print kept."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import IO

from netlab.namespaces import Namespace

__all__ = ["Process"]


class Process:
    """A running program, and what it printed so far on either output."""

    def __init__(
        self, namespace: Namespace, *argv: str, label: str = "", env: Mapping[str, str] | None = None
    ) -> None:
        self.label = f"{label or argv[0]} on {namespace.label}"
        self._argv = argv
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._news = threading.Condition()
        self._popen = subprocess.Popen(
            namespace.command(*argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(env or {})},
            # Ctrl-C is for the tests, which then end this process themselves.
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._open_outputs = 2
        self._readers = [
            threading.Thread(target=self._read, args=(self._popen.stdout, self.stdout), daemon=True),
            threading.Thread(target=self._read, args=(self._popen.stderr, self.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._open_outputs -= 1
            self._news.notify_all()

    @property
    def pid(self) -> int:
        """The program's own process id."""
        return self._popen.pid

    def wait_for_line(
        self, wanted: Callable[[str], bool] | str, *, stderr: bool = False, timeout: float = 30
    ) -> str:
        """Wait for a line that contains the text, or satisfies the function, and return it.

        Lines printed before the call count. Raises AssertionError with everything printed when the
        program ends, or `timeout` seconds pass, without it.
        """
        matches = wanted if callable(wanted) else lambda line: wanted in line
        lines = self.stderr if stderr else self.stdout
        deadline = time.monotonic() + timeout
        seen = 0
        with self._news:
            while True:
                for line in lines[seen:]:
                    if matches(line):
                        return line
                seen = len(lines)
                if self._open_outputs == 0:
                    raise AssertionError(f"ended before the line awaited\n{self.transcript()}")
                if not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"the line awaited did not come\n{self.transcript()}")

    def wait(self, timeout: float = 60) -> int:
        """Wait for the end and return the exit code, negative for a signal.

        Raises AssertionError with everything printed when it still runs after `timeout` seconds.
        """
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s\n{self.transcript()}") from None
        for reader in self._readers:
            reader.join()
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 10) -> int:
        """Send a signal, wait for the end, and return the exit code; kill it when it will not end."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)
        try:
            return self.wait(timeout)
        except AssertionError:
            # Whatever it started is in its session too, and would keep the outputs open.
            os.killpg(self.pid, signal.SIGKILL)
            return self.wait()

    def transcript(self) -> str:
        """Return everything printed, for a failure's report."""
        state = "running" if self._popen.poll() is None else f"exit code {self._popen.returncode}"
        return "\n".join(
            (
                f"$ {' '.join(self._argv)}  [{state}]",
                *(f"  out {line}" for line in list(self.stdout)),
                *(f"  err {line}" for line in list(self.stderr)),
            )
        )
