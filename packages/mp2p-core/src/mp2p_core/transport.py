"""The transport contract: the one file that the author of a transport reads.

A transport carries datagrams between nodes. It is unreliable and unordered, it may duplicate, and it
knows nothing of keys or sessions: everything it carries is sealed. To add one:

1. Write a class with the members of `Transport` and one with those of `Channel`.
2. Return an instance from a function marked `@hookimpl` and named `mp2p_transports`, in a module named
   by your distribution's entry point group `mp2p`.
3. Run `mp2p_core.testing.conformance.check_transport` on it.

`mp2p_core.testing.memory` is a complete transport without a socket; docs/writing-a-transport.md walks
through one. Nothing here may do I/O, and this module imports nothing of mp2p but its errors.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

import pluggy

__all__ = [
    "ADDRESS_SIZE",
    "MIN_DATAGRAM_SIZE",
    "TRANSPORT_API",
    "Address",
    "Channel",
    "InterfaceStatus",
    "Listen",
    "MaintainedChannel",
    "Path",
    "PushingChannel",
    "RandomBytes",
    "Reach",
    "Train",
    "Transport",
    "hookimpl",
    "hookspec",
    "mp2p_transports",
]

TRANSPORT_API: Final = 1
"""Version of this contract. A transport states the version it was written for in its `api`."""

MIN_DATAGRAM_SIZE: Final = 1200
"""Every transport carries UDP payloads of at least this many bytes whole (RFC 9000, section 14)."""

ADDRESS_SIZE: Final = 20

Address: TypeAlias = bytes
"""An address record of 20 bytes, as it travels in packets (protocol section 3).

`kind u8 | 0 u8 | port u16 | address 16`. Kind 4 is IPv4 as ::ffff:a.b.c.d, kind 6 is IPv6; kinds
0x80 to 0xff leave the 18 bytes after kind and zero to the transport. Kind 0 never names a place.
"""

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Draws that many random bytes; `os.urandom` outside of tests."""


class Reach(enum.Enum):
    """How far a node's datagrams may travel (protocol section 5). The value is the hop limit."""

    HOST = 0
    LINK = 1
    SITE = 32
    GLOBAL = 255


class Path(NamedTuple):
    """Where a datagram came from, or where it goes.

    `remote` is the peer's address: the source of a received datagram (unicast, as the network showed it),
    the destination of one to be sent. `local` is the address of ours that a received datagram was sent
    to, and None when sending. `interface` is an interface index; 0 means every interface in use.
    """

    remote: Address
    local: Address | None = None
    interface: int = 0


class Train(NamedTuple):
    """Datagrams of one path that travel in one call.

    The buffers joined are cut into datagrams of `segment_size` bytes each, the last one possibly shorter.
    A train of one datagram is a complete train: transports may always receive such.
    """

    path: Path
    buffers: Sequence[bytes | memoryview]
    segment_size: int

    def datagrams(self) -> Sequence[bytes]:
        """Return the datagrams, in order."""
        size = self.segment_size
        whole = self.buffers[0] if len(self.buffers) == 1 else b""
        if len(self.buffers) > 1 or not isinstance(whole, bytes):
            whole = b"".join(self.buffers)
        if len(whole) <= size:
            return (whole,)
        return [whole[start : start + size] for start in range(0, len(whole), size)]


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """What became of one interface: listening there, or why not."""

    name: str
    index: int
    joined: bool
    detail: str
    joined_for: float | None = None
    """Seconds since the last join; None where not joined, or not known."""
    heard_ago: float | None = None
    """Seconds since a datagram came in there; None when none ever did, or not known."""
    rejoins: int = 0
    """How often it left and joined to remind the network."""
    unsent: int = 0
    """Datagrams that could not be sent there."""


@dataclass(frozen=True, slots=True)
class Listen:
    """How a channel is to be opened."""

    address: Address
    reach: Reach = Reach.GLOBAL
    interfaces: tuple[str, ...] = ()
    """Names of the interfaces to use; empty means every eligible one."""
    classic: bool = False
    """Whether the original implementation may have chosen the address: its ranges are wider (section 10)."""


@runtime_checkable
class Channel(Protocol):
    """An open place to send from and to listen on. Owned and closed by the node."""

    @property
    def address(self) -> Address:
        """Where peers reach this channel. Fixed while it is open."""

    @property
    def max_datagram_size(self) -> int:
        """The largest datagram, in bytes, that `send` takes; at least MIN_DATAGRAM_SIZE."""

    def send(self, train: Train) -> bool:
        """Hand a train to the network without blocking.

        Returns False when there was no room for all of it, or the channel is closed: the rest is lost, as
        on any network.
        Trouble on the network is never raised; it shows in `status`.
        """

    async def receive(self) -> Sequence[Train]:
        """Wait for datagrams and return one or more trains in the order they arrived.

        Cancelling loses nothing. Raises `anyio.ClosedResourceError` once the channel is closed.
        """

    async def aclose(self) -> None:
        """Leave, release every resource, and end a waiting `receive`. May be called again."""

    def status(self) -> Sequence[InterfaceStatus]:
        """Say what became of each interface, also of those that were not used."""


@runtime_checkable
class PushingChannel(Channel, Protocol):
    """A channel that can also hand over by itself. Optional: `receive` alone is a complete channel.

    It saves waking a task for every datagram that comes alone, so it is worth having for a channel on
    sockets, which the event loop calls anyway.
    """

    async def push(self, deliver: Callable[[Sequence[Train]], None]) -> None:
        """Call `deliver` with one or more trains whenever some have arrived, until the channel is closed.

        In place of `receive`. `deliver` does not block; what it raises is raised here. Cancelling loses
        nothing.
        """


@runtime_checkable
class MaintainedChannel(Channel, Protocol):
    """A channel that has upkeep to do while it is open. Optional, like `PushingChannel`."""

    async def maintain(self) -> None:
        """Follow what happens to the machine's network, until the channel is closed. Run by the node."""

    def silent(self) -> None:
        """Hear that a peer no longer answers here: the network may have forgotten where we listen."""


@runtime_checkable
class Transport(Protocol):
    """A way to choose addresses and to open channels on them. Stateless; one instance serves all nodes."""

    @property
    def api(self) -> int:
        """The contract version this was written for: TRANSPORT_API."""

    @property
    def name(self) -> str:
        """What users call it (`--transport NAME`)."""

    @property
    def family(self) -> str:
        """What addresses are called in contacts (`?at=FAMILY:ADDRESS`).

        Transports of one family send to each other's addresses.
        """

    @property
    def default(self) -> bool:
        """Whether a node opens it without being asked to: only where the key alone gives the address."""

    def parse_address(self, text: str) -> Address:
        """Read an address of this family that a peer listens on.

        Raises `AddressError`, naming the rule that is broken.
        """

    def format_address(self, address: Address) -> str:
        """Write an address so that `parse_address` reads it back. Any source seen must format too."""

    def derive_address(self, key: bytes, reach: Reach, port: int) -> Address | None:
        """Compute where the node with this key listens unless it says otherwise, or None if nothing follows."""

    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        """Choose an address to listen on: from `key` when given, else a random one.

        Raises `AddressError`, or `NoMulticast` when this machine has no address to build on.
        """

    def may_answer(self, answer_to: Address, heard_from: Address, arrived_at: Address) -> bool:
        """Decide whether a stranger's request may be answered at `answer_to` (protocol section 5).

        The request came from `heard_from` and was sent to `arrived_at`. Must refuse whatever could aim
        this node's answer at somebody who did not ask: all arguments are the stranger's. An address that a
        connected peer names over another channel was heard from nobody: zeros follow the kind of `heard_from`
        (for kind 4, ::ffff:0.0.0.0), and such a peer may name a victim, too.
        """

    async def open(self, listen: Listen) -> Channel:
        """Open a channel.

        Raises `NoMulticast`, `PortTaken` or `AddressError`, each with what to do about it.
        """


hookspec = pluggy.HookspecMarker("mp2p")
hookimpl = pluggy.HookimplMarker("mp2p")


@hookspec
def mp2p_transports() -> Sequence[Transport]:
    """Return the transports that this plugin adds. Called once in a process; must not do I/O."""
    return ()
