"""The contacts file: names for the keys that the user knows.

# contacts.toml in the configuration folder
[contacts]
garage = "mp2p:..."
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import mp2p
from mp2p import Contact, ContactError, UsageError

__all__ = ["load_contacts"]


def load_contacts(path: Path) -> dict[str, Contact]:
    """Read the contacts by name. Raises `UsageError` naming the file and what to change in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no contacts file {path}: make it, with a line [contacts] and then one line a contact, "
            'such as garage = "mp2p:..."'
        ) from error
    except OSError as error:
        raise UsageError(f"the contacts file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the contacts file {path} is not TOML: {error}") from error
    entries = table.get("contacts")
    if not isinstance(entries, dict) or not entries:
        raise UsageError(
            f'the contacts file {path} names nobody: below a line [contacts], write lines such as garage = "mp2p:..."'
        )
    return {name: _contact(path, name, value) for name, value in entries.items()}


def _contact(path: Path, name: str, value: object) -> Contact:
    if not isinstance(value, str):
        raise UsageError(f'contact {name!r} in {path} is not a text: write it as {name} = "mp2p:..."')
    try:
        return Contact.parse(value)
    except (ContactError, mp2p.BadKey) as error:
        raise UsageError(f"contact {name!r} in {path}: {error}") from error
