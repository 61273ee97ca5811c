"""A publisher, or a subscriber, that means harm to the other, and strangers beside them (protocol section 8)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group import layout as la
from mp2p_core.proto.group.events import Gap, MemberJoined, Messages
from mp2p_core.proto.group.keys import SendKeys
from mp2p_core.proto.group.publisher import Publisher
from mp2p_core.proto.group.sealing import Sealer
from mp2p_core.proto.group.subscriber import Subscriber

OWNER = b"P" * 32
RUN = b"this run"


class Hostile:
    """A subscriber, and a publisher that seals and grants whatever it likes."""

    def __init__(self, **fields: Any) -> None:
        self.random = random.Random(1).randbytes
        self.subscriber = Subscriber(OWNER, "topic", random=self.random)
        self.subscriber.connected(0.0)
        self.sealer = self.grant(1, **fields)

    def tell(self, control: g.Control) -> None:
        self.subscriber.receive_control_untrusted(OWNER, control.pack(), 0.1)

    def grant(self, epoch: int, **fields: Any) -> Sealer:
        keys = SendKeys(epoch, self.random)
        grant = g.Grant(
            topic=self.subscriber.topic, channel=keys.channel, epoch=epoch, generation=0, chain_key=keys.chain_key,
            signing_key=keys.signing_key, next_seq=1, group=bytes(20), history=0, heartbeat_ms=2000, last_seq=0,
            number=0, run=RUN, mode=g.REPAIRED, backlog=False,
        )  # fmt: skip
        self.tell(grant._replace(**fields))
        return Sealer(OWNER, keys)

    def message(self, sealer: Sealer, number: int) -> None:
        plain = la.data_plain(la.DATA, la.WHOLE, number, b"message")
        self.subscriber.receive_untrusted(sealer.data(plain), 0.1)

    def reports(self, seconds: int) -> list[g.Report]:
        for now in range(1, seconds):
            self.subscriber.handle_timeout(float(now))
        told = map(g.parse_control_untrusted, self.subscriber.controls())
        return [each for each in told if isinstance(each, g.Report)]


@pytest.mark.parametrize("how", ["heartbeat", "confirm"])
def test_a_jump_of_more_than_a_report_can_count_is_reported_as_far_as_it_can(how: str) -> None:
    hostile = Hostile()
    if how == "heartbeat":
        hostile.sealer.next_seq = 2**40
        hostile.subscriber.receive_untrusted(hostile.sealer.heartbeat(1, 1, 0), 0.1)
    else:
        hostile.tell(g.Confirm(hostile.subscriber.topic, hostile.sealer.keys.channel, 2**62))
    assert max(report.expected for report in hostile.reports(20)) == 2**32 - 1


def test_a_backlog_that_ends_where_numbers_do_is_refused() -> None:
    """Else the next question would have to name a number of more than 64 bits."""
    hostile = Hostile(backlog=True)
    hostile.tell(g.Backlog(hostile.subscriber.topic, RUN, 2**64 - 1, last=True, messages=[b"x"] * 5))
    assert hostile.subscriber.counters["control-malformed"] == 1
    hostile.subscriber.connected(1.0)
    assert hostile.subscriber.controls()


def test_epochs_that_come_while_a_backlog_is_waited_for_are_few() -> None:
    hostile = Hostile(backlog=True)
    for epoch in range(2, 50):
        hostile.grant(epoch, last_seq=1)  # the one before it has something to wait for
        assert len(hostile.subscriber.channels) <= 2 + c.MAX_OLD_EPOCHS


def test_what_waits_for_the_turn_of_its_epoch_is_bounded_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(c, "GROUP_WINDOW", 200)
    hostile = Hostile()
    hostile.grant(2, last_seq=5)
    third = hostile.grant(3, last_seq=5)
    for number in range(c.GROUP_WINDOW):
        hostile.message(third, number)
    events = list(hostile.subscriber.events())
    assert sum(len(each.messages) for each in events if isinstance(each, Messages)) == c.GROUP_WINDOW


def test_epochs_that_are_never_complete_leave_a_window_of_messages_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each begins without its first datagram; what came of it waits for the next one's to say what is missing."""
    monkeypatch.setattr(c, "GROUP_WINDOW", 200)
    hostile = Hostile(number=0)
    number, sent = 0, 0
    for epoch in range(2, 16, 2):
        sealer = hostile.grant(epoch, number=number)
        sealer.next_seq = 2
        for _ in range(100):
            number, sent = number + 2, sent + 1
            hostile.message(sealer, number)
    got = gaps = 0
    for event in hostile.subscriber.events():
        got += len(event.messages) if isinstance(event, Messages) else 0
        gaps += isinstance(event, Gap)
    assert sent - got <= c.GROUP_WINDOW + 100
    assert gaps


@pytest.mark.parametrize("size", [c.MAX_GROUP_DATAGRAM, c.MAX_GROUP_DATAGRAM + 1])
def test_G1_what_strangers_have_kept_is_no_larger_than_a_datagram(size: int) -> None:
    hostile = Hostile()
    channel = hostile.sealer.keys.channel
    for seq in range(2, 20):
        datagram = la.group_header(0, channel, seq).ljust(size, b"?")
        hostile.subscriber.receive_untrusted(datagram, 0.1)
    fits = size <= c.MAX_GROUP_DATAGRAM
    assert hostile.subscriber.counters["group-unsealed" if fits else "group-malformed"] == 18


def test_who_leaves_and_asks_again_and_again_does_not_get_all_that_is_kept_each_time() -> None:
    publisher = Publisher(OWNER, "topic", [bytes(20)], allow=lambda _key: True, now=0.0)
    for n in range(1000):  # in ten seconds
        ask = g.Ask(publisher.topic, g.NO_RUN, 0, 0, fresh=True)
        publisher.take_control_untrusted(n, b"k" * 32, ask, n / 100)
        publisher.transmits(n / 100)
        list(publisher.controls())
        publisher.take_control_untrusted(n, b"k" * 32, g.Leave(publisher.topic), n / 100)
    joined = sum(isinstance(event, MemberJoined) for event in publisher.events())
    assert c.JOIN_BURST <= joined <= c.JOIN_BURST + 10 * c.ASK_RATE


def test_G12_questions_of_one_key_about_very_much_are_passed_over() -> None:
    """Each takes a hundred bytes, and what it asks for a millisecond to look up; a second session has no more."""
    publisher = Publisher(OWNER, "topic", [bytes(20)], allow=lambda _key: True, now=0.0)
    for session in ("one", "another"):
        ask = g.Ask(publisher.topic, g.NO_RUN, 0, 0, fresh=True)
        publisher.take_control_untrusted(session, b"k" * 32, ask, 0.0)
    publisher.transmits(0.1)
    publisher.send(bytes(1000))
    datagrams = publisher.transmits(0.2)
    nack = g.Nack(datagrams[0][la.CHANNEL], 1, b"\xff" * 64)
    for now in (1.0, 2.0):
        for session in ("one", "another") * 100:
            publisher.nack_untrusted(session, nack, now)
    burst, more = int(c.NACK_BURST) // 512, int(min(c.NACK_RATE, c.NACK_BURST)) // 512
    assert publisher.counters["nack"] == burst + more
    assert publisher.counters["nack-too-often"] == 400 - burst - more
