"""`mp2p send-file` and `receive-file` between hosts: long, slow, lossy and broken networks, killed programs."""

from __future__ import annotations

import hashlib
import random
import signal
from pathlib import Path

import pytest
from netlab.devices import Device, FileReceiver, Outcome, Record, wait_for_event
from netlab.firewall import lose
from netlab.lab import Lab
from netlab.processes import Process
from netlab.topologies import two_hosts

pytestmark = pytest.mark.network

MIB = 1 << 20
FAMILIES = ["v4", "v6"]
FULL = 20_000_000 / 8 * 0.93
"""Bytes of files a second that make a link of 20 Mbit/s full; the rest is Ethernet's, IP's, UDP's and mp2p's."""


class Two:
    """A host that sends a file and one that receives it."""

    def __init__(self, lab: Lab, folder: Path, transport: str) -> None:
        self.ends = two_hosts(lab)
        self.left, self.right = Device(self.ends.left), Device(self.ends.right)
        self.inbox = folder / "in"
        self.inbox.mkdir()
        self._outbox = folder
        self._option = ("--transport", transport)

    def slow_down(self, latency: str = "20ms") -> None:
        """Let through 20 Mbit/s, and queue at most `latency` worth of it."""
        self.ends.left_port.limit_rate("20mbit", latency=latency)

    def receive(self) -> FileReceiver:
        return self.right.receive_files(self.inbox, *self._option)

    def make(self, size: int, name: str = "x.bin") -> str:
        """Make a file to send and return its SHA-256."""
        dice, digest = random.Random(size), hashlib.sha256()
        with (self._outbox / name).open("wb") as file:
            while size:
                piece = dice.randbytes(min(size, MIB))
                digest.update(piece)
                size -= file.write(piece)
        return digest.hexdigest()

    def send(
        self, receiver: FileReceiver, *options: str, name: str = "x.bin", sender: Device | None = None
    ) -> Process:
        file = str(self._outbox / name)
        return (sender or self.left).start("send-file", *self._option, *options, receiver.key, file)

    def check(self, sent: Process, digest: str) -> Record:
        """Check that the file has arrived whole, and nothing else; return what the sender said of it."""
        outcome = Outcome(sent)
        assert outcome.code == 0, outcome.error
        (done,) = outcome.events("done")
        assert done["sha256"] == digest
        assert [path.name for path in self.inbox.iterdir()] == [done["name"]]
        with (self.inbox / done["name"]).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == digest
        return done


def midway(receiver: FileReceiver) -> None:
    """Wait until some of the file has been written."""
    wait_for_event(receiver.process, "progress", lambda record: record["bytes"] > MIB // 2)


@pytest.mark.parametrize("transport", FAMILIES)
@pytest.mark.parametrize("size", [64 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.soak)])
def test_a_large_file(lab: Lab, tmp_path: Path, transport: str, size: int) -> None:
    two = Two(lab, tmp_path, transport)
    digest = two.make(size)
    receiver = two.receive()
    assert two.check(two.send(receiver), digest)["offset"] == 0
    (done,) = (record for record in receiver.stop() if record["event"] == "done")
    assert (done["sha256"], done["from"]) == (digest, two.left.key)


@pytest.mark.parametrize(
    ("transport", "percent", "size"),
    [
        ("v4", 1, 4 * MIB),
        ("v6", 5, 2 * MIB),
        ("v4", 20, MIB // 4),
        *(
            pytest.param(*each, 8 * MIB, marks=pytest.mark.soak)
            for each in (("v6", 1), ("v4", 5), ("v6", 20))
        ),
    ],
)
def test_loss_each_way(lab: Lab, tmp_path: Path, transport: str, percent: int, size: int) -> None:
    two = Two(lab, tmp_path, transport)
    for host, port in ((two.ends.left, two.ends.left_port), (two.ends.right, two.ends.right_port)):
        port.segment_in_software()
        lose(host, percent)
    digest = two.make(size)
    two.check(two.send(two.receive()), digest)


def _reports(records: list[Record], name: str) -> list[int]:
    """Return where the reports of a transfer's progress stand among the records."""
    wanted = "progress", name
    return [n for n, record in enumerate(records) if (record["event"], record.get("name")) == wanted]


def _rate(records: list[Record], name: str) -> float:
    """Return the bytes a second from a transfer's first to its last report in these."""
    reports = [records[n] for n in _reports(records, name)]
    first, last = reports[0], reports[-1]
    written: int = last["bytes"] - first["bytes"]
    return written / (last["seconds"] - first["seconds"])


def _best_half(records: list[Record], *names: str) -> float:
    """Return the bytes a second of these transfers together in the best half of the first one's reports.

    A machine that stands still for a moment says nothing about how full a link is.
    """
    cuts = _reports(records, names[0])
    return max(
        sum(_rate(records[begin : end + 1], name) for name in names)
        for begin, end in zip(cuts, cuts[len(cuts) // 2 :], strict=False)
    )


@pytest.mark.parametrize(
    ("transport", "latency", "seconds"),
    [
        ("v4", "20ms", 3.5),
        pytest.param("v6", "20ms", 3.5, marks=pytest.mark.soak),
        *(pytest.param(each, "50ms", 20.0, marks=pytest.mark.soak) for each in FAMILIES),
    ],
)
def test_a_slow_link_is_filled_and_shared(
    lab: Lab, tmp_path: Path, transport: str, latency: str, seconds: float
) -> None:
    """One transfer alone, then another one beside it, which begins when the first has the whole link."""
    two = Two(lab, tmp_path, transport)
    two.slow_down(latency)
    for name in ("one", "two"):
        two.make(int(FULL * (2 * seconds + 5)), name)
    receiver = two.receive()
    two.send(receiver, name="one")
    wait_for_event(receiver.process, "progress", lambda record: record["seconds"] > seconds / 2)
    two.send(receiver, name="two", sender=Device(two.ends.left, "two"))
    wait_for_event(receiver.process, "progress", lambda r: r["name"] == "two" and r["seconds"] > seconds)
    records = receiver.stop()
    (joined,) = (
        n for n, record in enumerate(records) if (record["event"], record.get("name")) == ("start", "two")
    )

    alone, shared = records[:joined], records[joined:]
    assert _best_half(alone, "one") > 0.9 * FULL
    assert _best_half(shared, "two", "one") > 0.9 * FULL
    one, other = _rate(shared, "one"), _rate(shared, "two")
    assert 0.35 < one / (one + other) < 0.65, (one, other)


@pytest.mark.parametrize("transport", FAMILIES)
def test_an_interface_goes_down_and_comes_up(lab: Lab, tmp_path: Path, transport: str) -> None:
    two = Two(lab, tmp_path, transport)
    two.slow_down()
    digest = two.make(3 * MIB)
    receiver = two.receive()
    sent = two.send(receiver)
    midway(receiver)
    two.ends.right_port.down()
    two.ends.right_port.up()
    two.check(sent, digest)


@pytest.mark.parametrize("transport", ["v4", pytest.param("v6", marks=pytest.mark.soak)])
def test_C7_a_sender_is_killed_and_another_one_goes_on(lab: Lab, tmp_path: Path, transport: str) -> None:
    two = Two(lab, tmp_path, transport)
    two.slow_down()
    digest = two.make(3 * MIB)
    receiver = two.receive()
    sent = two.send(receiver)
    midway(receiver)
    assert sent.stop(signal.SIGKILL) == -signal.SIGKILL
    assert two.check(two.send(receiver), digest)["offset"] > MIB // 2


@pytest.mark.parametrize("transport", ["v6", pytest.param("v4", marks=pytest.mark.soak)])
def test_C7_a_receiver_is_killed_and_its_sender_goes_on_with_the_next(
    lab: Lab, tmp_path: Path, transport: str
) -> None:
    two = Two(lab, tmp_path, transport)
    two.slow_down()
    digest = two.make(3 * MIB)
    receiver = two.receive()
    sent = two.send(receiver, "--timeout", "4")
    midway(receiver)
    assert receiver.process.stop(signal.SIGKILL) == -signal.SIGKILL
    two.receive()
    done = two.check(sent, digest)
    assert done["offset"] > MIB // 2
