"""Where a classic server or client is on the network (protocol section 10)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mp2p_core.classic import constants as c
from mp2p_core.errors import AddressError, UsageError
from mp2p_core.opening import read_reach, select
from mp2p_core.proto.addresses import (
    check_classic_group,
    pack_ipv4,
    pack_ipv6,
    parse_ipv4,
    parse_ipv6,
)
from mp2p_core.transport import Listen, Reach

if TYPE_CHECKING:
    from mp2p_core.classic.keys import ClassicKeys
    from mp2p_core.transport import Address, Channel, Transport

__all__ = ["ClassicPlace"]

_PREFIX: Final = "v6-prefix"
_PREFIX_LEAD: Final = b"\xff\x3e"


@dataclass(frozen=True, slots=True)
class ClassicPlace:
    """Which transport to use, and how.

    transport: "v6" as the original does, "v4" or "v6-prefix", or an instance. interfaces: names; empty means
    every eligible one. port: to listen on; None is the original's (a server's is 1024, a client's 1025, and
    1026 is both's on prefix groups). reach: how far datagrams may travel.
    """

    transport: str | Transport = "v6"
    interfaces: Sequence[str] = ()
    port: int | None = None
    reach: Reach | str = Reach.GLOBAL

    def found(self) -> Transport:
        """Return the transport. Raises `TransportError`, or `UsageError` for one that is not of IP."""
        (transport,) = select([self.transport])
        if transport.family not in ("v4", "v6"):
            raise UsageError(
                f"the classic profile names IP addresses in its messages, and {transport.name} has none: use v4, v6 "
                "or v6-prefix"
            )
        return transport

    def parse_server(self, text: str) -> Address:
        """Read a server's group: "HOST", with the original's port understood, "HOST:PORT" or "[HOST]:PORT".

        Raises `AddressError`, naming the rule that is broken.
        """
        transport = self.found()
        is_v4 = transport.family == "v4"
        try:
            address = (parse_ipv4 if is_v4 else parse_ipv6)(text)
        except AddressError as error:
            other = "IPv6 group leave out --ipv4" if is_v4 else "IPv4 group choose the transport v4 (--ipv4)"
            raise AddressError(f"{error}. For an {other}") from None
        if transport.name == _PREFIX and "]:" not in text:
            address = address[:2] + c.PREFIX_PORT.to_bytes(2) + address[4:]
        check_classic_group(address)
        return address

    async def open(self, keys: ClassicKeys, *, server: bool) -> Channel:
        """Open a channel on the group taken over with the key, or else on one of this transport's.

        A server's follows from its key, so that it stays the same; a client's is random. Raises
        `NoMulticast`, `PortTaken`, `AddressError`, `TransportError` or `UsageError`.
        """
        transport, reach = self.found(), read_reach(self.reach)
        usual = c.SERVER_PORT if server else c.CLIENT_PORT
        number = self.port or (c.PREFIX_PORT if transport.name == _PREFIX else usual)
        address = _taken_over(transport, keys, number)
        if address is None:
            address = transport.create_address(
                key=keys.identity.public.raw if server else None,
                reach=reach,
                port=number,
                interfaces=self.interfaces,
                random=os.urandom,
            )
        return await transport.open(Listen(address, reach, tuple(self.interfaces), classic=True))


def _taken_over(transport: Transport, keys: ClassicKeys, number: int) -> Address | None:
    """Choose among the groups that the original listened on; all zeros stand for none."""
    for group in keys.groups:
        if not int(group):
            continue
        if transport.family == "v4" and group.version == 4:
            return pack_ipv4(str(group), number)
        if transport.family == "v6" and group.version == 6:
            prefixed = group.packed.startswith(_PREFIX_LEAD)
            if prefixed or transport.name != _PREFIX:
                return pack_ipv6(str(group), number)
    return None
