"""What the path in use takes: how much in flight, how fast, in datagrams and packets of what size.

All that is learned anew when a session goes over to another path (docs/protocol.md, sections 6 and 7).
"""

from __future__ import annotations

from mp2p_core.proto.congestion import NewReno
from mp2p_core.proto.constants import BASE_DATAGRAM_SIZE
from mp2p_core.proto.pacing import Pacer
from mp2p_core.proto.pmtu import PathMtu
from mp2p_core.proto.rtt import RoundTrip
from mp2p_core.proto.sizer import PacketSizer
from mp2p_core.proto.tolerance import LossTolerance

__all__ = ["Capacity"]


class Capacity:
    """Congestion window, pacing, size of datagrams and of packets, kept in step with each other."""

    __slots__ = ("_rtt", "congestion", "datagram", "mtu", "pacer", "sizer", "tolerance")

    def __init__(self, limit: int, rtt: RoundTrip, now: float) -> None:
        self._rtt = rtt
        self.datagram = BASE_DATAGRAM_SIZE
        """Bytes of the largest datagram known to pass."""
        self.mtu = PathMtu(limit, now)
        self.congestion = NewReno(self.datagram)
        self.tolerance = LossTolerance()
        self.pacer = Pacer(self.datagram, self.congestion.window, rtt.smoothed, now)
        self.sizer = PacketSizer()

    # --- what arrived, and what did not ---------------------------------------------------------------

    def arrived(
        self, size: int, sent_at: float, datagrams: int, largest: int, *, limited: bool, data: bool
    ) -> None:
        """Note that a packet was acknowledged: bytes, when it was sent, in how many datagrams of what size.

        `limited` tells whether the window, and not the application, held the sender back; `data` whether it
        carried streams, which alone fill large packets.
        """
        if limited:
            self.congestion.acknowledged(size, sent_at)
        self.tolerance.arrived(datagrams)
        if largest > BASE_DATAGRAM_SIZE:
            self.mtu.arrived()
        if data:
            self.sizer.arrived(datagrams, sent_at)

    def lost(self, sent_at: float, datagrams: int, now: float) -> None:
        """Note that a packet was lost."""
        if not self.tolerance.forgives(datagrams, queued=self._rtt.queued):
            self.congestion.lost(sent_at, now, crowded=self._rtt.crowded)
        self.sizer.lost(datagrams, sent_at, now)

    def swallowed(self, now: float) -> None:
        """Note a round in which single datagrams larger than the base were lost."""
        if self.mtu.swallowed(now):
            self._resize()

    def timed_out(self, times: int, now: float) -> None:
        """Note probe timeouts in a row."""
        if self.mtu.timed_out(times, now):
            self._resize()

    def probe_arrived(self, size: int) -> None:
        """Note that a probe of the path's MTU was acknowledged."""
        self.mtu.passed(size)
        self._resize()

    def probe_lost(self, size: int) -> None:
        """Note that a probe of the path's MTU was lost."""
        self.mtu.failed(size)

    def update(self, now: float) -> None:
        """Have the pacer follow the window and the round trip."""
        self.pacer.update(self.congestion.window, self._rtt.paced, now)

    def _resize(self) -> None:
        self.datagram = self.mtu.size
        self.congestion.resize(self.datagram)
        self.pacer.resize(self.datagram)

    # --- what may go out ------------------------------------------------------------------------------

    def window(self, in_flight: int) -> float:
        """Return the bytes that the window lets out beside those; less than a datagram is nothing.

        Nor is less than a packet, while more is out than has yet to be let out: what comes back makes room for it.
        But who saves up for a large packet while a queue stands finds it full then, of others who did not.
        """
        window = self.congestion.window
        room = window - in_flight
        if room < self.datagram:
            return 0.0
        saves = room < in_flight and room < min(self.sizer.count * self.datagram, window / 4)
        return 0.0 if saves and not self._rtt.queued else room

    def span(self, window: float, now: float) -> int:
        """Return how many datagrams a packet may span when the window lets out so many bytes.

        It is not made small because the pacer has little left. Once there was congestion, it takes a quarter of the
        window at most: three later ones have to arrive to show that it is lost.
        """
        pacer = self.pacer
        room = min(window, max(pacer.budget(now), pacer.burst))
        if not self.congestion.slow_start:
            room = min(room, self.congestion.window / 4)
        return max(1, min(self.sizer.limit(self.datagram), int(room // self.datagram)))

    @property
    def takes_probe(self) -> bool:
        """Whether the next probe of the path's MTU would fit if nothing were out."""
        return 2 * self.mtu.wanted <= self.congestion.window

    def probe(self, window: float, now: float) -> int | None:
        """Return the size of a probe of the path's MTU, and count it as sent; None when there is none to send.

        It goes before the data, which always waits in a bulk transfer, but takes no more than half of what the
        window has left and nothing that the pacer does not have.
        """
        return self.mtu.probe(now, min(window / 2, self.pacer.budget(now)))
