"""The responder's nine steps, against a puppet (protocol sections 4 and 5).

Rows P1, P2, P4, P8, P10, H5 to H8, H11 to H13, Y3 to Y5, R2 to R4, R7, F1 to F4.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import derive_group_v4, pack_ipv4, pack_ipv6
from mp2p_core.proto.events import Accepted
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.testing.puppet import Bench, CountingSuite, Puppet, restamp
from mp2p_core.testing.simulation import AllowKeys, Datagram
from mp2p_core.transport import Address, Path, Reach, Train

GROUP = pack_ipv4("224.0.230.7", 2000)
LOW_ORDER = [
    bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"), (2**255 - 18).to_bytes(32, "little"), b"\xff" * 32,
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]  # fmt: skip


def bench_with(suite: CountingSuite | None = None, **options: object) -> Bench:
    if suite is not None:
        options["suite"] = suite.suite
    return Bench(**options)  # type: ignore[arg-type]  # passed through as they are


def kinds(out: list[Datagram]) -> list[int]:
    return [datagram.data[0] for datagram in out]


def source_of(n: int) -> Address:
    """Another /24 for every number."""
    return pack_ipv4(f"{20 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.9", 4000)


def load(bench: Bench, puppet: Puppet | None = None) -> None:
    """Bring the responder under load: garbage that anybody who knows its key can send."""
    for n in range(26):
        bench.feed(garbage(bench, n), source=source_of(5000 + n))


def garbage(bench: Bench, n: int) -> bytes:
    """Right mac1, and nothing behind it."""
    body = random.Random(n).randbytes(192)
    return restamp(wire.init_header(body[:8], None) + body + bytes(32), bench.key)


class NoSecret:
    """A static key pair of an attacker who has only the public half, or a public half of no use."""

    def __init__(self, public: bytes, exchange: Callable[[bytes], bytes] = lambda _: bytes(32)) -> None:
        self.dh_public = public
        self.exchange = exchange


# --- steps 1 and 2 -----------------------------------------------------------------------------------


def test_P1_the_empty_datagram_and_every_single_byte() -> None:
    bench = Bench()
    sizes = bench.endpoint.sizes()
    for datagram in (b"", *(bytes([value]) for value in range(256))):
        assert bench.feed(datagram) == []
    assert sum(bench.endpoint.counters.values()) == 257, "one counter each"
    assert bench.endpoint.sizes() == sizes
    assert bench.endpoint.timeout() is None


def test_P2_every_length_of_every_kind() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    init = puppet.init()
    resp = wire.resp_header(puppet.receive_id) + bytes(144)
    cookie = wire.cookie_header(puppet.receive_id, bytes(16), bytes(32))
    for size in range(301):
        if size == 256:
            continue
        for packet in (init, resp, cookie):
            assert bench.feed((packet + bytes(60))[:size]) == []
    counters = bench.endpoint.counters
    assert counters["init-malformed"] == 299, "the empty one has no kind"
    assert (counters["resp-malformed"], counters["resp-unknown"]) == (298, 1)
    assert (counters["cookie-malformed"], counters["cookie-unknown"]) == (298, 1)
    assert kinds(bench.feed(init)) == [c.TYPE_RESP]


@pytest.mark.parametrize("at", [*range(4), *range(12, 32)])
def test_P4_header_bytes_that_are_not_right(at: int) -> None:
    bench = Bench()
    init = Puppet(bench.key).init()
    for value in set(range(256)) - {init[at]}:
        edited = init[:at] + bytes([value]) + init[at + 1 :]
        if at == 2 and value == wire.FLAG_HINT:
            edited = edited[:12] + bytes(20) + edited[32:]  # a hint of kind zero
        assert bench.feed(restamp(edited, bench.key)) == []
    assert bench.endpoint.sizes()["half-open"] == 0


@pytest.mark.parametrize("suite", [0, 2, 3, 255])
def test_D2_H14_another_suite_is_not_spoken(suite: int) -> None:
    bench = Bench()
    init = Puppet(bench.key).init()
    assert bench.feed(restamp(init[:1] + bytes([suite]) + init[2:], bench.key)) == []
    assert bench.endpoint.counters["init-malformed"] == 1


def test_F1_foreign_data_and_foreign_inits_cost_no_key_exchange_and_leave_nothing() -> None:
    suite = CountingSuite()
    bench = bench_with(suite)
    sizes = bench.endpoint.sizes()
    draw = random.Random(1)
    foreign = Puppet(Identity.from_seed(b"f" * 32).public).init()
    for _ in range(2000):
        assert bench.feed(b"\x14\0" + draw.randbytes(60)) == []
        assert bench.feed(foreign[:224] + draw.randbytes(32)) == []
        assert bench.feed(foreign) == []
    assert suite.exchanges == 0
    assert bench.endpoint.counters == {"data-unknown": 2000, "init-mac1": 4000}
    assert bench.endpoint.sizes() == sizes
    assert bench.endpoint.timeout() is None


# --- the transcript ----------------------------------------------------------------------------------


def test_P8_every_bit_of_an_init_counts() -> None:
    """Edits of mac2 alone are the exception: it says nothing while there is no load."""
    bench = Bench()
    init = Puppet(bench.key).init()
    for bit in range(240 * 8):
        edited = bytearray(init)
        edited[bit // 8] ^= 1 << bit % 8
        assert bench.feed(bytes(edited)) == []
        bench.now += 0.1
        if bit < 224 * 8:
            assert bench.feed(restamp(bytes(edited), bench.key)) == []
    assert bench.endpoint.sizes()["half-open"] == bench.endpoint.sizes()["answers"] == 0
    assert kinds(bench.feed(init)) == [c.TYPE_RESP]


@pytest.mark.parametrize("field", ["hint flag", "receive id", "hint"])
def test_H5_an_edited_header_does_not_verify(field: str) -> None:
    """The fields that pass step 1 are bound by the prologue."""
    bench = Bench()
    puppet = Puppet(bench.key)
    plain, hinted = puppet.init(), puppet.init(hint=GROUP)
    edited = {
        "hint flag": plain[:2] + b"\x01" + plain[3:12] + GROUP + plain[32:],
        "receive id": plain[:4] + b"another!" + plain[12:],
        "hint": hinted[:12] + pack_ipv4("224.0.230.8", 2000) + hinted[32:],
    }[field]
    assert bench.feed(restamp(edited, bench.key)) == []
    assert bench.endpoint.counters["init-forged"] == 1
    dropped = hinted[:2] + b"\0" + hinted[3:12] + bytes(20) + hinted[32:]
    assert bench.feed(restamp(dropped, bench.key)) == []
    assert bench.endpoint.counters["init-forged"] == 2


def test_H6_dialing_the_negative_of_the_key() -> None:
    """-R has the same X25519 key: only the prologue tells them apart."""
    bench = Bench()
    negative = PublicKey(bench.key.raw[:31] + bytes([bench.key.raw[31] ^ 0x80]))
    assert negative.x25519 == bench.key.x25519
    puppet = Puppet(bench.key)
    assert bench.feed(puppet.init(dials=negative.raw)) == []
    assert bench.endpoint.counters["init-forged"] == 1
    assert kinds(bench.feed(puppet.init())) == [c.TYPE_RESP]


def test_H6_the_label_is_part_of_the_transcript() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    assert bench.feed(puppet.init(dials=b"x" + bench.key.raw)) == []
    assert bench.endpoint.counters["init-forged"] == 1


def test_H7_a_claim_to_another_key() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    victim = Identity.from_seed(b"v" * 32).public
    assert bench.feed(puppet.init(claims=victim.raw)) == []
    assert bench.endpoint.counters["init-identity"] == 1
    assert bench.events == []


def test_H7_the_negative_of_the_own_key_is_another_name() -> None:
    """It fits the equation, and is the claimant's own: so it is a name of its own, never the first one."""
    puppet_identity = Identity.from_seed(b"n" * 32)
    negative = puppet_identity.public.raw[:31] + bytes([puppet_identity.public.raw[31] ^ 0x80])
    bench = Bench(access=AllowKeys(puppet_identity.public))
    puppet = Puppet(bench.key, identity=puppet_identity)
    assert bench.feed(puppet.init(claims=negative)) == []
    assert bench.endpoint.counters["init-not-allowed"] == 1


@pytest.mark.parametrize("y", [1, 0, 2**255 - 20], ids=["neutral", "order 4", "order 2"])
def test_H7_a_claim_to_a_key_of_small_order(y: int) -> None:
    bench = Bench()
    assert bench.feed(Puppet(bench.key).init(claims=y.to_bytes(32, "little"))) == []
    assert bench.endpoint.counters["init-identity"] == 1


def test_a_key_that_fits_and_is_no_good() -> None:
    """The equation holds for a static key outside the prime-order subgroup; the key check refuses it."""
    identity = Identity.from_seed(b"t" * 32)
    # A good key plus the point of order 2. Clamped scalars are multiples of 8, so every exchange with it gives
    # what the good key gives, and the attacker knows that one's secret.
    p = 2**255 - 19
    mixed = _mixed_with_order_two(identity.public.x25519, p)
    assert X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(mixed))
    u = int.from_bytes(mixed, "little")
    y = (u - 1) * pow(u + 1, -1, p) % p
    bench = Bench()
    puppet = Puppet(bench.key, identity=identity, static=NoSecret(mixed, identity.exchange))
    assert bench.feed(puppet.init(claims=y.to_bytes(32, "little"))) == []
    assert bench.endpoint.counters["init-bad-key"] == 1


def _mixed_with_order_two(u: bytes, p: int) -> bytes:
    """Add the point (0, 0) of order 2: on a Montgomery curve that is u -> 1/u."""
    return pow(int.from_bytes(u, "little"), -1, p).to_bytes(32, "little")


@pytest.mark.parametrize("public", LOW_ORDER, ids=lambda public: public.hex()[:8])
def test_H8_a_low_order_e(public: bytes) -> None:
    suite = CountingSuite()
    bench = bench_with(suite)
    init = Puppet(bench.key).init()
    assert bench.feed(restamp(init[:32] + public + init[64:], bench.key)) == []
    assert bench.endpoint.counters["init-forged"] == 1
    assert suite.exchanges == 1


@pytest.mark.parametrize("public", LOW_ORDER, ids=lambda public: public.hex()[:8])
def test_H8_a_low_order_s(public: bytes) -> None:
    """Properly encrypted, and the result of its exchange with anything is known to be zero."""
    bench = Bench()
    puppet = Puppet(bench.key, static=NoSecret(public))
    for claim in (puppet.key.raw, public):
        bench.now += 1
        assert bench.feed(puppet.init(claims=claim)) == []
    counters = bench.endpoint.counters
    assert counters["init-forged"] == 2
    assert bench.endpoint.sizes()["half-open"] == 0


def test_H12_whoever_stole_the_responders_key_cannot_be_somebody_else_to_it() -> None:
    """Key compromise impersonation: the INIT can be forged, the confirmation cannot."""
    bench = Bench()
    victim = Identity.from_seed(b"v" * 32).public
    stolen = NoSecret(victim.x25519, lambda _: bench.identity.exchange(victim.x25519))
    puppet = Puppet(bench.key, static=stolen)
    (resp,) = bench.feed(puppet.init(claims=victim.raw))
    assert resp.data[0] == c.TYPE_RESP, "nothing is wrong with it so far"
    assert restamp(resp.data, victim) == resp.data, "and the RESP is for the victim"
    puppet.key = victim  # so that it passes mac1
    with pytest.raises(BadPacket, match="verify"):
        puppet.read_resp(resp.data)
    for n in range(50):
        data = b"\x14\0" + random.Random(n).randbytes(60)
        assert bench.feed(data) == []
    bench.advance(c.HALF_OPEN_LIFE + 1)
    assert bench.events == []
    assert bench.endpoint.sizes()["sessions"] == 0


# --- who may come in ---------------------------------------------------------------------------------


def test_H13_a_stranger_costs_one_key_exchange_and_hears_nothing() -> None:
    suite = CountingSuite()
    friend = Identity.from_seed(b"f" * 32)
    bench = bench_with(suite, access=AllowKeys(friend.public))
    assert bench.feed(Puppet(bench.key).init()) == []
    assert suite.exchanges == 1
    assert bench.endpoint.counters["init-not-allowed"] == 1
    assert kinds(bench.feed(Puppet(bench.key, identity=friend).init())) == [c.TYPE_RESP]
    assert suite.exchanges == 5


def test_H13_nor_does_a_stranger_hear_it_when_all_is_full_or_there_is_load() -> None:
    """'Busy' is for friends; a COOKIE is for everybody and says nothing of the list."""
    friend = Identity.from_seed(b"f" * 32)
    bench = Bench(access=AllowKeys(friend.public))
    load(bench)
    stranger = Puppet(bench.key)
    init = stranger.init()
    (cookie,) = bench.feed(init)
    assert cookie.data[0] == c.TYPE_COOKIE
    assert bench.feed(stranger.with_cookie(init, cookie.data)) == []


def test_the_exact_key_is_asked_for_even_when_its_x25519_half_is_known() -> None:
    friend = Identity.from_seed(b"f" * 32)
    negative = PublicKey(friend.public.raw[:31] + bytes([friend.public.raw[31] ^ 0x80]))
    bench = Bench(access=AllowKeys(negative))
    assert bench.feed(Puppet(bench.key, identity=friend).init()) == []
    assert bench.endpoint.counters["init-not-allowed"] == 1


def test_H11_nothing_but_the_one_answer_leaves_before_confirmation() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    out = bench.feed(puppet.init())
    assert kinds(out) == [c.TYPE_RESP]
    assert bench.events == []
    assert bench.endpoint.connections() == [], "there is nothing to send on"
    assert bench.advance(c.HALF_OPEN_LIFE + 1) == []
    assert bench.events == []


def test_the_first_packet_confirms_and_only_a_genuine_one() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    (resp,) = bench.feed(puppet.init())
    puppet.read_resp(resp.data)
    confirm = puppet.seal(b"\x01")
    for edited in (confirm[:-1] + b"!", confirm[:20], confirm[:10] + bytes(8) + bytes(17)):
        assert bench.feed(edited) == []
    assert bench.events == []
    assert len(bench.feed(confirm)) == 1
    (event,) = bench.events
    assert isinstance(event, Accepted)
    assert event.connection.peer == puppet.key
    assert event.connection.session.handshake_hash == puppet.handshake_hash


# --- where answers go --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        pack_ipv4("203.0.113.9", 4000),
        pack_ipv4("127.0.0.1", 4000),
        pack_ipv4("255.255.255.255", 4000),
        pack_ipv4("0.0.0.0", 4000),
        pack_ipv4("192.0.2.7", 0),
        pack_ipv4("224.0.0.1", 4000),
        pack_ipv4("224.0.0.251", 5353),
        pack_ipv4("239.255.255.250", 53),
        pack_ipv4("224.0.230.7", 53),
        pack_ipv4("224.0.223.255", 4000),
        pack_ipv6("ff02::1", 4000),
        pack_ipv6("ff1e::8000:1", 4000),
        pack_ipv6("2001:db8::1", 4000),
        b"\x07" + pack_ipv4("192.0.2.7", 40000)[1:],
        b"\x06" + pack_ipv4("192.0.2.7", 40000)[1:],
        b"\x00" + pack_ipv4("192.0.2.7", 40000)[1:],
        b"\x80" + pack_ipv4("192.0.2.7", 40000)[1:],
    ],
    ids=bytes.hex,
)
def test_R2_a_return_address_or_hint_that_policy_refuses(address: Address) -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    assert bench.feed(puppet.init(return_address=address)) == []
    assert bench.endpoint.counters["init-return-address"] == 1
    assert bench.endpoint.sizes()["half-open"] == 0
    load(bench)
    if address[0]:
        assert bench.feed(puppet.init(hint=address)) == []
        assert bench.endpoint.counters["init-hint"] == 1


V6_SOURCE, V6_LINK = pack_ipv6("fe80::9", 4000), pack_ipv6("ff12::8000:1", 1024)


@pytest.mark.parametrize(
    ("answer_to", "arrived_at"),
    [
        (pack_ipv6("ff0e::8000:2", 4000), None),
        (pack_ipv6("ff7e::8000:2", 4000), None),
        (pack_ipv6("ff02::1", 4000), None),
        (pack_ipv6("ff3e:41:2001:db8::8000:2", 4000), None),
        (pack_ipv6("ff3e:ff:2001:db8::8000:2", 4000), None),
        (pack_ipv6("ff1e::8000:2", 53), None),
        (pack_ipv6("ff1e::8000:2", 4000), V6_LINK),
        (pack_ipv6("ff15::8000:2", 4000), V6_LINK),
    ],
    ids=lambda value: value.hex()[:24] if value else "",
)
def test_R2_in_ipv6_and_wider_than_the_request(answer_to: Address, arrived_at: Address | None) -> None:
    bench = Bench(group=pack_ipv6("ff1e::8000:1", 1024))
    init = Puppet(bench.key).init(return_address=answer_to)
    assert bench.feed(init, source=V6_SOURCE, to=arrived_at) == []
    assert bench.endpoint.counters["init-return-address"] == 1
    good = Puppet(bench.key, seed=2).init(return_address=pack_ipv6("ff12::8000:2", 4000))
    (resp,) = bench.feed(good, source=V6_SOURCE, to=arrived_at)
    assert resp.destination == pack_ipv6("ff12::8000:2", 4000)


@pytest.mark.parametrize(
    "source", [pack_ipv4("224.0.230.9", 4000), pack_ipv4("255.255.255.255", 4000), pack_ipv4("0.0.0.0", 4000)],
    ids=["a group", "broadcast", "nowhere"],
)  # fmt: skip
def test_P10_a_source_that_is_no_host_is_not_answered(source: Address) -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    assert bench.feed(puppet.init(), source=source) == []
    assert bench.endpoint.counters["init-return-address"] == 1
    load(bench)
    assert bench.feed(puppet.init(), source=source) == []
    assert bench.endpoint.counters["init-source"] == 1


def test_answers_go_where_they_may() -> None:
    bench = Bench()
    for n, (asked, goes) in enumerate(
        [
            (wire.NO_ADDRESS, Puppet.SOURCE),
            (Puppet.SOURCE[:2] + (5000).to_bytes(2, "big") + Puppet.SOURCE[4:], None),
            (GROUP, None),
        ]
    ):
        (resp,) = bench.feed(Puppet(bench.key, seed=n).init(return_address=asked))
        assert resp.destination == (goes or asked)
        assert len(resp.data) < c.INIT_SIZE


def test_R3_answers_to_one_address_are_rare_and_small() -> None:
    """Valid INITs at 1000/s that name one group: never more than 10 answers in a second, smaller than asked."""
    bench = Bench()
    answers: list[float] = []
    for n in range(2500):
        bench.now += 0.001
        puppet = Puppet(bench.key, seed=n)
        out = bench.feed(puppet.init(return_address=GROUP), source=source_of(n))
        answers += [bench.now] * sum(datagram.destination == GROUP for datagram in out)
        assert sum(len(datagram.data) for datagram in out) <= c.INIT_SIZE
    for first, after in zip(answers, answers[10:], strict=False):
        assert after - first >= 1.0 - 1e-6
    assert len(answers) >= 15


def test_R4_a_client_that_never_confirms_gets_one_answer_for_each_init() -> None:
    bench = Bench()
    out: list[Datagram] = []
    for n in range(20):
        out += bench.feed(Puppet(bench.key, seed=n).init())
        out += bench.advance(2.0)
    out += bench.advance(60.0)
    assert kinds(out) == [c.TYPE_RESP] * 20
    assert bench.events == []


def test_R7_hints_cannot_be_aimed_and_are_few() -> None:
    """Under load, 1000/s INITs whose hints name groups: at most 50 COOKIEs in a second, 2 to each."""
    bench = Bench()
    load(bench)
    sent: list[tuple[float, Address]] = []
    for n in range(3000):
        bench.now += 0.001
        victim = pack_ipv4(f"224.0.230.{n % 60}", 2000)
        init = Puppet(bench.key, seed=n).init(hint=victim)
        out = bench.feed(init, source=source_of(n))
        for datagram in out:
            if datagram.data[0] == c.TYPE_COOKIE:
                assert len(datagram.data) == 60
                assert datagram.destination == victim
                sent.append((bench.now, datagram.destination))
        if n % 20 == 0:
            bench.feed(garbage(bench, n), source=source_of(n))
    cookies = [at for at, _ in sent]
    for first, after in zip(cookies, cookies[50:], strict=False):
        assert after - first >= 1.0 - 1e-6
    for victim in {to for _, to in sent}:
        mine = [at for at, to in sent if to == victim]
        for first, after in zip(mine, mine[2:], strict=False):
            assert after - first >= 1.0 - 1e-6
    assert len(sent) > 30


def test_cookies_to_one_source_and_in_all_are_limited() -> None:
    bench = Bench()
    load(bench)
    init = Puppet(bench.key).init()
    assert sum(len(bench.feed(init)) for _ in range(100)) <= 10
    assert sum(len(bench.feed(init, source=source_of(n))) for n in range(3000)) <= 2000


# --- step 3: recordings ------------------------------------------------------------------------------


def test_Y3_a_recorded_init_gets_the_same_answer_up_to_8_times() -> None:
    suite = CountingSuite()
    bench = bench_with(suite)
    puppet = Puppet(bench.key)
    init = puppet.init()
    (first,) = bench.feed(init)
    spent = suite.exchanges
    assert bench.feed(init) == [], "at least 200 ms apart"
    again: list[Datagram] = []
    for _ in range(290):
        bench.now += 0.1
        again += bench.feed(init[:240] + random.Random(bench.now).randbytes(16))
    assert len(again) == c.ANSWER_REPEATS
    assert {datagram.data for datagram in again} == {first.data}
    assert suite.exchanges == spent, "and no key exchange"
    assert bench.endpoint.counters["init-answered"] == 1
    assert bench.endpoint.sizes()["answers"] == 1


def test_Y3_a_recording_cannot_lead_the_answer_elsewhere() -> None:
    bench = Bench()
    init = Puppet(bench.key).init(return_address=GROUP)
    bench.feed(init, source=source_of(1), interface=1)
    bench.now += 0.5
    (again,) = bench.feed(init, source=source_of(2), interface=2)
    assert again.destination == GROUP


def test_a_repeated_answer_goes_out_where_the_init_was_heard_this_time() -> None:
    bench = Bench()
    init = Puppet(bench.key).init(return_address=GROUP)
    for interface in (7, 2):
        path = Path(Puppet.SOURCE, bench.group, interface)
        bench.endpoint.receive(0, Train(path, (init,), 256), bench.now)
        ((_, train),) = bench.endpoint.transmits(bench.now)
        assert train.path == Path(GROUP, None, interface)
        bench.now += 0.5


def test_Y4_a_recording_after_the_cache_time_gets_a_cookie_and_no_session() -> None:
    bench = Bench()
    puppet = Puppet(bench.key)
    init = puppet.init()
    (resp,) = bench.feed(init)
    puppet.read_resp(resp.data)
    bench.feed(puppet.seal(b"\x01"))
    bench.events.clear()
    bench.now += c.ANSWER_CACHE_LIFE + 1
    out = bench.feed(init)
    assert kinds(out) == [c.TYPE_COOKIE]
    # Even with the cookie that the replayer can ask for at its own address, there is an answer and no session.
    cookied = puppet.with_cookie(init, out[0].data)
    (again,) = bench.feed(cookied)
    assert again.data[0] == c.TYPE_RESP
    assert again.data != resp.data
    bench.feed(puppet.seal(b"\x01"))
    assert bench.events == []
    bench.advance(30.0)
    assert bench.events == [] or all(not isinstance(event, Accepted) for event in bench.events)


def test_Y4_the_cache_is_bounded_and_forgets_the_oldest() -> None:
    bench = Bench()
    first = Puppet(bench.key, seed=1_000_000).init()
    bench.feed(first)
    for n in range(c.ANSWER_CACHE_SIZE + 10):
        bench.now += 0.011
        bench.feed(Puppet(bench.key, seed=n).init(), source=source_of(n))
    assert bench.endpoint.sizes()["answers"] <= c.ANSWER_CACHE_SIZE
    assert bench.endpoint.counters["init-answered"] > c.ANSWER_CACHE_SIZE


def test_Y5_a_clock_that_went_back_costs_one_cookie() -> None:
    bench = Bench()
    identity = Identity.from_seed(b"c" * 32)
    Puppet(bench.key, identity=identity).connect(bench)
    year = 365 * 86400 * 10**6
    for n in range(2):
        bench.now += 2.0
        back = Puppet(bench.key, identity=identity, seed=10 + n)
        init = back.init(timestamp=10**15 - year)
        (cookie,) = bench.feed(init)
        assert cookie.data[0] == c.TYPE_COOKIE
        (resp,) = bench.feed(back.with_cookie(init, cookie.data))
        back.read_resp(resp.data)
        bench.feed(back.seal(b"\x01"))
    assert sum(isinstance(event, Accepted) for event in bench.events) == 3


def test_Y5_an_equal_timestamp_is_stale_and_a_later_one_is_not() -> None:
    bench = Bench()
    identity = Identity.from_seed(b"c" * 32)
    first = Puppet(bench.key, identity=identity, seed=1)
    (resp,) = bench.feed(first.init(timestamp=1000))
    first.read_resp(resp.data)
    unconfirmed = Puppet(bench.key, identity=identity, seed=2)
    assert kinds(bench.feed(unconfirmed.init(timestamp=1000))) == [c.TYPE_RESP], "nothing is confirmed yet"
    bench.feed(first.seal(b"\x01"))
    bench.now += 1
    assert kinds(bench.feed(Puppet(bench.key, identity=identity, seed=3).init(timestamp=1000))) == [
        c.TYPE_COOKIE
    ]
    assert kinds(bench.feed(Puppet(bench.key, identity=identity, seed=4).init(timestamp=1001))) == [
        c.TYPE_RESP
    ]
    assert kinds(bench.feed(Puppet(bench.key, seed=5).init(timestamp=1))) == [c.TYPE_RESP], "another peer"


def test_Y5_stale_handshakes_are_one_a_second_for_each_peer() -> None:
    bench = Bench()
    identity = Identity.from_seed(b"c" * 32)
    Puppet(bench.key, identity=identity).connect(bench)
    answered = 0
    for n in range(100):
        bench.now += 0.1
        back = Puppet(bench.key, identity=identity, seed=10 + n)
        init = back.init(timestamp=5)
        for cookie in bench.feed(init, source=source_of(n)):
            if cookie.data[0] == c.TYPE_COOKIE:
                out = bench.feed(back.with_cookie(init, cookie.data), source=source_of(n))
                answered += len(out)
    assert 8 <= answered <= 12
    assert bench.endpoint.counters["init-stale-rate"] > 50


# --- step 4: load ------------------------------------------------------------------------------------


def test_F2_garbage_behind_a_right_mac1_costs_200_key_exchanges_a_second() -> None:
    suite = CountingSuite()
    bench = bench_with(suite)
    moments: list[float] = []
    for n in range(10_000):
        bench.now += 1 / 5000
        before = suite.exchanges
        assert kinds(bench.feed(garbage(bench, n), source=source_of(n))) in ([], [c.TYPE_COOKIE])
        moments += [bench.now] * (suite.exchanges - before)
    burst = int(c.HANDSHAKE_BURST - c.UNDER_LOAD_BELOW) + 2
    assert len(moments) <= 2 * c.HANDSHAKE_RATE + burst
    assert len(moments) > 2 * c.HANDSHAKE_RATE - burst
    assert bench.endpoint.sizes()["half-open"] == 0


def test_F4_without_a_good_cookie_there_is_a_cookie_and_no_key_exchange() -> None:
    suite = CountingSuite()
    bench = bench_with(suite)
    load(bench)
    spent = suite.exchanges
    puppet = Puppet(bench.key)
    init = puppet.init()
    assert kinds(bench.feed(init)) == [c.TYPE_COOKIE], "none"
    (elsewhere,) = bench.feed(init, source=source_of(1))
    bench.now += 0.01
    load(bench)
    spent = suite.exchanges
    assert kinds(bench.feed(puppet.with_cookie(init, elsewhere.data), source=source_of(2))) == [c.TYPE_COOKIE]
    assert kinds(bench.feed(init[:240] + b"\x01" * 16, source=source_of(3))) == [c.TYPE_COOKIE]
    assert suite.exchanges == spent
    assert kinds(bench.feed(puppet.with_cookie(init, elsewhere.data), source=source_of(1))) == [c.TYPE_RESP]
    bench.now += 3 * c.COOKIE_SECRET_LIFE
    load(bench)
    spent = suite.exchanges
    late = puppet.init()
    assert kinds(bench.feed(puppet.with_cookie(init, elsewhere.data), source=source_of(1))) == [c.TYPE_COOKIE]
    assert kinds(bench.feed(late[:240] + elsewhere.data[:16], source=source_of(1))) == [c.TYPE_COOKIE]
    assert suite.exchanges == spent


def test_under_load_one_network_has_its_share_and_no_more() -> None:
    """A cookie proves an address; a /24 full of proved addresses still gets 5 handshakes a second."""
    bench = Bench()
    answered = 0
    for n in range(1000):
        bench.now += 0.002
        load(bench) if n % 10 == 0 else None
        source = pack_ipv4(f"198.51.100.{n % 250 + 1}", 4000)
        puppet = Puppet(bench.key, seed=n)
        init = puppet.init()
        for datagram in bench.feed(init, source=source):
            if datagram.data[0] == c.TYPE_COOKIE:
                out = bench.feed(puppet.with_cookie(init, datagram.data), source=source)
                answered += kinds(out) == [c.TYPE_RESP]
    assert answered <= c.SOURCE_BURST + 2 * c.SOURCE_RATE + 1
    assert bench.endpoint.counters["init-source-rate"] > 100


def test_F3_a_flood_of_keys_leaves_room_for_an_honest_client_with_a_cookie() -> None:
    """10^4 keys in open mode: half-open sessions and key exchanges stay bounded, and a client gets in."""
    suite = CountingSuite()
    bench = bench_with(suite)
    began, let_in, tries = bench.now, 0, 0
    for n in range(10_000):
        bench.now += 0.001
        out = bench.feed(Puppet(bench.key, seed=n).init(), source=source_of(n))
        assert len(out) <= 1
        assert bench.endpoint.sizes()["half-open"] <= c.HALF_OPEN_SIZE
        if n % 1000 == 999:  # every second
            tries += 1
            honest = Puppet(bench.key, seed=100_000 + n)
            init = honest.init()
            answers = bench.feed(init)
            if kinds(answers) == [c.TYPE_COOKIE]:
                answers = bench.feed(honest.with_cookie(init, answers[0].data))
            for answer in answers:
                honest.read_resp(answer.data)
                bench.feed(honest.seal(b"\x01"))
                let_in += 1
    assert let_in == sum(isinstance(event, Accepted) for event in bench.events)
    assert let_in == tries == 10
    budget = (bench.now - began) * c.HANDSHAKE_RATE + c.HANDSHAKE_BURST
    assert suite.exchanges <= 4 * budget
    bench.advance(c.HALF_OPEN_LIFE + 1)
    assert bench.endpoint.sizes()["half-open"] == 0


def test_F3_the_oldest_half_open_session_goes_first() -> None:
    bench = Bench()
    puppets = []
    for n in range(c.HALF_OPEN_SIZE + 1):
        bench.now += 0.01
        puppet = Puppet(bench.key, seed=n)
        (resp,) = bench.feed(puppet.init(), source=source_of(n))
        puppet.read_resp(resp.data)
        puppets.append(puppet)
    assert bench.endpoint.counters["half-open-pushed-out"] == 1
    bench.feed(puppets[0].seal(b"\x01"))
    assert bench.events == []
    bench.feed(puppets[1].seal(b"\x01"))
    assert len(bench.events) == 1


def test_the_group_of_a_key_is_where_the_bench_listens() -> None:
    bench = Bench()
    assert bench.group == derive_group_v4(bench.key.raw, Reach.GLOBAL, c.DEFAULT_PORT)
