"""The documentation, held against the code: programs run, links lead somewhere, numbers and sections agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from mp2p.cli.commands import cli
from mp2p.cli.errors import ExitCode
from mp2p.transfer import Reason
from mp2p_core.classic import constants as classic_constants
from mp2p_core.plugins import load_plugins
from mp2p_core.proto import constants

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PROJECTS = sorted(EXAMPLES.glob("*/pyproject.toml"))
SOURCES = sorted(ROOT.glob("packages/*/src/**/*.py"))
DOCUMENTS = sorted(
    path
    for path in ROOT.glob("**/*.md")
    if not any(part.startswith(".") or part == "dist" for part in path.relative_to(ROOT).parts)
)
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
TIME_LIMIT = 60
"""Seconds for one program of the documentation; each takes about one."""


class Block(NamedTuple):
    """A fenced block, with the comment that stands directly above it."""

    document: Path
    line: int
    mark: str
    language: str
    text: str


def blocks(document: Path) -> Iterator[Block]:
    lines = document.read_text(encoding="utf-8").split("\n")
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        mark = re.fullmatch(r"<!-- (.*) -->", lines[start - 1].strip())
        text = "".join(f"{each}\n" for each in lines[start + 1 : number])
        yield Block(document, start + 1, mark[1] if mark else "", lines[start][3:].strip(), text)
        start = None
    assert start is None, f"{document}: a fenced block does not end"


def name_of(value: object) -> str | None:
    if isinstance(value, Block):
        return f"{value.document.relative_to(ROOT)}:{value.line}"
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else None


ALL_BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
PROGRAMS = [block for block in ALL_BLOCKS if block.mark == "run"]
EXCERPTS = [block for block in ALL_BLOCKS if block.mark.startswith("from ")]


def test_there_is_something_to_check() -> None:
    """A slip in a marker must not turn the tests below into none."""
    for name in ("README.md", "docs/protocol.md", "docs/architecture.md", "docs/writing-a-transport.md"):
        assert any(block.document == ROOT / name for block in PROGRAMS), f"{name} has no program that is run"
    assert EXCERPTS
    for block in ALL_BLOCKS:
        known = block.mark in ("", "run", "states") or block.mark.startswith("from ")
        assert known, f"{name_of(block)}: unknown mark {block.mark!r}"


@pytest.mark.parametrize("program", PROGRAMS, ids=name_of)
def test_the_programs_of_the_documentation_run(program: Block, tmp_path: Path) -> None:
    """As they stand, in a folder of their own, with the examples installed."""
    assert program.language == "python"
    if "open_node(" in program.text and "Memory" not in program.text:
        # What a test sends stays on the loopback interface.
        for call in re.findall(r"open_node\(.*", program.text):
            for needed in ('reach="host"', 'transports=["v4"]'):
                assert needed in call, f"sends beyond loopback: {call}"
    (tmp_path / "program.py").write_text(program.text, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env=os.environ
        | {
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "PYTHONPATH": os.pathsep.join(str(path) for path in EXAMPLES.glob("*/src")),
        },
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert found.returncode == 0, f"{name_of(program)}:\n{found.stdout}{found.stderr}"


@pytest.mark.parametrize(
    "block",
    [each for each in ALL_BLOCKS if each.language == "python" and each not in EXCERPTS],
    ids=name_of,
)
def test_python_in_the_documentation_is_python(block: Block) -> None:
    """Also where it cannot run, because it waits for a peer."""
    compile(block.text, str(block.document), "exec")


@pytest.mark.parametrize("excerpt", EXCERPTS, ids=name_of)
def test_excerpts_stand_in_their_files(excerpt: Block) -> None:
    file = excerpt.document.parent / excerpt.mark.removeprefix("from ")
    assert excerpt.text in file.read_text(encoding="utf-8"), f"not (or no more) in {file}"


# --- the protocol document -------------------------------------------------------------------------------


SECTIONS = frozenset(re.findall(r"^## (\d+)\. ", PROTOCOL, re.MULTILINE))
CITATION = re.compile(r"\bsections? (\d+(?:\.\d+)*)((?:, \d+)*)(?: (?:and|to) (\d+))?")
ELSEWHERE = re.compile(r"(?:RFC \d+|Noise|Noise specification)[^.;:()]*$")
"""What stands before the word `section` when another document is meant."""


def test_the_sections_of_the_protocol_keep_their_numbers() -> None:
    assert sorted(map(int, SECTIONS)) == list(range(1, 11))


@pytest.mark.parametrize("source", [*SOURCES, *EXAMPLES.glob("*/src/**/*.py")], ids=name_of)
def test_cited_sections_exist(source: Path) -> None:
    text = re.sub(r"\s+#?\s*", " ", source.read_text(encoding="utf-8"))
    for match in CITATION.finditer(text):
        if ELSEWHERE.search(text[: match.start()][-80:]):
            continue
        cited = {match[1], *re.findall(r"\d+", match[2]), *([match[3]] if match[3] else [])}
        assert cited <= SECTIONS, f"{source}: {match[0]!r} is not in docs/protocol.md"


def test_the_protocol_is_cited() -> None:
    """The check above would also pass if nothing were cited."""
    text = " ".join(source.read_text(encoding="utf-8") for source in SOURCES)
    cited = {match[1] for match in CITATION.finditer(text)}
    assert {"2", "3", "4", "5", "6", "9"} <= cited


def test_the_rules_of_section_5_are_numbered_as_cited() -> None:
    section = PROTOCOL.split("## 5. ")[1].split("### Groups")[0]
    rules = re.findall(r"^\| (\d+) \|", section, re.MULTILINE)
    assert rules == [str(number) for number in range(1, 8)]


LIMIT = re.compile(r"^\| `([A-Z0-9_]+)` \| ([\d.]+) \|", re.MULTILINE)
CLASSIC_SECTION = PROTOCOL[PROTOCOL.index("\n## 10. ") : PROTOCOL.index("\n## Limits")]
LIMITS = LIMIT.findall(PROTOCOL.replace(CLASSIC_SECTION, ""))


def test_the_tables_of_limits_are_those_of_the_code() -> None:
    assert len(LIMITS) > 30
    for name, value in LIMITS:
        assert getattr(constants, name) == float(value), f"docs/protocol.md says {name} = {value}"


def test_the_tables_of_limits_are_complete() -> None:
    """Every number of the implementation is in the document, under its name."""
    source = Path(constants.__file__).read_text(encoding="utf-8")
    block = source[source.index("# --- Implementation") :]
    defined = set(re.findall(r"^([A-Z0-9_]+): Final = [\d.]+$", block, re.MULTILINE))
    assert defined
    mentioned = {name for name, _ in LIMITS} | {"DEFAULT_PORT"}
    assert defined <= mentioned, defined - mentioned


def test_the_limits_of_the_classic_profile_are_those_of_the_code() -> None:
    written = {name: float(value) for name, value in LIMIT.findall(CLASSIC_SECTION)}
    source = Path(classic_constants.__file__).read_text(encoding="utf-8")
    own = re.findall(
        r"^([A-Z_]+): Final = [\d.*]+$", source[source.index("This side's own limits") :], re.MULTILINE
    )
    assert written == {name: getattr(classic_constants, name) for name in own}


@pytest.mark.parametrize(
    ("prefix", "column"), [("CLOSE_", "close code"), ("STATUS_", "status")], ids=["close codes", "status"]
)
def test_codes_are_those_of_the_code(prefix: str, column: str) -> None:
    table = PROTOCOL.split(f"| {column} | name |")[1].split("\n\n")[0]
    written = {
        name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", table, re.MULTILINE)
    }
    defined = {
        name.removeprefix(prefix): value
        for name, value in vars(constants).items()
        if name.startswith(prefix) and isinstance(value, int)
    }
    assert written == defined


def test_counters_in_the_document_are_counted_by_the_code() -> None:
    text = " ".join(source.read_text(encoding="utf-8") for source in SOURCES)
    names = set(re.findall(r"`((?:init|resp|cookie|data|answer|type)-[a-z-]+)`", PROTOCOL))
    assert len(names) > 15
    for name in names:
        built = re.fullmatch(r"(init|resp|cookie)-malformed", name)  # made of two parts in the code
        assert built or f'"{name}"' in text, name


# --- the other documents ---------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """Compute the names that headings get, as GitHub and most other renderers make them."""
    found: set[str] = set()
    fenced = False
    for line in document.read_text(encoding="utf-8").split("\n"):
        fenced ^= line.startswith("```")
        if not fenced and (heading := re.match(r"#+ (.*)", line)):
            words = re.sub(r"[^\w\- ]", "", heading[1].strip().lower())
            found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = document if not path else document.parent / path
        assert file.exists(), f"{document}: {target} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{document}: no heading for {target}"


SHOWN = re.findall(
    r"`(tests/network/\w+\.py)::(\w+)`", (ROOT / "docs" / "membership.md").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(("file", "name"), sorted(set(SHOWN)))
def test_the_tests_that_are_to_show_something_exist(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8")


def test_what_is_shown_about_membership_is_listed_with_its_test() -> None:
    """Each row of both tables has one, and no test of a fault or of an event is missing."""
    text = (ROOT / "docs" / "membership.md").read_text(encoding="utf-8")
    rows = [
        row
        for heading in ("| what | test |", "| fault | id | test |")
        for row in text.split(heading)[1].split("\n\n")[0].splitlines()[2:]
    ]
    assert len(rows) > 30
    assert len(SHOWN) >= len(rows)
    assert all(re.search(r"`tests/network/\w+\.py::\w+` \|$", row) for row in rows)
    listed = {name for _, name in SHOWN}
    for file in ("test_membership.py", "test_soak.py"):
        source = (ROOT / "tests" / "network" / file).read_text(encoding="utf-8")
        assert set(re.findall(r"^def (test_\w+)\(", source, re.MULTILINE)) <= listed
    doctor = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    for name in re.findall(r"\| `([A-D]\.[a-z-]+?)(?:-v[46])?`(?: \(\w+\))? \| `tests", text):
        assert f"`{name}`" in doctor, f"{name} is not in docs/doctor.md"


def test_exit_codes_in_the_readme_are_those_of_the_command() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.split("| exit code |")[1].split("\n\n")[0]
    assert sorted(map(int, re.findall(r"^\| (\d+) \|", table, re.MULTILINE))) == sorted(ExitCode)


def test_the_events_of_every_command_are_listed() -> None:
    sources = (ROOT / "packages" / "mp2p" / "src" / "mp2p" / "cli").glob("*.py")
    printed = {
        event
        for path in sources
        for event in re.findall(r'"event": "(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert len(printed) > 20
    readme = (ROOT / "packages" / "mp2p" / "README.md").read_text(encoding="utf-8")
    table = readme.split("| command | `event`")[1].split("\n\n")[0]
    assert printed - set(re.findall(r"`(\w+)`", table)) == set()


def test_codes_of_file_transfer_are_those_of_the_code() -> None:
    table = (ROOT / "docs" / "files.md").read_text(encoding="utf-8").split("| code |")[1]
    written = {
        name: int(code) for code, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", table, re.MULTILINE)
    }
    assert written == {reason.name: reason.value for reason in Reason}


def leaves(group: click.Group, path: str = "") -> Iterator[str]:
    """Name every command, with its groups before it."""
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


def test_both_readmes_have_the_same_table_of_all_commands() -> None:
    texts = [
        (folder / "README.md").read_text(encoding="utf-8") for folder in (ROOT, ROOT / "packages" / "mp2p")
    ]
    here, there = (text.split("| command | what it does |\n")[1].split("\n\n")[0] for text in texts)
    assert here == there
    first_cells = "\n".join(row.split(" | ")[0] for row in here.split("\n"))
    assert sorted(re.findall(r"`mp2p ([a-z-]+(?: [a-z]+)?)(?= [^a-z]|`)", first_cells)) == sorted(leaves(cli))


PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


@pytest.mark.parametrize("package", PACKAGES, ids=name_of)
def test_each_package_says_how_to_install_it_and_has_a_program_that_runs(package: Path) -> None:
    """By its own test, where that runs also without the rest of the repository, or by the one above."""
    readme = package / "README.md"
    assert re.search(rf"^pip install .*\b{package.name}\b", readme.read_text(encoding="utf-8"), re.MULTILINE)
    own = any((package / "tests").glob("test_readme*.py"))
    assert own or any(program.document == readme for program in PROGRAMS)


# --- the examples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("project", PROJECTS, ids=name_of)
def test_examples_load_as_plugins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the entry points in their metadata, which is how an installed one is found."""
    points = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"]["mp2p"]
    monkeypatch.syspath_prepend(str(project.parent / "src"))
    loaded = load_plugins(metadata.EntryPoint(name, value, "mp2p") for name, value in points.items())
    assert not loaded.failures
    assert loaded.transports.keys() == {"unix"}


@pytest.mark.parametrize("project", PROJECTS, ids=name_of)
def test_examples_pass_their_own_tests(project: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib",
         "--rootdir", str(project.parent), "-c", str(project), str(project.parent / "tests")],
        env=os.environ | {"PYTHONPATH": str(project.parent / "src")},
        capture_output=True, text=True, timeout=TIME_LIMIT * 3, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_example_stays_small() -> None:
    """The documents say how small."""
    (source,) = EXAMPLES.glob("mp2p-transport-unix/src/*/__init__.py")
    lines = len(source.read_text(encoding="utf-8").splitlines())
    assert lines < 150
    for document in (
        ROOT / "docs" / "writing-a-transport.md",
        EXAMPLES / "mp2p-transport-unix" / "README.md",
    ):
        assert f"{lines} lines" in document.read_text(encoding="utf-8"), document
