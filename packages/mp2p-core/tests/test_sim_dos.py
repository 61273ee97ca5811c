"""Floods against a node that is talking, on a simulated network (rows F1, F2, F3, F6, F10; counts, not times)."""

from __future__ import annotations

import pytest

from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.addresses import pack_ipv4
from mp2p_core.testing.puppet import Puppet, restamp
from mp2p_core.testing.simulation import Datagram, SimNode, Simulation
from mp2p_core.transport import Address


def source_of(n: int) -> Address:
    return pack_ipv4(f"172.{16 + (n >> 16)}.{n >> 8 & 255}.{n & 255}", 4000)


class Flood:
    """A server with a friend that keeps talking to it, and a stream of datagrams from strangers."""

    def __init__(self, seed: int) -> None:
        self.sim = Simulation(seed)
        self.server, self.friend = self.sim.add_node("server"), self.sim.add_node("friend")
        self.sim.connect(self.friend, self.server)
        assert self.sim.run_until(lambda: self.friend.connected and self.server.accepted, 5.0)
        self.said = 0
        self.largest: dict[str, int] = {}

    def run(self, seconds: int, per_second: int) -> None:
        for _ in range(seconds):
            for n in range(per_second):
                self.sim.inject(self.datagram(self.said * per_second + n), n / per_second)
            for n in range(10):
                self.sim.clock.call_at(self.sim.now + n / 10, self.talk)
            self.sim.run(1.0)
            for name, size in self.server.endpoint.sizes().items():
                self.largest[name] = max(self.largest.get(name, 0), size)

    def datagram(self, n: int) -> Datagram:
        raise NotImplementedError

    def talk(self) -> None:
        self.said += 1
        connection = self.friend.endpoint.connections()[0]
        connection.send_message(b"%d" % self.said)
        self.friend.endpoint.flush(connection)
        self.sim.flush(self.friend)

    def check(self) -> None:
        self.sim.run(0.5)
        assert [data for _, data in self.server.messages] == [b"%d" % (n + 1) for n in range(self.said)]
        assert self.server.closed == self.friend.closed == []


class ForeignNoise(Flood):
    """Row F1: DATA and INITs for others."""

    def datagram(self, n: int) -> Datagram:
        data = b"\x14\0" + self.sim.random_bytes(60)
        if n % 2:
            data = b"\x11\x01\0\0" + self.sim.random_bytes(8) + bytes(20) + self.sim.random_bytes(224)
        return Datagram(source_of(n), self.server.group, data)


class Garbage(Flood):
    """Row F2: INITs with a right mac1 and nothing behind it."""

    def datagram(self, n: int) -> Datagram:
        body = self.sim.random_bytes(192)
        data = restamp(wire.init_header(body[:8], None) + body + bytes(32), self.server.key)
        return Datagram(source_of(n), self.server.group, data)


class Keys(Flood):
    """Row F3: valid INITs, each by another key."""

    def datagram(self, n: int) -> Datagram:
        return Datagram(source_of(n), self.server.group, Puppet(self.server.key, seed=n).init())


class ForgedData(Flood):
    """Row F6: DATA with the id of the live session."""

    def datagram(self, n: int) -> Datagram:
        session = self.server.accepted[0].session
        return Datagram(
            self.friend.source,
            self.server.group,
            wire.data_header(session.epoch.local_id, n) + self.sim.random_bytes(40),
        )


def joins(flood: Flood, per_second: int = 1000) -> None:
    """A newcomer gets in while the flood goes on."""
    newcomer: SimNode = flood.sim.add_node("newcomer")
    flood.sim.connect(newcomer, flood.server)
    flood.run(8, per_second)
    assert newcomer.connected
    assert newcomer.connected[0].closed is None


def test_F1_noise_for_others_costs_counters_only() -> None:
    flood = ForeignNoise(1)
    before = flood.server.endpoint.sizes()
    flood.run(3, 3000)
    flood.check()
    counters = flood.server.endpoint.counters
    assert counters["data-unknown"] == counters["init-mac1"] == 4500
    assert {name: size for name, size in flood.largest.items() if name != "timers"} == {
        name: size for name, size in before.items() if name != "timers"
    }
    assert {d.data[0] for d in flood.server.sent} == {c.TYPE_RESP, c.TYPE_DATA}
    joins(flood)


def test_F2_garbage_gets_cookies_and_sessions_go_on() -> None:
    flood = Garbage(2)
    flood.run(3, 2000)
    flood.check()
    counters = flood.server.endpoint.counters
    assert counters["init-forged"] <= 4 * c.HANDSHAKE_RATE
    assert counters["init-forged"] + counters["cookie-rate"] < 6000, "the rest got cookies"
    assert flood.largest["half-open"] == 0
    joins(flood)


def test_F3_a_flood_of_keys_does_not_keep_a_newcomer_out() -> None:
    flood = Keys(3)
    flood.run(1, 1000)
    flood.check()
    joins(flood, per_second=300)
    assert flood.largest["half-open"] <= c.HALF_OPEN_SIZE
    assert flood.largest["answers"] <= c.ANSWER_CACHE_SIZE
    assert len(flood.server.accepted) == 2


def test_F6_forged_data_with_a_live_id() -> None:
    flood = ForgedData(6)
    flood.run(10, 1000)
    flood.check()
    assert flood.server.endpoint.counters["data-forged"] > 9000


@pytest.mark.soak
def test_F10_a_hundred_thousand_identities_over_time() -> None:
    flood = Keys(10)
    for _ in range(100):
        flood.run(1, 1000)
    flood.check()
    sizes = flood.largest
    assert sizes["half-open"] <= c.HALF_OPEN_SIZE
    assert sizes["answers"] <= c.ANSWER_CACHE_SIZE
    assert sizes["timers"] <= 200 * c.HALF_OPEN_LIFE + 100
    assert all(sizes[name] <= c.BUCKET_TABLE_SIZE for name in sizes if name.endswith("buckets"))
