"""`mp2p discover`: list the nodes on this link that wish to be found."""

from __future__ import annotations

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import json_option, seconds
from mp2p.cli.output import Printer, printer

__all__ = ["discover"]


@click.command(short_help="List the nodes on this link that announce themselves.")
@click.option(
    "--interface", "interfaces", multiple=True, metavar="NAME",
    help="Listen on this network interface; may be repeated. Default: every eligible one.",
)  # fmt: skip
@click.option(
    "--timeout", type=seconds, default=3.0, show_default=True, metavar="SECONDS", help="How long to listen.",
)  # fmt: skip
@json_option
def discover(interfaces: tuple[str, ...], timeout: float, as_json: bool) -> int:
    """List the nodes that announce themselves on this link (`mp2p listen --announce NAME`).

    A name proves nothing: anybody may announce any. Compare the key with what its owner tells you before you use it.
    Exits 3 when nothing was found.
    """
    chosen = printer(as_json=as_json)
    return supervise.run(lambda: _discover(chosen, interfaces, timeout))


async def _discover(printer: Printer, interfaces: tuple[str, ...], timeout: float) -> int:
    count = 0
    async with mp2p.discover(interfaces=interfaces) as found:
        with anyio.move_on_after(timeout):
            async for each in found:
                count += 1
                key, contact = str(each.contact.key), str(each.contact)
                printer.emit(
                    {"event": "found", "name": each.name, "key": key, "contact": contact},
                    [(each.name, "bold"), "  ", (contact, "cyan")],
                )
    if count and printer.interactive:
        printer.emit({}, ["These are claims. Compare each key with what its owner tells you."])
    if not count:
        printer.warn("no node on this link announces itself: `mp2p listen --announce NAME` does")
    return ExitCode.DONE if count else ExitCode.UNREACHABLE
