"""Tasks that many handlers share: none of them notices."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from mp2p_rpc import Service

pytestmark = pytest.mark.anyio

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")


class Awkward:
    """A value that cannot be compared, as those of numerical libraries."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of this is not known")

    __hash__ = None  # type: ignore[assignment] # as theirs


OBJECT: ContextVar[Awkward] = ContextVar("object")


class Lab(Service):
    def __init__(self) -> None:
        self.tasks: list[int] = []
        self.arrived = 0
        self.release = anyio.Event()

    async def remember(self, text: str) -> str:
        before = SEEN.get()
        SEEN.set(text)
        return before

    async def keep_object(self) -> bool:
        known = OBJECT.get(None) is not None
        OBJECT.set(Awkward())
        return known

    async def note(self) -> None:
        self.tasks.append(anyio.get_current_task().id)

    async def meet(self) -> None:
        self.arrived += 1
        await self.release.wait()

    async def sleep(self) -> None:
        self.arrived += 1
        self.tasks.append(anyio.get_current_task().id)
        await anyio.sleep_forever()


async def test_quick_handlers_share_a_task(net: Any) -> None:
    lab = Lab()
    async with net.serving(lab) as (peer, _):
        client = peer.client(Lab)
        for _ in range(5):
            await client.note()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(client.note)
        assert len(set(lab.tasks[:5])) == 1
        assert len(set(lab.tasks[5:])) <= 2


async def test_what_a_handler_puts_in_its_context_is_not_seen_by_the_next(net: Any) -> None:
    async with net.serving(Lab()) as (peer, _):
        client = peer.client(Lab)
        assert [await client.remember(each) for each in ("a", "b", "c")] == ["nothing"] * 3
        assert [await client.keep_object() for _ in range(3)] == [False] * 3
        await client.note()


async def test_handlers_that_wait_hold_up_none_of_those_behind_them(net: Any, until: Any) -> None:
    lab = Lab()
    async with net.serving(lab) as (peer, _):
        client = peer.client(Lab)
        async with anyio.create_task_group() as tasks:
            for _ in range(30):  # all in one packet
                tasks.start_soon(client.meet)
            await until(lambda: lab.arrived == 30)
            await client.note()
            lab.release.set()


async def test_a_deadline_and_a_caller_that_gives_up_end_one_handler_and_none_after_it(
    net: Any, until: Any
) -> None:
    lab = Lab()
    async with net.serving(lab) as (peer, _):
        client = peer.client(Lab)
        for number in range(3):
            with anyio.move_on_after(0.05):
                await client.sleep()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.sleep)
                await until(lambda number=number: lab.arrived == 2 * number + 2)
                tasks.cancel_scope.cancel()
            with anyio.fail_after(60):
                await client.note()
            await client.note()
        assert lab.arrived == 6
