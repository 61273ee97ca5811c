"""Find what installed distributions register under a group, as `importlib.metadata.entry_points` does.

That module brings parsers of mail and archives along, 3 MB and a tenth of the time that importing mp2p takes, and
what is looked for is one section of one file (packaging.python.org, "Entry points specification").
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NamedTuple, Protocol

__all__ = ["EntryPoint", "find_entry_points"]


class EntryPoint(Protocol):
    """What a distribution registers."""

    @property
    def name(self) -> str:
        """The name that it registers."""

    def load(self) -> object:
        """Import what it names. Raises whatever that raises."""


class _Written(NamedTuple):
    """A line of an `entry_points.txt`: "name = module" or "name = module:attribute"."""

    name: str
    value: str

    def load(self) -> object:
        module, _, attributes = self.value.partition("[")[0].partition(":")
        wanted = filter(None, attributes.strip().split("."))
        return functools.reduce(getattr, wanted, import_module(module.strip()))


def find_entry_points(group: str) -> list[EntryPoint]:
    """Look through `sys.path`; of a distribution that is there twice the first counts, as in imports."""
    plain = [each for each in sys.meta_path if hasattr(each, "find_distributions")] == [PathFinder]
    found: dict[str, Path] = {}
    for folder in map(Path, sys.path):
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries]
        except NotADirectoryError:
            plain = False
            continue
        except OSError:  # not there, or not ours to read
            continue
        for name in names:
            stem, _, kind = name.rpartition(".")
            if kind in ("dist-info", "egg-info"):
                found.setdefault(_normalized(stem.partition("-")[0]), folder / name)
    if not plain:  # an archive, or a tool that makes one file of a program
        from importlib import metadata  # noqa: PLC0415 (see the module's docstring)

        return list(metadata.entry_points(group=group))
    return [point for folder in found.values() for point in _read(folder / "entry_points.txt", group)]


def _normalized(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _read(file: Path, group: str) -> Iterator[_Written]:
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return
    here = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            here = line == f"[{group}]"
        elif here and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield _Written(name.strip(), value.strip())
