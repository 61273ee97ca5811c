"""mp2p without `await`, for scripts and notebooks: the same names, run in a thread of their own.

    import mp2p.sync

    with mp2p.sync.open_node() as node, node.connect("mp2p:...") as peer:
        thermostat = peer.client(Thermostat)
        print(thermostat.set_target(21.5))
        for reading in thermostat.readings(count=3):
            print(reading)

Everything here blocks the calling thread, and Ctrl-C cancels what it waits for. Errors are those of the async
names; a `timeout` in seconds ends in `TimeoutError`. Safe to use from several threads, but not in a forked process,
which has nothing of the event loop.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, Unpack, cast

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

import mp2p
from mp2p_core.lifetime import NodeOptions
from mp2p_rpc import ServiceDescription
from mp2p_rpc.followed import Source

__all__ = ["Client", "Feed", "Node", "Peer", "Publication", "Stream", "open_node"]

T = TypeVar("T")

_END: Final = object()


class _Runner:
    """Runs coroutines in the thread of the event loop, and waits for them here."""

    def __init__(self, portal: BlockingPortal) -> None:
        self._portal = portal
        self._process = os.getpid()
        self.ended = False
        """Whether the block of `open_node` has been left."""

    @property
    def portal(self) -> BlockingPortal:
        """The way into the event loop. Raises `Closed`, or `UsageError` in a forked process, which has none."""
        if self.ended:
            raise mp2p.Closed(0, "this node is closed")
        if os.getpid() != self._process:
            raise mp2p.UsageError(
                "this node belongs to the process that opened it: open another one in this process"
            )
        return self._portal

    def run(self, make: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """Wait for what `make` makes; whatever interrupts that, such as Ctrl-C, cancels it."""

        async def limited() -> T:
            with anyio.fail_after(timeout):
                return await make()

        future = self.portal.start_task_soon(limited)
        try:
            return future.result()
        finally:
            future.cancel()  # does nothing once it is done

    def items(self, source: AsyncIterator[T], timeout: float | None) -> Iterator[T]:
        """Iterate over what comes in there; leaving the loop gives it up."""

        async def following() -> T | object:
            return await anext(source, _END)

        async def close() -> None:
            if (closing := getattr(source, "aclose", None)) is not None:
                await closing()

        try:
            while (item := self.run(following, timeout)) is not _END:
                yield cast("T", item)
        finally:
            with suppress(mp2p.Closed):  # given up with its node
                self.run(close)

    async def feed(self, items: Iterable[T]) -> AsyncIterator[T]:
        """Take items from an iterable that may block, each in a worker thread."""
        iterator = iter(items)
        while (
            item := await anyio.to_thread.run_sync(next, iterator, _END, abandon_on_cancel=True)
        ) is not _END:
            yield cast("T", item)


class Client:
    """Calls a peer: the methods of an interface, without `await`. Comes from `Peer.client`."""

    def __init__(self, runner: _Runner, target: Any, timeout: float | None) -> None:
        self._runner = runner
        self._target = target
        self._timeout = timeout

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method: it waits for its result, or returns an iterator of its results."""
        return self._blocking(getattr(self._target, name))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call a function that peers may call."""
        return self._blocking(self._target)(*args, **kwargs)

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            async def begin() -> Any:
                given = [self._stream(value) for value in args]
                answer = method(*given, **{name: self._stream(value) for name, value in kwargs.items()})
                return answer if hasattr(answer, "__anext__") else await answer

            answer = self._runner.run(begin, self._timeout)
            return self._runner.items(answer, self._timeout) if hasattr(answer, "__anext__") else answer

        return call

    def _stream(self, value: Any) -> Any:
        """Turn an iterator, which is how items are given here, into an async one."""
        return self._runner.feed(value) if isinstance(value, Iterator) else value


class Stream:
    """One stream of bytes (`mp2p.Stream`)."""

    def __init__(self, runner: _Runner, stream: mp2p.Stream) -> None:
        self._runner = runner
        self._stream = stream

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send bytes; returns once they are queued."""
        self._runner.run(lambda: self._stream.send(data), timeout)

    def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """Wait for the next bytes; b"" is the end."""

        async def receive() -> bytes:
            try:
                return await self._stream.receive(max_bytes)
            except anyio.EndOfStream:
                return b""

        return self._runner.run(receive, timeout)

    def send_eof(self) -> None:
        """End our direction."""
        self._runner.run(self._stream.send_eof)

    def reset(self, code: int = 0) -> None:
        """Give up our direction at once."""
        self._runner.run(lambda: self._stream.reset(code))

    def close(self) -> None:
        """End our direction, read no more, and let go."""
        self._runner.run(self._stream.aclose)

    def __iter__(self) -> Iterator[bytes]:
        """Yield bytes as they come, until the end."""
        while piece := self.receive():
            yield piece

    def __enter__(self) -> Self:
        """Close it at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it, or give it up when the block failed."""
        if kind is not None:
            self.reset(0)
        self.close()


class Peer:
    """A peer (`mp2p.Peer`)."""

    def __init__(self, runner: _Runner, peer: mp2p.Peer) -> None:
        self._runner = runner
        self._peer = peer

    @property
    def key(self) -> mp2p.PublicKey:
        """The peer's public key."""
        return self._peer.key

    @property
    def rtt(self) -> float:
        """The round-trip time in seconds."""
        return self._peer.rtt

    @property
    def path(self) -> str:
        """Where datagrams to it go."""
        return self._peer.path

    @property
    def closed(self) -> mp2p.Closed | None:
        """Why the connection ended, or None."""
        return self._peer.closed

    def client(self, interface: Any, *, timeout: float | None = None, **options: Any) -> Client:
        """Return an object whose methods call this peer and wait; `timeout` is for each call, or each item of a stream.

        A stream of arguments is given as an iterator. Other options: `mp2p.Peer.client`.
        """
        return Client(self._runner, self._peer.client(interface, **options), timeout)

    def describe(self, timeout: float | None = None) -> list[ServiceDescription]:
        """Ask what it serves."""
        return self._runner.run(self._peer.describe, timeout)

    def send(self, data: bytes, timeout: float | None = None) -> None:
        """Send a message, reliably and in order."""
        self._runner.run(lambda: self._peer.send(data), timeout)

    def receive(self, timeout: float | None = None) -> bytes:
        """Wait for the next message."""
        return self._runner.run(self._peer.receive, timeout)

    def send_datagram(self, data: bytes) -> None:
        """Send a message in one datagram, which may get lost."""
        self._runner.run(lambda: self._peer.send_datagram(data))

    def receive_datagram(self, timeout: float | None = None) -> bytes:
        """Wait for the next such message."""
        return self._runner.run(self._peer.receive_datagram, timeout)

    def ping(self, timeout: float = 1.0) -> float:
        """Return the round-trip time in seconds."""
        return self._runner.run(lambda: self._peer.ping(timeout))

    def open_stream(self, timeout: float | None = None) -> Stream:
        """Open a stream."""
        return Stream(self._runner, self._runner.run(self._peer.open_stream, timeout))

    def accept_stream(self, timeout: float | None = None) -> Stream:
        """Wait for a stream that the peer opens."""
        return Stream(self._runner, self._runner.run(self._peer.accept_stream, timeout))

    def close(self, code: int = 0, reason: str = "") -> None:
        """Close the connection."""
        self._runner.run(lambda: self._peer.aclose(code, reason))


class Publication(Generic[T]):
    """A topic that is being published (`mp2p.Publication`)."""

    def __init__(self, runner: _Runner, publication: mp2p.Publication[T]) -> None:
        self._runner = runner
        self._publication = publication

    def send(self, value: T, timeout: float | None = None) -> int:
        """Publish a message and return its number."""
        return self._runner.run(lambda: self._publication.send(value), timeout)

    def ready(self, count: int = 1, timeout: float | None = None) -> None:
        """Wait until so many subscribers hear."""
        self._runner.run(lambda: self._publication.ready(count), timeout)

    def delivered(self, within: float = 10) -> bool:
        """Wait until every subscriber has all that was sent; returns whether it has."""
        return self._runner.run(lambda: self._publication.delivered(within))

    def subscribers(self) -> tuple[mp2p.PublicKey, ...]:
        """Return the keys of those who are subscribed now."""
        return self._publication.subscribers()

    def presence(self, timeout: float | None = None) -> Iterator[mp2p.Presence]:
        """Iterate over subscribers that come and go."""
        return self._runner.items(self._publication.presence(), timeout)

    def revoke(self, key: mp2p.PublicKey) -> None:
        """Take the topic away from a subscriber."""
        self._runner.run(lambda: self._publication.revoke(key))


class Feed(Iterator["mp2p.Message[Any] | mp2p.Gap"]):
    """Messages and gaps of the topics followed, as they come (`mp2p.Feed`)."""

    def __init__(self, runner: _Runner, feed: mp2p.Feed) -> None:
        self._runner = runner
        self._feed = feed

    def __next__(self) -> mp2p.Message[Any] | mp2p.Gap:
        """Wait for the next message or gap."""
        item = self._runner.run(lambda: anext(self._feed, None))
        if item is None:
            raise StopIteration
        return item

    def take(self, timeout: float | None = None) -> list[mp2p.Message[Any] | mp2p.Gap]:
        """Wait for messages or gaps, and return all that are there. A timeout loses nothing."""
        return self._runner.run(self._feed.take, timeout)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics followed, of all publishers."""
        return self._feed.topics

    @property
    def sources(self) -> Mapping[mp2p.PublicKey, Source]:
        """How it stands with each publisher."""
        return self._feed.sources


class Node:
    """A node (`mp2p.Node`)."""

    def __init__(self, runner: _Runner, node: mp2p.Node) -> None:
        self._runner = runner
        self._node = node

    @property
    def key(self) -> mp2p.PublicKey:
        """The node's public key."""
        return self._node.key

    @property
    def contact(self) -> mp2p.Contact:
        """All that a peer needs to reach this node."""
        return self._node.contact

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens."""
        return self._node.addresses

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams by what became of them."""
        return self._node.counters

    def peers(self) -> Sequence[Peer]:
        """Return the peers that are connected now."""
        return [Peer(self._runner, peer) for peer in cast("tuple[mp2p.Peer, ...]", self._node.peers())]

    @contextmanager
    def connect(self, contact: str | mp2p.Contact | mp2p.PublicKey, timeout: float = 20.0) -> Iterator[Peer]:
        """Connect to a peer; the connection is closed at the end of the block."""
        connecting = self._node.connect(contact, timeout)
        with self._runner.portal.wrap_async_context_manager(connecting) as peer:
            yield Peer(self._runner, peer)

    def accept(self, timeout: float | None = None) -> Peer:
        """Wait for the next peer that connects."""
        return Peer(self._runner, self._runner.run(self._node.accept, timeout))

    def serve(self, *services: object, allow: Any, **options: Any) -> None:
        """Take calls until interrupted. Handlers are async, and run in the thread of the event loop."""
        self._runner.run(lambda: self._node.serve(*services, allow=allow, **options))

    def serving(self, *services: object, allow: Any, **options: Any) -> AbstractContextManager[None]:
        """Take calls while the block runs."""
        serving = self._node.serving(*services, allow=allow, **options)
        return self._runner.portal.wrap_async_context_manager(serving)

    @contextmanager
    def publish(self, topic: mp2p.Topic[T], *, allow: Any) -> Iterator[Publication[T]]:
        """Publish a topic while the block runs."""
        publishing = self._node.publish(topic, allow=allow)
        with self._runner.portal.wrap_async_context_manager(publishing) as publication:
            yield Publication(self._runner, publication)

    @contextmanager
    def subscribe(self, publishers: Any, topic: str | mp2p.Topic[Any], **options: Any) -> Iterator[Feed]:
        """Subscribe while the block runs. Options: `mp2p.Node.subscribe`."""
        subscribing = self._node.subscribe(publishers, topic, **options)
        with self._runner.portal.wrap_async_context_manager(subscribing) as feed:
            yield Feed(self._runner, feed)


@contextmanager
def open_node(key: Any = None, *, backend: str = "asyncio", **options: Unpack[NodeOptions]) -> Iterator[Node]:
    """Open a node for the block, and a thread with an event loop for it. Arguments and errors: `mp2p.open_node`."""
    with start_blocking_portal(backend) as portal:
        opening = mp2p.open_node(key, **cast("Any", options))
        runner = _Runner(portal)
        try:
            with portal.wrap_async_context_manager(opening) as node:
                yield Node(runner, node)
        finally:
            runner.ended = True
