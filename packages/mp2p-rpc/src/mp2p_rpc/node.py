"""Nodes that serve, and peers to call: core's, with `serve` and `client` on top."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, Unpack, overload

import anyio

import mp2p_core
from mp2p_core import Closed, Contact, Identity, Metric, PublicKey, UsageError
from mp2p_core.contact import read_contact
from mp2p_core.lifetime import NodeOptions, open_node_as
from mp2p_core.proto.constants import HANDSHAKE_BUDGET
from mp2p_rpc.access import Allow, Policy, admission, policy_for
from mp2p_rpc.client import Caller, Retry, make_call, make_client
from mp2p_rpc.desk import Desk, Topics
from mp2p_rpc.directory import Directory, DirectoryPolicy, ServiceDescription, collect
from mp2p_rpc.followed import Source
from mp2p_rpc.interface import Function, Interface, interface_of
from mp2p_rpc.limits import Limits
from mp2p_rpc.offer import Binding, Offer, bindings_for
from mp2p_rpc.publication import Publication, make_publisher
from mp2p_rpc.schema import Codec
from mp2p_rpc.server import Server
from mp2p_rpc.subscription import Feed, Overflow
from mp2p_rpc.topic import Topic, check_topic
from mp2p_rpc.topic_status import TopicStatus, topic_metrics
from mp2p_rpc.untyped import interface_from
from mp2p_rpc.workers import Workers

if TYPE_CHECKING:
    from mp2p_core import Stream
    from mp2p_core.peer import PeerLinks
    from mp2p_core.proto.connection import Connection
    from mp2p_rpc.call import Interceptor
    from mp2p_rpc.incoming import Incoming

__all__ = ["Node", "Peer", "open_node"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_LARGE_REQUESTS: Final = 4
"""Large requests of one peer that are read at the same time; the others wait, unread, in their streams."""
_LIMITS: Final = Limits()
_LINGER: Final = 2.0
"""Seconds that a publication stays after its block for those who have not got everything."""
_RETRY: Final = Retry()


class Peer(mp2p_core.Peer):
    """A peer to call. Comes from `Node.connect` or `Node.accept`."""

    def __init__(self, node: Node, connection: Connection, **links: Unpack[PeerLinks]) -> None:
        super().__init__(connection, **links)
        self._node = node
        self._contact: str | Contact | PublicKey | None = None
        self._reconnecting = anyio.Lock()
        # Attack: calls without end. A session has at most 100 streams of the peer at a time, and `Limits` a number.
        self.incoming: set[Incoming] = set()
        """The calls of this peer that are under way here. Kept by `Incoming`."""
        self.large_requests = anyio.Semaphore(_LARGE_REQUESTS)

    @overload
    def client(
        self,
        interface: Function[P, R],
        *,
        metadata: Mapping[str, str] = ...,
        interceptors: Sequence[Interceptor] = ...,
        limits: Limits = ...,
        retry: Retry = ...,
    ) -> Callable[P, R]: ...

    @overload
    def client(
        self,
        interface: ServiceDescription,
        *,
        metadata: Mapping[str, str] = ...,
        interceptors: Sequence[Interceptor] = ...,
        limits: Limits = ...,
        retry: Retry = ...,
    ) -> Any: ...

    @overload
    def client(
        self,
        interface: Callable[..., T],
        *,
        metadata: Mapping[str, str] = ...,
        interceptors: Sequence[Interceptor] = ...,
        limits: Limits = ...,
        retry: Retry = ...,
    ) -> T: ...

    def client(
        self,
        interface: Any,
        *,
        metadata: Mapping[str, str] | None = None,
        interceptors: Sequence[Interceptor] = (),
        limits: Limits = _LIMITS,
        retry: Retry = _RETRY,
    ) -> Any:
        """Return an object whose methods call this peer: `await peer.client(Thermostat).set_target(21.5)`.

        interface: a class derived from `Service`, a Protocol, an abstract class, or a `function`; or what `describe`
        told, for a client without types. metadata: text that goes along with each call. interceptors: see
        `Interceptor`. limits: what is taken in answers, and what is sent. retry: for methods marked idempotent.

        Makes no connection and sends nothing: the peer may not serve this at all, which calls then tell
        (`UnknownMethod`). Calls raise `ArgumentError`, `Closed` and what is in `CallError`; the caller's own
        cancel scopes are deadlines of the handler. Raises `InterfaceError`. docs/rpc.md.
        """
        if isinstance(interface, ServiceDescription):
            found = interface_from(interface)
        elif isinstance(interface, (type, Function)):
            found = interface_of(interface)
        else:
            raise UsageError(f"{interface!r} is no interface: give a class, or what `@function` is above of")
        caller = self._caller(found, metadata or {}, interceptors, limits, retry)
        if isinstance(interface, Function):
            return make_call(caller, interface.method)
        return make_client(caller, found)

    def _caller(
        self,
        interface: Interface,
        metadata: Mapping[str, str],
        interceptors: Sequence[Interceptor],
        limits: Limits,
        retry: Retry,
    ) -> Caller:
        return Caller(
            self, interface, limits=limits, retry=retry, metadata=metadata, interceptors=tuple(interceptors)
        )

    async def describe(self) -> list[ServiceDescription]:
        """Ask what this peer serves and lets this node call. Raises `NotAllowed` if that is nothing, or as calls do."""
        return await collect(self.client(Directory).describe())

    async def reconnect(self) -> None:
        """Connect again when the connection has ended; does nothing otherwise. Raises as `Node.connect` does.

        Only within the block of `Node.connect`: elsewhere, raises `Closed`. Calls of idempotent methods do this by
        themselves.
        """
        async with self._reconnecting:
            closed = self.closed
            if closed is None:
                return
            if self._contact is None:
                raise Closed(closed.code, closed.reason)
            await self._node.reconnect(self, self._contact)

    # --- the node's side of it ------------------------------------------------------------------------

    def remember(self, contact: str | Contact | PublicKey | None) -> None:
        """Keep how to call this peer again, or forget it."""
        self._contact = contact

    def background(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something for as long as the node is there."""
        self._node.tasks.start_soon(work)

    def stream_opened(self, stream: Stream) -> None:
        """Take a stream as a call when the node serves anything."""
        if self._node.server.serves:
            self._node.server.take(self, stream)
        else:
            super().stream_opened(stream)

    def hand_over(self) -> None:
        """Take the streams that came before the node served anything as calls, too."""
        for _ in range(len(self._opened)):  # those of other protocols come back
            self._node.server.take(self, self._opened.pop(0))

    def leave(self, stream: Stream) -> None:
        """Leave a stream to `accept_stream`."""
        super().stream_opened(stream)


class Node(mp2p_core.Node):
    """An identity on the network that serves, and calls. Comes from `open_node`."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.server = Server(self.tasks)
        """What this node serves."""
        self._workers = Workers(self.tasks, self._make_signal)
        directory = Binding(interface_of(Directory), Directory(self.server.interfaces))
        self._offer(directory, DirectoryPolicy(self.server.knows))
        self._feeds: set[Feed] = set()
        self._desk = Desk(self.tasks, self._clock)
        self._offer(Binding(interface_of(Topics), Topics(self._desk)), self._desk)

    def _offer(self, binding: Binding, policy: Policy) -> None:
        """Serve what every node has."""
        self.server.add(
            Offer([binding], policy=policy, limits=_LIMITS, interceptors=(), workers=self._workers),
            builtin=True,
        )

    def make_peer(self, connection: Connection, **links: Unpack[PeerLinks]) -> Peer:
        """Make the object for a new connection."""
        return Peer(self, connection, **links)

    @asynccontextmanager
    async def connect(
        self, contact: str | Contact | PublicKey, timeout: float = HANDSHAKE_BUDGET
    ) -> AsyncIterator[Peer]:
        """Connect to a peer; the connection is closed at the end of the block. As `mp2p_core.Node.connect`."""
        async with super().connect(contact, timeout) as peer:
            assert isinstance(peer, Peer)
            peer.remember(contact)
            try:
                yield peer
            finally:
                peer.remember(None)

    async def accept(self) -> Peer:
        """Wait for the next peer that connects to this node. As `mp2p_core.Node.accept`.

        Not needed to serve: calls are taken from all peers, those that this node has called included.
        """
        peer = await super().accept()
        assert isinstance(peer, Peer)
        return peer

    async def serve(
        self,
        *services: object,
        allow: Allow,
        interface: type | None = None,
        interceptors: Sequence[Interceptor] = (),
        limits: Limits = _LIMITS,
    ) -> None:
        """Take calls until cancelled; the handlers that run then are cancelled, too.

        services: objects of classes derived from `Service`, or that implement a Protocol or an abstract class;
        and functions made by `function`. allow: who may call what (see `Allow`): also lets them connect, besides
        those that `open_node` does. interface: what the services are served as, where their class does not say.
        interceptors, limits: for each call, see there. While anything is served, the streams that peers open are
        calls, and not for `accept_stream`, but for those of `other_streams`.

        Several may run at once, for several services. Raises `UsageError`, `InterfaceError`, `ContactError` or
        `BadKey` before anything is served.
        """
        async with self.serving(
            *services, allow=allow, interface=interface, interceptors=interceptors, limits=limits
        ):
            await anyio.sleep_forever()

    @asynccontextmanager
    async def serving(
        self,
        *services: object,
        allow: Allow,
        interface: type | None = None,
        interceptors: Sequence[Interceptor] = (),
        limits: Limits = _LIMITS,
    ) -> AsyncIterator[None]:
        """Take calls within the block, as `serve` does."""
        policy = policy_for(allow)
        offer = Offer(
            bindings_for(services, interface),
            policy=policy,
            limits=limits,
            interceptors=tuple(interceptors),
            workers=self._workers,
        )
        self.server.add(offer)
        try:
            with self.admit(admission(policy)):
                self._hand_over()
                yield
        finally:
            self.server.remove(offer)
            await offer.stop()

    @contextmanager
    def other_streams(self, first: bytes, wanted: Callable[[Peer], bool]) -> Iterator[None]:
        """Leave streams of another protocol to `accept_stream` within the block, also while this node serves.

        first: the byte that they begin with; below 32 are calls. wanted: asked for each, when it opens, from where
        nothing can wait; what it answers False to is refused, as is everything that nobody has asked for. Raises
        `UsageError` when somebody has asked for these already.
        """
        with self.server.other_streams(first[0], wanted):
            self._hand_over()
            yield

    @asynccontextmanager
    async def publish(self, topic: Topic[T], *, allow: Allow) -> AsyncIterator[Publication[T]]:
        """Publish a topic within the block: `async with node.publish(topic, allow=...) as pub: await pub.send(value)`.

        allow: who may subscribe (see `Allow`; patterns of methods are of names of topics here); it also lets them
        connect. One datagram on the wire serves any number of subscribers. A block that ends without an exception waits
        for up to two seconds until its subscribers have everything. Raises `UsageError` when this node publishes a
        topic of this name already, `ContactError` or `BadKey`. Protocol section 8.
        """
        check_topic(topic)
        policy = policy_for(allow)
        if self._desk.publishes(self.key.raw, topic.name):
            raise UsageError(f"this node publishes {topic.name!r} already")
        groups = self.groups.choose(hashlib.blake2s(self.key.raw + topic.name.encode()).digest())
        publisher = make_publisher(
            self.key.raw,
            topic,
            groups,
            lambda raw: policy.may_call(PublicKey(raw), topic.name),
            self._clock(),
            self.groups.datagram_size,
        )
        publication = Publication(
            topic, publisher, self.groups, self._clock, self._desk.tell, self._desk.room
        )
        self._desk.add(publication, policy)
        self.server.published += 1
        try:
            with self.admit(admission(policy)):
                self._hand_over()
                with self._running(publication.run):
                    try:
                        yield publication
                        await publication.delivered(_LINGER)
                    finally:
                        publication.close()
        finally:
            self.server.published -= 1
            self._desk.remove(publication)

    @asynccontextmanager
    async def subscribe(
        self,
        publishers: str | Contact | PublicKey | Iterable[str | Contact | PublicKey],
        topic: str | Topic[Any],
        *,
        type: Any = Any,  # noqa: A002 -- what users call it
        history: int = 1,
        limit: int = 1024,
        overflow: Overflow = "block",
        timeout: float = HANDSHAKE_BUDGET,
    ) -> AsyncIterator[Feed]:
        """Subscribe within the block: `async with node.subscribe(contact, "weather/*") as feed: async for m in feed`.

        publishers: one contact, or several. topic: a `Topic`, or a name, in which `*` stands for any text within a word
        and `**` for any words; topics that come later are followed, too. type: of the values, when no `Topic` says.
        history: how many earlier messages to ask for; a publisher has what its topic keeps. limit, overflow: what waits
        for a slow reader, see `Feed`. timeout: seconds for each attempt to connect.

        Begins once a publisher has been reached; connects again for as long as the block lasts. Raises
        `PeerUnreachable`, `AuthRejected`, `NotAllowed` or `Closed` when none was, and `InterfaceError`, `UsageError`.
        """
        several = [publishers] if isinstance(publishers, (str, Contact, PublicKey)) else list(publishers)
        codec = topic.codec if isinstance(topic, Topic) else Codec(type)
        name = topic.name if isinstance(topic, Topic) else topic
        feed = Feed(
            self, [Source(read_contact(each), timeout) for each in several], name, codec, history=history, limit=limit,
            overflow=overflow, clock=self._clock,
        )  # fmt: skip
        sources = feed.sources.values()
        with self._running(feed.keep_time, *(partial(feed.follow, source) for source in sources)):
            for source in sources:
                await source.settled.wait()
            if not any(source.connected for source in sources):
                raise next(
                    (source.error for source in sources if source.error), UsageError("no publisher is named")
                )
            self._feeds.add(feed)
            try:
                yield feed
            finally:
                self._feeds.remove(feed)
                await feed.leave()

    def topics(self) -> tuple[TopicStatus, ...]:
        """Say how each topic does that this node publishes or is subscribed to."""
        published = self._desk.status(self.key)
        return (*published, *(each for feed in self._feeds for each in feed.status()))

    def metrics(self) -> Iterable[Metric]:
        """Say all that is counted here, in one form. As `mp2p_core.Node.metrics`, and of topics."""
        return [*super().metrics(), *topic_metrics(self.topics())]

    def _hand_over(self) -> None:
        for peer in self.peers():
            assert isinstance(peer, Peer)
            peer.hand_over()

    @contextmanager
    def _running(self, *work: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
        """Run tasks while the block runs. Not a task group: what the block raises leaves it as it is."""
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                async with anyio.create_task_group() as tasks:
                    for each in work:
                        tasks.start_soon(each)

        self.tasks.start_soon(run)
        try:
            yield
        finally:
            scope.cancel()


def open_node(
    key: str | os.PathLike[str] | Identity | None = None, **options: Unpack[NodeOptions]
) -> AbstractAsyncContextManager[Node]:
    """Open a node that can serve, and whose peers can be called. Arguments and errors: `mp2p_core.open_node`."""
    return open_node_as(Node, key, **options)
