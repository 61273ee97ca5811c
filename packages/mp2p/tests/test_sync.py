"""The face without await: two nodes on loopback, each with an event loop in a thread, on both kinds of it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel
import pytest

import mp2p
import mp2p.sync
from mp2p_core.lifetime import NodeOptions

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="multicast over lo needs no set-up on Linux only"
)


class Thermostat(mp2p.Service):
    def __init__(self) -> None:
        self.target = 20.0
        self.given_up = threading.Event()

    async def set_target(self, celsius: float) -> float:
        self.target = celsius
        return self.target

    async def readings(self, count: int) -> AsyncIterator[float]:
        for number in range(count):
            yield self.target + number

    async def mean(self, values: AsyncIterator[float]) -> float:
        found = [value async for value in values]
        return sum(found) / len(found)

    async def forever(self) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await anyio.lowlevel.checkpoint()
        finally:
            self.given_up.set()

    async def wait(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.given_up.set()


@mp2p.function
async def double(number: int) -> int:
    return 2 * number


@pytest.fixture(params=["asyncio", "trio"], scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def scene(backend: str) -> Iterator[tuple[mp2p.sync.Peer, Thermostat]]:
    here, there = mp2p.Identity.generate(), mp2p.Identity.generate()
    thermostat = Thermostat()
    with (
        mp2p.sync.open_node(there, backend=backend, transports=["v4"], reach="host") as server,
        mp2p.sync.open_node(here, backend=backend, transports=["v4"], reach="host") as client,
        server.serving(thermostat, double, allow=[here.public]),
        client.connect(server.contact) as peer,
    ):
        yield peer, thermostat


Scene = tuple[mp2p.sync.Peer, Thermostat]


def test_calls_of_every_shape(scene: Scene) -> None:
    peer, thermostat = scene
    client = peer.client(Thermostat)
    assert client.set_target(21.5) == 21.5
    assert thermostat.target == 21.5
    assert list(client.readings(count=3)) == [21.5, 22.5, 23.5]
    assert client.mean(iter([1.0, 2.0, 6.0])) == 3.0
    assert client.mean(values=(float(number) for number in range(3))) == 1.0
    assert peer.client(double)(21) == 42


def test_what_was_described_can_be_called(scene: Scene) -> None:
    peer, _ = scene
    (described,) = (each for each in peer.describe() if each.name == "Thermostat")
    assert peer.client(described).set_target(celsius=19.0) == 19.0


def test_errors_are_those_of_the_async_names(scene: Scene) -> None:
    peer, _ = scene
    with pytest.raises(mp2p.ArgumentError):
        peer.client(Thermostat).set_target("warm")
    with pytest.raises(mp2p.UsageError):
        peer.client("Thermostat")


def test_a_timeout_ends_the_call_at_both_ends(scene: Scene) -> None:
    peer, thermostat = scene
    thermostat.given_up.clear()
    with pytest.raises(TimeoutError):
        peer.client(Thermostat, timeout=0.05).wait()
    assert thermostat.given_up.wait(10)


def test_leaving_a_loop_gives_the_call_up(scene: Scene) -> None:
    peer, thermostat = scene
    thermostat.given_up.clear()
    results = peer.client(Thermostat).forever()
    assert next(results) == 1
    results.close()
    assert thermostat.given_up.wait(10)


def test_the_rest_of_a_peer(scene: Scene) -> None:
    peer, _ = scene
    assert peer.ping(timeout=10) < 10
    assert peer.rtt < 10
    assert peer.path.startswith("v4 ")
    assert peer.closed is None


def test_messages_streams_and_datagrams(backend: str) -> None:
    with (
        mp2p.sync.open_node(
            mp2p.Identity.generate(), backend=backend, transports=["v4"], reach="host", allow="any"
        ) as server,
        mp2p.sync.open_node(
            mp2p.Identity.generate(), backend=backend, transports=["v4"], reach="host"
        ) as client,
        client.connect(server.contact) as there,
    ):
        here = server.accept(timeout=10)
        assert here.key == client.key
        assert [peer.key for peer in server.peers()] == [client.key]
        there.send(b"a message")
        assert here.receive(timeout=10) == b"a message"
        there.send_datagram(b"a datagram")
        assert here.receive_datagram(timeout=10) == b"a datagram"
        with there.open_stream() as stream:
            stream.send(b"bytes" * 1000)
            stream.send_eof()
            accepted = here.accept_stream(timeout=10)
            assert b"".join(accepted) == b"bytes" * 1000
            accepted.send(b"back")
            accepted.close()
            assert stream.receive(timeout=10) == b"back"
            assert stream.receive(timeout=10) == b""
        with pytest.raises(TimeoutError):
            here.receive(timeout=0.01)
        here.close(7, "enough")
        with pytest.raises(mp2p.Closed, match="enough"):
            there.receive(timeout=10)


def test_several_threads_may_call_at_once(scene: Scene) -> None:
    peer, _ = scene
    results: list[float] = []
    client = peer.client(double)
    threads = [
        threading.Thread(target=lambda number=number: results.append(client(number))) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [2 * number for number in range(8)]


def test_what_is_left_of_a_closed_node_says_so(backend: str) -> None:
    options: NodeOptions = {"transports": ["v4"], "reach": "host"}
    with (
        mp2p.sync.open_node(mp2p.Identity.generate(), backend=backend, **options) as server,
        mp2p.sync.open_node(mp2p.Identity.generate(), backend=backend, **options) as client,
        server.serving(Thermostat(), allow=[client.key]),
        client.connect(server.contact) as peer,
    ):
        thermostat = peer.client(Thermostat)
        results = thermostat.forever()
        assert next(results) == 1
    results.close()
    for use in (
        lambda: thermostat.set_target(20.0),
        lambda: peer.send(b"late"),
        lambda: client.connect(server.contact).__enter__(),
        server.accept,
    ):
        with pytest.raises(mp2p.Closed, match="closed"):
            use()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_to_open_its_own(scene: Scene) -> None:
    peer, _ = scene
    if (child := os.fork()) == 0:
        code = 1
        try:
            peer.ping()
        except mp2p.UsageError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_topics(backend: str) -> None:
    topic = mp2p.Topic("numbers/a", int)
    publishing = mp2p.sync.open_node(
        mp2p.Identity.generate(), backend=backend, transports=["v4"], reach="host"
    )
    subscribing = mp2p.sync.open_node(
        mp2p.Identity.generate(), backend=backend, transports=["v4"], reach="host"
    )
    with publishing as publisher, subscribing as subscriber:
        with publisher.publish(topic, allow=[subscriber.key]) as pub:
            with pytest.raises(mp2p.ArgumentError):
                pub.send("text")  # type: ignore[arg-type]  # that is the point
            with subscriber.subscribe(publisher.contact, "numbers/*", type=int) as feed:
                pub.ready(timeout=20)
                assert pub.subscribers() == (subscriber.key,)
                with pytest.raises(TimeoutError):
                    feed.take(timeout=0)
                numbers = [pub.send(value) for value in (7, 8, 9)]
                assert pub.delivered()
                (first, *rest) = (next(feed) for _ in range(3))
                assert isinstance(first, mp2p.Message)
                assert (first.number, first.value, first.topic) == (numbers[0], 7, "numbers/a")
                assert [getattr(each, "value", None) for each in rest] == [8, 9]
                assert feed.topics == ("numbers/a",)
                assert feed.sources[publisher.key].connected
                pub.revoke(subscriber.key)
                (gap,) = feed.take(timeout=20)
                assert isinstance(gap, mp2p.Gap)
            assert list(feed) == []
            presence = pub.presence(timeout=20)
            assert [next(presence).joined for _ in range(2)] == [True, False]
