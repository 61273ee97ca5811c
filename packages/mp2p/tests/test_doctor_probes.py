"""What doctors say to each other: nothing to those who lack the key, and never more than they were asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mp2p.doctor.answering import Asked, Listener
from mp2p.doctor.probes import LEAST_SIZE, Probe, pack, unpack
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.proto.identity import Identity
from mp2p_core.transport import InterfaceStatus, Path, Train

HERE, THERE, OTHER = (Identity.from_seed(bytes([n]) * 32).public for n in (1, 2, 3))
NONCE = bytes(range(16))
GROUP = pack_ipv4("224.0.230.7", 1024)
HOME = pack_ipv4("224.0.230.8", 1024)
SOURCE = pack_ipv4("192.0.2.9", 1024)
QUESTION: dict[str, Any] = {"key": str(HERE), "group": HOME.hex(), "time": 0.0}


def ask(
    body: dict[str, Any] = QUESTION, key: bytes = THERE.raw, size: int = LEAST_SIZE, *, answer: bool = False
) -> bytes:
    return pack(key, Probe(answer, NONCE, body), size)


def test_what_is_packed_comes_back() -> None:
    for size in (0, 600, 1472):
        datagram = ask(size=size)
        assert len(datagram) >= size
        assert unpack(THERE.raw, datagram) == Probe(False, NONCE, QUESTION)


def test_another_key_reads_nothing() -> None:
    assert unpack(OTHER.raw, ask()) is None


def test_every_byte_counts() -> None:
    datagram = ask()
    for at in range(len(datagram)):
        assert unpack(THERE.raw, datagram[:at] + bytes([datagram[at] ^ 1]) + datagram[at + 1 :]) is None
        assert unpack(THERE.raw, datagram[:at]) is None


def test_whoever_knows_the_key_may_still_send_nonsense() -> None:
    assert unpack(THERE.raw, os.urandom(600)) is None
    for body in ([], 7, "x", None):
        assert unpack(THERE.raw, pack(THERE.raw, Probe(False, NONCE, body), 600)) is None  # type: ignore[arg-type]  # that is the point


class Channel:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.sent: list[Train] = []
        self.rejoins = 0
        self.address = GROUP

    def status(self) -> Sequence[InterfaceStatus]:
        return []

    def send(self, train: Train) -> bool:
        self.sent.append(train)
        return True

    def rejoin(self) -> None:
        self.rejoins += 1


class Beside:
    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []

    def sendto(self, data: bytes, to: tuple[str, int]) -> None:
        self.sent.append((data, to))


class Scene:
    """A listener that has been asked."""

    def __init__(self, *datagrams: bytes, how: str = "multicast on eth0", source: bytes = SOURCE) -> None:
        self.channel, self.beside = Channel(), Beside()
        self.asked: list[Asked] = []
        self.listener = Listener(THERE, lambda key: key == HERE, self.asked.append)
        for datagram in datagrams:
            self.listener._answer(datagram, Path(source, GROUP, 2), how, self.channel, self.beside)  # type: ignore[arg-type]  # stand-ins


def test_an_answer_goes_to_the_source_and_to_the_group_and_says_what_was_heard() -> None:
    scene = Scene(ask())
    ((said, to),) = scene.beside.sent
    assert to == ("192.0.2.9", 1024)
    (train,) = scene.channel.sent
    assert (train.path.remote, train.path.interface, list(train.buffers)) == (HOME, 2, [said])
    answer = unpack(THERE.raw, said)
    assert answer is not None
    assert (answer.answer, answer.nonce) == (True, NONCE)
    assert answer.body["how"] == "multicast on eth0"
    assert (answer.body["allowed"], answer.body["size"], answer.body["source"]) == (
        True,
        600,
        "192.0.2.9:1024",
    )
    assert len(said) <= LEAST_SIZE
    assert scene.asked == [Asked(str(HERE), "multicast on eth0", "192.0.2.9:1024")]


def test_who_is_not_allowed_is_told_so() -> None:
    scene = Scene(ask(QUESTION | {"key": str(OTHER)}))
    answer = unpack(THERE.raw, scene.beside.sent[0][0])
    assert answer is not None
    assert answer.body["allowed"] is False


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        ask(key=OTHER.raw),
        ask(size=0),
        ask(answer=True),
        ask({}),
        ask(QUESTION | {"key": "nobody"}),
        ask(QUESTION | {"key": 7}),
        ask(QUESTION | {"group": "zz"}),
        ask(QUESTION | {"group": None}),
    ],
)
def test_anything_else_gets_no_answer(datagram: bytes) -> None:
    scene = Scene(datagram)
    assert scene.beside.sent == []
    assert scene.channel.sent == []
    assert scene.asked == []


@pytest.mark.parametrize(
    "victim", [pack_ipv4("198.51.100.1", 53), pack_ipv4("224.0.0.251", 5353), bytes(20), b""]
)
def test_no_victim_can_be_named(victim: bytes) -> None:
    scene = Scene(ask(QUESTION | {"group": victim.hex()}))
    assert scene.channel.sent == []
    assert [to for _, to in scene.beside.sent] == [("192.0.2.9", 1024)]


def test_a_flood_is_answered_at_a_rate() -> None:
    scene = Scene(*[ask()] * 1000)
    assert 200 <= len(scene.beside.sent) <= 400


@pytest.mark.parametrize(("how", "times"), [("unicast", 1), ("multicast on eth0", 0)])
def test_it_joins_again_when_asked_by_unicast(how: str, times: int) -> None:
    scene = Scene(ask(QUESTION | {"rejoin": True}), how=how)
    assert scene.channel.rejoins == times


@pytest.mark.skipif(sys.platform == "win32", reason="errors of sends differ")
def test_a_source_that_cannot_be_answered_is_no_trouble() -> None:
    class Broken(Beside):
        def sendto(self, data: bytes, to: tuple[str, int]) -> None:
            raise OSError("unreachable")

    scene = Scene()
    scene.listener._answer(ask(), Path(SOURCE, GROUP, 2), "unicast", scene.channel, Broken())  # type: ignore[arg-type]  # stand-ins
    assert len(scene.asked) == 1
