"""What packages use that build on nodes, peers and streams: classes of their own, calls that cannot wait."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from mp2p_core import Closed, Identity, Node, Peer, PeerUnreachable, Stream, StreamClosed, StreamReset
from mp2p_core.lifetime import open_node, open_node_as
from mp2p_core.proto import constants as c
from mp2p_core.testing.memory import MemoryHub
from mp2p_core.testing.pair import pair

pytestmark = pytest.mark.anyio


async def opened(here: Peer, there: Peer) -> tuple[Stream, Stream]:
    ours = await here.open_stream()
    await ours.send(b"hello")
    theirs = await there.accept_stream()
    assert await theirs.receive() == b"hello"
    return ours, theirs


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - see above
            await anyio.sleep(0.001)


async def test_what_is_sent_in_one_turn_of_the_event_loop_is_one_packet() -> None:
    hub = MemoryHub()
    async with pair(hub) as (here, there):
        ours, _ = await opened(here, there)
        sent: list[bytes] = []
        hub.drop = lambda datagram: sent.append(datagram) or False  # type: ignore[func-returns-value] # counts
        for _ in range(10):
            assert (await here.open_stream()).send_nowait(b"request", last=True)
        theirs = await there.accept_stream()
        assert len(sent) == 1
        for _ in range(9):
            assert await theirs.receive() == b"request"
            with pytest.raises(anyio.EndOfStream):
                theirs.receive_nowait()
            theirs = await there.accept_stream()
        assert len(sent) == 1
        ours.close_now()
        with pytest.raises(anyio.ClosedResourceError):
            ours.send_nowait(b"x")


async def test_who_waits_for_all_of_an_opened_stream_is_woken_when_it_comes() -> None:
    async with pair() as (here, there):
        (await here.open_stream()).send_nowait(b"lower", last=True)
        ours = await here.open_stream()
        async with anyio.create_task_group() as tasks:
            got: set[bytes | None] = set()

            async def read(stream: Stream) -> None:
                got.add(await stream.receive_whole())

            assert (await here.open_stream()).send_nowait(b"higher", last=True)
            for _ in range(3):
                tasks.start_soon(read, await there.accept_stream())
            await anyio.wait_all_tasks_blocked()
            assert got == {b"lower", b"higher"}
            ours.send_nowait(b"between", last=True)
        assert got == {b"lower", b"between", b"higher"}


async def test_what_was_sent_before_closing_at_once_goes_out_before() -> None:
    async with pair() as (here, there):
        await here.send_datagram(b"last words")
        here.close_now(7, "enough")
        assert await there.receive_datagram() == b"last words"
        with pytest.raises(Closed, match="enough"):
            await there.receive_datagram()


async def test_what_came_whole_is_read_in_one_step_and_anything_else_is_left() -> None:
    async with pair() as (here, there):
        for sent, end in ((b"whole", True), (b"begun", False), (b"", True), (b"dropped", True)):
            ours = await here.open_stream()
            assert ours.send_nowait(sent, last=end)
            theirs = await there.accept_stream()
            if sent == b"dropped":
                await theirs.stop()
                assert theirs.receive_whole_nowait() is None
                with pytest.raises(anyio.ClosedResourceError):
                    theirs.receive_nowait()
                continue
            with anyio.fail_after(5):
                assert await theirs.receive_whole() == (sent if sent and end else None)
            if sent and not end:
                assert await theirs.receive() == sent
                await ours.send_eof()
            assert theirs.receive_whole_nowait() is None
            with pytest.raises(anyio.EndOfStream):
                await theirs.receive()
            assert theirs.send_nowait(b"answer", last=True)
            with anyio.fail_after(5):
                assert await ours.receive_whole() == b"answer"
            ours.close_now()
            theirs.close_now()
            await until(lambda ours=ours, theirs=theirs: not (ours.alive or theirs.alive))


async def test_waiting_for_all_of_a_stream_ends_with_it_or_its_connection() -> None:
    async with pair() as (here, there):
        ours, theirs = await opened(here, there)
        async with anyio.create_task_group() as tasks:
            ended: list[bool] = []

            async def read(stream: Stream) -> None:
                with pytest.raises(Closed):
                    await stream.receive_whole()
                ended.append(True)

            tasks.start_soon(read, theirs)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await theirs.receive_whole()
            here.close_now()
        assert ended
        assert ours.receive_whole_nowait() is None


async def test_send_nowait_takes_all_or_nothing() -> None:
    async with pair() as (here, there):
        ours, _ = await opened(here, there)
        taken = 0
        while ours.send_nowait(bytes(100_000)):
            taken += 100_000
        assert taken >= 1_000_000
        assert not ours.send_nowait(bytes(100_000), last=True)
        await ours.send(b"the direction goes on")


async def test_abort_ends_both_directions_and_says_so_with_its_code() -> None:
    async with pair() as (here, there):
        ours, theirs = await opened(here, there)
        ours.abort(77)
        ours.abort(78)
        with pytest.raises(StreamReset) as reset:
            await theirs.receive()
        assert reset.value.code == 77
        with pytest.raises(StreamClosed) as stopped:
            await theirs.send(b"x")
        assert stopped.value.code == 77
        with pytest.raises(anyio.ClosedResourceError):
            await ours.receive()
        await until(lambda: not ours.alive)


@pytest.mark.parametrize("how", ["stop", "abort", "close", "end of the connection"])
async def test_who_serves_a_stream_is_told_once_that_nobody_waits(how: str) -> None:
    async with pair() as (here, there):
        ours, theirs = await opened(here, there)
        told: list[int] = []
        theirs.abandoned = lambda: told.append(1)
        if how == "stop":
            await ours.stop()
        elif how == "abort":
            ours.abort()
        elif how == "close":
            ours.close_now()
        else:
            here.close_now()
        await until(lambda: told)
        there.close_now()
        assert told == [1]


async def test_who_lets_go_of_a_stream_is_told_nothing_more() -> None:
    async with pair() as (here, there):
        ours, theirs = await opened(here, there)
        told: list[int] = []
        theirs.abandoned = lambda: told.append(1)
        theirs.close_now()
        ours.abort()
        await until(lambda: not ours.alive)
        await here.ping()
        assert not told


async def test_F7_what_is_served_may_be_given_up_as_often_as_the_peer_likes() -> None:
    async with pair() as (here, there):
        for _ in range(c.RESET_LIMIT + 10):
            ours, theirs = await opened(here, there)
            theirs.serve()
            ours.abort()
            with pytest.raises(StreamReset):
                await theirs.receive()
            theirs.close_now()
        await here.ping()
        for _ in range(c.RESET_LIMIT + 1):
            ours, theirs = await opened(here, there)
            ours.abort()
            with pytest.raises((StreamReset, Closed)):
                await theirs.receive()
            theirs.close_now()
        await until(lambda: there.closed)
        assert there.closed is not None
        assert there.closed.code == c.CLOSE_EXCESSIVE


class OwnPeer(Peer):
    """Takes streams by itself."""

    taken: list[Stream]

    def stream_opened(self, stream: Stream) -> None:
        self.__dict__.setdefault("taken", []).append(stream)


class OwnNode(Node):
    make_peer = OwnPeer  # type: ignore[assignment] # a class is a function that makes its objects


async def test_a_node_of_another_class_makes_peers_of_another_class() -> None:
    hub = MemoryHub()
    async with (
        open_node_as(OwnNode, allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as here,
    ):
        there = await server.accept()
        assert isinstance(there, OwnPeer)
        await (await here.open_stream()).send(b"for the peer itself")
        await until(lambda: there.__dict__.get("taken"))
        done = anyio.Event()

        async def work() -> None:
            done.set()

        server.tasks.start_soon(work)
        await done.wait()


async def test_who_is_admitted_may_connect_for_as_long_as_the_block_lasts() -> None:
    hub, friend = MemoryHub(), Identity.generate()
    async with (
        open_node(transports=[hub.transport()]) as server,
        open_node(friend, transports=[hub.transport()]) as client,
        open_node(transports=[hub.transport()]) as stranger,
    ):
        with server.admit([friend.public]):
            async with client.connect(server.contact) as here:
                there = await server.accept()
                with pytest.raises(PeerUnreachable):
                    async with stranger.connect(server.contact, timeout=0.05):
                        pass
                await here.ping()
        with pytest.raises(PeerUnreachable):
            async with client.connect(server.contact, timeout=0.05):
                pass
        assert there.key == friend.public


async def test_a_peer_goes_on_over_a_new_connection_when_it_is_called_again() -> None:
    hub = MemoryHub()
    async with (
        open_node(allow="any", transports=[hub.transport()]) as server,
        open_node(transports=[hub.transport()]) as client,
        client.connect(server.contact) as here,
    ):
        there = await server.accept()
        stream = await here.open_stream()
        await client.reconnect(here, server.contact)  # nothing to do
        await stream.send(b"still there")
        await there.aclose(code=100)
        with pytest.raises(Closed):
            await stream.receive()
        assert here.closed is not None
        await client.reconnect(here, server.contact)
        assert here.closed is None
        assert client.peers() == (here,)
        await here.send(b"again")
        assert await (await server.accept()).receive() == b"again"
