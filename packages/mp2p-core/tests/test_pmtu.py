"""Finding out how large a datagram the path carries (RFC 8899; protocol section 6)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.pmtu import PathMtu

PLENTY = 1e9


def search(mtu: PathMtu, carries: int, now: float = 0.0, room: float = PLENTY) -> list[int]:
    """Probe until there is nothing more to probe; returns the sizes tried."""
    tried = []
    while (size := mtu.probe(now, room)) is not None:
        tried.append(size)
        if size <= carries:
            mtu.passed(size)
        else:
            mtu.failed(size)
        assert len(tried) < 200
    return tried


def test_the_limit_is_tried_first() -> None:
    mtu = PathMtu(1472, 0.0)
    assert mtu.size == 1200
    assert search(mtu, 1472) == [1472]
    assert mtu.size == 1472


@pytest.mark.parametrize("carries", [1200, 1215, 1216, 1300, 1452, 1471, 8972, 60000])
def test_the_search_comes_within_sixteen_bytes(carries: int) -> None:
    for limit in (1472, 9000, 65507):
        mtu = PathMtu(limit, 0.0)
        search(mtu, carries)
        best = min(carries, limit)
        assert best - 16 < mtu.size <= best


def test_nothing_to_gain_is_not_tried() -> None:
    assert search(PathMtu(1200, 0.0), 1200) == []


def test_a_size_is_given_up_after_three_losses() -> None:
    tried = search(PathMtu(1472, 0.0), 1300)
    assert tried[:4] == [1472, 1472, 1472, 1336]


def test_one_probe_is_out_at_a_time() -> None:
    mtu = PathMtu(1472, 0.0)
    assert mtu.probe(0.0, PLENTY) == 1472
    assert mtu.probe(0.0, PLENTY) is None
    mtu.failed(1472)
    assert mtu.probe(0.0, PLENTY) == 1472


def test_a_probe_waits_for_room() -> None:
    mtu = PathMtu(9000, 0.0)
    assert mtu.probe(0.0, 8999) is None
    assert mtu.probe(0.0, 9000) == 9000


def test_after_ten_minutes_a_larger_size_is_tried_again() -> None:
    mtu = PathMtu(1472, 0.0)
    search(mtu, 1300)
    assert mtu.size < 1300
    assert mtu.probe(599.0, PLENTY) is None
    assert search(mtu, 1472, now=601.0) == [1472]
    assert mtu.size == 1472


def test_three_probe_timeouts_in_a_row_fall_back() -> None:
    mtu = PathMtu(1472, 0.0)
    search(mtu, 1472)
    assert not mtu.timed_out(1, 5.0)
    assert not mtu.timed_out(2, 5.0)
    assert mtu.timed_out(3, 5.0)
    assert mtu.size == 1200
    assert mtu.probe(604.0, PLENTY) is None
    assert mtu.probe(606.0, PLENTY) == 1472


def test_nothing_falls_back_from_the_base() -> None:
    mtu = PathMtu(1472, 0.0)
    for times in range(1, 9):
        assert not mtu.timed_out(times, 5.0)
        assert not mtu.swallowed(5.0)
    assert mtu.probe(5.0, PLENTY) == 1472, "and the search is not put off"


def test_large_datagrams_that_are_swallowed_while_small_ones_arrive_fall_back() -> None:
    mtu = PathMtu(1472, 0.0)
    search(mtu, 1472)
    assert [mtu.swallowed(5.0) for _ in range(3)] == [False, False, True]
    assert mtu.size == 1200


def test_one_large_datagram_that_arrives_shows_that_the_path_carries_them() -> None:
    mtu = PathMtu(1472, 0.0)
    search(mtu, 1472)
    for _ in range(5):
        assert not mtu.swallowed(5.0)
        assert not mtu.swallowed(5.0)
        mtu.arrived()
    assert mtu.size == 1472


def test_a_probe_that_arrives_after_the_fall_counts() -> None:
    mtu = PathMtu(9000, 0.0)
    mtu.passed(1472)
    assert mtu.probe(0.0, PLENTY) == 9000
    mtu.timed_out(3, 5.0)
    mtu.passed(9000)
    assert mtu.size == 9000


@given(st.integers(1200, 65507), st.integers(1200, 65507), st.randoms(use_true_random=False))
def test_no_loss_at_random_makes_it_believe_too_much(limit: int, carries: int, draw: object) -> None:
    mtu = PathMtu(limit, 0.0)
    for _ in range(150):
        if (size := mtu.probe(0.0, PLENTY)) is None:
            break
        if size <= carries and draw.random() > 0.3:  # type: ignore[attr-defined]  # hypothesis does not type it
            mtu.passed(size)
        else:
            mtu.failed(size)
        assert 1200 <= mtu.size <= min(limit, carries)
    else:
        raise AssertionError("the search does not end")
