"""`mp2p id`: show this machine's key and how to reach it."""

from __future__ import annotations

import os

import click

from mp2p.cli.errors import ExitCode
from mp2p.cli.groups import planned_groups
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Line
from mp2p.paths import default_key_path
from mp2p_core import Contact, Reach
from mp2p_core.keyfile import load_or_create_identity
from mp2p_core.opening import select
from mp2p_core.proto.constants import DEFAULT_PORT
from mp2p_core.transport import Address, Transport

__all__ = ["show_identity"]


@click.command("id", short_help="Show your key and contact; makes the key on first use.")
@click.option("--qr", is_flag=True, help="Also show the contact as a QR code, to pair by camera.")
@node_options
def show_identity(options: NodeOptions, qr: bool) -> int:
    """Show your key, the contact to hand out, and the groups that follow from them.

    Makes the key file if there is none. Opens no socket and sends nothing. What it shows is public: the
    secret never leaves the key file.
    """
    path = options.key or default_key_path()
    made = not os.path.lexists(path)
    identity = load_or_create_identity(path)
    raw = identity.public.raw
    groups = planned_groups(options, select(options.transports or None), raw)
    told = [
        (each.family, each.format_address(at)) for each, at in groups if not _follows_from_key(each, at, raw)
    ]
    contact = str(Contact(identity.public, tuple(told)))
    key, file = str(identity.public), str(path.absolute())
    texts = [f"{each.family}:{each.format_address(at)}" for each, at in groups]
    options.printer.emit(
        {"event": "id", "contact": contact, "key": key, "groups": texts, "file": file, "made": made},
        ["contact  ", (contact, "bold cyan")],
        ["key      ", key],
        *(["group    ", text] for text in texts),
        ["file     ", file, ("  made just now" if made else "", "green")],
        *(_qr(contact) if qr else ()),
    )
    return ExitCode.DONE


def _follows_from_key(transport: Transport, address: Address, key: bytes) -> bool:
    """Tell whether a peer finds this address without being told."""
    return address == transport.derive_address(key, Reach.GLOBAL, DEFAULT_PORT)


def _qr(contact: str) -> list[Line]:
    """Draw a contact with block characters, two modules in each, white on black as cameras expect it."""
    import segno  # noqa: PLC0415 -- a tenth of the command's start, for one option

    rows = [list(row) for row in segno.make(contact, error="m").matrix_iter(border=2)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    blocks = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(blocks[upper, lower] for upper, lower in zip(*pair, strict=True)) for pair in pairs)
    return [[(line, "#ffffff on #000000")] for line in lines]
