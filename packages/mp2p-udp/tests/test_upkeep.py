"""When a channel looks at the interfaces and joins again (protocol section 9), on a clock of its own."""

from __future__ import annotations

import itertools
import random

import pytest

from mp2p_udp import upkeep as u
from mp2p_udp.upkeep import Upkeep


def make(now: float = 0.0, *, chance: float = 0.5, told: bool = True, rejoin: bool = True) -> Upkeep:
    return Upkeep(now, random=lambda: chance, told=told, rejoin=rejoin)


def test_nothing_is_due_at_first() -> None:
    upkeep = make(100.0)
    assert not upkeep.look(100.0)
    assert upkeep.rejoin(100.0) is None
    assert upkeep.timeout() > 100.0


def test_an_interface_joins_again_after_75_seconds_and_again() -> None:
    upkeep = make()
    upkeep.members([3], 0.0)
    assert upkeep.rejoin(u.REJOIN_EVERY - 0.01) is None
    assert upkeep.rejoin(u.REJOIN_EVERY) == 3
    assert upkeep.rejoin(u.REJOIN_EVERY + 1) is None
    assert upkeep.rejoin(2 * u.REJOIN_EVERY) == 3


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.9), (1.0, 1.1)])
def test_the_wait_differs_by_a_tenth(chance: float, share: float) -> None:
    upkeep = make(chance=chance)
    upkeep.members([3], 0.0)
    assert upkeep.timeout() == pytest.approx(min(share * u.REJOIN_EVERY, 10 * u.FALLBACK_LOOK))
    assert upkeep.rejoin(share * u.REJOIN_EVERY - 0.01) is None
    assert upkeep.rejoin(share * u.REJOIN_EVERY) == 3


def test_interfaces_join_again_one_at_a_time() -> None:
    upkeep = make()
    upkeep.members([3, 4, 5], 0.0)
    now = u.REJOIN_EVERY
    upkeep.look(now)
    assert upkeep.rejoin(now) == 3
    assert upkeep.rejoin(now) is None
    assert upkeep.timeout() == pytest.approx(now + u.SPACING)
    assert upkeep.rejoin(now + u.SPACING) == 4
    assert upkeep.rejoin(now + 2 * u.SPACING) == 5


def test_an_interface_that_is_gone_has_no_turn() -> None:
    upkeep = make()
    upkeep.members([3, 4], 0.0)
    upkeep.members([4], 10.0)
    assert upkeep.rejoin(u.REJOIN_EVERY) == 4
    assert upkeep.rejoin(u.REJOIN_EVERY + 10) is None
    upkeep.members([3, 4], 100.0)
    assert upkeep.rejoin(100.0 + u.REJOIN_EVERY - 1) == 4


def test_what_stays_on_the_machine_needs_no_reminder() -> None:
    upkeep = make(rejoin=False)
    upkeep.members([3], 0.0)
    assert upkeep.rejoin(1000.0) is None


def test_a_change_is_looked_at_once_it_has_settled() -> None:
    upkeep = make()
    for event in range(20):
        upkeep.changed(event / 1000)
    assert not upkeep.look(0.019)
    assert upkeep.timeout() == pytest.approx(0.05)
    assert upkeep.look(0.05)
    assert not upkeep.look(0.06)


def test_a_flapping_link_is_looked_at_four_times_in_four_seconds_and_never_forgotten() -> None:
    upkeep = make()
    looks = []
    for tick in range(2000):
        now = tick / 100
        upkeep.changed(now)
        if upkeep.look(now):
            looks.append(now)
    for first, fifth in zip(looks, looks[4:], strict=False):
        assert fifth - first >= u.LOOKS_WINDOW
    assert max(later - earlier for earlier, later in itertools.pairwise(looks)) <= u.LOOKS_WINDOW
    assert len(looks) >= 18


@pytest.mark.parametrize(("told", "every"), [(True, 50.0), (False, 5.0)])
def test_without_events_it_looks_all_the_same(told: bool, every: float) -> None:
    upkeep = make(told=told)
    assert upkeep.timeout() == every
    assert not upkeep.look(every - 0.1)
    assert upkeep.look(every)
    assert upkeep.timeout() == 2 * every


def test_a_join_that_failed_is_tried_again_soon() -> None:
    upkeep = make()
    upkeep.members([3], 0.0, waiting=True)
    assert upkeep.timeout() == u.FALLBACK_LOOK
    assert upkeep.look(u.FALLBACK_LOOK)
    upkeep.members([3, 4], u.FALLBACK_LOOK)
    assert upkeep.timeout() == 11 * u.FALLBACK_LOOK


def test_silence_joins_again_at_once_and_at_most_every_ten_seconds() -> None:
    upkeep = make()
    upkeep.members([3, 4], 0.0)
    upkeep.silent(5.0, {})
    assert upkeep.rejoin(9.9) is None, "it has just joined"
    assert upkeep.rejoin(10.0) == 3
    for tenth in range(100, 200):
        upkeep.silent(tenth / 10, {})
    assert upkeep.rejoin(10.5) == 4
    assert upkeep.rejoin(19.9) is None
    assert upkeep.rejoin(20.0) == 3


@pytest.mark.parametrize(("memory", "every"), [(20.0, 11.2), (60.0, 30.0), (5.0, 11.2)])
def test_a_switch_that_forgets_sooner_is_reminded_sooner_from_the_second_silence_on(
    memory: float, every: float
) -> None:
    upkeep = make()
    upkeep.members([3], 0.0)
    now, joined = 0.0, [0.0]
    for _ in range(3):
        heard, now = joined[-1] + memory, joined[-1] + memory + 10.6
        upkeep.silent(now, {3: heard})
        assert upkeep.rejoin(now) == 3
        joined.append(now)
    assert upkeep.rejoin(now + every - 0.2) is None
    assert upkeep.rejoin(now + every) == 3, "without another silence"
    assert upkeep.rejoin(now + 2 * every) == 3
    upkeep.members([], now + 100)
    upkeep.members([3], now + 100)
    assert upkeep.rejoin(now + 174) is None, "it may be at another switch now"


@pytest.mark.parametrize("heard", [None, 30.0, 99.5])
def test_peers_that_are_gone_do_not_make_it_hasty(heard: float | None) -> None:
    """Nothing came since it joined; or nothing at all; or others are heard all the time."""
    upkeep = make()
    upkeep.members([3], 0.0)
    upkeep.silent(50.0, {3: 40.0})
    assert upkeep.rejoin(50.0) == 3
    upkeep.silent(100.0, {} if heard is None else {3: heard})
    assert upkeep.rejoin(100.0) == 3
    assert upkeep.rejoin(174.0) is None


def test_any_order_of_events_keeps_the_schedule() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        upkeep = Upkeep(0.0, random=draw.random, told=draw.random() < 0.5, rejoin=True)
        now, joined, last = 0.0, set[int](), dict[int, float]()
        for _ in range(300):
            now = max(now, upkeep.timeout()) if draw.random() < 0.5 else now + draw.random()
            if draw.random() < 0.1:
                joined = {draw.randrange(5) for _ in range(draw.randrange(5))}
                upkeep.members(joined, now)
                last = {index: last.get(index, now) for index in joined}
            if draw.random() < 0.1:
                upkeep.silent(now, {3: now - 5 * draw.random()})
            if draw.random() < 0.2:
                upkeep.changed(now)
            upkeep.look(now)
            index = upkeep.rejoin(now)
            if index is not None:
                assert index in joined, f"seed {seed}"
                assert now - last[index] >= u.SILENCE_EVERY - 1e-6, f"seed {seed}"
                last[index] = now
            assert upkeep.timeout() > now, f"seed {seed}: what is due at once leads to nothing"
