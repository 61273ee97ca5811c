"""Find the installed transports. A broken one is named, with its reason, and the others load."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType

import pluggy

from mp2p_core import transport as contract
from mp2p_core.boundary import Boundary
from mp2p_core.transport import TRANSPORT_API, Transport

__all__ = ["Loaded", "load_plugins", "load_transports"]

GROUP = "mp2p"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The transports by name, and what did not load, as plugin name to reason."""

    transports: Mapping[str, Transport]
    failures: Mapping[str, str]


@functools.cache
def load_transports() -> Loaded:
    """Load every transport that an installed distribution registers under the entry point group `mp2p`.

    Looks once per process: installing another transport takes a restart.
    """
    return load_plugins(metadata.entry_points(group=GROUP))


def load_plugins(entry_points: Iterable[metadata.EntryPoint]) -> Loaded:
    """Load these plugins, each apart from the others."""
    transports: dict[str, Transport] = {}
    failures: dict[str, str] = {}
    for point in sorted(entry_points, key=lambda point: point.name):
        # A plugin is somebody else's code: whatever it raises must not take the other transports along.
        with Boundary() as boundary:
            found = _load(point)
            for transport in found:
                _check(transport, transports)
            transports.update((transport.name, transport) for transport in found)
        if (error := boundary.error) is not None:
            failures[point.name] = f"{type(error).__name__}: {error}"
    return Loaded(MappingProxyType(transports), MappingProxyType(failures))


def _load(point: metadata.EntryPoint) -> list[Transport]:
    """Ask one plugin in a manager of its own, so that what it registers wrongly is its own trouble."""
    manager = pluggy.PluginManager("mp2p")
    manager.add_hookspecs(contract)
    manager.register(point.load(), point.name)
    manager.check_pending()
    results: list[Iterable[Transport]] = manager.hook.mp2p_transports()
    if not results:
        raise ValueError("it has no function mp2p_transports marked with @hookimpl")
    return [transport for result in results for transport in result]


def _check(transport: object, known: Mapping[str, Transport]) -> None:
    """Refuse what does not keep the contract, before a node trips over it."""
    if not isinstance(transport, Transport):
        missing = [name for name in _MEMBERS if not hasattr(transport, name)]
        raise TypeError(f"{type(transport).__name__} is no transport: it lacks {', '.join(missing)}")
    if transport.api != TRANSPORT_API:
        raise ValueError(
            f"it was written for version {transport.api} of the transport contract, and this is {TRANSPORT_API}: "
            "update it or mp2p-core"
        )
    if transport.name in known:
        raise ValueError(f"another plugin already provides a transport named {transport.name!r}: remove one")


_MEMBERS = sorted(name for name in vars(Transport) if not name.startswith("_"))
