"""`mp2p classic serve`: print what devices with the original implementation send."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.classic_options import ClassicOptions, classic_options
from mp2p.cli.listen import Names, read_access
from mp2p.cli.options import warn_of_unused
from mp2p.cli.output import Line
from mp2p_core.access import Allow
from mp2p_core.classic import ClassicListener, open_classic_server

__all__ = ["serve"]

_ANSWER: Final = b"received"


@click.command(short_help="Print the messages that classic clients send.")
@click.option(
    "--allow",
    multiple=True,
    metavar="any|contacts|KEY",
    help="Who may send: this key, everyone in contacts.toml, or anyone; may be repeated. Default: anyone, as in "
    "the original.",
)
@classic_options
def serve(options: ClassicOptions, allow: Sequence[str]) -> int:
    """Print the messages that classic clients send, one a line, and answer each with "received".

    The first line tells clients where to find this server, and its key: `mp2p classic send ADDRESS KEY TEXT`.
    """
    names, allowed = read_access(allow or ("any",))
    return supervise.run(lambda: _serve(options, allowed, names))


async def _serve(options: ClassicOptions, allow: Allow, names: Names) -> int:
    async with open_classic_server(
        options.key, options.place, allow=allow, share_key=options.share_key
    ) as server:
        _announce(options, server)
        while True:
            session, data = await server.receive()
            key, text = session.peer.raw.hex(), data.decode(errors="backslashreplace")
            record = {"event": "message", "from": key, "session": session.session_id.hex(), "text": text}
            if (name := names(session.peer)) is not None:
                record["name"] = name
            options.printer.emit(record, [(name or key, "cyan"), "  ", text])
            with contextlib.suppress(mp2p.Closed):  # its last message has ended the session
                server.send(session, _ANSWER)


def _announce(options: ClassicOptions, server: ClassicListener) -> None:
    address, key = server.address, server.key.raw.hex()
    record = {"event": "listening", "address": address, "port": server.port, "key": key}
    if options.printer.interactive:
        lines: list[Line] = [
            [("listening", "bold green"), "  Ctrl-C ends it"],
            ["  address  ", (address, "bold cyan")],
            ["  port     ", str(server.port)],
            ["  key      ", (key, "bold cyan")],
        ]
    else:
        lines = [[f"listening address={address} port={server.port} key={key}"]]
    options.printer.emit(record, *lines)
    warn_of_unused(options.printer, options.place.interfaces, str(options.place.transport), server.status())
