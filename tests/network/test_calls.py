"""Calls between hosts: the two programs of the example, and the commands against the first without its source."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from netlab.devices import Device, Outcome
from netlab.lab import Host, Lab
from netlab.namespaces import scratch_folder
from netlab.processes import Process
from netlab.topologies import two_hosts

from mp2p_core.keyfile import save_identity

pytestmark = pytest.mark.network

EXAMPLE = Path(__file__).parents[2] / "examples" / "thermostat"


def run(host: Host, home: Path, program: str, *words: str) -> Process:
    """Start one of the example's programs."""
    environment = {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONPATH": str(EXAMPLE)}
    path = str(EXAMPLE / program)
    script = f"import os, runpy; os.chdir({str(home)!r}); runpy.run_path({path!r}, run_name='__main__')"
    return host.start(sys.executable, "-W", "error", "-c", script, *words, label=program, env=environment)


def test_the_two_programs_and_the_commands(lab: Lab) -> None:
    ends = two_hosts(lab)
    laptop = Device(ends.left)
    home = scratch_folder() / "thermostat"
    home.mkdir()
    added = ends.right.start(
        *(sys.executable, "-m", "mp2p", "contacts", "add", "laptop", laptop.key),
        label="mp2p contacts add", env={"HOME": str(home), "XDG_CONFIG_HOME": str(home)},
    )  # fmt: skip
    assert added.wait() == 0
    contact = run(ends.right, home, "thermostat.py").wait_for_line("mp2p:")

    # With the source. Its node has this user's own key: that of the device.
    own = scratch_folder() / "laptop"
    (own / "mp2p").mkdir(parents=True)
    save_identity(own / "mp2p" / "key", laptop.identity)
    control = ends.left.start(
        *(sys.executable, "-W", "error", str(EXAMPLE / "control.py"), contact, "21.5"),
        label="control.py", env={"HOME": str(laptop._home), "XDG_CONFIG_HOME": str(own)},
    )  # fmt: skip
    assert control.wait() == 0
    assert control.stdout == ["target 21.5", "18.5 heating", "19.0 heating", "19.5 heating"]

    # And without it.
    described = Outcome(laptop.start("describe", contact))
    (service,) = (each for each in described.events("service") if each["name"] == "Thermostat")
    assert [each["name"] for each in service["methods"]] == ["set_target", "readings"]
    called = Outcome(laptop.start("call", contact, "Thermostat.set_target", "celsius=19"))
    assert [each["value"] for each in called.events("result")] == [19.0]
    streamed = Outcome(laptop.start("call", contact, "Thermostat.readings", "count=2", "every=0.01"))
    assert [each["value"] for each in streamed.events("item")] == [
        {"celsius": 19.4, "heating": False},
        {"celsius": 19.3, "heating": False},
    ]
    refused = Outcome(laptop.start("call", contact, "Thermostat.set_target", "celsius=warm"))
    assert refused.code == 2
    assert "'celsius' takes number" in refused.error["message"]
    unknown = Outcome(laptop.start("call", contact, "Thermostat.explode"))
    assert unknown.code == 2
    assert "Thermostat.set_target" in unknown.error["message"]

    stranger = Outcome(
        Device(ends.left, "stranger").start("call", "--timeout", "2", contact, "Thermostat.readings")
    )
    assert stranger.code == 3


def test_serve_serves_a_class_without_a_program(lab: Lab) -> None:
    ends = two_hosts(lab)
    laptop, server = Device(ends.left), Device(ends.right)
    process = ends.right.start(
        *(sys.executable, "-W", "error", "-m", "mp2p", "serve", "--json", "--key", str(server._key_file)),
        *("--allow", laptop.key, "thermostat:Thermostat"),
        label="mp2p serve",
        env={"HOME": str(server._home), "PYTHONPATH": str(EXAMPLE)},
    )
    process.wait_for_line("listening")
    called = Outcome(laptop.start("call", server.key, "Thermostat.set_target", "celsius=19"))
    assert [each["value"] for each in called.events("result")] == [19.0]
    assert process.stop() == 143
