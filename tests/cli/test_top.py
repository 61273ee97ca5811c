"""`--status` and `mp2p top` in processes of their own."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import stat
import subprocess
import sys
from typing import Any

import pytest


def test_a_snapshot_of_a_running_command(mp2p: Any, parse_lines: Any) -> None:
    listener, first = mp2p.listen("--status", "auto")
    (path,) = (mp2p.home / "run" / "mp2p").iterdir()
    assert path.name == f"{listener.process.pid}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    sender = mp2p.start("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "-")
    sender.process.stdin.write(b"hello\n")
    sender.process.stdin.flush()
    assert listener.event("message")["text"] == "hello"

    done = mp2p.run("top", "--json", "--once")
    assert done.returncode == 0, done.stderr
    (node,) = parse_lines(done.stdout)
    assert (node["event"], node["pid"], node["key"]) == ("snapshot", listener.process.pid, first["key"])
    (channel,) = node["channels"]
    assert channel["address"] == first["groups"][0]
    assert [each["name"] for each in channel["interfaces"] if each["joined"]] == ["lo"]
    (peer,) = node["peers"]
    assert peer["key"] == mp2p.public("sender")
    assert peer["packets_received"] > 0
    assert node["counters"]["data-received"] >= peer["packets_received"]

    shown = mp2p.run("top", "--once", str(path))
    assert shown.returncode == 0, shown.stderr
    head, titles, row = shown.stdout.splitlines()
    assert first["key"] in head
    assert titles.split() == ["peer", "path", "RTT", "lost", "in", "out", "for"]
    assert row.split()[:3] == [mp2p.public("sender"), *peer["path"].split()]

    assert listener.end() == 130
    assert not path.exists()
    assert listener.errors() == ""


def test_topics_of_a_publisher_and_a_subscriber(mp2p: Any, parse_lines: Any) -> None:
    both = ("--json", "--status", "auto", *mp2p.LOCAL)
    publisher = mp2p.start(
        "pub", "--key", mp2p.key("publisher"), *both, "--allow", "any", "--wait", "1", "weather/now"
    )
    contact = publisher.event("listening")["contact"]
    subscriber = mp2p.start("sub", "--key", mp2p.key("subscriber"), *both, contact, "weather/*")
    subscriber.event("subscribed")
    for text in (b"21.5\n", b"22.5\n"):
        publisher.process.stdin.write(text)
        publisher.process.stdin.flush()
        subscriber.event("value")
    done = mp2p.run("top", "--json", "--once")
    assert done.returncode == 0, done.stderr
    nodes = {each["pid"]: each for each in parse_lines(done.stdout)}
    (sent,) = nodes[publisher.process.pid]["topics"]
    (received,) = nodes[subscriber.process.pid]["topics"]
    assert (sent["topic"], sent["published"], sent["subscribers"], sent["messages"]) == (
        "weather/now",
        True,
        1,
        2,
    )
    assert (received["topic"], received["published"], received["messages"]) == ("weather/now", False, 2)
    assert received["publisher"] == mp2p.public("publisher")
    shown = mp2p.run("top", "--once")
    assert "this node" in shown.stdout
    assert "subscribers" in shown.stdout
    publisher.end(signal.SIGTERM)
    subscriber.end(signal.SIGTERM)


def test_values_from_the_command_line_and_standard_input(mp2p: Any, parse_lines: Any) -> None:
    publisher = mp2p.start(
        "pub",
        "--json",
        "--key",
        mp2p.key("publisher"),
        *mp2p.LOCAL,
        "--allow",
        "any",
        "--wait",
        "1",
        "news",
        "1",
        "-",
        "2",
    )
    contact = publisher.event("listening")["contact"]
    subscriber = mp2p.start("sub", "--json", "--key", mp2p.key("subscriber"), *mp2p.LOCAL, contact, "news")
    subscriber.event("subscribed")
    assert subscriber.event("value")["value"] == 1
    publisher.process.stdin.write(b'{"a": 1}\nwords\n')
    publisher.process.stdin.close()
    assert [subscriber.event("value")["value"] for _ in range(3)] == [{"a": 1}, "words", 2]
    assert publisher.event("published")["count"] == 4
    assert publisher.wait() == 0
    subscriber.end(signal.SIGTERM)


def test_without_a_runtime_folder_of_the_system(mp2p: Any) -> None:
    del mp2p.environment["XDG_RUNTIME_DIR"]
    mp2p.environment["TMPDIR"] = str(mp2p.home)
    listener, first = mp2p.listen("--status", "auto")
    done = mp2p.run("top", "--json", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert first["key"] in done.stdout
    listener.end(signal.SIGTERM)
    assert listener.errors() == ""


def test_a_folder_that_others_can_use_is_neither_asked_nor_used(mp2p: Any) -> None:
    folder = mp2p.home / "run" / "mp2p"
    listener, _ = mp2p.listen("--status", "auto")
    assert list(folder.glob("*.sock"))
    folder.chmod(0o777)
    done = mp2p.run("top", "--once")
    assert done.returncode == 2
    assert "no command of yours" in done.stderr
    done = mp2p.run("listen", "--status", "auto", "--key", mp2p.key("other"), *mp2p.LOCAL, "--allow", "any")
    assert done.returncode == 2
    assert "others can use" in done.stderr
    listener.end(signal.SIGTERM)


def test_top_goes_on_and_ends_with_the_node(mp2p: Any) -> None:
    path = str(mp2p.home / "here.sock")
    listener, first = mp2p.listen("--status", path)
    watching = mp2p.start("top", "--json", path)
    for _ in range(2):
        assert watching.event("snapshot")["key"] == first["key"]
    listener.end(signal.SIGTERM)
    while watching.line():
        pass
    assert watching.wait() == 0


def test_on_a_terminal_it_is_a_table(mp2p: Any) -> None:
    listener, first = mp2p.listen("--status", "auto")
    ours, theirs = pty.openpty()
    try:
        shown = subprocess.Popen(
            [sys.executable, "-m", "mp2p", "top"],
            stdin=theirs, stdout=theirs, stderr=theirs, env=mp2p.environment | {"TERM": "xterm", "COLUMNS": "160"},
        )  # fmt: skip
        os.close(theirs)
        seen = b""
        while b"RTT" not in seen:
            assert select.select([ours], [], [], 30)[0], seen
            seen += os.read(ours, 4096)
        assert first["key"].encode() in seen
        listener.end()
        while select.select([ours], [], [], 30)[0]:
            try:
                seen += os.read(ours, 4096)
            except OSError:  # its end is closed
                break
        assert shown.wait(30) == 0, seen
    finally:
        os.close(ours)


def test_where_nobody_answers(mp2p: Any, error_of: Any) -> None:
    nothing = mp2p.run("top", "--json", "--once")
    assert nothing.returncode == 2
    assert "--status auto" in error_of(nothing)["message"]
    left = mp2p.home / "left.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(left))
    gone = mp2p.run("top", "--json", "--once", str(left))
    assert gone.returncode == 2
    assert str(left) in error_of(gone)["message"]


@pytest.mark.parametrize("mode", [0o777, 0o750])
def test_a_folder_that_others_can_use_is_refused(mp2p: Any, error_of: Any, mode: int) -> None:
    folder = mp2p.home / "run" / "mp2p"
    folder.mkdir()
    folder.chmod(mode)
    refused = mp2p.run("listen", "--json", "--key", mp2p.key("l"), *mp2p.LOCAL, "--status", "auto")
    assert refused.returncode == 2
    assert str(folder) in error_of(refused)["message"]
