"""Key files and secrets, seen through the command (rows K1, K2, K6, K7, L1, L2)."""

from __future__ import annotations

import base64
import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def good_key(mp2p: Any, name: str = "mine") -> Path:
    assert mp2p.public(name)
    return Path(mp2p.key(name))


def test_id_makes_the_key_once(mp2p: Any, parse_lines: Any) -> None:
    (first,) = parse_lines(mp2p.run("id", "--json").stdout)
    (again,) = parse_lines(mp2p.run("id", "--json").stdout)
    path = mp2p.config / "key"
    assert first["made"]
    assert not again["made"]
    assert first["key"] == again["key"]
    assert first["file"] == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert first["contact"] == f"mp2p:{first['key']}"
    assert [group.split(":")[0] for group in first["groups"]] == ["v4", "v6"]


def test_id_in_words(mp2p: Any) -> None:
    done = mp2p.run("id", "--transport", "v4")
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert lines["contact"] == f"mp2p:{lines['key']}"
    assert lines["group"].startswith("v4:224.0.")
    assert lines["file"] == f"{mp2p.config / 'key'}  made just now"


@pytest.mark.parametrize(
    "options", [(), ("--port", "2000"), ("--address", "v4:224.0.230.7:1025"), ("--address", "random")]
)
def test_id_and_listen_agree(mp2p: Any, parse_lines: Any, options: tuple[str, ...]) -> None:
    key = str(good_key(mp2p))
    (shown,) = parse_lines(mp2p.run("id", "--json", "--key", key, "--transport", "v4", *options).stdout)
    listener = mp2p.start("listen", "--json", "--key", key, *mp2p.LOCAL, *options)
    first = listener.event("listening")
    assert shown["key"] == first["key"]
    if "random" in options:
        assert shown["groups"] == []
    else:
        assert (shown["contact"], shown["groups"]) == (first["contact"], first["groups"])


@pytest.mark.parametrize(("reach", "groups"), [("link", "239.255."), ("site", "239.19")])
def test_id_tells_a_group_of_narrower_reach(mp2p: Any, parse_lines: Any, reach: str, groups: str) -> None:
    (shown,) = parse_lines(mp2p.run("id", "--json", "--transport", "v4", "--reach", reach).stdout)
    assert shown["contact"].startswith(f"mp2p:{shown['key']}?at=v4:{groups}")
    assert shown["groups"][0].startswith(f"v4:{groups}")


def readable(path: Path) -> None:
    path.chmod(0o644)


def group_readable(path: Path) -> None:
    path.chmod(0o640)


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def foreign(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(path, 12345, -1)


@pytest.mark.parametrize("spoil", [readable, group_readable, linked, folder, fifo, foreign])
def test_K1_an_unsafe_key_file_is_refused(mp2p: Any, error_of: Any, spoil: Callable[[Path], None]) -> None:
    path = good_key(mp2p)
    spoil(path)
    done = mp2p.run("listen", "--json", "--key", str(path), *mp2p.LOCAL)
    assert done.returncode == 6, done.stderr
    assert done.stdout == ""
    error = error_of(done)
    assert error["kind"] == "KeyFileError"
    assert path.name in error["message"]


@pytest.mark.parametrize(
    "command", [("id",), ("send", "{}", "x"), ("ping", "{}")], ids=lambda words: words[0]
)
def test_K1_by_every_command(mp2p: Any, error_of: Any, command: tuple[str, ...]) -> None:
    path = good_key(mp2p)
    peer = mp2p.public("peer")
    readable(path)
    done = mp2p.run(*(word.format(peer) for word in command), "--json", "--key", str(path), *mp2p.LOCAL)
    assert done.returncode == 6, done.stderr
    assert done.stdout == ""
    assert error_of(done)["kind"] == "KeyFileError"


def test_K1_the_message_says_what_to_do(mp2p: Any) -> None:
    path = good_key(mp2p)
    readable(path)
    done = mp2p.run("id", "--key", str(path))
    assert done.returncode == 6
    assert "chmod 600" in done.stderr


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "too long": lambda data: data + b"x" * 5000,
    "trailing": lambda data: data + b"\n",
    "version": lambda data: data.replace(b"mp2p-key-file 1", b"mp2p-key-file 2"),
    "profile": lambda data: data.replace(b"profile v1", b"profile classic"),
    "encoding": lambda data: data[:-10] + b"\xff" + data[-9:],
    "other seed": lambda data: data[:-9] + (b"0" if data[-9:-8] != b"0" else b"1") + data[-8:],
    "PEM": lambda data: b"-----BEGIN PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_K2_a_damaged_key_file_is_refused_and_left_alone(mp2p: Any, error_of: Any, damage: str) -> None:
    path = good_key(mp2p)
    secret = path.read_bytes().split()[-1].decode()
    spoiled = DAMAGE[damage](path.read_bytes())
    assert spoiled != path.read_bytes()
    path.write_bytes(spoiled)
    done = mp2p.run("listen", "--json", "--key", str(path), *mp2p.LOCAL)
    assert done.returncode == 6
    error = error_of(done)
    assert error["kind"] == "KeyFileError"
    assert path.name in error["message"]
    assert secret[:16] not in done.stderr + done.stdout  # row L2: not even of a file that is refused
    assert path.read_bytes() == spoiled


def test_K6_several_first_uses_at_once_agree_on_one_key(mp2p: Any) -> None:
    makers = [mp2p.start("id", "--json", "--key", mp2p.key("new")) for _ in range(4)]
    shown = [maker.event("id") for maker in makers]
    assert [maker.wait() for maker in makers] == [0] * 4
    assert len({each["key"] for each in shown}) == 1


def test_K7_timestamps_that_cannot_be_kept_do_not_stop_a_call(mp2p: Any) -> None:
    listener, first = mp2p.listen()
    path = good_key(mp2p)
    before = set(mp2p.home.iterdir())
    send = ("send", "--json", "--key", str(path), *mp2p.LOCAL, first["key"])
    assert mp2p.run(*send, "one").returncode == 0
    kept = [new for new in set(mp2p.home.iterdir()) - before if new.name.startswith(path.name)]
    assert kept, "the timestamp is kept beside the key"
    for file in kept:
        file.unlink()
        file.mkdir()
    done = mp2p.run(*send, "two")
    assert done.returncode == 0, done.stderr
    assert [listener.event("message")["text"] for _ in range(2)] == ["one", "two"]
    assert "timestamp" in json.loads(done.stderr)["warning"]["message"]


def secrets_of(path: Path) -> list[bytes]:
    """Return the seed in the forms in which it could show up."""
    seed = bytes.fromhex(path.read_bytes().split()[-1].decode())
    return [
        seed,
        seed.hex().encode(),
        seed.hex().upper().encode(),
        base64.b64encode(seed)[:40],
        base64.b32encode(seed)[:48],
        base64.b32encode(seed)[:48].lower(),
        repr(seed)[2:-1].encode(),
        str(list(seed))[1:-1].encode(),
    ]


def test_L2_no_secret_in_debug_output_and_crash_dumps(mp2p: Any) -> None:
    mp2p.environment |= {
        "PYTHONDEVMODE": "1",
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONVERBOSE": "0",
    }
    mp2p.environment.pop("PYTHONWARNINGS")
    listener, first = mp2p.listen()
    sender = mp2p.start(
        "send", "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "first", "-"
    )
    sender.event("taken")
    listener.process.send_signal(signal.SIGABRT)
    assert listener.wait() == -signal.SIGABRT
    sender.process.send_signal(signal.SIGABRT)
    sender.wait()
    output = listener.errors() + sender.errors()
    assert "Fatal Python error: Aborted" in output, "the crash left a dump to look at"
    for name in ("listener", "sender"):
        for secret in secrets_of(Path(mp2p.key(name))):
            assert secret not in output.encode()


CRASH = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
import mp2p.cli.courier
from mp2p.cli.commands import cli

def crash(self, text, timeout):
    raise ZeroDivisionError("a fault in the program")

mp2p.cli.courier.Courier.send = crash

def dump(kind, error, trace):
    # What a crash reporter does: every local variable of every frame.
    for one in (error, *getattr(error, "exceptions", ())):
        for frame, line in traceback.walk_tb(one.__traceback__):
            print(frame.f_code.co_name, {name: repr(value) for name, value in frame.f_locals.items()}, file=sys.stderr)
        traceback.print_exception(one)

sys.excepthook = dump
cli.main(sys.argv[1:])
"""


def test_L2_no_secret_in_a_traceback_with_local_variables(mp2p: Any) -> None:
    import sys

    _, first = mp2p.listen()
    done = subprocess.run(
        [sys.executable, "-c", CRASH, "send", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "x"],
        capture_output=True,
        env=mp2p.environment,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert b"ZeroDivisionError" in output
    assert b"sender.key" in output, "the local variables were shown"
    for secret in secrets_of(Path(mp2p.key("sender"))):
        assert secret not in output


def test_L1_no_secret_is_asked_for_in_the_environment_either(mp2p: Any) -> None:
    """A key in the environment would be seen by every child process; none is read from there."""
    seed = "11" * 32
    mp2p.environment |= dict.fromkeys(("MP2P_KEY", "MP2P_SEED", "MP2P_ID_KEY", "MP2P_LISTEN_KEY"), seed)
    done = mp2p.run("id", "--json")
    assert json.loads(done.stdout)["file"] == str(mp2p.config / "key")
    assert seed not in (mp2p.config / "key").read_text()
