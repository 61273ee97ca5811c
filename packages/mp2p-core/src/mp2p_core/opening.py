"""Choose transports and addresses, and open channels: what happens before a node is there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mp2p_core.errors import AddressError, NoMulticast, TransportError, UsageError
from mp2p_core.plugins import load_transports
from mp2p_core.proto.constants import DEFAULT_PORT
from mp2p_core.transport import Listen, Reach

if TYPE_CHECKING:
    from mp2p_core.proto.identity import PublicKey
    from mp2p_core.transport import Address, Channel, RandomBytes, Transport

__all__ = ["OpenChannel", "Opened", "Wanted", "open_channels", "read_reach", "select"]


class OpenChannel(NamedTuple):
    """A channel and the transport that opened it."""

    transport: Transport
    channel: Channel

    @property
    def text(self) -> str:
        """The address as contacts write it."""
        return f"{self.transport.family}:{self.transport.format_address(self.channel.address)}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the application asked for. `transports` None means those that need no asking."""

    transports: Sequence[str | Transport] | None
    interfaces: tuple[str, ...]
    port: int
    reach: Reach
    address: str


class Opened(NamedTuple):
    """What opened, what did not, as (transport name, reason), and what had been asked for."""

    channels: tuple[OpenChannel, ...]
    skipped: tuple[tuple[str, str], ...]
    wanted: Wanted


def read_reach(reach: Reach | str) -> Reach:
    """Take a reach or its name. Raises `UsageError`."""
    if isinstance(reach, Reach):
        return reach
    try:
        return Reach[reach.upper()]
    except KeyError:
        names = ", ".join(each.name.lower() for each in Reach)
        raise UsageError(f"unknown reach {reach!r}: choose one of {names}") from None


def select(transports: Sequence[str | Transport] | None) -> list[Transport]:
    """Find transports by name. Raises `TransportError`, saying what there is."""
    if isinstance(transports, str):
        raise UsageError(f"transports={transports!r} is no list: write transports=[{transports!r}]")
    loaded = load_transports() if transports is None or any(isinstance(t, str) for t in transports) else None
    if transports is None:
        assert loaded is not None
        chosen = [transport for transport in loaded.transports.values() if transport.default]
        if not chosen:
            broken = "".join(f"; {name} failed to load: {why}" for name, why in loaded.failures.items())
            raise TransportError(
                f"no transport is installed{broken}: install one, such as mp2p-transport-v4, beside mp2p-core"
            )
        return chosen
    chosen = []
    for wanted in transports:
        if not isinstance(wanted, str):
            chosen.append(wanted)
            continue
        assert loaded is not None
        if wanted in loaded.transports:
            chosen.append(loaded.transports[wanted])
        elif wanted in loaded.failures:
            raise TransportError(f"transport {wanted} failed to load: {loaded.failures[wanted]}")
        else:
            names = ", ".join(sorted(loaded.transports)) or "none"
            raise TransportError(
                f"unknown transport {wanted!r} (installed: {names}): install the package that provides it"
            )
    if not chosen:
        raise UsageError("an empty list of transports: name one, or leave it out for all that are installed")
    return chosen


def _explicit(transports: list[Transport], text: str) -> list[tuple[Transport, Address]]:
    """Find the transports that a given address belongs to."""
    family, colon, rest = text.partition(":")
    if colon and any(transport.family == family for transport in transports):
        named = next(transport for transport in transports if transport.family == family)
        return [(named, named.parse_address(rest))]
    refusals = []
    for transport in transports:
        try:
            return [(transport, transport.parse_address(text))]
        except AddressError as error:
            refusals.append(f"{transport.name}: {error}")
    raise AddressError("; ".join(refusals))


async def open_channels(wanted: Wanted, key: PublicKey, random: RandomBytes) -> Opened:
    """Open what was asked for.

    A transport that was not asked for by name and finds no multicast is skipped, with its reason, as long
    as another one opens. Raises `NoMulticast`, `PortTaken`, `AddressError` or `TransportError`.
    """
    transports = select(wanted.transports)
    chosen: list[tuple[Transport, Address | None]]
    if wanted.address in ("derived", "random"):
        chosen = [(transport, None) for transport in transports]
    else:
        if wanted.port != DEFAULT_PORT:
            raise UsageError("an address carries its port: write ADDRESS:PORT and leave the port option out")
        chosen = list(_explicit(transports, wanted.address))
    channels: list[OpenChannel] = []
    skipped: list[tuple[str, NoMulticast]] = []
    async with AsyncExitStack() as on_failure:
        for transport, address in chosen:
            try:
                opened = await _open(transport, address, wanted, key, random)
            except NoMulticast as error:
                if wanted.transports is not None:
                    raise
                skipped.append((transport.name, error))
            else:
                on_failure.push_async_callback(opened.channel.aclose)
                channels.append(opened)
        if not channels:
            if len(skipped) == 1:
                raise skipped[0][1]
            raise NoMulticast(None, "; ".join(f"{name}: {error.cause}" for name, error in skipped))
        on_failure.pop_all()
    return Opened(tuple(channels), tuple((name, str(error)) for name, error in skipped), wanted)


async def _open(
    transport: Transport, address: Address | None, wanted: Wanted, key: PublicKey, random: RandomBytes
) -> OpenChannel:
    if address is None:
        address = transport.create_address(
            key=key.raw if wanted.address == "derived" else None,
            reach=wanted.reach,
            port=wanted.port,
            interfaces=wanted.interfaces,
            random=random,
        )
    return OpenChannel(transport, await transport.open(Listen(address, wanted.reach, wanted.interfaces)))
