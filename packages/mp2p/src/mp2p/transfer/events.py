"""What a transfer tells whoever watches it, and what it returns."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mp2p_core.errors import Mp2pError
    from mp2p_core.proto.identity import PublicKey

__all__ = ["Observer", "TransferEvent", "TransferState", "TransferredFile"]


class TransferState(enum.Enum):
    """Where a transfer stands."""

    CHECKING = "check"
    """Twice a second: one side reads what the receiver has of an earlier attempt, and `written` is how far."""
    STARTED = "start"
    """Both sides have agreed on where to begin."""
    PROGRESS = "progress"
    """Twice a second."""
    DONE = "done"
    """The file is whole and on the receiver's disk, and the sender knows, or could not be told."""
    FAILED = "failed"
    """It has ended otherwise, as `error` says. Receivers only: at the sender, that is raised."""


@dataclass(frozen=True, slots=True)
class TransferEvent:
    """A transfer at one moment."""

    state: TransferState
    number: int
    """Tells the transfers of one program apart."""
    peer: PublicKey
    name: str
    """As the sender offers it, or, once it is done, as the receiver has named it. Not escaped."""
    size: int
    offset: int
    """Bytes that the receiver had from an earlier attempt."""
    written: int
    """Bytes on the receiver's disk, those included; how far CHECKING is."""
    seconds: float
    """Since STARTED."""
    digest: bytes = b""
    """SHA-256 of the whole file, with DONE."""
    path: Path | None = None
    """The file on this side: with DONE, and at the sender always."""
    error: Mp2pError | None = None

    @property
    def rate(self) -> float:
        """Bytes a second since STARTED."""
        return (self.written - self.offset) / self.seconds if self.seconds > 0 else 0.0


Observer: TypeAlias = Callable[[TransferEvent], None]
"""Called in the event loop: it should return soon."""


@dataclass(frozen=True, slots=True)
class TransferredFile:
    """A file that is whole on the receiver's disk, with the same SHA-256 on both sides."""

    path: Path
    """On this side."""
    name: str
    """At the receiver, and not escaped: the sender has only the receiver's word for it."""
    size: int
    digest: bytes
    """SHA-256."""
    moved: int
    """Bytes that went over the network this time."""
    seconds: float
