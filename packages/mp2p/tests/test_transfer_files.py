"""Files on disk: parts, locks, names that are taken, disks that are full."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mp2p.transfer import FileError, Reason, check_folder
from mp2p.transfer import files as module
from mp2p.transfer.files import CHUNK, PartFile, SourceFile, size_text
from mp2p.transfer.names import part_name

SENDER, SOURCE = bytes(32), bytes(16)
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX files")


def part_of(folder: Path, name: str = "x") -> PartFile:
    return PartFile.open(folder, name, SENDER, SOURCE)


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestPart:
    def test_written_finished_and_named(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([b"one", b"", b"two"])
        assert (part.size, part.hashed, part.digest) == (6, 6, hashlib.sha256(b"onetwo").digest())
        assert parts(tmp_path) == [part_name("x", SENDER, SOURCE)]
        assert part.finish("x", time_ns=1_500_000_000_000_000_000, overwrite=False) == tmp_path / "x"
        part.set_aside()
        assert parts(tmp_path) == ["x"]
        assert (tmp_path / "x").read_bytes() == b"onetwo"
        assert (tmp_path / "x").stat().st_mtime_ns == 1_500_000_000_000_000_000

    @posix
    @pytest.mark.parametrize("umask", [0o022, 0o027])
    def test_nobody_else_may_read_a_part(self, tmp_path: Path, umask: int) -> None:
        before = os.umask(umask)
        try:
            part = part_of(tmp_path)
            part.write([b"x"])
            assert part.path.stat().st_mode & 0o777 == 0o600
            part.set_aside()
            final = part_of(tmp_path).finish("x", time_ns=None, overwrite=False)
            assert final.stat().st_mode & 0o777 == 0o666 & ~umask
            assert os.umask(umask) == umask
        finally:
            os.umask(before)

    def test_many_small_pieces(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([bytes([number % 256]) for number in range(5000)])
        part.close()
        assert part.path.read_bytes() == bytes(range(256)) * 19 + bytes(range(136))

    @posix
    def test_a_write_that_the_system_cuts_short_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write, writev = os.write, os.writev
        monkeypatch.setattr(os, "writev", lambda fd, pieces: writev(fd, [b"".join(pieces)[:5]]))
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        part = part_of(tmp_path)
        part.write([b"0123", b"4567", b"89"])
        assert part.hashed == 10
        part.close()
        assert part.path.read_bytes() == b"0123456789"

    def test_resumed(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([b"x" * CHUNK * 5])
        part.set_aside()
        part = part_of(tmp_path)
        assert (part.size, part.hashed) == (5 * CHUNK, 0)
        while part.hashed < part.size:
            part.hash_on(part.size)
        assert part.digest == hashlib.sha256(b"x" * CHUNK * 5).digest()
        part.write([b"end"])
        part.finish("x", time_ns=None, overwrite=False)
        assert (tmp_path / "x").read_bytes() == b"x" * CHUNK * 5 + b"end"

    def test_cleared(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([b"old"])
        part.clear()
        part.write([b"n"])
        assert part.digest == hashlib.sha256(b"n").digest()
        part.finish("x", time_ns=None, overwrite=False)
        assert (tmp_path / "x").read_bytes() == b"n"

    def test_nothing_is_left_of_a_part_with_nothing_in_it(self, tmp_path: Path) -> None:
        part_of(tmp_path).set_aside()
        assert parts(tmp_path) == []

    def test_discarded(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([b"x"])
        part.discard()
        part.set_aside()
        assert parts(tmp_path) == []

    @posix
    def test_belongs_to_one_program_at_a_time(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([b"x"])
        with pytest.raises(FileError, match="another program") as raised:
            part_of(tmp_path)
        assert raised.value.reason is Reason.BUSY
        part.set_aside()
        part_of(tmp_path).close()

    @posix
    @pytest.mark.parametrize("another", [False, True], ids=["gone", "begun anew"])
    def test_a_part_that_is_finished_at_the_moment_it_is_opened_is_not_taken_for_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: bool
    ) -> None:
        """Else the next transfer would write into the file that has its name already."""
        first = part_of(tmp_path)
        first.write([b"whole"])
        real = os.open

        def open_late(path: Any, *arguments: Any) -> int:
            opened = real(path, *arguments)
            monkeypatch.setattr(os, "open", real)
            first.finish("x", time_ns=None, overwrite=False)
            if another:
                first.path.touch()
            return opened

        monkeypatch.setattr(os, "open", open_late)
        part = part_of(tmp_path)
        assert part.size == 0
        part.write([b"other"])
        part.set_aside()
        assert (tmp_path / "x").read_bytes() == b"whole"

    @posix
    def test_a_crash_between_the_two_steps_of_finishing_harms_nothing(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.write([b"whole"])
        part.close()
        (tmp_path / "x").hardlink_to(part.path)
        part = part_of(tmp_path)
        assert part.size == 0
        part.write([b"other"])
        part.clear()
        part.close()
        assert (tmp_path / "x").read_bytes() == b"whole"

    @posix
    @pytest.mark.parametrize("trap", ["symlink", "symlink that is followed", "fifo", "folder"])
    def test_whatever_else_has_the_name_of_the_part_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
    ) -> None:
        (tmp_path / "victim").write_bytes(b"precious")
        path = tmp_path / part_name("x", SENDER, SOURCE)
        if trap == "symlink that is followed":
            monkeypatch.setattr(module, "_NOFOLLOW", 0)  # as on systems without that flag
        if trap.startswith("symlink"):
            path.symlink_to(tmp_path / "victim")
        elif trap == "fifo":
            os.mkfifo(path)
        else:
            path.mkdir()
        with pytest.raises(FileError) as raised:
            part_of(tmp_path)
        assert raised.value.reason is Reason.CANNOT_WRITE
        assert str(tmp_path) not in raised.value.words
        assert (tmp_path / "victim").read_bytes() == b"precious"

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="No such file") as raised:
            part_of(tmp_path / "gone")
        assert raised.value.reason is Reason.CANNOT_WRITE

    def test_no_room(self, tmp_path: Path) -> None:
        part = part_of(tmp_path)
        part.require_room(1)
        with pytest.raises(FileError, match=r"8\d\d\d\d\d\d\.\d TiB needed") as raised:
            part.require_room(2**63 - 1)
        assert raised.value.reason is Reason.NO_SPACE
        assert "TiB needed" in raised.value.words
        part.set_aside()

    @posix
    @pytest.mark.parametrize(
        ("number", "reason"),
        [
            (errno.ENOSPC, Reason.NO_SPACE),
            (errno.EDQUOT, Reason.NO_SPACE),
            (errno.EIO, Reason.CANNOT_WRITE),
            (errno.EFBIG, Reason.CANNOT_WRITE),
        ],
    )
    def test_a_write_that_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
    ) -> None:
        def fail(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        part = part_of(tmp_path)
        part.write([b"kept"])
        monkeypatch.setattr(os, "writev", fail)
        with pytest.raises(FileError, match=os.strerror(number)) as raised:
            part.write([b"lost"])
        assert raised.value.reason is reason
        assert os.strerror(number) in raised.value.words
        part.set_aside()
        assert part.path.read_bytes() == b"kept"

    @posix
    def test_a_file_that_cannot_be_made_safe_on_disk_gets_no_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        part = part_of(tmp_path)
        part.write([b"x"])
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(FileError, match="cannot finish"):
            part.finish("x", time_ns=None, overwrite=False)
        part.set_aside()
        assert parts(tmp_path) == [part.path.name]

    def test_a_time_that_no_file_system_holds_is_no_reason_to_fail(self, tmp_path: Path) -> None:
        for number, time_ns in enumerate((-(2**63), 2**63 - 1)):
            part = part_of(tmp_path)
            part.write([b"x"])
            part.finish(f"x{number}", time_ns=time_ns, overwrite=False)


class TestNamesThatAreTaken:
    def receive(self, folder: Path, name: str, *, overwrite: bool = False) -> str:
        part = part_of(folder, name)
        part.write([b"new"])
        return part.finish(name, time_ns=None, overwrite=overwrite).name

    @pytest.fixture(params=["hard links", "no hard links"])
    def folder(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        if request.param == "no hard links":  # as on FAT

            def fail(*_: object) -> None:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

            monkeypatch.setattr(module.Path, "hardlink_to", fail)
        return tmp_path

    def test_are_numbered(self, folder: Path) -> None:
        (folder / "a.txt").write_bytes(b"old")
        assert [self.receive(folder, "a.txt") for _ in range(3)] == ["a (1).txt", "a (2).txt", "a (3).txt"]
        assert (folder / "a.txt").read_bytes() == b"old"
        assert (folder / "a (1).txt").read_bytes() == b"new"

    @posix
    def test_also_by_another_program_at_the_last_moment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With hard links, nobody looks first: taking the name and seeing that it is free is one step."""
        (tmp_path / "a.txt").write_bytes(b"old")
        monkeypatch.setattr(os.path, "lexists", lambda _: False)
        assert self.receive(tmp_path, "a.txt") == "a (1).txt"
        assert (tmp_path / "a.txt").read_bytes() == b"old"

    @posix
    def test_also_by_what_is_no_file(self, folder: Path) -> None:
        (folder / "a").mkdir()
        (folder / "a (1)").symlink_to("nowhere")
        assert self.receive(folder, "a") == "a (2)"
        assert not (folder / "nowhere").exists()

    def test_are_replaced_when_told_to(self, folder: Path) -> None:
        (folder / "a.txt").write_bytes(b"old")
        assert self.receive(folder, "a.txt", overwrite=True) == "a.txt"
        assert (folder / "a.txt").read_bytes() == b"new"

    @posix
    def test_a_symbolic_link_is_replaced_and_not_followed(self, folder: Path) -> None:
        (folder / "victim").write_bytes(b"precious")
        (folder / "a").symlink_to("victim")
        self.receive(folder, "a", overwrite=True)
        assert (folder / "victim").read_bytes() == b"precious"
        assert not (folder / "a").is_symlink()

    def test_a_folder_is_never_replaced(self, folder: Path) -> None:
        (folder / "a").mkdir()
        with pytest.raises(FileError, match="cannot finish"):
            self.receive(folder, "a", overwrite=True)
        assert (folder / "a").is_dir()


class TestSource:
    def test_read_to_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"x" * (2 * CHUNK + 1))
        source = SourceFile.open(path)
        assert [len(source.read()) for _ in range(3)] == [CHUNK, CHUNK, 1]
        assert source.digest == hashlib.sha256(path.read_bytes()).digest()
        source.check_unchanged()
        source.close()
        source.close()

    def test_the_id_is_that_of_the_path(self, tmp_path: Path) -> None:
        paths = [tmp_path / "x", tmp_path / "folder" / "x"]
        paths[1].parent.mkdir()
        ids = set()
        for path in (*paths, tmp_path / "folder" / ".." / "x"):
            path.write_bytes(b"x")
            source = SourceFile.open(path)
            ids.add(source.id)
            source.close()
        assert len(ids) == 2

    @posix
    @pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "device", "forbidden"])
    def test_what_cannot_be_sent(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / "x"
        if kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "device":
            path = Path("/dev/zero")
        elif kind == "forbidden":
            if os.geteuid() == 0:
                pytest.skip("root may read everything")
            path.touch(0)
        words = {"missing": "No such file", "folder": "pack it", "forbidden": "Permission denied"}
        with pytest.raises(FileError, match=words.get(kind, "not a regular file")) as raised:
            SourceFile.open(path)
        assert str(path) in str(raised.value)
        assert raised.value.reason is Reason.CANNOT_READ

    @pytest.mark.parametrize("change", ["longer", "shorter", "touched"])
    def test_a_change_is_noticed(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "x"
        path.write_bytes(b"12345")
        source = SourceFile.open(path)
        if change == "longer":
            path.write_bytes(b"123456")
        elif change == "shorter":
            path.write_bytes(b"")
        else:
            os.utime(path, ns=(1, 1))

        def send() -> None:
            while source.hashed < source.size:
                source.read()
            source.check_unchanged()

        with pytest.raises(FileError, match="changed") as raised:
            send()
        assert raised.value.reason is Reason.CHANGED
        source.close()


def test_the_folder_is_checked(tmp_path: Path) -> None:
    check_folder(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(FileError, match="not a folder"):
            check_folder(path)


@posix
def test_a_folder_that_forbids_writing() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # others may look into this one
        folder = Path(name)
        if os.geteuid() == 0:  # root may write everywhere: be somebody else
            os.setresuid(65534, 0, 0)
        try:
            folder.chmod(0o555)
            with pytest.raises(FileError, match="permission denied"):
                check_folder(folder)
            folder.chmod(0o777)
            check_folder(folder)
        finally:
            os.setresuid(os.geteuid(), -1, -1)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (1536 * 1024, "1.5 MiB"),
        (2**30, "1.0 GiB"),
        (2**41, "2.0 TiB"),
    ],
)
def test_sizes_for_people(size: int, text: str) -> None:
    assert size_text(size) == text
