"""Read and write small files that nobody else may see or change (protocol section 2, "Key files").

Interface: `read_private_file(path, limit)` and `write_private_file(path, data, overwrite=)`. A missing file
is `FileNotFoundError` and one in the way is `FileExistsError`, for the caller to word; all else is
`KeyFileError`. No message holds a byte of the contents.

Systems other than POSIX keep no owner and mode that Python could check: there the folder has to protect
the file, and only its kind and size are looked at.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mp2p_core.errors import KeyFileError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["WRITE_STEPS", "quoted", "read_private_file", "write_private_file"]

WRITE_STEPS: Final = ("create", "write", "fsync", "link", "claim", "rename", "fsync folder", "remove")
"""The names that `write_private_file` passes to `on_step`, not all of them each time."""

_POSIX: Final = os.name == "posix"
# Flags that some systems lack and do not need.
_CLOEXEC: Final = getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)
_BINARY: Final = getattr(os, "O_BINARY", 0)


def quoted(path: str | os.PathLike[str]) -> str:
    """Write a path so that it can be pasted into a shell."""
    return shlex.quote(os.fspath(path))


def read_private_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a file of at most `limit` bytes that only its owner, this user, can read or change.

    Refuses, before reading anything: symbolic links, folders, pipes, devices, files of other users, files
    that others may read or write, and longer files. Blocks for the disk only. Raises `KeyFileError`, and
    `FileNotFoundError` when there is none.
    """
    name = quoted(path)
    if not _NOFOLLOW and Path(path).is_symlink():
        raise KeyFileError(f"{name} is a symbolic link: name the file that it points to")
    try:
        # NONBLOCK: a pipe put in the file's place must not hold us up until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC | _BINARY)
    except FileNotFoundError:
        raise
    except OSError as error:
        if Path(path).is_symlink():
            raise KeyFileError(f"{name} is a symbolic link: name the file that it points to") from None
        raise KeyFileError(
            f"{name} cannot be opened: {error.strerror}. Check its owner and mode with `ls -l {name}`"
        ) from None
    try:
        # Asked of what was opened: the name may stand for something else by now.
        _check(os.fstat(descriptor), name, limit)
        return os.read(descriptor, limit)
    except OSError as error:
        raise KeyFileError(f"{name} cannot be read: {error.strerror}. Check the disk") from None
    finally:
        os.close(descriptor)


def _check(status: os.stat_result, name: str, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{name} is not a regular file: name a file, or remove what stands in its place")
    if _POSIX:
        if status.st_uid != os.geteuid():
            raise KeyFileError(
                f"{name} belongs to another user (uid {status.st_uid}, and this is uid {os.geteuid()}): "
                f"run as that user, or take it over with `chown {os.geteuid()} {name}`"
            )
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise KeyFileError(
                f"{name} is open to other users (mode {mode:04o}): run `chmod 600 {name}`, and replace "
                "what it holds if somebody may have read it"
            )
    if status.st_size > limit:
        raise KeyFileError(
            f"{name} is too long ({status.st_size} bytes, at most {limit}): not a file of mp2p"
        )


def write_private_file(
    path: str | os.PathLike[str],
    data: bytes,
    *,
    overwrite: bool,
    durable: bool = True,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Write a file with mode 0600 that is there as a whole or not at all, whenever this is interrupted.

    Writes a temporary file beside it, flushes it to the disk and puts it in place in one step; a missing
    folder is made with mode 0700. Without `overwrite` a file that is already there stays, also against
    another process that writes at the same time, and `FileExistsError` is raised. `durable=False` leaves
    out waiting for the disk. `on_step` is told the name of each step before it is taken; an error or a
    crash there must leave the old file whole, which is what tests do with it. Raises `KeyFileError`.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        _make_folder(target.parent)
        try:
            on_step("create")
            _write_new(temporary, data, durable, on_step)
            if overwrite:
                on_step("rename")
                temporary.replace(target)
            else:
                _put_in_place(temporary, target, on_step)
            if durable:
                on_step("fsync folder")
                _sync_folder(target.parent)
        finally:
            on_step("remove")
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise KeyFileError(
            f"{quoted(path)} cannot be written: {error.strerror}. Choose another place, or check the folder with "
            f"`ls -ld {quoted(target.parent)}` and the disk with `df`"
        ) from None


def _write_new(temporary: Path, data: bytes, durable: bool, on_step: Callable[[str], None]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC | _BINARY
    descriptor = os.open(temporary, flags, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        on_step("write")
        if _POSIX:
            os.fchmod(descriptor, 0o600)  # a strict umask may have taken even the owner's bits
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if durable:
            on_step("fsync")
            os.fsync(descriptor)


def _put_in_place(temporary: Path, target: Path, on_step: Callable[[str], None]) -> None:
    """Give the temporary file its name, unless something has that name."""
    try:
        on_step("link")
        target.hardlink_to(temporary)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, Android). Claim the name, then fill it: of two writers one still wins, and
        # a crash between the two steps leaves an empty file, which readers refuse.
        on_step("claim")
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC, 0o600))
        try:
            on_step("rename")
            temporary.replace(target)
        except OSError:
            target.unlink()  # ours, and empty
            raise


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):  # another process was faster
        folder.mkdir(mode=0o700)


def _sync_folder(folder: Path) -> None:
    # The file is whole either way; some network file systems cannot flush a folder.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | _CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
