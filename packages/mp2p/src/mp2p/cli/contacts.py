"""`mp2p contacts`: names for the keys that this user knows."""

from __future__ import annotations

from pathlib import Path

import click
import tomlkit
from tomlkit.exceptions import TOMLKitError

import mp2p
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import json_option
from mp2p.cli.output import printer
from mp2p.contact_file import read_contacts, read_text
from mp2p.paths import default_contacts_path
from mp2p_core.private_files import write_private_file

__all__ = ["contacts"]

_file_option = click.option(
    "--file", "file", type=click.Path(path_type=Path), metavar="FILE",
    help="Contacts file. Default: `contacts.toml` in your configuration folder.",
)  # fmt: skip


@click.group(short_help="Keep names for the keys that you know.")
def contacts() -> None:
    """Keep names for the keys that you know: who may call, and whom to call.

    `--allow contacts` lets everyone in the file in, and commands take a name from it for a contact.
    """


@contacts.command("list", short_help="List the contacts.")
@_file_option
@json_option
def list_contacts(file: Path | None, as_json: bool) -> int:
    """List the contacts by name."""
    out = printer(as_json=as_json)
    for name, entry in read_contacts(file or default_contacts_path()).items():
        record = {
            "event": "contact",
            "name": name,
            "contact": str(entry.contact),
            "key": str(entry.contact.key),
            "groups": sorted(entry.groups),
            "methods": list(entry.methods),
        }
        out.emit(record, [(name, "bold"), "  ", (str(entry.contact), "cyan")])
    return ExitCode.DONE


@contacts.command(short_help="Add a contact, or give one a new key.")
@click.argument("name")
@click.argument("contact")
@click.option("--replace", is_flag=True, help="Replace a contact of this name.")
@click.option("--group", "groups", multiple=True, metavar="LABEL", help="A label; may be repeated.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="PATTERN",
    help="What it may call, such as 'Thermostat.*'; may be repeated. Default: everything.",
)
@_file_option
@json_option
def add(
    name: str, contact: str, replace: bool, groups: tuple[str, ...], methods: tuple[str, ...], file: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Add the contact that another node printed, under a NAME of your choice.

    Compare the key with what its owner tells you: the name is yours, the key is what mp2p checks.
    """
    path = file or default_contacts_path()
    parsed = mp2p.Contact.parse(contact)
    document, table = _open(path)
    if name in table and not replace:
        raise mp2p.UsageError(f"there is a contact {name!r} already: choose another name, or give --replace")
    if groups or methods:
        entry = tomlkit.table()
        entry["contact"] = str(parsed)
        if groups:
            entry["groups"] = list(groups)
        if methods:
            entry["methods"] = list(methods)
        table[name] = entry
    else:
        table[name] = str(parsed)
    _save(path, document)
    printer(as_json=as_json).emit(
        {"event": "added", "name": name, "contact": str(parsed), "key": str(parsed.key), "file": str(path)},
        [("added  ", "green"), (name, "bold"), "  ", (str(parsed), "cyan")],
    )
    return ExitCode.DONE


@contacts.command(short_help="Remove a contact.")
@click.argument("name")
@_file_option
@json_option
def remove(name: str, file: Path | None, as_json: bool) -> int:
    """Remove a contact: from then on it is a stranger."""
    path = file or default_contacts_path()
    document, table = _open(path)
    if name not in table:
        raise mp2p.UsageError(f"there is no contact {name!r}: `mp2p contacts list` shows them")
    del table[name]
    # The last one below a line of its own leaves no line [contacts], without which it is no contacts file.
    if not table and table.is_super_table():
        document["contacts"] = tomlkit.table()
    _save(path, document)
    printer(as_json=as_json).emit(
        {"event": "removed", "name": name}, [("removed  ", "yellow"), (name, "bold")]
    )
    return ExitCode.DONE


def _open(path: Path) -> tuple[tomlkit.TOMLDocument, tomlkit.items.Table]:
    """Read the file with its comments, or begin one."""
    try:
        document = tomlkit.parse(read_text(path))
    except FileNotFoundError:
        document = tomlkit.document()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise mp2p.UsageError(f"the contacts file {path} cannot be used: {error}") from error
    table = document.setdefault("contacts", tomlkit.table())
    if not isinstance(table, tomlkit.items.Table):
        raise mp2p.UsageError(f"the contacts file {path}: below a line [contacts], write one line a contact")
    return document, table


def _save(path: Path, document: tomlkit.TOMLDocument) -> None:
    try:
        write_private_file(path, tomlkit.dumps(document).encode(), overwrite=True)
    except UnicodeEncodeError as error:  # the bytes of another encoding, on the command line
        raise mp2p.UsageError("a name, group or method is not valid UTF-8: write it in that") from error
    except mp2p.KeyFileError as error:
        raise mp2p.UsageError(f"the contacts file {path} cannot be written: {error}") from error
