"""Files that nobody else may see, and writing them whatever interrupts (rows K1, K5, K6)."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mp2p_core.errors import KeyFileError
from mp2p_core.private_files import WRITE_STEPS, quoted, read_private_file, write_private_file

posix_only = pytest.mark.skipif(os.name != "posix", reason="this system keeps no owner and mode to check")

# Run apart, so that it can be killed: writes over, or beside, an old file and dies before the step named.
DYING_WRITER = """
import os, signal, sys
from mp2p_core.private_files import write_private_file

def die(step):
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "link" and sys.argv[2] in ("claim", "rename"):
        raise PermissionError(1, "no hard links here")

write_private_file(sys.argv[1], b"new", overwrite=sys.argv[3] == "overwrite", on_step=die)
"""


def write_and_die(path: Path, step: str, mode: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", DYING_WRITER, str(path), step, mode], check=False, timeout=60
    ).returncode


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_and_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private_file(path, b"data", overwrite=False)
    assert read_private_file(path, 4) == b"data"
    write_private_file(str(path), b"", overwrite=True)
    assert read_private_file(str(path), 4) == b""
    assert names(tmp_path) == ["file"]


@posix_only
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_K5_mode_is_0600_and_new_folders_0700_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "file"
    old = os.umask(umask)
    try:
        write_private_file(path, b"data", overwrite=False)
        if umask != 0o777:
            write_private_file(tmp_path / "a" / "b" / "file", b"data", overwrite=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    if umask != 0o777:
        for folder in (tmp_path / "a", tmp_path / "a" / "b"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@posix_only
def test_K5_nobody_else_can_open_the_file_before_it_is_written(tmp_path: Path) -> None:
    seen: list[int] = []

    def look(step: str) -> None:
        if step == "write":
            seen.extend(stat.S_IMODE(entry.stat().st_mode) for entry in tmp_path.iterdir())

    old = os.umask(0)
    try:
        write_private_file(tmp_path / "file", b"data", overwrite=False, on_step=look)
    finally:
        os.umask(old)
    assert seen == [0o600]


def test_missing_file_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_private_file(tmp_path / "file", 10)
    with pytest.raises(FileNotFoundError):
        read_private_file(tmp_path / "folder" / "file", 10)


@posix_only
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o602, 0o610, 0o601, 0o777])
def test_K1_open_modes_are_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    write_private_file(path, b"data", overwrite=False)
    path.chmod(mode)
    with pytest.raises(
        KeyFileError, match=rf"open to other users \(mode {mode:04o}\): run `chmod 600 {path}`"
    ):
        read_private_file(path, 10)
    path.chmod(0o400)
    assert read_private_file(path, 10) == b"data"


@posix_only
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a file away")
def test_K1_files_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private_file(path, b"data", overwrite=False)
    os.chown(path, 65534, -1)
    with pytest.raises(
        KeyFileError, match=r"belongs to another user \(uid 65534, and this is uid 0\).*`chown 0 "
    ):
        read_private_file(path, 10)


def test_K1_symbolic_links_are_refused(tmp_path: Path) -> None:
    path, link, loop = tmp_path / "file", tmp_path / "link", tmp_path / "loop"
    write_private_file(path, b"data", overwrite=False)
    link.symlink_to(path)
    loop.symlink_to(loop)
    for name in (link, loop):
        with pytest.raises(KeyFileError, match="symbolic link: name the file that it points to"):
            read_private_file(name, 10)


def test_K1_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"not a regular file|cannot be opened"):
        read_private_file(tmp_path, 10)


@posix_only
def test_K1_pipes_are_refused_and_nothing_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_private_file(path, 10)  # would wait for a writer if it were opened as files usually are
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(descriptor, b"for somebody else")
        with pytest.raises(KeyFileError, match="not a regular file"):
            read_private_file(path, 10)
        assert os.read(descriptor, 100) == b"for somebody else"
    finally:
        os.close(descriptor)


@posix_only
def test_K1_sockets_and_devices_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # socket names are short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(KeyFileError, match="socket cannot be opened"):
            read_private_file("socket", 10)
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_private_file("/dev/null", 10)


def test_K2_longer_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private_file(path, bytes(11), overwrite=False)
    assert read_private_file(path, 11) == bytes(11)
    with pytest.raises(KeyFileError, match=r"too long \(11 bytes, at most 10\)"):
        read_private_file(path, 10)


def test_K6_without_overwrite_whatever_is_there_stays(tmp_path: Path) -> None:
    path, link, folder = tmp_path / "file", tmp_path / "link", tmp_path / "folder"
    write_private_file(path, b"old", overwrite=False)
    link.symlink_to(tmp_path / "nowhere")
    folder.mkdir()
    for name in (path, link, folder):
        with pytest.raises(FileExistsError):
            write_private_file(name, b"new", overwrite=False)
    assert read_private_file(path, 10) == b"old"
    assert names(tmp_path) == ["file", "folder", "link"]


def test_overwriting_a_link_leaves_its_target_alone(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_private_file(link, b"new", overwrite=True)
    assert target.read_bytes() == b"old"
    assert read_private_file(link, 10) == b"new"


@posix_only
@pytest.mark.parametrize("step", [step for step in WRITE_STEPS if step not in ("link", "claim")])
def test_K5_killed_while_replacing(tmp_path: Path, step: str) -> None:
    path = tmp_path / "file"
    write_private_file(path, b"old", overwrite=False)
    done = step in ("fsync folder", "remove")
    # Replacing by rename takes no "link" and no "claim".
    assert write_and_die(path, step, "overwrite") == -9
    assert read_private_file(path, 10) == (b"new" if done else b"old")
    write_private_file(path, b"newest", overwrite=True)  # what was left behind is in nobody's way
    assert read_private_file(path, 10) == b"newest"


@posix_only
@pytest.mark.parametrize("step", ["create", "write", "fsync", "link", "fsync folder", "remove"])
def test_K5_killed_while_creating(tmp_path: Path, step: str) -> None:
    path = tmp_path / "file"
    assert write_and_die(path, step, "new") == -9
    if step in ("fsync folder", "remove"):
        assert read_private_file(path, 10) == b"new"
    else:
        assert not path.exists()
        write_private_file(path, b"newer", overwrite=False)
        assert read_private_file(path, 10) == b"newer"


@posix_only
def test_K5_killed_while_creating_without_hard_links(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_and_die(path, "claim", "new") == -9
    assert not path.exists()
    assert write_and_die(path, "rename", "new") == -9
    # The one gap, on file systems without hard links: the name is taken, and nothing is in it.
    assert read_private_file(path, 10) == b""


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("failing", ["create", "write", "fsync", "rename"])
def test_K5_errors_leave_everything_as_it_was(tmp_path: Path, failing: str, overwrite: bool) -> None:
    path = tmp_path / "file"
    if overwrite:
        write_private_file(path, b"old", overwrite=False)

    def fail(step: str) -> None:
        if step == "link":
            raise PermissionError(1, "no hard links here")
        if step == failing:
            raise OSError(28, "No space left on device")

    with pytest.raises(KeyFileError, match="cannot be written: No space left on device"):
        write_private_file(path, b"new", overwrite=overwrite, on_step=fail)
    assert names(tmp_path) == (["file"] if overwrite else [])
    if overwrite:
        assert read_private_file(path, 10) == b"old"


def test_K6_without_hard_links_the_name_is_claimed(tmp_path: Path) -> None:
    def no_links(step: str) -> None:
        if step == "link":
            raise PermissionError(1, "no hard links here")

    path = tmp_path / "file"
    write_private_file(path, b"first", overwrite=False, on_step=no_links)
    with pytest.raises(FileExistsError):
        write_private_file(path, b"second", overwrite=False, on_step=no_links)
    assert read_private_file(path, 10) == b"first"
    assert names(tmp_path) == ["file"]


def test_K6_whoever_comes_between_wins(tmp_path: Path) -> None:
    """Another writer takes the name at the last moment, with and without hard links."""
    for number, last in enumerate(("link", "claim")):
        path = tmp_path / str(number)

        def intrude(step: str, path: Path = path, last: str = last) -> None:
            if step == last:
                write_private_file(path, b"theirs", overwrite=False)
            elif step == "link":
                raise PermissionError(1, "no hard links here")

        with pytest.raises(FileExistsError):
            write_private_file(path, b"ours", overwrite=False, on_step=intrude)
        assert read_private_file(path, 10) == b"theirs"
    assert names(tmp_path) == ["0", "1"]


def test_order_of_steps(tmp_path: Path) -> None:
    """The data reaches the disk before the name does, and the name before we say so."""
    taken: list[str] = []
    write_private_file(tmp_path / "file", b"1", overwrite=False, on_step=taken.append)
    assert taken == ["create", "write", "fsync", "link", "fsync folder", "remove"]
    taken.clear()
    write_private_file(tmp_path / "file", b"2", overwrite=True, on_step=taken.append)
    assert taken == ["create", "write", "fsync", "rename", "fsync folder", "remove"]
    taken.clear()
    write_private_file(tmp_path / "file", b"3", overwrite=True, durable=False, on_step=taken.append)
    assert taken == ["create", "write", "rename", "remove"]


def test_trouble_with_the_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(KeyFileError, match=r"cannot be written.*Choose another place"):
        write_private_file(tmp_path / "file" / "key", b"", overwrite=False)
    with pytest.raises(KeyFileError, match=r"cannot be opened.*`ls -l "):
        read_private_file(tmp_path / "file" / "key", 10)
    with pytest.raises(KeyFileError, match="cannot be written"):
        write_private_file(tmp_path, b"", overwrite=True)


def test_commands_in_messages_can_be_pasted() -> None:
    assert quoted(Path("my keys") / "it's") == "'my keys/it'\"'\"'s'"
