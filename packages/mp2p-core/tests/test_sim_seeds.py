"""Random traffic and every kind of trouble, watched by the oracles of `mp2p_core.testing.oracles`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from mp2p_core.testing.oracles import Flow, Violation
from mp2p_core.testing.scenario import Result, run_seed
from mp2p_core.testing.seeds import COVERAGE, main, run_limited, run_many

_BATCH = 25


def _judge(result: Result) -> None:
    assert result.failure is None, f"seed {result.seed}: {result.failure}"


@pytest.mark.parametrize("first", range(0, 200, _BATCH))
def test_H2_whatever_happens_the_oracles_are_silent(first: int) -> None:
    """The first seeds of the ten thousand below."""
    for seed in range(first, first + _BATCH):
        _judge(run_limited(seed))


@pytest.mark.soak
def test_ten_thousand_seeds() -> None:
    stats: Counter[str] = Counter()
    for result in run_many(0, 10_000, jobs=os.cpu_count() or 1):
        _judge(result)
        stats.update(result.stats)
    assert min(stats[name] for name in COVERAGE) > 1000


def test_one_seed_is_one_run_to_the_byte_in_any_process() -> None:
    here = run_seed(7).digest
    assert here == run_seed(7).digest
    assert here != run_seed(8).digest
    code = "from mp2p_core.testing.scenario import Result, run_seed; print(run_seed(7).digest)"
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_the_command_names_the_seed_that_failed_and_how_to_repeat_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--count", "2"]) == 0
    out = capsys.readouterr().out
    assert "2 seeds" in out
    assert "restarts in a transfer over two ways" in out
    monkeypatch.setattr("mp2p_core.testing.oracles._TABLES", {})  # no table may exist at all
    assert main(["--first", "5", "--count", "3"]) == 1
    out = capsys.readouterr().out
    assert "seed 5 failed" in out
    assert "--first 5 --count 1" in out


def test_C7_a_flow_knows_wrong_bytes_a_short_end_and_a_reset_of_nobodys() -> None:
    flow = Flow("f", bytearray(b"abcdef"))
    flow.saw(b"abc")
    with pytest.raises(Violation, match="wrong bytes"):
        flow.saw(b"dex")
    with pytest.raises(Violation, match="short success"):
        flow.saw_end()
    flow.saw(b"def")
    with pytest.raises(Violation, match="short success"):
        flow.saw_end()  # all bytes, and the writer may still write
    with pytest.raises(Violation, match="reset"):
        flow.saw_reset(1)
    flow.finished = True
    flow.saw_end()
    with pytest.raises(Violation, match="after the end"):
        flow.saw(b"")
