"""A topic and its subscribers in a simulated network (protocol section 8; rows G1, G2, G6, G8, G10 to G17)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group.events import MemberLeft, Reached
from mp2p_core.proto.group.keys import message_key, next_chain_key
from mp2p_core.proto.noise_suite import nonce_little_endian
from mp2p_core.testing.group import OWNER, GroupSim, SimSubscriber

LARGE = 3000


def make(n: int) -> bytes:
    return b"message %d " % n + b"." * 150


def complete(each: SimSubscriber, numbers: range) -> bool:
    """Whether it got exactly these, each once, with their contents."""
    return sorted(each.numbers) == list(numbers) and not each.gaps


def told(each: SimSubscriber) -> list[int]:
    """The numbers that were delivered or reported as missing."""
    found = list(each.numbers)
    for gap in each.gaps:
        if gap.number is not None:
            assert gap.missing is not None
            found += range(gap.number, gap.number + gap.missing)
    return sorted(found)


# --- it works ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", [g.BEST_EFFORT, g.REPAIRED, g.ORDERED], ids=["best effort", "repaired", "ordered"]
)
def test_everything_arrives_once_without_loss(mode: int) -> None:
    sim = GroupSim(1, mode=mode)
    sim.join(3)
    sim.stream(50, 0.01, make)
    sim.publish(*(make(n) for n in range(50, 500)))
    sim.publish(bytes(200_000), b"", make(502))
    sim.run(2)
    for each in sim.subscribers:
        assert each.numbers == list(range(503)), sim.seed
        assert each.messages[:500] == [make(n) for n in range(500)]
        assert each.messages[500:] == [bytes(200_000), b"", make(502)]
        assert not each.gaps
    assert sim.nacks == 0
    assert sim.shared.repeats == 0


@pytest.mark.parametrize("mode", [g.REPAIRED, g.ORDERED], ids=["repaired", "ordered"])
@pytest.mark.parametrize("seed", range(4))
def test_repaired_topics_are_complete_whatever_the_network_does(mode: int, seed: int) -> None:
    sim = GroupSim(seed, mode=mode, loss=0.1, shared_loss=0.05, nack_loss=0.1, jitter=0.02)
    sim.join(5, settle=3)
    sizes = itertools.cycle([20, 300, 1500, 20, 20, 9000])
    sim.stream(300, 0.004, lambda n: make(n).ljust(next(sizes)))
    sim.run(8)
    for each in sim.subscribers:
        assert complete(each, range(300)), sim.seed
        if mode == g.ORDERED:
            assert each.numbers == list(range(300)), sim.seed
    assert sim.shared.repeats == 0


@pytest.mark.parametrize("mode", [g.REPAIRED, g.ORDERED], ids=["repaired", "ordered"])
@pytest.mark.parametrize("seed", range(4))
def test_large_packets_of_which_parts_are_lost_are_complete_in_the_end(mode: int, seed: int) -> None:
    sim = GroupSim(seed, mode=mode, loss=0.0, jitter=0.01 if seed % 2 else 0.0)
    sim.join(5, settle=0.3)
    sizes = itertools.cycle([1000, 20, 3000, 60])
    for batch in range(20):
        # Every fourth batch follows some that went well, and loses single datagrams or half of all.
        sim.loss = (0.0, 0.0, 0.02, 0.5)[batch % 4]
        sim.publish(*(make(100 * batch + n).ljust(next(sizes)) for n in range(100)))
        sim.run(0.05)
        sim.loss = 0.0
        sim.run(1.5)
    sim.run(5)
    for each in sim.subscribers:
        assert complete(each, range(2000)), sim.seed
        if mode == g.ORDERED:
            assert each.numbers == list(range(2000)), sim.seed
        assert each.suspicions == [], "nobody has forged anything"
    assert sim.nacks
    assert sim.shared.repeats == 0


@pytest.mark.parametrize("seed", [67, 90, *range(8)])
def test_messages_of_any_size_and_in_any_number_are_complete(seed: int) -> None:
    """Cut anywhere, and together as a publisher happens to find them: of two of these seeds the last part is tiny."""
    draw = random.Random(seed)
    mode = draw.choice([g.REPAIRED, g.ORDERED])
    sim = GroupSim(
        seed, mode=mode, loss=draw.choice([0, 0, 0.01, 0.05, 0.1]), nack_loss=draw.choice([0, 0.1]),
        jitter=draw.choice([0, 0, 0.0005, 0.003]),
    )  # fmt: skip
    sim.join(draw.choice([1, 2, 4]))
    count = 0
    for _ in range(draw.randint(3, 12)):
        most = draw.choice([10, 100, 1000, 1000, 2000, 20000])
        burst = draw.choice([1, 3, 10, 40, 100, 200] if most < 5000 else [1, 3, 10])
        messages = [
            draw.randbytes(draw.randint(0, most) if draw.random() < 0.5 else most) for _ in range(burst)
        ]
        count += burst
        if draw.random() < 0.5:
            sim.publish(*messages)
        else:
            for message in messages:
                sim.publish(message)
                sim.run(draw.random() * 0.001)
        sim.run(draw.choice([0, 0.001, 0.02, 0.3]))
    sim.run(10)
    for each in sim.subscribers:
        assert sorted(each.numbers) == list(range(count)), sim.seed
        assert not each.gaps, sim.seed


@pytest.mark.parametrize("silence", [0.0, 0.05, 0.9])
def test_a_few_values_and_the_end_arrive_soon_although_much_is_lost(silence: float) -> None:
    """A publisher that says all at once and asks whether it has arrived, as commands do."""
    for seed in range(15):
        sim = GroupSim(seed, loss=0.1, history=1)
        only = sim.add()
        while not sim.publisher.members:
            sim.run(0.001)
        # Until then the group does not arrive here: the host has just joined it.
        heard_at = sim.now + silence
        sim.drop = lambda _datagram, sim=sim, heard_at=heard_at: sim.now < heard_at
        sim.publish(*(b"%d" % n for n in range(300)))
        sim.run(0.05)
        sim.publisher.confirm()
        sim.serve_publisher()
        sim.run(0.5)
        assert [int(each) for each in only.messages] == only.numbers, seed
        assert sorted(only.numbers) == list(range(300)), seed
        assert not only.gaps, seed
        assert not sim.publisher.undelivered, seed


def test_best_effort_is_told_of_every_gap_and_asks_for_nothing() -> None:
    sim = GroupSim(3, mode=g.BEST_EFFORT, loss=0.1)
    sim.join(3)
    sim.stream(500, 0.002, make)
    sim.run(5)
    for each in sim.subscribers:
        assert told(each) == list(range(500)), sim.seed
        assert 350 < len(each.numbers) < 500, sim.seed
    assert sim.nacks == 0
    assert sim.publisher.counters["repair"] == 0


@pytest.mark.parametrize(("count", "messages"), [(2, 1000), (50, 600), (1000, 100)])
def test_ten_per_cent_random_loss(count: int, messages: int) -> None:
    """Complete, with repairs at most half of the data."""
    sim = GroupSim(11, loss=0.1)
    sim.join(count, settle=0.2)
    sim.stream(messages, 0.001, make)
    sim.run(4)
    assert all(complete(each, range(messages)) for each in sim.subscribers), sim.seed
    counters = sim.publisher.counters
    data = sim.traffic["bytes"] - counters["repair-bytes"]
    # What may be saved up beforehand, and what repairs the end, counts beside the half.
    beside = c.REPAIR_BURST + c.REPAIR_TRICKLE
    assert counters["repair-bytes"] <= data / 2 + (beside if count == 1000 else 0), sim.seed
    assert sim.nacks < 12 * messages, sim.seed


@pytest.mark.parametrize(("count", "seed"), [(200, 1), (200, 2), (1000, 3), (1000, 4)])
def test_G11_all_lose_the_same_datagram(count: int, seed: int) -> None:
    sim = GroupSim(seed)
    sim.join(count, settle=0.2)
    sim.publish(make(0))
    sim.run(0.1)
    dropped: list[bytes] = []
    sim.drop = lambda datagram: not dropped and not dropped.append(datagram)  # type: ignore[func-returns-value]  # it appends the first
    sim.stream(3, 0.01, make)
    sim.run(0.5)
    assert len(dropped) == 1
    assert 0 < sim.nacks < 15, sim.seed
    assert sim.publisher.counters["repair"] == 1
    assert all(complete(each, range(4)) for each in sim.subscribers), sim.seed


def test_what_one_more_subscriber_costs_the_publisher_is_nothing() -> None:
    """Bytes on the wire, and what is sealed and signed."""
    costs = []
    for count in (1, 16):
        sim = GroupSim(5)
        sim.join(count)
        before = dict(sim.traffic)
        sealed = len(sim.shared.sealed)
        sim.stream(200, 0.002, make)
        costs.append((sim.traffic["bytes"] - before["bytes"], len(sim.shared.sealed) - sealed))
    assert costs[0] == costs[1]


# --- attackers --------------------------------------------------------------------------------------


def test_G1_an_outsider_sees_all_and_achieves_nothing() -> None:
    sim = GroupSim(7)
    sim.record = True
    sim.join(2)
    for n in range(60):
        sim.publish(make(n))
        datagram = bytearray(sim.rng.choice(list(filter(None, sim.sent))))
        datagram[sim.rng.randrange(len(datagram))] ^= 1 << sim.rng.randrange(8)
        sim.send(
            [bytes(datagram), sim.rng.choice(sim.sent), sim.rng.randbytes(sim.rng.randrange(80)), b"\x15"]
        )
        sim.run(0.01)
    sim.run(3)
    for each in sim.subscribers:
        assert complete(each, range(60)), sim.seed
        assert each.messages == [make(n) for n in range(60)]
        assert not each.suspicions, "that was no member"


class Insider:
    """A subscriber that uses its keys to speak for the publisher."""

    def __init__(self, grant: g.Grant) -> None:
        self.grant = grant

    def seal(self, plaintext: bytes, seq: int) -> bytes:
        header = la.group_header(self.grant.generation, self.grant.channel, seq)
        key = message_key(self.grant.chain_key, self.grant.channel, self.grant.generation)
        return header + ChaCha20Poly1305(key).encrypt(nonce_little_endian(seq), plaintext, header)

    def everything(self, seq: int) -> list[bytes]:
        """One of each kind."""
        return [
            self.seal(plaintext, seq)
            for plaintext in (
                la.data_plain(la.DATA, la.WHOLE, 5, b"false") + bytes(64),
                la.data_plain(la.DATA_COVERED, la.WHOLE, 5, b"false"),
                b"\x03" + la.manifest_body([b"x" * 16]) + bytes(64),
                b"\x04" + la.heartbeat_body(2**60, 2**60, 1, 7) + bytes(64),
                b"\x05" + la.rotate_body(1) + bytes(64),
            )
        ]


def test_G2_an_insider_forges_every_kind_and_is_noticed() -> None:
    sim = GroupSim(8, loss=0.05)
    insider, *others = sim.join(4)
    forger = Insider(insider.grants[0])
    for n in range(100):
        sim.publish(make(n), make(n))
        lane = others[0].subscriber._lanes[0]
        for ahead in (1, 2, 30):
            sim.send(forger.everything(lane.window.highest + ahead))
        sim.run(0.01)
    sim.run(4)
    for each in others:
        assert complete(each, range(200)), sim.seed
        assert b"false" not in each.messages
        assert each.suspicions, "noticed"
        assert each.suspicions[0].forged >= 1


def test_G2_forged_sums_cost_a_moment_and_no_message() -> None:
    sim = GroupSim(9, loss=0.1)
    insider, *others = sim.join(12)
    forger = Insider(insider.grants[0])
    for n in range(300):
        sim.publish(make(n))
        block = n // 64
        seq = la.FIRST_PARITY + (block << 16) + (sim.rng.randrange(190) << 8) + sim.rng.randrange(1, 65)
        sim.send([forger.seal(b"\x06" + sim.rng.randbytes(260), seq)])
        sim.run(0.002)
    sim.run(4)
    for each in others:
        assert complete(each, range(300)), sim.seed
        assert each.messages[-1:] != [b""]


def decipher(grants: list[g.Grant], datagram: bytes) -> bytes | None:
    """Try every key that a member ever had, and all that follow from them."""
    _, _, generation, channel, seq = la.group_fields(datagram)
    for grant in grants:
        if generation < grant.generation:
            continue
        chain_key = grant.chain_key
        for _ in range(generation - grant.generation):
            chain_key = next_chain_key(chain_key)
        for named in {grant.channel, channel}:
            aead = ChaCha20Poly1305(message_key(chain_key, named, generation))
            try:
                return aead.decrypt(nonce_little_endian(seq), datagram[20:], datagram[:20])
            except InvalidTag:
                pass
    return None


@pytest.mark.parametrize("large", [False, True], ids=["small messages", "in the middle of a large one"])
def test_G8_from_the_moment_of_revocation_nothing_new_is_readable(large: bool) -> None:
    sim = GroupSim(10, loss=0.05, rate=200_000.0, history=10)
    sim.record = True
    revoked, *others = sim.join(4)
    for n in range(30):
        sim.publish(make(n) * (100 if large else 1))
    heard = len(sim.sent)
    before = sum(decipher(revoked.grants, each) is not None for each in sim.sent)
    assert before == heard
    readable = list(revoked.numbers)
    sim.publisher.revoke(revoked.key, sim.now)
    sim.serve_publisher()
    after = list(range(30, 60))
    for n in after:
        sim.publish(make(n))
        sim.run(0.01)
    sim.run(8)
    new = [each for each in sim.sent[heard:] if decipher(others[0].grants, each) is not None]
    assert len(new) > 20
    # What it can read of what came later: the end of its epoch, and repairs, of what was sent before.
    for datagram in sim.sent[heard:]:
        plain = decipher(revoked.grants, datagram)
        if plain is not None:
            assert plain[0] in (la.ROTATE, la.PARITY) or datagram in sim.sent[:heard], plain[:20]
    assert revoked.refused[0].code == g.REFUSE_REVOKED
    assert len(set(revoked.numbers) - set(readable)) <= 30
    assert not set(revoked.numbers) & set(after)
    for each in others:
        assert complete(each, range(60)), sim.seed


def test_several_revoked_in_a_row_cost_the_others_nothing() -> None:
    for seed in range(3):
        sim = GroupSim(seed, loss=0.05)
        revoked, others = sim.join(12)[:8], sim.subscribers[8:]
        sim.publish(*(make(n) for n in range(50)))
        sim.run(0.001)  # some have not come, and none of them has been asked for
        for each in revoked:
            sim.publisher.revoke(each.key, sim.now)
            sim.serve_publisher()
        sim.publish(*(make(n) for n in range(50, 60)))
        sim.run(8)
        for each in others:
            assert complete(each, range(60)), sim.seed


def test_several_revoked_one_after_the_other_cost_the_others_nothing() -> None:
    for seed in range(3):
        sim = GroupSim(seed)
        revoked, (other,) = sim.join(5)[:4], sim.subscribers[4:]
        other.loss = 1.0
        for n, each in enumerate(revoked):
            sim.publish(make(n))
            sim.run(0.001)
            other.loss = 0.0  # only the first is lost
            sim.publisher.revoke(each.key, sim.now)
            sim.serve_publisher()
            sim.run(0.006)
        sim.run(8)
        assert complete(other, range(4)), sim.seed


def test_G8_who_was_revoked_gets_no_answer_and_no_repair() -> None:
    sim = GroupSim(12, history=10)
    sim.record = True
    revoked, other = sim.join(2)
    sim.publish(*(make(n) for n in range(5)))
    sim.run(0.1)
    sim.publisher.revoke(revoked.key, sim.now)
    sim.serve_publisher()
    sim.run(0.1)
    sent, channel = len(sim.sent), sim.publisher._epochs.store.channel
    for _ in range(20):
        for nack in g.nacks_for(channel, [1, 2]) + g.nacks_for(revoked.grants[0].channel, [1, 2]):
            sim.publisher.nack_untrusted(revoked.member, nack, sim.now)
        ask = g.Ask(sim.publisher.topic, sim.publisher.run, 0, 10, fresh=True)
        for data in (
            ask.pack(),
            g.Leave(sim.publisher.topic).pack(),
            Insider(revoked.grants[0]).everything(9)[0],
        ):
            sim.publisher.receive_control_untrusted(revoked.member, revoked.key, data, sim.now)
        sim.send(Insider(revoked.grants[0]).everything(3))
        sim.serve_publisher()
        sim.run(0.05)
    assert not any(decipher(revoked.grants, each) for each in sim.sent[sent:] if each[4:12] == channel)
    assert sim.publisher.counters["repair"] == 0
    assert len(revoked.grants) == 1
    assert len(sim.publisher.members) == 1
    sim.publish(make(5))
    sim.run(1)
    assert complete(other, range(6))


def test_a_newcomer_reads_nothing_from_before() -> None:
    sim = GroupSim(13)
    sim.record = True
    sim.join(1)
    sim.stream(20, 0.01, make)
    before = len(sim.sent)
    (newcomer,) = sim.join(1)
    sim.publish(make(20))
    sim.run(1)
    assert newcomer.numbers == [20]
    assert not newcomer.gaps
    assert not any(decipher(newcomer.grants, each) for each in sim.sent[:before])


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_newcomers_all_the_time_disturb_nobody(loss: float) -> None:
    """More of them than an epoch has generations."""
    sim = GroupSim(14, loss=loss)
    (first,) = sim.join(1)
    for n in range(90):
        sim.publish(make(n))
        if n < 80:
            sim.add()
        sim.run(0.03)
    sim.run(5)
    assert complete(first, range(90)), sim.seed
    for each in sim.subscribers:
        assert told(each) == list(range(min(each.numbers), 90)), sim.seed
        assert not each.gaps, sim.seed
    assert {grant.epoch for grant in first.grants} >= {1, 2}


# --- coming late ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [g.REPAIRED, g.ORDERED], ids=["repaired", "ordered"])
@pytest.mark.parametrize(("kept", "wanted"), [(1, 1), (20, 5), (20, 100), (0, 5)])
def test_a_late_joiner_gets_the_last_n_once_and_then_live_data(mode: int, kept: int, wanted: int) -> None:
    sim = GroupSim(15, mode=mode, loss=0.05, history=kept)
    sim.join(2)
    late: list[SimSubscriber] = []
    for n in range(200):
        sim.publish(make(n))
        if n % 20 == 19:
            late.append(sim.add(history=wanted))
        sim.run(0.002)
    sim.run(4)
    for n, each in enumerate(late):
        first = 20 * n + 20 - min(kept, wanted)
        assert each.numbers[:1] == [first][: 200 - first], sim.seed
        if mode == g.ORDERED:
            assert each.numbers == list(range(first, 200)), sim.seed
        assert complete(each, range(first, 200)), sim.seed
        assert each.messages == [make(number) for number in each.numbers]


def test_a_late_joiner_during_a_large_message_gets_it_from_neither_side_twice() -> None:
    sim = GroupSim(16, rate=150_000.0, history=3)
    sim.join(1)
    sim.publish(make(0), bytes(300_000), make(2))
    sim.run(0.5)
    assert sim.publisher._outgoing.midway
    late = sim.add(history=3)
    sim.run(5)
    assert late.numbers == [0, 1, 2]
    assert complete(sim.subscribers[0], range(3))


def test_the_retained_value_is_there_without_any_subscriber_before() -> None:
    sim = GroupSim(17, history=1)
    sim.publish(make(0), make(1))
    (late,) = sim.join(1, history=1)
    sim.publish(make(2))
    sim.run(1)
    assert late.messages == [make(1), make(2)]
    assert sim.sent == []


# --- misfortune -------------------------------------------------------------------------------------


def test_G10_a_publisher_restarts() -> None:
    sim = GroupSim(18, history=2)
    sim.join(3, history=2)
    sim.stream(20, 0.01, make)
    run = sim.publisher.run
    sim.restart_publisher()
    sim.run(0.5)
    sim.stream(20, 0.01, make)
    sim.run(2)
    assert sim.publisher.run != run
    assert sim.shared.repeats == 0, "no key and nonce twice"
    for each in sim.subscribers:
        assert each.numbers == [*range(20), *range(20)], sim.seed
        assert [gap.number for gap in each.gaps] == [None], "told"
        channels = [grant.channel for grant in each.grants]
        assert len(set(channels)) == 2


def test_a_subscriber_restarts_and_gets_what_is_kept() -> None:
    sim = GroupSim(19, history=5)
    sim.join(1)
    sim.stream(20, 0.01, make)
    (again,) = sim.join(1, history=5)
    sim.stream(20, 0.01, lambda n: make(20 + n))
    sim.run(2)
    assert complete(again, range(15, 40))


@pytest.mark.parametrize("mode", [g.REPAIRED, g.ORDERED], ids=["repaired", "ordered"])
@pytest.mark.parametrize("kept", [0, 1000])
def test_a_session_that_breaks_and_comes_back_loses_nothing_that_is_kept(mode: int, kept: int) -> None:
    """Away for longer than the publisher keeps datagrams; others hear everything meanwhile."""
    sim = GroupSim(20, mode=mode, history=kept)
    away, other = sim.join(2)
    sim.stream(20, 0.01, make)
    away.online = False
    sim.disconnect(away)
    sim.stream(100, 0.5, lambda n: make(20 + n))
    away.online = True
    sim.connect(away)
    sim.run(1)
    sim.stream(20, 0.01, lambda n: make(120 + n))
    sim.run(3)
    assert complete(other, range(140)), sim.seed
    assert told(away) == list(range(140)), sim.seed
    if kept:
        assert away.numbers == list(range(140))
    else:
        assert [(gap.number, gap.missing) for gap in away.gaps] == [(20, 100)]


@pytest.mark.parametrize("seconds", [0.3, 3.0])
def test_a_flap_of_the_interface_is_repaired(seconds: float) -> None:
    """The session survives it; the datagrams are still kept."""
    sim = GroupSim(21)
    away, other = sim.join(2)
    for n in range(400):
        sim.publish(make(n))
        away.online = not 1.0 < n * 0.02 < 1.0 + seconds
        sim.run(0.02)
    sim.run(5)
    assert complete(other, range(400)), sim.seed
    assert complete(away, range(400)), sim.seed


@pytest.mark.parametrize("seed", range(3))
def test_sessions_that_come_and_go_under_loss_tell_of_every_number(seed: int) -> None:
    sim = GroupSim(seed, loss=0.1, nack_loss=0.05, history=8)
    sim.join(6, settle=2)
    for n in range(300):
        sim.publish(make(n))
        each = sim.rng.choice(sim.subscribers)
        if sim.rng.random() < 0.05:
            sim.disconnect(each)
            sim.clock.call_at(sim.now + sim.rng.random() * 0.5, lambda each=each: sim.connect(each))  # type: ignore[misc]  # mypy does not infer the default of a lambda
        sim.run(0.01)
    sim.run(15)
    for each in sim.subscribers:
        assert told(each) == list(range(300)), sim.seed
        assert len(set(each.numbers)) == len(each.numbers), sim.seed
    assert sim.shared.repeats == 0


def test_G16_a_rotation_while_grants_are_lost() -> None:
    for seed in range(3):
        sim = GroupSim(seed, loss=0.02)
        leaving, *others = sim.join(50)
        lost: Counter[int] = Counter()

        def drop(each: SimSubscriber, data: bytes, sim: GroupSim = sim, lost: Counter[int] = lost) -> bool:
            """Lose a fifth of the GRANTs; the fourth arrives, for which the first three questions take 1.75 s."""
            drops = data[0] == 2 and lost[each.name] < 3 and sim.rng.random() < 0.2
            lost[each.name] += drops
            return drops

        sim.drop_control = drop
        for n in range(300):
            if n == 50:
                sim.publisher.revoke(leaving.key, sim.now)
                sim.serve_publisher()
            sim.publish(make(n))
            sim.run(0.01)
            if n == 250:
                resumed = [max(each.numbers) >= 200 for each in others]
                assert all(resumed), sim.seed
        sim.run(5)
        for each in others:
            assert told(each) == list(range(300)), sim.seed
            assert complete(each, range(300)), sim.seed


def test_G17_what_is_lost_beyond_the_history_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "GROUP_WINDOW", 256)  # of 4096: it is enough
    sim = GroupSim(22)
    (away,) = sim.join(1)
    sim.publish(make(0))
    sim.run(0.2)
    away.loss = 1.0
    for _ in range(c.GROUP_WINDOW + 50):
        sim.publisher.send(bytes(1000))
    sim.serve_publisher()
    sim.run(0.3)
    away.loss = 0.0
    sim.run(40)
    sim.publish(make(1))
    sim.run(1)
    last = c.GROUP_WINDOW + 51
    assert told(away) == list(range(last + 1)), sim.seed
    assert away.gaps
    assert away.numbers[-1] == last


def test_G17_a_tail_that_cannot_be_repaired_is_reported_without_new_data() -> None:
    sim = GroupSim(23)
    (away,) = sim.join(1)
    sim.publish(make(0))
    sim.run(0.2)
    sim.drop = lambda datagram: len(datagram) > 200  # all data, and all repairs
    sim.drop_control = lambda _each, data: data[0] == 7
    sim.publish(make(1))
    sim.run(10)
    assert [(gap.number, gap.missing) for gap in away.gaps] == [(1, 1)]


def test_G15_grants_from_elsewhere_again_and_of_the_past_are_refused() -> None:
    sim = GroupSim(24)
    revoked, each = sim.join(2)
    sim.publish(make(0))
    sim.run(0.2)
    sim.publisher.revoke(revoked.key, sim.now)
    sim.serve_publisher()
    sim.run(0.5)
    subscriber = each.subscriber
    channels = subscriber.channels
    new = each.grants[-1]
    for peer, grant in [
        (b"Q" * 32, new._replace(epoch=9, channel=b"evil----")),
        (OWNER, each.grants[0]),
        (OWNER, each.grants[0]._replace(backlog=False)),
        (OWNER, new),
        (OWNER, new._replace(channel=b"evil----")),
        (OWNER, new._replace(topic=bytes(16), epoch=9)),
    ]:
        subscriber.receive_control_untrusted(peer, grant.pack(), sim.now)
        assert subscriber.channels == channels
    assert subscriber.counters["control-foreign"] == 2
    assert subscriber.counters["grant-old"] == 3
    sim.publish(make(1))
    sim.run(1)
    assert complete(each, range(2))


# --- those who cost too much ------------------------------------------------------------------------


def test_G12_a_subscriber_that_asks_for_everything_harms_nobody() -> None:
    sim = GroupSim(25, loss=0.02)
    greedy, *others = sim.join(5)
    store = sim.publisher._epochs.store

    def pester() -> None:
        for start in range(max(1, store.last - 1500), store.last, 512):
            nack = g.Nack(store.channel, start, b"\xff" * 64)
            sim.publisher.nack_untrusted(greedy.member, nack, sim.now)
        sim.serve_publisher()

    for n in range(500):
        sim.publish(make(n), make(n), make(n))
        pester()
        sim.run(0.005)
    sim.run(3)
    counters = sim.publisher.counters
    data = sim.traffic["bytes"] - counters["repair-bytes"]
    assert counters["repair-bytes"] <= data / 2 + c.REPAIR_BURST, sim.seed
    assert counters["repair-session"] > 0
    member = sim.publisher.members[greedy.member]
    assert member.greedy
    assert sim.publisher.counters["repair"] < 400, "its own session, and not the group"
    for each in others:
        assert complete(each, range(1500)), sim.seed


def test_G13_questions_about_nothing_are_ignored() -> None:
    sim = GroupSim(26)
    (each,) = sim.join(1)
    sim.publish(make(0))
    sim.run(0.01)
    channel = sim.publisher._epochs.store.channel
    before = sim.publisher.counters["repair"]
    for nack in (
        g.Nack(channel, 50, b"\xff" * 64),
        g.Nack(channel, 2**63, b"\xff"),
        g.Nack(channel, 2**64 - 1, b"\xff"),
        g.Nack(b"unknown-", 1, b"\x01"),
        g.Nack(channel, 0, b"\x01"),
        g.Nack(channel, 1, b""),
    ):
        sim.publisher.nack_untrusted(each.member, nack, sim.now)
        sim.publisher.nack_untrusted("a stranger", nack, sim.now)
    sim.publisher.nack_untrusted("a stranger", g.Nack(channel, 1, b"\x01"), sim.now)
    assert not sim.publisher._epochs.store._asked
    sim.run(1)
    assert sim.publisher.counters["repair"] == before
    assert sim.publisher.counters["nack-unknown"] == 13


def test_G14_a_hopeless_subscriber_is_dropped_and_the_rate_recovers() -> None:
    sim = GroupSim(27)
    hopeless, *others = sim.join(4)
    hopeless.loss = 0.4
    start = sim.publisher.rate
    sim.stream(700, 0.05, make)
    assert [event.code for event in sim.events if isinstance(event, MemberLeft)] == [g.REFUSE_EXCLUDED]
    assert hopeless.refused[0].code == g.REFUSE_EXCLUDED
    assert "lost" in hopeless.refused[0].text
    sim.run(30)
    low = sim.publisher.rate
    assert low < start / 10
    for _ in range(20):  # the rate rises while it limits
        sim.publish(*[bytes(60_000)] * 6)
        sim.run(1)
    assert sim.publisher.rate > 2 * low
    for each in others:
        assert not each.gaps
    ask = g.Ask(sim.publisher.topic, g.NO_RUN, 0, 0, fresh=True)
    sim.run(20)
    sim.publisher.take_control_untrusted("again", hopeless.key, ask, sim.now)
    assert len(sim.publisher._joining) == 1, "it may come back after a minute"


def test_where_multicast_does_not_arrive_the_session_carries_all_and_says_so() -> None:
    sim = GroupSim(28)
    deaf, other = sim.join(2, settle=0)
    deaf.loss = 1.0
    sim.run(0.9)
    sim.publish(make(0))
    sim.run(1.1)
    assert deaf.numbers == [0], "what was sent before it said so"
    assert not deaf.subscriber.multicast
    assert Reached(multicast=False) in deaf.others
    assert sim.publisher.members[deaf.member].deaf
    sim.stream(49, 0.01, make)
    sim.run(1)
    assert complete(deaf, range(50))
    deaf.loss = 0.0
    sim.run(3)
    assert deaf.subscriber.multicast
    assert deaf.others[-1] == Reached(multicast=True)
    assert not sim.publisher.members[deaf.member].deaf
    before = sim.traffic["control"]
    sim.stream(50, 0.01, make)
    assert sim.traffic["control"] < before + 5
    assert complete(deaf, range(100))
    assert complete(other, range(100))


# --- leaving ----------------------------------------------------------------------------------------


def test_who_leaves_reads_nothing_of_the_next_epoch() -> None:
    sim = GroupSim(29)
    sim.record = True
    leaving, staying = sim.join(2)
    sim.publish(make(0))
    sim.run(2)
    leaving.subscriber.leave()
    sim.serve(leaving)
    sim.run(0.1)
    sent = len(sim.sent)
    sim.publish(make(1))
    sim.run(1)
    assert complete(staying, range(2))
    for datagram in sim.sent[sent:]:
        plain = decipher(leaving.grants, datagram)
        assert plain is None or plain[0] == la.ROTATE
    assert leaving.numbers == [0]


def test_a_thousand_that_leave_cost_one_epoch_a_second() -> None:
    sim = GroupSim(30)
    sim.join(30)
    sim.publish(make(0))
    sim.run(2)
    epoch = sim.publisher._epochs.sealer.keys.epoch
    for n, each in enumerate(sim.subscribers[1:]):
        each.subscriber.leave()
        sim.serve(each)
        sim.publish(make(n))
        sim.run(0.01)
    sim.run(2)
    assert sim.publisher._epochs.sealer.keys.epoch <= epoch + 2
    assert complete(sim.subscribers[0], range(30))


def test_access_is_asked_for_at_each_grant() -> None:
    sim = GroupSim(31)
    one, two = sim.join(2)
    three = bytes(31) + b"\x02"
    sim.allow = lambda key: key not in (one.key, three)
    refused = sim.add()
    sim.run(0.2)
    assert refused.refused[0].code == g.REFUSE_NOT_ALLOWED
    assert not one.refused
    sim.publish(make(0))
    sim.run(0.2)
    sim.publisher.review(sim.now)
    sim.serve_publisher()
    sim.publish(make(1))
    sim.run(2)
    assert one.refused[0].code == g.REFUSE_NOT_ALLOWED
    assert one.numbers == [0]
    assert complete(two, range(2))


@pytest.mark.parametrize("seed", range(3))
def test_a_simulation_repeats_itself(seed: int) -> None:
    def run(make: Callable[[int], bytes]) -> tuple[list[bytes], list[list[int]]]:
        sim = GroupSim(seed, loss=0.2, jitter=0.01)
        sim.record = True
        sim.join(3)
        sim.stream(30, 0.01, make)
        return sim.sent, [each.numbers for each in sim.subscribers]

    assert run(make) == run(make)


# --- when a subscriber hears ------------------------------------------------------------------------

_REPORT = 5
MODES = pytest.mark.parametrize(
    "mode", [g.BEST_EFFORT, g.REPAIRED, g.ORDERED], ids=["best effort", "repaired", "ordered"]
)


def run_until_heard(sim: GroupSim, count: int, within: float) -> float:
    """Return when the publisher knew that so many hear."""
    end = sim.now + within
    while sim.publisher.hearing < count:
        assert sim.now < end, (sim.seed, sim.publisher.hearing)
        sim.run(0.001)
    return sim.now


def hears_at_once(sim: GroupSim, subscribers: list[SimSubscriber]) -> None:
    """Whatever is sent now comes in a moment, in order, and nothing has to be repaired for it."""
    for each in subscribers:
        each.messages.clear()
        each.gaps.clear()
    sim.publish(*(make(n) for n in range(3)))
    sim.run(0.004)
    for each in subscribers:
        assert each.messages == [make(n) for n in range(3)], sim.seed
        assert not each.gaps, sim.seed


@MODES
@pytest.mark.parametrize("silence", [0.0, 0.01, 0.03, 0.2, 0.9])
def test_a_subscriber_that_hears_says_so_and_misses_nothing_from_then_on(mode: int, silence: float) -> None:
    for seed in range(5):
        sim = GroupSim(seed, mode=mode)
        silent_until = sim.now + silence
        sim.drop = lambda _datagram, sim=sim, until=silent_until: sim.now < until
        only = sim.add()
        while not sim.publisher.members:
            sim.run(0.001)
        assert not sim.publisher.hearing, "it has its keys, and listens to nothing yet"
        heard_at = run_until_heard(sim, 1, 3.0)
        # Heartbeats come ever less often, and the first of them that was missed has to be repaired.
        assert silent_until <= heard_at < silent_until + silence + (0.08 if silence else 0.03), seed
        hears_at_once(sim, [only])


@MODES
def test_whom_multicast_does_not_reach_hears_over_the_session(mode: int) -> None:
    sim = GroupSim(1, mode=mode)
    sim.drop = lambda _datagram: True
    only = sim.add()
    run_until_heard(sim, 1, 1.1 * c.DEAF_AT_FIRST)
    hears_at_once(sim, [only])
    sim.disconnect(only)
    assert not sim.publisher.hearing
    sim.connect(only)
    run_until_heard(sim, 1, 0.1)  # known from before, and said with the new session


def test_many_that_come_at_different_times_all_say_that_they_hear() -> None:
    sim = GroupSim(3)
    for _ in range(50):
        sim.add()
        sim.run(0.007)
    run_until_heard(sim, 50, 0.2)
    hears_at_once(sim, sim.subscribers)


def test_a_publisher_that_started_anew_is_told_again() -> None:
    sim = GroupSim(4)
    (only,) = sim.join()
    assert sim.publisher.hearing == 1
    silent_until = sim.now + 0.3
    sim.drop = lambda _datagram: sim.now < silent_until
    sim.restart_publisher()
    assert silent_until <= run_until_heard(sim, 1, 1.0) < silent_until + 0.4
    sim.drop = lambda _datagram: True
    sim.restart_publisher()
    run_until_heard(sim, 1, 1.1 * c.DEAF_AT_FIRST)
    hears_at_once(sim, [only])


def test_new_keys_before_anything_is_heard_do_not_hold_it_up() -> None:
    sim = GroupSim(5)
    sim.join()
    sim.stream(20, 0.001)
    newcomer = sim.add()
    while newcomer.member not in sim.publisher.members:
        sim.run(0.001)
    sim.publisher.revoke(sim.subscribers[0].key, sim.now)
    sim.serve_publisher()
    run_until_heard(sim, 1, 0.1)


def test_who_has_to_wait_for_what_was_kept_says_so_when_it_is_there() -> None:
    sim = GroupSim(6, history=3)
    sim.join()
    sim.publish(*(make(n) for n in range(3)))
    waiting: list[bytes] = []
    sim.drop_control = lambda each, data: each.name == 1 and data[0] == 6 and not waiting.append(data)
    late = sim.add(history=3)
    sim.run(0.1)
    assert waiting
    assert sim.publisher.hearing == 1, "what comes by multicast waits for the rest"
    late.subscriber.receive_control_untrusted(OWNER, waiting[0], sim.now)
    sim.serve(late)
    sim.run(0.003)
    assert sim.publisher.hearing == 2
    assert late.numbers == [0, 1, 2]


def test_who_says_nothing_of_itself_counts_with_its_next_report() -> None:
    sim = GroupSim(7)
    mute_until = sim.now + 0.5
    sim.drop_control = lambda _each, data: data[0] == _REPORT and sim.now < mute_until
    sim.add()
    assert mute_until < run_until_heard(sim, 1, 1.5 * c.REPORT_INTERVAL)
    sim.drop_control = lambda each, data: each.name == 1 and data[0] == _REPORT
    sim.join(settle=5)
    assert len(sim.publisher.members) == 2
    assert sim.publisher.hearing == 1, "nobody knows whether it does"
    (grant,) = sim.subscribers[1].grants
    report = g.Report(
        grant.topic, grant.channel, grant.next_seq - 1, grant.next_seq, 0, 0, 0.0, deaf=False, slow=False
    )
    sim.publisher.take_control_untrusted(sim.subscribers[1].member, sim.subscribers[1].key, report, sim.now)
    assert sim.publisher.hearing == 1, "it has said that nothing came"


def test_being_asked_what_has_arrived_does_not_make_a_subscriber_hear() -> None:
    sim = GroupSim(8)
    sim.join()
    silent_until = sim.now + 0.5
    sim.drop = lambda _datagram: sim.now < silent_until
    sim.add()
    sim.run(0.01)
    sim.publisher.revoke(sim.subscribers[0].key, sim.now)  # in the new epoch there is nothing yet
    sim.serve_publisher()
    sim.run(0.01)
    sim.publisher.confirm()
    sim.serve_publisher()
    sim.run(0.01)
    assert not sim.publisher.hearing
    assert silent_until <= run_until_heard(sim, 1, 1.0)
