"""The commands, put together."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Final

import click

from mp2p.cli.exit_codes import ExitCode

__all__ = ["cli"]

_EPILOG = """\b
Exit codes:
  0    done
  1    a fault in mp2p itself, or a demo whose claim did not hold
  2    usage: an option, a contact or an address that cannot be right
  3    unreachable: the peer was not reached, or the session ended
  4    refused: the peer answered, and said no, or that the call failed
  5    local network: no eligible interface, no multicast, port taken
  6    key file: missing, unsafe, damaged or of another profile
  7    file: cannot be read or written, or has changed while it was sent
  130  interrupted (SIGINT; sessions are closed first)
  141  nobody reads the output any more, as in `mp2p listen | head -1`
  143  terminated (SIGTERM; sessions are closed first)

\b
With --json each line of standard output is one JSON object with an "event";
a warning or the error that ends the command is one JSON object on standard
error: {"warning": {"message"}} or {"error": {"kind", "message", "exit_code"}}.
"""


_COMMANDS: Final = {
    "demo": "demo:demo",
    "id": "identity:show_identity",
    "contacts": "contacts:contacts",
    "serve": "serve:serve",
    "describe": "describe:describe",
    "call": "call:call",
    "pub": "pub:pub",
    "sub": "sub:sub",
    "listen": "listen:listen",
    "send": "send:send",
    "receive-file": "receive_file:receive_file",
    "send-file": "send_file:send_file",
    "ping": "ping:ping",
    "bench": "bench:bench",
    "discover": "discover:discover",
    "doctor": "doctor:doctor",
    "top": "top:top",
    "classic": "classic:classic",
}
"""Each command's module in `mp2p.cli`, and its name there: one is loaded when it runs, all are for `--help`."""


class _Commands(click.Group):
    """The command group, with every error explained and mapped to its exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the commands by name."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name in _COMMANDS and cmd_name not in self.commands:
            module, name = _COMMANDS[cmd_name].split(":")
            self.add_command(getattr(importlib.import_module(f"mp2p.cli.{module}"), name))
        return super().get_command(ctx, cmd_name)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        """Read the command line; `--help` prints here."""
        with _unread():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with _unread():
            return super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = "mp2p",
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and exit with its code, or return it outside of standalone mode."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        words = sys.argv[1:] if args is None else list(args)
        with _Explained(words):
            code = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        _end_line(code)
        sys.exit(code or ExitCode.DONE)


@contextmanager
def _unread() -> Iterator[None]:
    """Carry it past click when nobody reads the output, for click would end the process with a 1 of its own."""
    try:
        yield
    except BrokenPipeError as error:
        raise ExceptionGroup("nobody reads", [error]) from None


class _Explained(AbstractContextManager["_Explained"]):
    """Ends the process with a message and an exit code for an error that is no fault of the program."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Explain what the command ended with."""
        if error is None:
            return
        # Only now, because `mp2p --version` needs none of what errors can come from.
        from mp2p.cli.errors import EXPLAINABLE, explain, reader_gone  # noqa: PLC0415
        from mp2p.cli.output import discard, printer  # noqa: PLC0415

        if not isinstance(error, EXPLAINABLE):
            return
        if reader_gone(error):
            discard(sys.stdout)  # as in `mp2p listen | head -1`
            sys.exit(ExitCode.UNREAD)
        if failure := explain(error):
            if isinstance(error, OSError):  # of click's own printing
                discard(sys.stdout)
            printer(as_json="--json" in self._words).fail(failure)
            _end_line(failure.exit_code)
            sys.exit(failure.exit_code)


def _end_line(code: int) -> None:
    if code == ExitCode.INTERRUPTED and sys.stderr.isatty():
        sys.stderr.write("\n")  # the terminal has shown ^C and stands after it


@click.group(
    "mp2p",
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.version_option(package_name="mp2p", message="mp2p %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """One device calls another, encrypted, over real multicast, without a broker.

    Try `mp2p demo` first: it shows the whole exchange on this machine, and nothing leaves it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)
