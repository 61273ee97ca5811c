"""What goes into packets, and what becomes of it (protocol sections 6 and 7; RFC 9002; rows F9, F10, P7)."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import (
    STREAM_OVERHEAD,
    Ack,
    MaxData,
    MaxStreamData,
    Msg,
    Ping,
    StreamData,
    parse_frames_untrusted,
)
from mp2p_core.proto.packing import Packer

RTT = 0.1


class Plaintext(NamedTuple):
    data: bytes
    datagrams: int


@dataclass
class Side:
    """A packer, and the packets that it has sent, by number."""

    packer: Packer
    sent: dict[int, Plaintext] = field(default_factory=dict)
    highest: int = -1
    messages: list[bytes] = field(default_factory=list)

    def send(self, now: float) -> list[int]:
        """Take out everything that may go now; returns the numbers."""
        numbers = []
        while True:
            number = self.packer.next_number
            plaintext = self.packer.next(now)
            if plaintext is None:
                return numbers
            assert self.packer.next_number == number + 1
            self.sent[number] = Plaintext(*plaintext)
            assert self.sent[number].data, "a packet of nothing"
            numbers.append(number)
            assert len(numbers) < 20_000, "it does not end"

    def receive(self, number: int, plaintext: Plaintext, now: float) -> None:
        """Take in a packet of the other side, as a session does."""
        eliciting = at_once = False
        for frame in parse_frames_untrusted(plaintext.data):
            if isinstance(frame, Ack):
                self.packer.acked_untrusted(frame, now)
                continue
            eliciting = True
            if isinstance(frame, Ping):
                at_once = True
            elif isinstance(frame, Msg):
                self.messages.append(frame.data)
            else:
                self.packer.streams.receive_untrusted(frame, now)
        self.packer.acks.received(
            number,
            len(plaintext.data),
            highest_before=self.highest,
            eliciting=eliciting,
            at_once=at_once,
            now=now,
        )
        self.highest = max(self.highest, number)

    def read(self, stream: int) -> bytes:
        """Read what there is of a stream, which may be yet to come."""
        got = b""
        if stream in self.packer.streams.table.live:
            while chunk := self.packer.streams.read(stream, 1 << 20):
                got += chunk
        return got

    def be_on_time(self, now: float) -> list[int]:
        """Do what is due and send what comes of it."""
        numbers: list[int] = []
        while (when := self.packer.timeout()) <= now:
            self.packer.handle_timeout(now)
            sent = self.send(now)
            assert sent or self.packer.timeout() != when, "a timeout that leads to nothing"
            numbers += sent
        return numbers


def side(*, initiator: bool = True, limit: int = 1200, large: bool = False, rtt: float | None = RTT) -> Side:
    return Side(Packer(initiator=initiator, limit=limit, large=large, rtt=rtt, first_number=0, now=0.0))


def ack(side: Side, *numbers: int, now: float) -> None:
    """Acknowledge these packets of a side, and no others."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[0][1] == number - 1:
            ranges[0] = ranges[0][0], number
        else:
            ranges.insert(0, (number, number))
    side.packer.acked_untrusted(Ack(tuple(ranges), 0.0), now)


def be_heard(side: Side, now: float) -> None:
    """Have the peer acknowledge something: it hears us."""
    side.packer.ping()
    number = side.packer.next_number
    assert side.packer.next(now) is not None
    ack(side, number, now=now + RTT)


def write(side: Side, data: bytes) -> int:
    number = side.packer.streams.open()
    assert number is not None
    assert side.packer.streams.write(number, data) == len(data)
    return number


def stream_bytes(side: Side, numbers: list[int]) -> int:
    return sum(
        len(frame.data)
        for number in numbers
        for frame in parse_frames_untrusted(side.sent[number].data)
        if isinstance(frame, StreamData)
    )


def in_flight(side: Side) -> int:
    return side.packer._recovery.in_flight


def window(side: Side) -> float:
    return side.packer._capacity.congestion.window


def exhaust(side: Side) -> None:
    """Have no more losses taken for chance."""
    while side.packer._capacity.tolerance.forgives(1, queued=False):
        pass


# --- the window --------------------------------------------------------------------------------------


def test_the_initial_window_is_ten_datagrams_and_the_rest_waits_for_an_ack() -> None:
    a = side()
    write(a, bytes(100_000))
    first = a.send(1.0)
    assert len(first) == 10
    assert in_flight(a) == 12_000
    assert a.send(1.05) == [], "however long the pacer has had"
    ack(a, *first[:2], now=1.1)
    assert len(a.send(1.1)) == 4, "two made room and slow start two more"


def test_the_last_packet_that_the_window_lets_out_asks_for_an_ack() -> None:
    """Or the sender would wait for the peer's patience: it acknowledges every sixteenth packet, or within 25 ms."""
    a, b = side(), side(initiator=False)
    write(a, bytes(200_000))
    now = 1.0
    for _ in range(4):
        numbers = a.send(now)
        while (when := a.packer.timeout()) < now + RTT * 0.99:
            numbers += a.be_on_time(when)
        asking = [n for n in numbers if Ping() in parse_frames_untrusted(a.sent[n].data)]
        assert asking == numbers[-1:]
        for number in numbers:
            b.receive(number, a.sent[number], now)
        now += RTT
        (answer,) = b.send(now)
        a.receive(answer, b.sent[answer], now)
    while a.packer.waiting(now):
        now += RTT
        numbers = a.send(now)
        ack(a, *numbers, now=now)
    assert Ping() not in parse_frames_untrusted(a.sent[numbers[-1]].data), "nothing waits for it"


def test_in_flight_returns_to_zero() -> None:
    a = side()
    write(a, bytes(5000))
    a.packer.message(b"m")
    a.packer.ping(1)
    numbers = a.send(1.0)
    assert in_flight(a) == sum(len(a.sent[n].data) + 34 for n in numbers)
    ack(a, *numbers, now=1.1)
    assert in_flight(a) == 0
    assert a.packer.timeout() == math.inf
    assert not a.packer.waiting(1.1)


def test_bare_acks_are_not_in_flight_and_go_out_past_the_window() -> None:
    a, b = side(), side(initiator=False)
    write(b, bytes(100_000))
    b.send(1.0)
    write(a, bytes(5000))
    a.packer.ping()
    for number in a.send(1.0):
        b.receive(number, a.sent[number], 1.0)
    before = in_flight(b)
    (bare,) = b.send(1.0)
    assert [type(frame) for frame in parse_frames_untrusted(b.sent[bare].data)] == [Ack]
    assert in_flight(b) == before
    a.receive(bare, b.sent[bare], 1.0)
    assert a.packer.acks.deadline == math.inf, "and they are not acknowledged in turn"


def test_a_full_window_arms_no_timer_but_the_probe() -> None:
    a = side()
    write(a, bytes(100_000))
    a.send(1.0)
    assert a.packer.timeout() == 1.0 + a.packer.rtt.pto


def test_part_of_a_datagram_is_no_room() -> None:
    a = side()
    write(a, bytes(100_000))
    a.send(1.0)
    a.packer._capacity.congestion.window += 1199
    assert a.send(2.0) == []
    a.packer._capacity.congestion.window += 1
    assert len(a.send(2.0)) == 1
    a.packer._capacity.congestion.window = 3000.0
    assert a.packer._capacity.window(1900) == 0, "also where it is more than a quarter of the window"


def test_what_waits_for_the_pacer_arms_a_timer_and_gets_its_turn() -> None:
    a = side()
    a.packer._capacity.congestion.window = 60_000.0
    a.packer._capacity.pacer.update(60_000.0, RTT, 1.0)
    write(a, bytes(500_000))
    now, sent = 1.0, a.send(1.0)
    assert len(sent) == 10, "a burst of ten and no more"
    turns = 0
    while in_flight(a) < 58_800:
        when = a.packer.timeout()
        assert when > now
        assert when < 1.0 + RTT
        now = when
        assert a.be_on_time(now)
        turns += 1
    assert turns <= 41
    assert 0.06 < now - 1.0 < 0.1, "faster than the round trip, and not at once"


def test_the_window_grows_only_while_it_is_used() -> None:
    a = side()
    now = 1.0
    for _ in range(100):
        write_one = a.packer.message
        write_one(b"x" * 500)
        numbers = a.send(now)
        now += RTT
        ack(a, *numbers, now=now)
    assert window(a) == 12_000
    write(a, bytes(200_000))
    for _ in range(3):
        numbers = a.send(now)
        while (when := a.packer.timeout()) < now + RTT / 2:
            numbers += a.be_on_time(when)
        now += RTT
        ack(a, *numbers, now=now)
    assert window(a) > 40_000


def test_some_losses_are_taken_for_chance() -> None:
    """They are repeated, and the window goes on growing by what arrives."""
    a = side()
    write(a, bytes(500_000))
    numbers = a.send(1.0)
    ack(a, *numbers[6:], now=1.1)
    assert a.packer.packets_lost == 6
    assert window(a) == 14 * 1200
    later = a.send(1.2)
    ack(a, *later[:2], *later[6:], now=1.3)
    assert window(a) == 10 * 1200, "eight may be lost at first; the ninth is congestion"


def test_losses_while_a_queue_stands_are_congestion() -> None:
    a = side()
    write(a, bytes(500_000))
    numbers = a.send(1.0)
    ack(a, *numbers[:1], now=1.0 + RTT)
    for number in numbers[1:9]:
        ack(a, number, now=1.0 + RTT + 0.003)
    before = window(a)
    later = a.send(1.2)
    ack(a, *later[1:], now=1.2 + RTT + 0.003)
    assert a.packer.packets_lost == 2
    assert window(a) == before / 2


def test_losses_halve_the_window_once_a_round() -> None:
    a = side()
    a.packer._capacity.congestion.window = 24_000
    exhaust(a)
    write(a, bytes(500_000))
    numbers = a.send(1.0)
    ack(a, *numbers[6:], now=1.1)
    assert window(a) == 12_000, "what arrived in that round does not widen it"
    assert a.packer.packets_lost == 6
    later = a.send(1.2)
    assert later
    ack(a, *later, now=1.3)
    assert window(a) > 12_000


def test_losses_first_and_arrivals_then() -> None:
    """Order counts: else what arrived would widen the window before it is halved (RFC 9002, appendix A.7)."""
    a = side()
    a.packer._capacity.congestion.window = 24_000
    exhaust(a)
    write(a, bytes(500_000))
    numbers = a.send(1.0)
    ack(a, *numbers[1:], now=1.1)
    assert window(a) == 12_000


def test_persistent_congestion_closes_the_window_and_forgets_the_minimum() -> None:
    a = side(rtt=0.01)
    write(a, bytes(500_000))
    numbers = a.send(1.0)
    now = 1.0
    for _ in range(6):
        when = a.packer.timeout()
        now = when
        numbers += a.be_on_time(now)
    ack(a, *numbers[-1:], now=now + 0.1)
    assert window(a) == 2400 + 1200, "the minimum, and what has arrived since"
    assert a.packer.rtt.minimum == pytest.approx(0.1)


# --- probe timeouts ----------------------------------------------------------------------------------


def test_a_probe_repeats_the_oldest_data_past_the_window() -> None:
    a = side()
    write(a, random.Random(1).randbytes(100_000))
    first = a.send(1.0)
    assert in_flight(a) == 12_000
    when = a.packer.timeout()
    probes = a.be_on_time(when)
    assert len(probes) == 2
    assert stream_bytes(a, probes) > 2200
    for number, probe in zip(first[:2], probes, strict=True):
        (before,) = parse_frames_untrusted(a.sent[number].data)
        ping, again = parse_frames_untrusted(a.sent[probe].data)
        assert isinstance(ping, Ping), "an ACK, and at once"
        assert isinstance(before, StreamData)
        assert isinstance(again, StreamData)
        assert again.offset == before.offset
        assert again.data == before.data[:-1], "the PING took its place"
    assert in_flight(a) == 14_400
    assert a.send(when) == [], "two and no more"


def test_a_probe_without_data_asks_for_a_sign_of_life() -> None:
    a = side()
    a.packer.ping(5)
    (only,) = a.send(1.0)
    when = a.packer.timeout()
    a.packer.handle_timeout(when)
    assert a.packer.waiting(when), "whoever asks whether there is something to send hears yes"
    probes = a.send(when)
    assert [parse_frames_untrusted(a.sent[n].data) for n in probes] == [[Ping()], [Ping()]]
    ack(a, only, probes[1], now=when + RTT)
    assert [number for number, _ in a.packer.answered_pings] == [5]


def test_a_probe_that_one_packet_holds_is_followed_by_a_ping() -> None:
    a = side()
    write(a, b"short")
    a.send(1.0)
    when = a.packer.timeout()
    kinds = [[type(f) for f in parse_frames_untrusted(a.sent[n].data)] for n in a.be_on_time(when)]
    assert kinds == [[StreamData], [Ping]]


def test_probes_go_on_with_doubling_and_none_is_left_over() -> None:
    a = side()
    write(a, bytes(100_000))
    a.send(1.0)
    moments = [1.0]
    for _ in range(8):
        when = a.packer.timeout()
        assert len(a.be_on_time(when)) == 2
        moments.append(when)
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert waits == pytest.approx([min(a.packer.rtt.pto * 2**n, c.PROBE_WAIT) for n in range(8)])
    assert a.packer.probes_unanswered == 8
    assert a.packer._probes == 0


def test_of_a_large_packet_a_probe_repeats_a_datagrams_worth() -> None:
    a = side(large=True)
    a.packer._capacity.sizer.count = 8
    a.packer._capacity.congestion.window = 1e6
    a.packer._capacity.pacer.update(1e6, 0.01, 1.0)
    write(a, bytes(60_000))
    numbers = a.send(1.1)
    assert a.sent[numbers[0]].datagrams == 8
    when = a.packer.timeout()
    probes = a.be_on_time(when)
    assert [a.sent[n].datagrams for n in probes] == [1, 1]
    assert not a.packer.streams.wants_to_send(), "the rest of it may be on its way"
    ack(a, *numbers, now=when + 0.01)
    assert a.packer.streams.sizes()["send bytes"] == 0


def test_a_loss_that_turns_out_to_be_none_is_harmless() -> None:
    a, b = side(), side(initiator=False)
    number = write(a, random.Random(3).randbytes(11_000))
    first = a.send(1.0)
    ack(a, *first[3:], now=1.1)
    again = a.send(1.1)
    assert stream_bytes(a, again) > 3000
    ack(a, *first, now=1.2)
    for n in (*first, *again):
        b.receive(n, a.sent[n], 1.2)
    assert b.read(number) == random.Random(3).randbytes(11_000)
    ack(a, *again, now=1.3)
    assert in_flight(a) == a.packer.streams.sizes()["send bytes"] == 0
    assert a.send(1.3) == []


# --- bounds ------------------------------------------------------------------------------------------


def test_F10_records_are_bounded_and_that_stops_data_but_nothing_else() -> None:
    """Attack: acknowledge nothing but every other thing, or nothing at all, for ever."""
    a = side()
    a.packer._capacity.congestion.window = 1e12
    a.packer._capacity.pacer.update(1e12, 0.001, 1.0)
    streams = [a.packer.streams.open() for _ in range(20)]
    now = 1.0
    for _ in range(c.MAX_SENT_RECORDS):
        a.packer.message(b"x")
        now += 0.001
        a.send(now)
    assert len(a.packer._recovery) == c.MAX_SENT_RECORDS
    assert streams[0] is not None
    a.packer.streams.write(streams[0], b"more")
    assert a.send(now) == []
    assert a.packer.timeout() == 1.001 + a.packer.rtt.pto, (
        "a full log must not look like a pacer that is ready"
    )
    for _ in range(50):
        when = a.packer.timeout()
        now = max(now, when)
        assert a.be_on_time(now), "probes go on"
        a.packer.ping()
        assert a.send(now), "and so do pings"
        assert len(a.packer._recovery) == c.MAX_SENT_RECORDS
    ack(a, *range(a.packer.next_number - 20, a.packer.next_number), now=now + 0.1)
    assert in_flight(a) == 0
    numbers = a.send(now + 1.0)
    ack(a, *numbers, now=now + 1.1)
    assert a.packer.streams.sizes()["send bytes"] == 0, "and what was pushed out arrives in the end"


def test_F10_messages_that_cannot_go_out_are_bounded() -> None:
    a = side()
    for n in range(c.MAX_QUEUED_MESSAGES + 50):
        a.packer.message(b"%d" % n)
    assert a.packer.messages_dropped == 50
    (first, *_) = a.send(1.0)
    assert parse_frames_untrusted(a.sent[first].data)[0] == Msg(b"50"), "the oldest went"


def test_F9_an_optimistic_ack_is_refused_and_moves_nothing() -> None:
    a = side()
    write(a, bytes(100_000))
    numbers = a.send(1.0)
    with pytest.raises(BadPacket, match="ack of"):
        ack(a, *numbers, numbers[-1] + 1, now=1.1)
    assert in_flight(a) == 12_000
    assert window(a) == 12_000


@pytest.mark.parametrize("streams", [0, 1, 3])
def test_messages_and_streams_take_turns(streams: int) -> None:
    """Attack on oneself: a flood of messages must not starve the streams, nor the other way round."""
    a = side()
    a.packer._capacity.congestion.window = 1e6
    a.packer._capacity.pacer.update(1e6, 0.001, 1.0)
    for _ in range(streams):
        write(a, bytes(200_000))
    for _ in range(200):
        a.packer.message(bytes(1000))
    kinds: list[str] = []
    for number in a.send(2.0)[:40]:
        frames = parse_frames_untrusted(a.sent[number].data)
        kinds.append("".join(sorted({type(frame).__name__[0] for frame in frames})))
    if streams:
        assert kinds.count("M") == kinds.count("S") == 20
    else:
        assert kinds == ["M"] * 40


def test_a_message_waits_for_its_own_packet_and_comes_before_data_again() -> None:
    a, b = side(), side(initiator=False)
    write(b, b"x" * 50)
    b.packer.message(b"y")
    for number in b.send(1.0):
        a.receive(number, b.sent[number], 1.0)
    a.packer.message(bytes(1163))
    kinds = [[type(f) for f in parse_frames_untrusted(a.sent[n].data)] for n in a.send(1.03)]
    assert kinds == [[Ack], [Msg]], "it fills a packet alone"


# --- large packets -----------------------------------------------------------------------------------


def opened_up(*, large: bool = True, limit: int = 1200) -> Side:
    """A side whose window is no limit."""
    a = side(large=large, limit=limit)
    a.packer._capacity.congestion.window = 4e6
    a.packer._capacity.pacer.update(4e6, 0.01, 1.0)
    return a


def test_packets_grow_while_they_arrive() -> None:
    a = opened_up()
    stream = write(a, b"")
    for frame in (MaxData(1 << 30), MaxStreamData(stream, 1 << 30)):
        a.packer.streams.receive_untrusted(frame, 1.0)
    seen, now = [], 1.1
    for _ in range(12):
        a.packer.streams.write(stream, bytes(100_000))
        numbers = a.send(now)
        seen.append(max(a.sent[number].datagrams for number in numbers))
        now += 0.01
        ack(a, *numbers, now=now)
    assert seen[0] == 1
    assert max(seen) == 53, "what a train holds of 1200 bytes"
    assert seen == sorted(seen)


def test_without_the_capability_of_the_peer_they_do_not() -> None:
    a = opened_up(large=False)
    a.packer._capacity.sizer.count = 8
    write(a, bytes(1_000_000))
    now = 1.1
    while numbers := a.send(now):
        assert {a.sent[n].datagrams for n in numbers} == {1}
        now += 0.01
        ack(a, *numbers, now=now)


def test_a_large_packet_fits_the_datagrams_it_says() -> None:
    a = opened_up()
    for count in (1, 2, 5, 53):
        a.packer._capacity.sizer.count = count
        write(a, bytes(70_000))
        a.packer.message(b"m" * 100)
        for number in a.send(1.1):
            plaintext = a.sent[number]
            room = plaintext.datagrams * 1180 - 16 if plaintext.datagrams > 1 else 1166
            assert len(plaintext.data) <= room
            assert plaintext.datagrams == 1 or len(plaintext.data) > room - 1180
            assert plaintext.datagrams <= count
        ack(a, *a.sent, now=1.2)


def test_a_large_packet_counts_with_all_its_headers() -> None:
    a = opened_up()
    a.packer._capacity.sizer.count = 4
    write(a, bytes(4 * 1180 - 16 - 17))
    (number,) = a.send(1.1)
    assert a.sent[number].datagrams == 4
    assert in_flight(a) == 4800


def asking(side: Side, numbers: list[int]) -> list[int]:
    """Return those that contain a PING."""
    return [n for n in numbers if Ping() in parse_frames_untrusted(side.sent[n].data)]


def lossy() -> Side:
    """A side whose window is no limit, and that knows that large packets may be lost."""
    a = opened_up()
    a.packer._capacity.sizer.lost(2, 0.5, 0.6)
    return a


def test_where_nothing_was_lost_the_last_packet_does_not_ask() -> None:
    a = opened_up()
    a.packer._capacity.sizer.count = 16
    write(a, bytes(100_000))
    assert asking(a, a.send(1.1)) == []


def test_the_last_packet_of_much_asks_for_an_ack_and_its_loss_shows_early() -> None:
    a = lossy()
    a.packer._capacity.sizer.count = 16
    write(a, bytes(100_000))
    numbers = a.send(1.1)
    assert asking(a, numbers) == numbers[-1:]
    assert a.packer.timeout() == pytest.approx(1.1 + a.packer.rtt.pto - 0.025)


def test_a_full_packet_has_no_place_to_ask_and_a_small_one_after_it_has() -> None:
    a = lossy()
    a.packer._capacity.sizer.count = 16
    full = 16 * 1180 - 16 - STREAM_OVERHEAD
    stream = write(a, bytes(full))
    numbers = a.send(1.1)
    assert [a.sent[n].datagrams for n in numbers] == [16]
    assert asking(a, numbers) == []
    a.packer.streams.write(stream, bytes(full + 500))
    numbers = a.send(1.2)
    assert [a.sent[n].datagrams for n in numbers] == [16, 1]
    assert asking(a, numbers) == numbers[1:]


def test_a_few_packets_ask_for_nothing() -> None:
    """Nor do small messages: what answers them acknowledges them as well."""
    a = lossy()
    a.packer._capacity.sizer.count = 16
    write(a, bytes(700))
    numbers = a.send(1.1)
    assert len(numbers) == 1
    assert asking(a, numbers) == []
    assert a.packer.timeout() == pytest.approx(1.1 + a.packer.rtt.pto)


def test_what_is_repeated_alone_goes_in_smaller_packets() -> None:
    """Nothing else goes on meanwhile, and each loss of a repetition would cost another round trip."""
    a = opened_up()
    a.packer._capacity.sizer.count = 16
    write(a, bytes(150_000))
    numbers = a.send(1.1)
    assert a.sent[numbers[1]].datagrams == 16
    ack(a, *numbers[:1], *numbers[2:], now=1.2)
    assert {a.sent[n].datagrams for n in a.send(1.2)} <= {1, 2, 3, 4}


def test_what_is_repeated_beside_new_data_goes_in_large_packets() -> None:
    a = opened_up()
    a.packer._capacity.sizer.count = 16
    stream = write(a, bytes(150_000))
    numbers = a.send(1.1)
    a.packer.streams.write(stream, bytes(50_000))
    ack(a, *numbers[:1], *numbers[2:], now=1.2)
    assert max(a.sent[n].datagrams for n in a.send(1.2)) == 16


def test_no_small_packet_because_the_window_has_little_left() -> None:
    """What comes back makes room for a large one. A queue makes none for those who wait: others fill it."""
    a = opened_up()
    a.packer.rtt.add(0.01, 0.0)
    capacity = a.packer._capacity
    capacity.sizer.count = 16
    capacity.congestion.window = 200_000
    write(a, bytes(900_000))
    numbers = a.send(1.1)
    assert {a.sent[n].datagrams for n in numbers} == {16}
    assert asking(a, numbers) == numbers[-1:]
    left = capacity.congestion.window - in_flight(a)
    assert 1200 < left < 16 * 1200
    assert capacity.window(in_flight(a)) == 0
    assert capacity.window(in_flight(a) - 16 * 1200) > 0
    for _ in range(8):
        a.packer.rtt.add(0.02, 0.0)
    assert a.packer.rtt.queued
    assert capacity.window(in_flight(a)) == left


def test_after_congestion_a_packet_takes_a_quarter_of_the_window_at_most() -> None:
    """Three later packets have to arrive to show that it is lost."""
    a = opened_up()
    capacity = a.packer._capacity
    capacity.sizer.count = 53
    capacity.congestion.window = 100_000
    capacity.congestion.lost(1.0, 1.0, crowded=True)
    write(a, bytes(900_000))
    numbers = a.send(1.1)
    assert len(numbers) >= 4
    assert max(a.sent[n].datagrams for n in numbers) == 50_000 // 4 // 1200


def test_losing_large_packets_makes_them_small_and_loses_nothing() -> None:
    a, b = opened_up(), side(initiator=False)
    a.packer._capacity.sizer.count = 16
    data = random.Random(7).randbytes(900_000)
    number = write(a, data)
    now, got, arrivals = 1.1, bytearray(), []
    for _ in range(3000):
        now += 0.005
        numbers = a.be_on_time(now) + a.send(now)
        arrived = [n for n in numbers if a.sent[n].datagrams == 1]  # whatever has parts is spoiled
        arrivals += arrived
        for n in arrived:
            b.receive(n, a.sent[n], now)
        got += b.read(number)
        for n in b.be_on_time(now) + b.send(now):
            a.receive(n, b.sent[n], now)
        if len(got) == len(data):
            break
    assert got == data
    assert len(arrivals) > 0.6 * len(a.sent), "the most are small, and those that are not are the smallest"
    assert sum(frame.datagrams > 2 for frame in a.sent.values()) < 0.02 * len(a.sent)


# --- the path's MTU ----------------------------------------------------------------------------------


def probed(a: Side, carries: int, now: float) -> float:
    """Let the search run over a path that carries so much."""
    be_heard(a, now)
    for _ in range(60):
        now += RTT
        numbers = [n for n in a.send(now) if len(a.sent[n].data) + 34 <= carries]
        if numbers:
            ack(a, *numbers, now=now)
        now += 1.0
        numbers = [n for n in a.be_on_time(now) if len(a.sent[n].data) + 34 <= carries]
        if numbers:
            ack(a, *numbers, now=now)
    return now


def test_the_size_found_is_used_for_data() -> None:
    a = side(limit=1452)
    now = probed(a, 1452, 1.0)
    assert a.packer.datagram == 1452
    write(a, bytes(100_000))
    numbers = a.send(now)
    assert len(a.sent[numbers[0]].data) == 1452 - 34
    assert in_flight(a) <= window(a)


def test_losing_a_probe_of_the_path_is_no_congestion() -> None:
    a = side(limit=5000)
    now = probed(a, 1500, 1.0)
    assert 1484 < a.packer.datagram <= 1500
    assert a.packer.packets_lost > 10
    assert window(a) >= 12_000
    assert a.packer._capacity.congestion.slow_start
    assert in_flight(a) == 0 or a.packer.timeout() < math.inf
    write(a, bytes(50_000))
    assert len(a.send(now + 1)) >= 7


def test_a_probe_of_the_path_leaves_room_for_data() -> None:
    a = side(limit=6001)
    be_heard(a, 1.0)
    assert a.send(1.1) == [], "the window is not twice as large"
    b = side(limit=6000)
    assert b.send(1.0) == [], "not before the peer hears us"
    be_heard(b, 1.0)
    write(b, bytes(100_000))
    first, *others = b.send(1.1)
    assert len(b.sent[first].data) + 34 == 6000, "it does not wait for a pause in the data"
    assert len(others) == 5
    c = side(limit=6000)
    c.packer.message(b"still out")
    assert c.send(1.0) == [0]
    be_heard(c, 1.0)
    assert c.send(1.0) == [], "what is left of the window is not twice as large"


def test_a_probe_of_the_path_overdraws_nothing() -> None:
    """Or data would wait for the pacer: up to 200 ms for a jumbo frame, at the rate to begin with."""
    a = side(limit=9000)
    a.packer._capacity.congestion.window = 1e5
    be_heard(a, 1.0)
    a.packer._capacity.pacer._level = 8999.0
    assert a.send(1.1) == []
    a.packer._capacity.pacer._level = 9000.0
    assert len(a.send(1.1)) == 1


def test_a_jumbo_path_widens_the_window_to_two_datagrams() -> None:
    a = side(limit=9000)
    a.packer._capacity.congestion.window = 18_000.0
    probed(a, 9000, 1.0)
    assert a.packer.datagram == 9000
    a.packer._capacity.congestion.persistent()
    assert window(a) == 18_000
    write(a, bytes(100_000))
    assert a.send(999.0), "or nothing could ever go out"


def test_large_datagrams_that_are_swallowed_fall_back() -> None:
    """The path has become another one: small datagrams still pass, so that acknowledgements go on."""
    a, b = side(limit=1452), side(initiator=False)
    now = probed(a, 1452, 1.0)
    assert a.packer.datagram == 1452
    data = random.Random(5).randbytes(70_000)
    number = write(a, b"")
    got = bytearray()
    for turn in range(100):
        now += 0.05
        a.packer.streams.write(number, data[1400 * turn : 1400 * turn + 1400])
        numbers = a.be_on_time(now) + a.send(now)
        a.packer.ping()
        for n in numbers + a.send(now):
            if len(a.sent[n].data) + 34 <= 1300:
                b.receive(n, a.sent[n], now)
        assert a.packer.probes_unanswered < 3
        for n in b.be_on_time(now) + b.send(now):
            a.receive(n, b.sent[n], now)
        got += b.read(number)
    assert got == data
    assert a.packer.datagram == 1200


def test_a_path_that_swallows_everything_large_at_once_falls_back_by_probe_timeouts() -> None:
    a = side(limit=1452)
    now = probed(a, 1452, 1.0)
    write(a, bytes(60_000))
    a.send(now)
    for _ in range(3):
        when = a.packer.timeout()
        numbers = a.be_on_time(when)
    assert a.packer.datagram == 1200
    assert max(len(a.sent[n].data) for n in numbers) == 1166


def test_on_another_path_everything_is_found_out_anew() -> None:
    a = side(limit=1452)
    now = probed(a, 1452, 1.0)
    a.packer._capacity.congestion.window = 1e6
    a.packer.moved(now)
    assert a.packer.datagram == 1200
    assert window(a) == 12_000
    assert a.packer.rtt.smoothed == c.INITIAL_RTT
    assert a.send(now) == [], "nobody is known to hear us there"
    be_heard(a, now)
    now += RTT
    (number,) = a.send(now)
    assert len(a.sent[number].data) + 34 == 1452, "the search begins again"
    a.packer.moved(now)
    ack(a, number, now=now + 1)
    assert a.packer.datagram == 1200, "what passed on the old path says nothing about the new one"


def test_what_is_out_on_the_old_path_says_nothing_about_the_new_one() -> None:
    """It counts against no window, and its loss is no congestion there; but it is not given up either."""
    a, b = opened_up(), side(initiator=False)
    data = random.Random(9).randbytes(200_000)
    stream = write(a, data)
    old = a.send(1.1)
    assert stream_bytes(a, old) == len(data)
    a.packer.moved(1.2)
    assert in_flight(a) == 0
    more = random.Random(10).randbytes(30_000)
    a.packer.streams.write(stream, more)
    new = a.send(1.2)
    assert len(new) == 10, "the initial window is free"
    ack(a, *old[:5], now=1.25)
    assert not a.packer.rtt.sampled, "its round trip was another one"
    assert window(a) == 12_000, "and its arrival does not widen the window"
    ack(a, *old[:5], *new, now=1.25)
    assert a.packer.rtt.smoothed == pytest.approx(0.05)
    assert window(a) == 24_000, "nor does its loss halve it"
    assert a.packer.packets_lost == len(old) - 5
    got, now = b.read(stream), 1.25
    for number in (*old[:5], *new):
        b.receive(number, a.sent[number], now)
    for _ in range(1000):
        now += 0.01
        for n in a.be_on_time(now) + a.send(now):
            b.receive(n, a.sent[n], now)
        for n in b.be_on_time(now) + b.send(now):
            a.receive(n, b.sent[n], now)
        got += b.read(stream)
    assert got == data + more
    assert in_flight(a) == 0


def test_silence_on_the_old_path_is_forgotten_on_the_new_one() -> None:
    a = side()
    write(a, bytes(50_000))
    a.send(1.0)
    for _ in range(4):
        when = a.packer.timeout()
        a.be_on_time(when)
    assert a.packer.probes_unanswered == 4
    a.packer.moved(when)
    assert a.packer.probes_unanswered == 0
    assert a.packer.timeout() == pytest.approx(when), "the window is free: at once"
    assert len(a.send(when)) == 10
    assert a.packer.timeout() == pytest.approx(when + a.packer.rtt.pto)


@pytest.mark.parametrize(("limit", "probe"), [(None, 1472), (1452, 1452), (65507, 1472)])
def test_a_path_begins_with_what_a_challenge_has_measured_and_what_its_channel_takes(
    limit: int | None, probe: int
) -> None:
    a = side(limit=1472)
    a.packer.moved(1.0, limit=limit, rtt=0.02)
    assert (a.packer.rtt.smoothed, a.packer.rtt.sampled) == (0.02, True)
    be_heard(a, 1.0)
    (number,) = a.send(1.1)
    assert len(a.sent[number].data) + 34 == probe


def test_large_packets_begin_anew_on_another_path() -> None:
    a = opened_up()
    a.packer._capacity.sizer.count = 32
    write(a, bytes(200_000))
    old = a.send(1.1)
    a.packer.moved(1.2)
    ack(a, old[0], now=1.2)
    assert a.packer._capacity.sizer.count == 1, "that it passed there says nothing"
    be_heard(a, 1.2)
    assert a.packer.packets_lost == len(old) - 1
    numbers = a.send(1.3)
    assert {a.sent[n].datagrams for n in numbers} == {1}
    ack(a, *numbers, now=1.4)
    assert a.packer._capacity.sizer.count == 2, "those that were lost do not make it wait"


# --- everything together -----------------------------------------------------------------------------


def transfer(
    seed: int, loss: float, *, size: int, large: bool, limit: int, carries: int
) -> tuple[Side, Side]:
    """Send a stream and messages from one side to the other over a lossy path with a delay."""
    draw = random.Random(seed)
    a, b = side(limit=limit, large=large, rtt=None), side(initiator=False, large=large, rtt=None)
    data = draw.randbytes(size)
    number = a.packer.streams.open()
    assert number is not None
    flight: list[tuple[float, Side, int, Plaintext]] = []
    now, written, got = 1.0, 0, bytearray()

    def put(sender: Side, numbers: list[int]) -> None:
        for n in numbers:
            plaintext = sender.sent[n]
            each = len(plaintext.data) + 34 if plaintext.datagrams == 1 else sender.packer.datagram
            survives = all(draw.random() >= loss for _ in range(plaintext.datagrams))
            if survives and each <= carries:
                delay = 0.02 + 0.01 * draw.random()
                flight.append((now + delay, b if sender is a else a, n, plaintext))

    while len(got) < size:
        assert now < 2000, f"seed {seed}: {len(got)} of {size}"
        if written < size:
            written += a.packer.streams.write(number, data[written : written + 50_000])
        for each in (a, b):
            put(each, each.be_on_time(now) + each.send(now))
            assert in_flight(each) == sum(p.size for p in each.packer._recovery._out.values())
            assert in_flight(each) >= 0
        got += b.read(number)
        times = [at for at, *_ in flight] + [
            e.packer.timeout() for e in (a, b) if e.packer.timeout() < math.inf
        ]
        if written < size and not times:
            continue
        now = max(now, min(times)) if times else now
        due = sorted((f for f in flight if f[0] <= now), key=lambda f: f[0])
        flight[:] = [f for f in flight if f[0] > now]
        for _, to, n, plaintext in due:
            to.receive(n, plaintext, now)
    assert got == data
    return a, b


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.2, 0.4])
@pytest.mark.parametrize("large", [False, True])
def test_everything_arrives_whatever_is_lost(loss: float, large: bool) -> None:
    size = 400_000 if loss < 0.1 else 60_000
    transfer(int(loss * 100), loss, size=size, large=large, limit=1452, carries=1452)


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.floats(0, 0.4),
    st.integers(1, 60_000),
    st.booleans(),
    st.integers(1200, 9000),
    st.integers(1200, 9000),
)
def test_everything_arrives_on_any_path(
    seed: int, loss: float, size: int, large: bool, limit: int, carries: int
) -> None:
    transfer(seed, loss, size=size, large=large, limit=limit, carries=carries)
