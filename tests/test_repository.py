"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from mp2p_core.proto.states import diagram

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
EXITS = ("__exit__", "__aexit__")
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


def test_one_place_takes_any_exception() -> None:
    """There is no broad `except`; and one block that swallows what leaves it, which its annotation has to say."""
    swallowing = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            caught: list[ast.expr] = []
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno}: bare except"
                caught = [node.type]
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
                caught = node.args
            elif (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and node.name in EXITS
                and (node.returns is None or ast.unparse(node.returns) != "None")
            ):
                swallowing.append(path.relative_to(ROOT / "packages").as_posix())
            for name in (name for each in caught for name in ast.walk(each)):
                assert not (isinstance(name, ast.Name) and name.id in ("Exception", "BaseException")), (
                    f"{path}:{node.lineno}: broad except"
                )
    assert swallowing == ["mp2p-core/src/mp2p_core/boundary.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "packages")))
def test_modules_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_each_package_stands_alone(package: Path) -> None:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    module = package / "src" / project["name"].replace("-", "_")
    for path in ("README.md", "LICENSE", "tests"):
        assert (package / path).exists(), path
    assert (module / "py.typed").exists()
    assert project["license"] == "MIT"
    assert project["requires-python"] == ">=3.11"
    own = module.name
    declared = {name.split(">")[0].split("[")[0].replace("-", "_") for name in project["dependencies"]}
    for source in module.rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for root in {name.split(".")[0] for name in names if name}:
                if root.startswith("mp2p") and root != own:
                    assert root in declared, (
                        f"{source.name} imports {root}, which {project['name']} does not need"
                    )


def test_core_never_imports_a_transport_and_transports_never_each_other() -> None:
    for package in PACKAGES:
        if package.name in ("mp2p-core", "mp2p-udp", "mp2p-transport-v4", "mp2p-transport-v6"):
            dependencies = tomllib.loads((package / "pyproject.toml").read_text())["project"]["dependencies"]
            assert not any("mp2p-transport" in each for each in dependencies), package.name


def test_the_state_diagram_in_the_documentation_is_the_one_in_the_code() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    drawn = text.split("<!-- states -->")[1].split("<!-- /states -->")[0]
    assert diagram() in drawn, "run mp2p_core.proto.states.diagram() and paste it"


CONFORMANCE = {"P": 11, "H": 19, "Y": 9, "D": 5, "R": 10, "F": 10, "G": 17, "C": 8, "K": 7, "L": 6}
"""Attacks and bad input by area, each with an id: parsing, handshake, replay, downgrade, reflection, flooding, groups,
calls, key files, commands."""


@pytest.mark.parametrize("area", CONFORMANCE)
def test_every_attack_has_a_test_that_names_it(area: str) -> None:
    named = {
        word
        for path in [*ROOT.glob("tests/**/test_*.py"), *ROOT.glob("packages/*/tests/**/test_*.py")]
        for name in re.findall(r"def test_(\w+)", path.read_text(encoding="utf-8"))
        for word in name.split("_")
    }
    missing = [
        f"{area}{number}" for number in range(1, CONFORMANCE[area] + 1) if f"{area}{number}" not in named
    ]
    assert not missing
