"""What a file transfer may end with, besides the errors of the session.

Mp2pError
├── FileError                  this side cannot read or write a file
└── RemoteError
    ├── TransferRefused        the other side has given the transfer up, and said why
    └── TransferBroken         the transfer has stopped midway; it can be resumed
"""

from __future__ import annotations

import enum
import errno
from typing import Final

from mp2p_core.errors import Mp2pError, RemoteError

__all__ = ["FileError", "Reason", "TransferBroken", "TransferRefused"]


class Reason(enum.IntEnum):
    """Why a side gives a transfer up: the code of a FAILED frame, or of the reset of a stream."""

    CANCELLED = 0
    NOT_UNDERSTOOD = 1
    NO_SPACE = 2
    CANNOT_WRITE = 3
    CANNOT_READ = 4
    CHANGED = 5
    WRONG_HASH = 6
    SUPERSEDED = 7
    BUSY = 8


_WORDS: Final = {
    Reason.CANCELLED: "it has stopped",
    Reason.NOT_UNDERSTOOD: "it does not understand this version of the protocol",
    Reason.NO_SPACE: "its disk is full",
    Reason.CANNOT_WRITE: "it cannot write the file",
    Reason.CANNOT_READ: "it cannot read the file any more",
    Reason.CHANGED: "the file has changed while it was sent",
    Reason.WRONG_HASH: "what arrived is not what was sent; send the file again",
    Reason.SUPERSEDED: "the same file is being sent anew, elsewhere",
    Reason.BUSY: "another program there is receiving the same file",
}

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class FileError(Mp2pError):
    """This side cannot read or write a file, or it changed while it was sent.

    The message names the file; `reason` and `words` are what the other side is told, which is not where.
    """

    def __init__(self, message: str, reason: Reason, words: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.words = words or _WORDS[reason]

    @classmethod
    def from_os(cls, what: str, error: OSError, reason: Reason) -> FileError:
        """Word an error of the operating system: `what` is such as "cannot write out/photo.jpg"."""
        words = error.strerror or type(error).__name__
        if error.errno in _NO_SPACE:
            reason = Reason.NO_SPACE
        return cls(f"{what}: {words}", reason, f"{_WORDS[reason]} ({words})")


class TransferRefused(RemoteError):
    """The other side has given the transfer up; sending again changes nothing until that is cured there."""

    def __init__(self, name: str, code: int, words: str = "") -> None:
        known = _WORDS.get(Reason(code)) if code in _WORDS else f"code {code}"
        printable = "".join(
            letter if letter.isprintable() else "\ufffd" for letter in words
        )  # from the network
        super().__init__(f"the peer gave up {name!r}: {printable or known}")
        self.code = code


class TransferBroken(RemoteError):
    """The transfer has stopped midway. The receiver keeps what it has: sending again goes on from there."""
