"""The application protocol of `listen` and `send`."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mp2p.cli import courier
from mp2p.cli.courier import MAX_TEXT_SIZE, Courier, Taken, Text
from mp2p.cli.errors import NotTaken
from mp2p_core import open_node
from mp2p_core.errors import BadPacket, Closed, RemoteError, UsageError
from mp2p_core.messages import MAX_MESSAGE_SIZE
from mp2p_core.testing.memory import MemoryHub

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(TEXTS)
def test_text_round_trip(text: str) -> None:
    assert courier.decode_untrusted(courier.encode_text(text)) == Text(text)


def test_taken_round_trip() -> None:
    assert courier.decode_untrusted(courier.encode_taken()) == Taken()


@given(st.binary(max_size=64))
def test_P9_any_bytes_raise_only_bad_packet(data: bytes) -> None:
    try:
        message = courier.decode_untrusted(data)
    except BadPacket:
        return
    if isinstance(message, Text):
        assert courier.encode_text(message.text) == data
    else:
        assert courier.encode_taken() == data


@pytest.mark.parametrize(
    "data",
    [b"", b"\x02\x00", b"\x03", b"\x00" + bytes(8), b"\x01\xff", b"\x01\xed\xa0\x80"],
    ids=["empty", "long TAKEN", "unknown kind", "zeros", "not UTF-8", "surrogate"],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        courier.decode_untrusted(data)


def test_text_that_just_fits() -> None:
    text = "é" * (MAX_TEXT_SIZE // 2) + "e"
    assert len(text.encode()) == MAX_TEXT_SIZE
    assert len(courier.encode_text(text)) == MAX_MESSAGE_SIZE
    with pytest.raises(UsageError, match=r"1048576 bytes.*holds 1048575"):
        courier.encode_text(text + "e")


def test_text_that_is_no_unicode() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        courier.encode_text("\udcff")


class Wire:
    """One end of a link between two couriers, as reliable as a session's messages are."""

    def __init__(self) -> None:
        self._arrived: deque[bytes | Closed] = deque()
        self._news = anyio.Event()
        self.other: Wire | None = None
        self.sent: list[bytes] = []
        self.deaf: RemoteError | None = None

    async def send(self, data: bytes) -> None:
        if self.deaf is not None:
            raise self.deaf
        assert self.other is not None
        self.sent.append(data)
        await anyio.lowlevel.checkpoint()
        self.other.arrive(data)

    def arrive(self, what: bytes | Closed) -> None:
        self._arrived.append(what)
        self._news.set()

    async def receive(self) -> bytes:
        while not self._arrived:
            self._news = anyio.Event()
            await self._news.wait()
        what = self._arrived[0]
        if isinstance(what, Closed):
            raise what
        self._arrived.popleft()
        return what


def link() -> tuple[Wire, Wire]:
    one, other = Wire(), Wire()
    one.other, other.other = other, one
    return one, other


@pytest.mark.anyio
async def test_each_text_is_taken_once_and_confirmed() -> None:
    here, there = link()
    taken: list[str] = []
    sender = Courier(here)
    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        group.start_soon(Courier(there, taken.append).pump)
        await sender.send("one", 5)
        await sender.send("", 5)
        group.cancel_scope.cancel()
    assert taken == ["one", ""]
    assert here.sent == [courier.encode_text("one"), courier.encode_text("")]
    assert there.sent == [courier.encode_taken()] * 2


@pytest.mark.anyio
async def test_a_text_counts_as_taken_only_after_the_application_had_it() -> None:
    here, there = link()
    confirmed_before: list[int] = []
    sender = Courier(here)
    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        group.start_soon(Courier(there, lambda _: confirmed_before.append(len(there.sent))).pump)
        await sender.send("one", 5)
        group.cancel_scope.cancel()
    assert confirmed_before == [0]
    assert len(there.sent) == 1


@pytest.mark.anyio
async def test_several_at_once_are_each_confirmed_for_themselves() -> None:
    here, there = link()
    texts = [f"text {number}" for number in range(10)]
    taken: list[str] = []
    done: list[str] = []
    sender = Courier(here)

    async def send(text: str) -> None:
        await sender.send(text, 5)
        done.append(text)
        assert len(done) <= len(taken)

    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        group.start_soon(Courier(there, taken.append).pump)
        async with anyio.create_task_group() as sends:
            for text in texts:
                sends.start_soon(send, text)
        group.cancel_scope.cancel()
    assert sorted(taken) == sorted(done) == texts
    assert [courier.encode_text(text) for text in taken] == here.sent


@pytest.mark.anyio
async def test_the_end_of_the_session_ends_a_send_and_all_later_ones() -> None:
    here, _ = link()
    sender = Courier(here)
    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        here.arrive(Closed(0, "gone"))
        for _ in range(2):
            with pytest.raises(Closed, match="gone"):
                await sender.send("one", 60)


@pytest.mark.anyio
async def test_a_text_that_was_taken_counts_although_the_session_ended_right_then() -> None:
    here, _ = link()
    sender = Courier(here)
    async with anyio.create_task_group() as group:

        async def answer_and_go() -> None:
            while not here.sent:
                await anyio.lowlevel.checkpoint()
            here.arrive(courier.encode_taken())
            here.arrive(Closed(0, "gone"))

        group.start_soon(answer_and_go)
        group.start_soon(sender.pump)
        await sender.send("one", 60)


@pytest.mark.anyio
async def test_a_peer_that_wants_no_confirmation_ends_its_own_texts_and_nothing_else() -> None:
    """The courier's pump runs beside those of other peers: an error must not leave it."""
    here, there = link()
    there.deaf = RemoteError("the peer stopped reading stream 1")
    taken: list[str] = []
    await here.send(courier.encode_text("one"))
    await Courier(there, taken.append).pump()
    assert taken == ["one"]


@pytest.mark.anyio
async def test_garbage_and_foreign_confirmations_are_passed_over() -> None:
    here, there = link()
    taken: list[str] = []
    sender = Courier(here)
    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        group.start_soon(Courier(there, taken.append).pump)
        for junk in (b"", b"junk", courier.encode_taken()):
            here.arrive(junk)
            there.arrive(junk)
        await anyio.wait_all_tasks_blocked()
        await sender.send("one", 5)
        group.cancel_scope.cancel()
    assert taken == ["one"]


def virtual(test: Callable[[], Any]) -> None:
    """Run on trio with a clock that jumps to the next thing to do."""
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("seed", range(10))
def test_texts_arrive_in_order_and_once_over_a_bad_network(seed: int) -> None:
    """Two nodes in virtual time; 40 % of all datagrams are lost."""
    dice = random.Random(seed)
    texts = [f"text {number}" for number in range(19)] + ["long " * 20_000]
    taken: list[str] = []

    async def exchange() -> None:
        hub = MemoryHub()
        hub.drop = lambda _: dice.random() < 0.4
        async with (
            open_node(allow="any", transports=[hub.transport()], clock=trio.current_time) as server,
            open_node(transports=[hub.transport()], clock=trio.current_time) as client,
            client.connect(server.contact, timeout=120) as peer,
            anyio.create_task_group() as group,
        ):
            sender = Courier(peer)
            group.start_soon(sender.pump)
            group.start_soon(Courier(await server.accept(), taken.append).pump)
            for text in texts:
                await sender.send(text, 600)
            group.cancel_scope.cancel()

    virtual(exchange)
    assert taken == texts, f"seed {seed}"


def test_a_peer_that_never_confirms_is_given_up_after_the_timeout() -> None:
    async def exchange() -> None:
        here, _ = link()  # nobody reads at the other end
        sender = Courier(here)
        async with anyio.create_task_group() as group:
            group.start_soon(sender.pump)
            began = trio.current_time()
            with pytest.raises(NotTaken, match="within 20 s"):
                await sender.send("one", 20)
            assert trio.current_time() - began == pytest.approx(20)
            assert here.sent == [courier.encode_text("one")]
            group.cancel_scope.cancel()

    virtual(exchange)


def test_a_confirmation_that_comes_too_late_is_not_taken_for_the_next_text() -> None:
    async def exchange() -> None:
        here, _ = link()
        sender = Courier(here)
        async with anyio.create_task_group() as group:
            group.start_soon(sender.pump)
            with pytest.raises(NotTaken):
                await sender.send("one", 3)
            here.arrive(courier.encode_taken())
            with pytest.raises(NotTaken):
                await sender.send("two", 3)
            group.cancel_scope.cancel()

    virtual(exchange)


def test_a_courier_that_takes_nothing_confirms_nothing() -> None:
    async def exchange() -> None:
        here, there = link()
        sender = Courier(here)
        async with anyio.create_task_group() as group:
            group.start_soon(sender.pump)
            group.start_soon(Courier(there).pump)
            with pytest.raises(NotTaken):
                await sender.send("one", 3)
            group.cancel_scope.cancel()
        assert not there.sent

    virtual(exchange)
