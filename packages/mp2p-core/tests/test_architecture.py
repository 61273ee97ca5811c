"""The layer maps, the public names, the error tree and the transition table, held against the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import mp2p_core
from mp2p_core import classic, errors, proto
from mp2p_core.proto import group
from mp2p_core.proto.states import TRANSITIONS, SessionState, diagram

ROOT = Path(mp2p_core.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))

# What the protocol core may not know: sockets, clocks, event loops, files, logs, other people's processes.
BANNED_IN_PROTO = {
    "anyio", "asyncio", "logging", "pathlib", "random", "secrets", "select", "selectors", "socket", "subprocess",
    "threading", "time", "trio",
}  # fmt: skip


def _name(path: Path) -> str:
    parts = list(path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> dict[str, bool]:
    """Module names imported, absolute; True where the import happens at run time."""
    found: dict[str, bool] = {}
    tree = ast.parse((ROOT / path).read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its layer"
            assert node.module is not None
            base = node.module
            names = [base]
            for alias in node.names:  # `from package import module` imports the module
                parts = [*base.split(".")[1:], alias.name]
                if base.split(".")[0] == "mp2p_core" and (ROOT.joinpath(*parts).with_suffix(".py")).exists():
                    names.append(f"{base}.{alias.name}")
        for name in names:
            found[name] = found.get(name, False) or id(node) not in typing_only
    return found


def _layers(docstring: str) -> dict[str, int]:
    """Read a layer map: indented lines of module names, lowest first; two spaces end the names of a line."""
    found: dict[str, int] = {}
    block = docstring[docstring.index("lowest first") :]
    rows = [line.strip() for line in block.splitlines() if line.startswith("    ")]
    for level, row in enumerate(rows):
        for name in re.split(r"\s{2,}", row)[0].split(", "):
            found[name] = level
    return found


def _check_direction(prefix: str, layers: dict[str, int], modules: list[Path]) -> None:
    for path in modules:
        own = _name(path).removeprefix(prefix).split(".")[0]
        if not own:
            continue
        for imported, at_run_time in _imports(path).items():
            full = f"mp2p_core.{prefix}"
            if not at_run_time or not imported.startswith(full):
                continue
            other = imported.removeprefix(full).split(".")[0]
            if other in layers and other != own:
                assert layers[other] < layers[own], (
                    f"{path} (layer {own}) imports {imported}, which is not below it"
                )


def test_the_layer_map_of_the_package_names_every_module_and_its_imports_go_down() -> None:
    layers = _layers(mp2p_core.__doc__ or "")
    top = {path.parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert top == layers.keys()
    _check_direction("", layers, MODULES)


def test_the_layer_map_of_the_protocol_names_every_module_and_its_imports_go_down() -> None:
    layers = _layers(proto.__doc__ or "")
    modules = [path for path in MODULES if path.parts[0] == "proto" and path != Path("proto/__init__.py")]
    assert {path.parts[1].removesuffix(".py") for path in modules} == layers.keys()
    _check_direction("proto.", layers, modules)


def test_the_layer_map_of_channels_names_every_module_and_its_imports_go_down() -> None:
    layers = _layers(group.__doc__ or "")
    modules = [
        path for path in MODULES if path.parts[:2] == ("proto", "group") and path.name != "__init__.py"
    ]
    assert {path.stem for path in modules} == layers.keys()
    _check_direction("proto.group.", layers, modules)


def test_the_layer_map_of_the_classic_profile_names_every_module_and_its_imports_go_down() -> None:
    layers = _layers(classic.__doc__ or "")
    modules = [path for path in MODULES if path.parts[0] == "classic" and path.name != "__init__.py"]
    assert {path.stem for path in modules} == layers.keys()
    _check_direction("classic.", layers, modules)


def test_D1_nothing_outside_of_the_classic_profile_leads_into_it() -> None:
    """So that no program that asked for a session of version 1 can end up with one of the other kind."""
    for path in MODULES:
        if path.parts[0] != "classic":
            assert not [name for name in _imports(path) if name.startswith("mp2p_core.classic")], path
    assert not [name for name in mp2p_core.__all__ if "classic" in name.lower()]


SANS_IO = [
    path
    for path in MODULES
    if path.parts[0] == "proto"
    or (path.parts[0] == "classic" and path.stem not in ("__init__", "driver", "keys", "place"))
]


@pytest.mark.parametrize("path", SANS_IO, ids=str)
def test_the_protocol_knows_no_socket_clock_or_loop(path: Path) -> None:
    roots = {name.split(".")[0] for name in _imports(path)}
    assert not roots & BANNED_IN_PROTO
    # os is there for `os.urandom` as a default argument, and for nothing else.
    source = (ROOT / path).read_text()
    assert set(re.findall(r"\bos\.(\w+)", source)) <= {"urandom"}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_public_names_are_listed_sorted_and_there(path: Path) -> None:
    module = importlib.import_module("mp2p_core" if _name(path) == "" else f"mp2p_core.{_name(path)}")
    public = getattr(module, "__all__", None)
    if public is None:
        assert path.name in ("__init__.py", "constants.py"), f"{path} has no __all__"
        return
    assert list(public) == sorted(public, key=_isort_key)
    for name in public:
        assert getattr(module, name, None) is not None, name
    defined = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isfunction(value))
    }
    assert defined <= set(public), f"{path}: public by name and not in __all__: {defined - set(public)}"


def _isort_key(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order that ruff keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_public_function_and_class_says_what_it_does(path: Path) -> None:
    module = importlib.import_module("mp2p_core" if _name(path) == "" else f"mp2p_core.{_name(path)}")
    assert module.__doc__
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module.__name__}.{name}"


def _drawn_tree() -> dict[str, str]:
    """Read the tree at the top of errors.py as child -> parent."""
    parents: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^(?P<lead>[\s│├└─]*)(?P<name>[A-Z]\w+)(?:\s{2,}|$)", line)
        if not match or not line.startswith("    "):
            continue
        depth = len(match["lead"])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            parents[match["name"]] = stack[-1][1]
        stack.append((depth, match["name"]))
    return parents


def test_the_error_tree_is_as_drawn() -> None:
    real = {
        name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__ if name != "Mp2pError"
    }
    assert _drawn_tree() == real


def test_every_state_can_be_reached_and_left() -> None:
    entered = {SessionState.HALF_OPEN, SessionState.CONFIRMING} | set(TRANSITIONS.values())
    left = {state for state, _ in TRANSITIONS}
    assert entered == set(SessionState)
    assert left == set(SessionState) - {SessionState.CLOSED}
    assert all(line in diagram() for line in ("HalfOpen --> Open", "Open --> Draining", "Closed --> [*]"))
