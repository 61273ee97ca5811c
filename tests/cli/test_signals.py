"""Row L6: exit codes, SIGINT and SIGTERM."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@SIGNALS
def test_L6_a_listener_says_close_to_its_peers(mp2p: Any, number: int, code: int) -> None:
    listener, first = mp2p.listen()
    pinger = mp2p.start(
        "ping", "--json", "--key", mp2p.key("pinger"), *mp2p.LOCAL, first["key"], "-c", "10000", "-i", "0.05"
    )
    pinger.event("connected")
    pinger.event("reply")
    assert listener.end(number) == code
    # The pinger hears of it at once, and not from a timeout.
    assert pinger.wait() == 3
    error = json.loads(pinger.errors())["error"]
    assert (error["kind"], error["code"]) == ("Closed", 0)
    assert listener.errors() == ""


@SIGNALS
def test_L6_an_interrupted_ping_sums_up_and_says_close(mp2p: Any, number: int, code: int) -> None:
    _, first = mp2p.listen()
    pinger = mp2p.start(
        "ping", "--json", "--key", mp2p.key("pinger"), *mp2p.LOCAL, first["key"], "-c", "10000", "-i", "30"
    )
    pinger.event("connected")
    pinger.event("reply")
    assert pinger.end(number) == code
    summary = pinger.event("summary")
    assert (summary["sent"], summary["received"]) == (1, 1)
    assert pinger.errors() == ""


@SIGNALS
def test_L6_a_send_that_waits_for_its_peer(mp2p: Any, number: int, code: int) -> None:
    nobody = mp2p.public("nobody")
    sender = mp2p.start("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, "--timeout", "600", nobody, "x")
    wait_for_group(sender)
    assert sender.end(number) == code
    assert sender.errors() == ""


@SIGNALS
def test_L6_a_send_that_waits_for_standard_input(mp2p: Any, number: int, code: int) -> None:
    listener, first = mp2p.listen()
    sender = mp2p.start(
        "send", "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "first", "-"
    )
    sender.event("taken")
    assert sender.process.poll() is None
    assert sender.end(number) == code
    assert sender.errors() == ""
    assert listener.event("message")["text"] == "first"


def test_L6_the_key_file_is_whole_whenever_a_signal_comes(mp2p: Any) -> None:
    """The first line is printed after the key is written: no half-written state is left behind."""
    listener, first = mp2p.listen()
    assert listener.end(signal.SIGTERM) == 143
    files = sorted(path.name for path in mp2p.home.iterdir() if path.name.startswith("listener"))
    assert "listener.key" in files
    assert not [name for name in files if "tmp" in name]
    assert mp2p.public("listener") == first["key"]


def test_L6_a_second_signal_does_not_wait(mp2p: Any) -> None:
    listener, _ = mp2p.listen()
    listener.process.send_signal(signal.SIGINT)
    listener.process.send_signal(signal.SIGINT)
    assert listener.wait() == 130


def test_the_reader_goes_away(mp2p: Any) -> None:
    listener, first = mp2p.listen()
    listener.process.stdout.close()
    done = mp2p.run("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, "--timeout", "2", first["key"], "x")
    assert done.returncode == 3
    assert listener.wait() == 141
    assert listener.errors() == ""


def test_the_script_and_the_module_are_the_same(mp2p: Any) -> None:
    script = Path(sys.executable).with_name("mp2p")
    for start in ([sys.executable, "-m", "mp2p"], [str(script)]):
        done = subprocess.run(
            [*start, "--version"], capture_output=True, text=True, env=mp2p.environment, check=False
        )
        assert done.returncode == 0
        assert done.stdout.startswith("mp2p 0.")


def wait_for_group(running: Any) -> None:
    """Wait until the process has bound its socket, which it does after its signal handlers stand."""
    import psutil

    process = psutil.Process(running.process.pid)
    while not process.net_connections("udp"):
        assert running.process.poll() is None, running.errors()


def test_L6_interrupted_while_it_loads_it_shows_no_traceback() -> None:
    program = """
import os, signal, sys
import mp2p.cli

class Interrupting:
    def find_spec(self, name, *_):
        if name == "mp2p.cli.commands":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
mp2p.cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGINT, b"")
