"""`mp2p receive-file` and `send-file` in processes of their own, on real datagrams."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path
from typing import Any

import pytest

BIG = 64 * 2**20
"""Takes long enough for a signal to come in the middle."""


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


def make(path: Path, size: int) -> Path:
    """Make a file of zeros, which takes no room here."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def receive(mp2p: Any, inbox: Path, *options: str) -> tuple[Any, Any]:
    """Start receiving, and return that and how to start sending to it."""
    running = mp2p.start(
        *("receive-file", "--json", "--key", mp2p.key("receiver"), "--allow", "any", *mp2p.LOCAL),
        *("--output", str(inbox), *options),
    )
    key = running.event("listening")["key"]

    def send(*files: Path, form: str = "--json") -> Any:
        return mp2p.start(
            *("send-file", form, "--key", mp2p.key("sender"), *mp2p.LOCAL, key, *map(str, files))
        )

    return running, send


def until(running: Any, event: str) -> Any:
    """Pass over what comes before an event."""
    while (found := running.event())["event"] != event:
        pass
    return found


def test_files_one_after_the_other(mp2p: Any, inbox: Path, tmp_path: Path) -> None:
    receiver, send = receive(mp2p, inbox)
    files = [tmp_path / "one.txt", tmp_path / "two.txt"]
    for file in files:
        file.write_text(file.name)
    (inbox / "two.txt").write_text("precious")
    sender = send(*files)
    for name, there in (("one.txt", "one.txt"), ("two.txt", "two (1).txt")):
        digest = hashlib.sha256(name.encode()).hexdigest()
        sent, received = until(sender, "done"), until(receiver, "done")
        for done in (sent, received):
            assert (done["name"], done["sha256"], done["bytes"]) == (there, digest, len(name))
        assert (sent["path"], sent["to"]) == (str(tmp_path / name), mp2p.public("receiver"))
        assert (received["path"], received["from"]) == (str(inbox / there), mp2p.public("sender"))
        assert (inbox / there).read_text() == name
    assert sender.wait() == 0
    assert (inbox / "two.txt").read_text() == "precious"
    assert receiver.end() == 130
    assert receiver.errors() + sender.errors() == ""


def test_one_file_and_no_more(mp2p: Any, inbox: Path, tmp_path: Path) -> None:
    receiver, send = receive(mp2p, inbox, "--once")
    sender = send(make(tmp_path / "x", 1000))
    assert sender.wait() == 0
    assert receiver.wait() == 0


def test_L5_L6_what_cannot_be_written_and_what_it_is_called(mp2p: Any, inbox: Path, tmp_path: Path) -> None:
    receiver, send = receive(mp2p, inbox)
    evil = make(tmp_path / "-\x1b[31m\n.part", 1000)
    inbox.rmdir()
    sender = send(evil, form="--preserve-time")
    assert sender.wait() == 4
    assert sender.errors().startswith(
        "error: the peer gave up '-\\x1b[31m\\n.part': it cannot write the file"
    )
    assert until(receiver, "error")["kind"] == "FileError"
    inbox.mkdir()
    sender = send(evil, form="--preserve-time")
    assert sender.wait() == 0
    assert "sending  -\\x1b[31m\\x0a.part  1000 bytes" in sender.line()
    assert [path.name for path in inbox.iterdir()] == ["_-_[31m_.par_"]
    assert (inbox / "_-_[31m_.par_").stat().st_mtime_ns == evil.stat().st_mtime_ns


def test_L6_C7_a_sender_that_is_interrupted_goes_on_when_it_is_run_again(
    mp2p: Any, inbox: Path, tmp_path: Path
) -> None:
    receiver, send = receive(mp2p, inbox)
    file = make(tmp_path / "x", BIG)
    sender = send(file)
    sender.event("start")
    assert sender.end(signal.SIGINT) == 130
    assert sender.errors() == ""
    stopped = until(receiver, "error")
    assert stopped["bytes"] < BIG
    assert not (inbox / "x").exists()
    sender = send(file)
    assert sender.wait() == 0
    assert until(receiver, "done")["offset"] == stopped["bytes"]
    assert [path.name for path in inbox.iterdir()] == ["x"]
    assert (inbox / "x").stat().st_size == BIG


def test_L6_C7_a_sender_waits_for_a_receiver_that_is_interrupted(
    mp2p: Any, inbox: Path, tmp_path: Path
) -> None:
    receiver, send = receive(mp2p, inbox)
    sender = send(make(tmp_path / "x", BIG))
    receiver.event("start")
    assert receiver.end(signal.SIGINT) == 130
    retry = until(sender, "retry")
    assert retry["kind"] in ("TransferBroken", "Closed")
    receiver, _ = receive(mp2p, inbox)
    assert sender.wait() == 0
    assert until(receiver, "done")["sha256"] == until(sender, "done")["sha256"]
    assert [path.name for path in inbox.iterdir()] == ["x"]
