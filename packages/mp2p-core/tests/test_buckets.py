"""Token buckets: how much a stranger can have of anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.buckets import BucketTable, TokenBucket


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=10, burst=3, now=100.0)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(100.05)
    assert bucket.take(100.125)
    assert not bucket.take(100.125)
    assert bucket.level(1000.0) == 3


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=10, burst=1, now=100.0)
    assert bucket.take(100.0)
    assert not bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.0)
    assert bucket.take(100.125)


@pytest.mark.parametrize("limit", [2, 10, 50, 200, 2000])
def test_no_second_sees_more_than_the_limit(limit: int) -> None:
    bucket = TokenBucket.at_most(limit, 0.0)
    step = 1 / (8 * limit)
    taken = [n * step for n in range(8 * 4 * limit) if bucket.take(n * step)]
    for first, after in zip(taken, taken[limit:], strict=False):
        assert after - first >= 1 - 1e-9, "any limit + 1 of them take a second"
    assert len(taken) >= limit * 2, "and most of it is there to be had"


@given(
    st.lists(st.tuples(st.floats(0, 2), st.booleans()), max_size=80), st.integers(1, 50), st.integers(1, 50)
)
def test_never_more_than_the_burst_and_what_was_earned(
    steps: list[tuple[float, bool]], rate: int, burst: int
) -> None:
    bucket, now, taken = TokenBucket(rate, burst, 0.0), 0.0, 0
    for pause, wanted in steps:
        now += pause
        taken += wanted and bucket.take(now)
        assert taken <= burst + now * rate + 1e-6
        assert 0 <= bucket.level(now) <= burst


def test_F10_a_table_is_bounded_and_forgets_the_least_recently_used() -> None:
    table = BucketTable(rate=0.001, burst=1, size=10)
    assert table.take("mine", 0.0)
    for stranger in range(1000):
        assert table.take(stranger, 1.0)
        assert not table.take("mine", 1.0), "in use, so it stays"
        assert len(table) <= 10
    for stranger in range(10):
        table.take(stranger, 2.0)
    assert table.take("mine", 2.0), "forgotten, and full again"


def test_keys_of_a_table_do_not_share() -> None:
    table = BucketTable.at_most(4)
    for key in ("a", "b"):
        assert table.take(key, 0.0)
        assert not table.take(key, 0.0)
        assert table.take(key, 0.5)


def test_so_many_tokens_are_taken_together_or_none_of_them() -> None:
    bucket = TokenBucket(1.0, 10.0, 0.0)
    assert bucket.take(0.0, 7)
    assert not bucket.take(0.0, 4)
    assert bucket.take(0.0, 3)
    assert not bucket.take(0.0)
