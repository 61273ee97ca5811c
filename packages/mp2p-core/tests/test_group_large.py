"""Large packets: sealed in one go, cut into datagrams, proven by one signature (protocol section 8; G1 to G3)."""

from __future__ import annotations

import random
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group.events import Messages
from mp2p_core.proto.group.feed import Feed
from mp2p_core.proto.group.keys import GroupSuite, SendKeys, message_key
from mp2p_core.proto.group.lane import Lane
from mp2p_core.proto.group.packing import Outgoing
from mp2p_core.proto.group.parity import parity_seq, parity_sum
from mp2p_core.proto.group.sealing import Sealer

OWNER: Final = b"P" * 32
SIZE: Final = 1179
Train = tuple[bytes, int]


def messages(count: int, size: int = 1000, seed: int = 0) -> list[bytes]:
    return [random.Random(seed + n).randbytes(size) for n in range(count)]


class Pair:
    """A publisher's sealer and a subscriber's lane; counts how many signatures are verified."""

    def __init__(self) -> None:
        self.verified = 0
        self.keys = SendKeys(1, random.Random(1).randbytes)
        self.sealer = Sealer(OWNER, self.keys)
        self.feed = Feed()
        self.feed.begin(0)
        self.number = 0
        keys = self.keys
        grant = g.Grant(
            topic=bytes(16), channel=keys.channel, epoch=1, generation=0, chain_key=keys.chain_key,
            signing_key=keys.signing_key, next_seq=1, group=bytes(20), history=0, heartbeat_ms=2000, last_seq=0,
            number=0, run=b"r" * 8, mode=g.REPAIRED, backlog=False,
        )  # fmt: skip
        self.lane = Lane(
            OWNER, grant, self.feed, rtt=0.001, random=random.Random(1).randbytes,
            suite=GroupSuite(verifier=self._verifier),
        )  # fmt: skip
        self.lane.begin_turn()
        self.lane.early = True

    def _verifier(self, key: bytes) -> Callable[[bytes, bytes], bool]:
        verify = GroupSuite().verifier(key)

        def check(signature: bytes, data: bytes) -> bool:
            self.verified += 1
            return verify(signature, data)

        return check

    def seal(self, *packets: list[bytes]) -> list[bytes]:
        plains = []
        for sent in packets:
            plains.append(la.large_plain(self.number, sent))
            self.number += len(sent)
        return self.sealer.large(plains, SIZE)

    def take(self, datagram: bytes, now: float = 0.0) -> str:
        _, _, generation, _, seq = la.group_fields(datagram)
        try:
            return type(self.lane.receive_untrusted(datagram, generation, seq, now)).__name__
        except BadPacket as error:
            return str(error)

    @property
    def delivered(self) -> list[bytes]:
        return [each for event in self.feed.events if isinstance(event, Messages) for each in event.messages]

    def forged(self, body: bytes, seq: int) -> bytes:
        """Seal as any subscriber can, with a signature of its own making."""
        header = la.group_header(0, self.keys.channel, seq)
        key = ChaCha20Poly1305(message_key(self.keys.chain_key, self.keys.channel, 0))
        plain = bytes([la.LARGE]) + body + bytes(64)
        return header + key.encrypt(bytes(4) + seq.to_bytes(8, "little"), plain, header)


def train(datagrams: list[bytes]) -> Train:
    return b"".join(datagrams), len(datagrams[0])


def together(datagrams: list[bytes], count: int) -> list[Train]:
    """Return the trains of equal packets that were sealed together."""
    size = len(datagrams) // count
    return [train(datagrams[at : at + size]) for at in range(0, len(datagrams), size)]


def test_a_large_packet_is_that_of_the_protocol_to_the_byte() -> None:
    pair = Pair()
    sent = messages(5)
    manifest, *parts = pair.seal(sent)
    header = la.group_header(0, pair.keys.channel, 2)
    key = ChaCha20Poly1305(message_key(pair.keys.chain_key, pair.keys.channel, 0))
    sealed = b"".join(part[20:] for part in parts)
    plain = key.decrypt(b"\1\0\0\0" + (2).to_bytes(8, "little"), sealed, header)
    assert plain == bytes(4) + b"\0\5" + (1000).to_bytes(2, "big") * 5 + b"".join(sent)
    body = pair.lane._opener.decrypt_untrusted(manifest, 0, 1)[:-64]
    digests = b"".join(sha256(part).digest()[:16] for part in parts)
    assert body == b"\7\5" + bytes(32) + sha256(b"".join(parts)).digest()[:16] + digests
    assert [la.group_fields(each)[4] for each in (manifest, *parts)] == [1, 2, 3, 4, 5, 6]
    assert {len(part) for part in parts[:-1]} == {SIZE}


def test_the_bytes_of_large_packets_are_frozen() -> None:
    """With these keys, drawn from `random.Random(1)`, what leaves never changes."""
    pair = Pair()
    sent = [bytes([n]) * 1000 for n in range(30)]
    found = [sha256(b"".join(pair.seal(*each))).hexdigest() for each in ([sent], [sent[:5]], [sent, sent])]
    assert found == [
        "d045f6b8621642c3332e494154f82776b7a22a8b30b5226c8cdb0d40b9ecb3d9",
        "4d0a642285afc12ac779a5ecb55991b1d9a6088f7bf33bf79f67277656925296",
        "574c1b67c18d08cabfa837eceb8ed077c62285040b5ea671f440c7ed6989d4c6",
    ]


def test_each_names_the_one_before_it_and_long_ones_are_one_train() -> None:
    pair = Pair()
    first, second = pair.seal(messages(60)), pair.seal(messages(60))
    pair.sealer.heartbeat(1, 1, pair.number)
    third = pair.seal(messages(60))
    named = [
        pair.lane._opener.decrypt_untrusted(each[0], 0, la.group_fields(each[0])[4])[2:18]
        for each in (first, second, third)
    ]
    assert named == [bytes(16), sha256(first[0]).digest()[:16], bytes(16)]
    assert {len(each) for each in first[:-1]} == {SIZE}


def test_of_those_that_leave_together_each_names_the_one_behind_it() -> None:
    pair = Pair()
    before, last = pair.seal(messages(60)), pair.seal(*[messages(60)] * 3)
    manifests = [last[at] for at in range(0, len(last), len(before))]
    named = [
        pair.lane._opener.decrypt_untrusted(each, 0, la.group_fields(each)[4])[2:34] for each in manifests
    ]
    behind = [sha256(each).digest()[:16] for each in manifests[1:]]
    assert named == [sha256(before[0]).digest()[:16] + behind[0], bytes(16) + behind[1], bytes(32)]
    assert [la.group_fields(each)[4] for each in last] == list(range(1 + len(before), pair.sealer.next_seq))


def test_one_signature_proves_those_that_leave_together_whenever_each_comes() -> None:
    pair = Pair()
    sent = [messages(30, seed=100 * n) for n in range(4)]
    trains = together(pair.seal(*sent), 4)
    for each in trains[0:1], trains[1:3], trains[3:]:
        assert len(pair.lane.receive_large_untrusted(each)) == len(each)
    assert pair.delivered == [each for some in sent for each in some]
    assert pair.verified == 1
    more = [together(pair.seal(*sent[:2]), 2) for _ in range(2)]
    assert len(pair.lane.receive_large_untrusted(more[0] + more[1])) == 4
    assert pair.verified == 3, "one for each two that left together"


def test_after_one_that_came_in_pieces_the_next_one_is_proven_by_itself() -> None:
    pair = Pair()
    datagrams = pair.seal(*[messages(30)] * 3)
    first, second, third = together(datagrams, 3)
    assert len(pair.lane.receive_large_untrusted([first])) == 1
    for each in datagrams[len(datagrams) // 3 : 2 * len(datagrams) // 3]:
        pair.take(each)
    assert pair.verified == 2
    assert len(pair.lane.receive_large_untrusted([third])) == 1
    assert pair.verified == 3
    assert pair.lane.receive_large_untrusted([second]) == [], "a repeat"
    assert pair.delivered == messages(30) * 3


def test_G2_what_a_packet_names_is_the_very_datagram() -> None:
    pair = Pair()
    first, second = together(pair.seal(messages(30), messages(30, seed=50)), 2)
    insider = Sealer(OWNER, SendKeys(1, random.Random(9).randbytes))
    insider.keys.channel, insider.keys.aead = pair.keys.channel, pair.keys.aead
    insider.next_seq = 1 + len(first[0]) // SIZE + 1
    false = train(insider.large([la.large_plain(30, messages(30, seed=7))], SIZE))
    assert la.group_fields(false[0])[4] == la.group_fields(second[0])[4]
    assert len(pair.lane.receive_large_untrusted([first])) == 1
    assert pair.lane.receive_large_untrusted([false]) == []
    assert pair.delivered == messages(30)
    assert len(pair.lane.receive_large_untrusted([second])) == 1
    assert pair.delivered == messages(30) + messages(30, seed=50)


def test_many_that_an_insider_makes_cost_a_signature_each() -> None:
    pair = Pair()
    genuine = together(pair.seal(*[messages(30, seed=n) for n in range(3)]), 3)
    insider = Sealer(OWNER, SendKeys(1, random.Random(9).randbytes))
    insider.keys.channel, insider.keys.aead = pair.keys.channel, pair.keys.aead
    insider.next_seq = pair.sealer.next_seq
    false = [train(insider.large([la.large_plain(90, messages(30))], SIZE)) for _ in range(10)]
    assert len(pair.lane.receive_large_untrusted(genuine + false)) == 3
    assert pair.verified == 1 + len(false)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_one_signature_proves_all_that_wait(count: int) -> None:
    pair = Pair()
    sent = [messages(30, seed=100 * n) for n in range(count)]
    trains = [train(pair.seal(each)) for each in sent]
    taken = pair.lane.receive_large_untrusted(trains)
    assert sum(taken) == pair.sealer.next_seq - 1 == pair.lane.window.base - 1
    assert pair.delivered == [each for some in sent for each in some]
    assert pair.verified == 1


def test_datagrams_one_by_one_bring_the_same_in_any_order() -> None:
    for seed in range(20):
        pair = Pair()
        sent = [messages(30, seed=100 * n) for n in range(2)]
        datagrams = [each for some in sent for each in pair.seal(some)]
        manifests = [datagrams.pop(27), datagrams.pop(0)]
        random.Random(seed).shuffle(datagrams)
        kinds = {pair.take(each) for each in [*manifests, *datagrams]}
        assert kinds == {"Manifest", "Part", "Data"}, seed
        assert sorted(pair.delivered) == sorted(sent[0] + sent[1]), seed
        assert not pair.lane.window
        assert pair.lane.window.base == pair.sealer.next_seq


def test_parts_behind_their_manifest_are_taken_together() -> None:
    pair = Pair()
    sent = messages(10)
    manifest, *parts = pair.seal(sent)
    assert pair.take(manifest) == "Manifest"
    assert pair.lane.receive_large_untrusted([train(parts)]) == [len(parts)]
    assert pair.delivered == sent
    assert pair.verified == 1
    assert not pair.lane._opener._packets
    assert not pair.lane._opener._digests


def test_a_part_without_its_manifest_waits_and_moves_nothing() -> None:
    pair = Pair()
    manifest, *parts = pair.seal(messages(10))
    assert {pair.take(part) for part in parts} == {"group-unsealed"}
    assert pair.lane.receive_large_untrusted([train(parts)]) == []
    assert pair.lane.window.highest == 0
    assert not pair.delivered
    assert pair.take(manifest) == "Manifest"
    assert pair.delivered == messages(10)
    assert not pair.lane._opener.early


def test_G6_what_strangers_send_in_the_place_of_parts_is_bounded_and_displaces_none_that_is_proven() -> None:
    pair = Pair()
    manifest, *parts = pair.seal(messages(10))
    far = la.group_header(0, pair.keys.channel, c.GROUP_WINDOW + 100) + bytes(60)
    assert pair.take(far) == "group-unsealed"
    assert not pair.lane._opener.early
    for n in range(3 * c.GROUP_HELD):
        seq = 2 + n % (2 * c.GROUP_HELD)
        pair.take(la.group_header(0, pair.keys.channel, seq) + random.Random(n).randbytes(60))
    assert len(pair.lane._opener._early) <= c.GROUP_HELD
    assert pair.lane.window.highest == 0
    assert pair.lane.forged == 0
    assert pair.take(manifest) == "Manifest"
    assert [pair.take(each) for each in parts][-1] == "Data"
    assert pair.delivered == messages(10)


def test_G3_what_strangers_alter_is_refused_and_what_is_genuine_still_comes() -> None:
    pair = Pair()
    sent = messages(30)
    datagrams = pair.seal(sent)
    for at in (3, SIZE + 3, SIZE + 19, SIZE + 50, -1):
        altered = bytearray(b"".join(datagrams))
        altered[at] ^= 1
        assert pair.lane.receive_large_untrusted([(bytes(altered), SIZE)]) == []
    spoiled = bytearray(datagrams[3])
    spoiled[40] ^= 1
    assert pair.take(datagrams[0]) == "Manifest"
    assert pair.take(bytes(spoiled)) == "group-spoiled"
    assert pair.lane.forged == 0, "anybody can make such a datagram: no subscriber is suspected"
    assert [pair.take(each) for each in datagrams[1:]][-1] == "Data"
    assert pair.delivered == sent


def test_G2_an_insider_forges_no_large_packet() -> None:
    pair = Pair()
    genuine = pair.seal(messages(30))
    insider = Sealer(OWNER, SendKeys(1, random.Random(9).randbytes))
    insider.keys.channel, insider.keys.aead = pair.keys.channel, pair.keys.aead
    false = insider.large([la.large_plain(0, messages(30, seed=7))], SIZE)
    assert pair.lane.receive_large_untrusted([train(false)]) == []
    assert pair.take(false[0]) == "group-forged"
    assert pair.lane.forged == 1
    # Nor behind a genuine one, nor in front of it: what it names proves another.
    after = insider.large([la.large_plain(30, messages(30, seed=8))], SIZE)
    assert pair.lane.receive_large_untrusted([train(genuine), train(after)]) == [len(genuine)]
    assert pair.delivered == messages(30)
    next_one = pair.seal(messages(30, seed=9))
    follows = insider.large([la.large_plain(60, messages(30))], SIZE)
    assert pair.lane.receive_large_untrusted([train(next_one), train(follows)]) == [len(next_one)]
    assert pair.delivered == messages(30) + messages(30, seed=9)


def test_G2_a_genuine_packet_does_not_prove_a_false_one_before_it() -> None:
    pair = Pair()
    genuine, following = pair.seal(messages(30)), pair.seal(messages(30, seed=50))
    insider = Sealer(OWNER, SendKeys(1, random.Random(9).randbytes))
    insider.keys.channel, insider.keys.aead = pair.keys.channel, pair.keys.aead
    false = insider.large([la.large_plain(0, messages(30, seed=7))], SIZE)
    assert len(false) == len(genuine)
    assert pair.lane.receive_large_untrusted([train(false), train(following)]) == []
    assert pair.lane.receive_large_untrusted([train(genuine), train(following)]) == [
        len(genuine),
        len(following),
    ]
    assert pair.delivered == messages(30) + messages(30, seed=50)


def test_what_is_not_next_in_turn_is_left_to_others() -> None:
    pair = Pair()
    first, second = pair.seal(messages(30)), pair.seal(messages(30, seed=50))
    pair.lane.begun = False
    assert pair.lane.receive_large_untrusted([train(first)]) == []
    pair.lane.begin_turn()
    assert len(pair.lane.receive_large_untrusted([train(first)])) == 1
    pair.take(second[0])
    pair.take(second[2])
    assert pair.lane.window, "one is missing"
    assert pair.lane.receive_large_untrusted([train(second[1:])]) == []
    pair.lane.end(pair.lane.window.highest, 0.0)
    assert pair.lane.receive_large_untrusted([train(second[1:])]) == []
    assert pair.delivered == messages(30)


def test_G2_a_genuine_manifest_proves_no_parts_but_its_own() -> None:
    pair = Pair()
    first, second = pair.seal(messages(30)), pair.seal(messages(30, seed=50))
    mixed = first[0] + b"".join(second[1:])
    assert pair.lane.receive_large_untrusted([(mixed, SIZE)]) == []
    one_less = b"".join(first[:-1])
    assert pair.lane.receive_large_untrusted([(one_less, SIZE)]) == []
    cut_elsewhere = b"".join(first)
    assert pair.lane.receive_large_untrusted([(cut_elsewhere, SIZE - 1)]) == []
    assert pair.lane.window.base == 1
    assert not pair.delivered


def test_a_chain_ends_where_a_packet_is_missing() -> None:
    pair = Pair()
    trains = [train(pair.seal(messages(30, seed=n))) for n in range(3)]
    assert len(pair.lane.receive_large_untrusted([trains[0], trains[2]])) == 1
    assert len(pair.lane.receive_large_untrusted([trains[1], trains[2]])) == 2
    assert pair.lane.receive_large_untrusted(trains) == [], "a repeat"
    assert pair.delivered == [each for n in range(3) for each in messages(30, seed=n)]


def test_what_is_missing_of_a_large_packet_is_restored_from_sums() -> None:
    pair = Pair()
    first, second = pair.seal(messages(30)), pair.seal(messages(30, seed=40))
    assert len(pair.lane.receive_large_untrusted([train(first)])) == 1
    lost = second[4]
    for each in second:
        if each is not lost:
            pair.take(each)
    pair.lane.known(la.group_fields(second[-1])[4], 1.0)
    assert pair.delivered == messages(30)
    block = (first + second)[:64]
    content = parity_sum(block, 0)
    header = la.group_header(0, pair.keys.channel, parity_seq(0, 0, len(block)))
    pair.take(pair.sealer.parity(la.group_fields(header)[4], content), 1.0)
    assert pair.delivered == messages(30) + messages(30, seed=40)


def test_sums_that_come_one_by_one_keep_the_questions_going() -> None:
    pair = Pair()
    datagrams = pair.seal(messages(30))
    for each in datagrams[:1] + datagrams[14:]:
        pair.take(each)
    pair.lane.known(len(datagrams), 0.0)
    now = 0.0
    for n in range(13):
        assert not pair.delivered
        nacks: list[g.Nack] = []
        while not nacks:
            assert pair.lane.wanted, f"given up after {n} sums"
            now = pair.lane.timeout()
            nacks = pair.lane.handle_timeout(now)
        pair.take(pair.sealer.parity(parity_seq(0, n, len(datagrams)), parity_sum(datagrams, n)), now)
    assert pair.delivered == messages(30)


def test_what_sums_restore_before_its_manifest_is_there_waits_for_it() -> None:
    pair = Pair()
    for _ in range(39):
        pair.take(pair.sealer.heartbeat(1, 1, 0))
    large = pair.seal(messages(30, 970))
    assert [la.group_fields(each)[4] for each in large][::26] == [40, 66]
    last = pair.sealer.heartbeat(1, 1, 30)
    for each in [*large[1:25], last]:
        pair.take(each)
    in_block = [*large[25:], last]
    for n in range(2):
        pair.take(pair.sealer.parity(parity_seq(1, n, 3), parity_sum(in_block, n)), 1.0)
    assert pair.lane.forged == 0
    assert pair.lane._blocks is not None
    assert not pair.lane._blocks[1].spoiled
    assert not pair.delivered
    pair.take(large[0], 2.0)
    assert pair.delivered == messages(30, 970)


def test_strangers_may_spoil_the_sums_of_a_block_and_nobody_is_suspected() -> None:
    pair = Pair()
    manifest, *parts = pair.seal(messages(30))
    sums = [
        pair.sealer.parity(parity_seq(0, n, len(parts) + 1), parity_sum([manifest, *parts], n))
        for n in range(3)
    ]
    false = la.group_header(0, pair.keys.channel, 4) + random.Random(1).randbytes(len(parts[2]) - 20)
    pair.take(false)
    for each in parts[3:]:
        pair.take(each)
    pair.lane.known(len(parts) + 1, 1.0)
    for each in sums:
        pair.take(each, 1.0)
    assert pair.lane.forged == 0
    for each in (manifest, *parts):
        pair.take(each, 2.0)
    assert pair.delivered == messages(30)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0" + bytes(48), bytes((c.MAX_PARTS + 1,)) + bytes(48 + 16 * 54), b"\1" + bytes(47),
        b"\2" + bytes(48 + 16), b"\1" + bytes(64) + b"\1",
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    plain = bytes([la.LARGE]) + body
    with pytest.raises(BadPacket, match="group-malformed"):
        la.parse_large_untrusted(plain, len(plain))
    pair = Pair()
    assert pair.lane.receive_large_untrusted([(pair.forged(body, 1) * 2, len(body) + 101)]) == []
    assert pair.take(pair.forged(body, 1)) in ("group-malformed", "group-forged")


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        bytes(5),
        bytes(6),
        bytes(5) + b"\1",
        bytes(5) + b"\1\0\1",
        bytes(5) + b"\1\0\1ab",
        bytes(5) + b"\2\0\0",
    ],
)
def test_what_is_no_content_of_a_large_packet_is_refused(plain: bytes) -> None:
    with pytest.raises(BadPacket, match="group-malformed"):
        la.parse_large_plain_untrusted(plain)


@pytest.mark.parametrize("size", [1, 12, 19, 36, 37])
def test_trains_of_small_datagrams_are_left_to_others(size: int) -> None:
    pair = Pair()
    header = la.group_header(0, pair.keys.channel, 1)
    for length in range(size, 3 * size):
        assert pair.lane.receive_large_untrusted([((header * 6)[:length], size)]) == []


def test_messages_are_put_into_large_packets_that_fit() -> None:
    outgoing = Outgoing(SIZE)
    for each in messages(200, 1030):
        outgoing.put(each)
    taken = outgoing.large(c.MAX_PARTS)
    datagrams = Pair().sealer.large([la.large_plain(0, taken)], SIZE)
    assert len(datagrams) == 1 + c.MAX_PARTS
    assert outgoing.next_number == len(taken) == 200 - len(outgoing)
    assert outgoing.size == len(outgoing) * 1030
    while outgoing:
        before = len(outgoing)
        if not (taken := outgoing.large(c.MAX_PARTS)):
            break
        assert len(outgoing) == before - len(taken)
    assert outgoing.size < 3 * outgoing.room, "what few datagrams hold does not go into a large packet"


def test_a_message_that_is_midway_or_too_long_goes_into_no_large_packet() -> None:
    outgoing = Outgoing(SIZE)
    outgoing.put(bytes(70000))
    outgoing.put(bytes(5000))
    assert outgoing.large(c.MAX_PARTS) == []
    outgoing.batch(2)
    assert outgoing.midway
    assert outgoing.large(c.MAX_PARTS) == []
    assert outgoing.next_number == 0
