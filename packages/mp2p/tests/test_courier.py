"""The application protocol of `listen` and `send`."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mp2p.cli import courier
from mp2p.cli.courier import Courier, Inbox, Inboxes, Taken, Text
from mp2p.cli.errors import NotTaken
from mp2p_core.errors import BadPacket, Closed, UsageError

IDS = st.binary(min_size=8, max_size=8)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


@given(IDS, TEXTS)
def test_text_round_trip(message_id: bytes, text: str) -> None:
    assert courier.decode_untrusted(courier.encode_text(message_id, text, 1200)) == Text(message_id, text)


@given(IDS)
def test_taken_round_trip(message_id: bytes) -> None:
    assert courier.decode_untrusted(courier.encode_taken(message_id)) == Taken(message_id)


@given(st.binary(max_size=64))
def test_P9_any_bytes_raise_only_bad_packet(datagram: bytes) -> None:
    try:
        message = courier.decode_untrusted(datagram)
    except BadPacket:
        return
    if isinstance(message, Text):
        assert courier.encode_text(message.id, message.text, 1200) == datagram
    else:
        assert courier.encode_taken(message.id) == datagram


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x01",
        b"\x01" + bytes(7),
        b"\x02" + bytes(9),
        b"\x03" + bytes(8),
        b"\x01" + bytes(8) + b"\xff",
        b"\x01" + bytes(8) + b"\xed\xa0\x80",
    ],
    ids=["empty", "kind only", "short id", "long TAKEN", "unknown kind", "not UTF-8", "surrogate"],
)
def test_refused(datagram: bytes) -> None:
    with pytest.raises(BadPacket):
        courier.decode_untrusted(datagram)


def test_text_that_just_fits() -> None:
    assert len(courier.encode_text(bytes(8), "é" * 50, 109)) == 109
    with pytest.raises(UsageError, match=r"100 bytes.*holds 99"):
        courier.encode_text(bytes(8), "é" * 50, 108)


def test_text_that_is_no_unicode() -> None:
    with pytest.raises(UsageError, match="UTF-8"):
        courier.encode_text(bytes(8), "\udcff", 1200)


@given(st.lists(st.integers(0, 12)))
def test_inbox_against_a_list(numbers: list[int]) -> None:
    inbox = Inbox(size=5)
    model: list[bytes] = []
    for number in numbers:
        message_id = bytes([number])
        assert (message_id in inbox) == (message_id in model)
        if message_id not in inbox:
            inbox.add(message_id)
            model = [*model, message_id][-5:]
    assert len(inbox) == len(model)


def test_F10_inboxes_are_bounded_and_keep_the_recent_ones() -> None:
    inboxes = Inboxes(size=3)
    friend = inboxes.of(b"friend")
    friend.add(b"1")
    for number in range(100):
        inboxes.of(bytes([number]))
        assert inboxes.of(b"friend") is friend
        assert len(inboxes) <= 3


def test_pauses_grow_to_a_ceiling() -> None:
    fast = list(itertools.islice(courier.pauses(0.0001), 20))
    slow = list(itertools.islice(courier.pauses(60), 5))
    assert fast[0] == pytest.approx(0.05)
    assert fast == sorted(fast)
    assert fast[-1] == slow[0] == pytest.approx(2.0)


class Wire:
    """One end of a link between two couriers. `fate` says how many copies of a datagram arrive."""

    handshake_time = 0.001
    max_datagram_size = 1200

    def __init__(self, fate: Callable[[], int]) -> None:
        self._fate = fate
        self._arrived: deque[bytes | Closed] = deque()
        self._news = anyio.Event()
        self.other: Wire | None = None
        self.sent: list[bytes] = []

    async def send_datagram(self, data: bytes) -> None:
        assert self.other is not None
        self.sent.append(data)
        await anyio.lowlevel.checkpoint()
        for _ in range(self._fate()):
            self.other.arrive(data)

    def arrive(self, what: bytes | Closed) -> None:
        self._arrived.append(what)
        self._news.set()

    async def receive_datagram(self) -> bytes:
        while not self._arrived:
            self._news = anyio.Event()
            await self._news.wait()
        what = self._arrived[0]
        if isinstance(what, Closed):
            raise what
        self._arrived.popleft()
        return what


def link(fate: Callable[[], int] = lambda: 1) -> tuple[Wire, Wire]:
    one, other = Wire(fate), Wire(fate)
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
        assert await sender.send("one", 5) == 1
        assert await sender.send("", 5) == 1
        group.cancel_scope.cancel()
    assert taken == ["one", ""]


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
async def test_a_copy_is_confirmed_again_but_not_taken_again_also_on_a_new_session() -> None:
    taken: list[str] = []
    inbox = Inbox()
    copy = courier.encode_text(b"8 bytes!", "text", 1200)
    for _ in range(2):
        here, there = link()
        async with anyio.create_task_group() as group:
            group.start_soon(Courier(there, taken.append, inbox).pump)
            await here.send_datagram(copy)
            await here.send_datagram(copy)
            for _ in range(2):
                assert await here.receive_datagram() == courier.encode_taken(b"8 bytes!")
            group.cancel_scope.cancel()
    assert taken == ["text"]


@pytest.mark.anyio
async def test_the_end_of_the_session_ends_a_send() -> None:
    here, _ = link(lambda: 0)
    sender = Courier(here)
    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        here.arrive(Closed(0, "gone"))
        with pytest.raises(Closed, match="gone"):
            await sender.send("one", 60)


@pytest.mark.anyio
async def test_garbage_and_foreign_confirmations_are_passed_over() -> None:
    here, there = link()
    taken: list[str] = []
    sender = Courier(here)
    async with anyio.create_task_group() as group:
        group.start_soon(sender.pump)
        group.start_soon(Courier(there, taken.append).pump)
        for junk in (b"", b"junk", courier.encode_taken(b"not sent")):
            here.arrive(junk)
            there.arrive(junk)
        assert await sender.send("one", 5) == 1
        group.cancel_scope.cancel()
    assert taken == ["one"]


def virtual(test: Callable[[], Any]) -> None:
    """Run on trio with a clock that jumps to the next thing to do."""
    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("seed", range(30))
def test_texts_arrive_in_order_and_once_over_a_bad_link(seed: int) -> None:
    dice = random.Random(seed)
    texts = [f"text {number}" for number in range(20)]
    taken: list[str] = []

    async def exchange() -> None:
        here, there = link(lambda: dice.choices([0, 1, 2], [40, 40, 20])[0])
        sender = Courier(here)
        async with anyio.create_task_group() as group:
            group.start_soon(sender.pump)
            group.start_soon(Courier(there, taken.append).pump)
            for text in texts:
                await sender.send(text, 60)
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
            with pytest.raises(NotTaken, match=r"within 20 s \(\d+ copies sent\)"):
                await sender.send("one", 20)
            assert trio.current_time() - began == pytest.approx(20)
            assert 10 < len(here.sent) < 25
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
