"""Calls are checked by mypy, as an editor would: what is right has its types, what is wrong is found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PROGRAM = """
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Protocol

import mp2p

class Thermostat(mp2p.Service):
    async def set_target(self, celsius: float, room: str = "hall") -> float:
        return celsius

    async def readings(self, count: int) -> AsyncIterator[float]:
        yield 1.0

    async def average(self, readings: AsyncIterator[float]) -> float:
        return 1.0

class Meter(Protocol):
    async def value(self) -> int: ...

    def values(self) -> AsyncIterator[int]: ...

class Power(ABC):
    @abstractmethod
    async def watts(self) -> bytes: ...

@mp2p.function
async def greet(name: str, times: int = 1) -> str:
    return name

async def texts() -> AsyncIterator[str]:
    yield ""

async def program(peer: mp2p.Peer, node: mp2p.Node) -> None:
    await node.serve(Thermostat(), greet, allow=[peer.key])
    async with node.connect("mp2p:key") as other:
        other.client(Thermostat)
    thermostat = peer.client(Thermostat)
    reveal_type(thermostat)                             # is: Thermostat
    reveal_type(await thermostat.set_target(21))        # is: float
    reveal_type(thermostat.readings(3))                 # is: typing.AsyncIterator[float]
    reveal_type(await peer.client(Meter).value())       # is: int
    reveal_type(peer.client(Meter).values())            # is: typing.AsyncIterator[int]
    reveal_type(await peer.client(Power).watts())       # is: bytes
    reveal_type(await peer.client(greet)("you"))        # is: str
    reveal_type(await greet("you", times=2))            # is: str
    await thermostat.set_target("hot")                  # wrong: arg-type
    await thermostat.set_target()                       # wrong: call-arg
    await thermostat.set_target(1.0, colour="red")      # wrong: call-arg
    await thermostat.set_targets(1.0)                   # wrong: attr-defined
    await thermostat.average(texts())                   # wrong: arg-type
    await thermostat.readings(1)                        # wrong: misc
    await peer.client(greet)(3)                         # wrong: arg-type
    text: str = await thermostat.set_target(1.0)        # wrong: assignment
    await node.serve(Thermostat())                      # wrong: call-arg
"""


def test_mypy_knows_what_a_client_can_do(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    said: dict[int, list[str]] = {}
    for line in found.stdout.splitlines():
        match = re.search(
            r'program\.py:(\d+): (?:note: Revealed type is "(.*)"|error: .*\[([\w-]+)\])$', line
        )
        if match is not None:
            said.setdefault(int(match[1]), []).append(match[2] or match[3])
    expected: dict[int, list[str]] = {}
    for number, line in enumerate(PROGRAM.splitlines(), 1):
        if (match := re.search(r"# (?:is|wrong): (.*)$", line)) is not None:
            expected[number] = [match[1]]
    assert len(expected) == 17
    assert {
        number: [each.replace("program.", "").replace("builtins.", "") for each in texts]
        for number, texts in said.items()
    } == expected, found.stdout
