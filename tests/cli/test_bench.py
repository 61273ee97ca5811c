"""`mp2p bench` as a user runs it: against another process of this machine, and against a peer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psutil
import pytest

QUICK = ("--seconds", "0.1")


def events(done: Any) -> dict[str, list[dict[str, Any]]]:
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        event = json.loads(line)
        found.setdefault(event["event"], []).append(event)
    return found


def complete(heard: dict[str, list[dict[str, Any]]]) -> None:
    assert list(heard) == ["connected", "calls", "stream"]
    assert [each["parallel"] for each in heard["calls"]] == [1, 64]
    assert all(each["calls_per_second"] > 0 for each in heard["calls"])
    assert [each["direction"] for each in heard["stream"]] == ["to the peer", "from the peer"]
    assert all(each["bytes_per_second"] > 0 for each in heard["stream"])


def test_without_a_contact_this_machine_answers(mp2p: Any) -> None:
    heard = events(mp2p.run("bench", *QUICK, "--json"))
    complete(heard)
    assert heard["connected"][0]["path"].startswith("v4 ")
    assert not mp2p.config.exists(), "its keys are kept nowhere"


def test_people_read_a_line_for_each(mp2p: Any) -> None:
    done = mp2p.run("bench", *QUICK, "--parallel", "2")
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[1] for line in done.stdout.splitlines()[1:]] == [
        "one after another", "2 at once", "to the peer", "from the peer",
    ]  # fmt: skip


def test_a_peer_answers(mp2p: Any) -> None:
    there = mp2p.start(
        "serve", "mp2p.bench:Bench", "--allow", mp2p.public("here"), "--key", mp2p.key("there"), *mp2p.LOCAL, "--json"
    )  # fmt: skip
    contact = there.event("listening")["contact"]
    done = mp2p.run("bench", contact, "--key", mp2p.key("here"), *mp2p.LOCAL, *QUICK, "--json")
    complete(events(done))


def test_a_peer_that_serves_nothing_is_not_waited_for(
    mp2p: Any, error_of: Callable[[Any], dict[str, Any]]
) -> None:
    there = mp2p.start(
        "listen", "--allow", mp2p.public("here"), "--key", mp2p.key("there"), *mp2p.LOCAL, "--json"
    )
    contact = there.event("listening")["contact"]
    own = ("--key", mp2p.key("here"), *mp2p.LOCAL, "--timeout", "1")
    for words in (("bench", contact), ("describe", contact), ("call", contact, "Door.open")):
        done = mp2p.run(*words, *own, "--json")
        assert done.returncode == 3
        assert "mp2p serve" in error_of(done)["message"]


def test_one_transport_at_a_time(mp2p: Any, error_of: Callable[[Any], dict[str, Any]]) -> None:
    done = mp2p.run("bench", "--transport", "v4", "--transport", "v6", "--json")
    assert done.returncode == 2
    assert "one --transport" in error_of(done)["message"]


@pytest.mark.parametrize("number", [2, 15])
def test_an_interrupted_bench_leaves_no_process(mp2p: Any, number: int) -> None:
    bench = mp2p.start("bench", "--seconds", "60", "--json")
    bench.event("connected")
    (other,) = psutil.Process(bench.process.pid).children()
    assert bench.end(number) == 128 + number
    assert bench.errors() == ""
    _, left = psutil.wait_procs([other], timeout=30)
    assert not left
