"""What is sent again, and how much (protocol section 8; rows G12, G13, G17)."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group.control import Ask, Report
from mp2p_core.proto.group.history import History
from mp2p_core.proto.group.keys import SendKeys
from mp2p_core.proto.group.members import Member
from mp2p_core.proto.group.rate import Allowance, RateControl, Traffic, report_interval
from mp2p_core.proto.group.sealing import Sealer
from mp2p_core.proto.group.store import Store

SPACING = c.REPAIR_SPACING


class Shop:
    """A store with plain datagrams in it and an allowance that lasts."""

    def __init__(self, count: int, size: int = c.GROUP_WINDOW) -> None:
        self.store = Store(Sealer(b"P" * 32, SendKeys(1, random.Random(1).randbytes)), size)
        self.traffic = Traffic()
        self.allowance = Allowance(self.traffic, 0.0)
        self.sent: dict[int, bytes] = {}
        self.add(count)

    def add(self, count: int) -> None:
        first = self.store.last + 1
        new = [la.group_header(0, b"channel-", seq) + b"%d" % seq * 10 for seq in range(first, first + count)]
        self.sent.update(enumerate(new, first))
        self.store.add(new)
        self.traffic.size += 10**9

    def ask(self, *seqs: int, now: float = 0.0, first: int = 1) -> list[int]:
        """Ask, and return the seqs of what is sent again."""
        self.store.ask_untrusted(seqs, first, SPACING, now)
        return self.repairs(now)

    def repairs(self, now: float) -> list[int]:
        found = list(self.store.repairs(self.allowance, now))
        for each in found:
            seq = la.group_fields(each)[4]
            if seq < la.FIRST_PARITY:
                assert each == self.sent[seq], "byte for byte"
        return [la.group_fields(each)[4] for each in found]


def test_what_is_asked_for_goes_out_once_in_a_spacing() -> None:
    shop = Shop(10)
    assert shop.ask(3, 5) == [3, 5]
    assert shop.ask(3, now=SPACING / 2) == []
    assert shop.ask(3, now=SPACING) == [3]


def test_G13_what_was_never_sent_or_is_not_kept_is_ignored() -> None:
    shop = Shop(30, size=20)
    assert shop.store.oldest == 11
    assert shop.ask(0, 1, 10, 31, 2**40, 2**63) == []
    assert not shop.store._asked
    assert shop.ask(11, 30) == [11, 30]


def test_questions_are_forgotten_with_their_datagrams() -> None:
    shop = Shop(10, size=10)
    shop.traffic.size = 0
    while shop.allowance.take(600, 0.0):
        pass
    shop.store.ask_untrusted([1, 2, 9], 1, SPACING, 0.0)
    shop.add(5)
    assert shop.repairs(1.0) == [9]
    shop.store.ask_untrusted([6], 1, SPACING, 1.0)
    shop.add(300)
    assert shop.repairs(2.0) == []
    assert not shop.store._asked
    assert not shop.store._repaired


def test_what_several_miss_together_is_sent_as_a_sum() -> None:
    shop = Shop(64)
    shop.store.ask_untrusted([3], 1, SPACING, 0.0)
    shop.store.ask_untrusted([4], 1, SPACING, 0.0)
    (seq,) = shop.repairs(0.0)
    assert seq == la.FIRST_PARITY + 64, "sum 0 of block 0, of 64 datagrams"


def test_a_newcomer_gets_the_datagrams_of_a_block_that_began_before_it() -> None:
    shop = Shop(64)
    shop.store.ask_untrusted([30, 40], 21, SPACING, 0.0)
    shop.store.ask_untrusted([50], 1, SPACING, 0.0)
    assert sorted(shop.repairs(0.0)) == [30, 40, 50]


def test_scattered_losses_are_answered_with_sums_until_they_end() -> None:
    shop = Shop(c.PARITY_SPAN)
    limit = int(c.PARITY_FROM * c.PARITY_SPAN)
    for seq in range(1, 1 + limit):
        assert shop.ask(seq) == [seq]
    assert not shop.store.scattered
    assert shop.ask(1 + limit)[0] >= la.FIRST_PARITY
    assert shop.store.scattered
    found = [seq - la.FIRST_PARITY for seq in shop.ask(100, 101, now=1.0)]
    assert found == [(1 << 16) + 64, (1 << 16) + 256 + 64], "two of a block for two"
    assert shop.ask(102, now=1.0 + SPACING / 2) == [], "they may be on the way"
    assert len(shop.ask(102, 103, 104, now=1.0 + SPACING / 2)) == 1
    for _ in range(2):
        shop.add(c.PARITY_SPAN)
        last = shop.store.last
        shop.ask(last, now=2.0)
    assert not shop.store.scattered
    assert shop.ask(shop.store.last - 1, now=3.0) == [shop.store.last - 1]


def test_an_incomplete_block_is_summed_as_far_as_it_goes() -> None:
    shop = Shop(70)
    shop.store.ask_untrusted([66], 1, SPACING, 0.0)
    shop.store.ask_untrusted([67], 1, SPACING, 0.0)
    (seq,) = shop.repairs(0.0)
    assert seq == la.FIRST_PARITY + (1 << 16) + 6


def test_a_block_whose_sums_are_used_up_is_repaired_one_by_one() -> None:
    shop = Shop(64)
    shop.store._parities[0] = [-1.0] * 192
    shop.store.ask_untrusted([3], 1, SPACING, 0.0)
    shop.store.ask_untrusted([4], 1, SPACING, 0.0)
    assert shop.repairs(0.0) == [3]


# --- how much ---------------------------------------------------------------------------------------


def test_G12_repairs_take_half_of_what_the_data_does() -> None:
    traffic = Traffic()
    allowance = Allowance(traffic, 0.0)
    now = repaired = 0.0
    for _ in range(2000):
        now += 0.01
        traffic.size += 1000
        traffic.data_at = now
        while allowance.take(1000, now):
            repaired += 1000
    assert repaired <= c.REPAIR_SHARE * traffic.size + c.REPAIR_BURST
    assert repaired >= c.REPAIR_SHARE * traffic.size


def test_after_the_data_a_trickle_repairs_its_end() -> None:
    traffic = Traffic()
    allowance = Allowance(traffic, 0.0)
    traffic.data_at = 10.0
    while allowance.take(1000, 10.0):
        pass
    assert not allowance.take(1000, 10.0 + c.HEARTBEAT_FIRST)
    due = allowance.ready_at(1000)
    assert due > 10.0 + c.HEARTBEAT_FIRST
    assert allowance.take(1000, due)
    count = 0
    for n in range(1000):
        count += allowance.take(1000, due + n / 1000)
    assert count <= c.REPAIR_TRICKLE / 1000 + 1


def test_the_rate_falls_once_in_a_span_and_no_further_than_its_floor() -> None:
    rate = RateControl(1200, 1e6, 0.0)
    for n in range(5):
        rate.reported(0.1, 1, 0.1 * n)
    assert rate.rate == 1e6
    rate.reported(0.0, 1, 1.0)
    assert rate.rate == 1e6 * c.GROUP_RATE_DECREASE, "the worst report counts"
    for n in range(100):
        rate.reported(0.9, 1, 2.0 + n)
    assert rate.rate == c.GROUP_RATE_MIN


def test_the_rate_rises_only_while_it_limits() -> None:
    rate = RateControl(1200, 1e6, 0.0)
    rate.reported(0.0, 1, 1.0)
    assert rate.rate == 1e6
    assert rate.budget(1.0) > 0
    rate.sent(10**6)
    assert rate.budget(1.0) <= 0
    rate.reported(0.05, 1, 3.0)
    assert abs(rate.rate / (1e6 * c.GROUP_RATE_INCREASE**2) - 1) < 1e-9
    for n in range(300):
        rate.budget(3.0 + n)
        rate.sent(10**9)
        rate.budget(3.0 + n)
        rate.reported(0.0, 1, 4.0 + n)
    assert rate.rate == c.GROUP_RATE_MAX


def test_the_rate_doubles_until_the_first_loss_and_never_again() -> None:
    rate = RateControl(1200, 1e6, 0.0)

    def report(loss: float, now: float) -> float:
        rate.sent(10**9)
        assert rate.budget(now) <= 0
        rate.reported(loss, 1, now)
        return rate.rate

    assert report(0.0, 1.0) == 2e6
    assert report(0.0, 2.0) == 4e6
    for now in (3.0, 4.0):
        assert abs(report(0.001 * (4.0 - now), now) / 4e6 / c.GROUP_RATE_INCREASE ** (now - 2.0) - 1) < 1e-9


def test_reports_come_ten_a_second_from_all_together() -> None:
    assert report_interval(1) == report_interval(10) == 1.0
    assert report_interval(1000) == 100.0


# --- one subscriber ---------------------------------------------------------------------------------


def member(traffic: Traffic | None = None) -> Member:
    return Member("session", b"k" * 32, {}, Counter(), traffic or Traffic(), 0.0)


def test_G12_who_asks_for_more_than_a_fifth_is_repaired_alone() -> None:
    traffic = Traffic()
    one = member(traffic)
    traffic.datagrams = 199
    assert one.asked(b"c", list(range(1, 41))) == []
    assert one.asked(b"c", [41]) == [41]
    assert one.greedy
    traffic.datagrams = 205
    assert one.asked(b"c", [204]) == [204]
    traffic.datagrams = 700
    assert one.asked(b"c", [650]) == []
    assert not one.greedy


def test_who_asks_a_third_time_for_the_same_gets_it_over_its_session() -> None:
    one = member()
    assert one.asked(b"c", [5, 6]) == []
    assert one.asked(b"c", [5]) == []
    assert one.asked(b"c", [5, 6]) == [5]
    assert one.asked(b"d", [5]) == [], "of another epoch"


def test_who_is_deaf_is_repaired_alone() -> None:
    one = member()
    one.deaf = True
    assert one.asked(b"c", [1]) == [1]


def test_what_waits_for_a_session_that_does_not_take_it_is_bounded() -> None:
    one = member()
    taken = sum(one.relay(bytes(16), bytes(1000)) for _ in range(3000))
    assert c.RELAY_QUEUE <= one.outbox_size < c.RELAY_QUEUE + 1100
    assert taken == len(one.outbox) < 1100


def test_repairs_for_one_have_an_allowance_of_their_own() -> None:
    traffic = Traffic()
    one = member(traffic)
    assert one.may_repair(b"c", 1, 1000, 0.0)
    assert not one.may_repair(b"c", 1, 1000, SPACING / 2)
    sent = sum(one.may_repair(b"c", seq, 1000, 0.0) for seq in range(2, 100))
    assert sent == int(c.REPAIR_BURST // 1000) - 1
    traffic.size += 10**6
    for seq in range(10 * c.GROUP_WINDOW):
        one.may_repair(b"c", seq, 0, 1.0)
    assert len(one._repaired) == c.GROUP_WINDOW


def report(expected: int, lost: int) -> Report:
    return Report(bytes(16), bytes(8), 0, 0, expected, lost, 0.001, deaf=False, slow=False)


def test_a_share_of_a_few_datagrams_means_nothing() -> None:
    one = member()
    one.reported(report(3, 3), 0.0)
    assert one.loss == 0.0
    one.reported(report(17, 5), 1.0)
    assert one.loss == 0.4
    assert one.lossy == 1.0
    one.reported(report(50, 20), 2.0)
    assert one.lossy == 2.0
    one.reported(report(50, 10), 3.0)
    assert one.lossy == 1.5
    one.reported(report(19, 19), 4.0)
    assert one.loss == 0.0


def test_losses_now_and_then_add_up_and_one_outage_is_not_enough() -> None:
    one = member()
    one.reported(report(1000, 1000), 3600.0)
    assert one.lossy <= c.GROUP_HOPELESS_TIME / 2
    now = 3600.0
    while one.lossy < c.GROUP_HOPELESS_TIME:
        now += 1
        one.reported(report(50, 20 * (int(now) % 2)), now)
        assert now < 3700


@pytest.mark.parametrize(
    "say",
    [
        lambda n: (n % 2 == 0, 1),
        lambda n: (True, 1 + n % 2),
        lambda n: (True, n),
        lambda n: (n % 10 > 0, n),
    ],
    ids=["slow and not", "there and back", "one by one", "one by one and not"],
)
def test_one_that_is_slow_again_and_again_is_waited_for_no_longer(
    say: Callable[[int], tuple[bool, int]],
) -> None:
    one = member()
    waited = 0.0
    for n in range(1, 3600):
        slow, seq = say(n % 500)
        one.reported(report(0, 0)._replace(slow=slow, next_seq=seq), n / 10)
        if n % 500 == 499:
            one.new_epoch(n / 10)
        waited += slow * min(max(one.waited_until() - n / 10, 0.0), 0.1)
    assert c.GROUP_STALL <= waited < 360 / 5


def test_one_that_is_no_slower_than_the_lowest_rate_is_waited_for() -> None:
    one = member()
    for second in range(1, 3600):
        moved = int(second * c.GROUP_RATE_MIN / c.BASE_DATAGRAM_SIZE) + 1
        one.reported(report(0, 0)._replace(slow=True, next_seq=moved), second)
        assert second + 1 <= one.waited_until()
    one.reported(report(0, 0)._replace(slow=True, next_seq=moved), second + 1)
    assert one.waited_until() == second + c.GROUP_STALL


def test_what_one_lacked_that_became_deaf_is_relayed_once() -> None:
    shop = Shop(50)
    store = shop.store
    one = member()
    one.catch_up(bytes(16), store, 20)
    assert len(one.take_outbox()) == 30
    one.catch_up(bytes(16), store, 0)
    assert not one.outbox
    shop.add(5)
    one.catch_up(bytes(16), store, 0)
    assert len(one.take_outbox()) == 5
    one.new_epoch(0.0)
    one.catch_up(bytes(16), store, 53)
    assert len(one.take_outbox()) == 2
    assert not one.behind


def test_what_waits_for_one_session_is_bounded() -> None:
    one = member()
    while one.relay(bytes(16), bytes(1000)):
        pass
    assert one.outbox_size < c.RELAY_QUEUE + 2000
    part = one.take_outbox(5000)
    assert 1 <= len(part) <= 5
    assert len(one.take_outbox(1)) == 1
    one.take_outbox()
    assert one.outbox_size == 0
    assert not one._tellers


# --- history ----------------------------------------------------------------------------------------


def backlog(history: History, run: bytes, number: int, wanted: int, end: int) -> list[tuple[int, bytes]]:
    found = []
    parts = list(history.backlog(Ask(bytes(16), run, number, wanted, fresh=True), end))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    for part in parts:
        found += list(enumerate(part.messages, part.number))
    return found


def test_a_newcomer_gets_the_last_n_and_a_returning_one_what_it_misses() -> None:
    history = History(bytes(16), b"r" * 8, 5)
    history.add(0, [b"%d" % n for n in range(10)])
    assert backlog(history, bytes(8), 0, 0, 10) == []
    assert backlog(history, bytes(8), 0, 2, 10) == [(8, b"8"), (9, b"9")]
    assert len(backlog(history, b"other---", 9, 100, 10)) == 5
    assert backlog(history, b"r" * 8, 7, 0, 10) == [(7, b"7"), (8, b"8"), (9, b"9")]
    assert backlog(history, b"r" * 8, 2, 0, 10)[0] == (5, b"5"), "the rest is a gap"
    assert backlog(history, b"r" * 8, 10, 0, 10) == []


def test_a_backlog_is_cut_into_messages_that_a_session_carries() -> None:
    history = History(bytes(16), b"r" * 8, 200)
    history.add(0, [bytes(1000)] * 100)
    history.add(105, [bytes(100_000), b"x"])
    parts = list(history.backlog(Ask(bytes(16), bytes(8), 0, 200, fresh=True), 107))
    assert len(parts) > 3
    assert max(sum(map(len, part.messages)) for part in parts[:2]) <= 65536
    numbers = [n for part in parts for n in range(part.number, part.number + len(part.messages))]
    assert numbers == [*range(100), 105, 106]


def test_an_empty_backlog_says_where_live_messages_begin() -> None:
    history = History(bytes(16), b"r" * 8, 0)
    history.add(0, [b"x"])
    (part,) = history.backlog(Ask(bytes(16), bytes(8), 0, 5, fresh=True), 7)
    assert (part.number, part.last, part.messages) == (7, True, [])
