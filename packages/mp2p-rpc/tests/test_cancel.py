"""Cancelling and deadlines, on both sides: how soon, how surely, and what is left behind (rows C6 and F7)."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mp2p_rpc import Busy, Call, Deadline, Limits, OutcomeUnknown, Peer, Service

pytestmark = pytest.mark.anyio

SHAPES = ["unary", "server stream", "client stream", "both streams"]


class Slow(Service):
    """Each method works until it is cancelled, or `release` is set."""

    def __init__(self) -> None:
        self.release = anyio.Event()
        self.running = 0
        self.begun = 0
        self.ended: list[str] = []

    @contextmanager
    def _noted(self, name: str) -> Iterator[None]:
        self.running += 1
        self.begun += 1
        try:
            yield
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        else:
            self.ended.append(name)
        finally:
            self.running -= 1

    async def unary(self) -> str:
        with self._noted("unary"):
            await self.release.wait()
        return "done"

    async def give(self) -> AsyncIterator[int]:
        with self._noted("give"):
            yield 1
            await self.release.wait()
            yield 2

    async def take(self, items: AsyncIterator[int]) -> int:
        with self._noted("take"):
            return sum([each async for each in items])

    async def both(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        with self._noted("both"):
            async for each in items:
                yield each

    async def stubborn(self) -> str:
        with self._noted("stubborn"), anyio.move_on_after(15, shield=True):  # so that a test that fails ends
            await self.release.wait()
        return "done"


async def endless(started: anyio.Event) -> AsyncIterator[int]:
    yield 1
    started.set()
    await anyio.sleep_forever()


async def call(peer: Peer, shape: str, started: anyio.Event) -> Any:
    """Make a call that does not end by itself; `started` is set when there is nothing more to come."""
    slow = peer.client(Slow)
    if shape == "unary":
        started.set()
        return await slow.unary()
    if shape == "client stream":
        return await slow.take(endless(started))
    if shape == "server stream":
        async for _ in slow.give():
            started.set()
    else:
        async for _ in slow.both(endless(started)):
            pass
    return None


@pytest.mark.parametrize("shape", SHAPES)
async def test_cancelling_the_caller_cancels_the_handler_with_the_next_flight(net: Any, shape: str) -> None:
    """Half a round trip: no more than what the caller sends when it is cancelled has to arrive."""
    slow, started = Slow(), anyio.Event()
    async with net.serving(slow) as (peer, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, peer, shape, started)
            await started.wait()
            await anyio.wait_all_tasks_blocked()
            assert slow.running == 1
            net.holding = True
            tasks.cancel_scope.cancel()
        await anyio.wait_all_tasks_blocked()
        assert slow.running == 1
        assert await net.flight()
        assert slow.running == 0
        assert slow.ended in (["CancelledError"], ["Cancelled"], ["GeneratorExit"])
        net.holding = False
        slow.release.set()
        assert await peer.client(Slow).unary() == "done"


@pytest.mark.parametrize("how", ["break", "aclose"])
async def test_who_lets_go_of_a_stream_of_results_cancels_the_handler(net: Any, until: Any, how: str) -> None:
    slow = Slow()
    async with net.serving(slow) as (peer, _):
        if how == "break":
            async for each in peer.client(Slow).give():
                assert each == 1
                break
        else:
            results: Any = peer.client(Slow).give()
            assert await anext(results) == 1
            await results.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(results)
        await until(lambda: slow.begun == 1 and slow.running == 0)
        never_asked = peer.client(Slow).give()
        del never_asked
        await anyio.wait_all_tasks_blocked()
        assert slow.begun == 1


@pytest.mark.parametrize("shape", SHAPES)
async def test_the_deadline_of_the_caller_is_the_handlers_too(net: Any, until: Any, shape: str) -> None:
    """Also when nothing that the caller says arrives any more."""
    slow, started = Slow(), anyio.Event()
    async with net.serving(slow) as (peer, _):

        async def cut() -> None:
            await started.wait()
            await until(lambda: slow.running)
            net.holding = True

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cut)
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.6):
                    await call(peer, shape, started)
        await until(lambda: slow.running == 0)
        net.holding = False


async def test_a_handler_that_is_too_late_is_cancelled_and_its_caller_told(net: Any) -> None:
    slow = Slow()

    @contextmanager
    def short(call: Call) -> Iterator[None]:
        call.deadline = anyio.current_time() + 0.05
        yield

    async with net.serving(slow) as (peer, _):
        client = peer.client(Slow, interceptors=[short])
        with pytest.raises(Deadline, match="before the peer had a result") as late:
            await client.unary()
        assert isinstance(late.value, TimeoutError)
        assert late.value.method == "Slow.unary"
        results = client.give()
        assert await anext(results) == 1
        with pytest.raises(Deadline):
            await anext(results)
        assert slow.running == 0


async def test_a_deadline_that_has_passed_is_not_begun(net: Any) -> None:
    slow = Slow()

    @contextmanager
    def passed(call: Call) -> Iterator[None]:
        call.deadline = -math.inf
        yield

    async with net.serving(slow) as (peer, _):
        with pytest.raises(Deadline):
            await peer.client(Slow, interceptors=[passed]).unary()
    assert slow.begun == 0


async def test_F7_a_handler_that_ignores_cancellation_cannot_keep_the_stream(net: Any, until: Any) -> None:
    """A hundred streams is all that a peer has: those of calls that it gave up must be free at once."""
    slow = Slow()
    async with net.serving(slow, limits=Limits(calls_per_peer=1000)) as (peer, _):
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                before = slow.begun
                for _ in range(70):
                    tasks.start_soon(peer.client(Slow).stubborn)
                await until(lambda before=before: slow.begun == before + 70)
                tasks.cancel_scope.cancel()
        assert slow.running == 210
        slow.release.set()
        assert await peer.client(Slow).unary() == "done"
        await until(lambda: slow.running == 0)


async def test_F7_calls_that_were_given_up_count_until_their_handlers_have_ended(
    net: Any, until: Any
) -> None:
    slow = Slow()
    async with net.serving(slow, limits=Limits(calls_per_peer=2)) as (peer, _):
        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(peer.client(Slow).stubborn)
            await until(lambda: slow.running == 2)
            tasks.cancel_scope.cancel()
        with pytest.raises(Busy, match="2 calls of this key"), anyio.fail_after(10):
            await peer.client(Slow).unary()
        slow.release.set()
        await until(lambda: slow.running == 0)
        assert await peer.client(Slow).unary() == "done"


async def test_who_stops_serving_cancels_handlers_and_tells_their_callers(net: Any, until: Any) -> None:
    slow = Slow()
    outcomes: list[str] = []
    async with net.serving(slow, limits=Limits(running=1)) as (peer, server):
        other = Slow()

        async def one(service: Any) -> None:
            try:
                await service.unary()
            except OutcomeUnknown as error:
                outcomes.append(error.stage)

        class Other(Slow):
            async def more(self) -> None: ...

        async with anyio.create_task_group() as tasks:
            async with server.serving(
                other := Other(), interface=Other, allow="any", limits=Limits(running=1)
            ):
                tasks.start_soon(one, peer.client(Other))
                tasks.start_soon(one, peer.client(Other))
                await until(lambda: other.running == 1)
                await anyio.wait_all_tasks_blocked()
            assert other.ended in (["CancelledError"], ["Cancelled"])
        assert outcomes == ["sent", "sent"]
        slow.release.set()
        assert await peer.client(Slow).unary() == "done"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
async def test_C6_a_cancel_that_races_the_answer_has_one_outcome_and_leaves_nothing(
    net: Any, until: Any, shape: str, seed: int
) -> None:
    dice = random.Random(f"{seed} {shape}")
    slow = Slow()
    outcomes: list[str] = []
    async with net.serving(slow) as (peer, server):

        async def one() -> None:
            outcome = "cancelled"
            try:
                if shape == "client stream":
                    assert await peer.client(Slow).take(few()) == 3
                elif shape == "both streams":
                    assert [each async for each in peer.client(Slow).both(few())] == [1, 2]
                elif shape == "server stream":
                    assert [each async for each in peer.client(Slow).give()] == [1, 2]
                else:
                    assert await peer.client(Slow).unary() == "done"
                outcome = "done"
            finally:
                outcomes.append(outcome)

        async def some_turns() -> None:
            for _ in range(dice.randrange(20)):
                await checkpoint()

        async def few() -> AsyncIterator[int]:
            yield 1
            yield 2

        slow.release.set()
        net.holding = True
        for round_number in range(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(one)
                for _ in range(dice.randrange(4)):
                    await some_turns()
                    net.arrive()
                await some_turns()
                tasks.cancel_scope.cancel()
            assert len(outcomes) == round_number + 1
            for _ in range(dice.randrange(3)):
                net.arrive()
                await some_turns()
        net.holding = False
        net.arrive()
        await until(lambda: slow.running == 0)
        assert {"done", "cancelled"} >= set(outcomes)
        (there,) = server.peers()
        await until(lambda: not there.incoming)
        # Nothing is left of any of them: as many calls at once as a peer may have, and each has its answer.
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(one)
        assert outcomes[20:] == ["done"] * 100, f"seed {seed}"


@pytest.mark.parametrize("sent", [b"", b"\x01\x00\x00\x01\x00some of a call"], ids=["nothing", "some"])
async def test_C6_a_request_given_up_before_it_is_read_leaves_no_stream(net: Any, sent: bytes) -> None:
    """Its RESET comes a packet ahead of its STOP, as where one is lost: after 99 such, no call got through."""
    slow = Slow()
    slow.release.set()
    async with net.serving(slow) as (peer, server):
        streams = [await peer.open_stream() for _ in range(99)]  # and one for messages
        for stream in streams:
            await stream.send(sent)
        await anyio.wait_all_tasks_blocked()
        for stream in streams:
            await stream.reset(1)
        await anyio.wait_all_tasks_blocked()
        for stream in streams:
            await stream.stop(1)
        with anyio.fail_after(10):
            assert await peer.client(Slow).unary() == "done"
        (there,) = server.peers()
        assert not there.incoming
