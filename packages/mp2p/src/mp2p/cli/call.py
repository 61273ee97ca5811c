"""`mp2p call`: call a method of a peer, without its source."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.lines import StandardInput
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Printer
from mp2p.cli.values import as_json, read_arguments, read_value
from mp2p.contact_file import find_contact

__all__ = ["call"]


@click.command(short_help="Call a method of a peer.")
@click.argument("contact")
@click.argument("method", metavar="SERVICE.METHOD")
@click.argument("words", metavar="[NAME=VALUE | -]...", nargs=-1)
@node_options
def call(options: NodeOptions, contact: str, method: str, words: Sequence[str]) -> int:
    """Call SERVICE.METHOD of the peer at CONTACT and print the result; a stream of results as they come.

    Values are read as the types that the peer tells: text as it stands, numbers, true and false, the rest as JSON;
    bytes as base64. A `-` reads further arguments from the first line of standard input, a JSON object. A stream of
    arguments is read from standard input, a value a line.

    --timeout is for the connection and is the deadline of a call that has one result.
    """
    peer = find_contact(contact)
    return supervise.run(lambda: _call(options, peer, method, words))


async def _call(options: NodeOptions, contact: mp2p.Contact, name: str, words: Sequence[str]) -> int:
    async with options.connect(contact) as peer:
        with options.patience():
            service, method = await _find(peer, name)
        with StandardInput() as lines:
            arguments = read_arguments([word for word in words if word != "-"], method.arguments)
            if "-" in words:
                arguments |= await _object(lines)
            if method.items_name is not None:
                arguments[method.items_name] = _items(lines, method)
            called = getattr(peer.client(service), method.name)(**arguments)
            if method.shape in ("server stream", "both stream"):
                async for item in called:
                    _print(options.printer, "item", item)
            else:
                with anyio.fail_after(options.timeout):
                    _print(options.printer, "result", await called)
    return ExitCode.DONE


async def _find(peer: mp2p.Peer, name: str) -> tuple[mp2p.ServiceDescription, mp2p.MethodDescription]:
    """Find a method in what the peer tells. Raises `UsageError` with what there is."""
    known = [(service, method) for service in await peer.describe() for method in service.methods]
    for service, method in known:
        if _full(service, method) == name:
            return service, method
    names = ", ".join(sorted(_full(service, method) for service, method in known)) or "nothing"
    raise mp2p.UsageError(f"the peer has no {name!r} that you may call; there is {names}")


def _full(service: mp2p.ServiceDescription, method: mp2p.MethodDescription) -> str:
    return f"{service.name}.{method.name}" if service.name else method.name


async def _object(lines: StandardInput) -> dict[str, Any]:
    line = await lines.line()
    try:
        found = json.loads(line or b"")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise mp2p.UsageError("- reads a JSON object from the first line of standard input: there is none")
    return found


async def _items(lines: StandardInput, method: mp2p.MethodDescription) -> AsyncIterator[Any]:
    schema = method.items or {}
    while (line := await lines.line()) is not None:
        yield read_value(line.decode(errors="replace"), schema, schema, method.items_name or "")


def _print(printer: Printer, event: str, value: Any) -> None:
    text = as_json(value)
    plain = value if isinstance(value, str) else text
    printer.emit(
        {"event": event, "value": json.loads(text)}, *([plain] for plain in plain.splitlines() or [""])
    )
