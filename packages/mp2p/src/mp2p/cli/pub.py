"""`mp2p pub`: publish values to whoever subscribes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Any

import click

import mp2p
from mp2p.cli import lines, supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.listen import allow_option, announce, read_access
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.policy import policy

__all__ = ["pub", "read_value"]


@click.command(short_help="Publish values to whoever subscribes.")
@click.argument("topic")
@click.argument("values", metavar="[VALUE...]", nargs=-1)
@click.option(
    "--wait",
    "subscribers",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Begin once there are N subscribers.",
)
@click.option(
    "--reliability",
    type=click.Choice(["repaired", "ordered", "best-effort"]),
    default="repaired",
    show_default=True,
    help="What is done about lost datagrams.",
)
@click.option(
    "--history",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Keep the last N values for those who come later.",
)
@allow_option
@node_options
def pub(
    options: NodeOptions, topic: str, values: Sequence[str], subscribers: int, reliability: Any, history: int,
    allow: Sequence[str],
) -> int:  # fmt: skip
    """Publish each VALUE under TOPIC, or each line of standard input, and go on serving those who come later.

    A VALUE that is JSON is published as such, and any other as text; `-` stands for the lines of standard input. One
    datagram serves every subscriber. The first line tells how to reach this node, which is what `mp2p sub` takes. With
    values on the command line it ends when they are published, once --wait subscribers are there; with standard input,
    at its end.
    """
    _, allowed = read_access(allow)
    chosen: mp2p.Topic[Any] = mp2p.Topic(topic, reliability=reliability, history=history)
    return supervise.run(lambda: _pub(options, chosen, values, subscribers, allowed, list(allow)))


async def _pub(
    options: NodeOptions,
    topic: mp2p.Topic[Any],
    values: Sequence[str],
    subscribers: int,
    allow: Any,
    words: list[str],
) -> int:
    async with options.open_node() as node, node.publish(topic, allow=policy(allow, words)) as publication:
        announce(options.printer, node, allow)
        await publication.ready(subscribers)
        began, count = time.monotonic(), 0
        async for text in lines.texts(values or ("-",)):
            await publication.send(read_value(text))
            count += 1
        await publication.delivered()
        options.printer.emit(
            {
                "event": "published",
                "topic": topic.name,
                "count": count,
                "subscribers": len(publication.subscribers()),
            },
            [("published", "green"), f"  {count} in {time.monotonic() - began:.1f} s"],
        )
    return ExitCode.DONE


def read_value(text: str) -> Any:
    """Read JSON, or take it for text."""
    try:
        value = json.loads(text, parse_constant=lambda _: math.nan)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value
