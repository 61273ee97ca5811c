"""Ask a listening doctor, by multicast and by unicast, and collect what comes back by either way."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from mp2p.doctor.answering import unicast_socket
from mp2p.doctor.probes import LEAST_SIZE, NONCE_SIZE, Probe, pack, unpack
from mp2p_core.proto.addresses import port
from mp2p_core.proto.identity import PublicKey
from mp2p_core.transport import Address, Path, Train
from mp2p_udp import V4, V6, UdpChannel

__all__ = ["Asker", "Heard"]

_PATIENCE: Final = 1.5
"""Seconds to wait for an answer to the last question of a round."""
_AFTER: Final = 0.3
"""Seconds to wait for the second way of an answer once the first is there."""
_SIZE: Final = 65535


@dataclass(slots=True)
class Heard:
    """What came back from one round of questions."""

    sent: int = 0
    by_multicast: int = 0
    by_unicast: int = 0
    answered: set[bytes] = field(default_factory=set)
    said: dict[str, Any] = field(default_factory=dict)
    ahead: float | None = None
    """Seconds by which the peer's clock is ahead of ours, as far as an answer's way can be neglected."""
    refused: bool = False
    """Whether the other machine said that nobody listens there (ICMP port unreachable)."""
    changed: anyio.Event = field(default_factory=anyio.Event)

    def note(self) -> None:
        """Wake whoever waits for the next answer."""
        self.changed.set()
        self.changed = anyio.Event()

    @property
    def loss(self) -> float:
        """Share of the questions that no way brought an answer to."""
        return 1 - len(self.answered) / self.sent if self.sent else 1.0


class Asker:
    """Asks about one group of the peer's, from a channel of this machine's own group."""

    def __init__(self, own: PublicKey, peer: PublicKey, channel: UdpChannel, group: Address) -> None:
        self._own = str(own)
        self._peer = peer.raw
        self._channel = channel
        self._group = group
        family = V4 if group[0] == 4 else V6
        # Answers go to where the question came from: our group's port, where its own socket hears no unicast.
        self._beside = unicast_socket(family, port(channel.address))
        # One that is connected is told when nobody listens at the other end.
        self._direct = unicast_socket(family, 0)
        self._open: dict[bytes, Heard] = {}

    def close(self) -> None:
        """Release the sockets."""
        for sock in (self._beside, self._direct):
            sock.close()

    async def listen(self) -> None:
        """Collect what comes back, until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen_to_group)
            tasks.start_soon(self._listen_beside, self._beside)
            tasks.start_soon(self._listen_beside, self._direct)

    async def _listen_to_group(self) -> None:
        while True:
            for train in await self._channel.receive():
                for datagram in train.datagrams():
                    self._take(datagram, multicast=True)

    async def _listen_beside(self, sock: socket.socket) -> None:
        while True:
            await anyio.wait_readable(sock)
            try:
                self._take(sock.recv(_SIZE), multicast=False)
            except ConnectionRefusedError:
                for heard in self._open.values():
                    heard.refused = True
                    heard.note()
            except OSError:  # nothing there after all, or an older question's trouble
                continue

    async def ask(
        self,
        *,
        count: int = 3,
        interval: float = 0.1,
        size: int = LEAST_SIZE,
        host: tuple[str, int] | None = None,
        through: UdpChannel | None = None,
        more: Mapping[str, object] | None = None,
    ) -> Heard:
        """Ask `count` times: by multicast, or by unicast to `host`, and wait for what comes back."""
        heard = Heard()
        nonces = [os.urandom(NONCE_SIZE) for _ in range(count)]
        body = {"key": self._own, "group": self._channel.address.hex(), "time": time.time(), **(more or {})}
        if host is not None:
            self._direct.connect(host)
        for nonce in nonces:
            self._open[nonce] = heard
            question = pack(self._peer, Probe(False, nonce, body), max(size, LEAST_SIZE))
            heard.sent += 1
            self._send(question, heard, host, through or self._channel)
            await anyio.sleep(interval)
        with anyio.move_on_after(_PATIENCE):
            while len(heard.answered) < count and not heard.refused:
                await heard.changed.wait()
        with anyio.move_on_after(_AFTER if heard.answered else 0):
            while min(heard.by_multicast, heard.by_unicast) < count:
                await heard.changed.wait()
        for nonce in nonces:
            del self._open[nonce]
        return heard

    def _send(self, question: bytes, heard: Heard, host: tuple[str, int] | None, through: UdpChannel) -> None:
        if host is None:
            through.send(Train(Path(self._group), (question,), len(question)))
            return
        try:
            self._direct.send(question)
        except ConnectionRefusedError:
            heard.refused = True
        except OSError:  # it shows as silence
            return

    def _take(self, datagram: bytes, *, multicast: bool) -> None:
        answer = unpack(self._peer, datagram)
        if answer is None or not answer.answer or (heard := self._open.get(answer.nonce)) is None:
            return
        heard.answered.add(answer.nonce)
        heard.said = answer.body
        if isinstance(clock := answer.body.get("time"), float):
            heard.ahead = clock - time.time()
        if multicast:
            heard.by_multicast += 1
        else:
            heard.by_unicast += 1
        heard.note()
