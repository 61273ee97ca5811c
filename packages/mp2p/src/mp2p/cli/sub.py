"""`mp2p sub`: print what a peer publishes."""

from __future__ import annotations

import json
from typing import Final

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Printer
from mp2p.cli.values import as_json
from mp2p.contact_file import find_contact

__all__ = ["sub"]

_QUIET: Final = 5
"""Seconds after which a heartbeat would have come from whoever publishes, several times."""


@click.command(short_help="Print what a peer publishes.")
@click.argument("contact")
@click.argument("pattern")
@click.option("-c", "--count", type=click.IntRange(min=1), metavar="N", help="End after so many values.")
@click.option(
    "--history",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Ask for the last N values, as far as the publisher keeps them.",
)
@node_options
def sub(options: NodeOptions, contact: str, pattern: str, count: int | None, history: int) -> int:
    """Print the values of the topics at CONTACT that fit PATTERN, as they come, and every gap.

    In PATTERN `*` stands for any text within a word, and `**` for any words: "weather/*". What is missing is told,
    never left out in silence.
    """
    peer = find_contact(contact)
    return supervise.run(lambda: _sub(options, peer, pattern, count, history))


async def _sub(
    options: NodeOptions, contact: mp2p.Contact, pattern: str, count: int | None, history: int
) -> int:
    printed = 0
    async with (
        options.open_node() as node,
        node.subscribe(contact, pattern, history=history, timeout=options.timeout) as feed,
        anyio.create_task_group() as tasks,
    ):
        options.printer.emit(
            {"event": "subscribed", "publisher": str(contact.key), "pattern": pattern},
            [("subscribed", "green"), f"  {pattern}"],
        )
        tasks.start_soon(_watch, options.printer, node, feed, pattern)
        async for item in feed:
            _print(options.printer, item)
            printed += isinstance(item, mp2p.Message)
            if printed == count:
                break
        tasks.cancel_scope.cancel()
    return ExitCode.DONE


async def _watch(printer: Printer, node: mp2p.Node, feed: mp2p.Feed, pattern: str) -> None:
    """Say why nothing comes: that the connection has ended, and that there is no such topic for this key."""
    (source,) = feed.sources.values()
    connected = True
    quiet = 0
    while True:
        await anyio.sleep(1)
        if connected and not source.connected:
            printer.warn("the connection to the publisher has ended: trying to connect again, and again")
        connected = source.connected
        quiet += 1
        if quiet == _QUIET and not any(each.datagrams or not each.multicast for each in node.topics()):
            printer.warn(
                f"nothing has come yet: see that the peer publishes (`mp2p pub` there) what fits {pattern!r}, and "
                "lets this key read it"
            )


def _print(printer: Printer, item: mp2p.Message[object] | mp2p.Gap) -> None:
    facts = {"publisher": str(item.publisher), "topic": item.topic, "number": item.number}
    if isinstance(item, mp2p.Gap):
        missing = "some" if item.missing is None else str(item.missing)
        printer.emit(
            {"event": "gap", **facts, "missing": item.missing, "reason": item.reason},
            [("gap", "yellow"), f"  {item.topic}  {missing} missing: {item.reason}"],
        )
        return
    text = as_json(item.value)
    shown = item.value if isinstance(item.value, str) else text
    printer.emit(
        {"event": "value", **facts, "value": json.loads(text), "time": item.time},
        [(item.topic, "cyan"), "  ", shown],
    )
