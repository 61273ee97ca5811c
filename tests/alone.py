"""Build every package, install each with only its own dependencies, and run its tests there.

    python tests/alone.py [PACKAGE...]

Then installs core and one transport alone and runs the README's program on them. The simulations are read, and
not run: the whole suite does that. Needs uv and a package index; takes a few minutes. Not a pytest module,
because it makes environments of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ["pytest", "pytest-xdist", "anyio[trio]", "trio", "hypothesis"]
FOREIGN_TO_CORE = ("msgspec", "click", "rich", "mp2p_transport_v6", "mp2p_rpc", "mp2p")


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command, loudly only when it fails."""
    # Without the workspace's own environment: what is tested is what was installed. And programs that tests
    # start need not compile every module again.
    foreign = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    env = {k: v for k, v in os.environ.items() if k not in foreign}
    words = [str(each) for each in command]
    result = subprocess.run(words, check=False, env=env, capture_output=True, text=True, cwd=cwd)
    if result.returncode:
        print(result.stdout, result.stderr, sep="\n")
        raise SystemExit(f"failed: {' '.join(words)}")


def name_of(requirement: str) -> str:
    return re.split(r"[ >=<\[;~!]", requirement)[0]


def closure(package: str, own: dict[str, list[str]]) -> list[str]:
    """A package and those of ours that it depends on."""
    found = [package]
    for name in found:
        found += [each for each in own[name] if each in own and each not in found]
    return found


def environment(folder: Path, wheels: dict[str, Path], packages: list[str], extra: list[str]) -> Path:
    run("uv", "venv", "-q", "--python", sys.executable, folder)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run("uv", "pip", "install", "-q", "--python", python, *[wheels[each] for each in packages], *extra)
    return python


def main(wanted: list[str]) -> None:
    own: dict[str, list[str]] = {}
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text())["project"]
        own[project["name"]] = [name_of(each) for each in project["dependencies"]]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        run("uv", "build", "-q", "--all-packages", "--out-dir", work / "dist", cwd=ROOT)
        wheels = {name: next((work / "dist").glob(f"{name.replace('-', '_')}-[0-9]*.whl")) for name in own}
        for name in wanted or own:
            python = environment(work / f"env-{name}", wheels, closure(name, own), TOOLS)
            tests = work / f"tests-{name}"
            shutil.copytree(ROOT / "packages" / name / "tests", tests)
            options = [
                "-q",
                "--import-mode=importlib",
                "-W",
                "error",
                "-o",
                "markers=network: root\nsoak: long",
                "-n",
                str(2 * (os.cpu_count() or 1)),
                "--dist=worksteal",
                "-k",
                "not test_sim_",
                "--hypothesis-profile=ci",
            ]
            run(
                python, "-m", "pytest", *options, "-m", "not soak", "-p", "no:cacheprovider", tests, cwd=tests
            )
            print(f"{name}: built, installed with only its own dependencies, tested")
        python = environment(work / "env-program", wheels, ["mp2p-core", "mp2p-udp", "mp2p-transport-v4"], [])
        programs = re.findall(r"<!-- run -->\s*```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
        program = next(each for each in programs if "mp2p_rpc" not in each)
        (work / "program.py").write_text(program)
        run(python, work / "program.py", cwd=work)
        for module in FOREIGN_TO_CORE:
            run(
                python,
                "-c",
                f"import importlib.util as u; assert u.find_spec({module!r}) is None, {module!r}",
            )
        print("the README's program: runs on core and one transport alone")


if __name__ == "__main__":
    main(sys.argv[1:])
