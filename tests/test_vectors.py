"""Frozen bytes: what goes over the wire for fixed keys and fixed randomness (docs/protocol.md, sections 3 to 6).

`tests/vectors/handshake.json` is for other implementations, and for us: a change of the wire shows here.
`python tests/test_vectors.py` writes it anew, which is right only when the protocol's version changes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mp2p_core.proto import addresses, wire
from mp2p_core.proto import constants as c
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.frames import (
    PING_FRAME,
    Msg,
    Ping,
    encode_ack,
    encode_close,
    encode_msg,
    parse_frames_untrusted,
)
from mp2p_core.proto.identity import Identity
from mp2p_core.proto.responder import ChannelInfo
from mp2p_core.testing.puppet import Puppet, restamp
from mp2p_core.testing.simulation import AllowAll
from mp2p_core.transport import Path as Way
from mp2p_core.transport import Reach, Train

FILE = Path(__file__).with_name("vectors") / "handshake.json"
TIMESTAMP = 1_800_000_000_000_000
SOURCES = {"initiator": "192.0.2.1", "responder": "192.0.2.2"}
SEEDS = {"initiator": bytes(range(32)), "responder": bytes(range(32, 64))}


class Side:
    """An endpoint whose random draws are written down."""

    def __init__(self, name: str, draws: list[bytes] | None) -> None:
        self.name = name
        self.identity = Identity.from_seed(SEEDS[name])
        self.source = addresses.pack_ipv4(SOURCES[name], 1024)
        self.group = addresses.derive_group_v4(self.identity.public.raw, Reach.GLOBAL, c.DEFAULT_PORT)
        self.drawn: list[bytes] = []
        self._given = iter(draws) if draws is not None else self._fresh()
        self.endpoint = Endpoint(self.identity, AllowAll(), now=0.0, random=self._draw)
        self.endpoint.add_channel(0, ChannelInfo(self.group, 1200, addresses.may_answer))

    def _fresh(self) -> Iterator[bytes]:
        source = random.Random(f"vectors {self.name}")
        while True:
            yield source.randbytes(32)

    def _draw(self, n: int) -> bytes:
        self.drawn.append(next(self._given)[:n])
        return self.drawn[-1]

    def take(self, other: Side, datagram: bytes, now: float) -> list[bytes]:
        """Take in a datagram and return what goes out in answer."""
        self.endpoint.receive(0, Train(Way(other.source, self.group, 1), (datagram,), len(datagram)), now)
        return self.give(now)

    def give(self, now: float) -> list[bytes]:
        return [part for _, train in self.endpoint.transmits(now) for part in train.datagrams()]


def make(draws: dict[str, list[bytes]] | None) -> dict[str, Any]:
    """Run the scene: a handshake, a message each way, a close; then a call that needs a cookie, and a hint."""
    one, two = (Side(name, draws[name] if draws else None) for name in ("initiator", "responder"))
    packets: list[dict[str, str]] = []

    def note(name: str, sender: Side, datagram: bytes) -> bytes:
        packets.append({"name": name, "from": sender.name, "bytes": datagram.hex()})
        return datagram

    def call() -> bytes:
        one.endpoint.connect(
            two.identity.public, [(0, two.group)], timestamp=TIMESTAMP, timeout=20.0, now=0.0
        )
        (init,) = one.give(0.0)
        return init

    init = note("INIT", one, call())
    (resp,) = two.take(one, init, 0.0)
    (confirm,) = one.take(two, note("RESP", two, resp), 0.0)
    (confirmed,) = two.take(one, note("DATA 0: PING", one, confirm), 0.0)
    (heard,) = one.take(two, note("DATA 0: ACK, PING", two, confirmed), 0.0)
    assert two.take(one, note("DATA 1: ACK", one, heard), 0.0) == []
    connection = one.endpoint.connections()[0]
    handshake_hash = connection.session.handshake_hash
    later = 0.01  # an ACK rides along once in 2 ms
    connection.send_message(b"hello, responder")
    one.endpoint.flush(connection)
    (message,) = one.give(later)
    assert two.take(one, note("DATA 2: MSG", one, message), later) == [], "within 25 ms"
    connection = two.endpoint.connections()[0]
    connection.send_message(b"hello, initiator")
    two.endpoint.flush(connection)
    (message,) = two.give(later)
    one.take(two, note("DATA 1: ACK, MSG", two, message), later)
    two.endpoint.close(connection, 0, "good night", later)
    (close,) = two.give(later)
    one.take(two, note("DATA 2: CLOSE", two, close), later)

    # The clock of the initiator has not moved on, so the responder wants to know where it is.
    (cookie,) = two.take(one, note("INIT, again at the same time", one, call()), 0.0)
    (proved,) = one.take(two, note("COOKIE", two, cookie), 0.0)
    (resp,) = two.take(one, note("INIT with mac2", one, proved), 0.0)
    note("RESP to the INIT with mac2", two, resp)

    number = one.endpoint.connect(
        Puppet(one.identity.public, seed=1).key,
        [(0, two.group)],
        timestamp=TIMESTAMP,
        timeout=30.0,
        now=100.0,
    )
    one.give(100.0)
    hinted = b""
    while not hinted:
        when = one.endpoint.timeout()
        assert when is not None
        one.endpoint.handle_timeout(when)
        hinted = next((init for init in one.give(when) if init[0] == c.TYPE_INIT and init[2]), b"")
    note("INIT to another peer, with a hint", one, hinted)
    one.endpoint.cancel(number)

    return {
        "about": "Both sides' random draws in their order, and every datagram. Suite 1, version 1.",
        "prologue": "mp2p-v1\\0 || responder's Ed25519 key || INIT[0:32]",
        "timestamp": TIMESTAMP,
        "handshake_hash": handshake_hash.hex(),
        "sides": {
            side.name: {
                "seed": SEEDS[side.name].hex(),
                "ed25519": side.identity.public.raw.hex(),
                "x25519": side.identity.public.x25519.hex(),
                "source": addresses.format_host_port(side.source),
                "group": addresses.format_host_port(side.group),
                "draws": [draw.hex() for draw in side.drawn],
            }
            for side in (one, two)
        },
        "packets": packets,
    }


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FILE.read_text())
    return loaded


def packet(frozen: dict[str, Any], name: str) -> bytes:
    return next(bytes.fromhex(entry["bytes"]) for entry in frozen["packets"] if entry["name"] == name)


def test_the_same_keys_and_draws_give_the_same_bytes(frozen: dict[str, Any]) -> None:
    draws = {name: [bytes.fromhex(draw) for draw in side["draws"]] for name, side in frozen["sides"].items()}
    made = make(draws)
    for old, new in zip(frozen["packets"], made["packets"], strict=True):
        assert new == old, f"{old['name']} has changed"
    assert made == frozen


def test_the_frozen_packets_have_the_sizes_and_fields_of_the_protocol(frozen: dict[str, Any]) -> None:
    sizes = {name: len(packet(frozen, name)) for name in ("INIT", "RESP", "COOKIE")}
    assert sizes == {"INIT": 256, "RESP": 156, "COOKIE": 60}
    for entry in frozen["packets"]:
        data = bytes.fromhex(entry["bytes"])
        assert data[0] == {"INIT": 0x11, "RESP": 0x12, "COOK": 0x13, "DATA": 0x14}[entry["name"][:4]]
    init, resp, cookie = (packet(frozen, name) for name in ("INIT", "RESP", "COOKIE"))
    assert resp[4:12] == init[4:12]
    assert init[240:] == bytes(16)
    again, proved = packet(frozen, "INIT, again at the same time"), packet(frozen, "INIT with mac2")
    assert cookie[4:12] == again[4:12]
    assert proved[:240] == again[:240]
    assert proved[240:] != bytes(16)
    hinted = packet(frozen, "INIT to another peer, with a hint")
    assert (
        addresses.format_host_port(wire.init_fields(hinted).hint or b"")
        == frozen["sides"]["initiator"]["group"]
    )
    assert init == restamp(init, Identity.from_seed(SEEDS["responder"]).public)


def test_a_puppet_that_knows_one_side_reads_the_other(frozen: dict[str, Any]) -> None:
    """The responder's half done by hand from its keys: it opens what the initiator sealed."""
    keys = {name: Identity.from_seed(bytes.fromhex(side["seed"])) for name, side in frozen["sides"].items()}
    assert keys["responder"].public.raw.hex() == frozen["sides"]["responder"]["ed25519"]

    puppet = Puppet(keys["initiator"].public, identity=keys["responder"], capabilities=c.CAPABILITY_PARTS)
    # The first draw is the cookie secret.
    receive_id, token, e = [bytes.fromhex(draw) for draw in frozen["sides"]["responder"]["draws"]][1:4]
    script = iter([receive_id, e])
    puppet.random = lambda n: next(script)[:n]
    group = addresses.parse_ipv4(frozen["sides"]["responder"]["group"])
    resp = puppet.resp(packet(frozen, "INIT"), address=group, token=token)
    assert resp == packet(frozen, "RESP")
    assert puppet.handshake_hash.hex() == frozen["handshake_hash"]
    assert parse_frames_untrusted(puppet.open(packet(frozen, "DATA 0: PING"))) == [Ping()]
    (message,) = parse_frames_untrusted(puppet.open(packet(frozen, "DATA 2: MSG")))
    assert message == Msg(b"hello, responder")
    for name, number, content in (
        ("DATA 0: ACK, PING", 0, encode_ack([(0, 0)], 0.0) + PING_FRAME),
        ("DATA 1: ACK, MSG", 1, encode_ack([(0, 2)], 0.0) + encode_msg(b"hello, initiator")),
        ("DATA 2: CLOSE", 2, encode_close(0, "good night")),
    ):
        assert puppet.seal(content, number) == packet(frozen, name)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(make(None), indent=1) + "\n")
