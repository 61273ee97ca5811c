"""All interfaces of one channel: which are joined, and following them as they come, change and go."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mp2p_core.transport import InterfaceStatus, Listen, Reach, Train
from mp2p_udp.inventory import Interface, choose
from mp2p_udp.membership import Membership

if TYPE_CHECKING:
    from mp2p_udp.family import Family
    from mp2p_udp.inventory import Skipped

__all__ = ["Members"]


class Members:
    """The memberships of a channel, by interface index.

    Sending trouble never removes one: only the system's own list of interfaces does.
    """

    def __init__(self, sock: socket.socket, family: Family, listen: Listen) -> None:
        self._sock = sock
        self._family = family
        self._listen = listen
        self._by_index: dict[int, Membership] = {}
        self._skipped: tuple[Skipped, ...] = ()
        self.own_hosts: frozenset[bytes] = frozenset()
        """The addresses of this machine, packed, where datagrams must not leave it."""

    def follow(self, interfaces: Sequence[Interface], now: float) -> bool:
        """Join, leave and join again as the system's list of interfaces says; tells whether any changed.

        An interface that was deleted and made anew has a new index, and so is a new one. One that went
        down, came up, or changed its addresses joins again: its switch may have forgotten it.
        """
        family, listen = self._family, self._listen
        choice = choose(
            interfaces,
            family.number,
            asked=listen.interfaces,
            loopback=listen.reach is Reach.HOST and family.host_uses_loopback,
        )
        self._skipped = choice.skipped
        if listen.reach is Reach.HOST:
            self.own_hosts = frozenset(address.packed for each in interfaces for address in each.addresses)
        changed = False
        eligible = {interface.index: interface for interface in choice.eligible}
        for index in self._by_index.keys() - eligible.keys():
            # Also when it is gone: its entry would count against the memberships that a socket may have.
            self._by_index.pop(index).leave()
            changed = True
        for index, interface in eligible.items():
            member = self._by_index.get(index)
            if member is None:
                member = self._by_index[index] = Membership(self._sock, family, listen.address, interface)
            elif member.joined and member.interface == interface:
                continue
            else:
                member.leave()
                member.describe(interface)
            changed = True
            member.join(now)
        return changed

    def heard(self, trains: Iterable[Train], now: float) -> None:
        """Note where datagrams came in."""
        for train in trains:
            if (member := self._by_index.get(train.path.interface)) is not None:
                member.heard_at = now

    def get(self, index: int) -> Membership | None:
        """Find an interface that is in use."""
        return self._by_index.get(index)

    def joined(self) -> list[Membership]:
        """Return those that are joined."""
        return [member for member in self._by_index.values() if member.joined]

    def status(self, now: float) -> list[InterfaceStatus]:
        """Say what became of each interface, in the order of their index, unused ones last."""
        used = [self._by_index[index].status(now) for index in sorted(self._by_index)]
        return [
            *used,
            *(InterfaceStatus(s.name, s.index, joined=False, detail=s.reason) for s in self._skipped),
        ]

    def __iter__(self) -> Iterator[Membership]:
        """Yield every interface in use."""
        return iter(self._by_index.values())

    def __len__(self) -> int:
        return len(self._by_index)
