"""When subscribers ask for what is missing (protocol section 8; RFC 5401; rows G11, G17)."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.wanted import Wanted, backoff

RTT = 0.01


def held(_seq: int) -> bool:
    return False


def wanted(*, repaired: bool = True, seed: int = 1, members: int = 1) -> Wanted:
    found = Wanted(random.Random(seed).randbytes, rtt=RTT, repaired=repaired)
    found.members = members
    return found


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 10**6))
def test_the_wait_lies_between_nothing_and_the_longest(uniform: float, members: int) -> None:
    assert 0 <= backoff(uniform, 4 * RTT, members) <= 4 * RTT


def test_the_wait_is_spread_as_rfc_5401_has_it() -> None:
    """The formula of its section 5.1.1.2, as written there."""
    for members in (1, 2, 50, 1000):
        for uniform in (0.0, 0.1, 0.5, 0.999):
            longest = 0.04
            lamb = math.log(members) + 1
            x = uniform * (lamb / longest) + lamb / (longest * (math.exp(lamb) - 1))
            expected = (longest / lamb) * math.log(x * (math.exp(lamb) - 1) * (longest / lamb))
            assert backoff(uniform, longest, members) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("members", [200, 1000])
def test_G11_of_many_who_miss_the_same_few_ask_within_the_first_round_trip(members: int) -> None:
    rng = random.Random(members)
    counts = []
    for _ in range(50):
        waits = sorted(backoff(rng.random(), 4 * RTT, members) for _ in range(members))
        counts.append(sum(wait < waits[0] + RTT for wait in waits))
    assert sum(counts) / len(counts) < 15
    assert sum(count < 30 for count in counts) > 45


def test_everything_is_asked_for_five_times_with_doubled_waits_and_then_given_up() -> None:
    missing = wanted()
    missing.notice([7], 0.0)
    asked = []
    gone: list[int] = []
    while not gone:
        now = missing.timeout()
        assert now is not None
        ask, gone = missing.due(now, held)
        if ask:
            asked.append(now)
    assert len(asked) == c.NACK_TRIES
    waits = [b - a for a, b in itertools.pairwise(asked)]
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(waits))
    assert gone == [7]
    assert missing.lost == 1
    assert missing.timeout() is None


def test_the_first_question_waits_for_what_was_only_overtaken() -> None:
    missing = wanted()
    missing.notice([7], 0.0)
    due = missing.timeout()
    assert due is not None
    assert RTT / 8 <= due <= RTT / 8 + c.NACK_BACKOFF * RTT
    assert missing.due(due - 1e-6, held) == ([], [])


def test_a_repair_that_is_heard_cancels_the_question() -> None:
    missing = wanted()
    missing.notice([7, 8], 0.0)
    missing.found(7, 0.02)
    now = missing.timeout()
    assert now is not None
    assert missing.due(now, held)[0] == [8]
    missing.found(8, 1.0)
    assert missing.timeout() is None
    assert missing.lost == 2


def test_what_was_only_overtaken_is_not_lost() -> None:
    missing = wanted()
    missing.notice([7], 0.0)
    missing.found(7, RTT / 2)
    assert missing.lost == 0


def test_best_effort_waits_a_moment_and_asks_for_nothing() -> None:
    missing = wanted(repaired=False)
    missing.notice([7], 0.0)
    assert missing.timeout() == c.GROUP_REORDER
    assert missing.due(c.GROUP_REORDER, held) == ([], [7])


def test_one_question_for_all_of_a_block() -> None:
    missing = wanted()
    missing.notice([1], 0.0)
    missing.notice([2, 3], 0.005)
    missing.notice([65], 0.005)
    now = missing.timeout()
    assert now is not None
    ask, _ = missing.due(now, held)
    assert {1, 2, 3} <= set(ask)


def test_where_sums_are_sent_the_end_of_the_block_is_waited_for() -> None:
    missing = wanted()
    missing.scattered_at = 0.0
    missing.notice([1, 64], 0.0)
    missing.notice([65], 0.0)
    due = missing.timeout()
    assert due is not None
    assert due >= c.PARITY_PATIENCE
    missing.completed(0, 0.01)
    due = missing.timeout()
    assert due is not None
    assert due <= 0.01 + RTT / 8 + c.NACK_BACKOFF * RTT
    assert missing.due(due, held)[0] == [1, 64]


def test_what_waits_for_its_manifest_is_asked_for_later() -> None:
    missing = wanted()
    missing.notice([1, 2], 0.0)
    asked = []
    for _ in range(3):
        now = missing.timeout()
        assert now is not None
        asked.append(missing.due(now, lambda seq: seq == 2)[0])
    assert asked == [[1], [1, 2], [1, 2]]


def test_a_round_trip_is_never_taken_for_shorter_than_a_loop_takes() -> None:
    missing = Wanted(random.Random(1).randbytes, rtt=1e-6, repaired=True)
    missing.notice([1], 0.0)
    due = missing.timeout()
    assert due is not None
    assert due > c.GROUP_RTT_FLOOR / 8
