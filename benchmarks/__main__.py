"""Run the benchmarks: `python -m benchmarks [--only NAME]... [--at PLACE] [--json]`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata

from benchmarks.measure import Table
from benchmarks.network import LOOPBACK, ONE_CORE, namespaces, namespaces_work

_NAMES = ("set_up", "dropping", "ping_pong", "bulk", "loss", "rpc", "footprint", "memory", "rate", "pubsub")
_TALKING = ("set_up", "ping_pong", "bulk", "rpc", "memory", "rate", "pubsub")
_PACKAGES = (
    "mp2p-core",
    "mp2p-rpc",
    "mp2p-udp",
    "cryptography",
    "anyio",
    "trio",
    "uvloop",
    "psutil",
    "pyzmq",
)


def main() -> None:
    """Run all of them, or those asked for, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=_NAMES, help="run this one; may be repeated")
    parser.add_argument(
        "--at", choices=("loopback", "namespaces", "both"),
        help="where processes talk; both, or on loopback alone when not run as root",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    arguments = parser.parse_args()
    if sys.platform != "linux":
        parser.error("these measurements read the clocks of other processes the way Linux has them")
    with tempfile.TemporaryDirectory() as cache:
        # Whatever this user's settings are, no child compiles more than once: imports are measured.
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    about = _about()
    if not arguments.json:
        print("# Benchmarks\n")
        print("\n".join(f"{key}: {value}  " for key, value in about.items()), flush=True)
    began = time.monotonic()
    tables = []
    for table in _tables(
        arguments.only or _NAMES, arguments.at or ("both" if namespaces_work() else "loopback")
    ):
        tables.append(table)
        if not arguments.json:
            print(f"\n{table.markdown()}", flush=True)
    if arguments.json:
        print(json.dumps({"about": about, "benchmarks": [table.plain() for table in tables]}))
    else:
        print(f"Took {time.monotonic() - began:.0f} s.")


def _tables(names: Sequence[str], at: str) -> Iterator[Table]:
    for name in names:
        run = importlib.import_module(f"benchmarks.{name}").run
        if name not in _TALKING:
            if name != "loss" or at != "loopback":  # it needs a bridge between namespaces
                yield run()
            continue
        if at != "namespaces":
            yield run(LOOPBACK)
            if name == "ping_pong":
                yield run(ONE_CORE)
        if at != "loopback":
            with namespaces() as place:
                yield run(place)


def _about() -> dict[str, str]:
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in _PACKAGES)
    return {
        "Measured": time.strftime("%Y-%m-%d"),
        "Machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start",
        "System": f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        "Versions": versions,
    }


if __name__ == "__main__":
    main()
