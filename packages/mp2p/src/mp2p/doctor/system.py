"""What checks read of this machine. A seam: tests give them a machine of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from mp2p_udp import Interface, list_interfaces

__all__ = ["LocalSystem", "System"]

_PATIENCE: Final = 5.0


class System(Protocol):
    """A machine to look at. Nothing here changes anything."""

    @property
    def privileged(self) -> bool:
        """Whether this process may read what only root may."""

    def read(self, path: str) -> str | None:
        """Return a file's text, without the white space at its ends; None where it cannot be read."""

    def run(self, *argv: str) -> str | None:
        """Return what a program prints; None where it is missing, fails or is not permitted."""

    def interfaces(self) -> Sequence[Interface]:
        """Return the network interfaces."""


class LocalSystem:
    """The machine this runs on."""

    @property
    def privileged(self) -> bool:
        """Whether this process may read what only root may."""
        return hasattr(os, "geteuid") and os.geteuid() == 0

    def read(self, path: str) -> str | None:
        """Return a file's text; None where it cannot be read."""
        try:
            return Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def run(self, *argv: str) -> str | None:
        """Return what a program prints; None where it is missing, fails or is not permitted."""
        # Where root's programs live, for users whose own path lacks it.
        path = os.pathsep.join(filter(None, [os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
        program = shutil.which(argv[0], path=path)
        if program is None:
            return None
        try:
            done = subprocess.run(  # noqa: S603 -- a program of ours by name, no shell, no text of strangers
                [program, *argv[1:]], capture_output=True, check=True, timeout=_PATIENCE, text=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    def interfaces(self) -> Sequence[Interface]:
        """Return the network interfaces."""
        return list_interfaces()
