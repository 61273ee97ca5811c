"""Sealing and opening GROUP datagrams, and who may make them (protocol section 8; rows G1 to G7)."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group.events import Messages
from mp2p_core.proto.group.feed import Feed
from mp2p_core.proto.group.keys import ED25519_CHACHAPOLY, SendKeys, message_key
from mp2p_core.proto.group.lane import Lane
from mp2p_core.proto.group.sealing import Sealer
from mp2p_core.proto.noise_suite import nonce_little_endian

OWNER = b"P" * 32


def data(number: int, content: bytes, kind: int = la.DATA) -> bytes:
    return la.data_plain(kind, la.WHOLE, number, content)


HELLO = data(0, b"hello")
COVERED = data(0, b"hello", la.DATA_COVERED)


def plains(count: int, first: int = 0) -> list[bytes]:
    return [data(n, b"message %d" % n, la.DATA_COVERED) for n in range(first, first + count)]


class Pair:
    """A publisher's sealer and a subscriber's lane of the same epoch, and an insider with all of its keys."""

    def __init__(self, mode: int = g.REPAIRED, seed: int = 1, epoch: int = 1) -> None:
        self.keys = SendKeys(epoch, random.Random(seed).randbytes)
        self.sealer = Sealer(OWNER, self.keys)
        self.feed = Feed()
        self.feed.begin(0)
        self.lane = Lane(
            OWNER, self.grant(mode), self.feed, rtt=0.001, random=random.Random(seed).randbytes,
            suite=ED25519_CHACHAPOLY,
        )  # fmt: skip
        self.lane.begin_turn()
        self.lane.early = True

    def grant(self, mode: int) -> g.Grant:
        keys = self.keys
        return g.Grant(
            topic=bytes(16), channel=keys.channel, epoch=keys.epoch, generation=keys.generation,
            chain_key=keys.chain_key, signing_key=keys.signing_key, next_seq=self.sealer.next_seq, group=bytes(20),
            history=0, heartbeat_ms=2000, last_seq=0, number=0, run=b"r" * 8, mode=mode, backlog=False,
        )  # fmt: skip

    def take(self, datagram: bytes, now: float = 0.0) -> str:
        """Receive; returns the counter, or the kind of content."""
        _, _, generation, _, seq = la.group_fields(datagram)
        try:
            return type(self.lane.receive_untrusted(datagram, generation, seq, now)).__name__
        except BadPacket as error:
            return str(error)

    def forge(self, plaintext: bytes, seq: int, generation: int | None = None) -> bytes:
        """Seal as any subscriber can, who has the chain key."""
        generation = self.keys.generation if generation is None else generation
        header = la.group_header(generation, self.keys.channel, seq)
        key = message_key(self.keys.chain_key, self.keys.channel, generation)
        return header + ChaCha20Poly1305(key).encrypt(nonce_little_endian(seq), plaintext, header)

    @property
    def delivered(self) -> list[bytes]:
        return [
            message for event in self.feed.events if isinstance(event, Messages) for message in event.messages
        ]

    @property
    def state(self) -> tuple[object, ...]:
        """All that a datagram which proves nothing must leave alone."""
        lane = self.lane
        return (
            lane.window.base, lane.window.highest, len(lane.window), lane.window.last, lane.wanted.seqs(),
            lane.wanted.members, lane.timeout(), list(self.feed.events), self.feed.next_number,
        )  # fmt: skip


def test_a_datagram_is_that_of_the_protocol_to_the_byte() -> None:
    pair = Pair()
    datagram = pair.sealer.data(HELLO)
    header = la.group_header(0, pair.keys.channel, 1)
    assert datagram[:20] == header
    key = message_key(pair.keys.chain_key, pair.keys.channel, 0)
    plain = ChaCha20Poly1305(key).decrypt(bytes(4) + (1).to_bytes(8, "little"), datagram[20:], header)
    assert plain[:-64] == HELLO
    signed = b"mp2p-v1 group\0" + OWNER + header + HELLO
    Ed25519PublicKey.from_public_bytes(pair.keys.signing_key).verify(plain[-64:], signed)


def test_a_manifest_names_the_datagrams_that_follow_it() -> None:
    pair = Pair()
    manifest, *covered = pair.sealer.covered(plains(3))
    plain = pair.lane._opener.decrypt_untrusted(manifest, 0, 1)
    assert plain[:-64] == b"\x03\x03" + b"".join(sha256(each).digest()[:16] for each in covered)
    assert [la.group_fields(each)[4] for each in (manifest, *covered)] == [1, 2, 3, 4]
    assert [pair.take(each) for each in (manifest, *covered)] == ["Manifest", "Data", "Data", "Data"]
    assert pair.delivered == [b"message 0", b"message 1", b"message 2"]


@pytest.mark.parametrize("how", ["one", "many"])
def test_G1_an_outsider_injects_replays_and_edits_in_vain(how: str) -> None:
    pair = Pair()
    sent = [pair.sealer.data(HELLO)] if how == "one" else pair.sealer.covered(plains(3))
    before = pair.state
    rng = random.Random(5)
    for datagram in sent:
        for _ in range(60):
            at = rng.randrange(20, len(datagram))
            edited = bytearray(datagram)
            edited[at] ^= 1 << rng.randrange(8)
            assert pair.take(bytes(edited)) == "group-unsealed"
        for at in (2, 3, 12, 19):  # generation and seq are in the header
            edited = bytearray(datagram)
            edited[at] ^= 1
            assert pair.take(bytes(edited)) in (
                "group-unsealed",
                "group-generation",
                "group-needless",
                "group-repeated",
            )
        assert pair.take(datagram[:-1]) == "group-unsealed"
    assert pair.state == before
    assert pair.lane.forged == 0, "that was no member"
    for datagram in sent:
        pair.take(datagram)
    before = pair.state
    assert {pair.take(datagram) for datagram in sent * 2} == {"group-repeated"}
    assert pair.state == before


def insider(pair: Pair, kind: int, body: bytes, seq: int) -> bytes:
    """What an insider can do at best: the right keys, and a signature by a key of its own."""
    other = SendKeys(9, random.Random(9).randbytes)
    header = la.group_header(0, pair.keys.channel, seq)
    plain = bytes([kind]) + body
    return pair.forge(plain + other.sign(b"mp2p-v1 group\0" + OWNER + header + plain), seq)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (HELLO[0], HELLO[1:]),
        (la.MANIFEST, la.manifest_body([b"x" * 16])),
        (la.HEARTBEAT, la.heartbeat_body(50, 40, 1, 99)),
        (la.ROTATE, la.rotate_body(0)),
    ],
    ids=["message", "manifest", "heartbeat", "ROTATE"],
)
@pytest.mark.parametrize("seq", [4, 6, 100])
def test_G2_an_insider_speaks_for_the_publisher_in_vain(kind: int, body: bytes, seq: int) -> None:
    pair = Pair()
    for datagram in (pair.sealer.data(HELLO), *pair.sealer.covered(plains(2, 1))):
        pair.take(datagram)
    lost = pair.sealer.data(data(3, b"later"))
    before = pair.state
    assert pair.take(insider(pair, kind, body, seq + 1)) == "group-forged"
    assert pair.state == before
    assert pair.lane.forged == 1, "noticed"
    assert pair.take(pair.forge(bytes([kind]) + body, seq + 1)) in ("group-forged", "group-malformed")
    assert pair.state == before
    assert pair.take(lost) == "Data"


def test_G2_an_insider_repeats_a_signature_over_other_content_in_vain() -> None:
    pair = Pair()
    genuine = pair.sealer.data(HELLO)
    plain = pair.lane._opener.decrypt_untrusted(genuine, 0, 1)
    for plaintext in (
        plain[:-70] + b"x" + plain[-69:],
        bytes([la.ROTATE]) + plain[1:],
        bytes([la.HEARTBEAT]) + plain[1:],
    ):
        before = pair.state
        assert pair.take(pair.forge(plaintext, 1)) == "group-forged"
        assert pair.state == before
    assert pair.take(pair.forge(plain, 2)) == "group-forged", "the signature is for its seq"
    assert pair.take(genuine) == "Data"


@pytest.mark.parametrize("what", ["channel", "generation", "topic"])
def test_G3_an_insider_moves_a_datagram_elsewhere_in_vain(what: str) -> None:
    pair = Pair()
    genuine = pair.sealer.data(HELLO)
    plain = pair.lane._opener.decrypt_untrusted(genuine, 0, 1)
    if what == "generation":
        header = la.group_header(1, pair.keys.channel, 1)
        key = pair.lane._opener._keys.aead_untrusted(1)
        assert key is not None
        assert pair.take(header + key.encrypt(nonce_little_endian(1), plain, header)) == "group-forged"
        return
    # Another channel or epoch has another signing key; another topic is another publisher's or another channel.
    other = Pair(seed=2, epoch=2 if what == "channel" else 1)
    assert other.take(genuine) == "group-unsealed"
    assert other.take(other.forge(plain, 1)) == "group-forged"
    assert other.delivered == []


def test_G3_the_publisher_is_part_of_what_is_signed() -> None:
    pair = Pair()
    sealer = Sealer(b"Q" * 32, pair.keys)
    assert pair.take(sealer.data(HELLO)) == "group-forged"


@pytest.mark.parametrize("seq", [2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1, c.GROUP_WINDOW + 5, 7])
def test_G4_an_insider_claims_a_far_seq_in_vain(seq: int) -> None:
    pair = Pair()
    pair.take(pair.sealer.data(HELLO))
    before = pair.state
    for plaintext in (COVERED, HELLO + bytes(64), b"\x06" + bytes(50), b"\x07", b"\x01"):
        pair.take(pair.forge(plaintext, seq))
        assert pair.state == before


def test_G4_what_is_far_ahead_takes_no_place_among_what_waits() -> None:
    pair = Pair()
    assert pair.take(pair.forge(COVERED, c.GROUP_WINDOW - 1)) == "Unproven"
    assert pair.take(pair.forge(COVERED, c.GROUP_WINDOW)) == "group-ahead"


def test_G5_a_far_generation_is_refused_before_anything_is_computed() -> None:
    pair = Pair()
    before = pair.state
    for generation in (65, 1000, 65535):
        datagram = la.group_header(generation, pair.keys.channel, 1) + bytes(40)
        assert pair.take(datagram) == "group-generation"
    assert pair.take(la.group_header(64, pair.keys.channel, 1) + bytes(40)) == "group-unsealed"
    assert pair.state == before


def test_generations_go_on_whichever_arrives_first() -> None:
    pair = Pair()
    sent = []
    for n in range(5):
        sent.append(pair.sealer.data(data(n, b"%d" % n)))
        pair.keys.step()
    for datagram in reversed(sent):
        assert pair.take(datagram) == "Data"
    assert sorted(pair.delivered) == [b"0", b"1", b"2", b"3", b"4"]


def test_G6_data_waits_for_a_manifest_that_comes_late() -> None:
    pair = Pair()
    manifest, *covered = pair.sealer.covered(plains(5))
    before = pair.state
    for datagram in covered + covered:
        assert pair.take(datagram) == "Unproven"
    assert pair.state == before
    pair.take(manifest)
    assert pair.delivered == [b"message %d" % n for n in range(5)]
    assert {pair.take(each) for each in (manifest, *covered)} == {"group-repeated"}
    assert len(pair.delivered) == 5


def test_G6_what_waits_is_bounded() -> None:
    pair = Pair()
    pair.take(pair.sealer.data(HELLO))
    for seq in range(2, 2000):
        pair.take(pair.forge(COVERED + b"%d" % seq, seq))
    assert len(pair.lane._opener._held) == c.GROUP_HELD
    for n in range(10):
        pair.take(pair.forge(COVERED + b"%d" % n, 3000))
    assert sum(seq == 3000 for seq, _ in pair.lane._opener._held) == 2
    assert pair.delivered == [b"hello"]


def test_G6_a_manifest_that_covers_what_has_come_delivers_nothing_twice() -> None:
    pair = Pair()
    for datagram in pair.sealer.covered(plains(2)):
        pair.take(datagram)
    # The publisher's own mistake, signed: it covers seqs 2 to 4 again, and 5.
    header = la.group_header(0, pair.keys.channel, 4)
    late = pair.forge(data(2, b"late", la.DATA_COVERED), 5)
    digests = [sha256(late).digest()[:16]] * 3
    plain = b"\x03" + la.manifest_body(digests)
    again = pair.forge(plain + pair.keys.sign(b"mp2p-v1 group\0" + OWNER + header + plain), 4)
    assert pair.take(late) == "Unproven"
    assert pair.take(again) == "Manifest"
    assert pair.delivered == [b"message 0", b"message 1", b"late"]
    assert pair.take(late) == "group-repeated"


@pytest.mark.parametrize("count", [0, 255])
def test_G6_a_signed_manifest_of_none_or_of_too_many_is_silent(count: int) -> None:
    pair = Pair()
    header = la.group_header(0, pair.keys.channel, 1)
    plain = bytes([3, count]) + bytes(16 * count)
    before = pair.state
    assert pair.take(pair.forge(plain + pair.keys.sign(b"mp2p-v1 group\0" + OWNER + header + plain), 1)) == (
        "group-malformed"
    )
    assert pair.state == before


@pytest.mark.parametrize("kind", [0, la.PARITY, 7, 15])
def test_a_publisher_that_signs_what_has_no_signature_is_silent(kind: int) -> None:
    pair = Pair()
    before = pair.state
    assert pair.take(pair.sealer._signed(bytes((kind,)) + HELLO[1:], 1)) == "group-malformed"
    assert pair.state == before


@pytest.mark.parametrize("plain", [b"", b"\x32", COVERED[:4]])
@pytest.mark.parametrize("together", [False, True])
def test_a_publisher_that_covers_less_than_a_head_is_silent(plain: bytes, together: bool) -> None:
    pair = Pair()
    manifest, *covered = pair.sealer.covered([plain, *plains(2)])
    assert pair.take(manifest) == "Manifest"
    assert not together or pair.lane.receive_covered_untrusted(covered) == 0
    assert pair.take(covered[0]) == "group-malformed"
    assert pair.take(pair.forge(b"", 9)) == "group-malformed"
    assert not pair.delivered


def test_G6_manifests_are_forgotten_with_what_they_cover() -> None:
    pair = Pair()
    for n in range(200):
        manifest, *covered = pair.sealer.covered(plains(4, 4 * n))
        for datagram in (manifest, *covered[: 3 if n < 100 else 4]):
            pair.take(datagram)
    assert len(pair.lane._opener._digests) == 100
    pair.lane.give_up()
    for datagram in pair.sealer.covered(plains(1, 800)):
        pair.take(datagram)
    assert len(pair.lane._opener._digests) == 0


@pytest.mark.parametrize("order", ["before the manifest", "after it"])
def test_G7_a_datagram_of_another_hash_gives_way_to_the_genuine_one(order: str) -> None:
    pair = Pair()
    manifest, first, second = pair.sealer.covered(plains(2))
    false = pair.forge(data(1, b"false", la.DATA_COVERED), 3)
    if order == "after it":
        assert [pair.take(each) for each in (manifest, false)] == ["Manifest", "group-forged"]
    else:
        assert [pair.take(each) for each in (false, manifest)] == ["Unproven", "Manifest"]
    assert pair.lane.forged == 1, "noticed"
    assert pair.take(first) == "Data"
    assert pair.delivered == [b"message 0"]
    pair.take(pair.sealer.heartbeat(1, 1, 2))
    (nack,) = pair.lane.handle_timeout(1.0)
    assert nack.seqs() == [3], "asked for again"
    assert pair.take(second, 1.0) == "Data"
    assert pair.delivered == [b"message 0", b"message 1"]


def test_G7_the_genuine_one_may_also_wait_beside_the_false_one() -> None:
    pair = Pair()
    manifest, first = pair.sealer.covered(plains(1))
    pair.take(pair.forge(data(0, b"false", la.DATA_COVERED), 2))
    pair.take(first)
    pair.take(manifest)
    assert pair.delivered == [b"message 0"]


def test_a_lost_manifest_alone_is_asked_for_at_first() -> None:
    pair = Pair()
    _, *covered = pair.sealer.covered(plains(5))
    for datagram in covered:
        pair.take(datagram)
    pair.take(pair.sealer.heartbeat(1, 1, 5))
    (nack,) = pair.lane.handle_timeout(1.0)
    assert nack.seqs() == [1]
    asked: set[int] = set()
    now = 1.0
    for _ in range(3):
        now = pair.lane.timeout()
        for nack in pair.lane.handle_timeout(now):
            asked.update(nack.seqs())
    assert asked == {1, 2, 3, 4, 5, 6}, "they may be forged"


@pytest.mark.parametrize("place", [0, 1, 4])
@pytest.mark.parametrize("what", ["edited", "forged", "other seq", "uncovered"])
def test_G7_what_is_taken_together_is_the_publishers(place: int, what: str) -> None:
    pair = Pair()
    manifest, *covered = pair.sealer.covered(plains(5))
    pair.take(manifest)
    seq = la.group_fields(covered[place])[4]
    false = {
        "edited": covered[place][:-1] + bytes((covered[place][-1] ^ 1,)),
        "forged": pair.forge(plains(9)[8], seq),
        "other seq": covered[(place + 1) % 5],
        "uncovered": pair.forge(plains(1)[0], seq + 50),
    }[what]
    run = [*covered[:place], false, *covered[place + 1 :]]
    assert pair.lane.receive_covered_untrusted(run) == place
    assert pair.delivered == [each[5:] for each in plains(5)[:place]]
    assert pair.lane.receive_covered_untrusted(covered[place:]) == 5 - place
    assert pair.delivered == [each[5:] for each in plains(5)]
    assert pair.lane.receive_covered_untrusted(covered) == 0, "none of them twice"


def test_what_is_taken_together_comes_as_one_event_with_its_pieces_in_their_places() -> None:
    pair = Pair()
    whole = [la.data_plain(la.DATA_COVERED, la.WHOLE, n, b"%d" % n) for n in range(3)]
    several = la.several_plain(la.DATA_COVERED, 3, [b"3", b"4"])
    pieces = [
        la.data_plain(la.DATA_COVERED, la.BEGIN, 5, b"5"),
        la.data_plain(la.DATA_COVERED, la.END, 5, b"five"),
    ]
    last = la.data_plain(la.DATA_COVERED, la.WHOLE, 6, b"6")
    manifest, *covered = pair.sealer.covered([*whole, several, *pieces, last])
    pair.take(manifest)
    assert pair.lane.receive_covered_untrusted(covered) == 7
    assert list(pair.feed.events) == [
        Messages(0, [b"0", b"1", b"2", b"3", b"4"]), Messages(5, [b"5five"]), Messages(6, [b"6"])
    ]  # fmt: skip


def test_no_nonce_is_used_twice() -> None:
    pair = Pair()
    seen: set[int] = set()
    make: list[Callable[[], list[bytes]]] = [
        lambda: [pair.sealer.data(HELLO)],
        lambda: pair.sealer.covered(plains(3)),
        lambda: [pair.sealer.heartbeat(1, 1, 1)],
    ]
    rng = random.Random(3)
    for _ in range(50):
        for datagram in rng.choice(make)():
            seq = la.group_fields(datagram)[4]
            assert seq not in seen
            seen.add(seq)
    assert la.group_fields(pair.sealer.rotate())[4] not in seen
