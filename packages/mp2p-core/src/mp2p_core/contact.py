"""Contacts: the text that one user gives another so that their nodes can meet.

Interface: `Contact(key, addresses)`, `Contact.parse(text)`, `str(contact)`.

    mp2p:<key>                                              the key alone: its groups follow from it (section 5)
    mp2p:<key>?at=v6:[ff1e::1]:1024&at=v4:224.0.230.7:2000  and where it listens, when that does not follow

An address is `FAMILY:TEXT`; only transports of that family know what the text means. In it, everything but
letters, digits and `-._~:[]/@,` is written as %XX of its UTF-8 (RFC 3986, section 2.1), so that the brackets
and colons of addresses stay readable and nothing in a contact means anything to a shell but `?`, `&`, and
brackets where a file name matches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

from mp2p_core.errors import BadKey, ContactError
from mp2p_core.proto.identity import PublicKey

__all__ = ["MAX_ADDRESSES", "MAX_CONTACT_SIZE", "Contact", "read_contact"]

MAX_CONTACT_SIZE: Final = 4096
"""The longest contact, in characters. Contacts come from QR codes, web pages and files: strangers' input."""

MAX_ADDRESSES: Final = 16
"""The most addresses in one contact: each is one more place that a node sends to before anybody answered."""

_SCHEME: Final = "mp2p:"
_KEY_ALONE_SIZE: Final = len(_SCHEME) + 52
_EXPECTED: Final = "expected mp2p:<key>, or mp2p:<key>?at=v6:[ff1e::1]:1024, as the other node prints it"
_PLAIN: Final = "-._~:[]/@,"
_FAMILY: Final = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_ESCAPED: Final = re.compile(r"(?:[!\x22$'-~]|%[0-9A-Fa-f]{2})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Contact:
    """A peer's key, and where it listens when that does not follow from the key.

    `addresses` holds (family, text) in the order in which the peer listed them. Equal contacts have equal
    texts. Raises `ContactError` for what could not be written as a contact.
    """

    key: PublicKey
    addresses: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if len(self.addresses) > MAX_ADDRESSES:
            raise _refused(
                f"a contact with {len(self.addresses)} addresses, at most {MAX_ADDRESSES} are taken"
            )
        for family, address in self.addresses:
            if not _FAMILY.fullmatch(family):
                raise _refused(f"an address of family {_shown(family)}, not of lower-case letters and digits")
            # Addresses are printed: nothing in them may move a cursor or turn text around.
            if not address or not address.isprintable():
                raise _refused(f"an address that is empty or holds unprintable characters, {_shown(address)}")
        if len(set(self.addresses)) < len(self.addresses):
            raise _refused("a contact that lists an address twice")
        size = _KEY_ALONE_SIZE + len(self._query())
        if size > MAX_CONTACT_SIZE:
            raise _refused(f"a contact of {size} characters, at most {MAX_CONTACT_SIZE} are taken")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a contact; a bare key, in base32 or hex, is one too.

        Raises `ContactError`, with the form expected.
        """
        if len(text) > MAX_CONTACT_SIZE:
            raise _refused(f"a contact of {len(text)} characters, at most {MAX_CONTACT_SIZE} are taken")
        bare = not text.startswith(_SCHEME)
        name, mark, query = text.removeprefix(_SCHEME).partition("?")
        if bare and mark:
            raise _refused(f"addresses need the prefix {_SCHEME} before the key")
        if not bare and name.startswith("//"):
            raise _refused("a contact has no // before the key")
        if mark and not query:
            raise _refused("nothing follows the question mark, the contact may be cut short")
        try:
            key = PublicKey.parse(name)
        except BadKey as error:
            raise _refused(f"the key of this contact does not read: {error}") from None
        fields = query.split("&") if mark else []
        return cls(key, tuple(_parse_field(field) for field in fields))

    def __str__(self) -> str:
        """Write the contact so that `parse` reads it back."""
        return f"{_SCHEME}{self.key}{self._query()}"

    def _query(self) -> str:
        query = "&".join(f"at={family}:{quote(address, safe=_PLAIN)}" for family, address in self.addresses)
        return f"?{query}" if query else ""


def _parse_field(field: str) -> tuple[str, str]:
    name, equals, value = field.partition("=")
    if name != "at" or not equals:
        raise _refused(
            f"a contact holds {_shown(name)}, and only at= is known: update mp2p if a newer one made it"
        )
    if not _ESCAPED.fullmatch(value):
        raise _refused("an address with white space, a loose % or other characters that need escaping")
    try:
        decoded = unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        raise _refused("an address whose %XX are not UTF-8") from None
    family, colon, address = decoded.partition(":")
    if not colon:
        raise _refused("an address without its family, such as v4: or v6:, in front")
    return family, address


def _refused(problem: str) -> ContactError:
    return ContactError(f"{problem}; {_EXPECTED}")


def _shown(text: str) -> str:
    """Quote a stranger's text for a message: short, and in printable ASCII."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def read_contact(contact: str | Contact | PublicKey) -> Contact:
    """Take a contact, its text, or a bare key. Raises `ContactError`."""
    if isinstance(contact, Contact):
        return contact
    if isinstance(contact, PublicKey):
        return Contact(contact)
    if not isinstance(contact, str):
        raise ContactError(
            f"an object of {type(contact).__name__} is no contact: give a PublicKey (`identity.public`, `node.key`), a "
            "Contact (`node.contact`) or the text of one"
        )
    return Contact.parse(contact)
