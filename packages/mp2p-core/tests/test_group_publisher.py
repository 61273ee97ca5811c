"""The two sides of a channel by themselves: what they do at each call, and what bounds them (protocol section 8)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mp2p_core.errors import MessageTooLarge
from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group.events import (
    Gap,
    GroupChosen,
    Joined,
    Left,
    MemberJoined,
    MemberLeft,
    Messages,
    Refused,
)
from mp2p_core.proto.group.publisher import Publisher
from mp2p_core.proto.group.subscriber import Subscriber

OWNER = b"P" * 32
KEY = b"k" * 32
GROUP = b"G" * 20


class Pair:
    """A publisher and one subscriber, with nothing between them but the test."""

    def __init__(
        self, allow: Callable[[bytes], bool] = lambda _key: True, seed: int = 1, **options: Any
    ) -> None:
        rng = random.Random(seed)
        self.now = 100.0
        self.publisher = Publisher(
            OWNER, "topic", [GROUP], allow=allow, now=self.now, random=rng.randbytes, **options
        )
        self.subscriber = Subscriber(OWNER, "topic", history=5, random=rng.randbytes)
        self.subscriber.set_rtt(0.002)

    def join(self) -> list[g.Control]:
        self.subscriber.connected(self.now)
        return self.exchange()

    def exchange(self, member: object = "session") -> list[g.Control]:
        """Carry control messages there and back; returns those of the publisher."""
        for data in self.subscriber.controls():
            self.publisher.receive_control_untrusted(member, KEY, data, self.now)
        for datagram in self.publisher.transmits(self.now):
            self.subscriber.receive_untrusted(datagram, self.now)
        told = []
        for name, data in self.publisher.controls():
            told.append(g.parse_control_untrusted(data))
            if name == member:
                self.subscriber.receive_control_untrusted(OWNER, data, self.now)
        return told

    def send(self, *messages: bytes) -> list[bytes]:
        for message in messages:
            self.publisher.send(message)
        return self.publisher.transmits(self.now)


def ask(pair: Pair, *, fresh: bool = True) -> bytes:
    return g.Ask(pair.publisher.topic, g.NO_RUN, 0, 0, fresh).pack()


def kinds(told: list[g.Control]) -> list[str]:
    return [type(each).__name__ for each in told]


# --- joining ----------------------------------------------------------------------------------------


def test_joining_takes_a_grant_and_a_backlog() -> None:
    pair = Pair(history=3)
    pair.publisher.send(b"kept")
    pair.publisher.transmits(pair.now)
    told = pair.join()
    assert kinds(told) == ["Grant", "Backlog"]
    grant = told[0]
    assert isinstance(grant, g.Grant)
    assert (grant.epoch, grant.generation, grant.next_seq, grant.number) == (1, 0, 1, 1)
    assert (grant.group, grant.history, grant.mode, grant.last_seq) == (GROUP, 3, g.REPAIRED, 0)
    assert list(pair.subscriber.events()) == [
        Joined(g.REPAIRED, 3),
        GroupChosen(GROUP),
        Messages(0, [b"kept"]),
    ]
    assert list(pair.publisher.events()) == [MemberJoined("session", KEY)]
    assert pair.subscriber.channels == (grant.channel,)


def test_each_hears_the_first_group_that_it_can_and_none_is_sent_to_for_nobody() -> None:
    groups = [bytes((kind,)) * 20 for kind in (4, 6, 0x80)]
    rng = random.Random(1)
    publisher = Publisher(OWNER, "topic", groups, allow=lambda _key: True, now=0.0, random=rng.randbytes)
    assert publisher.destinations == []
    wanted = {b"": 0, b"\6": 1, b"\6\4": 0, b"\x80\6": 1, b"\7": 0}
    for n, kinds in enumerate(wanted):
        asking = g.Ask(publisher.topic, g.NO_RUN, 0, 0, fresh=True, kinds=kinds)
        publisher.receive_control_untrusted(n, KEY, asking.pack(), 0.0)
    publisher.transmits(0.0)
    grants = {n: g.parse_control_untrusted(data) for n, data in publisher.controls() if data[0] == 2}
    assert [grants[n].group for n in range(5)] == [groups[place] for place in wanted.values()]
    assert publisher.destinations == groups[:2]
    for n in (1, 3):
        publisher.ended(n)
    assert publisher.destinations == groups[:1]
    # Asking again on the same session, now from another network.
    again = g.Ask(publisher.topic, g.NO_RUN, 0, 0, fresh=True, kinds=b"\x80")
    publisher.receive_control_untrusted(0, KEY, again.pack(), 1.0)
    publisher.transmits(1.0)
    assert publisher.destinations == [groups[0], groups[2]]


def test_asking_again_for_the_keys_brings_the_same_grant_and_opens_nothing_more() -> None:
    pair = Pair()
    first = pair.join()[0]
    for datagram in pair.send(b"1"):
        pair.subscriber.receive_untrusted(datagram, pair.now)
    pair.publisher.receive_control_untrusted("session", KEY, ask(pair, fresh=False), pair.now)
    (again,) = [g.parse_control_untrusted(data) for _, data in pair.publisher.controls()]
    assert isinstance(first, g.Grant)
    assert again == first._replace(backlog=False)
    assert not pair.publisher.transmits(pair.now)


def test_who_asks_too_often_is_not_answered() -> None:
    pair = Pair()
    pair.join()
    for _ in range(50):
        pair.publisher.receive_control_untrusted("session", KEY, ask(pair, fresh=False), pair.now)
    assert len(list(pair.publisher.controls())) <= c.ASK_BURST
    assert pair.publisher.counters["ask-too-often"] >= 45


@pytest.mark.parametrize("pause", [0.0, c.JOIN_SPACING], ids=["at once", "in turn"])
def test_one_key_that_subscribes_a_hundred_times_shares_the_room_of_one(pause: float) -> None:
    pair = Pair(history=1000)
    for _ in range(600):
        pair.publisher.send(bytes(1000))
    pair.publisher.transmits(pair.now)
    members = pair.publisher.members
    kept = g.Ask(pair.publisher.topic, g.NO_RUN, 0, 1000, fresh=True).pack()
    for n in range(100):
        pair.now += pause
        pair.publisher.receive_control_untrusted(n, KEY, kept, pair.now)
        pair.publisher.transmits(pair.now)
    pair.now += c.JOIN_SPACING
    pair.publisher.transmits(pair.now)
    assert 1 <= len(members) <= 3
    waiting = sum(each.outbox_size for each in members.values())
    assert waiting < 2 * c.RELAY_QUEUE
    for _ in range(100):
        list(pair.publisher.controls())  # all is read
        pair.now += c.JOIN_SPACING
        pair.publisher.receive_control_untrusted(len(members), KEY, kept, pair.now)
        pair.publisher.transmits(pair.now)
    assert len(members) >= 100


def test_what_is_relayed_to_one_key_shares_the_room_of_one() -> None:
    pair = Pair()
    for n in range(100):
        pair.now += c.JOIN_SPACING
        pair.publisher.receive_control_untrusted(n, KEY, ask(pair), pair.now)
        pair.publisher.transmits(pair.now)
    list(pair.publisher.controls())
    members = pair.publisher.members
    for each in members.values():
        while each.relay(pair.publisher.topic, bytes(1000)):
            pass
    assert len(members) == 100
    assert c.RELAY_QUEUE <= sum(each.outbox_size for each in members.values()) < 1.2 * c.RELAY_QUEUE


def test_a_stranger_is_refused_once_however_often_it_asks() -> None:
    pair = Pair(allow=lambda _key: False)
    for _ in range(20):
        pair.publisher.receive_control_untrusted("stranger", KEY, ask(pair), pair.now)
    pair.publisher.transmits(pair.now)
    (told,) = [g.parse_control_untrusted(data) for _, data in pair.publisher.controls()]
    assert isinstance(told, g.Refuse)
    assert told.code == g.REFUSE_NOT_ALLOWED
    assert not pair.publisher.members
    pair.publisher.ended("stranger")
    for control in (
        g.Leave(pair.publisher.topic),
        g.Report(pair.publisher.topic, bytes(8), 1, 1, 9, 9, 1.0, deaf=True, slow=False),
    ):
        pair.publisher.receive_control_untrusted("stranger", KEY, control.pack(), pair.now)
    assert pair.publisher.counters["control-stranger"] == 2


def test_there_are_as_many_subscribers_as_there_are_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "MAX_MEMBERS", 3)
    pair = Pair()
    for n in range(5):
        pair.publisher.receive_control_untrusted(n, KEY, ask(pair), pair.now)
        pair.publisher.transmits(pair.now)
        pair.now += 1
    assert len(pair.publisher.members) == 3
    codes = [g.parse_control_untrusted(data) for name, data in pair.publisher.controls() if name in (3, 4)]
    assert [each.code for each in codes if isinstance(each, g.Refuse)] == [g.REFUSE_FULL] * 2


def test_two_sessions_of_one_key_are_two_subscribers_and_one_revocation() -> None:
    pair = Pair()
    for name in ("one", "two"):
        pair.publisher.receive_control_untrusted(name, KEY, ask(pair), pair.now)
    pair.publisher.transmits(pair.now)
    assert len(pair.publisher.members) == 2
    pair.publisher.revoke(KEY, pair.now)
    assert not pair.publisher.members
    left = [event for event in pair.publisher.events() if isinstance(event, MemberLeft)]
    assert [event.code for event in left] == [g.REFUSE_REVOKED] * 2
    pair.publisher.readmit(KEY)
    pair.publisher.receive_control_untrusted("one", KEY, ask(pair), pair.now)
    pair.publisher.transmits(pair.now + 1)
    assert len(pair.publisher.members) == 1


def test_newcomers_who_come_together_share_a_generation() -> None:
    pair = Pair()
    pair.join()
    pair.send(b"used")
    for n in range(30):
        pair.publisher.receive_control_untrusted(n, KEY, ask(pair), pair.now)
    pair.now += c.JOIN_SPACING
    pair.publisher.transmits(pair.now)
    grants = {g.parse_control_untrusted(data)[6] for _, data in pair.publisher.controls() if data[0] == 2}
    assert len(grants) == 1
    assert pair.publisher._epochs.sealer.keys.generation == 1


def test_an_epoch_does_not_outlive_an_hour_nor_2_to_31_messages() -> None:
    pair = Pair()
    pair.join()
    pair.send(b"1")
    pair.now += c.GROUP_EPOCH_LIFE
    pair.send(b"2")
    assert pair.publisher._epochs.sealer.keys.epoch == 2
    pair.now += 1
    pair.publisher.transmits(pair.now)  # its keys have had the time to arrive
    pair.publisher._epochs.first_number = 2 - int(c.GROUP_EPOCH_MESSAGES)
    pair.send(b"3")
    assert pair.publisher._epochs.sealer.keys.epoch == 3


def test_epochs_that_ended_are_kept_for_a_while_and_not_too_many() -> None:
    pair = Pair()
    pair.join()
    for n in range(10):
        pair.send(b"%d" % n)
        pair.publisher.revoke(b"%d" % n, pair.now)
        pair.now += 0.2
    assert len(pair.publisher._epochs.stores()) == 1 + c.MAX_OLD_EPOCHS
    pair.now += c.OLD_EPOCH_LIFE
    pair.publisher.handle_timeout(pair.now)
    assert len(pair.publisher._epochs.stores()) == 1


# --- sending ----------------------------------------------------------------------------------------


def test_a_message_has_a_largest_size() -> None:
    pair = Pair()
    pair.publisher.send(bytes(c.MAX_GROUP_MESSAGE))
    with pytest.raises(MessageTooLarge):
        pair.publisher.send(bytes(c.MAX_GROUP_MESSAGE + 1))


def test_a_full_queue_says_so() -> None:
    pair = Pair(rate=1000.0)
    pair.join()
    while not pair.publisher.full:
        pair.publisher.send(bytes(1000))
    assert len(pair.publisher._outgoing) > 3000
    assert pair.publisher.waiting
    assert pair.publisher.drop_oldest()
    assert pair.publisher.drop_oldest()
    assert not pair.publisher.full


@pytest.mark.parametrize("mode", [g.BEST_EFFORT, g.REPAIRED])
def test_no_datagram_is_larger_than_it_may_be(mode: int) -> None:
    pair = Pair(mode=mode)
    pair.join()
    rng = random.Random(3)
    sizes = []
    for _ in range(60):
        pair.now += 0.1
        sizes += map(len, pair.send(*(bytes(rng.randrange(3000)) for _ in range(rng.randrange(1, 30)))))
    assert 1150 < max(sizes) <= 1200


@pytest.mark.parametrize("relayed", [False, True])
def test_the_last_part_of_a_large_packet_may_be_of_one_byte(relayed: bool) -> None:
    """A large packet is cut anywhere, also within its tag: what is left may be smaller than any other datagram."""
    pair = Pair()
    pair.join()
    pair.subscriber.events()
    tails = set()
    for size in range(440, 500):
        sent = [random.Random(size).randbytes(each) for each in (1000, 1000, 1000, size)]
        pair.now += 1.0
        datagrams = pair.send(*sent)
        for datagram in datagrams:
            if relayed:
                control = g.Relay(pair.publisher.topic, datagram).pack()
                pair.subscriber.receive_control_untrusted(OWNER, control, pair.now)
            else:
                pair.subscriber.receive_untrusted(datagram, pair.now)
        events = [each for each in pair.subscriber.events() if isinstance(each, Messages | Gap)]
        assert [[*each.messages] for each in events if isinstance(each, Messages)] == [sent], size
        tails.add(min(len(each) for each in datagrams) - c.GROUP_HEADER_SIZE)
    assert tails >= set(range(1, 40))
    assert not pair.subscriber.counters["group-malformed"]


def test_no_more_leaves_than_the_rate_allows() -> None:
    pair = Pair(rate=100_000.0)
    pair.join()
    for _ in range(400):
        pair.publisher.send(bytes(1000))
    sent = 0
    began = pair.now
    while pair.publisher.waiting:
        due = pair.publisher.timeout()
        assert due is not None
        pair.now = max(pair.now, due)
        sent += sum(map(len, pair.publisher.transmits(pair.now)))
    assert 400_000 / 100_000 - 0.5 < pair.now - began < 6
    assert sent < (pair.now - began) * 100_000 + 20_000


def test_timeouts_come_to_rest_at_a_heartbeat_every_two_seconds() -> None:
    """Nothing that is due stays due once it has been done: no caller spins."""
    pair = Pair()
    pair.join()
    pair.send(*[bytes(1000)] * 100)
    pair.publisher.revoke(b"nobody", pair.now)
    turns = 0
    end = pair.now + 100
    while pair.now < end:
        turns += 1
        due = pair.publisher.timeout()
        assert due is not None
        pair.now = max(pair.now, due)
        pair.publisher.handle_timeout(pair.now)
        pair.publisher.transmits(pair.now)
        assert turns < 200
    assert pair.publisher.counters["heartbeat"] in range(50, 60)


def test_without_subscribers_nothing_is_sent_and_nothing_is_due() -> None:
    pair = Pair(history=2)
    assert pair.send(b"1", b"2", b"3") == []
    assert pair.publisher.timeout() is None
    assert not pair.publisher.waiting


def test_closing_tells_everybody() -> None:
    pair = Pair()
    pair.join()
    list(pair.subscriber.events())
    pair.publisher.close()
    assert kinds(pair.exchange()) == ["Refuse"]
    (event,) = pair.subscriber.events()
    assert isinstance(event, Refused)
    assert event.code == g.REFUSE_ENDED
    assert pair.subscriber.ended
    assert pair.subscriber.timeout() is None
    pair.subscriber.connected(pair.now)
    assert pair.subscriber.controls() == []


# --- receiving --------------------------------------------------------------------------------------


def test_a_subscriber_asks_until_it_is_answered_and_less_and_less_often() -> None:
    pair = Pair()
    pair.subscriber.connected(pair.now)
    times = [pair.now]
    pair.subscriber.controls()
    while len(times) < 9:
        due = pair.subscriber.timeout()
        assert due is not None
        pair.subscriber.handle_timeout(due)
        assert len(pair.subscriber.controls()) == 1
        times.append(due)
    waits = [round(b - a, 3) for a, b in itertools.pairwise(times)]
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 8, 8]
    pair.subscriber.disconnected()
    assert pair.subscriber.timeout() is None


def test_a_backlog_that_does_not_come_is_told_and_holds_up_nothing_for_ever() -> None:
    pair = Pair(history=5)
    pair.publisher.send(b"kept")
    pair.publisher.transmits(pair.now)
    pair.subscriber.connected(pair.now)
    for data in pair.subscriber.controls():
        pair.publisher.receive_control_untrusted("session", KEY, data, pair.now)
    pair.publisher.transmits(pair.now)
    for _, data in pair.publisher.controls():
        if data[0] != 6:
            pair.subscriber.receive_control_untrusted(OWNER, data, pair.now)
    for datagram in pair.send(b"live"):
        pair.subscriber.receive_untrusted(datagram, pair.now)
    assert not any(isinstance(event, Messages) for event in pair.subscriber.events())
    pair.subscriber.handle_timeout(pair.now + c.BACKLOG_PATIENCE)
    gap, messages = [event for event in pair.subscriber.events() if isinstance(event, Gap | Messages)]
    assert isinstance(gap, Gap)
    assert gap.number is None
    assert messages == Messages(1, [b"live"])


def test_leaving_ends_it() -> None:
    pair = Pair()
    pair.join()
    list(pair.subscriber.events())
    pair.subscriber.leave()
    pair.subscriber.leave()
    assert list(pair.subscriber.events()) == [Left()]
    assert pair.subscriber.channels == ()
    pair.exchange()
    assert not pair.publisher.members
    for datagram in pair.send(b"x"):
        pair.subscriber.receive_untrusted(datagram, pair.now)
    assert list(pair.subscriber.events()) == []


def test_reports_say_what_was_lost() -> None:
    pair = Pair()
    pair.join()
    for n in range(80):
        for datagram in pair.send(b"%d" % n):
            if (n + 1) % 4 or len(datagram) > 110 or n == 79:  # a quarter of the data, and no heartbeat
                pair.subscriber.receive_untrusted(datagram, pair.now)
        pair.now += 0.05
    pair.subscriber.handle_timeout(pair.now)
    reports = [g.parse_control_untrusted(data) for data in pair.subscriber.controls()]
    (report,) = [each for each in reports if isinstance(each, g.Report)]
    assert report.expected == pair.publisher._traffic.datagrams
    assert report.rtt == pytest.approx(0.002, abs=1e-5)
    assert not report.deaf


def test_what_went_out_before_a_newcomer_listened_was_not_lost() -> None:
    pair = Pair()
    pair.join()
    before = [datagram for n in range(30) for datagram in pair.send(b"%d" % n)]
    for datagrams in (pair.send(b"heard"), before, pair.send(b"lost") and pair.send(b"next")):
        for datagram in datagrams:
            pair.subscriber.receive_untrusted(datagram, pair.now)
        pair.now += 0.1
    lane = pair.subscriber._lanes[0]
    lane.give_up()
    assert lane.counts() == (3, 1)


def test_what_was_lost_is_undelivered_until_a_report_says_that_it_has_been_repaired() -> None:
    pair = Pair()
    pair.join()
    assert not pair.publisher.undelivered
    pair.send(b"lost")
    assert pair.publisher.undelivered
    while pair.now < 103:
        pair.now += 0.02
        pair.publisher.handle_timeout(pair.now)
        pair.subscriber.handle_timeout(pair.now)
        for nack in pair.subscriber.nacks():
            pair.publisher.nack_untrusted("session", nack, pair.now)
        pair.exchange()
        if not pair.publisher.undelivered:
            break
    assert [each.messages for each in pair.subscriber.events() if isinstance(each, Messages)] == [[b"lost"]]
    assert not pair.publisher.undelivered


def test_what_was_lost_once_slows_nobody_down_while_nothing_is_sent() -> None:
    pair = Pair()
    pair.join()
    publisher = pair.publisher
    (member,) = publisher.members.values()
    assert member.grant is not None
    lost = g.Report(publisher.topic, member.grant.channel, 24, 25, 24, 12, 0.001, deaf=False, slow=False)
    began = publisher.rate

    def report(each: g.Report) -> float:
        pair.now += c.REPORT_INTERVAL
        publisher.take_control_untrusted("session", KEY, each, pair.now)
        return publisher.rate

    once = report(lost)
    assert once < began
    idle = lost._replace(expected=0, lost=0)
    for _ in range(10):
        assert report(idle) == once


def test_a_newcomer_is_not_waited_for_and_one_who_leaves_no_longer() -> None:
    pair = Pair()
    pair.join()
    pair.send(b"lost")
    pair.publisher.receive_control_untrusted("other", b"o" * 32, ask(pair), pair.now)
    pair.now += 1
    pair.publisher.transmits(pair.now)
    assert len(pair.publisher.members) == 2
    assert pair.publisher.undelivered
    pair.publisher.ended("session")
    assert not pair.publisher.undelivered


def test_nobody_has_to_have_all_of_a_best_effort_topic() -> None:
    pair = Pair(mode=g.BEST_EFFORT)
    pair.join()
    pair.send(b"lost")
    assert not pair.publisher.undelivered


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=300)), max_size=30), st.integers(0, 2**32))
def test_P1_whatever_comes_in_nothing_is_raised(inputs: list[tuple[int, bytes]], seed: int) -> None:
    pair = Pair(seed=seed, history=3)
    told = pair.join()
    genuine = [each.pack() for each in told] + pair.send(b"1", b"2")
    channel = pair.subscriber.channels[0]
    rng = random.Random(seed)
    for where, data in inputs:
        start = rng.choice(genuine)
        cut = rng.randrange(len(start) + 1)
        mixed = start[:cut] + data
        pair.now += rng.random()
        if where == 0:
            pair.publisher.receive_control_untrusted(
                "session", KEY, bytes([rng.randrange(9)]) + mixed[1:], pair.now
            )
        elif where == 1:
            pair.subscriber.receive_control_untrusted(OWNER, bytes([rng.randrange(9)]) + mixed[1:], pair.now)
        elif where == 2:
            pair.subscriber.receive_untrusted(mixed, pair.now)
            pair.subscriber.receive_untrusted(
                la.group_header(0, channel, rng.getrandbits(64)) + data, pair.now
            )
        else:
            nack = g.Nack(channel, rng.getrandbits(rng.choice([3, 64])), data[:64])
            pair.publisher.nack_untrusted("session", nack, pair.now)
        pair.subscriber.handle_timeout(pair.now)
        pair.publisher.handle_timeout(pair.now)
        pair.publisher.transmits(pair.now)
        pair.publisher.timeout()
        pair.subscriber.timeout()


def test_what_an_ended_epoch_lacks_is_not_delivered_by_the_next_one() -> None:
    pair = Pair()
    pair.join()
    pair.publisher.receive_control_untrusted("other", b"o" * 32, ask(pair), pair.now)
    pair.now += 0.1
    pair.exchange()
    (lost,) = pair.send(b"lost for now")
    pair.publisher.revoke(b"o" * 32, pair.now)
    pair.exchange()
    pair.now += 0.2
    for datagram in pair.send(b"in the new epoch"):
        pair.subscriber.receive_untrusted(datagram, pair.now)

    def delivered() -> bool:
        pair.publisher.confirm()
        for _ in range(2):
            pair.exchange()
            pair.subscriber.handle_timeout(pair.now)
        return not pair.publisher.undelivered

    assert not delivered()
    pair.now += 2
    pair.subscriber.handle_timeout(pair.now)
    assert not delivered(), "a report of the new epoch says nothing of the old one"
    pair.subscriber.receive_untrusted(lost, pair.now)
    assert delivered()
