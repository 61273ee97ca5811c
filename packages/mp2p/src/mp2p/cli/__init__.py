"""The `mp2p` command.

commands                                  the group, and what it does with errors
demo, identity, listen, ping, send        one module, or package, for each command
receive_file, send_file                   as well
classic                                   the group of classic_serve and classic_send, with classic_options
options, supervise, transfers             what they share: options, signals, the progress of files
courier                                   the protocol of listen and send
contacts, errors, lines, output           files, exit codes, standard input, printing
"""

from __future__ import annotations

from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit; the entry point of the installed script."""
    # Imported here because the demo's processes import this package too, and need no commands.
    from mp2p.cli.commands import cli  # noqa: PLC0415

    cli.main()
    raise AssertionError("a command line ends in an exit")
