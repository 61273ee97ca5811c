"""The `mp2p` command.

commands                                  the group, and what it does with errors
demo, listen, call, send_file, ...        one module, or package, for each command, named as the command is
classic                                   the group of classic_serve and classic_send, with classic_options
options, supervise, transfers             what they share: options, signals, the progress of files
process, acting                           processes that a command runs beside it, from both sides
courier                                   the protocol of listen and send
contacts, errors, lines, output           files, exit codes, standard input, printing
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command line and exit; the entry point of the installed script."""
    # What is loaded stays. Looking for garbage in it took a twentieth of a call's time; `supervise` goes on with that.
    gc.disable()
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started this, as some services and `>&-` do
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115, PTH123 - kept open
    # Ctrl-C while this loads ends it at once and without a traceback: nothing is open yet. It may be ignored, too.
    if interruptible := signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Imported here because the demo's processes import this package too, and need no commands.
    from mp2p.cli.commands import cli  # noqa: PLC0415

    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    cli.main()
    raise AssertionError("a command line ends in an exit")
