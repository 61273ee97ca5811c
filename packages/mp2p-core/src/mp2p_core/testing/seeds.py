"""Run many seeds of `scenario`, and say which one fails first.

    python -m mp2p_core.testing.seeds --count 10000 --jobs 2
    python -m mp2p_core.testing.seeds --first 5000 --count 500   # a part of them
    python -m mp2p_core.testing.seeds --first 4711 --count 1     # that one again

Exit status 1 when a seed failed, 0 otherwise. The summary says how often what is hard to get right came about.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mp2p_core.testing.scenario import Result, run_seed

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["COVERAGE", "main", "run_limited", "run_many"]

_LONGEST = 20.0
"""Seconds of the processor that a seed may take: a hundred times the usual. Something loops, then."""


COVERAGE = (
    "datagrams", "parts", "streams", "streams read to the end", "messages seen", "attacks", "partitions",
    "ways that died", "sleeps", "clocks back", "restarts", "restarts in a transfer",
    "restarts in a transfer over two ways", "sessions-replaced", "rekeys begun", "rekeys begun under load",
    "rekeys-done", "ends of crossed calls", "ends of crossed calls, streams on both sessions",
)  # fmt: skip
"""What the summary counts, and what no large number of seeds may do without."""


class _Endless(RuntimeError):
    pass


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise _Endless(f"still running after {_LONGEST:g} s of processor time")


def run_limited(seed: int) -> Result:
    """Run a seed, and stop it where the code under test loops for ever (where the system has interval timers)."""
    if not hasattr(signal, "setitimer"):
        return run_seed(seed)
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LONGEST)
    try:
        return run_seed(seed)
    except _Endless:
        return Result(seed, traceback.format_exc(), "")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def run_many(first: int, count: int, jobs: int = 1) -> Iterator[Result]:
    """Run seeds from `first` on and yield what became of them, in their order."""
    seeds = range(first, first + count)
    if jobs <= 1:
        yield from map(run_limited, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_limited, seeds, chunksize=8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m mp2p_core.testing.seeds", description="Run many simulations."
    )
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="how many seeds (1000)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="where to begin (0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (1)")
    parser.add_argument("--keep-going", action="store_true", help="run all seeds, and count those that fail")
    parser.add_argument("--json", action="store_true", help="print a JSON object, and no progress")
    chosen = parser.parse_args(arguments)
    began = time.monotonic()
    done = 0
    failed: list[Result] = []
    stats: Counter[str] = Counter()
    for result in run_many(chosen.first, chosen.count, chosen.jobs):
        done += 1
        stats.update(result.stats)
        if not chosen.json and done % 100 == 0:
            rate = done / (time.monotonic() - began)
            before, after = ("\r", "") if sys.stderr.isatty() else ("", "\n")
            sys.stderr.write(
                f"{before}{done} of {chosen.count}, {rate:.0f} a second, {len(failed)} failed{after}"
            )
        if result.failure is not None:
            failed.append(result)
            if not chosen.keep_going:
                break
    seconds = time.monotonic() - began
    if chosen.json:
        found = [{"seed": each.seed, "failure": each.failure} for each in failed]
        report = {"seeds": done, "seconds": round(seconds, 3), "failed": found, "stats": stats}
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        for each in failed:
            sys.stdout.write(f"\nseed {each.seed} failed: {each.failure}\n")
            sys.stdout.write(f"again: python -m mp2p_core.testing.seeds --first {each.seed} --count 1\n")
        sys.stdout.write(f"\n{'in all':>9} {'per 1,000 seeds':>16}\n")
        for name in COVERAGE:
            sys.stdout.write(f"{stats[name]:9} {stats[name] * 1000 / max(done, 1):16.0f}  {name}\n")
        sys.stdout.write(f"\n{done} seeds in {seconds:.1f} s, {len(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
