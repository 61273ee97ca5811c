"""Frozen bytes of a topic: what its publisher and a subscriber say for fixed keys (docs/protocol.md, section 8).

`tests/vectors/group.json` is for other implementations, and for us: a change of the wire shows here.
`python tests/test_group_vectors.py` writes it anew, which is right only when the protocol's version changes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto import addresses
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group.parity import parity_seq, parity_sum
from mp2p_core.proto.group.publisher import Publisher
from mp2p_core.proto.group.subscriber import Subscriber
from mp2p_core.proto.identity import Identity

FILE = Path(__file__).with_name("vectors") / "group.json"
SEED = bytes(range(32))
NAME = "weather/readings"
GROUP = "224.0.231.93:1024"
SUBSCRIBER = bytes(range(32, 64))
OTHER = bytes(range(64, 96))


def make(draws: list[bytes] | None) -> dict[str, Any]:
    """Run the scene: one joins, messages of each kind, then somebody is revoked and a new epoch begins."""
    source = random.Random("group vectors")
    given = iter(draws) if draws is not None else iter(lambda: source.randbytes(32), b"")
    drawn: list[bytes] = []

    def draw(n: int) -> bytes:
        drawn.append(next(given)[:n])
        return drawn[-1]

    owner = Identity.from_seed(SEED).public.raw
    group = addresses.parse_ipv4(GROUP)
    publisher = Publisher(owner, NAME, [group], allow=lambda _key: True, now=0.0, history=2, random=draw)
    subscriber = Subscriber(
        owner, NAME, history=2, kinds=b"\4\6", random=random.Random("backing off").randbytes
    )
    said: list[dict[str, str]] = []

    def note(name: str, data: bytes) -> bytes:
        said.append({"name": name, "bytes": data.hex()})
        return data

    def tell(names: list[str]) -> None:
        heard = [data for member, data in publisher.controls() if member == "one"]
        for name, data in zip(names, heard, strict=True):
            subscriber.receive_control_untrusted(owner, note(name, data), 0.1)

    def send(names: list[str], now: float, *messages: bytes) -> list[bytes]:
        for message in messages:
            publisher.send(message)
        sent = publisher.transmits(now)
        for name, datagram in zip(names, sent, strict=True):
            subscriber.receive_untrusted(note(name, datagram), now)
        return sent

    publisher.send(b"before anybody came")
    publisher.transmits(0.0)
    subscriber.connected(0.1)
    (ask,) = subscriber.controls()
    publisher.receive_control_untrusted("one", SUBSCRIBER, note("ASK", ask), 0.1)
    other = g.Ask(publisher.topic, g.NO_RUN, 0, 0, fresh=True).pack()
    publisher.receive_control_untrusted("two", OTHER, other, 0.1)
    publisher.transmits(0.1)
    tell(["GRANT", "BACKLOG"])
    sent = send(["GROUP 1: DATA, signed"], 0.102, b"21.5 degrees")
    sent += send(["GROUP 2: DATA, signed, SEVERAL"], 0.104, b"one", b"", b"three")
    names = ["GROUP 3: MANIFEST", "GROUP 4: DATA, BEGIN", "GROUP 5: DATA", "GROUP 6: DATA, END"]
    sent += send(names, 0.106, bytes(range(256)) * 10)
    sent += send(["GROUP 7: HEARTBEAT"], 0.2)
    sealer = publisher._epochs.sealer
    note("GROUP: PARITY 0 of 7", sealer.parity(parity_seq(0, 0, 7), parity_sum(sent, 0)))
    note("GROUP_NACK of 4 and 6", b"\x20" + g.nacks_for(sealer.keys.channel, [4, 6])[0].pack())
    publisher.confirm()
    tell(["CONFIRM"])
    publisher.revoke(OTHER, 0.21)
    send(["ROTATE of the epoch before"], 0.21)
    tell(["GRANT of the next epoch"])
    send(["GROUP 1 of the next epoch: DATA, signed"], 0.22, b"for those who stay")
    subscriber.handle_timeout(2.0)
    note("REPORT", [each for each in subscriber.controls() if each[0] == 5][-1])
    subscriber.leave()
    note("LEAVE", subscriber.controls()[-1])
    assert subscriber.counters["group-received"] == 9
    return {
        "about": "The publisher's random draws in their order, and what is said. Version 1.",
        "publisher": {"seed": SEED.hex(), "ed25519": owner.hex()},
        "topic": NAME,
        "topic_id": publisher.topic.hex(),
        "group": GROUP,
        "draws": [each.hex() for each in drawn],
        "said": said,
    }


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(FILE.read_text())
    return loaded


def said(frozen: dict[str, Any], name: str) -> bytes:
    return next(bytes.fromhex(entry["bytes"]) for entry in frozen["said"] if entry["name"] == name)


def test_the_same_keys_and_draws_give_the_same_bytes(frozen: dict[str, Any]) -> None:
    made = make([bytes.fromhex(each) for each in frozen["draws"]])
    for old, new in zip(frozen["said"], made["said"], strict=True):
        assert new == old, f"{old['name']} has changed"
    assert made == frozen


def test_the_frozen_bytes_follow_from_the_draws_by_the_protocol_alone(frozen: dict[str, Any]) -> None:
    """Keys, seals, signatures and digests made here from nothing but what the protocol says."""
    run, channel, private, chain, *_ = map(bytes.fromhex, frozen["draws"])
    owner = bytes.fromhex(frozen["publisher"]["ed25519"])
    topic = hashlib.blake2s(b"mp2p-v1 topic\0" + owner + NAME.encode(), digest_size=16).digest()
    assert topic.hex() == frozen["topic_id"]
    signing = Ed25519PrivateKey.from_private_bytes(private)
    grant = said(frozen, "GRANT")
    assert grant[:17] == b"\x02" + topic
    assert grant[17:25] == channel
    assert grant[31:63] == chain
    assert grant[63:95] == signing.public_key().public_bytes_raw()
    assert grant[-10:-2] == run
    key = hmac.digest(chain, b"mp2p-v1 key\1" + channel + bytes(2), "sha256")

    def opened(name: str) -> bytes:
        datagram = said(frozen, name)
        header, seq = datagram[:20], int.from_bytes(datagram[12:20], "big")
        plain = ChaCha20Poly1305(key).decrypt(bytes(4) + seq.to_bytes(8, "little"), datagram[20:], header)
        assert header == b"\x15\0\0\0" + channel + seq.to_bytes(8, "big")
        if plain[0] & 0xF in (1, 3, 4, 5):
            assert signing.sign(b"mp2p-v1 group\0" + owner + header + plain[:-64]) == plain[-64:]
            return plain[:-64]
        return plain

    assert opened("GROUP 1: DATA, signed") == bytes((1 | 3 << 4,)) + (1).to_bytes(4, "big") + b"21.5 degrees"
    lengths = b"".join(length.to_bytes(2, "big") for length in (3, 0, 5))
    several = bytes((1 | 7 << 4,)) + (2).to_bytes(4, "big") + b"\3" + lengths + b"onethree"
    assert opened("GROUP 2: DATA, signed, SEVERAL") == several
    names = ["GROUP 4: DATA, BEGIN", "GROUP 5: DATA", "GROUP 6: DATA, END"]
    digests = b"".join(hashlib.sha256(said(frozen, name)).digest()[:16] for name in names)
    assert opened("GROUP 3: MANIFEST") == b"\3\3" + digests
    pieces = [opened(name) for name in names]
    assert [each[:5] for each in pieces] == [bytes((2 | flags << 4, 0, 0, 0, 5)) for flags in (1, 0, 2)]
    assert b"".join(each[5:] for each in pieces) == bytes(range(256)) * 10
    numbers = [(6).to_bytes(8, "big"), (1).to_bytes(8, "big"), (2).to_bytes(4, "big"), (6).to_bytes(4, "big")]
    assert opened("GROUP 7: HEARTBEAT") == b"\4" + b"".join(numbers)
    assert opened("ROTATE of the epoch before") == b"\5" + (7).to_bytes(8, "big")
    nack = bytes.fromhex("20") + channel + (4).to_bytes(8, "big") + b"\1\5"
    assert said(frozen, "GROUP_NACK of 4 and 6") == nack


if __name__ == "__main__":
    FILE.write_text(json.dumps(make(None), indent=1) + "\n")
