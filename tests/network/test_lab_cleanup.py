"""Nothing of the lab outlives its test, and what its programs print is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from netlab import namespaces
from netlab.lab import Lab, wait_until

pytestmark = pytest.mark.network

HERE = Path(__file__).parent

LEFT_RUNNING = """
import signal, sys
sys.path.insert(0, sys.argv[1])
from netlab.lab import Lab
from netlab.topologies import three_routers
with Lab() as lab:
    three_routers(lab)
    print(*(process.pid for node in lab.nodes for process in node.processes), flush=True)
    signal.pause()
"""


def namespaces_of(pid: int) -> list[str]:
    names = namespaces.run("ip", "netns", "list").split()
    return [name for name in names if name.startswith(f"mp2p-{pid}-")]


def ended(pid: int | str) -> bool:
    """Say whether a process has ended, whether or not its parent has taken note."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_failed_test_leaves_nothing_behind(lab_permitted: None) -> None:
    pids = []

    def fail() -> None:
        with Lab() as lab:
            lab.link(lab.host("left"), lab.host("right"))
            pids.append(lab.nodes[0].start("sleep", "600").pid)
            assert len(namespaces_of(os.getpid())) == 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert namespaces_of(os.getpid()) == []
    assert [ended(pid) for pid in pids] == [True]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_leaves_nothing_behind(lab_permitted: None, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEFT_RUNNING, str(HERE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as interrupted:
        assert interrupted.stdout is not None
        daemons = interrupted.stdout.readline().split()
        assert len(daemons) == 3
        assert len(namespaces_of(interrupted.pid)) == 5
        interrupted.send_signal(number)
        interrupted.wait(30)
    wait_until(lambda: namespaces_of(interrupted.pid) == [], "the namespaces to go")
    wait_until(lambda: all(map(ended, daemons)), "the daemons to go")


def test_two_labs_at_once_do_not_collide(lab: Lab) -> None:
    lab.host("same")
    with Lab() as other:
        other.host("same")
        assert len(namespaces_of(os.getpid())) == 2


def test_a_program_s_lines_are_waited_for_and_kept(lab: Lab) -> None:
    program = lab.host("host").start(
        "sh", "-c", "echo first; echo second >&2; exec sleep 600", label="a program"
    )
    assert program.wait_for_line("fir") == "first"
    assert program.wait_for_line("fir") == "first"
    assert program.wait_for_line(lambda line: line == "second", stderr=True) == "second"
    with pytest.raises(AssertionError, match=r"out first"):
        program.wait_for_line("third", timeout=0.01)
    with pytest.raises(AssertionError, match="still running"):
        program.wait(timeout=0.01)
    assert program.stop() == -signal.SIGTERM
    with pytest.raises(AssertionError, match=r"ended before .*(?s:.*)exit code -15(?s:.*)err second"):
        program.wait_for_line("third")
    assert lab.transcripts() == [("a program on host", program.transcript())]


def test_a_program_that_will_not_end_is_killed_with_its_children(lab: Lab) -> None:
    stubborn = lab.host("host").start("sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait; sleep 600")
    child = stubborn.wait_for_line(str.isdigit)
    assert stubborn.stop(timeout=0.1) == -signal.SIGKILL
    wait_until(lambda: ended(child), "the child to go")
