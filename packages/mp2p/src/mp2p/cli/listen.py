"""`mp2p listen`: print what peers send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.courier import Courier
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Line, Printer
from mp2p.contact_file import read_contacts
from mp2p.paths import default_contacts_path
from mp2p_core.access import Allow

Names: TypeAlias = Callable[[mp2p.PublicKey], str | None]
"""What the user calls a key."""

__all__ = ["allow_option", "announce", "listen", "read_access"]

allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="any|contacts|KEY",
    help="Who may send: this key or contact, everyone in contacts.toml (in your configuration folder), or "
    "anyone; may be repeated. Default: nobody.",
)


@click.command(short_help="Print the messages that peers send.")
@click.option(
    "--announce", "name", metavar="NAME", help="Let `mp2p discover` on this link find this node under a name."
)
@allow_option
@node_options
def listen(options: NodeOptions, allow: Sequence[str], name: str | None) -> int:
    """Print the messages that peers send, one a line, and confirm each to its sender.

    The first line tells how to reach this node: whoever has the contact, or just the key, can send
    something with `mp2p send CONTACT TEXT`, if --allow lets them.
    """
    names, allowed = read_access(allow)
    return supervise.run(lambda: _listen(options, allowed, names, name))


def read_access(allow: Sequence[str]) -> tuple[Names, Allow]:
    """Read what --allow says: how to name the keys that have a name, and who may come in."""
    known = None
    keys: set[mp2p.PublicKey] = set()
    for word in allow:
        if word == "contacts":
            read_contacts(default_contacts_path())  # here a file that is missing or wrong is an error
            known = mp2p.contacts()
        elif word != "any":
            keys.add(mp2p.Contact.parse(word).key)

    def name(key: mp2p.PublicKey) -> str | None:
        entry = known.find(key) if known is not None else None
        return entry.name if entry is not None else None

    if "any" in allow:
        return name, "any"
    if known is not None:
        file = known
        return name, lambda key: key in keys or file(key)
    return name, keys or "nobody"


async def _listen(options: NodeOptions, allow: Allow, names: Names, announced: str | None) -> int:
    printer = options.printer

    async def serve(peer: mp2p.Peer) -> None:
        key = str(peer.key)
        name = names(peer.key)

        def take(text: str) -> None:
            record = {"event": "message", "from": key, "text": text}
            if name is not None:
                record["name"] = name
            printer.emit(record, [(name or key, "cyan"), "  ", text])

        await Courier(peer, take).pump()

    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(options.open_node(allow))
        if announced is not None:
            await stack.enter_async_context(mp2p.announce(node, announced, interfaces=options.interfaces))
        group = await stack.enter_async_context(anyio.create_task_group())
        announce(printer, node, allow)
        while True:
            group.start_soon(serve, await node.accept())


def announce(printer: Printer, node: mp2p.Node, allow: Allow) -> None:
    """Print how to reach the node, and warn of what keeps peers from it."""
    contact, key, groups = str(node.contact), str(node.key), list(node.addresses)
    record = {"event": "listening", "contact": contact, "key": key, "groups": groups}
    if printer.interactive:
        lines: list[Line] = [
            [("listening", "bold green"), "  Ctrl-C ends it"],
            ["  contact  ", (contact, "bold cyan")],
            ["  key      ", key],
            *(["  group    ", text] for text in groups),
        ]
    else:
        lines = [[f"listening contact={contact} key={key} groups={','.join(groups)}"]]
    printer.emit(record, *lines)
    if allow == "nobody":
        printer.warn(
            "nobody can reach this node yet: add --allow KEY for each peer (`mp2p id` there shows it), "
            "--allow contacts, or --allow any"
        )
    for name, reason in node.skipped:
        printer.warn(f"transport {name} is not in use: {reason}")
