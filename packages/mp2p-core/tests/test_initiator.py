"""The initiator's half of the handshake, against a puppet (protocol section 4; rows H3, H4, H5, H8, H19, F5, P8)."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from mp2p_core.errors import UsageError
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import derive_group_v4, may_answer, pack_ipv4
from mp2p_core.proto.cookies import CookieJar
from mp2p_core.proto.events import Connected, ConnectFailed
from mp2p_core.proto.handshake import prologue
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.noise import IK, HandshakeState
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.testing.puppet import Bench, CountingSuite, Puppet, restamp
from mp2p_core.testing.simulation import Datagram, Simulation
from mp2p_core.transport import Path, Reach, Train

ELSEWHERE = pack_ipv4("198.51.100.66", 1024)
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
]


def dialing(seed: int = 0) -> tuple[Bench, Puppet, bytes]:
    bench = Bench(seed=seed)
    puppet = Puppet(bench.key)
    return bench, puppet, bench.dial(puppet.key)


def connected(bench: Bench) -> bool:
    return any(isinstance(event, Connected) for event in bench.events)


def failed(bench: Bench) -> list[ConnectFailed]:
    return [event for event in bench.events if isinstance(event, ConnectFailed)]


def cookie_for(init: bytes, puppet: Puppet, source: bytes, seed: int = 0) -> bytes:
    jar = CookieJar(puppet.key.raw, random.Random(seed).randbytes, 0.0)
    return jar.seal(init, wire.init_fields(init), source, 0.0)


def forged(resp: bytes, bench: Bench, n: int) -> bytes:
    """Right id, right mac1, and a body that is not from the peer."""
    return restamp(resp[:12] + random.Random(n).randbytes(128) + bytes(16), bench.key)


def inits(out: list[Datagram]) -> list[bytes]:
    assert all(datagram.data[0] == c.TYPE_INIT for datagram in out)
    return [datagram.data for datagram in out]


# --- the schedule ------------------------------------------------------------------------------------


def test_the_schedule_of_a_dial_that_nobody_answers() -> None:
    bench, _, first = dialing()
    began, sent = bench.now, [(0.0, first)]
    while not failed(bench):
        when = bench.endpoint.timeout()
        assert when is not None
        sent += [(when - began, init) for init in inits(bench.advance(when - bench.now))]
    assert bench.now - began == c.HANDSHAKE_BUDGET
    assert failed(bench) == [ConnectFailed(1, "nothing heard", None)]
    rounds: dict[bytes, list[float]] = {}
    for at, init in sent:
        rounds.setdefault(init, []).append(at)
    assert len(rounds) in (4, 5)
    starts = [times[0] for times in rounds.values()]
    for times in list(rounds.values())[:-1]:
        waits = [after - before for before, after in pairwise(times)]
        for wait, nominal in zip(waits, (0.5, 1.0, 2.0), strict=True):
            assert 0.8 * nominal <= wait <= 1.2 * nominal
    for before, after in pairwise(starts):
        assert 4.0 <= after - before <= 6.0
    assert bench.advance(60.0) == []
    assert bench.endpoint.sizes()["attempts"] == bench.endpoint.sizes()["dials"] == 0


def test_waits_vary_from_dial_to_dial() -> None:
    waits = set()
    for seed in range(20):
        bench, _, _ = dialing(seed)
        when = bench.endpoint.timeout()
        assert when is not None
        waits.add(round(when - bench.now, 6))
    assert len(waits) > 15
    assert all(0.4 <= wait <= 0.6 for wait in waits)


def test_a_fresh_init_shares_nothing_with_the_last_one() -> None:
    bench, puppet, first = dialing()
    *_, fresh = inits(bench.advance(6.0))
    assert fresh[4:12] != first[4:12], "id"
    assert fresh[32:64] != first[32:64], "e"
    told = [_payload(puppet, init) for init in (first, fresh)]
    assert told[0].timestamp < told[1].timestamp
    assert told[0].return_address == told[1].return_address == bench.group
    assert (told[0].token, told[0].continues, told[0].version) == (bytes(16), False, c.VERSION)


def _payload(puppet: Puppet, init: bytes) -> wire.InitPayload:
    noise = HandshakeState(IK, initiator=False, prologue=prologue(puppet.key.raw, init[:32]), s=puppet.own)
    return wire.parse_init_payload_untrusted(noise.read_message_untrusted(init[wire.INIT_NOISE]))


def test_the_deadline_is_the_callers() -> None:
    bench = Bench()
    bench.dial(Puppet(bench.key).key, timeout=0.3)
    bench.advance(0.29)
    assert failed(bench) == []
    bench.advance(0.02)
    assert len(failed(bench)) == 1


def test_a_dial_can_be_cancelled() -> None:
    bench, puppet, init = dialing()
    bench.endpoint.cancel(1)
    bench.endpoint.cancel(1)
    assert bench.feed(puppet.resp(init)) == []
    assert bench.endpoint.counters["resp-unknown"] == 1
    assert bench.advance(30.0) == []
    assert bench.events == []


def test_a_node_does_not_call_itself_or_nobody() -> None:
    bench = Bench()
    with pytest.raises(UsageError, match="own key"):
        bench.dial(bench.key)
    with pytest.raises(UsageError, match="address"):
        bench.endpoint.connect(Puppet(bench.key).key, [], timestamp=1, timeout=1.0, now=0.0)


# --- answers -----------------------------------------------------------------------------------------


def test_a_resp_connects_and_data_0_goes_out_at_once() -> None:
    bench, puppet, init = dialing()
    (data,) = bench.feed(puppet.resp(init))
    assert connected(bench)
    assert data.data[0] == c.TYPE_DATA
    assert puppet.open(data.data) == b"\x01"
    assert bench.endpoint.connections()[0].session.handshake_hash == puppet.handshake_hash


def test_P8_every_bit_of_a_resp_counts() -> None:
    """Also when the attacker puts mac1 right again."""
    bench, puppet, init = dialing()
    resp = puppet.resp(init)
    for bit in range(len(resp) * 8):
        edited = bytearray(resp)
        edited[bit // 8] ^= 1 << bit % 8
        assert bench.feed(bytes(edited)) == []
        if bit < 140 * 8:
            bench.now += 1.0  # a token for the one key exchange that it gets
            assert bench.feed(restamp(bytes(edited), bench.key)) == []
    assert not connected(bench)
    bench.now += 1.0
    bench.feed(resp)
    assert connected(bench)


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("source", [ELSEWHERE, Puppet.SOURCE], ids=["own source", "the peer's source"])
def test_H3_forged_answers_before_the_genuine_one(count: int, source: bytes) -> None:
    """They cost at most 20 key exchanges a second, and the handshake completes: with a repeat at the latest."""
    suite = CountingSuite()
    bench = Bench(suite=suite.suite)
    puppet = Puppet(bench.key)
    init = bench.dial(puppet.key)
    genuine = puppet.resp(init)
    suite.exchanges = 0
    for n in range(count):
        assert bench.feed(forged(genuine, bench, n), source=source) == []
    assert suite.exchanges <= 2 * c.INITIATOR_DH_RATE
    bench.feed(genuine)
    if not connected(bench):
        assert count == 1000
        assert source == Puppet.SOURCE, "only the peer's own source can be used up"
        (again,) = inits(bench.advance(0.6))
        assert again == init
        bench.feed(genuine)
    assert connected(bench)


def test_H3_no_second_sees_more_than_20_attempts() -> None:
    suite = CountingSuite()
    bench = Bench(suite=suite.suite)
    puppet = Puppet(bench.key)
    resp = puppet.resp(bench.dial(puppet.key))
    suite.exchanges = 0
    attempts: list[float] = []
    for n in range(3000):
        bench.now += 0.001
        before = suite.exchanges
        source = pack_ipv4(f"10.0.{n >> 8}.{n & 255}", 1024)
        assert bench.feed(forged(resp, bench, n), source=source) == []
        if suite.exchanges > before:
            assert suite.exchanges - before == 2, "ee and se"
            attempts.append(bench.now)
    for first, after in zip(attempts, attempts[20:], strict=False):
        assert after - first >= 1.0 - 1e-6
    assert len(attempts) > 30


def test_H4_an_answer_to_another_handshake() -> None:
    bench, puppet, init = dialing()
    other = Bench(seed=3, identity=bench.identity)
    stray = puppet.resp(other.dial(puppet.key))
    assert bench.feed(stray) == []
    assert bench.endpoint.counters["resp-unknown"] == 1
    renamed = restamp(stray[:4] + init[4:12] + stray[12:], bench.key)
    assert bench.feed(renamed) == []
    assert bench.endpoint.counters["resp-forged"] == 1
    bench.feed(puppet.resp(init))
    assert connected(bench)


def test_H4_the_own_init_sent_back() -> None:
    bench, puppet, init = dialing()
    assert bench.feed(init) == []
    assert bench.endpoint.counters["init-mac1"] == 1
    assert bench.feed(restamp(init, bench.key)) == []
    assert bench.endpoint.counters["init-forged"] == 1
    bench.feed(puppet.resp(init))
    assert connected(bench)


def test_an_answer_on_another_channel_is_not_taken() -> None:
    bench, puppet, init = dialing()
    bench.endpoint.add_channel(1, ChannelInfo(bench.group, 1200, may_answer))
    resp = puppet.resp(init)
    bench.endpoint.receive(1, Train(Path(Puppet.SOURCE, bench.group, 1), (resp,), len(resp)), bench.now)
    assert bench.collect() == []
    assert bench.endpoint.counters["resp-unknown"] == 1


def test_an_answer_by_another_key_is_named_in_the_error() -> None:
    bench, puppet, init = dialing()
    bench.feed(forged(puppet.resp(init), bench, 1))
    bench.advance(20.0)
    assert failed(bench) == [ConnectFailed(1, "answered by another key", None)]


@pytest.mark.parametrize("public", LOW_ORDER, ids=lambda public: public.hex()[:8])
def test_H8_an_answer_with_a_low_order_e(public: bytes) -> None:
    bench, puppet, init = dialing()
    resp = puppet.resp(init)
    assert bench.feed(restamp(resp[:12] + public + resp[44:], bench.key)) == []
    assert bench.endpoint.counters["resp-forged"] == 1
    bench.feed(resp)
    assert connected(bench)


@pytest.mark.parametrize(
    ("status", "word"), [(c.STATUS_BUSY, "busy"), (c.STATUS_VERSION, "no common version"), (77, "status 77")]
)
def test_a_refusal_by_the_peer_itself(status: int, word: str) -> None:
    bench, puppet, init = dialing()
    assert bench.feed(puppet.resp(init, status=status)) == []
    (failure,) = failed(bench)
    assert failure.stage == "answered"
    assert failure.refusal is not None
    assert word in failure.refusal
    assert bench.advance(30.0) == []


@pytest.mark.parametrize(
    "options", [{"max_payload": 1199}, {"max_payload": 0}, {"address": bytes([4, 1]) + bytes(18)}]
)
def test_an_answer_that_is_genuine_and_nonsense(options: dict[str, int]) -> None:
    bench, puppet, init = dialing()
    assert bench.feed(puppet.resp(init, **options)) == []  # type: ignore[arg-type]  # a table of keyword arguments
    assert not connected(bench)


def test_R6_data_goes_where_the_init_went_whatever_the_answer_says() -> None:
    bench, puppet, init = dialing()
    out = bench.feed(puppet.resp(init, address=pack_ipv4("203.0.113.9", 53)), source=ELSEWHERE)
    out += bench.advance(5.0)
    assert {datagram.destination for datagram in out} == {_group_of(puppet)}


def _group_of(puppet: Puppet) -> bytes:
    return derive_group_v4(puppet.key.raw, Reach.GLOBAL, c.DEFAULT_PORT)


def test_the_first_of_two_answers_wins_and_the_second_is_silent() -> None:
    """Two processes that share the peer's identity both answer (row Y6)."""
    bench, puppet, init = dialing()
    twin = Puppet(bench.key, seed=2, identity=puppet.own)
    first, second = puppet.resp(init), twin.resp(init)
    bench.feed(first)
    assert bench.feed(second) == []
    assert bench.endpoint.counters["resp-unknown"] == 1
    assert len(bench.endpoint.connections()) == 1


# --- cookies -----------------------------------------------------------------------------------------


def test_a_cookie_is_answered_at_once_with_the_same_init() -> None:
    bench, puppet, init = dialing()
    (again,) = inits(bench.feed(cookie_for(init, puppet, bench.group)))
    assert again[:240] == init[:240], "byte-identical except mac2"
    jar = CookieJar(puppet.key.raw, random.Random(0).randbytes, 0.0)
    assert jar.accepts(again, wire.init_fields(again), bench.group, 0.0)
    assert inits(bench.advance(1.9))[0] == again, "and so are the repeats"
    bench.feed(puppet.resp(again))
    assert connected(bench)


def test_F5_a_cookie_of_somebody_who_saw_nothing_is_ignored() -> None:
    bench, puppet, init = dialing()
    for edited in (init[:100] + b"!" + init[101:], init[:4] + b"12345678" + init[12:]):
        stray = cookie_for(restamp(edited, puppet.key), puppet, bench.group)
        assert bench.feed(stray[:4] + init[4:12] + stray[12:]) == []
        assert bench.feed(stray) == []
    (repeat,) = inits(bench.advance(0.6))
    assert repeat == init, "no mac2"


def test_F5_a_forged_cookie_costs_one_wrong_mac2() -> None:
    """Whoever saw the INIT can forge one. The genuine one that follows counts from the next INIT on."""
    bench, puppet, init = dialing()
    (wrong,) = inits(bench.feed(cookie_for(init, puppet, bench.group, seed=666)))
    genuine = cookie_for(init, puppet, bench.group)
    assert bench.feed(genuine) == [], "answered once a round, so that COOKIEs cannot make it send"
    jar = CookieJar(puppet.key.raw, random.Random(0).randbytes, 0.0)
    assert not jar.accepts(wrong, wire.init_fields(wrong), bench.group, 0.0)
    (right,) = inits(bench.advance(0.6))
    assert jar.accepts(right, wire.init_fields(right), bench.group, 0.0)
    bench.feed(puppet.resp(right))
    assert connected(bench)


def test_R8_cookies_and_answers_are_never_answered_with_more_than_one_datagram() -> None:
    bench, puppet, init = dialing()
    out: list[Datagram] = []
    for n in range(200):
        out += bench.feed(cookie_for(init, puppet, bench.group, seed=n))
    assert len(out) == 1


def hints(bench: Bench, puppet: Puppet, rounds: int, cookies_in: set[int]) -> list[bool]:
    """Which rounds of a dial carry a hint, when COOKIEs come in some of them."""
    found = []
    init = bench.dial(puppet.key, timeout=1000.0)
    for number in range(rounds):
        header = wire.init_fields(init)
        assert header.hint in (None, bench.group)
        found.append(header.hint is not None)
        if number in cookies_in:
            jar = CookieJar(puppet.key.raw, random.Random(0).randbytes, 0.0)
            bench.feed(jar.seal(init, header, bench.group, 0.0))
        this = init[4:12]
        while init[4:12] == this:
            when = bench.endpoint.timeout()
            assert when is not None
            (init,) = inits(bench.advance(when - bench.now))
        fresh = wire.init_fields(init)
        if init[240:] != bytes(16):
            jar = CookieJar(puppet.key.raw, random.Random(0).randbytes, 0.0)
            assert jar.accepts(init, fresh, bench.group, 0.0), (
                "a cookie is used for the hint it was given for"
            )
    return found


@pytest.mark.parametrize(
    ("cookies_in", "expected"),
    [
        (set(), [False, True, False, True, False]),
        ({0}, [False, False, True, False, True]),
        ({1}, [False, True, True, False, True]),
        ({0, 1, 2, 3}, [False, False, True, True, False]),
    ],
    ids=["none", "in the first round", "to the hint", "in every round, as a forger would"],
)
def test_hints_and_cookies_go_together(cookies_in: set[int], expected: list[bool]) -> None:
    """A first INIT carries no hint; a cookie is kept with its hint, once; no forger stops the other way."""
    bench = Bench()
    assert hints(bench, Puppet(bench.key), 5, cookies_in) == expected


def test_a_node_without_a_return_address_gives_no_hint() -> None:
    bench = Bench(group=wire.NO_ADDRESS)
    assert hints(bench, Puppet(bench.key), 3, set()) == [False, False, False]


# --- randomness --------------------------------------------------------------------------------------


def test_H19_a_random_source_that_repeats_is_noticed() -> None:
    """The nonce recorder of the simulation is what sees it: one e twice is one key twice."""
    sim = Simulation(1)
    b = sim.add_node("b")
    stuck = random.Random(5)

    def broken(n: int) -> bytes:
        stuck.seed(5)
        return stuck.randbytes(n)

    a = sim.add_node("a", random_bytes=broken, identity=Identity.from_seed(b"a" * 32))
    sim.connect(a, b)
    assert sim.run_until(lambda: b.accepted, 20)
    assert sim.nonces.repeats == 0
    sim.connect(a, b)
    sim.run(1.0)
    assert sim.nonces.repeats > 0, "the same e sealed two different payloads"


def test_H19_an_honest_source_repeats_nothing() -> None:
    sim = Simulation(1)
    a, b = sim.add_node("a"), sim.add_node("b")
    for _ in range(20):
        sim.connect(a, b)
        sim.run(2.0)
    assert len(b.accepted) == 20
    assert sim.nonces.repeats == 0
