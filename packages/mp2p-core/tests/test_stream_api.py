"""Streams as applications use them, over the in-memory transport, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.stapled import StapledByteStream
from anyio.streams.text import TextReceiveStream, TextSendStream

from mp2p_core import Closed, Peer, Stream, StreamClosed, StreamReset, UsageError
from mp2p_core.proto import constants as c
from mp2p_core.testing.pair import pair

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def streams() -> AsyncIterator[tuple[Stream, Stream]]:
    """Connect two nodes with a stream, on which a byte has gone each way."""
    async with pair() as (here, there):
        yield await between(here, there)


async def between(here: Peer, there: Peer) -> tuple[Stream, Stream]:
    near = await here.open_stream()
    await near.send(b"!")
    far = await there.accept_stream()
    await far.send(b"?")
    assert (await far.receive(), await near.receive()) == (b"!", b"?")
    return near, far


async def read_all(stream: Stream) -> bytes:
    return b"".join([chunk async for chunk in stream])


async def expect(error: type[Exception], call: Callable[[], Awaitable[Any]], **attributes: object) -> None:
    """See that a call raises an error, and that it does so again."""
    for _ in range(2):
        with pytest.raises(error) as failure:
            await call()
        assert {name: getattr(failure.value, name) for name in attributes} == attributes


class Waiting:
    """A call in a task of its own: whether it waits, and what it raised."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call
        self.raised: BaseException | None = None
        self.over = False

    async def __call__(self) -> None:
        try:
            await self._call()
        except (anyio.ClosedResourceError, anyio.BusyResourceError, anyio.EndOfStream, Closed) as error:
            self.raised = error
        except (StreamClosed, StreamReset) as error:
            self.raised = error
        self.over = True


# --- bytes, in order, with an end ----------------------------------------------------------------------


async def test_bytes_arrive_in_order_and_the_end_after_them() -> None:
    data = bytes(range(256)) * 12_000
    async with streams() as (near, far), anyio.create_task_group() as group:

        async def send() -> None:
            await near.send(data)
            await near.send_eof()
            await near.send_eof()

        group.start_soon(send)
        assert await read_all(far) == data
        await expect(anyio.EndOfStream, far.receive)
        await far.send(b"the other direction goes on")
        assert await near.receive() == b"the other direction goes on"


async def test_no_more_is_returned_than_was_asked_for() -> None:
    async with streams() as (near, far):
        await near.send(bytes(200_000))
        total = 0
        while total < 200_000:
            piece = await far.receive(min(1000, 200_000 - total))
            assert 0 < len(piece) <= 1000
            assert type(piece) is bytes
            total += len(piece)
        with pytest.raises(UsageError):  # a ValueError, as anyio has it
            await far.receive(0)


async def test_other_buffers_are_sent_as_they_are_at_the_call() -> None:
    async with streams() as (near, far):
        for size in (10, 100_000):
            buffer = bytearray(b"x" * size)
            await near.send(buffer)
            buffer[:] = b"y" * size
        await near.send(memoryview(b"a-b-c-")[::2])
        await near.send(memoryview(b"\1\0\2\0").cast("H"))
        await near.send(b"")
        await near.send_eof()
        assert await read_all(far) == b"x" * 100_010 + b"abc" + b"\1\0\2\0"


async def test_anyios_own_tools_take_a_stream() -> None:
    async with streams() as (near, far):
        buffered = BufferedByteReceiveStream(far)
        await near.send(b"one\r\ntwothree")
        assert await buffered.receive_until(b"\r\n", 100) == b"one"
        assert await buffered.receive_exactly(3) == b"two"
        await TextSendStream(near).send("grüß")
        assert await buffered.receive_exactly(5) == b"three"
        assert await TextReceiveStream(buffered).receive() == "grüß"
        stapled = StapledByteStream(send_stream=far, receive_stream=far)
        await stapled.send(b"back")
        assert await near.receive() == b"back"
        await near.send(b"cut")
        await near.send_eof()
        with pytest.raises(anyio.IncompleteRead):
            await buffered.receive_exactly(4)
        await stapled.aclose()
        await expect(anyio.EndOfStream, near.receive)


async def test_code_for_any_anyio_stream_knows_its_errors() -> None:
    async with streams() as (near, far):
        await near.reset(1)
        await expect(anyio.BrokenResourceError, far.receive)
        await near.stop(1)
        await expect(anyio.BrokenResourceError, lambda: far.send(bytes(3 << 20)))
    async with streams() as (near, far):
        pass
    await expect(anyio.BrokenResourceError, far.receive)


# --- how a direction ends, and what each later call says -----------------------------------------------


async def test_a_reset_is_told_with_its_code_each_time() -> None:
    async with streams() as (near, far):
        await near.send(b"unread, and dropped")
        await near.reset(7)
        await expect(StreamReset, far.receive, code=7, stream=near.number)
        await expect(anyio.ClosedResourceError, lambda: near.send(b"more"))
        await near.send_eof()
        await far.send(b"the other direction goes on")
        assert await near.receive() == b"the other direction goes on"
        await far.stop()  # too late to matter
        await expect(StreamReset, far.receive, code=7)


async def test_a_stop_is_told_with_its_code_each_time() -> None:
    async with streams() as (near, far):
        await near.send(b"unread, and dropped")
        await far.stop(8)
        await expect(anyio.ClosedResourceError, far.receive)
        await far.send(b"the other direction goes on")
        assert await near.receive() == b"the other direction goes on"
        await expect(StreamClosed, lambda: near.send(b"more"), code=8, stream=near.number)
        await expect(StreamClosed, lambda: near.send(bytes(100_000)), code=8)
        await expect(StreamClosed, near.send_eof, code=8)
        await near.aclose()
        await expect(anyio.ClosedResourceError, lambda: near.send(b"more"))


async def test_a_stop_wakes_who_waits_to_send() -> None:
    async with streams() as (near, far), anyio.create_task_group() as group:
        waiting = Waiting(lambda: near.send(bytes(3 << 20)))
        group.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        assert not waiting.over
        await far.stop(9)
    assert isinstance(waiting.raised, StreamClosed)


async def test_after_the_last_byte_the_end_is_told_even_if_the_connection_has_ended() -> None:
    async with pair() as (here, there):
        near, far = await between(here, there)
        await near.send(b"all of it")
        await near.send_eof()
        unaccepted = await here.open_stream()
        await unaccepted.send(b"nobody knew it")
        await there.ping()
        here.close_now(12)
        with pytest.raises(Closed):
            await there.receive_datagram()
        assert await read_all(far) == b"all of it"
        late = await there.accept_stream()
        assert await late.receive() == b"nobody knew it"
        await expect(Closed, late.receive, code=12)
        await expect(Closed, lambda: late.send(b"x"), code=12)
        await expect(Closed, late.send_eof, code=12)
        await expect(Closed, there.accept_stream, code=12)
        await expect(Closed, there.open_stream, code=12)
        for stream in (near, far, late):
            await stream.aclose()


async def test_who_waits_for_much_gets_what_came_before_the_end_of_the_connection() -> None:
    async with pair() as (here, there):
        near, far = await between(here, there)
        await near.send(b"too little")
        await here.ping()
        here.close_now(12)
        with pytest.raises(Closed):
            await there.receive_datagram()
        assert await far.receive(at_least=1000) == b"too little"
        await expect(Closed, lambda: far.receive(at_least=1000), code=12)


async def test_codes_are_16_bits() -> None:
    async with streams() as (near, _far):
        for code in (-1, 65536):
            await expect(UsageError, lambda code=code: near.reset(code))  # type: ignore[misc] # a default
            await expect(UsageError, lambda code=code: near.stop(code))  # type: ignore[misc] # a default
        await near.send(b"still open")


@pytest.mark.parametrize("call", ["receive", "send", "send much"])
@pytest.mark.parametrize("end", ["aclose", "reset", "stop", "send_eof"])
async def test_ending_a_direction_tells_the_task_that_waits_in_it(call: str, end: str) -> None:
    async with streams() as (near, _far), anyio.create_task_group() as group:

        async def send() -> None:
            while True:
                await near.send(bytes(1000))

        calls = {"receive": near.receive, "send": send, "send much": lambda: near.send(bytes(3 << 20))}
        waiting = Waiting(calls[call])
        group.start_soon(waiting)
        await anyio.wait_all_tasks_blocked()
        assert not waiting.over
        await getattr(near, end)()
        await anyio.wait_all_tasks_blocked()
        if end == "aclose" or (call == "receive") == (end == "stop"):
            assert isinstance(waiting.raised, anyio.ClosedResourceError)
        else:
            assert not waiting.over
            group.cancel_scope.cancel()


async def test_the_end_of_the_connection_tells_every_task_that_waits() -> None:
    async with pair() as (here, there):
        near, _far = await between(here, there)
        calls = (near.receive, lambda: near.send(bytes(3 << 20)), here.accept_stream, here.receive)
        waiting = [Waiting(call) for call in calls]
        async with anyio.create_task_group() as group:
            for each in waiting:
                group.start_soon(each)
            await anyio.wait_all_tasks_blocked()
            await there.aclose(99, "enough")
        for each in waiting:
            assert isinstance(each.raised, Closed)
            assert (each.raised.code, each.raised.reason) == (99, "enough")


async def test_two_tasks_in_one_direction_are_a_mistake_and_harm_nothing() -> None:
    async with streams() as (near, far), anyio.create_task_group() as group:
        group.start_soon(near.receive)
        group.start_soon(near.send, bytes(3 << 20))
        await anyio.wait_all_tasks_blocked()
        await expect(anyio.BusyResourceError, near.receive)
        await expect(anyio.BusyResourceError, lambda: near.send(b"x"))
        await far.send(b"for the first")
        total = 0
        while total < 3 << 20:
            total += len(await far.receive())


async def test_a_block_left_by_an_error_does_not_pass_for_the_whole() -> None:
    async with pair() as (here, there):

        async def break_off() -> None:
            async with await here.open_stream() as stream:
                await stream.send(b"half of ")
                raise KeyError("mine")

        with pytest.raises(KeyError):
            await break_off()
        async with await there.accept_stream() as other:
            await expect(StreamReset, other.receive, code=0)
        async with await here.open_stream() as stream:
            await stream.send(b"all of it")
        async with await there.accept_stream() as other:
            assert await read_all(other) == b"all of it"


# --- cancelling ----------------------------------------------------------------------------------------


async def cancel_when_blocked(call: Callable[..., Awaitable[Any]], *args: object) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(call, *args)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught


@pytest.mark.parametrize("size", [1000, c.UNSENT_FLOOR])
async def test_what_is_small_is_sent_whole_or_when_cancelled_not_at_all(size: int) -> None:
    async with streams() as (near, far):
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await near.send(sent.to_bytes(4, "big") + bytes(size - 4))
                sent += 1

        await cancel_when_blocked(send)  # nobody reads: the last one waited
        async with anyio.create_task_group() as group:

            async def go_on() -> None:
                await near.send(b"and on")
                await near.send_eof()

            group.start_soon(go_on)
            data = await read_all(far)
        assert sent > 2
        assert data[sent * size :] == b"and on"
        assert [data[at : at + 4] for at in range(0, sent * size, size)] == [
            number.to_bytes(4, "big") for number in range(sent)
        ]


async def test_cancelled_receive_loses_nothing() -> None:
    async with streams() as (near, far):
        await cancel_when_blocked(far.receive)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def receive() -> None:
                    await far.receive()
                    raise AssertionError("cancelled, and returned all the same")

                group.start_soon(receive)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await near.send(b"for the next one")
        assert await far.receive() == b"for the next one"
        with anyio.CancelScope() as scope:
            scope.cancel()
            await near.send(b"never sent")
        await near.send(b"x")
        assert await far.receive() == b"x"


async def test_a_cancelled_open_or_accept_takes_no_stream() -> None:
    async with pair() as (here, there):
        await cancel_when_blocked(there.accept_stream)
        kept = [await here.open_stream() for _ in range(c.MAX_OPEN_STREAMS - 1)]  # one is for messages
        await cancel_when_blocked(here.open_stream)
        async with anyio.create_task_group() as group:
            opened: list[Stream] = []

            async def open_one() -> None:
                opened.append(await here.open_stream())

            group.start_soon(open_one)
            await anyio.wait_all_tasks_blocked()
            for stream in kept:
                await stream.aclose()
            for number in range(len(kept)):
                other = await there.accept_stream()
                assert other.number == kept[number].number
                await other.aclose()
        await opened[0].send(b"the hundredth")
        other = await there.accept_stream()
        assert await other.receive() == b"the hundredth"


# --- many ----------------------------------------------------------------------------------------------


async def echo(peer: Peer) -> None:
    """Send back what comes on each stream, until cancelled."""

    async def answer(stream: Stream) -> None:
        async with stream:
            await stream.send(await read_all(stream))

    async with anyio.create_task_group() as group:
        while True:
            group.start_soon(answer, await peer.accept_stream())


async def ask(peer: Peer, question: bytes) -> None:
    async with await peer.open_stream() as stream:
        await stream.send(question)
        await stream.send_eof()
        assert await read_all(stream) == question


async def test_a_stalled_stream_holds_up_no_other_one() -> None:
    async with pair() as (here, there), anyio.create_task_group() as group:
        near, far = await between(here, there)
        stalled = Waiting(lambda: near.send(bytes(3 << 20)))
        group.start_soon(stalled)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(echo, there)
        async with anyio.create_task_group() as asking:
            for number in range(20):
                asking.start_soon(ask, here, bytes([number]) * 20_000)
        assert not stalled.over
        total = 0
        while total < 3 << 20:
            total += len(await far.receive())
        group.cancel_scope.cancel()


async def test_many_tasks_open_more_streams_than_there_may_be_and_none_is_kept() -> None:
    async with pair() as (here, there), anyio.create_task_group() as group:
        group.start_soon(echo, there)

        async def work(number: int) -> None:
            for turn in range(3):
                await ask(here, b"%d %d" % (number, turn) * 100)

        async with anyio.create_task_group() as working:
            for number in range(150):
                working.start_soon(work, number)
        for peer in (here, there):
            assert len(peer._streams) < 300
            for _ in range(
                300
            ):  # it looks for those that ended when there are twice as many as lived, and 64
                await ask(here, b"one at a time")
            assert len(peer._streams) < 100
            await peer.ping()
            live = peer._connection.session.packer.streams.sizes()["streams"]
            assert live <= 2  # for messages
        group.cancel_scope.cancel()


async def test_what_comes_with_the_end_of_a_stream_is_kept_when_another_one_opens_just_before() -> None:
    async with pair() as (here, there):
        asked = []  # and never closed: the peer looks now and then for those that have ended
        for number in range(40):
            near = await here.open_stream()
            near.send_nowait(b"question", last=True)
            far = await there.accept_stream()
            assert await read_all(far) == b"question"
            while here._unfinished():  # noqa: ASYNC110 - so that the answer is all that it waits for; nothing tells
                await anyio.sleep(0.001)
            # In one packet, and so in one batch of events.
            another = await there.open_stream()
            another.send_nowait(b"of its own", last=True)
            far.send_nowait(b"answer %d" % number, last=True)
            assert await read_all(near) == b"answer %d" % number
            async with await here.accept_stream() as other:
                assert await read_all(other) == b"of its own"
            asked.append(near)
            assert len(here._streams) < 36
