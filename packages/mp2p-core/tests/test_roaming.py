"""Changing the path, against a puppet: what a hostile peer can have sent where (protocol sections 5 and 6; R5, R6)."""

from __future__ import annotations

import gc

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.addresses import derive_group_v4, derive_group_v6, pack_ipv4, pack_ipv6
from mp2p_core.proto.frames import (
    Addr,
    Frame,
    PathChallenge,
    PathResponse,
    encode_addr,
    encode_msg,
    encode_path_challenge,
    encode_path_response,
    parse_frames_untrusted,
)
from mp2p_core.proto.routes import Route
from mp2p_core.testing.puppet import Bench, Puppet
from mp2p_core.testing.simulation import Datagram
from mp2p_core.transport import Address, Reach

VICTIM = pack_ipv6("ff1e::8000:666", 2000)
VICTIM_V4 = pack_ipv4("224.0.230.200", 2000)
SOURCE_V6 = pack_ipv6("2001:db8::7", 4000)
ABOUT_PATHS = (Addr, PathChallenge, PathResponse)


def bench_of_two() -> Bench:
    bench = Bench()
    bench.add_channel(1, derive_group_v6(bench.key.raw, Reach.GLOBAL, c.DEFAULT_PORT))
    return bench


def home(puppet: Puppet) -> Address:
    return derive_group_v4(puppet.key.raw, Reach.GLOBAL, c.DEFAULT_PORT)


def called(return_address: Address | None = None) -> tuple[Bench, Puppet]:
    """Return a bench with two channels that the puppet has connected to over the first."""
    bench = bench_of_two()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(
        puppet.init(return_address=home(puppet) if return_address is None else return_address)
    )
    puppet.read_resp(resp.data)
    bench.feed(puppet.seal(b"\x01"))
    return bench, puppet


def to(address: Address, out: list[Datagram]) -> list[Datagram]:
    return [datagram for datagram in out if datagram.destination == address]


def frames(puppet: Puppet, out: list[Datagram]) -> list[Frame]:
    return [frame for each in out for frame in parse_frames_untrusted(puppet.open(each.data))]


def challenges(puppet: Puppet, out: list[Datagram]) -> list[bytes]:
    return [frame.data for frame in frames(puppet, out) if isinstance(frame, PathChallenge)]


def say(bench: Bench, text: bytes) -> list[Datagram]:
    """Send a message of the application."""
    connection = bench.endpoint.connections()[0]
    connection.send_message(text)
    bench.endpoint.flush(connection)
    return bench.collect()


@pytest.mark.parametrize("chatter", [0, 1, 50])
def test_R5_an_addr_frame_that_names_a_victim(chatter: int) -> None:
    """It falls silent while the application sends on: challenges go there, and no byte of data."""
    bench, puppet = called()
    out: list[Datagram] = []
    authenticated = 0
    for plaintext in (encode_addr(1, VICTIM), *[encode_msg(b"x" * 20)] * chatter):
        packet = puppet.seal(plaintext)
        authenticated += len(packet)
        out += bench.feed(packet)
    for n in range(20):
        out += say(bench, b"%d" % n * 200)
        out += bench.advance(1.0)
    sent = to(VICTIM, out)
    assert sent, "it is asked"
    assert sum(len(each.data) for each in sent) <= 3 * authenticated
    assert all(isinstance(frame, ABOUT_PATHS) for frame in frames(puppet, sent))
    assert {each.destination for each in out} == {home(puppet), VICTIM}


def test_R5_questions_from_a_spoofed_source_or_over_another_channel_are_answered_within_the_rule() -> None:
    bench, puppet = called()
    out: list[Datagram] = []
    authenticated = 0
    for n in range(400):
        packet = puppet.seal(encode_addr(1, VICTIM) + encode_path_challenge(b"%8d" % n))
        authenticated += len(packet)
        out += bench.feed(packet, channel=1, source=SOURCE_V6)
        out += bench.advance(0.005)
    sent = to(VICTIM, out)
    assert sum(len(each.data) for each in sent) <= 3 * authenticated
    assert len(sent) <= 2 * c.CHALLENGE_RATE_ADDRESS + c.CHALLENGE_RATE_ADDRESS, "2 s, and a bucket"
    assert bench.endpoint.counters["path-withheld"] > 300
    assert {each.destination for each in out} <= {home(puppet), VICTIM}


def test_R5_data_over_another_channel_moves_nothing_until_the_address_has_answered() -> None:
    bench, puppet = called()
    bench.feed(puppet.seal(encode_addr(1, VICTIM)))
    out = bench.feed(puppet.seal(encode_msg(b"here now")), channel=1, source=SOURCE_V6)
    (data, *_) = challenges(puppet, to(VICTIM, out))
    assert say(bench, b"one")[0].destination == home(puppet)
    bench.feed(puppet.seal(encode_path_response(data[::-1])), channel=1, source=SOURCE_V6)
    assert say(bench, b"two")[0].destination == home(puppet)
    bench.feed(puppet.seal(encode_path_response(data)), channel=1, source=SOURCE_V6, interface=4)
    (moved,) = say(bench, b"three")
    assert (moved.source, moved.destination) == (bench.groups[1], VICTIM), "it proved that it is its own"
    session = bench.endpoint.connections()[0].session
    assert (session.roaming.channel, session.roaming.path.interface) == (1, 4)
    assert bench.endpoint.counters["paths-changed"] == 1


def test_R5_an_answer_from_before_a_restart_of_the_search_or_from_nobody_asked_moves_nothing() -> None:
    bench, puppet = called()
    for n in range(20):
        bench.feed(puppet.seal(encode_path_response(b"%8d" % n)), channel=n % 2, source=SOURCE_V6)
    assert bench.endpoint.counters["path-answered"] == 0
    assert say(bench, b"still")[0].destination == home(puppet)


def test_packets_only_about_paths_do_not_lead_the_session_away() -> None:
    bench, puppet = called()
    bench.feed(puppet.seal(encode_addr(1, VICTIM)))
    out = bench.feed(puppet.seal(encode_path_challenge(b"a" * 8)), channel=1, source=SOURCE_V6)
    (data,) = challenges(puppet, to(VICTIM, out))
    bench.feed(puppet.seal(encode_path_response(data)), channel=1, source=SOURCE_V6)
    assert bench.endpoint.counters["path-answered"] == 1
    assert say(bench, b"where")[0].destination == home(puppet)


def test_an_old_packet_over_another_channel_does_not_lead_it_away_either() -> None:
    bench, puppet = called()
    early = puppet.seal(encode_msg(b"early"))
    bench.feed(puppet.seal(encode_addr(1, VICTIM)))
    assert to(VICTIM, bench.feed(early, channel=1, source=SOURCE_V6)) == []


def test_the_interface_of_a_packet_counts_for_the_channel_that_it_came_over() -> None:
    bench, puppet = called()
    session = bench.endpoint.connections()[0].session
    bench.feed(puppet.seal(b"\x01"), interface=7)
    bench.feed(puppet.seal(b"\x01"), channel=1, source=SOURCE_V6, interface=9)
    assert (session.roaming.channel, session.roaming.path.interface) == (0, 7)


def test_R6_a_responder_that_would_rather_have_data_elsewhere_gets_it_there_once_that_answers() -> None:
    bench = bench_of_two()
    puppet = Puppet(bench.key)
    bench.feed(puppet.resp(bench.dial(puppet.key), address=VICTIM_V4))
    out = bench.feed(puppet.seal(b"\x01"))
    assert {each.destination for each in out} == {home(puppet), VICTIM_V4}
    (data,) = challenges(puppet, to(VICTIM_V4, out))
    assert say(bench, b"before")[0].destination == home(puppet)
    bench.feed(puppet.seal(encode_path_response(data)))
    assert say(bench, b"after")[0].destination == VICTIM_V4


def test_R6_a_responder_that_names_a_victim_has_three_packets_sent_there() -> None:
    bench = bench_of_two()
    puppet = Puppet(bench.key)
    bench.feed(puppet.resp(bench.dial(puppet.key), address=VICTIM_V4))
    packet = puppet.seal(b"\x01")
    out = bench.feed(packet)
    for n in range(10):
        out += say(bench, b"%d" % n * 500)
        out += bench.advance(0.3)
        packet += puppet.seal(encode_msg(b"go on"))
        out += bench.feed(packet[-42:])
    sent = to(VICTIM_V4, out)
    assert 1 <= len(sent) <= 3
    assert sum(len(each.data) for each in sent) <= 3 * len(packet)
    assert all(isinstance(frame, ABOUT_PATHS) for frame in frames(puppet, sent))


# --- a peer that asked to be answered at its source -----------------------------------------------------

MOVED = pack_ipv4("192.0.2.7", 41111)
"""What a NAT makes of the puppet's source after a while."""


def test_a_peer_behind_a_nat_is_followed_to_its_new_source() -> None:
    bench, puppet = called(bytes(20))
    assert say(bench, b"one")[0].destination == Puppet.SOURCE
    out = bench.feed(puppet.seal(encode_msg(b"moved")), source=MOVED)
    (data,) = challenges(puppet, to(MOVED, out))
    assert say(bench, b"two")[0].destination == Puppet.SOURCE
    bench.feed(puppet.seal(encode_path_response(data)), source=MOVED)
    assert say(bench, b"three")[0].destination == MOVED


def test_R5_genuine_packets_relayed_from_spoofed_sources_send_next_to_nothing_there() -> None:
    """Whoever relays them faster than they come; the peer itself answers no challenge that does not reach it."""
    bench, puppet = called(bytes(20))
    out: list[Datagram] = []
    relayed = 0
    for n in range(300):
        packet = puppet.seal(encode_msg(b"genuine"))
        relayed += len(packet)
        out += bench.feed(packet, source=pack_ipv4(f"198.51.100.{n % 3}", 4000 + n // 100))
        out += say(bench, b"answer")
        out += bench.advance(0.01)
    elsewhere = [each for each in out if each.destination != Puppet.SOURCE]
    assert elsewhere
    assert sum(len(each.data) for each in elsewhere) <= 3 * relayed
    assert all(isinstance(frame, PathChallenge) for frame in frames(puppet, elsewhere))
    assert bench.endpoint.counters["paths-changed"] == 0


def test_R5_the_source_means_nothing_for_a_peer_that_named_a_group() -> None:
    bench, puppet = called()
    out: list[Datagram] = []
    for n in range(20):
        out += bench.feed(puppet.seal(encode_msg(b"m")), source=pack_ipv4(f"198.51.100.{n}", 4000))
        out += say(bench, b"answer")
    assert {each.destination for each in out} == {home(puppet)}


# --- telling the peer where we are ----------------------------------------------------------------------


def test_the_channels_are_named_until_the_peer_has_heard_it() -> None:
    bench = bench_of_two()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init(return_address=home(puppet)))
    puppet.read_resp(resp.data)
    named = [Addr(1, group) for group in bench.groups.values()]
    lost = bench.feed(puppet.seal(b"\x01"))
    assert [frame for frame in frames(puppet, lost) if isinstance(frame, Addr)] == named
    for n in range(4):
        say(bench, b"%d" % n)
    told = bench.feed(puppet.seal(bytes.fromhex("02 0000000000000004 0000 00 0001")))
    assert [frame for frame in frames(puppet, told) if isinstance(frame, Addr)] == named


def test_a_node_with_one_channel_has_nothing_to_name() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init(return_address=home(puppet)))
    puppet.read_resp(resp.data)
    out = bench.feed(puppet.seal(b"\x01")) + bench.advance(5.0)
    assert not any(isinstance(frame, ABOUT_PATHS) for frame in frames(puppet, out))


def test_questions_that_cannot_be_answered_any_more_are_not_kept_for_ways_that_are_gone() -> None:
    """Under keys too old to answer with, a peer that talks on names ever other ways, and asks on each."""
    bench, puppet = called()
    session = bench.endpoint.connections()[0].session
    while bench.now < session.epoch.began + c.EPOCH_LIFE:
        bench.advance(9.0)
        bench.feed(puppet.seal(b"\x01"))
    for n in range(100):
        address = pack_ipv6(f"ff1e::8000:{n + 1:x}", 1024)
        asks = encode_addr(n + 1, address) + encode_path_challenge(b"12345678")
        assert bench.feed(puppet.seal(asks), source=SOURCE_V6, channel=1) == []
    gc.collect()
    assert sum(isinstance(each, Route) for each in gc.get_objects()) < 50
