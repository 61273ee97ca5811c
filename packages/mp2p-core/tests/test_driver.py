"""The driver and its channels: what is optional in the contract is used where it is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from mp2p_core.driver import Driver


class Idle:
    """An endpoint with nothing to do."""

    def timeout(self) -> None:
        pass

    def transmits(self, _now: float) -> tuple[()]:
        return ()

    def events(self) -> tuple[()]:
        return ()


class Plain:
    """A channel with no upkeep."""


class Maintained:
    def __init__(self) -> None:
        self.maintained = anyio.Event()
        self.silences = 0

    async def maintain(self) -> None:
        assert not self.maintained.is_set()
        self.maintained.set()

    def silent(self) -> None:
        self.silences += 1


def driver(*channels: object) -> Driver:
    opened = [cast("Any", SimpleNamespace(channel=channel)) for channel in channels]
    return Driver(cast("Any", Idle()), opened, anyio.current_time, lambda _events, _now: False, anyio.Event)


@pytest.mark.anyio
async def test_a_channels_upkeep_is_done_where_it_has_any() -> None:
    channel = Maintained()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(driver(Plain(), channel).keep_time, tasks)
        with anyio.fail_after(20):
            await channel.maintained.wait()
        tasks.cancel_scope.cancel()


def test_every_channel_with_upkeep_hears_of_a_silent_peer() -> None:
    channel = Maintained()
    driver(Plain(), channel).silent()
    assert channel.silences == 1


class Words:
    """An endpoint that is said words to, and the channel that takes out what waits, as one train."""

    def __init__(self) -> None:
        self.waiting = 0
        self.sent: list[int] = []
        self.answers = 0
        """How many words are said at once in answer to what comes next."""
        self._deliver: Any = None
        opened = [cast("Any", SimpleNamespace(channel=self))]
        self.driver = Driver(cast("Any", self), opened, lambda: 0.0, self._tell, anyio.Event)

    def say(self, times: int = 1) -> None:
        for _ in range(times):
            self.driver.flush_soon(cast("Any", None))

    def hear(self) -> None:
        """Have the network bring something."""
        self._deliver([])

    def _tell(self, _events: object, _now: float) -> bool:
        answers, self.answers = self.answers, 0
        self.say(answers)
        return False

    # What the driver asks of an endpoint and of a channel.

    def flush(self, _connection: object) -> None:
        self.waiting += 1

    def events(self) -> list[object]:
        return [object()] if self.answers else []

    def transmits(self, _now: float) -> Iterator[tuple[int, int]]:
        waiting, self.waiting = self.waiting, 0
        if waiting:
            yield 0, waiting

    def timeout(self) -> None:
        return None

    def send(self, train: int) -> None:
        self.sent.append(train)

    async def push(self, deliver: object) -> None:
        self._deliver = deliver
        await anyio.sleep_forever()


class Bulk(Words):
    """An endpoint that has much to send, and the channel; notes which of the two is at work on which train."""

    def __init__(self, trains: int) -> None:
        super().__init__()
        self.waiting = trains
        self.work: list[str] = []

    def transmits(self, _now: float) -> Iterator[tuple[int, int]]:
        for train in range(self.waiting):
            self.work.append(f"seal {train}")
            yield 0, train

    def send(self, train: int) -> None:
        self.work.append(f"send {train}")


@asynccontextmanager
async def running() -> AsyncIterator[Words]:
    words = Words()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(words.driver.receive_forever, 0)
        tasks.start_soon(words.driver.keep_time, tasks)
        await anyio.wait_all_tasks_blocked()
        yield words
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_what_is_said_in_one_turn_goes_out_together_when_it_ends() -> None:
    async with running() as words:
        words.say(5)
        assert words.sent == []
        await anyio.wait_all_tasks_blocked()
        assert words.sent == [5]


@pytest.mark.anyio
async def test_of_much_that_is_said_in_one_turn_what_makes_a_packet_worth_its_cost_goes_out_at_once() -> None:
    async with running() as words:
        words.say(23)
        assert words.sent == []
        words.say(30)
        assert words.sent == [24, 24]
        await anyio.wait_all_tasks_blocked()
        assert words.sent == [24, 24, 5]


async def talk(words: Words, rounds: int, times: int = 1) -> None:
    """Say something and hear something, in turn."""
    for _ in range(rounds):
        words.say(times)
        await anyio.wait_all_tasks_blocked()
        words.hear()


@pytest.mark.anyio
async def test_whoever_said_one_word_at_a_time_waits_no_more_for_others() -> None:
    async with running() as words:
        await talk(words, 7)
        words.say()
        assert len(words.sent) == 7, "not yet a habit"
        await anyio.wait_all_tasks_blocked()
        words.hear()
        words.say()
        assert words.sent == [1] * 9
        words.say()
        assert len(words.sent) == 9, "the second one may well have others behind it"
        await anyio.wait_all_tasks_blocked()
        assert len(words.sent) == 10


@pytest.mark.anyio
async def test_a_second_word_ends_the_habit() -> None:
    async with running() as words:
        await talk(words, 8)
        await talk(words, 1, times=2)
        words.say()
        assert words.sent == [1] * 10
        await anyio.wait_all_tasks_blocked()
        words.hear()
        await talk(words, 7)
        assert sum(words.sent) == 18
        words.say()
        assert sum(words.sent) == 19, "it has come back"


@pytest.mark.anyio
async def test_what_the_network_brings_without_an_answer_changes_no_habit() -> None:
    async with running() as words:
        await talk(words, 8)
        for _ in range(3):
            words.hear()
        words.say()
        assert words.sent == [1] * 9


@pytest.mark.anyio
async def test_what_is_said_in_answer_to_what_came_goes_out_with_it() -> None:
    async with running() as words:
        words.answers = 30
        words.hear()
        assert words.sent == [30]
        await talk(words, 7)
        words.answers = 2
        words.hear()
        await talk(words, 1)
        words.say()
        assert words.sent[-1] == 1, "and says nothing of what tasks say"
        assert sum(words.sent) == 30 + 7 + 2 + 2


def test_the_first_train_goes_out_at_once_and_of_many_four_at_a_time() -> None:
    bulk = Bulk(12)
    bulk.driver.flush(0.0)
    groups = [[0], [1, 2], [3, 4, 5, 6], [7, 8, 9, 10], [11]]
    assert bulk.work == [
        f"{step} {train}" for group in groups for step in ("seal", "send") for train in group
    ]
