"""A transport without a socket: datagrams between nodes of one process. Also the shortest example of one.

    hub = MemoryHub()
    async with open_node(transports=[hub.transport()]) as node: ...

Every channel of a hub hears what is sent to its address. Lossless unless `hub.drop` says otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import anyio

from mp2p_core.errors import AddressError
from mp2p_core.transport import (
    TRANSPORT_API,
    Address,
    InterfaceStatus,
    Listen,
    Path,
    RandomBytes,
    Reach,
    Train,
)

__all__ = ["MemoryChannel", "MemoryHub", "MemoryTransport"]

_KIND = 0x80  # a transport's own addresses: protocol section 3
_QUEUE = 1024


class MemoryHub:
    """A network in memory."""

    def __init__(self) -> None:
        self.channels: list[MemoryChannel] = []
        self.drop: Callable[[bytes], bool] = lambda _datagram: False
        """Decides for each copy of a datagram whether it is lost."""

    def transport(self) -> MemoryTransport:
        """Return the transport that opens channels on this hub."""
        return MemoryTransport(self)


class MemoryTransport:
    """Addresses of kind 0x80, eighteen bytes that follow from the key or are drawn at random."""

    api = TRANSPORT_API
    name = "memory"
    family = "memory"
    default = False

    def __init__(self, hub: MemoryHub) -> None:
        self._hub = hub

    def parse_address(self, text: str) -> Address:
        """Read 36 hex digits."""
        try:
            body = bytes.fromhex(text)
        except ValueError:
            body = b""
        if len(body) != 18:
            raise AddressError(f"an address in memory is 36 hex digits, not {text!r}")
        return bytes([_KIND, 0]) + body

    def format_address(self, address: Address) -> str:
        """Write 36 hex digits."""
        return address[2:].hex()

    def derive_address(self, key: bytes, _reach: Reach, port: int) -> Address | None:
        """Take the port and the key's first sixteen bytes."""
        return bytes([_KIND, 0]) + port.to_bytes(2, "big") + key[:16]

    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        """Derive the address, or draw one."""
        del interfaces
        address = self.derive_address(random(16) if key is None else key, reach, port)
        assert address is not None
        return address

    def may_answer(self, answer_to: Address, _heard_from: Address, _arrived_at: Address) -> bool:
        """Answer anywhere in memory: there is nobody else to harm."""
        return answer_to[0] == _KIND

    async def open(self, listen: Listen) -> MemoryChannel:
        """Open a channel."""
        return MemoryChannel(self._hub, listen.address)


class MemoryChannel:
    """A place on a hub."""

    max_datagram_size = 65507

    def __init__(self, hub: MemoryHub, address: Address) -> None:
        self.address = address
        self._hub = hub
        self._queue: deque[Train] = deque(maxlen=_QUEUE)
        self._arrived = anyio.Event()
        self._closed = False
        hub.channels.append(self)

    def send(self, train: Train) -> bool:
        """Put each datagram into the queue of every other channel at that address."""
        if self._closed:
            return False
        for datagram in train.datagrams():
            for channel in self._hub.channels:
                if (
                    channel is not self
                    and channel.address == train.path.remote
                    and not self._hub.drop(datagram)
                ):
                    channel._deliver(datagram, self.address)  # noqa: SLF001 - the same class
        return True

    def _deliver(self, datagram: bytes, source: Address) -> None:
        self._queue.append(Train(Path(source, self.address, 1), (datagram,), max(len(datagram), 1)))
        self._arrived.set()

    async def receive(self) -> Sequence[Train]:
        """Wait for datagrams."""
        while not self._queue:
            if self._closed:
                raise anyio.ClosedResourceError
            self._arrived = anyio.Event()
            await self._arrived.wait()
        trains = list(self._queue)
        self._queue.clear()
        return trains

    async def aclose(self) -> None:
        """Leave the hub."""
        if not self._closed:
            self._closed = True
            self._hub.channels.remove(self)
            self._arrived.set()

    def status(self) -> Sequence[InterfaceStatus]:
        """Report the one interface there is."""
        return (InterfaceStatus("memory", 1, not self._closed, "in this process"),)
