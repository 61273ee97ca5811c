"""How many datagrams a packet spans (protocol section 7)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto.sizer import PacketSizer

D = 1452


def grown(to: int = 43) -> PacketSizer:
    sizer = PacketSizer()
    while sizer.limit(D) < to:
        sizer.arrived(sizer.limit(D))
    return sizer


def test_it_begins_with_one_datagram_and_doubles_while_packets_arrive() -> None:
    sizer = PacketSizer()
    seen = []
    for _ in range(8):
        seen.append(sizer.limit(D))
        sizer.arrived(sizer.limit(D))
    assert seen == [1, 2, 4, 8, 16, 32, 44, 44], "44 datagrams of 1452 bytes are what one train holds"


def test_a_packet_fits_a_train_whatever_the_size_of_datagrams() -> None:
    for datagram in (1200, 1452, 1472, 8972, 30000, 65507):
        sizer = PacketSizer()
        for _ in range(20):
            sizer.arrived(sizer.limit(datagram))
        limit = sizer.limit(datagram)
        assert limit == 1 or limit * datagram <= 65507
        assert (limit + 1) * (datagram + 20) > 65000


def test_a_lost_large_packet_halves_the_size() -> None:
    sizer = grown()
    sizer.lost(44, 1.0, 1.1)
    assert sizer.limit(D) == 22
    sizer.lost(22, 1.2, 1.3)
    assert sizer.limit(D) == 11


def test_losses_of_one_round_halve_once() -> None:
    sizer = grown()
    for n in range(6):
        sizer.lost(44, 1.0 + n / 100, 1.1)
    assert sizer.limit(D) == 22
    sizer.lost(44, 1.1, 1.2)
    assert sizer.limit(D) == 22, "what went out before the halving belongs to it"
    sizer.lost(22, 1.11, 1.2)
    assert sizer.limit(D) == 11


def test_it_comes_down_to_one_from_any_size() -> None:
    sizer = grown()
    for n in range(7):
        sizer.lost(sizer.limit(D), 1.0 + n, 1.5 + n)
    assert sizer.limit(D) == 1


def test_jumbo_packets_shrink_too() -> None:
    sizer = PacketSizer()
    for _ in range(20):
        sizer.arrived(sizer.limit(9000))
    assert sizer.limit(9000) == 7
    sizer.lost(7, 1.0, 1.1)
    assert sizer.limit(9000) == 3


def test_a_packet_that_the_window_kept_smaller_counts_when_it_is_lost() -> None:
    """A lossy path has a small window: packets of 12 that are lost must not leave the size at 44."""
    sizer = grown()
    sizer.lost(12, 1.0, 1.1)
    assert sizer.limit(D) == 6


def test_single_datagrams_say_nothing_about_size() -> None:
    sizer = grown()
    for n in range(50):
        sizer.lost(1, 1.0 + n, 1.5 + n)
        sizer.arrived(1)
    assert sizer.limit(D) == 44


def test_small_packets_that_arrive_do_not_make_room_for_large_ones() -> None:
    sizer = PacketSizer()
    for _ in range(3):
        sizer.arrived(sizer.limit(D))
    assert sizer.limit(D) == 8
    for _ in range(100):
        sizer.arrived(4)
    assert sizer.limit(D) == 8


def test_after_each_failure_it_waits_longer() -> None:
    """Loss, or somebody who forges parts: large packets are tried the more seldom the more often they failed."""
    sizer, waits = grown(2), []
    now = 1.0
    for _ in range(7):
        sizer.lost(2, now, now + 0.1)
        now += 1.0
        waits.append(0)
        while sizer.limit(D) == 1:
            sizer.arrived(1)
            waits[-1] += 1
    assert waits == [8, 16, 32, 64, 128, 128, 128]


def test_a_loss_begins_the_count_anew() -> None:
    sizer = grown(4)
    sizer.lost(4, 1.0, 1.1)
    for _ in range(7):
        sizer.arrived(2)
    sizer.lost(2, 1.2, 1.3)
    for _ in range(15):
        sizer.arrived(1)
    assert sizer.limit(D) == 1


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 64), st.sampled_from([1200, 1452, 9000, 65507])), max_size=300
    )
)
def test_the_size_stays_within_bounds(steps: list[tuple[bool, int, int]]) -> None:
    sizer = PacketSizer()
    for n, (good, count, datagram) in enumerate(steps):
        sizer.arrived(count) if good else sizer.lost(count, float(n), n + 0.5)
        assert 1 <= sizer.count <= 64
        assert 1 <= sizer.limit(datagram) <= 64
