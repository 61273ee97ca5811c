"""Where a node with given options would listen, as far as that is known before it opens."""

from __future__ import annotations

from collections.abc import Sequence

from mp2p.cli.options import NodeOptions
from mp2p_core import AddressError
from mp2p_core.transport import Address, Transport

__all__ = ["planned_groups"]


def planned_groups(
    options: NodeOptions, transports: Sequence[Transport], key: bytes
) -> list[tuple[Transport, Address]]:
    """List where a node with these options would listen, as far as that is known before it opens."""
    if options.address == "random":
        return []
    if options.address == "derived":
        return [
            (transport, address)
            for transport in transports
            if (address := transport.derive_address(key, options.reach, options.port)) is not None
        ]
    refusals = []
    for transport in transports:
        try:
            text = options.address.removeprefix(f"{transport.family}:")
            return [(transport, transport.parse_address(text))]
        except AddressError as error:
            refusals.append(f"{transport.name}: {error}")
    raise AddressError("; ".join(refusals))
