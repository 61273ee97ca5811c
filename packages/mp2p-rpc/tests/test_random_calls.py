"""Random calls over a network that loses a tenth, to a device that is restarted without a word (rows C5 and H17).

Each call has a number. The device writes down what it runs, across its restarts: nothing twice unless the method is
idempotent, and what a caller has as a result has run. No call is left without a result or an error.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest

from mp2p_core import Closed, Identity, PeerUnreachable
from mp2p_rpc import CallError, Node, OutcomeUnknown, Peer, Retry, RpcError, Service, method, open_node

pytestmark = pytest.mark.anyio


class Ledger(Service):
    runs: Counter[int]

    def __init__(self, runs: Counter[int], dice: random.Random) -> None:
        self.runs = runs
        self._dice = dice

    async def add(self, number: int, size: int) -> bytes:
        self.runs[number] += 1
        if self._dice.random() < 0.3:
            await anyio.sleep(self._dice.random() * 0.02)
        if number % 17 == 0:
            raise RpcError("seventeen", str(number))
        return number.to_bytes(8, "big") * size

    @method(idempotent=True)
    async def read(self, number: int) -> int:
        self.runs[number] += 1
        return number

    async def items(self, number: int, count: int) -> AsyncIterator[int]:
        self.runs[number] += 1
        for each in range(count):
            yield number + each

    async def total(self, number: int, items: AsyncIterator[int]) -> int:
        self.runs[number] += 1
        return sum([each async for each in items])


async def calls(net: Any, seed: int, count: int, restarts: int) -> Counter[str]:
    dice = random.Random(seed)
    runs: Counter[int] = Counter()
    outcomes: dict[int, str] = {}
    again: set[int] = set()
    key = Identity.generate()
    gone = False
    net.drop = lambda _: gone or dice.random() < 0.1

    async def one(peer: Peer, number: int) -> None:
        ledger = peer.client(Ledger, retry=Retry(attempts=10, first=0.01, longest=0.5))
        kind = dice.randrange(5)
        cancelled = True
        with anyio.move_on_after(0.02 if dice.random() < 0.1 else 60):
            try:
                if kind < 2:
                    size = dice.choice([1, 1, 10, 2000])
                    assert await ledger.add(number, size) == number.to_bytes(8, "big") * size
                elif kind == 2:
                    again.add(number)
                    assert await ledger.read(number) == number
                elif kind == 3:
                    length = dice.randrange(20)
                    found = [each async for each in ledger.items(number, length)]
                    assert found == list(range(number, number + length))
                else:
                    assert await ledger.total(number, some(number)) == 3 * number
                outcomes[number] = "result"
            except RpcError as error:
                right = number % 17 == 0 and (error.code, error.message) == ("seventeen", str(number))
                outcomes[number] = "error of the handler" if right else f"{error!r} for {number}"
            except OutcomeUnknown:
                outcomes[number] = "unknown"
            except (Closed, PeerUnreachable):
                outcomes[number] = "not sent"
            except CallError as error:
                outcomes[number] = type(error).__name__
            cancelled = False
        if cancelled:
            outcomes[number] = "cancelled"

    async def some(number: int) -> AsyncIterator[int]:
        for _ in range(3):
            yield number

    async def caller(peer: Peer, numbers: Any) -> None:
        for number in numbers:
            await one(peer, number)
            while peer.closed is not None:
                with suppress(PeerUnreachable):
                    await peer.reconnect()

    async def restart(client: Node, stop: anyio.Event) -> None:
        nonlocal gone
        done = len(outcomes)
        while not stop.is_set():
            async with (
                open_node(key, transports=[net.transport()]) as server,
                server.serving(Ledger(runs, dice), allow=[client.key]),
            ):
                gone = False
                started.set()
                while not stop.is_set() and len(outcomes) < done + count / (restarts + 1):  # noqa: ASYNC110 - no event
                    await anyio.sleep(0.01)
                done = len(outcomes)
                gone = not stop.is_set()

    started, stop = anyio.Event(), anyio.Event()
    async with open_node(transports=[net.transport()], idle_timeout=1.0) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restart, client, stop)
            await started.wait()
            numbers = iter(range(1, count + 1))
            async with client.connect(key.public) as peer:
                async with anyio.create_task_group() as callers:
                    for _ in range(60):
                        callers.start_soon(caller, peer, numbers)
            stop.set()
    assert len(outcomes) == count, f"seed {seed}"
    for number in range(1, count + 1):
        if number not in again:
            assert runs[number] <= 1, f"seed {seed}: {number} ran {runs[number]} times"
        if outcomes[number] in ("result", "error of the handler"):
            assert runs[number] >= 1, f"seed {seed}: {number} has an answer and has not run"
        elif outcomes[number] == "not sent":
            assert number in again or not runs[number], (
                f"seed {seed}: {number} ran and is said not to be sent"
            )
    found = Counter(outcomes.values())
    assert set(found) <= {"result", "error of the handler", "unknown", "not sent", "cancelled"}, (
        f"seed {seed}: {found}"
    )
    return found


async def test_H17_random_calls_run_at_most_once_and_each_has_an_outcome(net: Any) -> None:
    """As the hundred thousand below; these meet each of the outcomes."""
    found = await calls(net, seed=1, count=400, restarts=1)
    assert found["result"] > 200
    assert found["unknown"] > 0


@pytest.mark.soak
async def test_H17_a_hundred_thousand_random_calls(net: Any) -> None:
    print(await calls(net, seed=2, count=100_000, restarts=40))
