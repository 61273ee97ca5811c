"""How transfers look: to a person at a terminal, in a pipe, and to a program."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mp2p
from mp2p.cli import transfers as module
from mp2p.cli.output import printer
from mp2p.cli.transfers import Transfers, duration, percent
from mp2p.transfer import Interruption, TransferBroken, TransferEvent, TransferState

PEER = mp2p.Identity.from_seed(bytes(32)).public
EVENT = TransferEvent(
    state=TransferState.STARTED,
    number=1,
    peer=PEER,
    name="x",
    size=2000,
    offset=1000,
    written=1000,
    seconds=0,
)
CHECKING = replace(EVENT, state=TransferState.CHECKING, offset=0, written=500)
PROGRESS = replace(EVENT, state=TransferState.PROGRESS, written=1500, seconds=0.5)
DONE = replace(
    EVENT,
    state=TransferState.DONE,
    written=2000,
    seconds=1,
    digest=bytes(32),
    path=Path("in/x (1)"),
    name="x (1)",
)
FAILED = replace(PROGRESS, state=TransferState.FAILED, error=TransferBroken("it broke"))


class Output(io.StringIO):
    """Standard output, as a terminal or a pipe."""

    terminal = False

    def isatty(self) -> bool:
        return self.terminal

    def take(self) -> str:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text

    def take_objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.take().splitlines()]


def redirect(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = False) -> Output:
    """Take over standard output; in the test itself, for pytest takes it over after the fixtures."""
    made = Output()
    made.terminal = terminal
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return made


def test_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirect(monkeypatch)
    show = Transfers(printer(as_json=True), sending=False, names={PEER: "garage"}.get)
    with show:
        for event in (CHECKING, EVENT, PROGRESS, DONE):
            show(event)
        show(replace(EVENT, number=2))
        show(replace(FAILED, number=2))
    facts = {"from": str(PEER), "number": 1, "name": "x", "size": 2000, "contact": "garage"}
    check, start, progress, done, _, error = output.take_objects()
    assert check == {"event": "check", **facts, "bytes": 500}
    assert start == {"event": "start", **facts, "offset": 1000}
    assert progress == {"event": "progress", **facts, "seconds": 0.5, "bytes": 1500, "rate": 1000}
    whole = {
        "path": "in/x (1)",
        "bytes": 2000,
        "offset": 1000,
        "sha256": "00" * 32,
        "seconds": 1,
        "rate": 1000,
    }
    assert done == {"event": "done", **facts, "name": "x (1)", **whole}
    broken = {"bytes": 1500, "kind": "TransferBroken", "message": "it broke"}
    assert error == {"event": "error", **facts, "number": 2, **broken}


def test_L5_in_a_pipe_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirect(monkeypatch)
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    show = Transfers(printer(as_json=False), sending=False)
    evil = "\x1b[2J\n"
    show(replace(EVENT, name=evil))
    assert output.take() == f"receiving  \\x1b[2J\\x0a  2.0 KiB, going on at 1000 bytes\n  from    {PEER}\n"
    show(replace(PROGRESS, name=evil))
    assert output.take() == ""
    now += module._LINE_INTERVAL
    show(replace(PROGRESS, name=evil, seconds=10, written=1600))
    assert output.take() == "progress  \\x1b[2J\\x0a   80 %  1.6 KiB of 2.0 KiB  60 bytes/s  0:07 left\n"
    show(replace(FAILED, name=evil))
    assert output.take() == f"stopped  \\x1b[2J\\x0a  at 75 %: it broke\n  from    {PEER}\n"
    now += module._LINE_INTERVAL
    show(replace(CHECKING, number=2))
    now += module._LINE_INTERVAL
    show(replace(CHECKING, number=2))
    assert output.take() == "progress  x  500 bytes checked, of an earlier attempt\n"
    show(replace(DONE, name=evil))
    assert output.take().splitlines() == [
        "received  \\x1b[2J\\x0a  2.0 KiB, the last 1000 bytes in 1.0 s, 1000 bytes/s",
        f"  from    {PEER}",
        f"  sha256  {'00' * 32}",
    ]
    show(replace(DONE, offset=0, size=0, written=0))
    assert output.take().startswith("received  x (1)  0 bytes in 1.0 s, 0 bytes/s\n")
    show(replace(DONE, offset=2000))
    assert output.take().startswith("received  x (1)  2.0 KiB, all of it there already\n")


def test_L5_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirect(monkeypatch, terminal=True)
    with Transfers(printer(as_json=False), sending=True) as show:
        show(replace(CHECKING, name="[red]\x07"))
        bar = output.take()
        assert "[red]\\x07" in bar  # markup and control characters stand there as text
        assert "500 bytes checked" in bar
        show(replace(EVENT, name="[red]\x07"))
        assert "sending" in output.take()
        show(replace(PROGRESS, name="[red]\x07"))
        bar = output.take()
        assert "━" in bar
        assert "75 %  1.5 KiB of 2.0 KiB  1000 bytes/s  0:00 left" in bar
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", bar)
        assert len(plain.rstrip("\r\n").rsplit("\r", 1)[-1]) == 96  # room for ^C
        show(replace(EVENT, number=2, name="y"))
        show(DONE)
        assert "sha256" in output.take()
        show(replace(PROGRESS, number=2, name="y"))
        bar = output.take()
        assert "y" in bar
        assert "[red]" not in bar  # that one is done
    assert not output.take().endswith("left")


def test_the_same_interruption_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirect(monkeypatch)
    show = Transfers(printer(as_json=False), sending=True)
    down = Interruption(mp2p.NoMulticast("eth0", "it is down"), 0.2, 20.0)
    show(EVENT)
    output.take()
    for left in (20.0, 19.8, 19.4):
        show.interrupted(replace(down, left=left))
    assert output.take() == "interrupted  no multicast on interface eth0: it is down; trying again for 20 s\n"
    show.interrupted(replace(down, error=TransferBroken("it broke")))
    assert output.take() == "interrupted  it broke; trying again for 20 s\n"
    show(replace(EVENT, number=2))
    output.take()
    show.interrupted(replace(down, error=TransferBroken("it broke")))
    assert "it broke" in output.take()
    assert (show._rates, show._next_line, show._tasks) == ({}, {}, {})


def test_programs_are_told_of_each_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirect(monkeypatch)
    show = Transfers(printer(as_json=True), sending=True)
    for _ in range(2):
        show.interrupted(Interruption(TransferBroken("it broke"), 0.2, 19.96))
    assert (
        output.take_objects()
        == [{"event": "retry", "kind": "TransferBroken", "message": "it broke", "seconds_left": 20.0}] * 2
    )


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_percents() -> None:
    assert [percent(done, 1000) for done in (0, 9, 10, 999, 1000)] == [0, 0, 1, 99, 100]
    assert percent(0, 0) == 100
