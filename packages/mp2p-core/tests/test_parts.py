"""Large packets: one seal, many datagrams (protocol section 7; rows P1, P4, P8, P9, F6, Y1)."""

from __future__ import annotations

import itertools
import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto import parts as p
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.epoch import Epoch, SessionKeys
from mp2p_core.proto.events import Accepted, MessageReceived
from mp2p_core.proto.frames import encode_ack, encode_msg
from mp2p_core.proto.noise_suite import nonce_little_endian
from mp2p_core.proto.parts import (
    Reassembly,
    cut,
    parse_part_untrusted,
    part_header,
    part_room,
    split_untrusted,
)
from mp2p_core.testing.puppet import Bench, Puppet
from mp2p_core.transport import Path, Train

ID = b"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7"
OTHER = b"otherid!"
D = 1452


def datagrams(sealed: bytes, number: int = 7, datagram: int = D, receive_id: bytes = ID) -> list[bytes]:
    """The datagrams that a sealed packet travels in."""
    whole = cut(sealed, receive_id, number, datagram)
    return [whole[at : at + datagram] for at in range(0, len(whole), datagram)]


def add(table: Reassembly, datagram: bytes) -> bytes | None:
    return table.add_untrusted(parse_part_untrusted(datagram), datagram[p.PART_HEADER_SIZE :])


# --- layout ------------------------------------------------------------------------------------------


def test_the_header_is_that_of_the_protocol_to_the_byte() -> None:
    assert part_header(ID, 0x1122, 5, 3) == bytes.fromhex("16 03 05 00 a0a1a2a3a4a5a6a7 0000000000001122")
    assert part_header(ID, 0x1122, 5)[1] == 0, "with index zero it is the associated data"
    assert parse_part_untrusted(part_header(ID, 0x1122, 5, 3) + b"x") == (3, 5, ID, 0x1122)


@pytest.mark.parametrize("size", [2 * D, 5 * D + 17, 44 * (D - 20), 44 * (D - 20) - 1, D])
def test_every_part_but_the_last_has_the_same_length(size: int) -> None:
    sealed = random.Random(size).randbytes(size)
    made = datagrams(sealed)
    assert {len(each) for each in made[:-1]} == {D}
    assert 20 < len(made[-1]) <= D
    assert b"".join(each[20:] for each in made) == sealed
    assert [parse_part_untrusted(each) for each in made] == [(n, len(made), ID, 7) for n in range(len(made))]


def test_a_full_packet_has_room_for_what_it_says() -> None:
    for count in (2, 3, 44):
        room = part_room(D, count)
        assert len(datagrams(bytes(room + 16))) == count
        assert len(datagrams(bytes(room + 17))) == count + 1


@pytest.mark.parametrize(
    "datagram",
    [
        part_header(ID, 1, 2),
        part_header(ID, 1, 2)[:19],
        b"\x16",
        part_header(ID, 1, 1) + b"x",
        part_header(ID, 1, 0) + b"x",
        part_header(ID, 1, 65) + b"x",
        part_header(ID, 1, 2, 2) + b"x",
        part_header(ID, 1, 2, 255) + b"x",
        part_header(ID, 1, 2)[:3] + b"\1" + part_header(ID, 1, 2)[4:] + b"x",
    ],
)
def test_P4_a_malformed_part_is_refused(datagram: bytes) -> None:
    with pytest.raises(BadPacket, match="part-malformed"):
        parse_part_untrusted(datagram)


# --- a train in one piece ----------------------------------------------------------------------------


def test_a_packet_that_came_in_one_piece_is_found_whole() -> None:
    sealed = random.Random(1).randbytes(6000)
    assert list(split_untrusted(b"".join(datagrams(sealed)), D)) == [((0, 5, ID, 7), sealed)]


def test_packets_that_came_in_one_piece_are_found_one_after_the_other() -> None:
    one, other = bytes(3 * (D - 20)), b"\1" * 5000
    train = b"".join(datagrams(one, 7) + datagrams(other, 8))
    assert list(split_untrusted(train, D)) == [((0, 3, ID, 7), one), ((0, 4, ID, 8), other)]


@pytest.mark.parametrize("missing", [0, 1, 3, 4])
def test_a_packet_that_misses_a_part_is_taken_apart(missing: int) -> None:
    made = datagrams(random.Random(1).randbytes(6000))
    del made[missing]
    assert list(split_untrusted(b"".join(made), D)) == [(None, each) for each in made]


def test_parts_out_of_order_or_of_several_packets_are_taken_apart() -> None:
    one, other = datagrams(bytes(4000), 7), datagrams(b"\1" * 4000, 8)
    for made in (
        [one[0], one[2][:], one[1]],
        [one[0], other[1], one[2]],
        [one[0], one[1], other[2]],
        [other[0], other[0], other[1], other[2]],
    ):
        shorter = [each for each in made if len(each) < D]
        train = b"".join([each for each in made if len(each) == D] + shorter)
        found = list(split_untrusted(train, D))
        assert b"".join(body for _, body in found if body) != b""
        for header, body in found:
            if header is not None:
                # Only the ends are looked at: what is in between, the seal decides.
                assert header in ((0, 3, ID, 7), (0, 3, ID, 8))
                assert len(body) == 4000


def test_a_packet_whose_last_part_is_another_ones_is_taken_apart() -> None:
    one, other = datagrams(bytes(4000), 7), datagrams(bytes(4000), 8)
    made = [*one[:-1], other[-1]]
    assert list(split_untrusted(b"".join(made), D)) == [(None, each) for each in made]


def test_other_datagrams_in_the_same_train_are_handed_on_as_they_are() -> None:
    made = datagrams(bytes(2 * (D - 20)), 7)
    train = b"\x14" + bytes(D - 1) + b"".join(made) + b"\x14\xff"
    assert list(split_untrusted(train, D)) == [
        (None, b"\x14" + bytes(D - 1)),
        ((0, 2, ID, 7), bytes(2 * (D - 20))),
        (None, b"\x14\xff"),
    ]


@pytest.mark.parametrize(
    "made",
    [
        [each[:3] + b"\1" + each[4:] for each in datagrams(bytes(4000))],
        [part_header(ID, 7, 65, n) + bytes(D - 20) for n in range(65)],
        [part_header(ID, 7, 1) + bytes(D - 20)],
        [part_header(ID, 7, 2), part_header(ID, 7, 2, 1)],
        [part_header(ID, 7, 2) + bytes(D - 20), part_header(ID, 7, 2, 1)],
    ],
    ids=["reserved byte", "too many", "one", "two headers", "last header alone"],
)
def test_P4_trains_of_malformed_parts_are_taken_apart(made: list[bytes]) -> None:
    assert list(split_untrusted(b"".join(made), len(made[0]))) == [(None, each) for each in made]


@given(st.binary(max_size=400), st.integers(1, 60), st.lists(st.integers(0, 400), max_size=20))
def test_P9_any_train_is_split_without_losing_a_byte(noise: bytes, size: int, at: list[int]) -> None:
    train = bytearray(noise)
    for position in at:
        head = part_header(ID, 1, 2 + position % 3, position % 2)
        train[position : position + len(head)] = head
    found = list(split_untrusted(bytes(train), size))
    taken = sum(len(body) if header is None else len(body) + 20 * header[1] for header, body in found)
    assert taken == len(train)


# --- putting together --------------------------------------------------------------------------------


def test_parts_make_the_packet_in_any_order() -> None:
    sealed = random.Random(2).randbytes(4000)
    made = datagrams(sealed)
    for order in itertools.permutations(made):
        table = Reassembly()
        assert [add(table, each) for each in order] == [None, None, sealed]
        assert len(table) == table.cost == 0


def test_Y1_a_part_that_comes_again_changes_nothing() -> None:
    sealed = random.Random(2).randbytes(4000)
    made = datagrams(sealed)
    table = Reassembly()
    add(table, made[0])
    cost = table.cost
    for _ in range(9):
        assert add(table, made[0]) is None
    assert table.cost == cost
    assert [add(table, each) for each in made[1:]] == [None, sealed]


def test_packets_are_put_together_side_by_side() -> None:
    table = Reassembly()
    sealed = {n: random.Random(n).randbytes(3000 + n) for n in range(20)}
    pieces = [each for n in sealed for each in datagrams(sealed[n], n)]
    random.Random(3).shuffle(pieces)
    whole = [found for each in pieces if (found := add(table, each)) is not None]
    assert sorted(whole) == sorted(sealed.values())
    assert len(table) == 0


def test_one_session_does_not_reach_into_another() -> None:
    sealed, table = random.Random(2).randbytes(4000), Reassembly()
    mine, theirs = datagrams(sealed), datagrams(b"!" * 4000, receive_id=OTHER)
    for each in (*theirs[:2], *mine[:2]):
        assert add(table, each) is None
    assert add(table, mine[2]) == sealed


def test_a_contradiction_costs_the_older_one() -> None:
    table = Reassembly()
    sealed = random.Random(2).randbytes(4000)
    made = datagrams(sealed)
    add(table, made[0])
    add(table, part_header(ID, 7, 9, 4) + b"forged")
    assert [add(table, each) for each in made] == [None, None, sealed]


def test_a_forged_part_spoils_its_own_packet_and_no_other() -> None:
    table = Reassembly()
    sealed = {n: random.Random(n).randbytes(3000) for n in range(3)}
    made = {n: datagrams(sealed[n], n) for n in sealed}
    add(table, part_header(ID, 1, 3, 1) + b"forged")
    for n, packet in sealed.items():
        whole = [add(table, each) for each in made[n]][-1]
        assert (whole == packet) == (n != 1)


def test_F6_a_session_holds_64_packets_and_the_oldest_goes() -> None:
    table = Reassembly()
    for number in range(5000):
        add(table, part_header(ID, number, 64, 1) + b"x" * 1400)
    assert len(table) == 64
    # The newest are there still.
    for index in (0, *range(2, 63)):
        assert add(table, part_header(ID, 4999, 64, index) + b"y") is None
    assert add(table, part_header(ID, 4999, 64, 63) + b"y") is not None
    assert len(table) == 63


def test_F6_bytes_are_bounded_for_each_session_and_for_all() -> None:
    table = Reassembly()
    for number in range(300):
        add(table, part_header(ID, number, 2, 1) + bytes(65487))
        add(table, part_header(ID, number, 3, 1) + bytes(65487))
        add(table, part_header(ID, number, 3, 2) + bytes(65487))
    assert table.cost <= 5 << 20
    piece = bytes(65487)
    for session in range(40):
        for number in range(64):
            add(table, part_header(session.to_bytes(8, "big"), number, 2, 1) + piece)
    assert 60 << 20 < table.cost <= 64 << 20


def test_F6_many_small_parts_count_for_more_than_their_bytes() -> None:
    table = Reassembly()
    for number in range(64):
        for index in range(63):
            add(table, part_header(ID, number, 64, index) + b"x")
    assert table.cost == 64 * 63 * 129


def test_F6_a_flood_at_some_sessions_leaves_the_packet_of_another_alone() -> None:
    table = Reassembly()
    sealed = random.Random(2).randbytes(4000)
    made = datagrams(sealed)
    piece = bytes(65487)

    def flood(first: int) -> None:
        for n in range(first, first + 500):
            add(table, part_header((n % 40).to_bytes(8, "big"), n, 2, 1) + piece)

    flood(0)
    flood(500)
    flood(1000)
    add(table, made[0])
    flood(1500)
    add(table, made[1])
    assert add(table, made[2]) == sealed


def test_forgetting_a_session_gives_everything_back() -> None:
    table = Reassembly()
    for number in range(10):
        add(table, part_header(ID, number, 4, 1) + b"x" * 100)
        add(table, part_header(OTHER, number, 4, 1) + b"x" * 100)
    table.drop(ID, 3)
    table.drop(ID, 3)
    table.drop(b"nobody's", 3)
    assert len(table) == 19
    table.forget(ID)
    table.forget(ID)
    assert len(table) == 10
    table.forget(OTHER)
    assert len(table) == table.cost == 0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(2, 5), st.integers(0, 4), st.integers(1, 5), st.integers(0, 9)
        )
    )
)
def test_P9_the_table_accounts_for_what_it_holds(steps: list[tuple[int, int, int, int, int]]) -> None:
    table = Reassembly()
    for number, count, index, size, what in steps:
        if what == 0:
            table.forget(ID)
        elif what == 1:
            table.drop(OTHER, number)
        else:
            receive_id = (ID, OTHER)[what % 2]
            if index < count:
                table.add_untrusted((index, count, receive_id, number), b"x" * size)
        places = {
            (name, n): packet for name, held in table._by_id.items() for n, packet in held.packets.items()
        }
        assert table._ages.keys() == places.keys()
        assert all(len(packet.parts) < packet.count for packet in places.values())
        for held in table._by_id.values():
            assert held.packets, "no empty places are left behind"
            assert held.cost == sum(
                len(body) + 128 for packet in held.packets.values() for body in packet.parts.values()
            )
        assert table.cost == sum(held.cost for held in table._by_id.values())


# --- in a session ------------------------------------------------------------------------------------


def accepted(*, large: bool = True) -> tuple[Bench, Puppet, Connection]:
    bench = Bench()
    puppet = Puppet(bench.key, capabilities=int(large))
    puppet.connect(bench)
    (event,) = bench.events
    assert isinstance(event, Accepted)
    bench.events.clear()
    return bench, puppet, event.connection


def large_packet(puppet: Puppet, plaintext: bytes, number: int | None = None) -> list[bytes]:
    """Seal a large packet by hand."""
    if number is None:
        number = puppet.number
        puppet.number += 1
    count = -(-(len(plaintext) + 16) // (D - 20))
    header = part_header(puppet.remote_id, number, count)
    assert puppet._send is not None
    sealed = puppet._send.encrypt(nonce_little_endian(number), plaintext, header)
    return datagrams(sealed, number, receive_id=puppet.remote_id)


def feed_train(bench: Bench, train: bytes) -> None:
    bench.endpoint.receive(0, Train(Path(Puppet.SOURCE, bench.group, 1), (train,), D), bench.now)
    bench.collect()


def heard(bench: Bench) -> list[bytes]:
    return [event.data for event in bench.events if isinstance(event, MessageReceived)]


@pytest.mark.parametrize("how", ["in one piece", "one by one", "in disorder", "twice", "half and half"])
def test_a_large_packet_is_opened_once(how: str) -> None:
    bench, puppet, _ = accepted()
    made = large_packet(puppet, encode_msg(b"m" * 1000) * 5)
    if how == "in one piece":
        feed_train(bench, b"".join(made))
    elif how == "half and half":
        feed_train(bench, b"".join(made[:2]))
        feed_train(bench, b"".join(made))
    else:
        for each in reversed(made) if how == "in disorder" else made * 2 if how == "twice" else made:
            bench.feed(each)
    assert heard(bench) == [b"m" * 1000] * 5
    assert bench.endpoint.counters["data-forged"] == 0
    assert bench.endpoint.sizes()["parts"] == 0


def test_Y1_parts_of_a_packet_that_was_opened_are_replays() -> None:
    bench, puppet, _ = accepted()
    made = large_packet(puppet, encode_msg(b"m" * 1000) * 5)
    feed_train(bench, b"".join(made))
    for each in made * 3:
        bench.feed(each)
    feed_train(bench, b"".join(made))
    assert len(heard(bench)) == 5
    assert bench.endpoint.counters["data-replayed"] == 3 * len(made) + 1
    assert bench.endpoint.sizes()["parts"] == 0


@pytest.mark.parametrize("one_by_one", [False, True])
def test_P8_every_byte_of_every_part_counts(one_by_one: bool) -> None:
    """Of content and tag. A changed header may go unnoticed as long as what is delivered is genuine."""
    bench, puppet, connection = accepted()
    for header in (True, False):
        made = large_packet(puppet, encode_msg(b"m" * 1000) * 2)
        train = b"".join(made)
        for at in range(len(train)):
            in_header = at % D < 20
            if in_header is not header or (at % 7 and not in_header) or at % D in range(4, 12):
                continue  # the id finds another session, or none
            edited = train[:at] + bytes([train[at] ^ 1]) + train[at + 1 :]
            if one_by_one:
                for start in range(0, len(edited), D):
                    bench.feed(edited[start : start + D])
            else:
                feed_train(bench, edited)
            assert header or heard(bench) == []
        feed_train(bench, train)
        assert heard(bench) == [b"m" * 1000] * 2
        bench.events.clear()
    assert connection.closed is None


def test_a_forged_part_costs_one_packet_and_the_next_arrives() -> None:
    bench, puppet, _ = accepted()
    one, other = (large_packet(puppet, encode_msg(bytes([n]) * 1000) * 3) for n in range(2))
    bench.feed(one[1][:20] + bytes(len(one[1]) - 20))
    for each in (*one, *other):
        bench.feed(each)
    assert heard(bench) == [b"\1" * 1000] * 3
    assert bench.endpoint.counters["data-forged"] == 1


def test_parts_only_with_the_capability_of_the_peer() -> None:
    bench, puppet, connection = accepted(large=False)
    made = large_packet(puppet, encode_msg(b"m" * 1000) * 5)
    for each in made:
        assert bench.feed(each) == []
    feed_train(bench, b"".join(made))
    assert heard(bench) == []
    assert bench.endpoint.counters["part-unexpected"] == len(made) + 1
    assert bench.endpoint.sizes()["parts"] == 0
    assert connection.closed is None


def test_a_session_that_is_half_open_keeps_no_parts() -> None:
    """Attack: begin as many handshakes as there is room for, and fill each with parts."""
    bench = Bench()
    puppet = Puppet(bench.key, capabilities=1)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    made = large_packet(puppet, encode_msg(b"m" * 1000) * 5)
    for each in made:
        assert bench.feed(each) == []
    assert bench.endpoint.counters["part-unexpected"] == len(made)
    assert bench.endpoint.sizes()["parts"] == 0
    assert bench.events == []


def test_what_is_left_of_a_session_goes_with_it() -> None:
    bench, puppet, connection = accepted()
    for number in range(30):
        bench.feed(large_packet(puppet, encode_msg(b"m" * 1000) * 5, 100 + number)[0])
    assert bench.endpoint.sizes()["parts"] == 30
    bench.endpoint.close(connection, 0, "", bench.now)
    bench.advance(5.0)
    assert bench.endpoint.sizes()["parts"] == 0


def test_P9_any_parts_with_a_live_id_do_no_harm() -> None:
    bench, puppet, connection = accepted()
    draw = random.Random(9)
    genuine = large_packet(puppet, encode_msg(b"m" * 1000) * 5)
    for _ in range(5000):
        head = bytes([0x16, draw.randrange(66), draw.randrange(67), draw.randrange(2)]) + puppet.remote_id
        packet = head + draw.randrange(2, 40).to_bytes(8, "big") + draw.randbytes(draw.randrange(60))
        if draw.random() < 0.5:
            assert bench.feed(packet[: draw.randrange(len(packet) + 1)]) == []
        else:
            feed_train(bench, packet * draw.randrange(1, 5))
    assert connection.closed is None
    assert bench.endpoint.sizes()["parts"] <= 64
    assert heard(bench) == []
    bench.feed(genuine[0])
    for each in large_packet(puppet, encode_msg(b"n" * 1000) * 5, 5000):
        bench.feed(each)
    assert heard(bench) == [b"n" * 1000] * 5


def test_an_ack_in_a_large_packet_counts() -> None:
    bench, puppet, connection = accepted()
    sent = connection.session.packer.next_number
    feed_train(
        bench, b"".join(large_packet(puppet, encode_ack([(0, sent - 1)], 0.0) + encode_msg(b"m" * 1000) * 3))
    )
    assert connection.session.heard_by_peer


def test_a_single_datagram_is_sealed_as_ever() -> None:
    key = ChaCha20Poly1305(bytes(32))
    epoch = Epoch(
        keys=SessionKeys(key, key, b"h" * 32, b"t" * 16), local_id=ID, remote_id=OTHER, channel=0,
        path=Path(Puppet.SOURCE), began=0.0, ours=True,
    )  # fmt: skip
    single, size = epoch.seal(5, b"\x01" * 1166, 1, 1200)
    assert size == len(single) == 1200
    assert single[:1] == b"\x14"
    double, size = epoch.seal(6, b"\x01" * 1167, 2, 1200)
    assert size == 1200
    assert [double[at : at + 3] for at in (0, 1200)] == [b"\x16\x00\x02", b"\x16\x01\x02"]
