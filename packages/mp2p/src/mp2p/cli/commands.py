"""The commands, put together."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from mp2p.cli.call import call
from mp2p.cli.classic import classic
from mp2p.cli.contacts import contacts
from mp2p.cli.demo import demo
from mp2p.cli.describe import describe
from mp2p.cli.discover import discover
from mp2p.cli.doctor import doctor
from mp2p.cli.errors import EXPLAINABLE, ExitCode, explain, reader_gone
from mp2p.cli.identity import show_identity
from mp2p.cli.listen import listen
from mp2p.cli.output import printer
from mp2p.cli.ping import ping
from mp2p.cli.pub import pub
from mp2p.cli.receive_file import receive_file
from mp2p.cli.send import send
from mp2p.cli.send_file import send_file
from mp2p.cli.serve import serve
from mp2p.cli.sub import sub
from mp2p.cli.top import top

__all__ = ["cli"]

_EPILOG = """\b
Exit codes:
  0    done
  1    a fault in mp2p itself, or a demo whose claim did not hold
  2    usage: an option, a contact or an address that cannot be right
  3    unreachable: the peer was not reached, or the session ended
  4    refused: the peer answered, and said no
  5    local network: no eligible interface, no multicast, port taken
  6    key file: missing, unsafe, damaged or of another profile
  7    file: cannot be read or written, or has changed while it was sent
  130  interrupted (SIGINT; sessions are closed first)
  143  terminated (SIGTERM; sessions are closed first)

\b
With --json each line of standard output is one JSON object with an "event";
a warning or the error that ends the command is one JSON object on standard
error: {"warning": {"message"}} or {"error": {"kind", "message", "exit_code"}}.
"""


class _Commands(click.Group):
    """The command group, with every error explained and mapped to its exit code."""

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
        try:
            code = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
        except EXPLAINABLE as error:
            if reader_gone(error):
                # As in `mp2p listen | head -1`. The interpreter flushes once more at exit: into nothing.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                sys.exit(ExitCode.FAULT)
            failure = explain(error)
            if failure is None:
                raise
            printer(as_json="--json" in words).fail(failure)
            code = failure.exit_code
        if code == ExitCode.INTERRUPTED and sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has shown ^C and stands after it
        sys.exit(code or ExitCode.DONE)


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


_COMMANDS = (
    demo,
    show_identity,
    contacts,
    serve,
    describe,
    call,
    pub,
    sub,
    listen,
    send,
    receive_file,
    send_file,
    ping,
    discover,
    doctor,
    top,
    classic,
)

for _command in _COMMANDS:
    cli.add_command(_command)
