"""`mp2p send`: send messages to a peer, each one until its application has taken it."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
import click

import mp2p
from mp2p.cli import lines, supervise
from mp2p.cli.courier import Courier
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import NodeOptions, node_options
from mp2p.contact_file import find_contact

__all__ = ["send"]


@click.command(short_help="Send messages to a peer that listens.")
@click.argument("contact")
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True)
@node_options
def send(options: NodeOptions, contact: str, texts: Sequence[str]) -> int:
    """Send each TEXT as one message to the peer at CONTACT, in order.

    CONTACT is what `mp2p listen` or `mp2p id` prints on the peer: mp2p:KEY, or the bare key. A TEXT of
    `-` stands for the lines of standard input, each one a message.

    Exits 0 only when the peer's application has taken every message; each waits up to --timeout seconds.
    """
    peer = find_contact(contact)
    return supervise.run(lambda: _send(options, peer, texts))


async def _send(options: NodeOptions, contact: mp2p.Contact, texts: Sequence[str]) -> int:
    printer = options.printer
    async with (
        options.connect(contact) as peer,
        anyio.create_task_group() as group,
    ):
        courier = Courier(peer)
        group.start_soon(courier.pump)
        number = 0
        async for text in lines.texts(texts):
            number += 1
            began = time.perf_counter()
            await courier.send(text, options.timeout)
            taken_ms = round((time.perf_counter() - began) * 1000, 3)
            printer.emit(
                {
                    "event": "taken",
                    "to": str(peer.key),
                    "number": number,
                    "taken_ms": taken_ms,
                },
                [("taken", "green"), f"  message {number}  {taken_ms:.1f} ms"],
            )
        group.cancel_scope.cancel()
    return ExitCode.DONE
