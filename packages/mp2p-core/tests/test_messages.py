"""Reliable messages over the in-memory transport, on both event loops."""

from __future__ import annotations

import random
import tracemalloc

import anyio
import pytest

from mp2p_core import Closed, MessageTooLarge, Peer
from mp2p_core.messages import MAX_MESSAGE_SIZE
from mp2p_core.testing.pair import pair

pytestmark = pytest.mark.anyio


async def _fill(peer: Peer, size: int = MAX_MESSAGE_SIZE) -> int:
    """Send until it takes no more; returns how many messages it took."""
    taken = 0
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def send() -> None:
                nonlocal taken
                while True:
                    await peer.send(taken.to_bytes(4, "big") + bytes(size - 4))
                    taken += 1

            tasks.start_soon(send)
            before = -1
            while taken != before:
                before = taken
                await anyio.wait_all_tasks_blocked()
            scope.cancel()
    return taken


async def test_messages_arrive_whole_and_in_order_up_to_the_limit() -> None:
    async with pair() as (here, there):
        sizes = [0, 3, MAX_MESSAGE_SIZE, 4, 65_535, 65_536, 65_537, 300_000, 5]
        sent = [random.Random(size).randbytes(size) for size in sizes]
        async with anyio.create_task_group() as group:

            async def send() -> None:
                for message in sent:
                    await here.send(message)

            group.start_soon(send)
            assert [await there.receive() for _ in sent] == sent
        await there.send(b"and back")
        assert await here.receive() == b"and back"
        with pytest.raises(MessageTooLarge):
            await here.send(bytes(MAX_MESSAGE_SIZE + 1))


async def test_messages_of_any_buffer_are_those_of_the_moment() -> None:
    async with pair() as (here, there):
        buffer = bytearray(b"as it was")
        await here.send(buffer)
        buffer[:] = b"different"
        await here.send(memoryview(b"abc")[::2])
        assert [await there.receive() for _ in range(2)] == [b"as it was", b"ac"]


@pytest.mark.parametrize("size", [1000, 400_000, MAX_MESSAGE_SIZE])
async def test_a_cancelled_message_has_not_been_sent_and_the_others_go_on(size: int) -> None:
    async with pair() as (here, there):
        taken = await _fill(here, size)  # nobody receives: the last one waited, and was cancelled
        assert taken
        async with anyio.create_task_group() as group:
            group.start_soon(here.send, b"after it")
            for number in range(taken):
                message = await there.receive()
                assert (len(message), message[:4]) == (size, number.to_bytes(4, "big"))
            assert await there.receive() == b"after it"


async def test_what_waits_to_be_sent_is_bounded() -> None:
    async with pair() as (here, _there):
        await _fill(here, 600_000)
        sizes = here._connection.session.packer.streams.sizes()
        assert sizes["send bytes"] <= 256 * 1024 + MAX_MESSAGE_SIZE + 4  # the peer's credit, and one message


async def test_a_cancelled_wait_for_a_message_loses_nothing() -> None:
    async with pair() as (here, there):
        for cancelled in (True, False):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(there.receive)
                    await anyio.wait_all_tasks_blocked()
                    scope.cancel()
            assert scope.cancelled_caught
            await here.send(b"still there")
            if cancelled:
                await anyio.wait_all_tasks_blocked()
            assert await there.receive() == b"still there"


async def test_each_message_goes_to_one_of_those_who_wait() -> None:
    async with pair() as (here, there):
        found: list[bytes] = []

        async def receive() -> None:
            found.append(await there.receive())

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            for number in range(5):
                await here.send(bytes([number]))
        assert sorted(found) == [bytes([number]) for number in range(5)]


async def test_messages_and_streams_do_not_wait_for_each_other() -> None:
    async with pair() as (here, there):
        await _fill(here)
        async with await here.open_stream() as stream:
            await stream.send(b"past them")
            async with await there.accept_stream() as other:
                assert await other.receive() == b"past them"
        here.close_now()


async def test_the_code_of_the_end_reaches_who_waits_for_a_first_message() -> None:
    async with pair() as (here, there):
        async with anyio.create_task_group() as group:

            async def receive() -> None:
                with pytest.raises(Closed) as failure:
                    await there.receive()
                assert (failure.value.code, failure.value.reason) == (4711, "enough")

            group.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await here.aclose(4711, "enough")
        for _ in range(2):
            with pytest.raises(Closed, match="4711"):
                await there.receive()
            with pytest.raises(Closed, match="4711"):
                await there.send(b"too late")


async def test_the_code_of_the_end_comes_after_the_messages_before_it() -> None:
    async with pair() as (here, there):
        await here.send(b"last words")
        await here.aclose(0, "done with it")
        assert await there.receive() == b"last words"
        for _ in range(2):
            with pytest.raises(Closed) as failure:
                await there.receive()
            assert (failure.value.code, failure.value.reason) == (0, "done with it")


async def test_a_length_alone_makes_no_room_for_a_message() -> None:
    """A megabyte for four bytes of every peer would be a cheap attack."""
    async with pair() as (here, there), anyio.create_task_group() as group:
        stream = here._begin_messages()
        group.start_soon(there.receive)
        await anyio.wait_all_tasks_blocked()
        tracemalloc.start()
        try:
            for part, most in ((MAX_MESSAGE_SIZE.to_bytes(4, "big"), 300_000), (bytes(100_000), 900_000)):
                await stream.send(part)
                await anyio.wait_all_tasks_blocked()
                assert tracemalloc.get_traced_memory()[0] < most
            await stream.send(bytes(50_000))
            with anyio.fail_after(10):  # paced, so that it comes when the clock says
                while tracemalloc.get_traced_memory()[0] <= MAX_MESSAGE_SIZE:  # noqa: ASYNC110 - nothing tells
                    await anyio.sleep(0.001)
        finally:
            tracemalloc.stop()
        group.cancel_scope.cancel()


@pytest.mark.parametrize("told", ["too long", "cut", "cut when large", "reset"])
async def test_messages_that_are_none_end_the_connection_with_code_2(told: str) -> None:
    """A peer that does not keep to section 6 is told so."""
    async with pair() as (here, there):
        stream = here._begin_messages()
        if told == "too long":
            await stream.send((MAX_MESSAGE_SIZE + 1).to_bytes(4, "big"))
        elif told == "cut when large":
            await stream.send(MAX_MESSAGE_SIZE.to_bytes(4, "big") + bytes(100_000))
        else:
            await stream.send(b"\0\0\0\7half")
        if told.startswith("cut"):
            await stream.send_eof()
        elif told == "reset":
            await stream.reset(1)
        for _ in range(2):
            with pytest.raises(Closed) as failure:
                await there.receive()
            assert failure.value.code == 2
        with pytest.raises(Closed) as failure:
            await here.receive()
        assert failure.value.code == 2
