"""Ways to a peer, by themselves: who may name them, how they are proved, which is taken (sections 5 and 6; R5, R6)."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.addresses import (
    SOURCE_SEEN,
    derive_group_v4,
    derive_group_v6,
    may_answer,
    pack_ipv4,
    pack_ipv6,
)
from mp2p_core.proto.frames import (
    Addr,
    PathChallenge,
    PathResponse,
    encode_addr,
    encode_path_response,
    parse_frames_untrusted,
)
from mp2p_core.proto.paths import Paths
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.proto.routes import PathRules, Route
from mp2p_core.transport import Address, Path, Reach

V4, V6 = 0, 1
OURS = {
    V4: derive_group_v4(b"us", Reach.GLOBAL, 1024),
    V6: derive_group_v6(b"us", Reach.GLOBAL, 1024),
}
THEIRS = {
    V4: derive_group_v4(b"them", Reach.GLOBAL, 1024),
    V6: derive_group_v6(b"them", Reach.GLOBAL, 1024),
}
SOURCE = {V4: pack_ipv4("192.0.2.7", 4000), V6: pack_ipv6("2001:db8::7", 4000)}
HEARD = {number: Path(SOURCE[number], OURS[number], 3 + number) for number in (V4, V6)}
NOW = 50.0


def rules(channels: tuple[int, ...] = (V4, V6)) -> PathRules:
    infos = {number: ChannelInfo(OURS[number], 1400 - number, may_answer) for number in channels}
    draw = random.Random(1).randbytes
    return PathRules(infos, random=draw, counters=defaultdict(int), now=NOW)


def opened(shared: PathRules | None = None, *, initiator: bool = False, by_source: bool = False) -> Paths:
    """Return what a session over IPv4 knows, whose peer has been heard and has named nothing."""
    shared = shared or rules()
    paths = Paths(shared, shared.target(V4, THEIRS[V4]), initiator=initiator, by_source=by_source)
    paths.opened(NOW)
    paths.announce()
    return paths


def told(paths: Paths, *addresses: Address, sequence: int = 1, channel: int = V4, size: int = 1000) -> None:
    """Take a packet of `size` bytes that names addresses."""
    for address in addresses:
        paths.receive_untrusted(Addr(sequence, address), channel, HEARD[channel], NOW)
    paths.heard += size


def others(paths: Paths) -> list[Address]:
    return [route.target.address for route in paths if route is not paths.current]


def asked(paths: Paths, now: float = NOW) -> list[bytes]:
    """Send what is due; returns the data of the challenges."""
    frames = [frame for packet in paths.packets(now) for frame in parse_frames_untrusted(packet.frames)]
    return [frame.data for frame in frames if isinstance(frame, PathChallenge)]


def proved(paths: Paths, now: float = NOW) -> Route:
    """Ask the way over IPv6 and have it answer."""
    paths.search(now)
    (data,) = asked(paths, now)
    route = paths.receive_untrusted(PathResponse(data), V6, HEARD[V6], now)
    assert route is not None
    return route


# --- naming ------------------------------------------------------------------------------------------


def test_a_peer_names_where_else_it_is_and_it_is_asked_there_after_a_second() -> None:
    paths = opened()
    told(paths, THEIRS[V6])
    assert others(paths) == [THEIRS[V6]]
    assert paths.next_at == NOW + c.PATH_SETTLE
    assert paths.packets(NOW + 0.99) == []
    (packet,) = paths.packets(NOW + 1.0)
    assert packet.channel == V6
    assert packet.path == Path(THEIRS[V6])
    own, challenge = parse_frames_untrusted(packet.frames)
    assert own == Addr(1, OURS[V6]), "where to answer"
    assert isinstance(challenge, PathChallenge)


REFUSED = {
    "a unicast address, never heard from": SOURCE[V6],
    "another host": pack_ipv4("198.51.100.1", 1024),
    "a group that is not to be chosen": pack_ipv4("224.0.0.251", 5353),
    "a port of other services": pack_ipv6("ff1e::8000:1", 53),
    "no multicast scope that exists": pack_ipv6("ff0e::8000:1", 1024),
    "a transport that is not open": bytes([0x80, 0]) + bytes(18),
    "an unknown kind": bytes([5, 0]) + bytes(18),
    "IPv4 in IPv6": bytes([6, 0, 4, 0]) + bytes(10) + b"\xff\xff" + bytes([224, 0, 230, 7]),
}


@pytest.mark.parametrize("why", REFUSED)
def test_R5_what_the_address_policy_refuses_is_never_sent_to(why: str) -> None:
    shared = rules()
    paths = opened(shared)
    told(paths, REFUSED[why])
    assert others(paths) == []
    assert shared.counters["addr-refused"] == 1
    assert paths.packets(NOW + 100.0) == []


def test_R5_a_source_speaks_for_the_channel_that_it_was_heard_on_only() -> None:
    infos = {number: ChannelInfo(OURS[V4], 1200, may_answer) for number in (0, 1)}
    shared = PathRules(infos, random=bytes, counters=defaultdict(int), now=NOW)
    found = shared.targets_untrusted(SOURCE[V4], 1, HEARD[V4])
    assert [target.channel for target in found] == [1]


def test_R5_a_scope_wider_than_ours_is_refused() -> None:
    infos = {V4: ChannelInfo(derive_group_v4(b"us", Reach.SITE, 1024), 1200, may_answer)}
    shared = PathRules(infos, random=bytes, counters=defaultdict(int), now=NOW)
    paths = Paths(shared, shared.target(V4, derive_group_v4(b"x", Reach.SITE, 1024)), initiator=True)
    wide, narrow = (derive_group_v4(b"them", reach, 1024) for reach in (Reach.GLOBAL, Reach.LINK))
    for address in (wide, narrow):
        paths.receive_untrusted(Addr(1, address), V4, Path(SOURCE[V4]), NOW)
    assert others(paths) == [narrow]


def test_a_unicast_address_is_taken_from_where_it_is_named_and_from_nowhere_else() -> None:
    paths = opened()
    told(paths, SOURCE[V6], channel=V4)
    assert others(paths) == []
    told(paths, pack_ipv6("2001:db8::8", 4000), channel=V6)
    assert others(paths) == []
    told(paths, SOURCE[V6], channel=V6)
    assert others(paths) == [SOURCE[V6]]


def test_the_newest_list_counts() -> None:
    more = [pack_ipv6(f"ff1e::8000:{n}", 1024) for n in range(4)]
    paths = opened()
    told(paths, more[0], more[1], sequence=7)
    told(paths, more[2], sequence=6)
    assert others(paths) == more[:2]
    told(paths, more[3], sequence=7)
    assert others(paths) == [more[0], more[1], more[3]]
    told(paths, more[2], more[1], sequence=8)
    assert others(paths) == [more[2], more[1]]
    told(paths, SOURCE_SEEN, sequence=9)
    assert others(paths) == []


def test_a_way_that_is_named_again_stays_proved_and_one_in_use_stays_in_use() -> None:
    paths = opened()
    told(paths, THEIRS[V6], sequence=1)
    route = proved(paths)
    told(paths, THEIRS[V6], sequence=2)
    assert route in list(paths)
    assert route.proved
    paths.take(route, NOW)
    told(paths, SOURCE_SEEN, sequence=3)
    assert route in list(paths)


def test_R5_a_peer_may_name_eight_and_no_more() -> None:
    shared = rules()
    paths = opened(shared)
    told(paths, *(pack_ipv6(f"ff1e::8000:{n}", 1024) for n in range(30)))
    assert len(others(paths)) == c.MAX_NAMED_ADDRESSES == 8
    assert shared.counters["addr-refused"] == 22


def test_a_node_names_its_channels_where_there_are_several() -> None:
    shared = rules()
    paths = Paths(shared, shared.target(V4, THEIRS[V4]), initiator=False)
    for n in (1, 2):
        assert paths.announce() == encode_addr(n, OURS[V4]) + encode_addr(n, OURS[V6])
    alone = rules((V4,))
    paths = Paths(alone, alone.target(V4, THEIRS[V4]), initiator=False)
    assert paths.announce() == b""


# --- asking ------------------------------------------------------------------------------------------


def test_three_tries_and_then_rest() -> None:
    paths = opened()
    told(paths, THEIRS[V6])
    paths.search(NOW)
    moments, data = [], []
    while paths.next_at < NOW + 100:
        now = paths.next_at
        if found := asked(paths, now):
            moments.append(now - NOW)
            data += found
    assert moments == pytest.approx([0.0, 0.25, 0.75])
    assert len(set(data)) == 3, "each asks anew"
    assert paths.next_at == float("inf")
    for each in data:
        assert paths.receive_untrusted(PathResponse(each), V6, HEARD[V6], NOW + 2.1) is None, "too late"
    paths.search(NOW + 3)
    assert len(asked(paths, NOW + 3)) == 1


def test_an_answer_to_any_of_the_tries_proves_the_way_and_ends_them() -> None:
    paths = opened()
    told(paths, THEIRS[V6])
    paths.search(NOW)
    first = asked(paths)
    assert asked(paths, NOW + 0.3)
    route = paths.receive_untrusted(PathResponse(first[0]), V6, HEARD[V6], NOW + 0.35)
    assert route is not None
    assert route.proved
    assert (route.rtt, route.interface) == (pytest.approx(0.35), HEARD[V6].interface)
    assert paths.next_at == float("inf")
    assert paths.receive_untrusted(PathResponse(first[0]), V6, HEARD[V6], NOW + 0.4) is None, "only once"


@pytest.mark.parametrize(
    "change", [lambda d: bytes(8), lambda d: d[:7] + bytes([d[7] ^ 1]), lambda d: d[::-1]]
)
def test_R5_an_answer_that_is_not_to_the_byte_the_challenge_proves_nothing(change) -> None:  # type: ignore[no-untyped-def]  # functions of a table
    paths = opened()
    told(paths, THEIRS[V6])
    paths.search(NOW)
    (data,) = asked(paths)
    assert paths.receive_untrusted(PathResponse(change(data)), V6, HEARD[V6], NOW) is None
    assert paths.receive_untrusted(PathResponse(data), V6, HEARD[V6], NOW) is not None


def test_one_sessions_challenge_is_no_answer_to_anothers() -> None:
    shared = rules()
    one, other = opened(shared), opened(shared)
    for paths in (one, other):
        told(paths, THEIRS[V6])
        paths.search(NOW)
    (data,) = asked(one)
    asked(other)
    assert other.receive_untrusted(PathResponse(data), V6, HEARD[V6], NOW) is None


@pytest.mark.parametrize("size", [0, 22, 23, 46, 68, 200])
def test_R5_no_more_than_three_times_what_was_authenticated_since_it_was_named(size: int) -> None:
    """A challenge with its ADDR is 68 bytes."""
    shared = rules()
    paths = opened(shared)
    paths.heard = 1_000_000
    told(paths, THEIRS[V6], size=size)
    paths.search(NOW)
    sent = 0
    for n in range(40):
        for packet in paths.packets(NOW + n / 4):
            sent += len(packet.frames) + c.DATA_MIN_SIZE
        paths.search(NOW + n / 4)
    assert sent == 3 * size // 68 * 68
    assert bool(shared.counters["path-withheld"]) == (sent < 39 * 68)


def test_R5_naming_it_again_does_not_count_the_same_bytes_twice() -> None:
    paths = opened()
    told(paths, THEIRS[V6], size=70)
    sent = 0
    for n in range(40):
        paths.search(NOW + n / 4)
        sent += sum(len(packet.frames) + c.DATA_MIN_SIZE for packet in paths.packets(NOW + n / 4))
        if n % 10 == 9:
            told(paths, SOURCE_SEEN, sequence=2 + n, size=0)
            told(paths, SOURCE_SEEN, sequence=3 + n, size=0)
            told(paths, THEIRS[V6], sequence=4 + n, size=0)
    assert 0 < sent <= 210


def test_R5_ten_packets_a_second_to_an_address_however_many_sessions_name_it() -> None:
    shared = rules()
    sessions = [opened(shared) for _ in range(50)]
    for paths in sessions:
        told(paths, THEIRS[V6])
    sent = 0
    for n in range(100):
        for paths in sessions:
            paths.search(NOW + n / 100)
            sent += len(paths.packets(NOW + n / 100))
    assert 5 <= sent <= 10
    assert shared.counters["path-withheld"] > 50


def test_a_way_of_the_applications_is_asked_without_limit_and_one_that_is_proved() -> None:
    shared = rules()
    paths = Paths(shared, shared.target(V4, THEIRS[V4]), [shared.target(V6, THEIRS[V6])], initiator=True)
    paths.opened(NOW)
    assert others(paths) == [THEIRS[V6]]
    assert paths.next_at == NOW + c.PATH_SETTLE
    assert len(paths.packets(NOW + 1)) == 1
    named = opened()
    told(named, THEIRS[V6])
    proved(named)
    for n in range(100):
        named.receive_untrusted(PathChallenge(b"c" * 8), V6, HEARD[V6], NOW)
        assert len(named.packets(NOW + n / 1000)) == 1


# --- being asked -------------------------------------------------------------------------------------


def test_an_answer_leaves_where_the_question_came_with_one_of_our_own() -> None:
    paths = opened()
    for frame in (Addr(1, THEIRS[V6]), PathChallenge(b"12345678")):
        paths.receive_untrusted(frame, V6, HEARD[V6], NOW)
    paths.heard += 100
    (packet,) = paths.packets(NOW)
    assert packet[:2] == (V6, Path(THEIRS[V6], None, HEARD[V6].interface))
    answer, own, challenge = parse_frames_untrusted(packet.frames)
    assert answer == PathResponse(b"12345678")
    assert own == Addr(1, OURS[V6])
    assert isinstance(challenge, PathChallenge)
    paths.receive_untrusted(PathResponse(challenge.data), V6, HEARD[V6], NOW)
    paths.receive_untrusted(PathChallenge(b"again..."), V6, HEARD[V6], NOW)
    (packet,) = paths.packets(NOW)
    assert packet.frames == encode_path_response(b"again..."), "it is proved, so nothing is asked"


def test_a_question_over_a_channel_where_no_way_is_known_is_answered_on_the_present_path() -> None:
    paths = opened()
    paths.receive_untrusted(PathChallenge(b"12345678"), V6, HEARD[V6], NOW)
    (packet,) = paths.packets(NOW)
    assert packet == (V4, Path(THEIRS[V4]), encode_path_response(b"12345678"))


def test_a_packet_full_of_questions_gets_one_answer() -> None:
    paths = opened()
    for n in range(100):
        paths.receive_untrusted(PathChallenge(b"%8d" % n), V4, HEARD[V4], NOW)
    (packet,) = paths.packets(NOW)
    assert packet.frames == encode_path_response(b"      99")


# --- taking ------------------------------------------------------------------------------------------


def test_what_has_answered_lately_is_alive() -> None:
    paths = opened()
    told(paths, THEIRS[V6])
    assert paths.alive(NOW) is None
    route = proved(paths)
    assert paths.alive(NOW + c.PATH_FRESH) is route
    assert paths.alive(NOW + c.PATH_FRESH + 0.1) is None
    paths.take(route, NOW)
    assert paths.alive(NOW) is None, "it is the one in use"


@pytest.mark.parametrize("initiator", [False, True])
def test_a_peer_that_sends_over_another_channel_is_asked_and_then_followed(initiator: bool) -> None:
    paths = opened(initiator=initiator)
    told(paths, THEIRS[V6])
    assert paths.follow_untrusted(V6, HEARD[V6], NOW) is None
    (data,) = asked(paths)
    route = paths.receive_untrusted(PathResponse(data), V6, HEARD[V6], NOW)
    assert route is not None
    assert route is paths.wanted
    paths.take(route, NOW)
    back = NOW + 0.5
    old = paths.follow_untrusted(V4, HEARD[V4], back)
    assert old is None
    assert bool(asked(paths, back)) is not initiator, "who called waits a second"
    assert paths.follow_untrusted(V4, HEARD[V4], NOW + c.FOLLOW_PAUSE) is None
    assert asked(paths, NOW + c.FOLLOW_PAUSE)


def test_a_peer_is_followed_at_once_where_it_has_just_answered_and_not_where_it_is_not_known() -> None:
    paths = opened()
    assert paths.follow_untrusted(V6, HEARD[V6], NOW) is None
    assert paths.packets(NOW) == []
    told(paths, THEIRS[V6])
    route = proved(paths)
    assert paths.follow_untrusted(V6, HEARD[V6], NOW + 1) is route
    assert paths.follow_untrusted(V6, HEARD[V6], NOW + c.PATH_FRESH + 1) is None


def test_a_wish_ends_with_its_three_tries() -> None:
    paths = opened()
    told(paths, THEIRS[V6])
    paths.follow_untrusted(V6, HEARD[V6], NOW)
    while paths.next_at < float("inf"):
        paths.packets(paths.next_at)
    assert paths.wanted is None


def test_a_peer_answered_at_its_source_is_followed_to_another_once_that_answers() -> None:
    paths = opened(by_source=True)
    moved = [HEARD[V4]._replace(remote=pack_ipv4(f"192.0.2.{n}", 5000)) for n in (8, 9)]
    for path in moved:
        assert paths.follow_untrusted(V4, path, NOW) is None
        paths.heard += 60
    assert others(paths) == [moved[1].remote], "one is kept"
    (packet,) = paths.packets(NOW)
    assert packet.path.remote == moved[1].remote
    (challenge,) = parse_frames_untrusted(packet.frames)
    assert isinstance(challenge, PathChallenge)
    route = paths.receive_untrusted(PathResponse(challenge.data), V4, moved[1], NOW)
    assert route is paths.wanted
    assert route is not None


def test_R5_the_source_of_a_packet_means_nothing_to_a_peer_that_named_its_address() -> None:
    paths = opened()
    assert paths.follow_untrusted(V4, HEARD[V4]._replace(remote=pack_ipv4("192.0.2.99", 1)), NOW) is None
    assert others(paths) == []


def test_R6_where_a_responder_would_rather_have_data_is_asked_at_once() -> None:
    shared = rules()
    paths = Paths(shared, shared.target(V4, THEIRS[V4]), initiator=True)
    heard = HEARD[V4]._replace(local=THEIRS[V4])
    paths.prefer_untrusted(pack_ipv4("203.0.113.9", 53), V4, heard)
    assert others(paths) == []
    elsewhere = derive_group_v4(b"second", Reach.GLOBAL, 1024)
    paths.prefer_untrusted(elsewhere, V4, heard)
    assert others(paths) == [elsewhere]
    assert paths.next_at == float("inf"), "not before the peer has been heard"
    paths.opened(NOW)
    paths.heard = 100
    (packet,) = paths.packets(NOW)
    assert packet.path.remote == elsewhere
    (challenge,) = parse_frames_untrusted(packet.frames)
    assert isinstance(challenge, PathChallenge)
    assert paths.receive_untrusted(PathResponse(challenge.data), V4, HEARD[V4], NOW) is paths.wanted


def test_a_handshake_proves_where_it_led_and_looks_only_where_nobody_can_mean_a_victim() -> None:
    shared = rules()
    paths = opened(shared)
    told(paths, THEIRS[V6])
    assert [target.address for target in paths.targets()] == [THEIRS[V4]]
    paths.take_proved(V6, THEIRS[V6], NOW)
    assert paths.current.target.channel == V6
    assert [target.address for target in paths.targets()] == [THEIRS[V4], THEIRS[V6]]
    assert shared.counters["paths-changed"] == 1
