"""What it costs to drop what is not for us: in the endpoint, and in the UDP reader before it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from benchmarks.measure import Aim, Speed, Table, median
from benchmarks.network import PORT
from mp2p_core.access import access_for
from mp2p_core.proto.constants import INIT_SIZE, TYPE_DATA, TYPE_INIT
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.transport import Path, Train
from mp2p_udp import V4
from mp2p_udp.options import IPPROTO_UDP, UDP_GRO, detect, set_quietly
from mp2p_udp.trains import TrainReceiver

_ROUNDS = 25
_CALLS = 2000
_TRAIN = 40
_EMPTY = "an empty call of the measuring loop, taken off the next three"


def run() -> Table:
    """Measure, each case once in each round."""
    speed = Speed()
    endpoint = Endpoint(Identity.generate(), access_for("any"), now=0.0)
    address = bytes([4, 0]) + PORT.to_bytes(2, "big") + bytes(10) + bytes([255, 255, 224, 0, 230, 7])
    endpoint.add_channel(0, ChannelInfo(address, 1400, lambda *_: True))
    path = Path(address, address, 1)
    data = bytes([TYPE_DATA, 0]) + os.urandom(100)
    init = bytes([TYPE_INIT, 1, 0, 0]) + os.urandom(8) + bytes(20) + os.urandom(INIT_SIZE - 32)

    def dropping(train: Train) -> Callable[[], float]:
        receive = endpoint.receive

        def measure() -> float:
            began = time.perf_counter()
            for _ in range(_CALLS):
                receive(0, train, 0.0)
            return (time.perf_counter() - began) / _CALLS

        return measure

    alone = "foreign DATA, endpoint, a train of one"
    train = f"foreign DATA, endpoint, in a train of {_TRAIN}"
    wrong = "INIT with a wrong mac1, endpoint"
    raw, reading = "any datagram, plain recvfrom", "any datagram, UDP reader"
    cases = {
        _EMPTY: _empty_calls,
        alone: dropping(Train(path, (data,), len(data))),
        train: _scaled(dropping(Train(path, (data * _TRAIN,), len(data))), _TRAIN),
        wrong: dropping(Train(path, (init,), len(init))),
    }
    found: dict[str, list[float]] = {name: [] for name in (*cases, raw, reading)}
    with _Waiting() as waiting:
        for _ in range(_ROUNDS):
            speed.look()
            for name, measure in cases.items():
                found[name].append(measure())
            found[raw].append(waiting.plain())
            found[reading].append(waiting.reader())
    us = {name: median(times) * 1e6 for name, times in found.items()}
    fastest = {name: min(times) * 1e6 for name, times in found.items()}
    for name in (alone, train, wrong):  # what remains is ours
        for figures in (us, fastest):
            figures[name] -= figures[_EMPTY] / (_TRAIN if name == train else 1)
    counters = endpoint.counters
    assert counters["data-unknown"] > 0, counters
    assert counters["init-mac1"] > 0, counters
    assert set(counters) == {"data-unknown", "init-mac1"}, counters
    return Table(
        "Dropping: per datagram, us",
        ["", "median", "fastest"],
        [[name, us[name], fastest[name]] for name in found],
        speed,
        [
            Aim("foreign DATA in the endpoint", us[alone], 0.3, "us"),
            Aim("INIT with a wrong mac1 in the endpoint", us[wrong], 1.5, "us"),
        ],
        ["the reader's figure contains its system call, as that of plain recvfrom does; both read "
         "datagrams of 100 bytes that wait already"],
    )  # fmt: skip


def _scaled(measure: Callable[[], float], by: int) -> Callable[[], float]:
    return lambda: measure() / by


def _empty_calls() -> float:
    def nothing(_channel: int, _train: object, _now: float) -> None:
        pass

    began = time.perf_counter()
    for _ in range(_CALLS):
        nothing(0, None, 0.0)
    return (time.perf_counter() - began) / _CALLS


class _Waiting:
    """A socket with datagrams waiting, to be read in two ways."""

    _COUNT = 128

    def __enter__(self) -> _Waiting:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(("127.0.0.1", 0))
        set_quietly(self._sock, V4.level, V4.receive_pktinfo, 1)
        set_quietly(self._sock, IPPROTO_UDP, UDP_GRO, 1)
        here = V4.record(self._sock.getsockname())
        self._receiver = TrainReceiver(self._sock, V4, here, detect(V4.number))
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _send(self) -> None:
        for _ in range(self._COUNT):
            self._sock.sendto(bytes(100), self._sock.getsockname())

    def plain(self) -> float:
        """Read with `recvfrom`; returns seconds per datagram."""
        self._send()
        read, receive = 0, self._sock.recvfrom
        began = time.perf_counter()
        try:
            while True:
                receive(65535)
                read += 1
        except BlockingIOError:
            return (time.perf_counter() - began) / read

    def reader(self) -> float:
        """Read as a channel does; returns seconds per datagram."""
        self._send()
        count, read = 0, self._receiver.read
        began = time.perf_counter()
        while trains := read():
            count += len(trains)
        return (time.perf_counter() - began) / count
