"""What every benchmark needs: clocks, medians, child processes, and tables."""

from __future__ import annotations

import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.network import End

__all__ = [
    "LOOPS",
    "Aim",
    "Child",
    "Speed",
    "Table",
    "children",
    "cpu_time",
    "median",
    "run_on",
    "say",
]

LOOPS: Final = ("asyncio", "uvloop", "trio")

_PATIENCE: Final = 60.0
_ITERATIONS: Final = 100_000


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def cpu_time(pid: int = 0) -> float:
    """Return the CPU seconds that a process, or this one, has used in all of its threads."""
    # The number that clock_getcpuclockid(3) makes of a process on Linux.
    return time.clock_gettime((~pid << 3) | 2) if pid else time.process_time()


class Speed:
    """The speed of a plain loop, looked at again and again: how much of the machine was ours."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def look(self) -> None:
        """Time the loop once, for some milliseconds."""
        began = time.perf_counter()
        for _ in range(_ITERATIONS):
            pass
        self.seen.append(_ITERATIONS / (time.perf_counter() - began) / 1e6)

    def look_everywhere(self) -> None:
        """Time the loop on each core that this thread may use."""
        cores = os.sched_getaffinity(0)
        for core in cores:
            os.sched_setaffinity(0, {core})
            self.look()
        os.sched_setaffinity(0, cores)

    def __str__(self) -> str:
        return f"{median(self.seen):.0f} (slowest {min(self.seen):.0f}) iterations/us"


@dataclass
class Aim:
    """A figure that was set as a target beforehand."""

    what: str
    figure: float
    at_most: float
    unit: str

    @property
    def met(self) -> bool:
        return self.figure <= self.at_most

    def __str__(self) -> str:
        word = "met" if self.met else "NOT met"
        return f"{self.what}: {self.figure:.3g} {self.unit}, aim at most {self.at_most:g}: {word}"


@dataclass
class Table:
    """What one benchmark found."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    speed: Speed
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Write it so that it reads well in a terminal and in a document."""
        cells = [list(self.columns), *([_cell(value) for value in row] for row in self.rows)]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.columns))]

        def line(row: Sequence[str]) -> str:
            padded = (
                text.ljust(width) if i == 0 else text.rjust(width)
                for i, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            return f"| {' | '.join(padded)} |"

        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        table = "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])
        told = [*(f"- {aim}" for aim in self.aims), *(f"- {note}" for note in self.notes)]
        told.append(f"- plain loop beside it: {self.speed}")
        return f"## {self.title}\n\n{table}\n\n" + "\n".join(told) + "\n"

    def plain(self) -> dict[str, Any]:
        """Return it as what JSON holds."""
        return {
            "title": self.title,
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "aims": [{**vars(aim), "met": aim.met} for aim in self.aims],
            "loop_speed": {"median": median(self.speed.seen), "slowest": min(self.speed.seen)},
            "notes": self.notes,
        }


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Child:
    """Another process that runs one function of this package; it answers in lines of JSON.

    `function` is named as "module:function" and called with the keyword arguments, at an end of a
    place when one is given.
    """

    def __init__(self, function: str, end: End | None = None, **arguments: Any) -> None:
        enter = ["ip", "netns", "exec", end.namespace] if end and end.namespace else []
        core = [str(end.core)] if end and end.core is not None else []
        self._process = subprocess.Popen(
            [*enter, sys.executable, "-m", "benchmarks.child", function, json.dumps(arguments), *core],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._pending = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self, patience: float = _PATIENCE) -> Any:
        """Wait for its next line. Raises `EOFError` when it has ended, `TimeoutError` when it hangs."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + patience
        while b"\n" not in self._pending:
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{self._process.args!r} said nothing for {patience:g} s")
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise EOFError(f"{self._process.args!r} ended with exit code {self._process.wait()}")
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def ask(self, word: str = "") -> Any:
        """Send it a line and wait for the next one of its own."""
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextmanager
def children() -> Iterator[Callable[..., Child]]:
    """Give a function that starts `Child` processes, and end all of them at the end of the block."""
    started: list[Child] = []

    def start(function: str, end: End | None = None, **arguments: Any) -> Child:
        started.append(Child(function, end, **arguments))
        return started[-1]

    try:
        yield start
    finally:
        for child in started:
            child.end()


def say(value: Any) -> None:
    """Tell the parent process."""
    print(json.dumps(value), flush=True)


def run_on(loop: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run an async function on one of LOOPS."""
    import anyio

    if loop == "trio":
        return anyio.run(function, *arguments, backend="trio")
    return anyio.run(
        function, *arguments, backend="asyncio", backend_options={"use_uvloop": loop == "uvloop"}
    )
