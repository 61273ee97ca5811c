"""All that a node serves: finds the service of a call, whoever offers it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from mp2p_core import UsageError
from mp2p_rpc.incoming import Incoming

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mp2p_core import PublicKey, Stream
    from mp2p_rpc.interface import Interface
    from mp2p_rpc.method import Method
    from mp2p_rpc.node import Peer
    from mp2p_rpc.offer import Binding, Offer

__all__ = ["Found", "Server"]

_log = logging.getLogger("mp2p.rpc")

_DENIED_KEYS: Final = 256
_DENIED_METHODS: Final = 16
_METHOD_SHOWN: Final = 200
"""Keys and methods whose denial has been logged, each once. The oldest are forgotten."""


class Found(NamedTuple):
    """A service, and the offer that it is part of."""

    offer: Offer
    binding: Binding


class Server:
    """The offers of one node. `tasks` is for reading requests that come in pieces."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self._offers: list[Offer] = []
        self._found: dict[tuple[str, int], Found] = {}
        self._builtin = 0
        self.published = 0
        """How many topics are published: asking for them is a call, too."""
        self._others: dict[int, Callable[[Peer], bool]] = {}
        # Attack: a peer that may connect and calls what it may not, or what nobody serves, to fill the log.
        self._denied: dict[PublicKey, set[str]] = {}

    @property
    def serves(self) -> bool:
        """Whether there is more than what every node has, which comes first and stays."""
        return len(self._offers) > self._builtin or self.published > 0 or bool(self._others)

    def interfaces(self, key: PublicKey) -> Iterator[tuple[Interface, list[Method]]]:
        """Yield what a key may call."""
        for offer in self._offers[self._builtin :]:
            for binding in offer.bindings:
                methods = [
                    each for each in binding.interface.methods.values() if offer.allows(key, each.full_name)
                ]
                if methods:
                    yield binding.interface, methods

    def add(self, offer: Offer, *, builtin: bool = False) -> None:
        """Serve something more. Raises UsageError when a service of that name and version is served already."""
        added = {(each.interface.name, each.interface.version): Found(offer, each) for each in offer.bindings}
        for name, version in added.keys() & self._found.keys():
            raise UsageError(f"this node serves {name or 'functions'!r} (version {version}) already")
        self._found.update(added)
        self._offers.append(offer)
        self._builtin += builtin

    def remove(self, offer: Offer) -> None:
        """Serve it no more."""
        self._offers.remove(offer)
        for each in offer.bindings:
            del self._found[each.interface.name, each.interface.version]

    def take(self, peer: Peer, stream: Stream) -> None:
        """Take a call."""
        incoming = Incoming(self, peer, stream)
        peer.incoming.add(incoming)
        incoming.begin()

    @contextmanager
    def other_streams(self, first: int, wanted: Callable[[Peer], bool]) -> Iterator[None]:
        """Pass on streams that begin with this byte within the block, where `wanted`. Raises UsageError."""
        if not 32 <= first < 256:
            raise UsageError("a stream that is no call begins with a byte from 32 to 255")
        if first in self._others:
            raise UsageError(f"this node takes streams that begin with {bytes([first])!r} already")
        self._others[first] = wanted
        try:
            yield
        finally:
            del self._others[first]

    def wants(self, first: int, peer: Peer) -> bool:
        """Tell whether a stream of another protocol, which begins with this byte, is to be passed on."""
        wanted = self._others.get(first)
        return wanted is not None and wanted(peer)

    def find(self, service: str, version: int) -> Found | None:
        """Find a service."""
        return self._found.get((service, version))

    def knows(self, key: PublicKey) -> bool:
        """Tell whether this key may call anything of this node."""
        return any(offer.knows(key) for offer in self._offers)

    def log_denial(self, key: PublicKey, method: str, call: int) -> None:
        """Tell the log of a call that was denied."""
        shown = method[:_METHOD_SHOWN]
        denied = self._denied.setdefault(key, set())
        level = logging.DEBUG if shown in denied or len(denied) >= _DENIED_METHODS else logging.WARNING
        if level == logging.WARNING:
            denied.add(shown)
        if len(self._denied) > _DENIED_KEYS:
            del self._denied[next(iter(self._denied))]
        _log.log(level, "call %016x: %s may not call %r", call & 0xFFFFFFFFFFFFFFFF, key, shown)
