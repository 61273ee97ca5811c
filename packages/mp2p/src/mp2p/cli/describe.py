"""`mp2p describe`: what a peer serves."""

from __future__ import annotations

from typing import Any

import click
import msgspec

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Line
from mp2p.contact_file import find_contact

__all__ = ["describe", "signature"]


@click.command(short_help="Show what a peer serves.")
@click.argument("contact")
@node_options
def describe(options: NodeOptions, contact: str) -> int:
    """Show the services of the peer at CONTACT: those methods that it lets you call.

    With --json each service is one line, with the JSON Schema of every argument and result.
    """
    peer = find_contact(contact)
    return supervise.run(lambda: _describe(options, peer))


async def _describe(options: NodeOptions, contact: mp2p.Contact) -> int:
    async with options.connect(contact) as peer:
        with options.patience():
            services = await peer.describe()
        for service in services:
            lines: list[Line] = [[(service.name or "functions", "bold cyan"), f"  version {service.version}"]]
            lines += [["  ", line] for line in service.doc.splitlines()]
            for each in service.methods:
                lines.append(["  ", (each.name, "bold"), signature(each)])
                lines += [["      ", line] for line in each.doc.splitlines()]
            options.printer.emit({"event": "service", **msgspec.to_builtins(service)}, *lines)
    return ExitCode.DONE


def signature(method: mp2p.MethodDescription) -> str:
    """Write the arguments and the result of a method, about as Python would."""
    required = method.arguments.get("required", [])
    parts = [
        f"{name}: {_type(schema)}{'' if name in required else ' = ...'}"
        for name, schema in method.arguments.get("properties", {}).items()
    ]
    if method.items_name is not None:
        parts.append(f"{method.items_name}: stream of {_type(method.items)}")
    stream = "stream of " if method.shape in ("server stream", "both stream") else ""
    return f"({', '.join(parts)}) -> {stream}{_type(method.result)}"


def _type(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    if isinstance(reference := schema.get("$ref"), str):
        return reference.rpartition("/")[2]
    if isinstance(title := schema.get("title"), str):
        return title
    if isinstance(choices := schema.get("anyOf"), list):
        return " | ".join(_type(choice) for choice in choices)
    if isinstance(values := schema.get("enum"), list):
        return " | ".join(repr(value) for value in values)
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("format", schema.get("contentEncoding", schema.get("type", "any"))))
