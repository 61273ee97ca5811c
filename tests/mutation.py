"""Break each check of the protocol, one at a time, and see that some test notices.

    python tests/mutation.py              all of them, about fifteen minutes; exits with 1 when one survives
    python tests/mutation.py cookie       those whose name contains the word
    python tests/mutation.py --part 3/20  the third of twenty parts

A mutation replaces one piece of text in a copy of mp2p_core or mp2p_rpc; the tests named beside it run against it.
They stand in tests/mutations.txt. Not part of the suite, but tests/test_mutations.py sees to it that every
text to replace is still there exactly once.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TOP_TESTS = ROOT / "tests"
PACKAGES = {"mp2p_core": ROOT / "packages/mp2p-core", "mp2p_rpc": ROOT / "packages/mp2p-rpc"}
TIMEOUT = 600  # for a mutation that makes the code run for ever; seconds


class Mutation(NamedTuple):
    """One check, broken."""

    name: str
    package: str
    file: str
    tests: str
    """Names of test files without `test_` and `.py`, then optionally `:` and an expression for pytest's -k."""
    old: str
    new: str

    @property
    def source(self) -> Path:
        """The file to be broken."""
        return PACKAGES[self.package] / "src" / self.package / self.file

    @property
    def expression(self) -> str:
        """For pytest's -k; empty for all tests of the files."""
        return self.tests.partition(":")[2]

    @property
    def paths(self) -> list[Path]:
        """The files of tests that should notice."""
        return _test_files(self.package, self.tests)


def _parse(text: str) -> list[Mutation]:
    mutations = []
    for block in text.strip().split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if not lines:
            continue
        head, *changes = lines
        name, module, tests = (part.strip() for part in head.split("|"))
        old, new = ("\n".join(line[2:] for line in changes if line[0] == sign) for sign in "-+")
        if module.startswith("rpc/"):
            package, file = "mp2p_rpc", f"{module.removeprefix('rpc/')}.py"
        else:
            package, file = "mp2p_core", f"proto/{module}.py"
        mutations.append(Mutation(name, package, file, tests, old, new))
    return mutations


def _test_files(package: str, tests: str) -> list[Path]:
    folders = (PACKAGES[package] / "tests", TOP_TESTS)
    names = tests.partition(":")[0].split()
    paths = [folder / f"test_{name}.py" for name in names for folder in folders]
    return [path for path in paths if path.exists()]


MUTATIONS = _parse((TOP_TESTS / "mutations.txt").read_text())


class Result(NamedTuple):
    """What became of one mutation."""

    mutation: Mutation
    killed: bool
    note: str
    seconds: float


def _pytest(paths: list[Path], expression: str, copy: Path) -> tuple[int, str]:
    """Run tests against the copy; returns pytest's exit code and output."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "--tb=line",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-k", expression] if expression else []
    command += [str(path) for path in paths]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "250"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "FAILED ::does not end"
    return done.returncode, done.stdout + done.stderr


def _copy(folder: Path) -> None:
    for name, package in PACKAGES.items():
        shutil.copytree(package / "src" / name, folder / name)


def _try(mutation: Mutation) -> Result:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mp2p-mutation-") as folder:
        copy = Path(folder)
        _copy(copy)
        file = copy / mutation.package / mutation.file
        text = file.read_text()
        assert text.count(mutation.old) == 1, (
            f"{mutation.name}: the text to replace is not there exactly once"
        )
        file.write_text(text.replace(mutation.old, mutation.new))
        code, output = _pytest(mutation.paths, mutation.expression, copy)
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    # 1 means that tests ran and failed. Anything else, such as no test collected, proves nothing.
    note = failed[0].partition("::")[2][:150] if code == 1 and failed else f"pytest ended with {code}"
    return Result(mutation, code == 1 and bool(failed), note, time.perf_counter() - began)


def _baseline(chosen: list[Mutation]) -> bool:
    """See that the same tests pass against an unchanged copy, and that the copy is what they import."""
    with tempfile.TemporaryDirectory(prefix="mp2p-mutation-") as folder:
        copy = Path(folder)
        _copy(copy)
        found = subprocess.run(
            [sys.executable, "-c", "import mp2p_core, mp2p_rpc; print(mp2p_core.__file__, mp2p_rpc.__file__)"],
            env={**os.environ, "PYTHONPATH": folder}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        if not all(each.startswith(folder) for each in found.split()):
            print(f"tests would import {found.strip()}, not the copy")
            return False
        whole = {path for mutation in chosen if not mutation.expression for path in mutation.paths}
        some = {path for mutation in chosen for path in mutation.paths} - whole
        expressions = {mutation.expression for mutation in chosen} - {""}
        for paths, expression in (
            (whole, ""),
            (some, " or ".join(f"({each})" for each in sorted(expressions))),
        ):
            code, output = _pytest(sorted(paths), expression, copy) if paths else (0, "")
            if code:
                print(output[-3000:])
                return False
        return True


def main(arguments: list[str]) -> int:
    """Run the mutations whose name contains one of the words, or all; print a table."""
    parser = argparse.ArgumentParser(description="Break each check, and see that a test notices.")
    parser.add_argument("word", nargs="*", help="only those whose name contains one of the words")
    parser.add_argument("--part", default="1/1", metavar="N/ALL", help="only the Nth of so many parts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time (one for each core)")
    options = parser.parse_args(arguments)
    part, parts = map(int, options.part.split("/"))
    chosen = [m for m in MUTATIONS if not options.word or any(word in m.name for word in options.word)]
    chosen = chosen[len(chosen) * (part - 1) // parts : len(chosen) * part // parts]
    survived = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        sound = pool.submit(_baseline, chosen)
        for result in pool.map(_try, chosen):
            survived += not result.killed
            verdict = "caught  " if result.killed else "SURVIVED"
            print(f"{verdict} {result.seconds:5.1f} s  {result.mutation.name:34} {result.note}", flush=True)
    if not sound.result():
        print("the tests fail without any mutation: nothing is proved")
        return 2
    print(f"{len(chosen) - survived} of {len(chosen)} mutations caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
