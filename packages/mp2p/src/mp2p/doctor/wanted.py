"""What a node on this machine would do, so that checks look at just that."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

__all__ = ["LEAST_MTU", "Wanted"]

LEAST_MTU: Final = 1200 + 48
"""The smallest MTU that carries every datagram of the protocol over IPv6: 1200 bytes and both headers."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where a node would listen, and on which interfaces."""

    groups: tuple[IPv4Address | IPv6Address, ...]
    port: int
    asked: tuple[str, ...] = ()
    """Interfaces given by name; empty means every eligible one."""

    def of(self, version: int) -> IPv4Address | IPv6Address | None:
        """Return the group of one IP version, if there is one."""
        return next((group for group in self.groups if group.version == version), None)
