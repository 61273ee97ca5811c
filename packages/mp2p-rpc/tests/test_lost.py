"""Connections that end, peers that start anew, answers and requests that break off (rows C5 and C7)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

import mp2p_core
from mp2p_core import Closed, Identity, StreamClosed
from mp2p_rpc import (
    BadAnswer,
    BadResult,
    InterfaceError,
    OutcomeUnknown,
    Peer,
    RequestRefused,
    Retry,
    Service,
    method,
    open_node,
)
from mp2p_rpc.frames import (
    CallHeader,
    ErrorBody,
    FrameReader,
    FrameType,
    decode_error_untrusted,
    encode_call,
    encode_error,
    encode_frame,
)

pytestmark = pytest.mark.anyio

QUICK = Retry(attempts=5, first=0.01, longest=0.05)


class Counter(Service):
    """Counts what it has run; `fate` ends the caller's connection in the midst of it."""

    def __init__(self) -> None:
        self.runs = 0
        self.server: Any = None
        self.fates: list[bool] = []

    def _meet_fate(self) -> None:
        self.runs += 1
        if self.fates and self.fates.pop(0):
            for peer in self.server.peers():
                peer.close_now(77, "gone")

    async def add(self) -> int:
        self._meet_fate()
        await anyio.lowlevel.checkpoint()
        return self.runs

    @method(idempotent=True)
    async def read(self) -> int:
        self._meet_fate()
        await anyio.lowlevel.checkpoint()
        return self.runs

    @method(idempotent=True)
    async def listing(self, count: int) -> AsyncIterator[int]:
        self._meet_fate()
        await anyio.lowlevel.checkpoint()
        for number in range(count):
            yield number
            if number == 1:
                self._meet_fate()

    async def total(self, items: AsyncIterator[int]) -> int:
        found = 0
        async for each in items:
            found += each
            self._meet_fate()
        return found


async def endless() -> AsyncIterator[int]:
    while True:
        yield 1


@pytest.mark.parametrize("intercepted", [False, True])
async def test_C5_a_connection_lost_before_the_answer_leaves_the_outcome_unknown(
    net: Any, intercepted: bool
) -> None:
    interceptors = [lambda _call: contextlib.nullcontext()] * intercepted
    counter = Counter()
    async with net.serving(counter) as (peer, counter.server):
        counter.fates = [True]
        with pytest.raises(OutcomeUnknown, match=r"77: gone.*outcome is not known") as lost:
            await peer.client(Counter, interceptors=interceptors).add()
        assert (lost.value.stage, lost.value.method) == ("sent", "Counter.add")
        assert counter.runs == 1  # it has run, and nobody will say what came of it, or call it again
        with pytest.raises(Closed):
            await peer.client(Counter).add()
        await peer.reconnect()
        assert await peer.client(Counter).add() == 2


async def test_C5_lost_within_a_stream_says_after_how_many_items(net: Any) -> None:
    counter = Counter()
    async with net.serving(counter) as (peer, counter.server):
        counter.fates = [False, True]
        results = peer.client(Counter).listing(5)
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(OutcomeUnknown) as lost:
            await anext(results)
        assert lost.value.stage == "after 2 items"  # an item has been seen: not called again
        await peer.reconnect()
        counter.fates = [True]
        with pytest.raises(OutcomeUnknown):
            await peer.client(Counter).total(endless())


async def test_C5_an_idempotent_call_is_made_again_over_a_new_connection(net: Any) -> None:
    counter = Counter()
    async with net.serving(counter) as (peer, counter.server):
        client = peer.client(Counter, retry=QUICK)
        counter.fates = [True, True, False]
        assert await client.read() == 3
        counter.fates = [True, False]
        assert [each async for each in client.listing(2)] == [0, 1]
        counter.fates = [True] * 5
        with pytest.raises(OutcomeUnknown):
            await client.read()
        assert counter.fates == []  # five attempts, as told


async def test_C5_many_idempotent_calls_share_the_new_connection(net: Any) -> None:
    counter = Counter()
    async with net.serving(counter) as (peer, counter.server):
        client = peer.client(Counter, retry=QUICK)
        counter.fates = [False] * 10 + [True]
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(client.read)
        assert counter.runs > 30
        assert len(counter.server.peers()) == 1


async def test_C5_a_peer_that_is_restarted_is_found_again(net: Any) -> None:
    """Without a word, as when its machine loses power; the caller notices by the silence."""
    key = Identity.generate()
    async with open_node(transports=[net.transport()], idle_timeout=0.3) as client:
        async with open_node(key, transports=[net.transport()]) as server:
            async with server.serving(first := Counter(), allow=[client.key]):
                connecting = client.connect(server.contact)
                peer = await connecting.__aenter__()
                assert await peer.client(Counter).add() == 1
                net.drop = lambda _: True
        net.drop = lambda _: False
        async with open_node(key, transports=[net.transport()]) as server:
            async with server.serving(second := Counter(), allow=[client.key]):
                with pytest.raises((OutcomeUnknown, Closed)):
                    await peer.client(Counter).add()
                assert await peer.client(Counter, retry=QUICK).read() == 1
                await connecting.__aexit__(None, None, None)
    assert (first.runs, second.runs) == (1, 1)


async def test_outside_of_the_block_nobody_connects_again(net: Any) -> None:
    async with net.serving(Counter()) as (peer, server):
        async with peer._node.connect(server.contact) as other:
            client = other.client(Counter, retry=QUICK)
            assert await client.read() == 1
        with pytest.raises(Closed):
            await client.read()


def test_a_method_that_takes_a_stream_cannot_be_idempotent() -> None:
    with pytest.raises(InterfaceError, match="cannot be called again by itself"):

        class Broken(Service):
            @method(idempotent=True)
            async def total(self, items: AsyncIterator[int]) -> int: ...


# --- a peer that answers what no honest one does ------------------------------------------------------------


class Ask(Service):
    async def one(self) -> int: ...

    async def many(self) -> AsyncIterator[int]:
        yield 0

    async def give(self, items: AsyncIterator[int]) -> int: ...


ITEM = encode_frame(FrameType.ITEM, b"\x05")
RESULT = encode_frame(FrameType.RESULT, b"\x05")
END = encode_frame(FrameType.END)

ANSWERS: dict[str, tuple[bytes, type[Exception], str]] = {
    "nothing": (b"", BadAnswer, "breaks off"),
    "part of a header": (RESULT[:3], BadAnswer, "ends within a message"),
    "part of a result": (RESULT[:-1], BadAnswer, "ends within a message"),
    "an item for a result": (ITEM + END, BadAnswer, "ends before the result"),
    "no frame at all": (b"HTTP/1.1 200 OK\r\n", BadAnswer, "no frame of type 72"),
    "a call for an answer": (encode_call(CallHeader(1, "S", 1, "m")), BadAnswer, "ends before the result"),
    "too large": (b"\x04\xff\xff\xff\xff", BadAnswer, "4294967295 bytes, at most 1048576"),
    "bad msgpack": (encode_frame(FrameType.RESULT, b"\xc1"), BadAnswer, "cannot be read"),
    "bytes after the result": (encode_frame(FrameType.RESULT, b"\x05\x05"), BadAnswer, "cannot be read"),
    "another type": (encode_frame(FrameType.RESULT, b"\xa1x"), BadResult, "Expected `int`, got `str`"),
    "an unknown error": (encode_error(ErrorBody(99)), BadAnswer, "unknown kind 99"),
    "a bad error": (encode_frame(FrameType.ERROR, b"\xc0"), BadAnswer, "ERROR cannot be read"),
}
STREAMS: dict[str, tuple[bytes, int, type[Exception], str]] = {
    "nothing": (b"", 0, BadAnswer, "breaks off"),
    "items without their end": (ITEM + ITEM, 2, BadAnswer, "breaks off"),
    "part of an item": (ITEM + ITEM[:-1], 1, BadAnswer, "ends within a message"),
    "a result for an item": (ITEM + RESULT, 1, BadAnswer, "no stream of items"),
    "another type": (ITEM + encode_frame(FrameType.ITEM, b"\xa1x"), 1, BadResult, "got `str`"),
}


@asynccontextmanager
async def answering(net: Any, answer: bytes, then: str = "end") -> AsyncIterator[Peer]:
    """Connect to a node of the core alone, which answers each stream with the same bytes."""
    async with (
        mp2p_core.open_node(allow="any", transports=[net.transport()]) as node,
        open_node(transports=[net.transport()]) as client,
        anyio.create_task_group() as tasks,
    ):

        async def serve() -> None:
            peer = await node.accept()
            with contextlib.suppress(Closed):
                while True:
                    stream = await peer.accept_stream()
                    if answer:
                        await stream.send(answer)
                    if then == "end":
                        await stream.send_eof()
                    elif then == "reset":
                        await stream.reset(9)
                    else:
                        peer.close_now(77, "gone")

        tasks.start_soon(serve)
        async with client.connect(node.contact) as peer:
            yield peer
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("name", ANSWERS)
async def test_C7_an_answer_that_breaks_off_or_is_none_is_an_error(net: Any, name: str) -> None:
    answer, kind, words = ANSWERS[name]
    async with answering(net, answer) as peer:
        for _ in range(2):
            with pytest.raises(kind, match=words) as failure:
                await peer.client(Ask).one()
            assert failure.value.method == "Ask.one"
            with pytest.raises(kind):
                await peer.client(Ask).give(endless())


@pytest.mark.parametrize("name", STREAMS)
async def test_C7_a_stream_of_results_without_its_last_frame_is_never_short_and_well(
    net: Any, name: str
) -> None:
    answer, count, kind, words = STREAMS[name]
    async with answering(net, answer) as peer:
        for _ in range(2):
            results = peer.client(Ask).many()
            assert [await anext(results) for _ in range(count)] == [5] * count
            with pytest.raises(kind, match=words):
                await anext(results)


@pytest.mark.parametrize("then", ["reset", "close"])
async def test_C7_an_answer_given_up_midway_leaves_the_outcome_unknown(net: Any, then: str) -> None:
    async with answering(net, RESULT[:3], then) as peer:
        with pytest.raises(OutcomeUnknown):
            await peer.client(Ask).one()


# --- a peer that asks what no honest one does ---------------------------------------------------------------

CALL = encode_call(CallHeader(1, "Counter", 1, "add"))
TOTAL = encode_call(CallHeader(1, "Counter", 1, "total"))
NO_ARGUMENTS = encode_frame(FrameType.ARGUMENTS, b"\x80")

REQUESTS: dict[str, tuple[bytes, str, str]] = {
    "nothing": (b"", "malformed", "before the message"),
    "part of a call": (CALL[:-1], "malformed", "before the message|within a message"),
    "no arguments": (CALL, "malformed", "before"),
    "part of the arguments": (CALL + NO_ARGUMENTS[:-1], "malformed", "within a message|before"),
    "no call": (NO_ARGUMENTS, "malformed", "begins with CALL"),
    "two calls": (CALL + CALL, "malformed", "ARGUMENTS come after CALL"),
    "no frame": (b"GET / HTTP/1.1\r\n\r\n", "malformed", "no frame of type 71"),
    "a call too large": (b"\x01\x7f\xff\xff\xff", "too-large", "at most 16384"),
    "arguments too large": (CALL + b"\x02\x7f\xff\xff\xff", "too-large", "at most 1048576"),
    "arguments before the call": (b"\x02\x00\x00\x00\x01\x80" + CALL, "malformed", "CALL"),
    "bad msgpack": (CALL + encode_frame(FrameType.ARGUMENTS, b"\xc1"), "malformed", "no msgpack"),
    "bytes after the arguments": (CALL + encode_frame(FrameType.ARGUMENTS, b"\x80\x80"), "malformed", "trailing"),
    "a time that is none": (
        encode_call(CallHeader(1, "Counter", 1, "add", float("nan"))) + NO_ARGUMENTS, "deadline", "",
    ),
    "items without their end": (TOTAL + NO_ARGUMENTS + ITEM, "malformed", "break off"),
    "part of an item": (TOTAL + NO_ARGUMENTS + ITEM[:-1], "malformed", "within a message"),
    "an item of another type": (TOTAL + NO_ARGUMENTS + encode_frame(FrameType.ITEM, b"\xa1x"), "misfit", "got `str`"),
}  # fmt: skip


@pytest.mark.parametrize("pieces", [1, 1000])
@pytest.mark.parametrize("name", REQUESTS)
async def test_C7_a_request_that_breaks_off_or_is_none_is_refused(net: Any, name: str, pieces: int) -> None:
    request, reason, words = REQUESTS[name]
    counter = Counter()
    async with net.serving(counter, allow="any") as (good, server):
        async with (
            mp2p_core.open_node(transports=[net.transport()]) as client,
            client.connect(server.contact) as peer,
        ):
            stream = await peer.open_stream()
            size = max(1, len(request) // pieces)
            with contextlib.suppress(StreamClosed):  # when the answer is there before the rest
                for at in range(0, len(request), size):
                    await stream.send(request[at : at + size])
                await stream.send_eof()
            reader = FrameReader(1 << 20)
            with anyio.fail_after(5):
                while True:
                    try:
                        reader.feed(await stream.receive())
                    except anyio.EndOfStream:
                        break
            frame = reader.next_untrusted()
            assert frame is not None
            assert frame.type is FrameType.ERROR
            error = decode_error_untrusted(frame.body)
            if reason == "deadline":
                assert error.kind == 5
            else:
                assert error.code in reason.split("|")
            assert not words or any(word in error.message for word in words.split("|")), error.message
        assert await good.client(Counter).add() == counter.runs
    assert counter.runs == (2 if "items without" in name else 1)


async def test_C7_items_that_break_off_are_an_error_of_the_handler_too(net: Any) -> None:
    seen: list[Exception] = []

    class Careful(Service):
        async def total(self, items: AsyncIterator[int]) -> int:
            try:
                return sum([each async for each in items])
            except RequestRefused as error:
                seen.append(error)
                return -1

    async with net.serving(Careful(), allow="any") as (_, server):
        async with (
            mp2p_core.open_node(transports=[net.transport()]) as client,
            client.connect(server.contact) as peer,
        ):
            stream = await peer.open_stream()
            await stream.send(encode_call(CallHeader(1, "Careful", 1, "total")) + NO_ARGUMENTS + ITEM)
            await stream.send_eof()
            assert await stream.receive() == encode_frame(FrameType.RESULT, b"\xff")
    assert "break off" in str(seen[0])
