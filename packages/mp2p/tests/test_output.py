"""What reaches a terminal, and what reaches a program."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p.cli.errors import Failure
from mp2p.cli.output import dump, printer, visible


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 21.5 °C", "plain text, 21.5 °C"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("a\r\nb\tc\x00", "a\\x0d\\x0ab\\x09c\\x00"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("a\u202eexe.txt", "a\\u202eexe.txt"),
        ("\u2066\u2069\u200b\ufeff", "\\u2066\\u2069\\u200b\\ufeff"),
        ("\u2028\u2029\U000e0041\ue000\ud800", "\\u2028\\u2029\\U000e0041\\ue000\\ud800"),
        ("[bold red]hello[/] :boom:", "[bold red]hello[/] :boom:"),
        # "I do not want", which needs a joiner to be written.
        ("\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",) * 2,
        ("👩\u200d🔧", "👩\u200d🔧"),
        ("", ""),
    ],
    ids=[
        "plain", "colour and title", "lines", "DEL and C1", "bidi override", "bidi isolates", "separators",
        "markup", "Persian", "emoji", "empty",
    ],
)  # fmt: skip
def test_L5_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_L5_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    left = {unicodedata.category(character) for character in visible(text)} & {"Cc", "Cs", "Zl", "Zp"}
    formats = {c for c in visible(text) if unicodedata.category(c) == "Cf"}
    assert not left
    assert formats <= {"\u200c", "\u200d"}


@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["pipe", "terminal"])
def test_L5_a_peers_text_cannot_speak_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO]
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = stream()
    monkeypatch.setattr(sys, "stdout", terminal)
    printer(as_json=False).emit(
        {}, [("na\x1b[31mme", "cyan"), "  ", "[red]te\u202ext\x07[/red]\nerror: forged"]
    )
    out = terminal.getvalue()
    assert "na\\x1b[31mme" in out
    assert "[red]te\\u202ext\\x07[/red]\\x0aerror: forged" in out
    assert out.count("\n") == 1
    # On a terminal, the only escape sequences are those of our own style.
    assert ("\x1b[" in out) == (stream is Terminal)
    assert "\x1b[31m" not in out


def test_L5_errors_quote_the_peer_and_are_escaped_too(capsys: pytest.CaptureFixture[str]) -> None:
    printer(as_json=False).fail(Failure("Closed", "peer said \x1b[2J", 3))
    printer(as_json=False).warn("transport \x9b is odd")
    assert capsys.readouterr().err == "error: peer said \\x1b[2J\nwarning: transport \\x9b is odd\n"


@given(st.dictionaries(st.text(), st.text()))
def test_L5_json_is_one_line_of_printable_ascii(record: dict[str, str]) -> None:
    line = dump(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == record


def test_L5_json_escapes_delete_too() -> None:
    assert dump({"text": "\x7f\x9b\u202e"}) == '{"text": "\\u007f\\u009b\\u202e"}'


def test_json_keeps_errors_off_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    out = printer(as_json=True)
    out.emit({"event": "x"}, ["for people"])
    out.warn("careful")
    out.fail(Failure("PortTaken", "taken", 5, {"port": 1024}))
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"event": "x"}
    assert [json.loads(line) for line in captured.err.splitlines()] == [
        {"warning": {"message": "careful"}},
        {"error": {"kind": "PortTaken", "message": "taken", "exit_code": 5, "port": 1024}},
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_who_serves_is_shown_where_a_handler_failed(
    capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    printer(as_json=as_json)
    try:
        raise ValueError("\x1b[2J\nerror: forged")
    except ValueError as failed:
        logging.getLogger("mp2p.rpc").error("call 1 failed: incident 7", exc_info=failed)
    shown = capsys.readouterr().err
    if as_json:
        warning = json.loads(shown)["warning"]
        assert warning["message"] == "call 1 failed: incident 7"
        shown = warning["traceback"]
    else:
        assert shown.startswith("warning: call 1 failed: incident 7\n  Traceback (most recent call last):\n")
        assert shown.endswith("  ValueError: \\x1b[2J\n  error: forged\n")
    assert "in test_who_serves" in shown


def test_results_are_not_wrapped_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    contact = "mp2p:" + "a" * 52
    printer(as_json=False).emit({}, ["contact  ", (contact, "cyan")])
    assert contact in terminal.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_L6_results_that_cannot_be_written_are_an_error_and_the_end_of_warnings_is_not(
    tmp_path: Path,
) -> None:
    program = "import sys; from mp2p.cli import main; sys.argv[1:] = {}; main()"
    for words, redirections, code, said in (
        (
            ["id", "--key", "k"],
            ">/dev/full",
            7,
            "error: cannot write to standard output: No space left on device\n",
        ),
        (["--help"], ">/dev/full", 7, "error: cannot write to standard output: No space left on device\n"),
        (["id", "--key", "k", "--json"], ">&-", 0, ""),
        (["id", "--key", "k"], "<&- >&- 2>&-", 0, ""),
        (["id", "--transport", "pigeon"], ">&- 2>/dev/full", 2, ""),
        (["id", "--transport", "pigeon"], "2>&-", 2, ""),
    ):
        ended = subprocess.run(
            ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", program.format(words)],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (ended.returncode, ended.stderr) == (code, said), (words, redirections)


@pytest.mark.parametrize("words", [["--help"], ["listen", "--help"], ["id", "--key", "k", "--json"]])
def test_L6_output_that_nobody_reads_ends_the_command_as_a_signal_would(
    tmp_path: Path, words: list[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "mp2p", *words],
        cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")
