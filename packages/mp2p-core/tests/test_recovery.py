"""What is in flight and what is lost (RFC 9002; protocol section 6; rows F9, F10, P7)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.frames import Ack
from mp2p_core.proto.recovery import AckResult, Recovery, SentPacket
from mp2p_core.proto.rtt import RoundTrip

RTT = 1000.0  # long enough that nothing is lost by time where that is not the point


def ack(*ranges: tuple[int, int] | int, delay: float = 0.0) -> Ack:
    """An ACK of these numbers or ranges, highest first."""
    return Ack(tuple((r, r) if isinstance(r, int) else r for r in ranges), delay)


class Log:
    """A recovery and the number that its next packet has."""

    def __init__(self, rtt: float | None = RTT) -> None:
        self.rtt = RoundTrip(rtt)
        self.recovery = Recovery(self.rtt)
        self.next = 0

    def send(self, count: int = 1, at: float = 0.0, size: int = 100, *, path_probe: bool = False) -> None:
        for _ in range(count):
            self.recovery.sent(SentPacket(self.next, at, size, None, path_probe=path_probe))
            self.next += 1

    def skip(self, count: int = 1) -> None:
        """Send packets that ask for nothing, such as bare ACKs."""
        self.next += count

    def ack(self, *ranges: tuple[int, int] | int, now: float = 1.0, delay: float = 0.0) -> AckResult:
        return self.recovery.acked_untrusted(ack(*ranges, delay=delay), self.next, now)


def numbers(packets: Iterable[SentPacket]) -> list[int]:
    return [packet.number for packet in packets]


def log_of(eliciting: range | list[int], next_number: int) -> Log:
    """Packets sent at the time that is their number."""
    log = Log()
    for number in eliciting:
        log.next = number
        log.send(at=float(number))
    log.next = next_number
    return log


# --- what an ACK says --------------------------------------------------------------------------------


def test_an_ack_takes_out_what_arrived_and_what_is_lost() -> None:
    log = log_of(range(10), 10)
    acked = log.ack((8, 8), (2, 3), now=20.0)
    assert log.rtt.latest == 12.0, "from the largest, raw"
    assert acked.sampled
    assert numbers(acked.acked) == [2, 3, 8]
    assert numbers(acked.lost) == [0, 1, 4, 5], "these are three behind"
    assert len(log.recovery) == 3, "6, 7 may still come, 9 is out"
    assert log.recovery.in_flight == 300
    again = log.ack((8, 8), now=30.0)
    assert again == AckResult([], [], sampled=False, persistent=False)


@pytest.mark.parametrize("largest", [10, 11, 2**64 - 1])
def test_F9_an_ack_of_a_packet_never_sent_is_refused(largest: int) -> None:
    log = log_of(range(10), 10)
    with pytest.raises(BadPacket, match="ack of"):
        log.ack((0, largest), now=20.0)
    assert len(log.recovery) == 10, "and takes out nothing"
    assert log.recovery.in_flight == 1000
    assert not log.ack((0, 9), now=20.0).lost
    assert log.recovery.in_flight == 0


@pytest.mark.parametrize("ranges", [[(0, 9)], [(5, 6), (0, 3)], [(4, 5)], [(5, 5)], [(9, 9), (2, 5)]])
def test_F9_an_ack_of_a_number_that_was_left_out_is_refused(ranges: list[tuple[int, int]]) -> None:
    log = log_of([0, 1, 2, 3, 4, 6, 7, 8, 9], 10)
    log.recovery.skip(5)
    assert numbers(log.ack((1, 2), now=20.0).acked) == [1, 2]
    with pytest.raises(BadPacket, match="ack of"):
        log.ack(*ranges, now=20.0)
    assert len(log.recovery) == 7, "and takes out nothing"


def test_F9_an_ack_around_a_number_that_was_left_out_is_like_any_other() -> None:
    log = log_of([0, 2, 4, 5], 7)
    for number in (1, 3, 6):
        log.recovery.skip(number)
    assert numbers(log.ack((4, 5), (2, 2), (0, 0), now=20.0).acked) == [0, 2, 4, 5]
    with pytest.raises(BadPacket, match="ack of"):
        log.ack((6, 6), now=20.0)


def test_F9_a_fresh_log_knows_no_packet() -> None:
    with pytest.raises(BadPacket, match="ack of"):
        Log().ack(0)


def test_P7_ranges_below_the_first_packet_or_in_any_gap_are_passed_over() -> None:
    """Numbers of packets that asked for nothing are acknowledged too; so is what the peer makes up below."""
    log = log_of([5, 9], 12)
    result = log.ack((11, 11), (9, 9), (0, 7), now=20.0)
    assert numbers(result.acked) == [5, 9]
    assert not result.sampled, "the largest one was none of ours to time"
    assert log.recovery.in_flight == 0


def test_a_bare_ack_moves_the_threshold_but_is_no_sample() -> None:
    log = Log()
    log.send(2)
    log.skip(4)
    result = log.ack((3, 5))
    assert numbers(result.lost) == [0, 1]
    assert not result.sampled


def test_F10_a_peer_that_never_acknowledges_fills_nothing() -> None:
    """Pings and probes go out past the window; they push out the oldest."""
    log = Log()
    pushed_out = []
    for _ in range(c.MAX_SENT_RECORDS + 500):
        packet = SentPacket(log.next, 0.0, 100, None)
        if (gone := log.recovery.sent(packet)) is not None:
            pushed_out.append(gone.number)
        log.next += 1
    assert pushed_out == list(range(500))
    assert len(log.recovery) == c.MAX_SENT_RECORDS
    assert log.recovery.full
    assert log.recovery.in_flight == 100 * c.MAX_SENT_RECORDS
    acked = log.ack((0, log.next - 1), now=9000.0)
    assert numbers(acked.acked)[0] == 500
    assert log.recovery.in_flight == 0


def test_a_packet_full_of_acks_costs_no_more_than_one() -> None:
    """Attack: acknowledge the oldest packet again and again, so that the whole log is walked each time."""

    class Watched(dict[int, SentPacket]):
        looks = 0

        def __iter__(self) -> object:  # type: ignore[override]  # counts what the real iterator yields
            for number in super().__iter__():
                type(self).looks += 1
                yield number

        def values(self) -> object:  # type: ignore[override]  # the same
            for packet in super().values():
                type(self).looks += 1
                yield packet

    log = log_of(range(1000), 1000)
    log.recovery._out = Watched(log.recovery._out)
    for _ in range(83):
        log.ack(0, now=1000.0)
    assert Watched.looks <= 2 + 2 * 83


def test_a_packet_that_was_taken_for_lost_and_arrives_after_all_is_harmless() -> None:
    log = Log()
    log.send(5)
    assert numbers(log.ack(4).lost) == [0, 1]
    late = log.ack((0, 4), now=2.0)
    assert numbers(late.acked) == [2, 3]
    assert not late.lost
    assert log.recovery.in_flight == 0
    assert log.recovery.timeout() == math.inf


@st.composite
def acks_of(draw: st.DrawFn) -> Ack:
    drawn = draw(st.sets(st.integers(0, 60), min_size=1, max_size=40))
    ranges: list[tuple[int, int]] = []
    for number in sorted(drawn):
        if ranges and ranges[0][1] == number - 1:
            ranges[0] = ranges[0][0], number
        else:
            ranges.insert(0, (number, number))
    return Ack(tuple(ranges[:33]), 0.0)


@given(st.sets(st.integers(0, 59), max_size=60), st.lists(acks_of(), max_size=6))
def test_the_log_agrees_with_a_model(eliciting: set[int], acks: list[Ack]) -> None:
    log, out, reached = log_of(sorted(eliciting), 61), set(eliciting), -1
    for each in acks:
        acked = log.recovery.acked_untrusted(each, 61, now=100.0)
        reached = max(reached, each.ranges[0][1])
        arrived = {n for n in out if any(low <= n <= high for low, high in each.ranges)}
        delay = log.rtt.loss_delay
        lost = {
            n for n in out - arrived if n <= reached - c.LOSS_THRESHOLD or (n < reached and n + delay <= 100)
        }
        assert set(numbers(acked.acked)) == arrived
        assert set(numbers(acked.lost)) == lost
        assert numbers(acked.acked) == sorted(arrived)
        assert acked.sampled == (each.ranges[0][1] in arrived)
        out -= arrived | lost
        assert len(log.recovery) == len(out)
        assert log.recovery.in_flight == 100 * len(out)


# --- losses ------------------------------------------------------------------------------------------


def test_a_packet_is_lost_once_three_later_ones_arrived() -> None:
    log = Log()
    log.send(5)
    assert not log.ack(1).lost
    assert not log.ack(2).lost
    assert numbers(log.ack(3).lost) == [0]


def test_a_packet_is_lost_by_time_once_a_later_one_has_arrived() -> None:
    log = Log(rtt=0.1)
    log.send(2, at=1.0)
    assert log.ack(1, now=1.1).lost == []
    due = 1.0 + log.rtt.loss_delay
    assert log.recovery.timeout() == due
    assert log.rtt.loss_delay == pytest.approx(0.1125)
    result = log.recovery.handle_timeout(due)
    assert result is not None
    assert numbers(result.lost) == [0]
    assert log.recovery.timeout() == math.inf
    assert log.recovery.backoff == 0, "a loss by time is no probe timeout"


def test_without_a_later_arrival_nothing_is_lost_by_time() -> None:
    log = Log(rtt=0.1)
    log.send(3, at=1.0)
    result = log.ack(0, now=50.0)
    assert result.lost == []
    assert len(log.recovery) == 2


def test_the_latest_round_trip_counts_for_the_time_threshold_at_once() -> None:
    """A path that has just become slow must not make everything look lost (RFC 9002, section 6.1.2)."""
    log = Log(rtt=0.010)
    log.send(2, at=1.0)
    assert log.ack(1, now=1.5).lost == [], "one round trip of 0.5 s says that 0 may take as long"
    assert log.recovery.timeout() == pytest.approx(1.0 + 9 / 8 * 0.5)


@pytest.mark.parametrize("start", [0.0, 1.0, 1e5 / 3, 1.7e9 + 1 / 7])
@pytest.mark.parametrize("rtt", [0.00007, 0.0123, 0.1, 0.3333])
def test_what_is_due_happens_when_it_is_due(start: float, rtt: float) -> None:
    """To the last bit: a timer that fires and finds nothing to do yet would fire again, for ever."""
    log = Log(rtt=rtt)
    for n in range(2):
        log.send(at=start + n * rtt / 7)
    log.ack(1, now=start + rtt)
    due = log.recovery.timeout()
    result = log.recovery.handle_timeout(due)
    assert result is not None
    assert numbers(result.lost) == [0]


# --- probe timeouts ----------------------------------------------------------------------------------


def test_probe_timeouts_double_and_an_arrival_ends_that() -> None:
    log = Log(rtt=0.1)
    log.send(2, at=1.0)
    pto = log.rtt.pto
    now = 1.0
    for times in range(14):
        due = log.recovery.timeout()
        assert due == pytest.approx(now + min(pto * 2**times, c.PROBE_WAIT))
        now = due
        assert log.recovery.handle_timeout(now) is None
        assert log.recovery.backoff == times + 1
        following = log.recovery.timeout()
        assert following > now, "it goes on even if no probe could be sent"
    log.ack(0, now=now)
    assert log.recovery.backoff == 0


def test_a_packet_that_asks_is_missed_earlier_and_only_once() -> None:
    """The peer acknowledges it at once. After that the network, or the peer, is slower than was thought."""
    log = Log(rtt=0.1)
    log.recovery.sent(SentPacket(0, 1.0, 100, None), asks=True)
    log.next = 1
    assert log.recovery.timeout() == pytest.approx(1.0 + log.rtt.pto - 0.025)
    log.recovery.handle_timeout(2.0)
    assert log.recovery.timeout() == pytest.approx(2.0 + 2 * log.rtt.pto)
    log.ack(0, now=2.0)
    log.send(at=3.0)
    assert log.recovery.timeout() == pytest.approx(3.0 + log.rtt.pto), "this one did not ask"


def test_no_probe_waits_for_longer_than_a_few_seconds_unless_the_path_is_that_slow() -> None:
    log = Log(rtt=0.001)
    log.rtt.add(12.0, 0.0)
    log.send(at=1.0)
    assert log.rtt.pto > 10, "a program that stood still, or one answer that was long under way"
    assert log.recovery.timeout() == 1.0 + c.PROBE_WAIT
    slow = Log(rtt=4.0)
    slow.send(at=1.0)
    assert slow.recovery.timeout() == 1.0 + 12.0
    unknown = Log(rtt=None)
    unknown.send(at=1.0)
    assert unknown.recovery.timeout() == 1.0 + unknown.rtt.pto


def test_a_probe_timeout_counts_from_the_first_packet_that_is_out_whatever_is_sent_after_it() -> None:
    log = Log(rtt=0.1)
    log.send(at=1.0)
    log.send(at=1.1)
    assert log.recovery.timeout() == 1.0 + log.rtt.pto
    log.send(at=1.2)
    assert log.recovery.timeout() == 1.0 + log.rtt.pto


def test_after_an_arrival_a_probe_timeout_counts_from_the_last_packet() -> None:
    log = Log(rtt=0.1)
    log.send(at=1.0)
    log.send(at=1.1)
    log.ack(0, now=1.15)
    assert log.recovery.timeout() == 1.1 + log.rtt.pto
    log.ack(1, now=1.25)
    log.send(at=5.0)
    assert log.recovery.timeout() == 5.0 + log.rtt.pto


def test_a_probe_timeout_counts_anew_on_another_path_and_after_a_handshake() -> None:
    log = Log(rtt=0.1)
    log.send(at=1.0)
    log.recovery.handle_timeout(1.5)
    log.recovery.moved(log.next, 2.0)
    assert log.recovery.timeout() == 2.0 + log.rtt.pto
    log.recovery.handle_timeout(2.5)
    log.recovery.answered(3.0)
    assert log.recovery.timeout() == 3.0 + log.rtt.pto


def test_nothing_out_means_no_timer() -> None:
    log = Log()
    assert log.recovery.timeout() == math.inf
    log.send(3)
    log.ack((0, 2))
    assert log.recovery.timeout() == math.inf
    assert log.recovery.in_flight == 0


def test_an_ack_of_nothing_new_does_not_stop_the_doubling() -> None:
    """Attack: repeat an old ACK, so that probes go on at full speed."""
    log = Log(rtt=0.1)
    log.send(3)
    log.ack(0, now=0.1)
    log.recovery.handle_timeout(5.0)
    log.ack(0, now=5.1)
    assert log.recovery.backoff == 1


def test_a_probe_repeats_what_has_been_out_longest() -> None:
    log = Log()
    log.send(5)
    log.ack(0)
    assert numbers(log.recovery.oldest(2)) == [1, 2]
    assert numbers(log.recovery.oldest(99)) == [1, 2, 3, 4]


# --- persistent congestion ---------------------------------------------------------------------------


def blackout(log: Log, span: float, at: float = 1.0, *, probes: frozenset[int] = frozenset()) -> int:
    """Send five packets over that time; returns the number of the one after them, which arrives."""
    for n in range(5):
        log.send(at=at + span * n / 4, path_probe=n in probes)
    log.send(4, at=at + span + 0.01)
    return log.next - 1


def steady(rtt: float) -> Log:
    """A log whose round trip has not varied for long, so that one sample more moves nothing."""
    log = Log(rtt)
    for _ in range(100):
        log.rtt.add(rtt, 0.0)
    return log


@pytest.mark.parametrize(("share", "persistent"), [(0.95, False), (1.05, True)])
def test_losses_that_span_three_probe_timeouts_are_persistent(share: float, persistent: bool) -> None:
    log = steady(0.1)
    span = 3 * log.rtt.pto * share
    last = blackout(log, span)
    result = log.ack((last - 3, last), now=1.0 + span + 0.11)
    assert numbers(result.lost) == [0, 1, 2, 3, 4]
    assert result.persistent is persistent


def test_an_arrival_in_between_shows_that_the_path_carries() -> None:
    log = steady(0.1)
    span = 3 * log.rtt.pto * 1.05
    last = blackout(log, span)
    assert not log.ack((last - 3, last), 2, now=span + 1.11).persistent
    log = steady(0.1)
    last = blackout(log, span)
    # The same, with the arrival known before and the losses noticed late: a process that was stopped.
    log.recovery._take(2)
    assert not log.ack((last - 3, last), now=span + 1.11).persistent


def test_packets_from_before_the_first_measured_round_trip_do_not_count() -> None:
    """The probe timeout was a guess then (RFC 9002, section 7.6.2)."""
    log = Log(rtt=None)
    log.send(at=0.0)
    last = blackout(log, 10.0)
    assert not log.ack((last - 3, last), now=11.1).persistent
    log = Log(rtt=None)
    log.send(at=0.0)
    log.ack(0, now=0.1)
    last = blackout(log, 10.0)
    assert log.ack((last - 3, last), now=11.1).persistent


@pytest.mark.parametrize(
    ("probes", "persistent"),
    [
        ({0}, True),
        ({4}, True),
        ({2}, True),
        ({0, 1, 2, 3, 4}, False),
        ({0, 1, 2, 3}, False),
        ({1, 2, 3, 4}, False),
    ],
)
def test_probes_of_the_path_do_not_bound_a_run_of_losses(probes: set[int], persistent: bool) -> None:
    log = Log(rtt=0.1)
    last = blackout(log, 10.0, probes=frozenset(probes))
    assert log.ack((last - 3, last), now=11.1).persistent is persistent


def test_a_run_that_only_time_shows_counts_as_well() -> None:
    log = steady(0.1)
    span = 3 * log.rtt.pto * 1.05
    log.send(at=1.0)
    log.send(2, at=1.0 + span)
    log.recovery.largest_acked = 2  # noticed by the timer alone
    log.recovery._take(2)
    log.recovery._loss_at = 1.0 + span
    result = log.recovery.handle_timeout(1.0 + span + 1.0)
    assert result is not None
    assert numbers(result.lost) == [0, 1]
    assert result.persistent


# --- everything together ------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(["send", "skip", "ack", "time"]), st.integers(0, 9)), max_size=80))
@example([("send", 0), ("send", 0), *[("time", 0)] * 4, ("ack", 0), ("send", 0), ("time", 0)])
def test_bytes_in_flight_are_those_of_the_packets_in_flight(steps: list[tuple[str, int]]) -> None:
    log, now = Log(rtt=0.05), 1.0
    arrived: set[int] = set()
    for what, n in steps:
        now += 0.003 * n
        if what == "send":
            log.send(1 + n, at=now, size=40 + n)
        elif what == "skip":
            log.skip(n)
        elif what == "ack" and log.next:
            arrived |= set(range(max(0, log.next - n - 1), log.next, 1 + n % 3))
            ranges: list[tuple[int, int]] = []
            for number in sorted(arrived):
                if ranges and ranges[0][1] == number - 1:
                    ranges[0] = ranges[0][0], number
                else:
                    ranges.insert(0, (number, number))
            log.recovery.acked_untrusted(Ack(tuple(ranges[:33]), 0.0), log.next, now)
        elif what == "time" and (due := log.recovery.timeout()) < math.inf:
            now = max(now, due)
            log.recovery.handle_timeout(now)
            following = log.recovery.timeout()
            if following <= now:
                # A loss that only shows after the longest wait for a sign of life: a probe is due as well, once.
                log.recovery.handle_timeout(now)
                following = log.recovery.timeout()
            assert following > now
        out = log.recovery._out.values()
        assert log.recovery.in_flight == sum(packet.size for packet in out)
        assert all(one.order < other.order for one, other in itertools.pairwise(out))
        assert (log.recovery.timeout() == math.inf) == (not out)
    if log.next:
        log.ack((0, log.next - 1), now=now + 1)
    assert log.recovery.in_flight == len(log.recovery) == 0
