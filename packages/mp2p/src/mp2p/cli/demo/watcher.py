"""The demo's third process: an eavesdropper on the nodes' groups, who then knocks as a stranger.

It has what any program on the network has: the groups, the port and the called node's public key.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import anyio
from anyio.abc import TaskGroup

import mp2p_core
from mp2p.cli.acting import Orders, report
from mp2p_core.plugins import load_transports
from mp2p_core.proto.constants import TYPE_COOKIE, TYPE_DATA, TYPE_GROUP, TYPE_INIT, TYPE_RESP
from mp2p_core.transport import Channel, Listen, Path, Reach, Train, Transport

__all__ = ["PATIENCE", "contains", "watch"]

PATIENCE: Final = 1.2
"""Seconds that the stranger waits for an answer: long enough to knock twice."""

_CONTROL_WAIT: Final = 2.0  # s; a datagram to a group on this machine takes well under a millisecond
_WINDOW: Final = 8  # bytes; a piece of a text that long does not occur in random bytes by chance
_MOST_HEARD: Final = 1000  # against another program that floods the group while the demo runs
_TYPES: Final = {
    TYPE_INIT: "INIT",
    TYPE_RESP: "RESP",
    TYPE_COOKIE: "COOKIE",
    TYPE_DATA: "DATA",
    TYPE_GROUP: "GROUP",
}


class Heard(NamedTuple):
    """A datagram, the group it was sent to, and the interface it came in on."""

    group: str
    datagram: bytes
    interface: int = 0

    @property
    def type(self) -> str:
        """Name of the packet type."""
        return _TYPES.get(self.datagram[0], "unknown") if self.datagram else "empty"


class _Ear:
    """A plain socket on a group, and all that it heard."""

    def __init__(self, group: str, channel: Channel, heard: list[Heard]) -> None:
        self._group = group
        self._channel = channel
        self._heard = heard
        self._news = anyio.Event()

    async def listen(self) -> None:
        while True:
            for train in await self._channel.receive():
                for datagram in train.datagrams():
                    self._hear(Heard(self._group, bytes(datagram), train.path.interface))
            self._news.set()
            self._news = anyio.Event()

    def _hear(self, new: Heard) -> None:
        # A node sends its INIT on each of its interfaces: heard on several, it still is one.
        echo = any(one.datagram == new.datagram and one.interface != new.interface for one in self._heard)
        if not echo and len(self._heard) < _MOST_HEARD:
            self._heard.append(new)

    async def hears(self, datagram: bytes) -> bool:
        """Send `datagram` to the group and tell whether it is heard.

        Everything that was sent to the group before it has then been heard as well.
        """
        self._channel.send(Train(Path(self._channel.address), [datagram], len(datagram)))
        with anyio.move_on_after(_CONTROL_WAIT):
            while not any((one.group, one.datagram) == (self._group, datagram) for one in self._heard):
                await self._news.wait()
            return True
        return False


def contains(heard: Iterable[Heard], texts: Sequence[str]) -> bool:
    """Tell whether a piece of one of `texts` stands in one of the datagrams."""
    pieces = {
        text.encode()[start : start + _WINDOW]
        for text in texts
        for start in range(max(1, len(text.encode()) - _WINDOW + 1))
    }
    return any(piece in datagram for _, datagram, _ in heard for piece in pieces)


async def watch(orders: Orders, name: str) -> None:
    """Record what the groups carry and look for the plaintext in it, knock, and count a topic's datagrams."""
    transport = load_transports().transports[name]
    heard: list[Heard] = []
    async with anyio.create_task_group() as tasks:
        groups: list[str] = (await orders.receive())["groups"]
        ears = [await _open_ear(tasks, transport, group, heard) for group in groups]
        report("watching", groups=groups)

        texts: list[str] = (await orders.receive())["search"]
        recorded = await _controlled(ears, heard, texts)
        report(
            "seen",
            datagrams=[
                {
                    "group": one.group,
                    "type": one.type,
                    "size": len(one.datagram),
                    "hex": one.datagram.hex(),
                }
                for one in recorded
            ],
            plaintext_found=contains(recorded, texts),
            control_found=contains(heard[len(recorded) :], texts),
        )

        contact: str = (await orders.receive())["knock"]
        await _knock(tasks, transport, contact, heard)

        group: str = (await orders.receive())["count"]
        await _open_ear(tasks, transport, group, heard)
        report("counting", group=group)
        texts = (await orders.receive())["search"]
        on_group = [one for one in heard if one.group == group]
        report(
            "counted",
            datagrams=len(on_group),
            bytes=sum(len(one.datagram) for one in on_group),
            types=sorted({one.type for one in on_group}),
            plaintext_found=contains(on_group, texts),
        )


async def _open_ear(tasks: TaskGroup, transport: Transport, group: str, heard: list[Heard]) -> _Ear:
    address = transport.parse_address(group.removeprefix(f"{transport.family}:"))
    channel = await transport.open(Listen(address, Reach.HOST))
    ear = _Ear(group, channel, heard)
    tasks.start_soon(ear.listen)
    return ear


async def _controlled(ears: Sequence[_Ear], heard: list[Heard], texts: Sequence[str]) -> list[Heard]:
    """Return what was heard until now, and have the same texts heard in the clear as well.

    A search that finds nothing proves nothing unless it would have found something.
    """
    controls = [f"in the clear: {text}".encode() for text in texts]
    for ear, control in zip(ears, controls, strict=True):
        await ear.hears(control)
    recorded = [one for one in heard if one.datagram not in controls]
    heard[:] = recorded + [one for one in heard if one.datagram in controls]
    return recorded


async def _knock(tasks: TaskGroup, transport: Transport, contact: str, heard: list[Heard]) -> None:
    async with mp2p_core.open_node(transports=[transport], reach=Reach.HOST) as stranger:
        home = stranger.addresses[0]
        ear = await _open_ear(tasks, transport, home, heard)
        before = len(heard)
        began = time.perf_counter()
        try:
            async with stranger.connect(contact, timeout=PATIENCE):
                stage = "let in"
        except mp2p_core.PeerUnreachable as unreachable:
            stage = unreachable.stage
        seconds = time.perf_counter() - began
        control = b"is this ear open?"
        open_ear = await ear.hears(control)
        came = heard[before:]
        report(
            "silence",
            key=str(stranger.key),
            stage=stage,
            knocks=sum(one.type == "INIT" and one.group != home for one in came),
            answers=sum(one.group == home and one.datagram != control for one in came),
            control_heard=open_ear,
            seconds=round(seconds, 3),
        )
