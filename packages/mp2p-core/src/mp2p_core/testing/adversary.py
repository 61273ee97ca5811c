"""An attacker who sees every datagram of a simulation and may drop, replay, edit and invent."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from mp2p_core.proto import addresses, wire
from mp2p_core.proto import constants as c
from mp2p_core.proto.cookies import mac1_for
from mp2p_core.testing.puppet import restamp
from mp2p_core.testing.simulation import Datagram

if TYPE_CHECKING:
    import random

    from mp2p_core.testing.oracles import Oracles
    from mp2p_core.testing.simulation import SimChannel, SimNode, Simulation
    from mp2p_core.transport import Address

__all__ = ["Adversary"]

_TYPES: Final = (c.TYPE_INIT, c.TYPE_RESP, c.TYPE_COOKIE, c.TYPE_DATA, c.TYPE_PART)
_RECORDED: Final = 256
_WITH_MAC1: Final = ((c.INIT_SIZE, bytes([c.TYPE_INIT])), (c.RESP_SIZE, bytes([c.TYPE_RESP])))


class Adversary:
    """Give its `sees` to a simulation as `adversary`, and call `act` as often as it should do something."""

    def __init__(self, sim: Simulation, oracles: Oracles, draw: random.Random) -> None:
        self._sim = sim
        self._oracles = oracles
        self._draw = draw
        self._recorded: deque[Datagram] = deque(maxlen=_RECORDED)
        self._handshakes: deque[Datagram] = deque(maxlen=_RECORDED)
        self._victims = [addresses.pack_ipv4(f"198.51.100.{n}", 1024 + n) for n in range(1, 5)]
        self.drop = 0.0
        """Share of all datagrams that do not pass."""
        self.swallow: int | None = None
        """A type of datagram that does not pass at all."""
        self.swap = 0.0
        """Share of datagrams that an edited copy overtakes."""

    def sees(self, datagram: Datagram) -> bool:
        """Record a datagram; returns whether it passes."""
        self._recorded.append(datagram)
        if datagram.data[0] in (c.TYPE_INIT, c.TYPE_RESP, c.TYPE_COOKIE):
            self._handshakes.append(datagram)
        draw = self._draw.random
        if self.drop and draw() < self.drop:
            return False
        if self.swap and draw() < self.swap:
            self._send(datagram, self._edited(datagram.data))
        return datagram.data[0] != self.swallow

    def _send(self, like: Datagram, data: bytes) -> None:
        """Send to where a datagram went, under its source or another one; with a right mac1, at times."""
        draw = self._draw
        if (len(data), data[:1]) in _WITH_MAC1 and draw.random() < 0.5:
            for node in self._sim.nodes:
                if any(like.destination in way for way in node.channels.values()):
                    data = restamp(data, node.key)
        source: Address = like.source
        if draw.random() < 0.4:
            source = draw.choice(self._victims)
            self._oracles.spoofed(source, like.destination, len(data))
        elif draw.random() < 0.2:
            source = self._some_channel(draw.choice(self._sim.nodes)).source
        self._sim.inject(Datagram(source, like.destination, data), delay=draw.random() * 0.01)

    def act(self) -> None:
        """Do one bad thing."""
        draw = self._draw
        if not self._recorded:
            return
        kept = self._handshakes if self._handshakes and draw.random() < 0.4 else self._recorded
        like = draw.choice(kept)
        what = draw.random()
        if what < 0.35:
            self._send(like, like.data)
        elif what < 0.45:  # back to where it came from
            to = self._some_channel(draw.choice(self._sim.nodes)).group
            self._send(Datagram(like.source, to, b""), like.data)
        elif what < 0.75:
            self._send(like, self._edited(like.data))
        else:
            node = draw.choice(self._sim.nodes)
            to = self._some_channel(node).group
            self._send(Datagram(like.source, to, b""), self._invented(node, like.data))

    def _some_channel(self, node: SimNode) -> SimChannel:
        return self._draw.choice(list(node.channels.values()))

    def _edited(self, data: bytes) -> bytes:
        draw = self._draw
        out = bytearray(data)
        how = draw.randrange(8)
        if how >= 6:  # what is not encrypted, and in INIT and RESP not all of it is bound otherwise
            out[draw.randrange(min(len(out), 32 if data[0] == c.TYPE_INIT else 12))] ^= 1 << draw.randrange(8)
        elif how == 0:
            out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
        elif how == 1:
            del out[draw.randrange(len(out)) :]
        elif how == 2:
            out += draw.randbytes(draw.randrange(1, 40))
        elif how == 3:
            out[0] = draw.choice(_TYPES)
        elif how == 4 and len(out) >= c.DATA_HEADER_SIZE:  # packet number, or what stands there
            out[draw.choice((10, 11, 12, 17))] = draw.randrange(256)
        else:
            other = draw.choice(self._recorded).data
            cut = draw.randrange(min(len(other), len(out)))
            out[cut:] = other[cut:]
        return bytes(out)

    def _invented(self, node: SimNode, seen: bytes) -> bytes:
        """Make something up that passes the first checks: right size, right mac1, an id that lives."""
        draw = self._draw
        kind = draw.choice(_TYPES)
        an_id = seen[2:10] if seen[0] == c.TYPE_DATA else seen[4:12]
        mac1 = mac1_for(node.key.raw)
        if kind == c.TYPE_INIT:
            head = wire.init_header(draw.randbytes(8), draw.choice((None, *self._victims)))
            body = head + draw.randbytes(wire.INIT_NOISE.stop - len(head))
            return body + mac1(body) + draw.randbytes(16)
        if kind == c.TYPE_RESP:
            head = wire.resp_header(an_id)
            body = head + draw.randbytes(wire.RESP_NOISE.stop - len(head))
            return body + mac1(body)
        if kind == c.TYPE_COOKIE:
            return wire.cookie_header(an_id, draw.randbytes(16), draw.randbytes(32))
        number = draw.choice((draw.randrange(400), draw.randrange(1 << 16), 1 << 62, (1 << 64) - 1))
        if kind == c.TYPE_DATA:
            return wire.data_header(an_id, number) + draw.randbytes(draw.randrange(16, 300))
        count = draw.choice((0, 1, 2, 3, 44, 64, 65))
        head = (
            bytes([c.TYPE_PART, draw.randrange(max(count, 1)), count, 0]) + an_id + number.to_bytes(8, "big")
        )
        return head + draw.randbytes(draw.randrange(1180))
