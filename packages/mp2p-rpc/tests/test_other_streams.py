"""Streams of other protocols beside calls: `Node.other_streams`."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

import mp2p_rpc
from mp2p_core import StreamClosed, StreamReset, UsageError
from mp2p_rpc import Peer, Service

pytestmark = pytest.mark.anyio


class Echo(Service):
    async def say(self, text: str) -> str:
        return text


async def ask(peer: Peer, *pieces: bytes) -> bytes:
    """Say something on a stream and return everything that is answered."""
    async with await peer.open_stream() as stream:
        with suppress(StreamClosed):  # refused before it is whole
            for piece in pieces:
                await stream.send(piece)
                await anyio.wait_all_tasks_blocked()
            await stream.send_eof()
        return b"".join([each async for each in stream])


async def upper(peer: Peer) -> None:
    """Answer streams in capitals."""
    async with anyio.create_task_group() as tasks:

        async def answer(stream: Any) -> None:
            async with stream:
                heard = await stream.receive(3)
                await stream.send(heard.upper() + b"".join([each.upper() async for each in stream]))

        while True:
            tasks.start_soon(answer, await peer.accept_stream())


@pytest.mark.parametrize(
    "pieces", [(b"mpeople",), (b"m", b"people"), (b"m", b"people" * 100_000)], ids=["whole", "a byte", "much"]
)
async def test_a_stream_of_another_protocol_arrives_whole_beside_calls(
    net: Any, pieces: tuple[bytes, ...]
) -> None:
    async with net.serving(Echo()) as (peer, server), anyio.create_task_group() as tasks:
        with server.other_streams(b"m", lambda _peer: True):
            tasks.start_soon(upper, await server.accept())
            assert await ask(peer, *pieces) == b"".join(pieces).upper()
            assert await peer.client(Echo).say("hello") == "hello"
            tasks.cancel_scope.cancel()


async def test_a_stream_that_came_before_is_passed_on_too(net: Any) -> None:
    async with (
        mp2p_rpc.open_node(allow="any", transports=[net.transport()]) as server,
        mp2p_rpc.open_node(transports=[net.transport()]) as client,
        client.connect(server.contact) as peer,
        anyio.create_task_group() as tasks,
    ):
        answers = []

        async def asking() -> None:
            answers.append(await ask(peer, b"mpeople"))
            tasks.cancel_scope.cancel()

        tasks.start_soon(asking)
        accepted = await server.accept()
        await anyio.wait_all_tasks_blocked()
        with server.other_streams(b"m", lambda _peer: True):
            async with server.serving(Echo(), allow="any"):
                await upper(accepted)
    assert answers == [b"MPEOPLE"]


@pytest.mark.parametrize("wanted", [True, False], ids=["another byte", "not wanted"])
async def test_C2_what_nobody_has_asked_for_is_refused_at_once(net: Any, wanted: bool) -> None:
    asked = []

    def decide(peer: Peer) -> bool:
        asked.append(peer.key)
        return wanted

    async with net.serving(Echo()) as (peer, server):
        with server.other_streams(b"m", decide):
            answer = await ask(peer, b"people" if wanted else b"mpeople")
        assert b"no frame of type" in answer
        assert len(asked) == (not wanted)
        assert b"no frame of type" in await ask(peer, b"mpeople")  # and behind the block, whatever it was
        assert await peer.client(Echo).say("hello") == "hello"


async def test_C2_nothing_of_a_call_is_passed_on(net: Any) -> None:
    """Neither a call that cannot be read, with the other protocol behind it, nor one that becomes it later."""
    async with net.serving(Echo()) as (peer, server):
        with server.other_streams(b"m", lambda _peer: True):
            assert b"malformed" in await ask(peer, b"\x01\0\0\0\x01\xc1" + b"mpeople")
            assert b"malformed" in await ask(peer, b"\x07mpeople")


async def test_only_one_asks_for_a_byte_and_never_for_calls(net: Any) -> None:
    async with net.serving(Echo()) as (_, server):
        with server.other_streams(b"m", lambda _peer: True):
            with pytest.raises(UsageError, match="already"), server.other_streams(b"m", lambda _peer: True):
                pass
            with (
                pytest.raises(UsageError, match="from 32"),
                server.other_streams(b"\x01", lambda _peer: True),
            ):
                pass


async def test_a_reset_behind_what_was_passed_on_is_told(net: Any) -> None:
    async with net.serving(Echo()) as (peer, server):
        with server.other_streams(b"m", lambda _peer: True):
            accepted = await server.accept()
            stream = await peer.open_stream()
            await stream.send(b"mp")
            taken = await accepted.accept_stream()
            await stream.reset(7)
            assert await taken.receive(1) == b"m"
            assert await taken.receive() == b"p"
            with pytest.raises(StreamReset):
                await taken.receive()
