"""The endpoint as a whole: whatever comes in, nothing raises, and limits hold (rows P9, F10, R8, Y6)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.proto.connection import Connection
from mp2p_core.proto.events import Accepted, Connected, ConnectFailed, ConnectionClosed, MessageReceived
from mp2p_core.proto.frames import (
    Ack,
    Close,
    Msg,
    Ping,
    encode_ack,
    encode_close,
    encode_msg,
    parse_frames_untrusted,
)
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.proto.transmit import Packet, trains
from mp2p_core.testing.puppet import Bench, CountingSuite, Puppet, restamp
from mp2p_core.testing.simulation import Datagram
from mp2p_core.transport import Path, Train


class Town:
    """A bench in every state at once, and genuine packets of every kind to make bad ones from."""

    def __init__(self, seed: int) -> None:
        self.work = CountingSuite()
        self.bench = Bench(seed=seed, suite=self.work.suite)
        self.confirmed, self.half_open, self.called, self.closing = (
            Puppet(self.bench.key, seed=seed * 10 + n) for n in range(4)
        )
        self.confirmed.connect(self.bench)
        self.closing.connect(self.bench)
        self.bench.endpoint.close(self.bench.endpoint.connections()[1], 0, "", self.bench.now)
        self.bench.collect()
        self.bench.now += 0.5
        (resp,) = self.bench.feed(self.half_open.init())
        self.half_open.read_resp(resp.data)
        self.dialed = self.bench.dial(self.called.key)
        self.packets = [
            self.half_open.init(),
            self.dialed,
            resp.data,
            self.called.resp(self.dialed),
            wire.cookie_header(self.dialed[4:12], bytes(16), bytes(32)),
            *(puppet.seal(content) for puppet in (self.confirmed, self.half_open, self.closing)
              for content in (b"", b"\x01", encode_msg(b"m" * 40), encode_ack([(0, 0)], 0.0))),
        ]  # fmt: skip

    def bad(self, draw: random.Random) -> bytes:
        """A random datagram, a random one with a known beginning, or a genuine one spliced with another."""
        one, other = draw.choice(self.packets), draw.choice(self.packets)
        way = draw.randrange(6)
        if way == 0:
            return draw.randbytes(draw.randrange(400))
        if way == 1:
            return one[: draw.randrange(20)] + draw.randbytes(draw.randrange(300))
        if way == 2:
            at = draw.randrange(len(one) + 1)
            return one[:at] + other[at:]
        if way == 3:
            return one[: draw.randrange(len(one) + 1)] + other[draw.randrange(len(other) + 1) :]
        bit = draw.randrange(len(one) * 8)
        flipped = one[: bit // 8] + bytes([one[bit // 8] ^ 1 << bit % 8]) + one[bit // 8 + 1 :]
        if way == 4:
            return flipped
        return (
            restamp(flipped, self.bench.key)
            if len(flipped) == c.INIT_SIZE and flipped[0] == c.TYPE_INIT
            else flipped
        )


def throw(count: int, seed: int) -> None:
    town = Town(seed)
    bench, draw = town.bench, random.Random(seed)
    # An INIT with another mac2 is as good as genuine while there is no load: mac2 is not looked at.
    genuine = {packet[:240] if packet[0] == c.TYPE_INIT else packet for packet in town.packets}
    before = bench.endpoint.sizes()
    bench.events.clear()
    town.work.exchanges, began = 0, bench.now
    for _ in range(count):
        datagram = town.bad(draw)
        if datagram not in genuine and datagram[:240] not in genuine:
            bench.feed(datagram)
            bench.now += 1e-5
    assert bench.events == [], f"seed {seed}: something bad was believed"
    sizes = bench.endpoint.sizes()
    for name in ("answers", "attempts", "connections", "half-open", "sessions"):
        assert sizes[name] == before[name], f"seed {seed}: {name}"
    assert len(bench.endpoint.counters) < 40, f"seed {seed}: counters have fixed names"
    handshakes = (
        c.HANDSHAKE_BURST
        + c.INITIATOR_DH_RATE
        + (bench.now - began) * (c.HANDSHAKE_RATE + c.INITIATOR_DH_RATE)
    )
    assert town.work.exchanges <= 2 * handshakes, f"seed {seed}: the work is rationed, whatever comes"
    # And the town still lives.
    bench.feed(town.confirmed.seal(encode_msg(b"alive")))
    assert [event.data for event in bench.events if isinstance(event, MessageReceived)] == [b"alive"]
    bench.now += 2.0
    bench.feed(town.called.resp(town.dialed))
    assert isinstance(bench.events[-1], Connected), f"seed {seed}"


def test_P9_random_and_spliced_datagrams() -> None:
    throw(50_000, seed=9)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_P9_a_million_random_and_spliced_datagrams(seed: int) -> None:
    throw(100_000, seed)


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 300), st.integers(0, 3))
def test_P9_trains_of_anything(buffers: list[bytes], segment_size: int, interface: int) -> None:
    bench = Bench()
    path = Path(Puppet.SOURCE, bench.group, interface)
    bench.endpoint.receive(0, Train(path, buffers, segment_size), bench.now)
    assert bench.collect() == []
    assert bench.endpoint.sizes()["sessions"] == 0


def test_the_parts_of_a_train_are_taken_one_by_one() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    puppet.connect(bench)
    bench.events.clear()
    packets = [puppet.seal(encode_msg(bytes([n]) * 20)) for n in range(5)]
    last = puppet.seal(encode_msg(b"short"))
    path = Path(Puppet.SOURCE, bench.group, 1)
    bench.endpoint.receive(0, Train(path, [b"".join(packets), last], len(packets[0])), bench.now)
    bench.collect()
    assert len(bench.events) == 6


def test_packets_are_sent_as_trains() -> None:
    path = Path(Puppet.SOURCE)
    sizes = [9, 9, 9, 5, 9, 9, 10, 10, 3, 3]
    packets = [bytes([n]) * size for n, size in enumerate(sizes)]
    made = list(trains(path, [(packet, len(packet)) for packet in packets]))
    assert [len(train.buffers) for train in made] == [4, 2, 3, 1]
    assert [datagram for train in made for datagram in train.datagrams()] == packets
    assert list(trains(path, [])) == []


def test_a_shorter_datagram_ends_a_train() -> None:
    path = Path(Puppet.SOURCE)
    small, large = (b"s" * 9, 9), (b"hhhbbbbbbhhhbb", 9)
    made = list(trains(path, [small, large, (b"t" * 9, 9), (b"u" * 9, 9)]))
    assert [list(train.datagrams()) for train in made] == [
        [b"s" * 9, b"hhhbbbbbb", b"hhhbb"],
        [b"t" * 9, b"u" * 9],
    ]


def test_large_packets_whose_datagrams_are_all_full_share_a_train() -> None:
    path = Path(Puppet.SOURCE)
    full, short = (b"hhhbbbbbb" * 2, 9), (b"hhhbbbbbbhh", 9)
    made = list(trains(path, [full, full, short, full, (b"t" * 9, 9), (b"hhhbbbb" * 2, 7), full]))
    assert [(len(train.buffers), train.segment_size) for train in made] == [(3, 9), (2, 9), (1, 7), (1, 9)]
    assert [set(map(len, train.datagrams())) for train in made] == [{9, 2}, {9}, {7}, {9}]


def test_a_train_holds_no_more_than_one_call_takes() -> None:
    packets = [(bytes(1452 * 12), 1452)] * 9
    assert [len(train.buffers) for train in trains(Path(Puppet.SOURCE), packets)] == [3, 3, 3]


def test_a_large_packet_leaves_before_the_next_one_is_sealed() -> None:
    """The peer opens one while this side seals another: else only one of the two would work at a time."""
    sealed: list[int] = []

    def packets() -> Iterator[Packet]:
        for n in range(4):
            sealed.append(n)
            yield (b"hhhbbbbbbhhhbb", 9)

    gone = 0
    for train in trains(Path(Puppet.SOURCE), packets()):
        gone += 1
        assert len(train.datagrams()) == 2
        assert len(sealed) == gone
    assert gone == 4


# --- how many ----------------------------------------------------------------------------------------


def test_F10_one_key_holds_16_sessions_and_the_oldest_goes() -> None:
    bench = Bench()
    identity = Identity.from_seed(b"x" * 32)
    puppets = []
    for n in range(c.MAX_SESSIONS_PER_PEER + 3):
        bench.now += 0.2
        puppet = Puppet(bench.key, identity=identity, seed=n)
        puppet.connect(bench)
        puppets.append(puppet)
    assert len(bench.endpoint.connections()) == c.MAX_SESSIONS_PER_PEER
    closed = [event for event in bench.events if isinstance(event, ConnectionClosed)]
    assert [event.code for event in closed] == [c.CLOSE_EXCESSIVE] * 3
    assert [event.connection.session.epoch.remote_id for event in closed] == [
        p.receive_id for p in puppets[:3]
    ]


def test_F10_many_identities_over_time_fill_every_table_to_its_bound_and_no_further() -> None:
    """Each from another network, with another return address, and none ever leaves."""
    bench = Bench(idle_timeout=100_000.0)
    largest: dict[str, int] = {}
    statuses: list[int] = []
    for n in range(c.MAX_SESSIONS + 60):
        bench.now += 0.009
        puppet = Puppet(bench.key, seed=n)
        source = Puppet.SOURCE[:16] + (n << 8 | 10 << 24).to_bytes(4, "big")
        group = pack_ipv4(f"224.0.{224 + n % 20}.{n // 20 % 256}", 2000)
        (resp,) = bench.feed(puppet.init(return_address=group), source=source)
        statuses.append(puppet.read_resp(resp.data).status)
        bench.feed(puppet.seal(b""), source=source)
        if n == c.MAX_SESSIONS + 19:
            assert statuses == [c.STATUS_OK] * c.MAX_SESSIONS + [c.STATUS_BUSY] * 20
            for connection in bench.endpoint.connections()[:40]:
                bench.endpoint.close(connection, 0, "", bench.now)
            bench.advance(c.CLOSING_LIFE)
        if n % 50 == 0:
            for name, size in bench.endpoint.sizes().items():
                largest[name] = max(largest.get(name, 0), size)
            bench.events.clear()
    assert statuses[-40:] == [c.STATUS_OK] * 40, "room again"
    sizes = bench.endpoint.sizes()
    assert sizes["sessions"] == sizes["connections"] == c.MAX_SESSIONS
    assert sizes["confirmed"] == c.PEER_TABLE_SIZE
    assert bench.endpoint.counters["sessions-accepted"] > c.PEER_TABLE_SIZE
    assert largest["answers"] == c.ANSWER_CACHE_SIZE
    assert largest["answer-buckets"] == c.BUCKET_TABLE_SIZE
    assert largest["half-open"] <= 1
    assert largest["timers"] <= 3 * c.MAX_SESSIONS


def test_Y6_two_processes_that_share_an_identity_both_connect() -> None:
    bench = Bench()
    identity = Identity.from_seed(b"s" * 32)
    one, two = (Puppet(bench.key, identity=identity, seed=n) for n in (1, 2))
    one.connect(bench)
    bench.now += 0.5
    two.connect(bench)
    assert [type(event) for event in bench.events] == [Accepted, Accepted]
    bench.events.clear()
    for puppet in (one, two, one):
        bench.feed(puppet.seal(encode_msg(str(puppet.seed).encode())))
    connections = bench.endpoint.connections()
    assert [(event.connection, event.data) for event in bench.events if isinstance(event, MessageReceived)] == [
        (connections[0], b"1"), (connections[1], b"2"), (connections[0], b"1")
    ]  # fmt: skip


# --- calls -------------------------------------------------------------------------------------------


def test_several_targets_are_tried_at_once_and_one_wins() -> None:
    bench = Bench()
    puppet, twin = Puppet(bench.key), Puppet(bench.key, seed=2)
    twin.own, twin.key = puppet.own, puppet.key
    bench.endpoint.add_channel(1, ChannelInfo(bench.group, 1200, lambda *_: True))
    bench.groups[1] = bench.group
    targets = [(0, bench.group), (1, bench.group)]
    number = bench.endpoint.connect(puppet.key, targets, timestamp=1, timeout=20.0, now=bench.now)
    inits = [(channel, train.buffers[0]) for channel, train in bench.endpoint.transmits(bench.now)]
    assert [channel for channel, _ in inits] == [0, 1]
    assert inits[0][1] != inits[1][1]
    first, second = puppet.resp(inits[1][1]), twin.resp(inits[0][1])
    bench.endpoint.receive(1, Train(Path(Puppet.SOURCE), (first,), len(first)), bench.now)
    bench.collect()
    bench.endpoint.receive(0, Train(Path(Puppet.SOURCE), (second,), len(second)), bench.now)
    assert bench.collect() == []
    (event,) = bench.events
    assert isinstance(event, Connected)
    assert event.dial == number
    assert event.connection.session.roaming.channel == 1


def inits(out: list[Datagram]) -> list[Datagram]:
    """Leave out the probes of a session whose packets nobody acknowledges."""
    return [datagram for datagram in out if datagram.data[0] == c.TYPE_INIT]


def test_a_peer_that_calls_while_it_is_called_ends_the_call() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    bench.dial(puppet.key)
    puppet.connect(bench)
    (event,) = bench.events
    assert isinstance(event, Connected)
    assert event.dial == 1
    assert inits(bench.advance(5.0)) == []


def test_H10_a_call_back_is_a_connection_of_its_own_and_says_so() -> None:
    """The peer may not have heard yet that we answered its call: it must not take ours for one that crossed it."""
    bench = Bench()
    puppet = Puppet(bench.key)
    puppet.connect(bench)
    flags = []
    for settled in (False, True):
        if settled:
            bench.feed(puppet.seal(encode_ack([(0, 0)], 0.0)))
        number = bench.endpoint.connect(
            puppet.key, [(0, bench.group)], timestamp=1, timeout=20.0, now=bench.now
        )
        (init,) = inits(bench.collect())
        answering = Puppet(bench.key, identity=puppet.own, seed=7)
        answering.resp(init.data)
        assert answering.told is not None
        flags.append(answering.told.may_cross)
        bench.endpoint.cancel(number)
    assert flags == [False, True]


def test_H10_only_one_call_at_a_time_may_have_crossed_the_peers() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    flags = []

    def call() -> int:
        number = bench.endpoint.connect(
            puppet.key, [(0, bench.group)], timestamp=1, timeout=60.0, now=bench.now
        )
        (init,) = inits(bench.collect())
        puppet.resp(init.data)
        assert puppet.told is not None
        flags.append(puppet.told.may_cross)
        return number

    one, _ = call(), call()
    bench.endpoint.cancel(one)
    for init in inits(bench.advance(c.INIT_ROUND + 2)):
        puppet.resp(init.data)
        flags.append(puppet.told.may_cross)
    assert (flags[0], flags[1], flags[-1]) == (True, False, True)
    assert bench.dial(Puppet(bench.key, seed=9).key)[0] == c.TYPE_INIT


def test_a_responder_asks_for_an_acknowledgement_until_it_has_one() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)

    def pings() -> int:
        (out,) = bench.feed(puppet.seal(b"\x01"))
        return parse_frames_untrusted(puppet.open(out.data)).count(Ping())

    assert [pings(), pings()] == [1, 1]
    bench.feed(puppet.seal(encode_ack([(1, 1)], 0.0)))
    assert [pings(), pings()] == [0, 0]
    session = bench.endpoint.connections()[0].session
    assert session.heard_by_peer
    assert session.packer.rtt.smoothed < c.INITIAL_RTT, "and it knows the round-trip time"


def test_what_the_application_answers_at_once_takes_the_acknowledgement_along() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    assert bench.feed(puppet.seal(encode_msg(b"question"))) == []
    (connection,) = bench.endpoint.connections()
    connection.send_message(b"answer")
    bench.endpoint.flush(connection)
    (out,) = bench.collect()
    frames = parse_frames_untrusted(puppet.open(out.data))
    assert [type(frame) for frame in frames] == [Ack, Msg], "one packet, which is acknowledged without a PING"


def test_a_responder_with_nothing_to_say_acknowledges_in_25_ms_and_asks_then() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    assert bench.feed(puppet.seal(encode_msg(b"question"))) == []
    assert bench.advance(c.MAX_ACK_DELAY - 0.001) == []
    (out,) = bench.advance(0.001)
    assert [type(frame) for frame in parse_frames_untrusted(puppet.open(out.data))] == [Ack, Ping]


@pytest.mark.parametrize("says", [True, False])
def test_the_first_packet_asks_for_an_acknowledgement_unless_something_in_it_does(says: bool) -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    resp = puppet.resp(bench.dial(puppet.key))
    bench.endpoint.receive(0, Train(Path(Puppet.SOURCE), (resp,), len(resp)), bench.now)
    if says:
        (connection,) = bench.endpoint.connections()
        connection.send_message(b"question")
    (out,) = bench.collect()
    assert [type(frame) for frame in parse_frames_untrusted(puppet.open(out.data))] == [Msg if says else Ping]
    (again,) = bench.advance(c.CONFIRM_SCHEDULE[0])[:1]
    assert [type(frame) for frame in parse_frames_untrusted(puppet.open(again.data))] == [Ping]


def test_what_is_answered_at_once_leaves_no_deadline_behind() -> None:
    """Else whoever keeps the time would be woken for each of them, for nothing."""
    bench = Bench()
    puppet = Puppet(bench.key)
    puppet.connect(bench)
    assert bench.feed(puppet.seal(b"\x01")), "an acknowledgement"
    due = bench.endpoint.timeout()
    assert due is not None
    assert due > bench.now


def test_an_unanswered_call_fails_with_its_stage() -> None:
    bench = Bench()
    bench.dial(Puppet(bench.key).key)
    bench.advance(c.HANDSHAKE_BUDGET)
    assert bench.events == [ConnectFailed(1, "nothing heard", None)]


# --- closing -----------------------------------------------------------------------------------------


def opened() -> tuple[Bench, Puppet, Connection]:
    bench = Bench()
    puppet = Puppet(bench.key)
    puppet.connect(bench)
    return bench, puppet, bench.endpoint.connections()[0]


def test_closing_twice_says_it_once() -> None:
    bench, _, connection = opened()
    bench.events.clear()
    for _ in range(2):
        bench.endpoint.close(connection, 3, "enough", bench.now)
    assert len(bench.collect()) == 1
    assert bench.events == [ConnectionClosed(connection, 3, "enough")]


@pytest.mark.parametrize("code", [-1, 65536])
def test_a_code_that_does_not_fit_is_refused_at_once(code: int) -> None:
    bench, _, connection = opened()
    with pytest.raises(UsageError, match="65535"):
        bench.endpoint.close(connection, code, "", bench.now)
    assert connection.closed is None


def test_what_is_queued_is_dropped_by_a_close_and_the_reason_is_cut() -> None:
    bench, puppet, connection = opened()
    connection.send_message(b"too late")
    bench.endpoint.close(connection, 0, "ä" * 200, bench.now)
    (datagram,) = bench.collect()
    assert parse_frames_untrusted(puppet.open(datagram.data)) == [Close(0, "ä" * 127)]


def test_a_closed_connection_leaves_nothing_behind() -> None:
    bench, puppet, _ = opened()
    bench.feed(puppet.seal(encode_close(0, "")))
    bench.advance(60.0)
    sizes = bench.endpoint.sizes()
    assert {name: size for name, size in sizes.items() if size} == {
        "answers": 1,
        "confirmed": 1,
        "answer-buckets": 1,
    }


def test_R8_two_servers_that_are_each_others_return_group_do_not_talk() -> None:
    """A RESP and a COOKIE that arrive at a responder end there."""
    bench, other = Bench(seed=1), Bench(seed=2)
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init(return_address=other.group))
    assert resp.destination == other.group
    assert other.feed(resp.data, source=bench.group) == []
    assert other.feed(resp.data) == []
    assert other.feed(wire.cookie_header(b"someones", bytes(16), bytes(32))) == []
    assert other.endpoint.counters == {"resp-unknown": 2, "cookie-unknown": 1}
