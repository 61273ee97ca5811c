"""Finding what distributions register: as importlib.metadata finds it."""

from __future__ import annotations

import json.decoder
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from mp2p_core.entry_points import EntryPoint, find_entry_points


def told(points: list[EntryPoint]) -> set[tuple[str, object]]:
    return {(point.name, point.load()) for point in points}


def install(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "METADATA").write_text("")
    (folder / name / "entry_points.txt").write_text(text)


@pytest.mark.parametrize("group", ["mp2p", "console_scripts", "pytest11", "none of this name"])
def test_what_is_installed_here(group: str) -> None:
    assert {each.name for each in find_entry_points(group)} == {
        each.name for each in metadata.entry_points(group=group)
    }


def test_sections_comments_attributes_and_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
        # [mine]
        [others]
        no = json
        [mine]
        whole = json
        # later = json
        inner = json.decoder : JSONDecoder.decode [fast, faster]

        [more]
        no = json
    """
    install(tmp_path, "some_name-1.0.dist-info", text)
    monkeypatch.syspath_prepend(tmp_path)
    assert told(find_entry_points("mine")) == {("whole", json), ("inner", json.decoder.JSONDecoder.decode)}
    assert told(find_entry_points("mine")) == told(list(metadata.entry_points(group="mine")))


def test_the_first_of_two_versions_counts_however_its_name_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "second", "Some.Name-1.0.dist-info", "[mine]\nold = json\n")
    install(tmp_path / "first", "some_name-2.0.egg-info", "[mine]\nnew = json\n")
    (tmp_path / "first" / "bare-1.egg-info").write_text("a file, as distutils wrote it")
    monkeypatch.syspath_prepend(tmp_path / "second")
    monkeypatch.syspath_prepend(tmp_path / "first")
    monkeypatch.syspath_prepend(tmp_path / "nowhere")
    assert told(find_entry_points("mine")) == {("new", json)}
    assert told(list(metadata.entry_points(group="mine"))) == {("new", json)}


def test_a_distribution_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "program.zip", "w") as archive:
        archive.writestr("packed-1.0.dist-info/METADATA", "Name: packed\n")
        archive.writestr("packed-1.0.dist-info/entry_points.txt", "[mine]\npacked = json\n")
    monkeypatch.syspath_prepend(tmp_path / "program.zip")
    assert told(find_entry_points("mine")) == {("packed", json)}


def test_a_finder_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        @staticmethod
        def find_spec(*_: object) -> None:
            return None

        @staticmethod
        def find_distributions(*_: object) -> list[metadata.Distribution]:
            return [Frozen()]

    class Frozen(metadata.Distribution):
        def read_text(self, filename: str) -> str | None:
            return {"entry_points.txt": "[mine]\nfrozen = json\n", "METADATA": "Name: frozen\n"}.get(filename)

        def locate_file(self, path: object) -> Path:  # type: ignore[override] # no file of it is asked for
            raise AssertionError(path)

    monkeypatch.setattr("sys.meta_path", [*sys.meta_path, Finder])
    assert told(find_entry_points("mine")) == {("frozen", json)}
