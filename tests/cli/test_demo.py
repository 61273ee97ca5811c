"""`mp2p demo`: the main job in one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

BOTH_SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


def actors(demo: psutil.Process) -> list[psutil.Process]:
    return [child for child in demo.children(recursive=True) if "mp2p.cli.demo.actors" in child.cmdline()]


def gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_the_whole_story(mp2p: Any, parse_lines: Any) -> None:
    done = mp2p.run("demo", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events: dict[str, list[dict[str, Any]]] = {}
    for line in parse_lines(done.stdout):
        events.setdefault(line["event"], []).append(line)

    alice, bob = events["node"]
    assert len({alice["key"], bob["key"]}) == 2
    assert len({alice["process"], bob["process"], os.getpid()}) == 3
    assert all(node["contact"] == f"mp2p:{node['key']}" for node in (alice, bob))
    assert all(node["interfaces"] == ["lo"] for node in (alice, bob))
    assert events["handshake"][0]["handshake_ms"] > 0
    assert [(each["from"], each["to"]) for each in events["message"]] == [("bob", "alice"), ("alice", "bob")]

    calls = [each["method"] for each in events["call"]]
    assert calls == ["Greenhouse.set_target", "Greenhouse.readings"]

    seen = events["datagram"]
    assert {each["size"] for each in seen if each["type"] == "INIT"} == {256}
    assert {each["size"] for each in seen if each["type"] == "RESP"} == {156}
    assert {each["type"] for each in seen} == {"INIT", "RESP", "DATA"}
    assert {each["to"] for each in seen} == {"alice", "bob"}
    # The demo's claim, checked again from the bytes it printed.
    recorded = [bytes.fromhex(each["hex"]) for each in seen]
    assert [len(datagram) for datagram in recorded] == [each["size"] for each in seen]
    for message in events["message"]:
        assert not any(message["text"].encode() in datagram for datagram in recorded)
    (eavesdropper,) = events["eavesdropper"]
    assert (eavesdropper["plaintext_found"], eavesdropper["control_found"]) == (False, True)

    (silence,) = events["silence"]
    assert silence["knocks"] >= 1
    assert silence["answers"] == 0
    assert silence["key"] not in (alice["key"], bob["key"])
    (published,) = events["published"]
    assert (published["messages"], published["subscribers"]) == (30, 8)
    assert 30 <= published["datagrams"] < 60
    assert not published["plaintext_found"]
    assert len(events["done"]) == 1
    assert not (mp2p.home / "config").exists(), "the demo keeps nothing"


def test_plain_when_piped_and_narrow(mp2p: Any) -> None:
    done = mp2p.run("demo")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for words in ("mp2p:", "INIT", "no piece of either message", "no answer at all", "mp2p listen"):
        assert words in done.stdout


@BOTH_SIGNALS
def test_L6_an_interrupted_demo_leaves_no_process(mp2p: Any, number: int, code: int) -> None:
    demo = mp2p.start("demo", "--json")
    while demo.event()["event"] != "handshake":
        pass
    started = actors(psutil.Process(demo.process.pid))
    assert len(started) == 4
    assert demo.end(number) == code
    assert gone(started)
    assert demo.errors() == ""


def test_a_killed_demo_leaves_no_process(mp2p: Any) -> None:
    demo = mp2p.start("demo", "--json")
    while demo.event()["event"] != "handshake":
        pass
    started = actors(psutil.Process(demo.process.pid))
    demo.process.kill()
    demo.wait()
    assert gone(started), "a process ends with its standard input"


def test_a_process_that_dies_is_named(mp2p: Any) -> None:
    demo = mp2p.start("demo", "--json")
    while demo.event()["event"] != "node":
        pass
    started = actors(psutil.Process(demo.process.pid))
    (watcher,) = [one for one in started if "watcher" in one.cmdline()]
    watcher.kill()
    assert demo.wait() == 1
    assert "eavesdropper" in json.loads(demo.errors())["error"]["message"]
    assert gone(started)


LIE = {
    # What is broken in the child processes, and the words the demo should end with.
    "plaintext": (
        "import mp2p.cli.demo.watcher as w\nw.contains = lambda heard, texts: True\n",
        "found a piece of a message",
    ),
    "blind search": (
        "import mp2p.cli.demo.watcher as w\nw.contains = lambda heard, texts: False\n",
        "does not find a message sent in the clear",
    ),
    "open door": (
        "import mp2p_rpc\nreal = mp2p_rpc.open_node\n"
        "mp2p_rpc.open_node = lambda key=None, *, allow='nobody', **rest: real(key, allow='any', **rest)\n",
        "the stranger was answered",
    ),
    "a copy for each": (
        "from mp2p_core.groups import Groups\nreal = Groups.send\n"
        "Groups.send = lambda self, group, datagrams: [real(self, group, datagrams) for _ in range(8)]\n",
        "one for each subscriber",
    ),
    "other text": (
        "import mp2p.cli.demo.actors as a\na.REPLY = 'something else'\n",
        "instead of",
    ),
    "no network": (
        "import mp2p_core, mp2p_rpc\n"
        "def refuse(*words, **more):\n    raise mp2p_core.NoMulticast(None, 'nothing is plugged in')\n"
        "mp2p_rpc.open_node = refuse\n",
        "nothing is plugged in",
    ),
}


@pytest.mark.parametrize("name", LIE)
def test_the_demo_fails_when_a_claim_does_not_hold(
    mp2p: Any, error_of: Callable[[Any], dict[str, Any]], tmp_path: Path, name: str
) -> None:
    """The child processes are made to misbehave; the demo itself is as it is."""
    fault, words = LIE[name]
    (tmp_path / "actor.py").write_text(
        f"import sys\n{fault}\nfrom mp2p.cli.demo.actors import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    (tmp_path / "demo.py").write_text(
        "import mp2p.cli.demo.story as story\n"
        f"story.ACTORS = ({str(tmp_path / 'actor.py')!r},)\n"
        "from mp2p.cli.commands import cli\ncli.main(['demo', '--json'])\n"
    )
    done = subprocess.run(
        [sys.executable, tmp_path / "demo.py"],
        capture_output=True,
        text=True,
        env=mp2p.environment,
        check=False,
        timeout=60,
    )
    assert done.returncode == (5 if name == "no network" else 1), done.stdout + done.stderr
    assert words in error_of(done)["message"]
    assert "done" not in [json.loads(line)["event"] for line in done.stdout.splitlines()]


NETWORK = """
set -e
sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 net.ipv6.conf.default.accept_dad=0
ip link set lo up
ip link add here type veth peer name there
ip link set there up
ip link set here up
ip addr add 2001:db8:1::1/64 dev here nodad
exec "$@"
"""


def in_a_network(mp2p: Any, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo in a network namespace of its own, which ends with it."""
    command = [
        "unshare",
        "--net",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-m",
        "mp2p",
        "demo",
        "--json",
        *arguments,
    ]
    return subprocess.run(
        command, capture_output=True, text=True, env=mp2p.environment, check=False, timeout=120
    )


@pytest.fixture
def namespaces() -> None:
    probe = subprocess.run(["unshare", "--net", "ip", "link", "show"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("needs root and iproute2, for a network namespace")


@pytest.mark.network
@pytest.mark.usefixtures("namespaces")
def test_all_transports(mp2p: Any, parse_lines: Any) -> None:
    done = in_a_network(mp2p, NETWORK, "--all-transports")
    assert done.returncode == 0, done.stdout + done.stderr
    events = parse_lines(done.stdout)
    nodes = [event for event in events if event["event"] == "node"]
    assert [node["transport"] for node in nodes] == ["v4", "v4", "v6", "v6", "v6-prefix", "v6-prefix"]
    groups = [node["groups"][0] for node in nodes[::2]]
    assert groups[1].startswith("v6:[ff1e:")
    assert groups[2].startswith("v6:[ff3e:40:2001:db8:1:")
    silences = [event for event in events if event["event"] == "silence"]
    assert [silence["answers"] for silence in silences] == [0, 0, 0]


@pytest.mark.network
@pytest.mark.usefixtures("namespaces")
def test_transports_that_have_no_network_are_skipped(mp2p: Any, parse_lines: Any) -> None:
    done = in_a_network(mp2p, 'ip link set lo up; exec "$@"', "--all-transports")
    assert done.returncode == 0, done.stderr
    skipped = [event for event in parse_lines(done.stdout) if event["event"] == "skipped"]
    assert [event["transport"] for event in skipped] == ["v6", "v6-prefix"]
    assert all("interface" in event["reason"] for event in skipped)


@pytest.mark.network
@pytest.mark.usefixtures("namespaces")
def test_a_machine_without_any_network(mp2p: Any, error_of: Any) -> None:
    done = in_a_network(mp2p, 'exec "$@"')
    assert done.returncode == 5
    assert "lo: it is down" in error_of(done)["message"]
