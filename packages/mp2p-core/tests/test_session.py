"""One session between a bench and a puppet (protocol section 6; rows P5 to P7, Y1, Y2, Y8, H18, F6, F9)."""

from __future__ import annotations

import itertools
import random

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.errors import Closed, DatagramTooLarge
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.epoch import Epoch, SessionKeys
from mp2p_core.proto.events import Accepted, Connected, ConnectionClosed, MessageReceived, PingAnswered
from mp2p_core.proto.frames import (
    Ack,
    Close,
    Frame,
    Msg,
    Ping,
    encode_ack,
    encode_close,
    encode_msg,
    parse_frames_untrusted,
)
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.ranges import RangeSet
from mp2p_core.proto.session import Session
from mp2p_core.proto.states import SessionState
from mp2p_core.testing.puppet import Bench, Puppet, one_way
from mp2p_core.testing.simulation import Datagram
from mp2p_core.transport import Path


def accepted(**bench_options: object) -> tuple[Bench, Puppet, Connection]:
    """A bench that a puppet has called, and what its application holds."""
    bench = Bench(**bench_options)  # type: ignore[arg-type]  # passed through as they are
    puppet = Puppet(bench.key)
    puppet.connect(bench)
    (event,) = bench.events
    assert isinstance(event, Accepted)
    bench.events.clear()
    return bench, puppet, event.connection


def connected() -> tuple[Bench, Puppet, Connection]:
    """A bench that has called a puppet."""
    bench = Bench()
    puppet = Puppet(bench.key)
    puppet.accept(bench)
    (event,) = bench.events
    assert isinstance(event, Connected)
    bench.events.clear()
    return bench, puppet, event.connection


def settle(bench: Bench, puppet: Puppet) -> None:
    """Acknowledge all that the bench has sent, so that it has nothing to probe for."""
    bench.collect()
    sent = bench.endpoint.connections()[0].session.packer.next_number
    bench.feed(puppet.seal(encode_ack([(0, sent - 1)], 0.0)))


def frames_of(puppet: Puppet, out: list[Datagram]) -> list[Frame]:
    return [frame for datagram in out for frame in parse_frames_untrusted(puppet.open(datagram.data))]


def closes(puppet: Puppet, out: list[Datagram]) -> list[int]:
    return [frame.code for frame in frames_of(puppet, out) if isinstance(frame, Close)]


def messages(bench: Bench) -> list[bytes]:
    return [event.data for event in bench.events if isinstance(event, MessageReceived)]


# --- receiving ---------------------------------------------------------------------------------------


def test_P5_the_shortest_packets() -> None:
    bench, puppet, _ = accepted()
    empty = puppet.seal(b"")
    assert len(empty) == 34
    assert bench.feed(empty[:33]) == []
    assert bench.endpoint.counters["data-malformed"] == 1
    assert bench.feed(empty) == []
    assert bench.endpoint.counters["data-received"] == 2
    assert bench.events == []


def test_P5_an_empty_packet_confirms_a_session() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    bench.feed(puppet.seal(b""))
    assert [type(event) for event in bench.events] == [Accepted]


def test_P4_the_reserved_byte_of_data() -> None:
    bench, puppet, _ = accepted()
    packet = puppet.seal(encode_msg(b"x"))
    for value in range(1, 256):
        assert bench.feed(packet[:1] + bytes([value]) + packet[2:]) == []
    assert bench.endpoint.counters["data-malformed"] == 255
    bench.feed(packet)
    assert messages(bench) == [b"x"]


FRAMES = {
    "ack": encode_ack([(0, 0)], 0.0) + encode_ack([(0, 0)], 0.0),
    "ack with ranges": bytes.fromhex("02 0000000000000000 0000 02 0001 0001 0001 0001 0001"),
    "close": encode_close(0, "reason"),
    "msg": encode_msg(b"hello"),
}


CUTS = [(name, size) for name, packed in FRAMES.items() for size in range(1, len(packed))]
CUTS.remove(("ack", len(FRAMES["ack"]) // 2))  # one whole frame of the two


@pytest.mark.parametrize(("name", "size"), CUTS)
def test_P6_a_frame_cut_at_any_byte_closes_with_code_2(name: str, size: int) -> None:
    bench, puppet, connection = accepted()
    bench.advance(0.1)
    bench.collect()
    out = bench.feed(puppet.seal(FRAMES[name][:size]))
    assert closes(puppet, out) == [c.CLOSE_BAD_FRAME]
    assert [type(event) for event in bench.events] == [ConnectionClosed]
    assert connection.closed is not None
    assert connection.closed.code == c.CLOSE_BAD_FRAME


KNOWN = {0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x08, 0x10, 0x11, 0x14, 0x15, 0x16, 0x17, 0x18}


@pytest.mark.parametrize("kind", sorted(set(range(256)) - KNOWN))
def test_P7_an_unknown_frame_closes_with_code_2(kind: int) -> None:
    bench, puppet, _ = accepted()
    out = bench.feed(puppet.seal(encode_msg(b"before") + bytes([kind]) + bytes(30)))
    assert closes(puppet, out) == [c.CLOSE_BAD_FRAME]


def test_P7_an_ack_with_33_ranges_closes_with_code_2() -> None:
    bench, puppet, _ = accepted()
    ack = bytes.fromhex("02 0000000000001000 0000 21 0001") + b"\0\1\0\1" * 33
    assert closes(puppet, bench.feed(puppet.seal(ack))) == [c.CLOSE_BAD_FRAME]


@pytest.mark.parametrize("ahead", [1, 2, 2**40])
def test_F9_an_ack_of_what_was_never_sent_closes_with_code_5(ahead: int) -> None:
    bench, puppet, _ = accepted()
    bench.collect()
    largest = 0  # the bench has sent packet 0, which acknowledged the confirmation
    assert closes(puppet, bench.feed(puppet.seal(encode_ack([(largest, largest)], 0.0)))) == []
    out = bench.feed(puppet.seal(encode_ack([(largest + ahead, largest + ahead)], 0.0)))
    assert closes(puppet, out) == [c.CLOSE_PROTOCOL]


@pytest.mark.parametrize("blindly", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_F9_who_acknowledges_what_it_has_not_received_is_found_out(seed: int, *, blindly: bool) -> None:
    """Else a few bytes a second had a node send as fast as it can to where nothing arrives."""
    bench = Bench(seed=seed)
    puppet = Puppet(bench.key, seed=seed)
    puppet.connect(bench)
    (connection,) = bench.endpoint.connections()
    received = RangeSet()
    for _ in range(c.SKIP_WITHIN):
        bench.now += 0.001
        connection.send_message(b"?")
        bench.endpoint.flush(connection)
        for each in bench.collect():
            received.add(*wire.data_packet_number(each.data, 10))
        said = [(0, connection.session.packer.next_number - 1)] if blindly else received
        bench.feed(puppet.seal(encode_ack(said, 0.0)))
        if connection.closed is not None:
            break
    assert (connection.closed is not None) == blindly
    assert connection.closed is None or connection.closed.code == c.CLOSE_PROTOCOL


def test_the_numbers_that_are_left_out_become_few() -> None:
    bench, puppet, connection = accepted()
    packer = connection.session.packer
    received = RangeSet()
    gaps, before = 0, packer.next_number - 1
    for _ in range(5000):
        connection.send_message(b"?")
        bench.endpoint.flush(connection)
        bench.now += 0.001
        for each in bench.collect():
            (number,) = wire.data_packet_number(each.data, 10)
            received.add(number)
            gaps, before = gaps + (number > before + 1), number
        bench.feed(puppet.seal(encode_ack(received, 0.0)))
    assert 3 <= gaps <= 15
    assert connection.closed is None


def test_Y1_every_packet_twice_reversed_and_a_hundred_times() -> None:
    bench, puppet, _ = accepted()
    packets = [puppet.seal(encode_msg(str(n).encode())) for n in range(200)]
    for _ in range(2):
        for packet in (*packets, *reversed(packets)):
            bench.feed(packet)
    for packet in packets[:20] * 100:
        bench.feed(packet)
    assert messages(bench) == [str(n).encode() for n in range(200)]
    assert bench.endpoint.counters["data-replayed"] == 200 * 3 + 2000


def test_Y2_a_forged_packet_number_moves_nothing() -> None:
    bench, puppet, connection = accepted()
    good = puppet.seal(encode_msg(b"good"))
    for jump in (2**63, 2**64 - 2, 5000):
        assert bench.feed(good[:10] + jump.to_bytes(8, "big") + good[18:]) == []
    assert bench.feed(good[:10] + (2**64 - 1).to_bytes(8, "big") + good[18:]) == []
    assert bench.endpoint.counters["data-forged"] == 3
    assert bench.endpoint.counters["data-replayed"] == 1, "a number that is never used is not even tried"
    bench.feed(good)
    assert messages(bench) == [b"good"]
    assert connection.closed is None


@pytest.mark.parametrize(
    ("number", "taken"), [(3000 - 2048, False), (3000 - 2047, True), (3000, False), (3001, True)]
)
def test_Y2_at_the_edge_of_the_window(number: int, taken: bool) -> None:
    bench, puppet, _ = accepted()
    bench.feed(puppet.seal(b"", 3000))
    bench.feed(puppet.seal(encode_msg(b"edge"), number))
    assert messages(bench) == ([b"edge"] if taken else [])


def test_Y8_a_packet_reflected_to_its_sender_is_dropped() -> None:
    """Another id; and with the right id put in, another key."""
    bench, puppet, connection = accepted()
    connection.send_message(b"to the peer")
    bench.endpoint.flush(connection)
    out = bench.collect()
    assert out
    for datagram in out:
        assert bench.feed(datagram.data) == []
        own_id = puppet.remote_id
        assert bench.feed(datagram.data[:2] + own_id + datagram.data[10:]) == []
    assert messages(bench) == []
    assert bench.endpoint.counters["data-unknown"] == len(out)
    assert bench.endpoint.counters["data-forged"] + bench.endpoint.counters["data-replayed"] == len(out)
    assert connection.closed is None


def test_P8_every_bit_of_a_data_packet_counts() -> None:
    bench, puppet, connection = accepted()
    packet = puppet.seal(encode_msg(b"genuine"))
    for bit in range(len(packet) * 8):
        edited = bytearray(packet)
        edited[bit // 8] ^= 1 << bit % 8
        assert bench.feed(bytes(edited)) == []
    assert messages(bench) == []
    bench.feed(packet)
    assert messages(bench) == [b"genuine"]
    assert connection.closed is None


def test_F6_a_hundred_thousand_forged_packets_with_a_live_id() -> None:
    bench, puppet, connection = accepted()
    genuine = puppet.seal(encode_msg(b"genuine"))
    draw, sizes = random.Random(6), bench.endpoint.sizes()
    for n in range(100_000):
        packet = genuine[:10] + n.to_bytes(8, "big") + draw.randbytes(20)
        assert bench.feed(packet) == []
    counters = bench.endpoint.counters
    assert counters["data-forged"] + counters["data-replayed"] == 100_000
    assert counters["data-forged"] >= 99_998, "numbers that are known as taken are not even tried"
    assert bench.endpoint.sizes() == sizes
    assert connection.closed is None
    bench.feed(genuine)
    assert messages(bench) == [b"genuine"]


def test_an_unauthenticated_packet_wakes_nothing() -> None:
    """Rule 1: no timer moves, no keepalive is spared, nothing becomes due to be sent."""
    bench, puppet, _ = accepted()
    settle(bench, puppet)
    bench.advance(5.0)
    before = bench.endpoint.timeout()
    forged = puppet.seal(b"\x01")[:-1] + b"!"
    bench.feed(forged)
    bench.feed(forged[:20])
    assert bench.endpoint.timeout() == before
    assert bench.advance(4.9) == []
    assert frames_of(puppet, bench.advance(0.11)) == [Ping()], "the keepalive comes when it was due"


def test_a_message_before_close_in_the_same_packet_is_delivered() -> None:
    bench, puppet, connection = accepted()
    bench.feed(puppet.seal(encode_msg(b"last words") + encode_close(0, "")))
    assert bench.events == [MessageReceived(connection, b"last words"), ConnectionClosed(connection, 0, "")]


def test_a_first_packet_that_closes_tells_the_application_in_order() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    assert bench.feed(puppet.seal(encode_msg(b"hello") + encode_close(4, "and goodbye"))) == []
    assert [type(event) for event in bench.events] == [Accepted, MessageReceived, ConnectionClosed]


def test_nothing_is_told_after_the_end() -> None:
    bench, puppet, connection = accepted()
    number = connection.ping()
    bench.endpoint.flush(connection)
    bench.collect()
    bench.endpoint.close(connection, 0, "", bench.now)
    bench.collect()
    bench.events.clear()
    bench.feed(puppet.seal(encode_ack([(0, 1)], 0.0) + encode_msg(b"late")))
    assert number == 1
    assert bench.events == []


def test_a_packet_full_of_the_cheapest_frames_is_answered_by_one_ack() -> None:
    """Attack: many frames for few bytes. None multiplies what goes out."""
    bench, puppet, connection = accepted()
    bench.collect()
    for content in (b"\x01" * 1166, b"\0" * 1166, encode_msg(b"") * 388, encode_ack([(0, 0)], 4.0) * 83):
        out = bench.feed(puppet.seal(content))
        out += bench.advance(0.1)
        assert len(out) <= 1
        assert all(isinstance(frame, Ack | Ping) for frame in frames_of(puppet, out))
    assert len(messages(bench)) == 388
    assert connection.closed is None


@pytest.mark.parametrize("seed", range(20))
def test_P9_an_authenticated_peer_may_send_what_it_likes(seed: int) -> None:
    """Nothing raises, and the connection either lives or has ended with a code of the protocol."""
    draw = random.Random(seed)
    pieces = [*FRAMES.values(), b"\x01", b"\0", b"\xff", encode_msg(b"x" * 50), encode_ack([(9, 9)], 0.0)]
    bench = Bench(seed=seed)
    for round_ in range(20):
        puppet = Puppet(bench.key, seed=seed * 100 + round_)
        (resp,) = bench.feed(puppet.init())
        puppet.read_resp(resp.data)
        for _ in range(30):
            content = b"".join(draw.choices(pieces, k=draw.randrange(6)))
            content = draw.choice([content, content[: draw.randrange(len(content) + 1)], draw.randbytes(40)])
            number = draw.choice([None, draw.randrange(50), 2**63 + draw.randrange(9), 2**64 - 2])
            bench.feed(puppet.seal(content, number), interface=draw.randrange(3))
        bench.advance(draw.choice([0.3, 12.0, 40.0]))
    for event in bench.events:
        if isinstance(event, ConnectionClosed):
            assert event.code in (0, 2, 5, c.CLOSE_IDLE), f"seed {seed}"
    bench.advance(60.0)
    assert bench.endpoint.sizes()["sessions"] == 0, f"seed {seed}"


# --- sending -----------------------------------------------------------------------------------------


def test_messages_share_packets_and_the_largest_fills_one() -> None:
    bench, puppet, connection = connected()
    for size in (1, 2, 3, connection.max_message, 0, connection.max_message, 4):
        connection.send_message(bytes([size & 0xFF]) * size)
    bench.endpoint.flush(connection)
    out = bench.collect()
    assert max(len(datagram.data) for datagram in out) == 1200
    sizes = [len(frame.data) for frame in frames_of(puppet, out) if isinstance(frame, Msg)]
    assert sizes == [1, 2, 3, connection.max_message, 0, connection.max_message, 4]
    with pytest.raises(DatagramTooLarge):
        connection.send_message(bytes(connection.max_message + 1))


def test_an_ack_and_a_ping_leave_room_for_the_largest_message() -> None:
    bench, puppet, connection = connected()
    bench.advance(0.002)  # since the last ACK
    bench.feed(puppet.seal(encode_msg(b"to be acknowledged")))
    connection.ping()
    connection.send_message(bytes(connection.max_message))
    bench.endpoint.flush(connection)
    out = bench.collect()
    assert [len(datagram.data) for datagram in out][-1] == 1200
    kinds = [type(frame) for frame in frames_of(puppet, out)]
    assert kinds == [Ack, Ping, Msg]


def test_packet_numbers_rise_and_never_repeat() -> None:
    bench, _, connection = connected()
    numbers: list[int] = []
    for _ in range(50):
        connection.send_message(b"x")
        bench.endpoint.flush(connection)
        numbers += [int.from_bytes(datagram.data[10:18], "big") for datagram in bench.collect()]
    assert numbers == sorted(set(numbers))


def test_a_ping_is_answered_with_its_round_trip_time() -> None:
    bench, puppet, connection = connected()
    number = connection.ping()
    bench.endpoint.flush(connection)
    (ping,) = bench.collect()
    assert isinstance(frames_of(puppet, [ping])[-1], Ping)
    bench.advance(0.020)
    sent = int.from_bytes(ping.data[10:18], "big")
    bench.feed(puppet.seal(encode_ack([(sent, sent)], 0.0)))
    (event,) = bench.events
    assert isinstance(event, PingAnswered)
    assert (event.connection, event.ping) == (connection, number)
    assert event.rtt == pytest.approx(0.020)


def test_H18_the_last_packet_number_is_spent_on_saying_so() -> None:
    keys = [ChaCha20Poly1305(bytes([n]) * 32) for n in (1, 2)]

    def half(initiator: bool, send: ChaCha20Poly1305, receive: ChaCha20Poly1305, first: int) -> Session:
        epoch = Epoch(
            keys=SessionKeys(send, receive, b"h" * 32, b"t" * 16), local_id=b"l" * 8, remote_id=b"l" * 8, channel=0,
            path=Path(Puppet.SOURCE), began=0.0, first_number=first, ours=initiator,
        )  # fmt: skip
        return Session(
            peer=Identity.from_seed(b"p" * 32).public, epoch=epoch, token=b"t" * 16, now=0.0,
            paths=one_way(initiator=initiator), idle_timeout=30.0, max_payload=1200, rekey_after=300.0,
        )  # fmt: skip

    session, peer = half(True, keys[0], keys[1], 2**64 - 4), half(False, keys[1], keys[0], 0)
    out: list[bytes] = []
    for n in range(5):
        session.packer.message(b"%d" % n)
        out += [data for data, _ in session.packets(0.0)]
    numbers = [int.from_bytes(packet[10:18], "big") for packet in out]
    assert numbers == [2**64 - 4, 2**64 - 3, 2**64 - 2], "2^64 - 1 is never used, and nothing wraps"
    assert session.state is SessionState.CLOSING
    assert session.closing.code == c.CLOSE_KEY_LIMIT
    for packet in out:
        assert peer.receive_untrusted(packet, 0, Path(Puppet.SOURCE), 0.0) == "data-received"
    assert list(peer.received) == [b"0", b"1"]
    assert (peer.state, peer.closing.code) == (SessionState.DRAINING, c.CLOSE_KEY_LIMIT)
    late = keys[1].encrypt(bytes(12), b"\x01", b"\x14\0" + b"l" * 8 + bytes(8))
    for _ in range(3):
        session.receive_untrusted(b"\x14\0" + b"l" * 8 + bytes(8) + late, 0, Path(Puppet.SOURCE), 10.0)
        assert list(session.packets(10.0)) == [], "not even a CLOSE is repeated"


# --- the end -----------------------------------------------------------------------------------------


def test_close_is_said_once_and_repeated_once_per_packet_and_round_trip() -> None:
    bench, puppet, connection = accepted()
    bench.collect()
    bench.endpoint.close(connection, 7, "over", bench.now)
    assert frames_of(puppet, bench.collect()) == [Close(7, "over")]
    rtt = connection.session.packer.rtt.smoothed
    assert bench.feed(puppet.seal(b"\x01")) == [], "within a round trip"
    bench.advance(rtt + 0.001)
    assert closes(puppet, bench.feed(puppet.seal(b"\x01"))) == [7]
    assert [closes(puppet, bench.feed(puppet.seal(b"\x01"))) for _ in range(20)] == [[]] * 20
    assert bench.advance(0.2) == [], "never of its own accord"
    bench.advance(1.0)
    assert bench.feed(puppet.seal(b"\x01")) == []
    assert bench.endpoint.counters["data-unknown"] == 1


def test_forged_packets_do_not_make_close_repeat() -> None:
    bench, puppet, connection = accepted()
    bench.endpoint.close(connection, 7, "over", bench.now)
    bench.collect()
    bench.advance(0.9)
    assert bench.feed(puppet.seal(b"\x01")[:-1] + b"!") == []


def test_a_draining_session_says_nothing() -> None:
    bench, puppet, _ = accepted()
    bench.feed(puppet.seal(encode_close(0, "")))
    for content in (b"\x01", encode_msg(b"x"), encode_close(0, ""), b"\xff"):
        assert bench.feed(puppet.seal(content)) == []
    assert bench.advance(5.0) == []
    assert bench.endpoint.sizes()["sessions"] == 0


def test_Y7_a_closed_session_is_silent() -> None:
    bench, puppet, connection = accepted()
    bench.endpoint.close(connection, 0, "", bench.now)
    bench.collect()
    bench.advance(c.CLOSING_LIFE + 0.01)
    bench.events.clear()
    assert bench.feed(puppet.seal(encode_msg(b"late"))) == []
    assert bench.events == []
    assert bench.endpoint.counters["data-unknown"] == 1


def test_sending_after_the_end_raises() -> None:
    bench, puppet, connection = accepted()
    bench.feed(puppet.seal(encode_close(3, "why not")))
    for call in (lambda: connection.send_message(b"x"), connection.ping):
        with pytest.raises(Closed, match="code 3: why not") as caught:
            call()
        assert caught.value.code == 3
    bench.endpoint.close(connection, 0, "", bench.now)
    assert bench.collect() == []


# --- time --------------------------------------------------------------------------------------------


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    """By keepalives, by the probes that follow a ping without an answer, and by handshakes."""
    bench, puppet, connection = accepted()
    settle(bench, puppet)
    began, asked = bench.now, []
    frames: list[Frame] = []
    while bench.now < began + c.DEFAULT_IDLE_TIMEOUT - 0.2:
        out = [datagram for datagram in bench.advance(0.1) if datagram.data[0] == c.TYPE_DATA]
        frames += frames_of(puppet, out)
        asked += [bench.now - began] * bool(out)
    assert connection.closed is None
    assert asked[0] == pytest.approx(c.KEEPALIVE, abs=0.2)
    assert all(later - earlier < 2.7 for earlier, later in itertools.pairwise(asked))
    assert frames == [Ping()] * len(frames)
    assert c.KEEPALIVE_REPEATS <= len(frames) <= 5 * c.KEEPALIVE_REPEATS
    bench.advance(0.3)
    assert isinstance(bench.events[-1], ConnectionClosed)
    assert bench.events[-1].code == c.CLOSE_IDLE
    assert bench.advance(60.0) == []


def test_a_peer_that_answers_is_asked_every_ten_seconds() -> None:
    bench, puppet, connection = accepted()
    pings = 0
    for _ in range(1000):
        for datagram in bench.advance(0.1):
            pings += Ping() in frames_of(puppet, [datagram])
            number = int.from_bytes(datagram.data[10:18], "big")
            bench.feed(puppet.seal(encode_ack([(number, number)], 0.0)))
    assert pings == pytest.approx(10, abs=1)
    assert connection.closed is None


@pytest.mark.parametrize("idle", [0.001, 0.1, 3.0, 100_000.0, 5e6, float("inf")])
def test_any_idle_timeout_works(idle: float) -> None:
    """Also those that no 32-bit count of milliseconds holds."""
    bench, _, connection = accepted(idle_timeout=idle)
    bench.advance(min(idle, 200.0) + 0.01)
    assert (connection.closed is not None) == (idle <= 200.0)


def test_the_initiator_takes_the_smaller_idle_timeout() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    bench.feed(puppet.resp(bench.dial(puppet.key), idle_timeout_ms=4000))
    bench.feed(puppet.seal(b""))
    bench.advance(3.9)
    assert not any(isinstance(event, ConnectionClosed) for event in bench.events)
    bench.advance(0.2)
    assert isinstance(bench.events[-1], ConnectionClosed)


def test_a_responder_may_offer_no_time_at_all() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    bench.feed(puppet.resp(bench.dial(puppet.key), idle_timeout_ms=0))
    bench.feed(puppet.seal(b""))
    bench.advance(0.001)
    assert isinstance(bench.events[-1], ConnectionClosed)


def test_data_0_is_repeated_until_the_peer_is_heard_on_every_interface() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (first,) = bench.feed(puppet.resp(bench.dial(puppet.key)), interface=3)
    assert frames_of(puppet, [first]) == [Ping()]
    connection = bench.endpoint.connections()[0]
    assert connection.session.roaming.path.interface == 3
    repeats = bench.advance(2.1)
    assert [type(frame) for frame in frames_of(puppet, repeats)] == [Ping] * 6, "two each time, as probes are"
    assert connection.session.roaming.path.interface == 0
    bench.feed(puppet.seal(b""), interface=5)
    assert connection.session.roaming.path.interface == 5
    settle(bench, puppet)
    assert bench.advance(5.0) == []


def test_an_older_packet_does_not_choose_the_interface() -> None:
    bench, puppet, connection = accepted()
    old, new = puppet.seal(b""), puppet.seal(b"")
    bench.feed(new, interface=2)
    bench.feed(old, interface=9)
    bench.feed(old[:-1] + b"!", interface=9)
    assert connection.session.roaming.path.interface == 2


def test_secrets_do_not_show() -> None:
    _, _, connection = accepted()
    for value in (connection.session, connection.session.epoch, connection.session.epoch._keys):
        assert "object at" in repr(value)


def test_a_packet_of_one_session_does_not_open_in_another() -> None:
    bench, puppet, _ = accepted()
    other = Puppet(bench.key, seed=9)
    other.connect(bench)
    packet = puppet.seal(encode_msg(b"x"))
    bench.feed(packet[:2] + other.remote_id + packet[10:])
    assert messages(bench) == []
    with pytest.raises(InvalidTag):
        other.open(packet)
