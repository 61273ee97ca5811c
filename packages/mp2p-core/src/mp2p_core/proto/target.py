"""Where a peer may be reached, and where it may answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mp2p_core.transport import Address

__all__ = ["Target"]


@dataclass(frozen=True, slots=True)
class Target:
    """One way to a peer: where to send INITs, and where to ask for the answer."""

    channel: int
    address: Address
    return_address: Address
    max_payload: int
