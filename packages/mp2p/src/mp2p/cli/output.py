"""Print for people or for programs, through one small interface.

Every word that reaches a terminal passes through `visible` inside the printers, so that no command can
forget it: names and texts come from the network, and a terminal obeys what it is sent.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, TextIO, TypeAlias

if TYPE_CHECKING:
    from mp2p.cli.errors import Failure

__all__ = ["JsonPrinter", "Line", "Printer", "TerminalPrinter", "discard", "dump", "printer", "visible"]

Line: TypeAlias = Sequence[str | tuple[str, str]]
"""A line for people: pieces of text, or pairs of text and rich style."""

_ESCAPED_CATEGORIES: Final = frozenset(
    {
        "Cc",  # control characters: colours, cursor movement, bells, line breaks
        "Cf",  # format characters: bidirectional overrides, invisible marks, tags
        "Cn",  # not assigned: no telling what a terminal does with them
        "Co",  # private use: whatever the font holds
        "Cs",  # lone surrogates: no text at all
        "Zl",  # line separator
        "Zp",  # paragraph separator
    }
)
_JOINERS: Final = frozenset("\u200c\u200d")  # needed to write Persian, Hindi, and many emoji


def visible(text: str) -> str:
    r"""Replace what a terminal would obey, or hide, by an escape such as \x1b or \u202e."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible_character, text))


def _visible_character(character: str) -> str:
    if unicodedata.category(character) not in _ESCAPED_CATEGORIES or character in _JOINERS:
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def dump(record: Mapping[str, object]) -> str:
    """Write a record as one line of JSON, in ASCII and without control characters."""
    return json.dumps(record)


class Printer(Protocol):
    """Where commands print. Each call is flushed: a reader at the other end of a pipe waits for it."""

    @property
    def interactive(self) -> bool:
        """Whether a person watches a terminal."""

    def emit(self, record: Mapping[str, object], *lines: Line) -> None:
        """Print a result: `record` for programs, `lines` for people."""

    def warn(self, message: str, traceback: str = "") -> None:
        """Print on standard error what the user should know, and carry on; and where the user's own code has failed."""

    def fail(self, failure: Failure) -> None:
        """Print on standard error why the command ends."""


class JsonPrinter:
    """One JSON object a line: results on standard output, warnings and the error on standard error."""

    interactive: Final = False

    def emit(self, record: Mapping[str, object], *lines: Line) -> None:  # noqa: ARG002  (for people)
        """Print `record`."""
        _write(sys.stdout, dump(record))

    def warn(self, message: str, traceback: str = "") -> None:
        """Print `{"warning": {"message"}}`, and `traceback` in it where there is one."""
        found = {"traceback": traceback} if traceback else {}
        _write(sys.stderr, dump({"warning": {"message": message} | found}))

    def fail(self, failure: Failure) -> None:
        """Print `{"error": {"kind", "message", "exit_code", ...}}`."""
        error = {"kind": failure.kind, "message": failure.message, "exit_code": int(failure.exit_code)}
        _write(sys.stderr, dump({"error": error | failure.details}))


class TerminalPrinter:
    """Lines for people: in colour on a terminal, plain and never wrapped when piped."""

    def __init__(self) -> None:
        self.interactive = sys.stdout.isatty()

    def emit(self, record: Mapping[str, object], *lines: Line) -> None:  # noqa: ARG002  (for programs)
        """Print `lines`."""
        for line in lines:
            # Not wrapped on a terminal either: a contact must survive being copied.
            _write_line(sys.stdout, line, wrap=False)

    def warn(self, message: str, traceback: str = "") -> None:
        """Print `warning: ...`, and the lines of the traceback below."""
        _write_line(sys.stderr, [("warning: ", "bold yellow"), message])
        for line in traceback.splitlines():
            _write_line(sys.stderr, ["  " + line], wrap=False)  # indented: it may quote what a peer has sent

    def fail(self, failure: Failure) -> None:
        """Print `error: ...`."""
        _write_line(sys.stderr, [("error: ", "bold red"), failure.message])


def printer(*, as_json: bool) -> Printer:
    """Choose the printer for a command line with or without `--json`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that is not UTF-8 must not turn a peer's text into a crash.
            stream.reconfigure(errors="backslashreplace")
    chosen = JsonPrinter() if as_json else TerminalPrinter()
    logging.getLogger("mp2p").handlers[:] = [_Warnings(chosen)]
    return chosen


class _Warnings(logging.Handler):
    """Shows what the library below logs as a warning the way the command shows its own."""

    def __init__(self, chosen: Printer) -> None:
        super().__init__(logging.WARNING)
        self._printer = chosen

    def emit(self, record: logging.LogRecord) -> None:
        # Of a handler that failed, its caller learns nothing but that: this is where its author finds out.
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else ""
        self._printer.warn(record.getMessage(), trace)


def discard(stream: TextIO) -> None:
    """Have what is written to a stream go nowhere: the interpreter flushes once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    """Bear with a standard error that takes nothing: the exit code says it, too. Results must not be lost in silence.

    Raises `FileError`, and `BrokenPipeError` when nobody reads results any more.
    """
    try:
        yield
    except OSError as error:
        if stream is sys.stdout and isinstance(error, BrokenPipeError):
            raise
        discard(stream)
        if stream is sys.stdout:
            # Imported here because results can be written nearly always, and some commands need nothing of it.
            from mp2p.transfer.errors import FileError, Reason  # noqa: PLC0415

            raise FileError.from_os("cannot write to standard output", error, Reason.CANNOT_WRITE) from error


def _write(stream: TextIO, line: str) -> None:
    with _writing(stream):
        stream.write(line + "\n")
        stream.flush()


def _write_line(stream: TextIO, line: Line, *, wrap: bool = True) -> None:
    pieces = [
        (visible(piece), "") if isinstance(piece, str) else (visible(piece[0]), piece[1]) for piece in line
    ]
    if not stream.isatty():
        _write(stream, "".join(text for text, _ in pieces))
        return
    # Imported here because a pipe needs none of it, and it costs more than the rest of the command.
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    with _writing(stream):
        console.print(Text.assemble(*pieces), soft_wrap=not wrap)
        stream.flush()
