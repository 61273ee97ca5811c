"""How many datagrams a packet spans (protocol section 7)."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.sizer import PacketSizer

D = 1452


LATER = 1e9
"""When packets were sent, for tests of nothing that depends on it."""


def arrive(sizer: PacketSizer, count: int, times: int = 1) -> None:
    for _ in range(times):
        sizer.arrived(count, LATER)


def fail(sizer: PacketSizer, count: int, now: float) -> None:
    """Lose packets of a size, all sent at the same time, until there is nothing more to learn from them."""
    for _ in range(10):
        sizer.lost(count, now, now + 0.1)


def grown(to: int = 43) -> PacketSizer:
    sizer = PacketSizer()
    while sizer.limit(D) < to:
        arrive(sizer, sizer.limit(D))
    return sizer


def test_it_begins_with_one_datagram_and_doubles_while_packets_arrive() -> None:
    sizer = PacketSizer()
    seen = []
    for _ in range(8):
        seen.append(sizer.limit(D))
        arrive(sizer, sizer.limit(D))
    assert seen == [1, 2, 4, 8, 16, 32, 44, 44], "44 datagrams of 1452 bytes are what one train holds"


def test_a_packet_fits_a_train_whatever_the_size_of_datagrams() -> None:
    for datagram in (1200, 1452, 1472, 8972, 30000, 65507):
        sizer = PacketSizer()
        for _ in range(20):
            arrive(sizer, sizer.limit(datagram))
        limit = sizer.limit(datagram)
        assert limit == 1 or limit * datagram <= 65507
        assert (limit + 1) * (datagram + 20) > 65000


def test_six_lost_packets_halve_the_size() -> None:
    sizer = grown()
    for _ in range(5):
        sizer.lost(44, 1.0, 1.1)
    assert sizer.limit(D) == 44
    sizer.lost(44, 1.0, 1.1)
    assert sizer.limit(D) == 22


def test_losses_of_one_round_halve_once() -> None:
    sizer = grown()
    for n in range(30):
        sizer.lost(44, 1.0 + n / 1000, 1.1)
    assert sizer.limit(D) == 22
    fail(sizer, 44, 1.1)
    assert sizer.limit(D) == 22, "what went out before the halving belongs to it"
    fail(sizer, 22, 1.11)
    assert sizer.limit(D) == 11


def test_what_was_sent_before_a_halving_does_not_count_for_the_size_after_it() -> None:
    sizer = grown()
    fail(sizer, 44, 1.0)
    for _ in range(1000):
        sizer.arrived(44, 1.0)
    assert sizer.limit(D) == 22


@pytest.mark.parametrize(("every", "stays"), [(12, True), (6, False)])
def test_the_size_holds_while_one_packet_in_nine_is_lost(every: int, stays: bool) -> None:
    sizer = grown()
    for n in range(500):
        if n % every:
            sizer.arrived(44, 1.0 + n)
        else:
            sizer.lost(44, 1.0 + n, 1.5 + n)
    assert (sizer.limit(D) == 44) is stays


@pytest.mark.parametrize(("loss", "least", "most"), [(0.001, 20, 45), (0.01, 6, 24), (0.1, 1, 3)])
def test_the_size_settles_by_how_many_datagrams_are_lost(loss: float, least: float, most: float) -> None:
    dice, sizer, sizes = random.Random(1), PacketSizer(), []
    for n in range(6000):
        count = sizer.limit(D)
        if dice.random() < (1 - loss) ** count:
            sizer.arrived(count, float(n))
        else:
            sizer.lost(count, float(n), float(n))
        sizes.append(count)
    assert least < statistics.mean(sizes[1000:]) < most


def test_it_comes_down_to_one_from_any_size() -> None:
    sizer = grown()
    for n in range(7):
        fail(sizer, sizer.limit(D), 1.0 + n)
    assert sizer.limit(D) == 1


def test_jumbo_packets_shrink_too() -> None:
    sizer = PacketSizer()
    for _ in range(20):
        arrive(sizer, sizer.limit(9000))
    assert sizer.limit(9000) == 7
    fail(sizer, 7, 1.0)
    assert sizer.limit(9000) == 3


def test_a_packet_that_the_window_kept_smaller_counts_when_it_is_lost() -> None:
    """A lossy path has a small window: packets of 12 that are lost must not leave the size at 44."""
    sizer = grown()
    fail(sizer, 12, 1.0)
    assert sizer.limit(D) == 6


def test_single_datagrams_say_nothing_about_size() -> None:
    sizer = grown()
    for n in range(50):
        sizer.lost(1, 1.0 + n, 1.5 + n)
        arrive(sizer, 1)
    assert sizer.limit(D) == 44


def test_small_packets_that_arrive_do_not_make_room_for_large_ones() -> None:
    sizer = PacketSizer()
    for _ in range(3):
        arrive(sizer, sizer.limit(D))
    assert sizer.limit(D) == 8
    arrive(sizer, 4, 100)
    assert sizer.limit(D) == 8


def test_after_each_failure_it_waits_longer() -> None:
    """Loss, or somebody who forges parts: large packets are tried the more seldom the more often they failed."""
    sizer, waits = grown(2), []
    now = 1.0
    for _ in range(7):
        fail(sizer, 2, now)
        now += 1.0
        waits.append(0)
        while sizer.limit(D) == 1:
            arrive(sizer, 1)
            waits[-1] += 1
    assert waits == [16, 32, 64, 128, 128, 128, 128]


def test_a_size_tried_again_has_to_prove_itself() -> None:
    """Three lost ones, and none that arrived, end it; one that has held on is not given up so soon."""
    sizer = grown(2)
    fail(sizer, 2, 1.0)
    arrive(sizer, 1, 16)
    assert sizer.limit(D) == 2
    for _ in range(3):
        sizer.lost(2, 2.0, 2.1)
    assert sizer.limit(D) == 1


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 64), st.sampled_from([1200, 1452, 9000, 65507])), max_size=300
    )
)
def test_the_size_stays_within_bounds(steps: list[tuple[bool, int, int]]) -> None:
    sizer = PacketSizer()
    for n, (good, count, datagram) in enumerate(steps):
        sizer.arrived(count, float(n)) if good else sizer.lost(count, float(n), n + 0.5)
        assert 1 <= sizer.count <= 64
        assert 1 <= sizer.limit(datagram) <= 64
