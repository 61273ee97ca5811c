"""Hosts that run the `mp2p` command, each with an identity of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mp2p_core.keyfile import load_or_create_identity
from netlab.lab import Host
from netlab.namespaces import scratch_folder
from netlab.processes import Process

__all__ = ["Device", "FileReceiver", "Listener", "Outcome", "Record", "wait_for_event"]

Record = dict[str, Any]

TERMINATED = 143
"""The exit code of a command that SIGTERM ended in good order."""


def wait_for_event(process: Process, event: str, wanted: Callable[[Record], bool] = lambda _: True) -> Record:
    """Wait for the first event of this kind that is as wanted and return its record."""

    def matches(line: str) -> bool:
        record = json.loads(line)
        return record["event"] == event and wanted(record)

    record: Record = json.loads(process.wait_for_line(matches))
    return record


def _records(lines: list[str]) -> list[Record]:
    return [json.loads(line) for line in lines]


class Outcome:
    """A command that has ended: its exit code, what it printed, and the error it ended with."""

    def __init__(self, process: Process) -> None:
        self.code = process.wait()
        self.records = _records(process.stdout)
        self.error: Record = {}
        for line in process.stderr:
            if line.startswith('{"error"'):
                self.error = json.loads(line)["error"]

    def events(self, name: str) -> list[Record]:
        """Return the records of one event, in order."""
        return [record for record in self.records if record["event"] == name]


class _Server:
    """A command that waits for peers, and is ready for them."""

    def __init__(self, process: Process) -> None:
        self.process = process
        first = json.loads(process.wait_for_line("listening"))
        self.contact: str = first["contact"]
        self.key: str = first["key"]
        self.groups: list[str] = first["groups"]

    def group(self) -> str:
        """Return the IP address of its group, where it has one."""
        (text,) = self.groups
        return _ip(text)

    def _stop(self) -> list[Record]:
        assert self.process.stop() == TERMINATED, self.process.transcript()
        return _records(self.process.stdout)


class Listener(_Server):
    """An `mp2p listen`."""

    def wait_for_message(self, text: str) -> Record:
        """Wait until the application has printed this message and return its record."""
        wanted = json.dumps(text)
        record: Record = json.loads(self.process.wait_for_line(lambda line: f'"text": {wanted}' in line))
        return record

    def stop(self) -> list[tuple[str, str]]:
        """End it and return (sender's key, text) of every message it printed, in order."""
        return [(record["from"], record["text"]) for record in self._stop() if record["event"] == "message"]


class FileReceiver(_Server):
    """An `mp2p receive-file`."""

    def stop(self) -> list[Record]:
        """End it and return the records of what it printed."""
        return self._stop()


class Device:
    """A host with a key file and the command."""

    def __init__(self, host: Host, label: str = "") -> None:
        self.host = host
        self.label = label
        self._home = scratch_folder() / f"{host.name}{label}"
        self._home.mkdir()
        self._key_file = self._home / "key"
        self.identity = load_or_create_identity(self._key_file)
        self.key = str(self.identity.public)

    def start(self, command: str, *arguments: str) -> Process:
        """Start the command with this device's key; its output is JSON."""
        return self.host.start(
            *(sys.executable, "-W", "error", "-m", "mp2p", command, "--json", "--key", str(self._key_file)),
            *arguments,
            label=f"mp2p {command}{self.label and ' as ' + self.label}",
            env={"HOME": str(self._home), "XDG_CONFIG_HOME": str(self._home)},
        )

    def listen(self, *options: str, allow: str = "any") -> Listener:
        """Start listening and wait until it is ready."""
        return Listener(self.start("listen", "--allow", allow, *options))

    def receive_files(self, folder: Path, *options: str, allow: str = "any") -> FileReceiver:
        """Start receiving files into a folder and wait until it is ready."""
        return FileReceiver(self.start("receive-file", "--allow", allow, "--output", str(folder), *options))

    def send(self, contact: str, text: str, *options: str) -> Outcome:
        """Send a message and wait for the command's end."""
        return Outcome(self.start("send", *options, contact, text))

    def ping(self, contact: str, *options: str, count: int = 3) -> Outcome:
        """Ping and wait for the command's end."""
        return Outcome(self.start("ping", "-c", str(count), "-i", "0.05", *options, contact))


def _ip(text: str) -> str:
    """Take the IP address out of `v4:224.0.230.7:1024` or `v6:[ff1e::1]:1024`."""
    return text.partition(":")[2].rpartition(":")[0].strip("[]")
