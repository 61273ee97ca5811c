"""What a classic server and a classic client have in common, sans-IO (protocol section 10).

    receive(train, now)   what the network brought
    transmits()           what is to be sent
    events()              the texts that came

No exception leaves it for anything that a stranger sent: such datagrams end as a counter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from mp2p_core.classic.messages import (
    ClassicAddressDeclaration,
    ClassicSessionData,
    ClassicSessionInitiation,
    parse_message,
)
from mp2p_core.errors import BadPacket
from mp2p_core.transport import Path, Train

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mp2p_core.classic.identity import ClassicIdentity
    from mp2p_core.classic.session import ClassicSession
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["ClassicEndpoint", "ClassicReceived"]


class ClassicReceived(NamedTuple):
    """A text that came in a session, authenticated."""

    session: ClassicSession
    text: bytes


class ClassicEndpoint(ABC):
    """One side's protocol state on one channel. Not thread-safe; one task drives it."""

    def __init__(
        self, identity: ClassicIdentity, address: Address, max_datagram_size: int, random: RandomBytes
    ) -> None:
        self._identity = identity
        self._address = address
        self._max_datagram_size = max_datagram_size
        self._random = random
        self._counters: Counter[str] = Counter()
        self._outgoing: deque[Train] = deque()
        self._events: deque[ClassicReceived] = deque()

    @property
    def counters(self) -> Mapping[str, int]:
        """Datagrams that came to nothing, by why. Names are fixed by this code."""
        return self._counters

    def receive(self, train: Train, now: float) -> None:
        """Take in datagrams. Never raises for their content."""
        for datagram in train.datagrams():
            try:
                self._receive_untrusted(datagram, train.path, now)
            except BadPacket as reason:
                self._counters[str(reason)] += 1

    def _receive_untrusted(self, datagram: bytes, path: Path, now: float) -> None:
        message = parse_message(datagram)
        if isinstance(message, ClassicSessionData):
            self._data_untrusted(message)
        elif isinstance(message, ClassicSessionInitiation):
            self._initiation_untrusted(message, path, now)
        else:
            self._declaration_untrusted(message, path, now)

    @abstractmethod
    def _declaration_untrusted(self, message: ClassicAddressDeclaration, path: Path, now: float) -> None:
        """Take a declaration."""

    @abstractmethod
    def _initiation_untrusted(self, message: ClassicSessionInitiation, path: Path, now: float) -> None:
        """Take an initiation."""

    @abstractmethod
    def _data_untrusted(self, message: ClassicSessionData) -> None:
        """Take a text."""

    def transmits(self) -> list[Train]:
        """Return what is to be sent, each datagram by itself."""
        sending, self._outgoing = self._outgoing, deque()
        return list(sending)

    def events(self) -> list[ClassicReceived]:
        """Return the texts that came since the last call, in their order."""
        came, self._events = self._events, deque()
        return list(came)

    def send(self, session: ClassicSession, text: bytes) -> None:
        """Send a text in a session; it may be lost. Raises `DatagramTooLarge`, or `Closed` once it has ended."""
        self._put(session.path, session.seal(text, self._random))

    def _put(self, path: Path, datagram: bytes) -> None:
        self._outgoing.append(Train(path, (datagram,), len(datagram)))
