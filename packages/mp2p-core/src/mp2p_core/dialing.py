"""From a contact to addresses, and from a failure to advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from mp2p_core.contact import Contact
from mp2p_core.errors import AddressError, UsageError
from mp2p_core.proto import addresses
from mp2p_core.proto.constants import DEFAULT_PORT
from mp2p_core.transport import Address, Reach

if TYPE_CHECKING:
    from mp2p_core.opening import OpenChannel

__all__ = ["ADVICE", "targets_for", "tried"]

ADVICE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "nothing heard": (
            "Check, in this order: the peer is running; its key is the one in the contact; it allows your key "
            "(it is silent to strangers); both have the same pre-shared key, or neither has one; no firewall drops "
            "UDP to these groups on either side; both are in one network, or the routers between forward multicast. "
            "`mp2p doctor` looks at this machine and its network."
        ),
        "cookie": (
            "The peer is there and asked for a proof of address that did not get through: it is busy, or one direction "
            "loses much. Try again."
        ),
        "answered by another key": (
            "Something answered without the private key of this contact, or without this node's pre-shared key: check "
            "the contact, that key, and who else is on this network."
        ),
    }
)
"""What to do next, by the stage that a handshake reached."""


def targets_for(contact: Contact, channels: Sequence[OpenChannel]) -> list[tuple[int, Address]]:
    """Work out where to send INITs: the contact's addresses, and what follows from the key elsewhere.

    Channel numbers with addresses. Raises `AddressError` or `UsageError` when there is nowhere to send.
    """
    told: dict[str, list[str]] = {}
    for family, text in contact.addresses:
        told.setdefault(family, []).append(text)
    targets: list[tuple[int, Address]] = []
    refused = ""
    for number, (transport, channel) in enumerate(channels):
        known = [transport.parse_address(text) for text in told.get(transport.family, ())]
        if not known:
            derived = transport.derive_address(contact.key.raw, Reach.GLOBAL, DEFAULT_PORT)
            known = [] if derived is None else [derived]
        for address in known:
            if not addresses.reaches_further(channel.address, address):
                targets.append((number, address))
            else:
                refused = (
                    f"the peer listens at {transport.format_address(address)} and may not answer at "
                    f"{transport.format_address(channel.address)}, which reaches further: open this node with "
                    "the reach of the peer"
                )
    if targets:
        return targets
    if refused:
        raise AddressError(refused)
    families = ", ".join(sorted(told)) or "no family"
    raise UsageError(
        f"this contact lists addresses of {families}, and this node has none of that open "
        f"({', '.join(each.text for each in channels)}): open the transport that serves it"
    )


def tried(targets: Sequence[tuple[int, Address]], channels: Sequence[OpenChannel]) -> tuple[str, ...]:
    """Say what was sent to, for an error message."""
    found: list[str] = []
    for number, address in targets:
        transport, channel = channels[number]
        names = ", ".join(each.name for each in channel.status() if each.joined) or "no interface"
        found.append(f"{transport.name} {transport.format_address(address)} on {names}")
    return tuple(found)
