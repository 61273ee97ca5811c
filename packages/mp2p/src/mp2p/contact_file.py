"""The contacts file: names for the keys that the user knows, and what each may call.

# contacts.toml in the configuration folder
[contacts]
garage = "mp2p:..."                 # short form

[contacts.kitchen]
key = "..."                         # or contact = "mp2p:..."
addresses = ["v4:224.0.230.7:2000"] # where the key alone does not lead
groups = ["family"]
methods = ["Thermostat.*"]          # what it may call; all, when left out
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from mp2p.paths import default_contacts_path
from mp2p_core import BadKey, Contact, ContactError, PublicKey, UsageError

__all__ = ["Contacts", "KnownContact", "contacts"]

_log = logging.getLogger("mp2p")

_LOOK_EVERY: Final = 1.0
"""Seconds between looks at the file: it is asked about for strangers' packets."""
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_FIELDS: Final = frozenset({"contact", "key", "addresses", "groups", "methods"})


@dataclass(frozen=True, slots=True)
class KnownContact:
    """One entry of the file."""

    name: str
    contact: Contact
    groups: frozenset[str] = frozenset()
    """Labels of the user's choice."""
    methods: tuple[str, ...] = ("*",)
    """Patterns of the methods that it may call."""


class Contacts(Mapping[str, KnownContact]):
    """The contacts by name, read again when the file has changed.

    Usable as `allow=` of nodes and of `Node.serve`: whoever is in the file now. A file that cannot be
    read after a change is warned of, and what it said before stays.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, look_every: float = _LOOK_EVERY
    ) -> None:
        """Read the file; one that is missing names nobody yet. It is looked at every `look_every` seconds at most.

        Raises `UsageError` naming the file and what to change in it.
        """
        self.path = default_contacts_path() if path is None else Path(path)
        self._entries: dict[str, KnownContact] = {}
        self._by_key: dict[PublicKey, KnownContact] = {}
        self._seen: object = None
        self._look_every = look_every
        self._look_at = 0.0
        if _is_there(self.path):
            self.reload()
            if not self._entries:
                _log.warning(
                    "the contacts file %s names nobody: `mp2p contacts add NAME CONTACT` adds one", self.path
                )
        else:
            _log.warning(
                "there is no contacts file %s yet: `mp2p contacts add NAME CONTACT` makes it", self.path
            )

    def reload(self) -> None:
        """Read the file now. Raises `UsageError`, and then keeps what was known."""
        signature = self._signature()
        entries = read_contacts(self.path)
        self._entries = entries
        self._by_key = {entry.contact.key: entry for entry in entries.values()}
        self._seen = signature

    def find(self, key: PublicKey) -> KnownContact | None:
        """Find the entry of a key, in the file as it is now."""
        self._look()
        return self._by_key.get(key)

    def __call__(self, key: PublicKey) -> bool:
        """Tell whether a key is in the file."""
        return self.may_connect(key)

    def may_connect(self, key: PublicKey) -> bool:
        """Tell whether a key may have a session (the `Policy` of `Node.serve`)."""
        return self.find(key) is not None

    def may_call(self, key: PublicKey, method: str) -> bool:
        """Tell whether a key may call the method of that full name."""
        entry = self.find(key)
        return entry is not None and any(fnmatchcase(method, pattern) for pattern in entry.methods)

    def __getitem__(self, name: str) -> KnownContact:
        """Find an entry by its name."""
        self._look()
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names, in the order of the file."""
        self._look()
        return iter(self._entries)

    def __len__(self) -> int:
        self._look()
        return len(self._entries)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + self._look_every
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature  # a file with a mistake is warned of once, until it changes again
        try:
            self.reload()
        except UsageError as error:
            _log.warning("%s; what it said before still counts", error)

    def _signature(self) -> object:
        with contextlib.suppress(OSError):
            status = self.path.stat()
            return status.st_mtime_ns, status.st_size, status.st_ino
        return None


def contacts(path: str | os.PathLike[str] | None = None) -> Contacts:
    """Return the contacts of this user, or those of another file: `allow=mp2p.contacts()`."""
    return Contacts(path)


def _is_there(path: Path) -> bool:
    """Tell whether there is a file, also one that may not be looked at: reading it says why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def read_text(path: Path) -> str:
    """Read the file's text. Raises `UsageError` for a pipe or a device, which might never end, and `OSError`."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | _NONBLOCK)  # does not wait for somebody to write into a pipe

    with open(path, encoding="utf-8", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(
                f"the contacts file {path} is not a regular file: name a file, or remove what stands in its place"
            )
        return file.read()


def read_contacts(path: Path) -> dict[str, KnownContact]:
    """Read the contacts by name; none where the last one was removed, which must shut it out.

    Raises `UsageError` naming the file and what to change in it.
    """
    try:
        table = tomllib.loads(read_text(path))
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no contacts file {path}: `mp2p contacts add NAME CONTACT` makes it, with a line such as "
            'garage = "mp2p:..." below [contacts]'
        ) from error
    except OSError as error:
        raise UsageError(f"the contacts file {path} cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"the contacts file {path} is not TOML: {error}") from error
    entries = table.get("contacts")
    if not isinstance(entries, dict):
        raise UsageError(
            f'the contacts file {path} names nobody: below a line [contacts], write lines such as garage = "mp2p:..."'
        )
    try:
        return {name: _entry(name, value) for name, value in entries.items()}
    except (UsageError, ContactError, BadKey) as error:
        raise UsageError(f"the contacts file {path}: {error}") from error


def _entry(name: str, value: object) -> KnownContact:
    if isinstance(value, str):
        return KnownContact(name, _contact(name, value))
    if not isinstance(value, dict):
        raise UsageError(f'contact {name!r} is not a text: write it as {name} = "mp2p:..."')
    if unknown := sorted(value.keys() - _FIELDS):
        raise UsageError(f"contact {name!r} has {unknown[0]!r}: it may have {', '.join(sorted(_FIELDS))}")
    text = value.get("contact", value.get("key"))
    if not isinstance(text, str) or ("contact" in value and "key" in value):
        raise UsageError(f'contact {name!r} needs either contact = "mp2p:..." or key = "..."')
    contact = _contact(name, text)
    addresses = [tuple(each.partition(":")[::2]) for each in _texts(name, value, "addresses")]
    if addresses:
        try:
            contact = Contact(
                contact.key, (*contact.addresses, *((family, rest) for family, rest in addresses))
            )
        except ContactError as error:
            raise UsageError(f"contact {name!r}: {error}") from error
    return KnownContact(
        name,
        contact,
        frozenset(_texts(name, value, "groups")),
        tuple(_texts(name, value, "methods")) if "methods" in value else ("*",),
    )


def _contact(name: str, text: str) -> Contact:
    try:
        return Contact.parse(text)
    except (ContactError, BadKey) as error:
        raise UsageError(f"contact {name!r}: {error}") from error


def _texts(name: str, table: Mapping[str, object], key: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f'{key} of contact {name!r} is not a list of texts: write {key} = ["...", "..."]')
    return value


def find_contact(text: str) -> Contact:
    """Read a contact, a key, or the name of one in the user's contacts file."""
    try:
        return Contact.parse(text)
    except (ContactError, BadKey):
        path = default_contacts_path()
        if text.startswith("mp2p:") or not _is_there(path):
            raise
        entry = read_contacts(path).get(text)
        if entry is None:
            raise ContactError(
                f"{text!r} is no contact, and no name in {path}: `mp2p contacts list` shows those"
            ) from None
        return entry.contact
