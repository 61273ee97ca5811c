"""Run the real command in processes of its own, on the loopback interface."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mp2p_core.keyfile import load_or_create_identity

PATIENCE = 30.0
"""Seconds after which something that should have happened counts as failed. Nothing is measured by it."""


class Running:
    """A command that runs beside the test."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str], errors: Path) -> None:
        self._errors = errors
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mp2p", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )
        self._buffer = b""

    def line(self) -> str:
        """Wait for the next line of standard output; empty at its end."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no line within {PATIENCE} s; errors: {self.errors()}"
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            if not chunk:
                break
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def event(self, name: str | None = None) -> dict[str, Any]:
        """Wait for the next JSON line, which must be the event `name`."""
        line = self.line()
        assert line, f"the output has ended; errors: {self.errors()}"
        event: dict[str, Any] = json.loads(line)
        assert name is None or event["event"] == name, event
        return event

    def errors(self) -> str:
        return self._errors.read_text(errors="replace")

    def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal and wait for the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


class Command:
    """The `mp2p` command with a home of its own."""

    LOCAL = ("--transport", "v4", "--interface", "lo", "--reach", "host")

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "config" / "mp2p"
        (home / "run").mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "PYTHONWARNINGS": "error",
        }
        self._running: list[Running] = []

    def run(
        self, *arguments: str, text: str | None = None, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "mp2p", *arguments],
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=timeout,
            check=False,
        )

    def start(self, *arguments: str) -> Running:
        """Start a command, which is ended with the test."""
        errors = self.home / f"errors-{len(self._running)}"
        running = Running(arguments, self.environment, errors)
        self._running.append(running)
        return running

    def key(self, name: str) -> str:
        """Name a key file."""
        return str(self.home / f"{name}.key")

    def public(self, name: str) -> str:
        """Make a key file, if need be, and return the public key: what `mp2p id` shows, without a process."""
        return str(load_or_create_identity(self.key(name)).public)

    def listen(
        self, *arguments: str, allow: str = "any", key: str = "listener"
    ) -> tuple[Running, dict[str, Any]]:
        """Start a listener on loopback and return it with its first line."""
        running = self.start(
            "listen", "--json", "--key", self.key(key), "--allow", allow, *self.LOCAL, *arguments
        )
        return running, running.event("listening")

    def end_all(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.process.kill()
            running.process.wait()
            for stream in (running.process.stdin, running.process.stdout):
                assert stream is not None
                stream.close()


def json_lines(text: str) -> list[dict[str, Any]]:
    """Parse what --json printed: every line must be an object."""
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(line, dict) for line in lines)
    return lines


def the_error(completed: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the one error object on standard error, which must agree with the exit code."""
    objects = [line for line in json_lines(completed.stderr) if "error" in line]
    assert len(objects) == 1, completed.stderr
    error: dict[str, Any] = objects[0]["error"]
    assert error["exit_code"] == completed.returncode
    return error


@pytest.fixture
def mp2p(tmp_path: Path) -> Iterator[Command]:
    """The command with a home of its own; whatever it started is ended with the test."""
    command = Command(tmp_path)
    try:
        yield command
    finally:
        command.end_all()


@pytest.fixture
def parse_lines() -> Callable[[str], list[dict[str, Any]]]:
    return json_lines


@pytest.fixture
def error_of() -> Callable[[subprocess.CompletedProcess[str]], dict[str, Any]]:
    return the_error
