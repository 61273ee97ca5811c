"""Credits of streams and connections (protocol section 6)."""

from __future__ import annotations

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.flow import ReceiveBudget, ReceiveCredit, SendBudget, StreamError

RTT = 0.1


def _read(credit: ReceiveCredit, count: int, now: float) -> bool:
    """Receive and read at once, and tell the peer when that is due."""
    credit.take_untrusted(count, now)
    due = credit.consume(count)
    if due:
        credit.update(now, RTT)
    return due


def test_F8_more_than_the_limit_is_code_3_and_counts_for_nothing() -> None:
    credit = ReceiveCredit(1000, 4000)
    credit.take_untrusted(1000, 0.0)
    with pytest.raises(StreamError) as caught:
        credit.take_untrusted(1, 0.0)
    assert caught.value.code == c.CLOSE_FLOW
    assert credit.received == 1000


def test_the_limit_moves_when_half_of_the_window_has_been_read() -> None:
    credit = ReceiveCredit(1000, 1000)
    credit.take_untrusted(1000, 0.0)
    assert not credit.consume(499)
    assert credit.update(0.0, RTT) == 1000
    assert credit.consume(1)
    assert credit.limit == 1000  # binding until the peer is told
    assert credit.update(0.0, RTT) == credit.limit == 1500
    assert credit.update(0.0, RTT) == 1500


def test_what_was_not_read_gives_no_credit() -> None:
    credit = ReceiveCredit(1000, 1000)
    credit.take_untrusted(1000, 0.0)
    credit.consume(600)
    credit.update(0.0, RTT)
    assert credit.limit - credit.read == credit.window


def test_a_slow_reader_that_takes_much_at_once_does_not_look_fast() -> None:
    credit = ReceiveCredit(1000, 10**9)
    now = 0.0
    for _ in range(20):
        credit.take_untrusted(1000, now)
        now += 100 * RTT
        for _ in range(4):
            credit.consume(250)
        credit.update(now, RTT)
    assert credit.window == 1000


def test_a_window_used_up_within_two_round_trips_doubles() -> None:
    credit = ReceiveCredit(1000, 10**9)
    assert _read(credit, 500, 50.0)  # half of it, at once
    assert credit.window == 2000
    assert _read(credit, 1000, 50.0 + 0.99 * RTT)  # half of it in less than one round trip
    assert credit.window == 4000


def test_a_window_that_lasts_two_round_trips_stays() -> None:
    credit = ReceiveCredit(1000, 10**9)
    assert not _read(credit, 1, 50.0)
    assert _read(credit, 499, 50.0 + RTT)
    assert credit.window == 1000
    assert _read(credit, 900, 50.0 + RTT + 1.81 * RTT)  # more than half, in as much more time
    assert credit.window == 1000
    assert _read(credit, 900, 50.0 + RTT + 1.81 * RTT + 1.79 * RTT)
    assert credit.window == 2000


def test_the_time_before_the_first_byte_does_not_count() -> None:
    credit = ReceiveCredit(1000, 10**9)
    assert _read(credit, 500, 10**6)
    assert credit.window == 2000


def test_the_window_grows_to_its_cap_and_no_further() -> None:
    credit = ReceiveCredit(c.STREAM_WINDOW, c.STREAM_WINDOW_CAP)
    for _ in range(100):
        _read(credit, credit.limit - credit.received, 1.0)
        assert credit.limit - credit.read == credit.window
    assert credit.window == c.STREAM_WINDOW_CAP


def test_the_window_follows_the_bandwidth_delay_product() -> None:
    rate = 10e6  # bytes a second
    credit = ReceiveCredit(c.STREAM_WINDOW, c.STREAM_WINDOW_CAP)
    now = 0.0
    while now < 30:
        count = min(int(rate * 0.001), credit.limit - credit.received)
        _read(credit, count, now)
        now += 0.001
    assert 2 * rate * RTT <= credit.window <= 4 * rate * RTT


def test_reading_moves_the_limit_of_the_connection() -> None:
    budget = ReceiveBudget()
    budget.credit.take_untrusted(c.CONNECTION_WINDOW // 2, 0.0)
    budget.consume(c.CONNECTION_WINDOW // 2 - 1)
    assert not budget.update_due
    budget.consume(1)
    assert budget.update_due


@pytest.mark.parametrize("unread", [0.5, 0.9])
def test_what_lies_unread_does_not_keep_the_rest_of_the_window_from_moving(unread: float) -> None:
    """A few streams that nobody reads must not hold up all the others."""
    budget = ReceiveBudget()
    credit, window = budget.credit, c.CONNECTION_WINDOW
    credit.take_untrusted(int(unread * window), 0.0)
    passed = told = 0
    while passed < 3 * window:
        count = min(1000, credit.limit - credit.received)
        if not count:
            break
        credit.take_untrusted(count, 1.0)
        budget.consume(count)
        passed += count
        if budget.update_due:
            budget.update_due = False
            credit.update(1.0, 0.0)
            told += 1
    assert passed >= 3 * window
    assert told <= 100, "not for each packet"


def test_F8_too_many_pieces_out_of_order_are_code_9() -> None:
    budget = ReceiveBudget()
    budget.add_pieces_untrusted(c.MAX_PIECES)
    with pytest.raises(StreamError) as caught:
        budget.add_pieces_untrusted(1)
    assert caught.value.code == c.CLOSE_EXCESSIVE


def test_new_data_is_held_to_the_peers_credit_and_to_our_own_cap() -> None:
    budget = SendBudget()
    assert budget.available == c.CONNECTION_WINDOW
    budget.taken = budget.sent = 1000
    assert budget.available == c.CONNECTION_WINDOW - 1000
    budget.limit = 2**64 - 1
    assert budget.available == c.CONNECTION_WINDOW_CAP - 1000
    budget.sent = c.CONNECTION_WINDOW_CAP
    assert budget.available == 0


def test_what_waits_is_bounded_for_all_streams_together_and_each_keeps_a_floor() -> None:
    budget = SendBudget()
    assert budget.allowance(0) == c.UNSENT_STREAM
    budget.taken = c.UNSENT_CONNECTION - 300_000
    assert budget.allowance(0) == 300_000
    assert budget.allowance(100_000) == 400_000
    budget.taken = 2 * c.UNSENT_CONNECTION
    assert budget.allowance(0) == c.UNSENT_FLOOR
