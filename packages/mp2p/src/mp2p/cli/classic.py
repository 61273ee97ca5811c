"""`mp2p classic`: the group of commands for devices that still run the original implementation."""

from __future__ import annotations

import click

from mp2p.cli.classic_send import send
from mp2p.cli.classic_serve import serve
from mp2p.cli.errors import ExitCode

__all__ = ["classic"]


@click.group(
    "classic",
    short_help="Reach devices that still run the original implementation.",
    invoke_without_command=True,
)
@click.pass_context
def classic(context: click.Context) -> None:
    """Speak the wire of the original implementation, to devices that cannot run version 1 yet.

    It is weaker than version 1: no key derivation, one key for both directions, and no protection against
    replays at the original's end. Nothing falls back to it. docs/classic.md says more, and how to move a
    device to version 1.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)


classic.add_command(serve)
classic.add_command(send)
