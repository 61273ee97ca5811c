"""Make file names out of what the network says.

A name comes from a peer that may send files, and nothing else: it must not leave the folder, hide, pose as
something else on a screen, or mean a device. What is not safe is replaced, so that every name gives some file.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from typing import Final

__all__ = ["MAX_BYTES", "PART_SUFFIX", "numbered", "part_name", "safe_name"]

PART_SUFFIX: Final = ".part"
MAX_BYTES: Final = 200
"""Of a safe name in UTF-8: file systems take 255, and the name of an unfinished file is longer."""

_UNNAMED: Final = "unnamed"
_LONGEST_EXTENSION: Final = 20
_SEPARATORS: Final = re.compile(r"[/\\]")
_WINDOWS_CHARACTERS: Final = frozenset('<>:"|?*')
_UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_JOINERS: Final = "\u200c\u200d"  # needed to write Persian, Hindi, and many emoji
_DEVICES: Final = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.I)
_PART: Final = re.compile(r"\.part$", re.I)
_TRAILING: Final = re.compile(r"[\s.]+$")  # Windows drops them, and so two names would be one
_INVISIBLE: Final = f"_. {_JOINERS}"


def safe_name(text: str) -> str:
    """Return a name for a file in one folder: `text` itself if that is safe, or as close to it as can be.

    No path, no character that a terminal or Windows would obey, no leading dot or dash, no name of a Windows
    device, no name of an unfinished file, at most 200 bytes.
    """
    name = unicodedata.normalize("NFC", _SEPARATORS.split(text)[-1])
    name = _TRAILING.sub("", "".join(map(_safe_character, name)).strip())
    if name.startswith((".", "-", "~")):
        name = f"_{name.lstrip('.')}"
    if _DEVICES.match(name):
        name = f"_{name}"
    name = _shorten(name, MAX_BYTES)
    if _PART.search(name):
        name = f"{name[:-1]}_"
    return name if name.strip(_INVISIBLE) else _UNNAMED


def _safe_character(character: str) -> str:
    if character in _WINDOWS_CHARACTERS:
        return "_"
    if unicodedata.category(character) in _UNSAFE_CATEGORIES and character not in _JOINERS:
        return "_"
    return character


def _shorten(name: str, limit: int) -> str:
    if len(name.encode()) <= limit:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len((dot + extension).encode()) > _LONGEST_EXTENSION:
        stem, dot, extension = name, "", ""
    room = limit - len((dot + extension).encode())
    return _TRAILING.sub("", stem.encode()[:room].decode(errors="ignore")) + dot + extension


def numbered(name: str) -> Iterator[str]:
    """Yield the name, then `name (1)` and so on, with the number before the extension."""
    yield name
    stem, dot, extension = name.rpartition(".")
    if not stem:
        stem, dot, extension = name, "", ""
    for number in range(1, 10_000):
        yield f"{stem} ({number}){dot}{extension}"


def part_name(name: str, sender: bytes, identifier: bytes) -> str:
    """Return the name under which an unfinished file is kept.

    It belongs to one source at one sender: no peer can go on with, or learn about, what another has sent.
    """
    tag = hashlib.sha256(b"mp2p part\0" + sender + identifier + name.encode()).hexdigest()[:24]
    return f"{name}.{tag}{PART_SUFFIX}"
