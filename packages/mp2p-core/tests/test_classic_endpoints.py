"""Classic servers and clients without a network: exchanges, attacks, and bounds (docs/protocol.md, section 10)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mp2p_core.access import Allow, access_for
from mp2p_core.classic import (
    ClassicAddressDeclaration,
    ClassicClient,
    ClassicIdentity,
    ClassicServer,
    ClassicSessionData,
    ClassicSessionInitiation,
    parse_message,
)
from mp2p_core.classic import constants as c
from mp2p_core.errors import BadPacket, Closed, UsageError
from mp2p_core.proto.addresses import pack_ipv4, pack_ipv6
from mp2p_core.testing.clock import VirtualClock
from mp2p_core.transport import Address, Path, Train

SERVER = ClassicIdentity(b"s" * 32)
CLIENT = ClassicIdentity(b"c" * 32)
GROUP = pack_ipv4("224.0.230.7", 1024)
HOME = pack_ipv4("224.0.240.9", 1025)
SOURCE = pack_ipv4("10.0.0.2", 1025)


def make_server(
    allow: Allow = "any", *, seed: int = 1, group: Address = GROUP, remember: int = 1000
) -> ClassicServer:
    return ClassicServer(
        SERVER, access_for(allow), group, max_datagram_size=1472, now=0.0, remember=remember,
        random=random.Random(seed).randbytes,
    )  # fmt: skip


def make_client(identity: ClassicIdentity = CLIENT, *, seed: int = 2, home: Address = HOME) -> ClassicClient:
    return ClassicClient(
        identity,
        SERVER.public,
        GROUP,
        home,
        max_datagram_size=1472,
        now=0.0,
        random=random.Random(seed).randbytes,
    )


def take(endpoint: ClassicServer | ClassicClient, datagram: bytes, now: float = 0.0, source: Address = SOURCE,
         arrived_at: Address | None = None) -> list[Train]:  # fmt: skip
    """Give an endpoint a datagram and return what it sends for it."""
    endpoint.receive(Train(Path(source, arrived_at, 3), (datagram,), max(len(datagram), 1)), now)
    return endpoint.transmits()


def sent_by(client: ClassicClient, now: float = 0.0) -> list[bytes]:
    client.handle_timeout(now)
    return [datagram for train in client.transmits() for datagram in train.datagrams()]


def declare(identity: ClassicIdentity = CLIENT, home: Address = HOME) -> bytes:
    return bytes(ClassicAddressDeclaration.make(identity, home))


def initiate(
    identity: ClassicIdentity = CLIENT, session_id: bytes = bytes(16), private: bytes = b"p" * 32
) -> bytes:
    public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return bytes(ClassicSessionInitiation.make(identity, session_id, SERVER.public, public))


def connected(server: ClassicServer, client: ClassicClient, now: float = 0.0) -> None:
    """Run the exchange on a network that loses nothing, up to the first text."""
    for datagram in sent_by(client, now):
        for train in take(server, datagram, now):
            take(client, train.datagrams()[0], now)
    assert client.session is not None
    client.send(client.session, b"hello")
    (train,) = client.transmits()
    assert take(server, train.datagrams()[0], now) == []
    (event,) = server.events()
    assert event.text == b"hello"


def test_the_exchange() -> None:
    server, client = make_server(), make_client()
    declaration, initiation = sent_by(client)
    assert (declaration[0], len(declaration)) == (0, 115)
    assert (initiation[0], len(initiation)) == (1, 177)
    assert take(server, declaration) == []
    (answer,) = take(server, initiation)
    assert answer.path == Path(HOME, None, 3), "where it was declared, through the interface it was heard on"
    read, asked = parse_message(answer.datagrams()[0]), parse_message(initiation)
    assert isinstance(read, ClassicSessionInitiation)
    assert isinstance(asked, ClassicSessionInitiation)
    assert (read.session_id, read.src, read.dst) == (asked.session_id, asked.dst, asked.src)
    assert client.timeout() is not None
    take(client, answer.datagrams()[0])
    assert client.session is not None
    assert client.timeout() is None
    client.send(client.session, b"How are you?")
    (text,) = client.transmits()
    assert text.path == Path(GROUP, None, 3)
    take(server, text.datagrams()[0])
    ((session, words),) = server.events()
    assert (session.peer, words) == (CLIENT.public, b"How are you?")
    server.send(session, b"Well")
    (reply,) = server.transmits()
    assert reply.path == answer.path
    take(client, reply.datagrams()[0])
    assert [event.text for event in client.events()] == [b"Well"]
    assert not server.counters
    assert not client.counters


@pytest.mark.parametrize("seed", range(40))
def test_any_order_loss_and_repetition(seed: int) -> None:
    """Three clients, a network that loses, repeats and reorders: all get through, no text comes twice."""
    print("seed", seed)
    dice = random.Random(seed)
    clock = VirtualClock(0.0)
    server = make_server(seed=1000 + seed)
    identities = [ClassicIdentity(bytes([n]) * 32) for n in range(3)]
    homes = [pack_ipv4(f"224.0.240.{n}", 1025) for n in range(3)]
    clients = [make_client(identities[n], seed=10 * seed + n, home=homes[n]) for n in range(3)]
    ends: dict[Address, Any] = {GROUP: server, **dict(zip(homes, clients, strict=True))}
    heard: dict[bytes, list[bytes]] = {}
    number = 0

    def carry(train: Train) -> None:
        for _ in range(dice.choice([0, 1, 1, 2])):  # a quarter lost, a quarter twice

            def arrive() -> None:
                end = ends[train.path.remote]
                end.receive(Train(Path(SOURCE, None, 3), train.buffers, train.segment_size), clock.now)
                for event in end.events():
                    heard.setdefault(event.session.peer.raw, []).append(event.text)
                    if end is server:
                        server.send(event.session, b"re " + event.text)
                flush(end)

            clock.call_at(clock.now + dice.random() * 0.3, arrive)

    def run(seconds: float) -> None:
        until = clock.now + seconds
        while clock.step(until):
            pass

    def flush(end: Any) -> None:
        for train in end.transmits():
            carry(train)

    for _ in range(400):
        for client in clients:
            if client.session is None:
                client.handle_timeout(clock.now)
            else:
                number += 1
                client.send(client.session, b"%d" % number)
            flush(client)
        run(0.1)
        if all(len(heard.get(each.public.raw, ())) > 20 for each in identities):
            break
    run(1.0)
    assert all(client.session for client in clients), seed
    assert server.sizes()["used"] == 3
    for texts in heard.values():
        assert len(set(texts)) == len(texts), seed
    assert len(heard[SERVER.public.raw]) > 20
    assert heard.keys() == {SERVER.public.raw, *(each.public.raw for each in identities)}


def test_an_initiation_before_its_declaration_gets_no_answer_and_leaves_no_trace() -> None:
    server = make_server()
    before = server.sizes()
    assert take(server, initiate()) == []
    assert server.sizes() == before
    assert server.counters == {"classic-address-unknown": 1}
    take(server, declare())
    assert len(take(server, initiate())) == 1


def test_a_message_for_another_server_gets_no_answer() -> None:
    server = make_server()
    take(server, declare())
    other = ClassicSessionInitiation.make(CLIENT, bytes(16), ClassicIdentity(b"o" * 32).public, b"p" * 32)
    assert take(server, bytes(other)) == []
    assert server.counters == {"classic-not-for-me": 1}


@pytest.mark.parametrize("make", [declare, initiate])
def test_nothing_is_kept_of_a_message_with_a_wrong_signature(make: Callable[[], bytes]) -> None:
    server = make_server()
    if make is initiate:
        take(server, declare())
    before = server.sizes()
    spoiled = make()[:-1] + bytes([make()[-1] ^ 1])
    assert take(server, spoiled, source=pack_ipv4("10.0.0.2", 1)) == []
    assert server.counters == {"classic-signature": 1}
    assert {**server.sizes(), "source-buckets": 0} == {**before, "source-buckets": 0}


def test_a_key_that_is_not_allowed_gets_no_answer_and_leaves_no_trace() -> None:
    server = make_server([ClassicIdentity(b"f" * 32).public])
    assert take(server, declare()) == take(server, initiate()) == []
    assert server.sizes()["declared"] == 0
    assert server.counters == {"classic-not-allowed": 1, "classic-address-unknown": 1}


@pytest.mark.parametrize(
    "home",
    [
        pack_ipv4("10.0.0.2", 1025),  # not a group, though it is where the message came from
        pack_ipv4("224.0.0.1", 1025),
        pack_ipv4("239.1.2.3", 1025),
        pack_ipv4("224.0.240.9", 53),
        pack_ipv4("224.0.240.9", 0),
        pack_ipv6("ff1e::8000:1", 1025),
        pack_ipv6("2001:db8::1", 1025),
    ],
    ids=str,
)
def test_R2_an_address_that_is_not_to_be_sent_to(home: Address) -> None:
    server = make_server()
    take(server, declare(home=home))
    assert take(server, initiate()) == []
    assert server.sizes()["declared"] == 0


@pytest.mark.parametrize(
    ("home", "answered"),
    [
        ("ff1e:92a8:3287:fe8b:9103:a9e6:26f:73c6", True),  # the original drew the low bits freely
        ("ff3e:80:2001:db8:1:2:8000:1", True),  # and wrote 128 as the length of every prefix
        ("ff3e:40:2001:db8:0:1:8000:1", True),
        ("ff3e:81:2001:db8:0:1:8000:1", False),
        ("ff7e:40:2001:db8:0:1:8000:1", False),
        ("ff02::1", False),
        ("ff0e::8000:1", False),
        ("ff15::8000:1", True),  # narrower than the server's own
        ("2001:db8::1", False),
        ("::1", False),
    ],
)
def test_R2_ipv6_addresses(home: str, answered: bool) -> None:
    server = make_server(group=pack_ipv6("ff1e::8000:1", 1024))
    take(server, declare(home=pack_ipv6(home, 1025)))
    assert len(take(server, initiate())) == answered


def test_R2_an_address_of_wider_scope_than_the_server_s() -> None:
    server = make_server(group=pack_ipv4("239.255.1.2", 1024))
    take(server, declare())
    assert take(server, initiate()) == []
    take(server, declare(home=pack_ipv4("239.255.1.3", 1025)))
    assert len(take(server, initiate())) == 1


def test_only_the_newest_declaration_counts() -> None:
    server = make_server()
    moved = pack_ipv4("224.0.241.1", 1025)
    take(server, declare())
    take(server, declare(home=moved))
    assert server.sizes()["declared"] == 1
    (answer,) = take(server, initiate())
    assert answer.path.remote == moved


def test_a_session_in_use_is_not_led_elsewhere_by_an_old_declaration() -> None:
    server, client = make_server(), make_client()
    take(server, declare(home=pack_ipv4("224.0.241.1", 1025)))
    connected(server, client)
    take(server, declare(home=pack_ipv4("224.0.241.1", 1025)))  # recorded, and played again
    (session,) = server.sessions()
    server.send(session, b"for the client")
    (train,) = server.transmits()
    assert train.path.remote == HOME


def test_R3_never_more_goes_to_a_declared_address_than_came() -> None:
    """Also never more than ten answers a second, whatever is asked, and as often as it is repeated."""
    server = make_server()
    came = went = answers = 0
    now = 0.0
    for number in range(300):
        now += 0.005
        for datagram in (declare(), initiate(session_id=number.to_bytes(16)), initiate(session_id=bytes(16))):
            came += len(datagram)
            trains = take(server, datagram, now)
            answers += len(trains)
            went += sum(len(train.datagrams()[0]) for train in trains)
            assert went <= came
    assert 10 <= answers <= 20
    assert server.sizes()["used"] == 0
    assert list(server.sessions()) == []


def test_a_repeated_initiation_gets_the_same_answer() -> None:
    server = make_server()
    take(server, declare())
    first, second = (take(server, initiate(), now)[0].datagrams() for now in (0.0, 1.0))
    assert first == second
    assert server.sizes()["answered"] == 1


def test_an_initiation_of_a_session_in_use_gets_no_answer() -> None:
    server, client = make_server(), make_client()
    declaration, initiation = sent_by(client)
    take(server, declaration)
    take(client, take(server, initiation)[0].datagrams()[0])
    assert client.session is not None
    client.send(client.session, b"x")
    take(server, client.transmits()[0].datagrams()[0])
    assert take(server, initiation, 5.0) == []
    assert server.counters == {"classic-initiation-used": 1}


@pytest.mark.parametrize("public", [bytes(32), b"\1" + bytes(31)])
def test_H8_a_key_exchange_that_gives_zero(public: bytes) -> None:
    server, client = make_server(), make_client()
    take(server, declare())
    assert take(server, bytes(ClassicSessionInitiation.make(CLIENT, bytes(16), SERVER.public, public))) == []
    assert server.sizes()["answered"] == 0
    asked = parse_message(sent_by(client)[1])
    assert isinstance(asked, ClassicSessionInitiation)
    take(client, bytes(ClassicSessionInitiation.make(SERVER, asked.session_id, CLIENT.public, public)))
    assert client.session is None
    assert client.counters == server.counters == {"classic-exchange-zero": 1}


def test_Y9_a_whole_recording_played_again_delivers_nothing() -> None:
    server, client = make_server(), make_client()
    recorded: list[bytes] = []

    def record(datagram: bytes, end: ClassicServer | ClassicClient) -> list[bytes]:
        recorded.append(datagram)
        return [train.datagrams()[0] for train in take(end, datagram)]

    declaration, initiation = sent_by(client)
    record(declaration, server)
    (answer,) = record(initiation, server)
    record(answer, client)
    assert client.session is not None
    for number in range(5):
        client.send(client.session, b"%d" % number)
        record(client.transmits()[0].datagrams()[0], server)
        (event,) = server.events()
        server.send(event.session, b"re %d" % number)
        record(server.transmits()[0].datagrams()[0], client)
        assert len(client.events()) == 1
    for datagram in recorded * 2:  # everything to both sides: replays and reflections
        assert take(server, datagram, 10.0) == take(client, datagram, 10.0) == []
    assert [*server.events(), *client.events()] == []
    assert server.counters["classic-data-repeated"] == client.counters["classic-data-repeated"] == 20


def test_Y4_a_recorded_initiation_after_a_restart_makes_no_session() -> None:
    server, client = make_server(), make_client()
    declaration, initiation = sent_by(client)
    take(server, declaration)
    take(client, take(server, initiation)[0].datagrams()[0])
    assert client.session is not None
    client.send(client.session, b"x")
    (text,) = client.transmits()
    restarted = make_server(seed=99)
    take(restarted, declaration)
    assert len(take(restarted, initiation)) == 1
    take(restarted, text.datagrams()[0])
    assert restarted.events() == []
    assert restarted.counters == {"classic-data-forged": 1}


def test_a_session_id_taken_by_another_peer_harms_nobody() -> None:
    server, client = make_server(), make_client()
    declaration, initiation = sent_by(client)
    asked = parse_message(initiation)
    assert isinstance(asked, ClassicSessionInitiation)
    thieves = [ClassicIdentity(bytes([n]) * 32) for n in range(10)]
    take(server, declaration)
    (answer,) = take(server, initiation)
    for number, thief in enumerate(thieves, start=1):
        now = number * 1.0
        take(server, declare(thief, pack_ipv4(f"224.0.241.{number}", 1025)), now)
        take(server, initiate(thief, asked.session_id), now)
    assert server.sizes()["answered"] == c.MAX_SAME_ID
    assert server.counters["classic-session-id"] == 10 + 1 - c.MAX_SAME_ID
    take(client, answer.datagrams()[0])
    assert client.session is not None
    client.send(client.session, b"still me")
    take(server, client.transmits()[0].datagrams()[0], 20.0)
    ((session, text),) = server.events()
    assert (session.peer, text) == (CLIENT.public, b"still me")


def test_F10_every_table_is_bounded() -> None:
    server = make_server()
    for number in range(c.MAX_DECLARED + 50):
        now = number * 0.1
        identity = ClassicIdentity(number.to_bytes(32))
        source = pack_ipv4(f"10.{number // 256}.{number % 256}.1", 1025)
        home = pack_ipv4(f"224.0.{224 + number // 250}.{number % 250}", 1025)
        take(server, declare(identity, home), now, source)
        assert len(take(server, initiate(identity, number.to_bytes(16)), now, source)) == 1
    assert server.sizes() == {
        "answer-buckets": 1024,
        "answered": c.MAX_ANSWERED,
        "declared": c.MAX_DECLARED,
        "ids": c.MAX_ANSWERED,
        "nonces": 0,
        "source-buckets": 1024,
        "used": 0,
    }


def test_F10_sessions_of_one_key_are_bounded() -> None:
    server = make_server()
    began = []
    for number in range(c.MAX_SESSIONS_PER_KEY + 4):
        connected(server, make_client(seed=100 + number), now=number * 1.0)
        began += [session for session in server.sessions() if session not in began]
    assert server.sizes()["used"] == c.MAX_SESSIONS_PER_KEY
    assert [session for session in began if session.ended is None] == list(server.sessions()) == began[4:]
    with pytest.raises(Closed, match="has to begin a new session"):
        server.send(began[0], b"too late")
    assert server.sizes()["nonces"] == c.MAX_SESSIONS_PER_KEY


def test_F10_remembered_nonces_are_bounded_and_the_longest_session_ends() -> None:
    server = make_server(remember=10)
    clients = [make_client(ClassicIdentity(bytes([n]) * 32), seed=n, home=pack_ipv4(f"224.0.240.{n}", 1025))
               for n in (1, 2)]  # fmt: skip
    for number, client in enumerate(clients):
        connected(server, client, now=number * 1.0)
    quiet, loud = clients[0].session, clients[1].session
    assert quiet is not None
    assert loud is not None
    for _ in range(8):
        clients[1].send(loud, b"again")
        take(server, clients[1].transmits()[0].datagrams()[0])
    assert len(server.events()) == 8
    assert server.sizes()["nonces"] == 1
    assert [session.peer for session in server.sessions()] == [ClassicIdentity(b"\1" * 32).public]
    clients[1].send(loud, b"again")
    take(server, clients[1].transmits()[0].datagrams()[0])
    assert server.counters["classic-data-unknown"] == 1
    clients[0].send(quiet, b"me too")
    take(server, clients[0].transmits()[0].datagrams()[0])
    assert [event.text for event in server.events()] == [b"me too"]


def test_F2_signatures_are_checked_at_a_limited_rate() -> None:
    server = make_server()
    forged = declare()[:-1] + b"\0"
    for number in range(600):
        source = pack_ipv4(f"10.0.{number % 200}.1", 1025)
        take(server, forged, number / 600, source)
    assert server.counters["classic-signature"] <= c.SIGNATURE_RATE + c.SIGNATURE_BURST
    one = make_server()
    for number in range(200):
        take(one, forged, number / 200)
    assert one.counters["classic-signature"] <= c.SIGNATURE_RATE_SOURCE
    assert take(one, declare(), 0.999, pack_ipv4("10.0.0.3", 1025)) == []
    assert one.sizes()["declared"] == 1, "other sources have their own share"


# --- the client ------------------------------------------------------------------------------------------


def answer_to(initiation: bytes, signer: ClassicIdentity = SERVER, to: ClassicIdentity = CLIENT) -> bytes:
    asked = parse_message(initiation)
    assert isinstance(asked, ClassicSessionInitiation)
    return bytes(ClassicSessionInitiation.make(signer, asked.session_id, to.public, b"q" * 32))


def test_rounds_are_repeated_until_answered_each_with_a_key_of_its_own() -> None:
    client = make_client()
    rounds: list[list[bytes]] = []
    times: list[float] = []
    now = 0.0
    while len(rounds) < c.MAX_ROUNDS_OPEN + 2:
        rounds.append(sent_by(client, now))
        times.append(now)
        assert sent_by(client, now) == []
        when = client.timeout()
        assert when is not None
        now = when
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    for wait, planned in zip(waits, [0.5, 1.0, *[2.0] * 10], strict=False):
        assert 0.8 * planned <= wait <= 1.2 * planned
    assert len({datagrams[0] for datagrams in rounds}) == 1, "the declaration is the same"
    assert len({datagrams[1][1:17] for datagrams in rounds}) == len(rounds)
    assert len({datagrams[1][81:113] for datagrams in rounds}) == len(rounds)
    take(client, answer_to(rounds[1][1]))
    assert client.session is None, "of the first two rounds no answer is taken any more"
    take(client, answer_to(rounds[2][1]))
    assert client.session is not None
    assert client.session.session_id == rounds[2][1][1:17]
    session = client.session
    take(client, answer_to(rounds[3][1]))
    assert client.session is session


@pytest.mark.parametrize("times", [1, 1000])
def test_H3_a_forged_answer_does_not_keep_the_genuine_one_out(times: int) -> None:
    client = make_client()
    _, initiation = sent_by(client)
    genuine = answer_to(initiation)
    for number in range(times):
        take(client, genuine[:-1] + b"\0", number / 1000)
    assert client.stage == "answered by another key"
    assert client.counters["classic-signature"] <= c.ANSWER_SIGNATURE_RATE
    take(client, genuine, 2.0)
    assert client.session is not None


@pytest.mark.parametrize(
    ("signer", "to", "counter"),
    [
        (ClassicIdentity(b"o" * 32), CLIENT, "classic-not-for-me"),
        (SERVER, ClassicIdentity(b"o" * 32), "classic-not-for-me"),
        (CLIENT, SERVER, "classic-not-for-me"),
    ],
    ids=["another server", "another client", "reflected"],
)
def test_H4_an_answer_that_is_not_the_server_s_to_this_client(
    signer: ClassicIdentity, to: ClassicIdentity, counter: str
) -> None:
    client = make_client()
    _, initiation = sent_by(client)
    take(client, answer_to(initiation, signer, to))
    take(client, initiation)
    assert client.session is None
    assert client.counters == {counter: 2}


def test_what_a_client_does_not_take() -> None:
    client = make_client()
    other = make_client(seed=77)
    take(client, declare(SERVER))
    take(client, answer_to(sent_by(other)[1]))
    take(client, bytes(ClassicSessionData.encrypt(bytes(16), bytes(32), bytes(12), b"x")))
    take(client, b"\x14" + bytes(40))
    assert client.session is None
    assert [*client.transmits(), *client.events()] == []
    assert client.counters == {
        "classic-declaration-at-client": 1,
        "classic-answer-unknown": 1,
        "classic-data-unknown": 1,
        "classic-type": 1,
    }


def test_a_client_does_not_call_itself() -> None:
    with pytest.raises(UsageError, match="the client's own"):
        make_client(SERVER)


def test_P9_random_and_spliced_datagrams() -> None:
    dice = random.Random(9)
    server, client = make_server(), make_client()
    connected(server, client)
    material = [declare(), initiate(), *sent_by(make_client(seed=5))]
    for number in range(3000):
        one, other = dice.choice(material), dice.choice(material)
        cut = dice.randrange(len(one))
        spliced = (
            one[:cut] + other[cut:]
            if number % 2
            else bytes([number % 5]) + dice.randbytes(dice.choice([44, 114, 176]))
        )
        take(server, spliced, number / 100)
        take(client, spliced, number / 100)
    assert [*server.events(), *client.events()] == []


def test_no_v1_packet_is_understood() -> None:
    server, client = make_server(), make_client()
    for kind in range(3, 256):
        for end in (server, client):
            assert take(end, bytes([kind]) + bytes(255)) == []
    assert server.counters == client.counters == {"classic-type": 253}
    with pytest.raises(BadPacket):
        parse_message(b"\x11" + bytes(255))
