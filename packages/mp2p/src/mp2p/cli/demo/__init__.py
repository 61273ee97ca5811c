"""`mp2p demo`: the whole exchange, on this machine, with somebody listening in."""

from __future__ import annotations

import click

from mp2p.cli import supervise
from mp2p.cli.demo.story import tell
from mp2p.cli.options import json_option
from mp2p.cli.output import printer

__all__ = ["demo"]


@click.command(short_help="Show the whole exchange on this machine.")
@click.option(
    "--all-transports",
    is_flag=True,
    help="Show it over IPv6 as well, and over IPv6 with this network's own prefix, where there is one. They "
    "need an interface that is no loopback; the hop limit of 0 keeps everything on this machine.",
)
@json_option
def demo(all_transports: bool, as_json: bool) -> int:
    """Run two nodes on this machine and have one call the other, while a third process listens in.

    Each node has a fresh key that is kept nowhere. The datagrams are real multicast on the loopback
    interface, with a hop limit of 0: nothing leaves this machine. Exits 0 only when everything that is
    shown was also checked.
    """
    return supervise.run(lambda: tell(printer(as_json=as_json), all_transports=all_transports))
