"""The layer map, the public names and the error tree, held against the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import mp2p_rpc
from mp2p_rpc import errors

ROOT = Path(mp2p_rpc.__file__).parent
MODULES = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "__init__")
SANS_IO = ("errors", "frames", "interface", "limits", "method", "scan", "schema")


def _imported(module: str) -> set[str]:
    """Return what a module imports at run time."""
    tree = ast.parse((ROOT / f"{module}.py").read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    return {
        name
        for node in ast.walk(tree)
        if id(node) not in typing_only
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }


def test_the_layer_map_names_every_module_and_imports_go_down() -> None:
    text = mp2p_rpc.__doc__ or ""
    rows = [
        line.strip() for line in text[text.index("lowest first") :].splitlines() if line.startswith("    ")
    ]
    layers = {
        name: level for level, row in enumerate(rows) for name in re.split(r"\s{2,}", row)[0].split(", ")
    }
    assert sorted(layers) == MODULES
    for module in MODULES:
        for name in _imported(module):
            other = name.removeprefix("mp2p_rpc.")
            if other in layers:
                assert layers[other] < layers[module], f"{module} imports {other}, which is not below it"


@pytest.mark.parametrize("module", SANS_IO)
def test_the_codec_knows_no_loop_clock_or_log(module: str) -> None:
    assert not _imported(module) & {"anyio", "asyncio", "logging", "random", "socket", "time", "trio"}


def test_C8_nothing_that_builds_objects_by_name_is_imported() -> None:
    for module in MODULES:
        assert not _imported(module) & {"marshal", "pickle", "shelve", "yaml", "copyreg"}, module


@pytest.mark.parametrize("module", ["", *MODULES])
def test_public_names_are_there_and_say_what_they_do(module: str) -> None:
    if module == "telemetry":
        pytest.importorskip("opentelemetry")
    loaded = importlib.import_module(f"mp2p_rpc.{module}".rstrip("."))
    assert loaded.__doc__
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    defined = {
        name
        for name, value in vars(loaded).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == loaded.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert defined <= set(loaded.__all__)


def test_the_error_tree_is_as_drawn() -> None:
    parents: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(?P<lead>[\s│├└─]*)(?P<name>[A-Z]\w+)(?:\s{2,}|$)", line)
        if not match or not line.startswith("    "):
            continue
        while stack and stack[-1][0] >= len(match["lead"]):
            stack.pop()
        if stack:
            parents[match["name"]] = stack[-1][1]
        stack.append((len(match["lead"]), match["name"]))
    for name in errors.__all__:
        assert parents[name] == getattr(errors, name).__bases__[0].__name__
