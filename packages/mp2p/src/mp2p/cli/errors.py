"""Turn whatever went wrong into one exit code and one message.

The codes are part of the command's contract (`mp2p --help` lists them):

    0 done   1 a fault in mp2p itself, or a demo whose claim did not hold   2 usage
    3 unreachable   4 refused   5 local network   6 key file   7 file
    130 interrupted (SIGINT)   141 nobody reads the output (as after SIGPIPE)   143 terminated (SIGTERM)
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import click

from mp2p.cli.exit_codes import ExitCode
from mp2p.transfer import FileError, TransferRefused
from mp2p_core.errors import (
    AuthRejected,
    Closed,
    KeyFileError,
    LocalNetworkError,
    Mp2pError,
    NoMulticast,
    PeerUnreachable,
    PortTaken,
    RemoteError,
    UsageError,
)
from mp2p_core.proto.constants import CLOSE_NOT_ALLOWED

__all__ = ["EXPLAINABLE", "ClaimFailed", "ExitCode", "Failure", "NotTaken", "explain", "reader_gone"]


class NotTaken(RemoteError):
    """The session stands, but the peer's application has not confirmed a message in time."""


class ClaimFailed(Exception):
    """The demo saw something other than what it set out to show, or one of its processes failed.

    `exit_code` is that of the process which failed, where one did.
    """

    def __init__(self, message: str, exit_code: int = ExitCode.FAULT) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the user gets to see it. `details` are facts for scripts."""

    kind: str
    message: str
    exit_code: int
    details: dict[str, object] = field(default_factory=dict)


_CODES: Final[tuple[tuple[type[Mp2pError], ExitCode], ...]] = (
    # The narrower class stands before the wider one.
    (KeyFileError, ExitCode.KEY_FILE),
    (UsageError, ExitCode.USAGE),
    (LocalNetworkError, ExitCode.LOCAL_NETWORK),
    (AuthRejected, ExitCode.REFUSED),
    (TransferRefused, ExitCode.REFUSED),
    (FileError, ExitCode.FILE),
    (RemoteError, ExitCode.UNREACHABLE),
)


_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EIO, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""What click's own printing, such as `--help`, fails with; files have names, and FileErrors of their own."""

EXPLAINABLE: Final = (
    click.ClickException,
    click.Abort,
    KeyboardInterrupt,
    OSError,  # those of standard output, and TimeoutError
    Mp2pError,
    ClaimFailed,
    BaseExceptionGroup,
)
"""What a command may end with that is no fault of the program, in itself or within a group."""


def reader_gone(error: BaseException) -> bool:
    """Tell whether the command ended because nobody reads its output any more."""
    return all(isinstance(part, BrokenPipeError) for part in _leaves(error))


def explain(error: BaseException) -> Failure | None:
    """Say what `error` means to the user, or None when it is a fault of this program (show the traceback).

    An exception group is explained by its first part that can be explained, and only when all can be.
    """
    parts = list(_leaves(error))
    known = [failure for failure in map(_explain_one, parts) if failure is not None]
    return known[0] if known and len(known) == len(parts) else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _explain_one(error: BaseException) -> Failure | None:
    kind = type(error).__name__
    if isinstance(error, click.ClickException):
        return Failure("UsageError", _usage_message(error), error.exit_code)
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return Failure("Interrupted", "interrupted", ExitCode.INTERRUPTED)
    if isinstance(error, ClaimFailed):
        return Failure(kind, str(error), error.exit_code)
    if isinstance(error, TimeoutError):
        message = str(error) or "no answer in the time allowed: try again, or allow more with --timeout"
        return Failure("Timeout", message, ExitCode.UNREACHABLE)
    if isinstance(error, OSError) and error.filename is None and error.errno in _NO_ROOM:
        return Failure("FileError", f"cannot write to standard output: {error.strerror}", ExitCode.FILE)
    if isinstance(error, Closed) and error.code == CLOSE_NOT_ALLOWED:
        return Failure(kind, str(error), ExitCode.REFUSED, _details(error))
    if (code := _code_of_call(error)) is not None:
        return Failure(kind, str(error), code, {"code": error.code} if hasattr(error, "code") else {})
    for family, code in _CODES:
        if isinstance(error, family):
            return Failure(kind, str(error), code, _details(error))
    return None


def _code_of_call(error: BaseException) -> ExitCode | None:
    """Return the exit code of an error of mp2p_rpc. Whoever raises one has loaded it; not every command needs it."""
    calls = sys.modules.get("mp2p_rpc.errors")
    if calls is None or not isinstance(error, calls.CallError):
        return None
    return ExitCode.UNREACHABLE if isinstance(error, calls.OutcomeUnknown) else ExitCode.REFUSED


def _usage_message(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx is not None:
        message += f" (`{error.ctx.command_path} --help` shows what it takes)"
    return message


def _details(error: Mp2pError) -> dict[str, object]:
    if isinstance(error, PeerUnreachable):
        return {"stage": error.stage, "tried": list(error.tried)}
    if isinstance(error, Closed):
        return {"code": error.code}
    if isinstance(error, NoMulticast):
        return {"interface": error.interface}
    if isinstance(error, PortTaken):
        return {"port": error.port}
    return {}
