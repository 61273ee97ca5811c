"""Where the two processes of a comparison talk: on loopback, or in two network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

__all__ = [
    "LOOPBACK",
    "ONE_CORE",
    "PORT",
    "End",
    "Place",
    "as_between_machines",
    "bridged",
    "namespaces",
    "namespaces_work",
    "receive_apart",
]

PORT: Final = 4741
"""Not mp2p's usual port, so that nodes of other programs on this machine are not heard."""

_NAMES: Final = ("mp2p-bench-a", "mp2p-bench-b")
_BRIDGE: Final = "mp2p-bench-m"
_ADDRESSES: Final = ("10.88.77.1", "10.88.77.2")


@dataclass(frozen=True)
class End:
    """Where one process runs."""

    host: str
    """Its IPv4 address."""
    namespace: str | None
    core: int | None
    """The one processor core that it may use, or None for any."""


@dataclass(frozen=True)
class Place:
    """Two ends of a network: that of the client, that of the server."""

    name: str
    client: End
    server: End
    reach: str
    """Reach of a node: it must not leave the place."""

    @property
    def unpinned(self) -> Place:
        """The same place, its processes on whatever cores the system chooses."""
        return replace(self, client=replace(self.client, core=None), server=replace(self.server, core=None))

    @property
    def node(self) -> dict[str, Any]:
        """Arguments of `open_node`."""
        return {"transports": ["v4"], "reach": self.reach, "port": PORT}


_CORES: Final = sorted(os.sched_getaffinity(0))
_APART: Final = _CORES[0], _CORES[-1]


def _loopback(name: str, cores: tuple[int, int]) -> Place:
    client, server = (End("127.0.0.1", None, core) for core in cores)
    return Place(name, client, server, "host")


LOOPBACK: Final = _loopback("loopback", _APART)
ONE_CORE: Final = _loopback("loopback, both on one core", (_CORES[-1], _CORES[-1]))


def namespaces_work() -> bool:
    """Tell whether this user may make network namespaces here."""
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextmanager
def namespaces() -> Iterator[Place]:
    """Make two network namespaces joined by a veth pair, and remove them at the end of the block."""
    _remove()
    try:
        _make(*_NAMES)
        _ip(
            "link",
            "add",
            "veth0",
            "netns",
            _NAMES[0],
            "type",
            "veth",
            "peer",
            "name",
            "veth0",
            "netns",
            _NAMES[1],
        )
        yield _address_ends("namespaces")
    finally:
        _remove()


@contextmanager
def bridged() -> Iterator[tuple[Place, Callable[[float], None]]]:
    """Make two network namespaces joined by a bridge in a third one, and remove them at the end of the block.

    Frames of at most 1500 bytes cross it. The function given with the place has the bridge lose that share of what
    the client sends, frame by frame, at random.
    """
    _remove()
    try:
        _make(*_NAMES, _BRIDGE)
        _ip("-n", _BRIDGE, "link", "add", "bridge0", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", _BRIDGE, "link", "set", "bridge0", "up")
        for name in _NAMES:
            port = "from-client" if name == _NAMES[0] else "to-server"
            _ip("link", "add", "veth0", "netns", name, "type", "veth", "peer", "name", port, "netns", _BRIDGE)
            _ip("-n", _BRIDGE, "link", "set", port, "up", "master", "bridge0")
            as_between_machines(_BRIDGE, port, gro="off")
        place = _address_ends("bridged").unpinned
        for end in (place.client, place.server):
            as_between_machines(str(end.namespace))
        yield place, _lose
    finally:
        _remove()


def _lose(share: float) -> None:
    rules = f"""
        add table bridge loss
        delete table bridge loss
        table bridge loss {{
            chain forward {{
                type filter hook forward priority 0
                iifname "from-client" ip protocol {{ udp, tcp }} numgen random mod 10000 < {round(share * 10000)} drop
            }}
        }}
    """
    subprocess.run(["ip", "netns", "exec", _BRIDGE, "nft", "-f", "-"], input=rules, text=True, check=True)


def as_between_machines(namespace: str, interface: str = "veth0", gro: str = "on") -> None:
    """Have frames of at most 1500 bytes leave an interface; with GRO they are put together on arrival, as network
    cards have it.
    """
    _ip(
        "netns", "exec", namespace, "ethtool", "-K", interface, "tso", "off", "tx-udp-segmentation", "off", "gro", gro
    )  # fmt: skip


def _make(*names: str) -> None:
    for name in names:
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")


def _address_ends(name: str) -> Place:
    """Give both ends their addresses, and wait until their links are up."""
    for end, address in zip(_NAMES, _ADDRESSES, strict=True):
        _ip("-n", end, "address", "add", f"{address}/24", "dev", "veth0")
        _ip("-n", end, "link", "set", "veth0", "up")
    for end in _NAMES:
        _wait_for_carrier(end)
    client, server = map(End, _ADDRESSES, _NAMES, _APART)
    return Place(name, client, server, "link")


@contextmanager
def receive_apart(place: Place) -> Iterator[None]:
    """Have the kernel receive in threads of its own; else a veth pair does that within the sender's system call."""
    ends = [end.namespace for end in (place.client, place.server) if end.namespace]
    for namespace in ends:  # a veth interface polls, as that takes, only while it joins what it receives
        _ip("netns", "exec", namespace, "ethtool", "-K", "veth0", "gro", "on")
    for value in "1", "0":
        for namespace in ends:
            _ip("netns", "exec", namespace, "sh", "-c", f"echo {value} > /sys/class/net/veth0/threaded")
        if value == "1":
            yield


def _wait_for_carrier(name: str) -> None:
    """Wait until the kernel calls the link running: a node uses no other."""
    deadline = time.monotonic() + 10
    shown = ["ip", "-json", "-n", name, "link", "show", "dev", "veth0"]
    while json.loads(subprocess.check_output(shown))[0]["operstate"] != "UP":
        if time.monotonic() > deadline:
            raise TimeoutError(f"the link in namespace {name} does not come up")
        time.sleep(0.02)


def _remove() -> None:
    for name in (*_NAMES, _BRIDGE):
        _ip("netns", "delete", name, check=False)


def _ip(*words: str, check: bool = True) -> None:
    quiet = None if check else subprocess.DEVNULL
    subprocess.run(["ip", *words], check=check, stderr=quiet)
