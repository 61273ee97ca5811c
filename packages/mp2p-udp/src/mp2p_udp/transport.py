"""What all UDP multicast transports have in common (the contract's `Transport`).

A transport is this class with a name and a `Family`; the address rules of both families are section 5 of
the protocol, in `mp2p_core.proto.addresses`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mp2p_core.proto import addresses
from mp2p_core.transport import TRANSPORT_API, Address, Channel, Listen, RandomBytes, Reach
from mp2p_udp.channel import open_channel
from mp2p_udp.family import Family
from mp2p_udp.options import Features

__all__ = ["MulticastTransport"]

Parse: TypeAlias = Callable[[str], Address]
Derive: TypeAlias = Callable[[bytes, Reach, int], Address]
Draw: TypeAlias = Callable[[Reach, int, RandomBytes], Address]


@dataclass(frozen=True)
class MulticastTransport:
    """Multicast over one IP version."""

    name: str
    family: str
    default: bool
    ip: Family
    parse: Parse
    derive: Derive
    draw: Draw
    features: Features | None = None
    """What sockets may use; None: whatever this system turns out to have."""
    api: int = TRANSPORT_API

    def parse_address(self, text: str) -> Address:
        """Read a group, with its port or with 1024 understood; raises `AddressError` (section 5)."""
        address = self.parse(text)
        addresses.check_group(address)
        return address

    def format_address(self, address: Address) -> str:
        """Write a group, or a source that was seen, with its port."""
        return addresses.format_host_port(address)

    def derive_address(self, key: bytes, reach: Reach, port: int) -> Address | None:
        """Compute the group that a key alone leads to (section 5)."""
        return self.derive(key, reach, port)

    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        """Choose a group: the key's, or a random one of the range that fits `reach`."""
        del interfaces  # these groups hold nothing of the machine
        return self.draw(reach, port, random) if key is None else self.derive(key, reach, port)

    def may_answer(self, answer_to: Address, heard_from: Address, arrived_at: Address) -> bool:
        """Decide whether a stranger may be answered there (section 5, rules 4 and 5)."""
        return addresses.may_answer(answer_to, heard_from, arrived_at)

    async def open(self, listen: Listen) -> Channel:
        """Join a group on every eligible interface, or on those named.

        Raises `AddressError`, `PortTaken`, or `NoMulticast` when no interface is left.
        """
        return open_channel(listen, self.ip, features=self.features)
