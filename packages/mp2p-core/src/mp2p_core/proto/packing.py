"""What goes into the next packet, and what became of those before (docs/protocol.md, sections 6 and 7).

Brings together what one packet-number space has: acknowledgements both ways, loss recovery, congestion
control, pacing, the size of packets, unreliable messages, pings, and streams. Seals nothing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from mp2p_core.proto import constants as c
from mp2p_core.proto.acks import AckSender
from mp2p_core.proto.congestion import NewReno
from mp2p_core.proto.frames import PING_FRAME, STREAM, STREAM_LAST, STREAM_OVERHEAD, encode_msg
from mp2p_core.proto.pacing import Pacer
from mp2p_core.proto.parts import PART_HEADER_SIZE, part_room
from mp2p_core.proto.pmtu import PathMtu
from mp2p_core.proto.recovery import Recovery, SentPacket
from mp2p_core.proto.rtt import RoundTrip
from mp2p_core.proto.send_stream import Sent
from mp2p_core.proto.sizer import PacketSizer
from mp2p_core.proto.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core.proto.frames import Ack
    from mp2p_core.proto.recovery import AckResult

__all__ = ["Packer", "Plaintext"]

_PROBES: Final = 2
"""Packets that a probe timeout sends past the window (RFC 9002, section 6.2.4)."""


class Plaintext(NamedTuple):
    """The frames of one packet, not sealed yet, and the datagrams that the sealed packet spans."""

    data: bytes
    datagrams: int


class _Content(NamedTuple):
    """What to do about a packet once it is known to be there, or not to be."""

    pings: tuple[int, ...]
    announced: bytes
    streams: Sequence[Sent]
    datagrams: int
    largest: int
    """Bytes of its largest datagram."""


class Packer:
    """The sending half of a connection's packet-number space."""

    __slots__ = (
        "_announced", "_congestion", "_large", "_limit", "_limited_to", "_messages", "_messages_turn", "_pacer",
        "_pings", "_pings_due", "_pmtu", "_probes", "_recovery", "_sizer", "_to_announce", "acks", "answered_pings",
        "datagram", "messages_dropped", "next_number", "packets_lost", "rtt", "streams",
    )  # fmt: skip

    def __init__(
        self, *, initiator: bool, limit: int, large: bool, rtt: float | None, first_number: int, now: float
    ) -> None:
        datagram = self.datagram = c.BASE_DATAGRAM_SIZE
        """Bytes of the largest datagram known to pass."""
        self._limit = limit
        self._pmtu = PathMtu(limit, now)
        self._large = large
        self.rtt = RoundTrip(rtt)
        self.next_number = first_number
        self.acks = AckSender()
        self.streams = Streams(initiator=initiator)
        self.streams.set_rtt(self.rtt.smoothed)
        self.streams.open()  # each side's first stream, 0 or 1, is for messages
        self.answered_pings: deque[tuple[int, float]] = deque()
        self.packets_lost = 0
        self.messages_dropped = 0
        self._recovery = Recovery(self.rtt)
        self._congestion = NewReno(datagram)
        self._pacer = Pacer(datagram, self._congestion.window, self.rtt.smoothed, now)
        self._sizer = PacketSizer()
        # The last packet sent with half of the window in use: until it is acknowledged, the window and not
        # the application holds the sender back (RFC 9002, section 7.8).
        self._limited_to = -1
        # Attack: a peer that acknowledges nothing, so that the window stays shut. Bounded like a socket's buffer.
        self._messages: deque[bytes] = deque()
        self._messages_turn = True
        self._announced = self._to_announce = b""
        self._pings: list[int] = []
        self._pings_due = 0
        self._probes = 0

    # --- what the application wants ----------------------------------------------------------------

    def message(self, data: bytes) -> None:
        """Queue an unreliable message; above 1024 that the window has not let out, the oldest is dropped."""
        if len(self._messages) >= c.MAX_QUEUED_MESSAGES:
            self._messages.popleft()
            self.messages_dropped += 1
        self._messages.append(encode_msg(data))

    def ping(self, *numbers: int) -> None:
        """Ask for an acknowledgement at once; numbers come back in `answered_pings`."""
        self._pings.extend(numbers)
        self._pings_due = max(self._pings_due, 1)

    def announce(self, frames: bytes) -> None:
        """Send frames that fit in half a datagram, and again when they are lost, until others take their place."""
        self._announced = self._to_announce = frames
        self.ping()

    def take_over(self, spare: Packer) -> None:
        """Send what another packer has queued and not sent, streams apart."""
        for message in spare._messages:
            self._messages.append(message)
        if spare._pings:
            self.ping(*spare._pings)
        spare.clear()

    def clear(self) -> None:
        """Forget what is queued: the session ends."""
        self._messages.clear()
        self._pings.clear()

    @property
    def probes_unanswered(self) -> int:
        """Probe timeouts in a row, with something outstanding."""
        return self._recovery.backoff

    def answered(self) -> None:
        """Count probes anew: a handshake has shown that the peer is there."""
        self._recovery.backoff = 0

    # --- what the network says ---------------------------------------------------------------------

    def acked_untrusted(self, ack: Ack, now: float) -> None:
        """Read an ACK. Raises BadPacket for one that cannot be."""
        result = self._recovery.acked_untrusted(ack, self.next_number, now)
        if result.sampled:
            self.streams.set_rtt(self.rtt.smoothed)
        self._learn(result, now)

    def _learn(self, result: AckResult, now: float) -> None:
        if not (result.acked or result.lost):
            return
        # Losses first: what arrived in the round of a loss does not widen the window (RFC 9002, appendix A.7).
        if result.lost:
            self._learn_lost(result, now)
        congestion, path_from = self._congestion, self._recovery.path_from
        for packet in result.acked:
            if packet.path_probe:
                packet.content.passed(packet.size)
                self._resize()
                continue
            content: _Content = packet.content
            if content.pings:
                self.answered_pings.extend((ping, now - packet.at) for ping in content.pings)
            if content.streams:
                self.streams.acked(content.streams)
            if packet.number < path_from:
                continue
            congestion.acknowledged(packet.size, packet.at, limited=packet.number <= self._limited_to)
            if content.largest > c.BASE_DATAGRAM_SIZE:
                self._pmtu.arrived()
            if content.streams:
                self._sizer.arrived(content.datagrams)
        self._pacer.update(congestion.window, self.rtt.smoothed, now)

    def _learn_lost(self, result: AckResult, now: float) -> None:
        swallowed = False
        for packet in result.lost:
            self.packets_lost += 1
            if packet.path_probe:
                packet.content.failed(packet.size)
                continue
            content: _Content = packet.content
            self.streams.lost(content.streams)
            if content.announced and content.announced is self._announced:
                self.announce(content.announced)
            if packet.number < self._recovery.path_from:
                continue
            self._congestion.lost(packet.at, now)
            self._sizer.lost(content.datagrams, packet.at, now)
            # A lost part says less: any of many datagrams may have been the one.
            swallowed = swallowed or (content.datagrams == 1 and content.largest > c.BASE_DATAGRAM_SIZE)
        if swallowed and self._pmtu.swallowed(now):
            self._resize()
        if result.persistent:
            self._congestion.persistent()
            self.rtt.forget_minimum()

    def _resize(self) -> None:
        self.datagram = self._pmtu.size
        self._congestion.resize(self.datagram)
        self._pacer.resize(self.datagram)

    def moved(self, now: float, *, limit: int | None = None, rtt: float | None = None) -> None:
        """Begin anew with what is known of the path: it is another one (RFC 9000, section 9.4).

        `limit` is the largest datagram that its channel takes, `rtt` a round trip that was measured on it.

        What is out on the old one may still arrive, and is sent again when it does not; it says nothing about
        the new one.
        """
        self.acks.again()
        self.rtt.restart(rtt)
        self._recovery.moved(self.next_number)
        self.streams.set_rtt(self.rtt.smoothed)
        self._pmtu = PathMtu(min(self._limit, limit or self._limit), now)
        self.datagram = c.BASE_DATAGRAM_SIZE
        self._sizer = PacketSizer()
        self._congestion = NewReno(self.datagram)
        self._pacer = Pacer(self.datagram, self._congestion.window, self.rtt.smoothed, now)

    # --- what goes out ------------------------------------------------------------------------------

    def next(self, now: float) -> Plaintext | None:
        """Collect the next packet and count it as sent; None when nothing has to go out now.

        To be called until it returns None. Each packet takes something out of what waits, so that comes.
        """
        if (probe := self._path_probe(now)) is not None:
            return probe
        if self._probes and not self._waiting():
            self._pings_due = self._probes  # one packet took all there was: the other asks for a sign of life
            self._probes = 0
        may_send = self._waiting() and (self._probes > 0 or self._room(now) > 0)
        if not (may_send or self._pings_due or self.acks.due(now)):
            return None
        buffers: list[bytes | memoryview] = []
        room = self.datagram - c.DATA_MIN_SIZE
        if self.acks.wanted:
            ack = self.acks.frame(now)
            buffers.append(ack)
            room -= len(ack)
        count = self._span(now) if may_send else 1
        # The last packet that the window lets out asks for an ACK, which is all that can come next.
        eliciting = self._pings_due > 0 or (may_send and self._window() < (count + 1) * self.datagram)
        if eliciting:
            self._pings_due = max(self._pings_due - 1, 0)
            buffers.append(PING_FRAME)
            room -= 1
        if announced := self._to_announce:
            self._to_announce = b""
            buffers.append(announced)
            room -= len(announced)
        sent: Sequence[Sent] = ()
        if may_send:
            before = len(buffers)
            sent = self._fill(room, buffers, count)
            eliciting = eliciting or len(buffers) > before
        if not buffers:
            return None
        plaintext = b"".join(buffers)
        datagrams = 1
        if len(plaintext) > self.datagram - c.DATA_MIN_SIZE:
            step = self.datagram - PART_HEADER_SIZE
            datagrams = -(-(len(plaintext) + c.TAG_SIZE) // step)
        if eliciting:
            self._note(len(plaintext), announced, sent, datagrams, now)
        self.next_number += 1
        return Plaintext(plaintext, datagrams)

    def _fill(self, room: int, buffers: list[bytes | memoryview], count: int) -> Sequence[Sent]:
        """Append messages and frames of streams, which take turns at packets where both wait."""
        messages, streams = self._messages, self.streams
        turn = self._messages_turn or not streams.wants_to_send()
        self._messages_turn = not turn
        used = self.datagram - c.DATA_MIN_SIZE - room
        while turn and messages and len(messages[0]) <= room:
            message = messages.popleft()
            room -= len(message)
            used += len(message)
            buffers.append(message)
        if (turn and messages) or not streams.wants_to_send():
            return ()
        if count > 1:
            room = part_room(self.datagram, count) - used
        return streams.fill(room, buffers)

    def waiting(self, now: float) -> bool:
        """Tell whether something waits to be sent, be it for the window."""
        return bool(self._pings_due or self._waiting() or self.acks.due(now) or self._may_probe_path(now))

    def _may_probe_path(self, now: float) -> bool:
        """Tell whether it is time to probe the path's MTU: not before the peer is known to hear us over it."""
        return self._pmtu.due(now) and self._recovery.largest_acked >= self._recovery.path_from

    def _path_probe(self, now: float) -> Plaintext | None:
        """Make a probe of the path's MTU when one is due, and count it as sent.

        It goes before the data, which always waits in a bulk transfer, but takes no more than half of what the
        window has left and nothing that the pacer does not have.
        """
        if not self._may_probe_path(now):
            return None
        if (size := self._pmtu.probe(now, min(self._window() / 2, self._pacer.budget(now)))) is None:
            return None
        plaintext = PING_FRAME + bytes(size - c.DATA_MIN_SIZE - len(PING_FRAME))
        self._sent(size, self._pmtu, now, path_probe=True)
        self.next_number += 1
        return Plaintext(plaintext, 1)

    def _note(self, length: int, announced: bytes, sent: Sequence[Sent], datagrams: int, now: float) -> None:
        if datagrams == 1:
            largest = size = length + c.DATA_MIN_SIZE
        else:
            largest, size = self.datagram, length + datagrams * PART_HEADER_SIZE + c.TAG_SIZE
        self._sent(size, _Content(tuple(self._pings), announced, sent, datagrams, largest), now)
        self._pings.clear()
        if self._probes:
            self._probes -= 1

    def _sent(self, size: int, content: _Content | PathMtu, now: float, *, path_probe: bool = False) -> None:
        packet = SentPacket(self.next_number, now, size, content, path_probe=path_probe)
        pushed_out = self._recovery.sent(packet)
        if pushed_out is not None:
            if pushed_out.path_probe:
                pushed_out.content.failed(pushed_out.size)
            else:
                self.streams.lost(pushed_out.content.streams)
        if 2 * self._recovery.in_flight >= self._congestion.window:
            self._limited_to = self.next_number
        self._pacer.sent(size)

    def _waiting(self) -> bool:
        """Tell whether there is anything that the window may hold back."""
        return bool(self._messages) or self.streams.wants_to_send()

    def _window(self) -> float:
        """Bytes that the window lets out; less than a datagram is nothing."""
        room = self._congestion.window - self._recovery.in_flight
        return 0.0 if room < self.datagram or self._recovery.full else room

    def _room(self, now: float) -> float:
        """Bytes that the window and the pacer let out now."""
        return min(self._window(), self._pacer.budget(now))

    def _span(self, now: float) -> int:
        """Datagrams that the next packet may span: no small packet because the pacer has little left."""
        if not self._large or self._probes:
            return 1
        room = min(self._window(), max(self._pacer.budget(now), self._pacer.burst))
        return max(1, min(self._sizer.limit(self.datagram), int(room // self.datagram)))

    # --- time ---------------------------------------------------------------------------------------

    def timeout(self) -> float | None:
        """Return when `next` or `handle_timeout` is due; what waits for the window waits for an ACK instead."""
        due = self._recovery.timeout()
        acks = self.acks.deadline
        if acks is not None and (due is None or acks < due):
            due = acks
        if self._waiting() and self._window() > 0:
            paced = self._pacer.ready_at()
            if due is None or paced < due:
                due = paced
        return due

    def handle_timeout(self, now: float) -> None:
        """Look for losses, or prepare probes."""
        due = self._recovery.timeout()
        if due is None or now < due:
            return
        result = self._recovery.handle_timeout(now)
        if result is not None:
            self._learn(result, now)
            return
        if self._pmtu.timed_out(self._recovery.backoff, now):
            self._resize()
        self.probe()

    def probe(self) -> None:
        """Send again what has been out longest, past the window, or ask for a sign of life.

        Of a large packet no more than a datagram's worth: the rest may well be on its way.
        """
        room = self.datagram - c.DATA_MIN_SIZE - len(PING_FRAME)
        for packet in self._recovery.oldest(_PROBES):
            if not packet.path_probe:
                self.streams.lost(_beginning(packet.content.streams, room))
        if self._waiting():
            self._probes = _PROBES
        else:
            self._pings_due = _PROBES


def _beginning(frames: Sequence[Sent], room: int) -> list[Sent]:
    """Return the first frames, and the first bytes of the last of them, that fit in so many bytes."""
    found: list[Sent] = []
    for frame in frames:
        kind, stream, start, end = frame
        room -= STREAM_OVERHEAD
        if room <= 0:
            break
        if kind in (STREAM, STREAM_LAST):
            if end - start > room:
                found.append(Sent(STREAM, stream, start, start + room))
                break
            room -= end - start
        found.append(frame)
    return found
