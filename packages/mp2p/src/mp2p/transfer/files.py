"""Files on disk, read and written in threads: the event loop never waits for a disk or for a hash.

The methods that are plain functions block; the sending and receiving modules run them in threads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import sys
import threading
from pathlib import Path
from typing import Final

from mp2p.transfer.errors import FileError, Reason
from mp2p.transfer.names import numbered, part_name

__all__ = ["CHUNK", "PartFile", "SourceFile", "check_folder", "size_text"]

if sys.platform != "win32":
    import fcntl

CHUNK: Final = 1 << 20
"""Bytes read, hashed or written in one step: a few milliseconds at most of a thread's time."""

_HASH_STEP: Final = 4 << 20
_MANY_PIECES: Final = 256
"""More than a megabyte of large packets makes: they are small, and joining them is cheap."""
_BINARY: Final = getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0) | getattr(os, "O_CLOEXEC", 0)
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)  # a pipe under this name must not make the open wait
_umask_lock: Final = threading.Lock()
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


def size_text(size: float) -> str:
    """Write a number of bytes for people, such as "1.5 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def check_folder(folder: Path) -> None:
    """Raise `FileError` unless files can be made in this folder."""
    if not os.path.isdir(folder):  # noqa: PTH112 - the one of Path raises for a name that is too long
        raise FileError(f"{folder} is not a folder: make it first", Reason.CANNOT_WRITE)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FileError(
            f"nothing can be written to the folder {folder}: permission denied", Reason.CANNOT_WRITE
        )


class _File:
    """An open file, and the hash of what of it has been read or written so far."""

    verb = "read"
    reason = Reason.CANNOT_READ

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._fd = descriptor
        self._hash = hashlib.sha256()
        self._hashed = 0

    @property
    def hashed(self) -> int:
        """How far the hash is, in bytes from the start."""
        return self._hashed

    @property
    def digest(self) -> bytes:
        """SHA-256 of the first `hashed` bytes."""
        return self._hash.digest()

    def start_over(self) -> None:
        """Go back to the first byte."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hash = hashlib.sha256()
        self._hashed = 0

    def _error(self, error: OSError) -> FileError:
        return FileError.from_os(f"cannot {self.verb} {self.path}", error, self.reason)

    def _read(self, count: int) -> bytes:
        try:
            data = os.read(self._fd, count)
        except OSError as error:
            raise self._error(error) from error
        self._hash.update(data)
        self._hashed += len(data)
        return data

    def hash_on(self, end: int) -> None:
        """Read a few megabytes on, up to `end`: to be called until `hashed` is there, or stays where it is.

        Raises `FileError`.
        """
        self._read(min(_HASH_STEP, end - self._hashed))

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SourceFile(_File):
    """A file that is sent."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        self._before = os.fstat(descriptor)

    @classmethod
    def open(cls, path: Path) -> SourceFile:
        """Open a file for reading. Raises `FileError`, also for what is not a regular file."""
        try:
            descriptor = os.open(path, os.O_RDONLY | _BINARY | _NONBLOCK)
        except OSError as error:
            raise FileError.from_os(f"cannot read {path}", error, Reason.CANNOT_READ) from error
        source = cls(path, descriptor)
        if not stat.S_ISREG(source._before.st_mode):
            source.close()
            kind = "a folder: pack it into one file first" if path.is_dir() else "not a regular file"
            raise FileError(f"cannot send {path}: it is {kind}", Reason.CANNOT_READ)
        return source

    @property
    def size(self) -> int:
        """Bytes, as of when it was opened."""
        return self._before.st_size

    @property
    def time_ns(self) -> int:
        """When it was last modified, as of when it was opened."""
        return self._before.st_mtime_ns

    @property
    def id(self) -> bytes:
        """Name this source for the receiver: the same file sent again can be resumed, another one cannot."""
        return hashlib.sha256(b"mp2p file\0" + os.fsencode(self.path.resolve())).digest()[:16]

    def read(self) -> bytes:
        """Read the next megabyte, or what is left. Raises `FileError`; a file cut short has changed."""
        data = self._read(min(CHUNK, self.size - self._hashed))
        if not data:
            raise self._changed()
        return data

    def check_unchanged(self) -> None:
        """Raise `FileError` when the file has another size or time than when it was opened."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise self._changed()

    def _changed(self) -> FileError:
        return FileError(
            f"{self.path} has changed while it was sent: send it again once it stays as it is", Reason.CHANGED
        )


class PartFile(_File):
    """A file that is being received, under its unfinished name. Belongs to one program at a time.

    Only this user may read it; once whole, it gets the mode of any new file.
    """

    verb = "write"
    reason = Reason.CANNOT_WRITE

    @classmethod
    def open(cls, folder: Path, name: str, sender: bytes, identifier: bytes) -> PartFile:
        """Open the unfinished file of this source, or make it. Raises `FileError`."""
        path = folder / part_name(name, sender, identifier)
        try:
            while True:
                with contextlib.ExitStack() as unless_claimed:
                    flags = os.O_RDWR | os.O_CREAT | _NOFOLLOW | _NONBLOCK | _BINARY
                    part = cls(path, os.open(path, flags, 0o600))
                    unless_claimed.callback(part.close)
                    if part._claim():
                        unless_claimed.pop_all()
                        return part
        except OSError as error:
            raise FileError.from_os(f"cannot write {path}", error, Reason.CANNOT_WRITE) from error

    def _claim(self) -> bool:
        """Lock the file for this program; False when it has been finished, or should be made anew, meanwhile."""
        held = os.fstat(self._fd)
        self._require_regular(held)
        if sys.platform != "win32":
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise FileError(f"{self.path} is being received by another program", Reason.BUSY) from error
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # a file system without locks
                    raise
        try:
            there = self.path.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        self._require_regular(there)  # a link, where no flag kept it from being followed
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            return False
        if there.st_nlink > 1:
            # A crash came between the two steps of `finish`: the file is whole and has its name. Hands off.
            self.path.unlink()
            return False
        return True

    def _require_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"cannot write {self.path}: it is not a regular file", Reason.CANNOT_WRITE)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return os.fstat(self._fd).st_size

    def clear(self) -> None:
        """Drop what it holds."""
        os.ftruncate(self._fd, 0)
        self.start_over()

    def require_room(self, size: int) -> None:
        """Raise `FileError` when what is missing up to `size` does not fit the disk."""
        free = shutil.disk_usage(self.path.parent).free
        needed = size - self._hashed
        if needed > free:
            sizes = f"{size_text(needed)} needed, {size_text(free)} free"
            raise FileError(
                f"no space for {self.path}: {sizes}", Reason.NO_SPACE, f"its disk is full ({sizes})"
            )

    def write(self, pieces: list[bytes]) -> None:
        """Append bytes. Raises `FileError`."""
        if len(pieces) > _MANY_PIECES or sys.platform == "win32":
            pieces = [b"".join(pieces)]
        for piece in pieces:
            self._hash.update(piece)
        try:
            if sys.platform != "win32":
                written = os.writev(self._fd, pieces)  # large pieces are not copied once more
                self._hashed += written
                if written == sum(map(len, pieces)):
                    return
                pieces = [b"".join(pieces)[written:]]
            view = memoryview(pieces[0])
            while view:
                written = os.write(self._fd, view)
                self._hashed += written
                view = view[written:]
        except OSError as error:
            raise self._error(error) from error

    def finish(self, name: str, *, time_ns: int | None, overwrite: bool) -> Path:
        """Give the file its name, once it is safe on disk, close it, and return that. Raises `FileError`.

        Never replaces a file unless told to: the name is then followed by a number.
        """
        try:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # a file system without modes, or with an owner of its own
                    os.fchmod(self._fd, 0o666 & ~_umask())
            os.fsync(self._fd)
            if time_ns is not None:
                with contextlib.suppress(OSError, OverflowError):  # a time that this file system cannot hold
                    os.utime(self.path, ns=(time_ns, time_ns))
            if sys.platform == "win32":
                self.close()  # an open file cannot be renamed there
            final = self._place(name, overwrite=overwrite)
            self.close()
            _sync_folder(final.parent)
        except OSError as error:
            what = f"cannot finish {self.path} as {name}"
            raise FileError.from_os(what, error, Reason.CANNOT_WRITE) from error
        return final

    def _place(self, name: str, *, overwrite: bool) -> Path:
        folder = self.path.parent
        if overwrite:
            return self.path.replace(folder / name)
        for candidate in numbered(name):
            final = folder / candidate
            with contextlib.suppress(FileExistsError):
                _rename_to_new(self.path, final)
                return final
        raise FileExistsError(errno.EEXIST, "that name and 9999 numbered ones are taken")

    def discard(self) -> None:
        """Remove the file."""
        if sys.platform == "win32":
            self.close()  # an open file cannot be removed there
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()  # not before: another program would take it for its own

    def set_aside(self) -> None:
        """Close the file and keep it for resuming, unless there is nothing in it."""
        if self._fd >= 0:
            if self.size:
                self.close()
            else:
                self.discard()


def _umask() -> int:
    """Return what this program takes from the modes of new files."""
    with _umask_lock:  # it can only be read by setting it; for that moment, to the most private one
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def _rename_to_new(old: Path, new: Path) -> None:
    """Rename, but never onto another file. Raises FileExistsError."""
    if sys.platform == "win32":
        old.rename(new)  # refuses by itself there
        return
    try:
        new.hardlink_to(old)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        old.unlink()
        return
    # A file system without hard links, such as FAT. Looking first leaves other programs a moment, not us.
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    old.rename(new)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
