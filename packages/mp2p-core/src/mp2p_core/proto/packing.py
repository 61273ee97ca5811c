"""What goes into the next packet, and what became of those before (docs/protocol.md, sections 6 and 7).

Brings together what one packet-number space has: acknowledgements both ways, loss recovery, what the path takes,
unreliable messages, pings, and streams. Seals nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from mp2p_core.proto import constants as c
from mp2p_core.proto.acks import AckSender
from mp2p_core.proto.capacity import Capacity
from mp2p_core.proto.content import Content
from mp2p_core.proto.frames import PING_FRAME, encode_msg
from mp2p_core.proto.parts import PART_HEADER_SIZE, part_room
from mp2p_core.proto.recovery import Recovery, SentPacket
from mp2p_core.proto.rtt import RoundTrip
from mp2p_core.proto.send_stream import Sent
from mp2p_core.proto.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mp2p_core.proto.frames import Ack
    from mp2p_core.proto.recovery import AckResult

__all__ = ["Packer", "Plaintext"]

_PROBES: Final = 2
"""Packets that a probe timeout sends past the window (RFC 9002, section 6.2.4)."""

_REPEATED: Final = 4
"""How much smaller packets are that only repeat what was lost: lost again, each would cost another round trip."""


Plaintext: TypeAlias = tuple[bytes, int]
"""The frames of one packet, not sealed yet, and the datagrams that the sealed packet spans."""


class Packer:
    """The sending half of a connection's packet-number space."""

    __slots__ = (
        "_announced", "_bulk", "_capacity", "_large", "_limit", "_limited_to", "_messages", "_messages_turn", "_pings",
        "_pings_due", "_probes", "_recovery", "_to_announce", "acks", "answered_pings", "messages_dropped",
        "next_number", "packets_lost", "rtt", "streams",
    )  # fmt: skip

    def __init__(
        self, *, initiator: bool, limit: int, large: bool, rtt: float | None, first_number: int, now: float
    ) -> None:
        self._limit = limit
        self._large = large
        self.rtt = RoundTrip(rtt)
        self._capacity = Capacity(limit, self.rtt, now)
        self.next_number = first_number
        self.acks = AckSender()
        self.streams = Streams(initiator=initiator)
        self.streams.set_rtt(self.rtt.smoothed)
        self.streams.open()  # each side's first stream, 0 or 1, is for messages
        self.answered_pings: list[tuple[int, float]] = []
        self.packets_lost = 0
        self.messages_dropped = 0
        self._recovery = Recovery(self.rtt)
        # The last packet sent with half of the window in use: until it is acknowledged, the window and not
        # the application holds the sender back (RFC 9002, section 7.8).
        self._limited_to = -1
        # Attack: a peer that acknowledges nothing, so that the window stays shut. Bounded like a socket's buffer.
        self._messages: list[bytes] = []
        self._messages_turn = True
        self._announced = self._to_announce = b""
        self._pings: list[int] = []
        self._pings_due = 0
        self._probes = 0
        self._bulk = False  # the last packet that was sent is a large one

    # --- what the application wants ----------------------------------------------------------------

    def message(self, data: bytes) -> None:
        """Queue an unreliable message; above 1024 that the window has not let out, the oldest is dropped."""
        if len(self._messages) >= c.MAX_QUEUED_MESSAGES:
            del self._messages[0]
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

    def answered(self, now: float) -> None:
        """Count probes anew: a handshake has shown that the peer is there."""
        self._recovery.answered(now)

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
        path_from = self._recovery.path_from
        for packet in result.acked:
            if packet.path_probe:
                packet.content.probe_arrived(packet.size)
                continue
            content: Content = packet.content
            if content.pings:
                self.answered_pings.extend((ping, now - packet.at) for ping in content.pings)
            if content.streams:
                self.streams.acked(content.streams)
            if packet.number >= path_from:
                self._capacity.arrived(
                    packet.size,
                    packet.at,
                    content.datagrams,
                    content.largest,
                    limited=packet.number <= self._limited_to,
                    data=self._large and bool(content.streams),
                )
        self._capacity.update(now)

    def _learn_lost(self, result: AckResult, now: float) -> None:
        swallowed = False
        for packet in result.lost:
            self.packets_lost += 1
            if packet.path_probe:
                packet.content.probe_lost(packet.size)
                continue
            content: Content = packet.content
            self.streams.lost(content.streams)
            if content.announced and content.announced is self._announced:
                self.announce(content.announced)
            if packet.number < self._recovery.path_from:
                continue
            self._capacity.lost(packet.at, content.datagrams, now)
            # A lost part says less: any of many datagrams may have been the one.
            swallowed = swallowed or (content.datagrams == 1 and content.largest > c.BASE_DATAGRAM_SIZE)
        if swallowed:
            self._capacity.swallowed(now)
        if result.persistent:
            self._capacity.congestion.persistent()
            self.rtt.forget_minimum()

    def moved(self, now: float, *, limit: int | None = None, rtt: float | None = None) -> None:
        """Begin anew with what is known of the path: it is another one (RFC 9000, section 9.4).

        `limit` is the largest datagram that its channel takes, `rtt` a round trip that was measured on it.

        What is out on the old one may still arrive, and is sent again when it does not; it says nothing about
        the new one.
        """
        self.acks.again()
        self.rtt.restart(rtt)
        self._recovery.moved(self.next_number, now)
        self.streams.set_rtt(self.rtt.smoothed)
        self._capacity = Capacity(min(self._limit, limit or self._limit), self.rtt, now)

    # --- what goes out ------------------------------------------------------------------------------

    def skip(self) -> None:
        """Leave out a packet number: who acknowledges it lies."""
        self._recovery.skip(self.next_number)
        self.next_number += 1

    @property
    def datagram(self) -> int:
        """Bytes of the largest datagram known to pass."""
        return self._capacity.datagram

    def next(self, now: float) -> Plaintext | None:
        """Collect the next packet and count it as sent; None when nothing has to go out now.

        To be called until it returns None. Each packet takes something out of what waits, so that comes.
        """
        capacity, acks = self._capacity, self.acks
        if now >= capacity.mtu.due_at and (probe := self._path_probe(now)) is not None:
            return probe
        waiting = self._waiting()
        if self._probes and not waiting:
            self._pings_due = self._probes  # one packet took all there was: the other asks for a sign of life
            self._probes = 0
        window = self._window() if waiting else 0.0
        may_send = waiting and (self._probes > 0 or (window > 0 and capacity.pacer.budget(now) > 0))
        if not (may_send or self._pings_due or acks.deadline <= now):
            return None
        buffers: list[bytes | memoryview] = []
        datagram = capacity.datagram
        room = datagram - c.DATA_MIN_SIZE
        if acks.rides(now):
            ack = acks.frame(now)
            buffers.append(ack)
            room -= len(ack)
        count = 1
        if may_send and self._large and not self._probes and self.streams.exceed(room):
            count = capacity.span(window, now)
            if self.streams.only_repeats:  # nothing goes on meanwhile, so that these had better arrive
                count = max(1, count // _REPEATED)
        # The last packet that the window lets out asks for an ACK, which is all that can come next.
        asks = self._pings_due > 0 or (
            may_send and capacity.window(self._recovery.in_flight + count * datagram) == 0
        )
        eliciting = asks
        if asks:
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
            eliciting = asks or len(buffers) > before
            if not asks and capacity.sizer.lossy and self._ends_bulk(buffers, count):
                buffers.append(PING_FRAME)
                asks = True
        if not buffers:
            return None
        plaintext = b"".join(buffers)
        datagrams = 1
        if len(plaintext) > datagram - c.DATA_MIN_SIZE:
            datagrams = -(-(len(plaintext) + c.TAG_SIZE) // (datagram - PART_HEADER_SIZE))
        if eliciting:
            bulk = datagrams > 1
            self._note(len(plaintext), announced, sent, datagrams, now, asks=asks and (bulk or self._bulk))
            self._bulk = bulk
        self.next_number += 1
        return plaintext, datagrams

    def _fill(self, room: int, buffers: list[bytes | memoryview], count: int) -> Sequence[Sent]:
        """Append messages and frames of streams, which take turns at packets where both wait."""
        messages, streams = self._messages, self.streams
        used = self._capacity.datagram - c.DATA_MIN_SIZE - room
        if messages:
            turn = self._messages_turn or not streams.wants_to_send()
            self._messages_turn = not turn
            while turn and messages and len(messages[0]) <= room:
                message = messages.pop(0)
                room -= len(message)
                used += len(message)
                buffers.append(message)
            if turn and messages:
                return ()
        if count > 1:
            room = part_room(self._capacity.datagram, count) - used
        return streams.fill(room, buffers)

    def _ends_bulk(self, buffers: list[bytes | memoryview], count: int) -> bool:
        """Tell whether a packet with these buffers ends much that was sent at once, and has a byte left for a PING.

        Nothing that follows would show its loss, so that it is worth an ACK to see it soon.
        """
        if self._waiting():
            return False
        length, room = sum(map(len, buffers)), self.datagram - c.DATA_MIN_SIZE
        if length >= room:
            return count > 1 and length < part_room(self.datagram, count)
        return self._bulk

    def waiting(self, now: float) -> bool:
        """Tell whether something waits to be sent, be it for the window."""
        return bool(
            self._pings_due
            or self.acks.deadline <= now
            or self._waiting()
            or (now >= self._capacity.mtu.due_at and self._may_probe_path())
        )

    def _may_probe_path(self) -> bool:
        """Tell whether a probe of the path's MTU that is due may go out.

        Not before the peer is known to hear us over the path, nor while even an empty window does not take it.
        """
        return self._recovery.largest_acked >= self._recovery.path_from and self._capacity.takes_probe

    def _path_probe(self, now: float) -> Plaintext | None:
        """Make a probe of the path's MTU when there is room for one, and count it as sent."""
        if not self._may_probe_path():
            return None
        size = self._capacity.probe(self._window(), now)
        if size is None:
            return None
        plaintext = PING_FRAME + bytes(size - c.DATA_MIN_SIZE - len(PING_FRAME))
        self._sent(size, self._capacity, now, path_probe=True)
        self.next_number += 1
        return plaintext, 1

    def _note(
        self, length: int, announced: bytes, sent: Sequence[Sent], datagrams: int, now: float, *, asks: bool
    ) -> None:
        if datagrams == 1:
            largest = size = length + c.DATA_MIN_SIZE
        else:
            largest, size = self.datagram, length + datagrams * PART_HEADER_SIZE + c.TAG_SIZE
        pings: Sequence[int] = ()
        if self._pings:
            pings, self._pings = self._pings, []
        self._sent(size, Content(pings, announced, sent, datagrams, largest), now, asks=asks)
        if self._probes:
            self._probes -= 1

    def _sent(
        self,
        size: int,
        content: Content | Capacity,
        now: float,
        *,
        path_probe: bool = False,
        asks: bool = False,
    ) -> None:
        packet = SentPacket(self.next_number, now, size, content, path_probe=path_probe)
        pushed_out = self._recovery.sent(packet, asks=asks)
        if pushed_out is not None:
            if pushed_out.path_probe:
                pushed_out.content.probe_lost(pushed_out.size)
            else:
                self.streams.lost(pushed_out.content.streams)
        if 2 * self._recovery.in_flight >= self._capacity.congestion.window:
            self._limited_to = self.next_number
        self._capacity.pacer.sent(size)

    def _waiting(self) -> bool:
        """Tell whether there is anything that the window may hold back."""
        return bool(self._messages) or self.streams.wants_to_send()

    def _window(self) -> float:
        """Bytes that the window lets out, as long as there is a place to remember the packet in."""
        return 0.0 if self._recovery.full else self._capacity.window(self._recovery.in_flight)

    # --- time ---------------------------------------------------------------------------------------

    def timeout(self) -> float:
        """Return when `next` or `handle_timeout` is due; what waits for the window waits for an ACK instead."""
        due, acks = self._recovery.timeout(), self.acks.deadline
        if self._waiting() and self._window() > 0:
            due = min(due, self._capacity.pacer.ready_at())
        return acks if acks < due else due

    def handle_timeout(self, now: float) -> None:
        """Look for losses, or prepare probes."""
        if now < self._recovery.timeout():
            return
        result = self._recovery.handle_timeout(now)
        if result is not None:
            self._learn(result, now)
            return
        self._capacity.timed_out(self._recovery.backoff, now)
        self.probe()

    def probe(self) -> None:
        """Send again what has been out longest, past the window, or ask for a sign of life.

        Of a large packet no more than a datagram's worth: the rest may well be on its way.
        """
        room = self.datagram - c.DATA_MIN_SIZE - len(PING_FRAME)
        for packet in self._recovery.oldest(_PROBES):
            if not packet.path_probe:
                self.streams.lost(packet.content.beginning(room))
        if self._waiting():
            self._probes = _PROBES
        else:
            self._pings_due = _PROBES
