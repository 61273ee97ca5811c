"""Run a classic server or client on a channel, over anyio (protocol section 10)."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

import anyio

from mp2p_core.access import Allow, access_for
from mp2p_core.classic import constants as c
from mp2p_core.classic.client import ClassicClient
from mp2p_core.classic.endpoint import ClassicEndpoint, ClassicReceived
from mp2p_core.classic.keys import ClassicKeys, load_classic_keys
from mp2p_core.classic.place import ClassicPlace
from mp2p_core.classic.server import ClassicServer
from mp2p_core.classic.session import ClassicSession
from mp2p_core.errors import Closed, PeerUnreachable
from mp2p_core.proto.addresses import format_host_port, ip, port
from mp2p_core.proto.constants import HANDSHAKE_BUDGET

if TYPE_CHECKING:
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.transport import Channel, InterfaceStatus

__all__ = ["ClassicConnection", "ClassicListener", "connect_classic", "open_classic_server"]

_DEFAULT_PLACE: Final = ClassicPlace()
_ADVICE: Final = {
    "nothing heard": (
        "Check, in this order: the server is running; address, port and key are those that it shows when it starts, "
        "and the transport is that of its group; no firewall drops UDP to either group; both are in one network, or "
        "the routers between forward multicast. A server of version 1 does not answer."
    ),
    "answered by another key": (
        "Something answered in the server's name without its private key: check the key, and who else is on this "
        "network."
    ),
}


class _Driver:
    """Moves datagrams and texts between a channel, an endpoint and the application."""

    def __init__(self, endpoint: ClassicEndpoint, channel: Channel, clock: Callable[[], float]) -> None:
        self.channel = channel
        self._endpoint = endpoint
        self._clock = clock
        # Attack: texts faster than the application takes them. Bounded; the oldest is dropped.
        self._came: deque[ClassicReceived] = deque(maxlen=c.MAX_WAITING)
        self._news = anyio.Event()
        self._closed = False

    async def receive_forever(self) -> None:
        """Feed the endpoint until the channel is closed."""
        while True:
            try:
                trains = await self.channel.receive()
            except anyio.ClosedResourceError:
                return
            now = self._clock()
            for train in trains:
                self._endpoint.receive(train, now)
            self.flush()

    async def repeat(self, client: ClassicClient) -> None:
        """Call the client whenever it is due, until the server has answered."""
        while (when := client.timeout()) is not None:
            await anyio.sleep(max(0.0, when - self._clock()))
            client.handle_timeout(self._clock())
            self.flush()

    def send(self, session: ClassicSession, text: bytes) -> None:
        """Send a text."""
        if self._closed:
            raise Closed(0, "the classic endpoint is closed")
        self._endpoint.send(session, text)
        self.flush()

    def flush(self) -> None:
        """Send what the endpoint has to send, and pass on what has come."""
        for train in self._endpoint.transmits():
            self.channel.send(train)
        self._came.extend(self._endpoint.events())
        self._news.set()

    async def wait_until(self, holds: Callable[[], object]) -> None:
        """Wait for something that only `flush` can bring about. Raises `Closed` once this is closed."""
        while not holds():
            if self._closed:
                raise Closed(0, "the classic endpoint is closed")
            if self._news.is_set():
                self._news = anyio.Event()
            await self._news.wait()

    async def receive(self) -> ClassicReceived:
        """Wait for the next text."""
        await self.wait_until(lambda: self._came)
        return self._came.popleft()

    async def aclose(self) -> None:
        """Close the channel and wake whoever waits."""
        self._closed = True
        self._news.set()
        await self.channel.aclose()


@asynccontextmanager
async def _running(driver: _Driver, client: ClassicClient | None = None) -> AsyncIterator[None]:
    # Entered and left by hand, so that what the block raises leaves it as it is, and not inside a group.
    tasks = anyio.create_task_group()
    await tasks.__aenter__()
    try:
        tasks.start_soon(driver.receive_forever)
        if client is not None:
            tasks.start_soon(driver.repeat, client)
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await driver.aclose()
        tasks.cancel_scope.cancel()
        await tasks.__aexit__(None, None, None)


class ClassicListener:
    """A classic server on the network. Comes from `open_classic_server`."""

    def __init__(self, server: ClassicServer, key: PublicKey, driver: _Driver) -> None:
        self._server = server
        self._driver = driver
        self.key = key
        """The server's public key, which clients have to know."""

    @property
    def address(self) -> str:
        """The group listened on, without the port."""
        return str(ip(self._driver.channel.address))

    @property
    def port(self) -> int:
        """The UDP port listened on."""
        return port(self._driver.channel.address)

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams that came to nothing, by why."""
        return self._server.counters

    def status(self) -> Sequence[InterfaceStatus]:
        """Say which interfaces are listened on, and why not the others."""
        return self._driver.channel.status()

    async def receive(self) -> ClassicReceived:
        """Wait for the next text: its session, which names the peer, and its bytes.

        Each comes at most once, in any order, and may be lost. Raises `Closed` once the server is closed.
        """
        return await self._driver.receive()

    def send(self, session: ClassicSession, text: bytes) -> None:
        """Send a text in a session, where it may be lost. Does not block.

        Raises `DatagramTooLarge`, or `Closed` when the session or the server has ended.
        """
        self._driver.send(session, text)


class ClassicConnection:
    """A client's session with a classic server. Comes from `connect_classic`."""

    def __init__(self, session: ClassicSession, driver: _Driver) -> None:
        self._driver = driver
        self.session = session

    def status(self) -> Sequence[InterfaceStatus]:
        """Say which interfaces are listened on, and why not the others."""
        return self._driver.channel.status()

    async def receive(self) -> bytes:
        """Wait for the next text: each at most once, in any order, and it may be lost."""
        return (await self._driver.receive()).text

    def send(self, text: bytes) -> None:
        """Send a text, which may be lost: nothing confirms it but what the server says. Does not block.

        Raises `DatagramTooLarge`, or `Closed` when the session has ended.
        """
        self._driver.send(self.session, text)


def _keys(key: str | os.PathLike[str] | ClassicKeys, share_key: bool) -> ClassicKeys:
    return key if isinstance(key, ClassicKeys) else load_classic_keys(key, share_key=share_key)


@asynccontextmanager
async def open_classic_server(
    key: str | os.PathLike[str] | ClassicKeys,
    place: ClassicPlace = _DEFAULT_PLACE,
    *,
    allow: Allow = "any",
    share_key: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[ClassicListener]:
    """Open a server for clients of the original implementation; it is closed at the end of the block.

    key: a file as for `load_classic_keys`, or its keys. allow: whose messages are taken (see `Allow`);
    anybody's by default, as in the original. Raises `KeyFileError`, `NoMulticast`, `PortTaken`,
    `AddressError`, `TransportError` or `UsageError`. Protocol section 10.
    """
    access = access_for(allow)
    keys = _keys(key, share_key)
    channel = await place.open(keys, server=True)
    server = ClassicServer(
        keys.identity, access, channel.address, max_datagram_size=channel.max_datagram_size, now=clock()
    )
    driver = _Driver(server, channel, clock)
    async with _running(driver):
        yield ClassicListener(server, keys.identity.public, driver)


@asynccontextmanager
async def connect_classic(
    key: str | os.PathLike[str] | ClassicKeys,
    server: PublicKey,
    address: str,
    place: ClassicPlace = _DEFAULT_PLACE,
    *,
    timeout: float = HANDSHAKE_BUDGET,
    share_key: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[ClassicConnection]:
    """Begin a session with a server of the original implementation, at the group it listens on.

    When the block begins the server has proved its key. The wire has no close: at the end of the block the
    session is forgotten, and the server is not told. Raises `PeerUnreachable` after `timeout` seconds
    without an answer, and what `open_classic_server` raises. Protocol section 10.
    """
    remote = place.parse_server(address)
    keys = _keys(key, share_key)
    channel = await place.open(keys, server=False)
    async with AsyncExitStack() as on_failure:
        on_failure.push_async_callback(channel.aclose)
        client = ClassicClient(
            keys.identity,
            server,
            remote,
            channel.address,
            max_datagram_size=channel.max_datagram_size,
            now=clock(),
        )
        on_failure.pop_all()
    driver = _Driver(client, channel, clock)
    async with _running(driver, client):
        with anyio.move_on_after(timeout):
            await driver.wait_until(lambda: client.session)
        if client.session is None:
            tried = f"{place.found().name} {format_host_port(remote)}"
            raise PeerUnreachable(client.stage, (tried,), _ADVICE[client.stage])
        yield ClassicConnection(client.session, driver)
