"""The classic profile on real networks: ours with ours, ours with a peer of its own, and the silence between."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from netlab.capture import Capture
from netlab.devices import Device
from netlab.firewall import lose
from netlab.lab import Host, Lab
from netlab.namespaces import scratch_folder
from netlab.processes import Process
from netlab.topologies import three_routers, two_hosts

from mp2p_core.classic import ClassicIdentity, load_classic_keys
from mp2p_core.keyfile import load_identity, save_identity

pytestmark = pytest.mark.network

PEER = str(Path(__file__).with_name("classic_peer.py"))
GROUPS = {
    "v4": "224.0.245.100",
    "v6": "ff1e:92a8:3287:fe8b:9103:a9e6:26f:73c6",  # as the original draws them
    "v6-prefix": "ff3e:80:2001:db8:1:0:9103:a9e6",
}
FLAGS: dict[str, tuple[str, ...]] = {"v4": ("--ipv4",), "v6": (), "v6-prefix": ("--prefix6",)}
TRANSPORTS = list(GROUPS)
CLASSIC = {0: {115}, 1: {177}}


def home_of(host: Host) -> Path:
    folder = scratch_folder() / f"{host.name}-classic"
    folder.mkdir(exist_ok=True)
    return folder


def run(host: Host, command: str, *arguments: str) -> Process:
    """Start a classic command with a key file of this host's own, or with the one that is named."""
    key = () if "--key" in arguments else ("--key", str(home_of(host) / "key"))
    return host.start(
        *(sys.executable, "-W", "error", "-m", "mp2p", "classic", command, "--json", *key, *arguments),
        label=f"mp2p classic {command}",
        env={"HOME": str(home_of(host)), "XDG_CONFIG_HOME": str(home_of(host))},
    )


def first(process: Process, event: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.wait_for_line(f'"event": "{event}"'))
    return found


def records(process: Process, event: str) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, process.stdout) if record["event"] == event]


def peer(host: Host, *arguments: str) -> Process:
    """Start the peer that was written from the section alone."""
    return host.start(sys.executable, PEER, *arguments, label=f"the peer's {arguments[0]}")


def at(place: dict[str, Any]) -> str:
    """Write an address with its port as `send` takes it."""
    host = place["address"]
    return f"[{host}]:{place['port']}" if ":" in host else f"{host}:{place['port']}"


def check_classic_only(wire: Capture) -> None:
    """See that every datagram on a wire is a classic message."""
    payloads = [packet.payload for packet in wire.datagrams()]
    assert {payload[0] for payload in payloads} == {0, 1, 2}
    for payload in payloads:
        assert len(payload) in CLASSIC.get(payload[0], range(45, 1501))


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_ours_with_ours_across_three_routers(lab: Lab, transport: str) -> None:
    ends = three_routers(lab)
    wire = Capture(ends.left_port)
    server = run(ends.right, "serve", *FLAGS[transport])
    listening = first(server, "listening")
    assert listening["port"] == (1026 if transport == "v6-prefix" else 1024)
    sender = run(ends.left, "send", *FLAGS[transport], at(listening), listening["key"], "hello, thermostat")
    assert sender.wait() == 0
    assert [answer["text"] for answer in records(sender, "answer")] == ["received"]
    message = first(server, "message")
    client = load_classic_keys(home_of(ends.left) / "key").identity.public.raw.hex()
    assert (message["from"], message["text"]) == (client, "hello, thermostat")
    check_classic_only(wire)
    assert {packet.source_port for packet in wire.datagrams(outgoing=True)} == {
        1026 if transport == "v6-prefix" else 1025
    }
    assert b"thermostat" not in b"".join(packet.payload for packet in wire.datagrams())


@pytest.mark.parametrize(
    ("transport", "ways", "loss"),
    [
        ("v4", (), 0),
        ("v6", (), 0),
        ("v6-prefix", (), 0),
        ("v4", ("swap", "twice"), 0),
        ("v6", ("swap", "twice"), 30),
    ],
)
def test_our_server_with_the_peer(lab: Lab, transport: str, ways: tuple[str, ...], loss: int) -> None:
    ends = two_hosts(lab)
    for host in (ends.left, ends.right):
        if loss:
            lose(host, loss)
    server = run(ends.right, "serve", *FLAGS[transport])
    listening = first(server, "listening")
    client = peer(
        *(ends.left, "call", "eth0", GROUPS[transport], "1025"),
        *(listening["address"], str(listening["port"]), listening["key"], *ways),
    )
    assert client.wait() == 0, client.transcript()
    assert [answer["text"] for answer in records(client, "answer")] == ["received"] * 2
    server.stop()
    messages = records(server, "message")
    assert {message["text"] for message in messages} == {"Hello server, how are you?", "x" * 1300}
    assert {message["from"] for message in messages} == {first(client, "ready")["key"]}
    if not loss:
        asked = [record["rounds"] for record in records(client, "asked") if record["type"] == 2]
        assert len(messages) == sum(asked), "of a datagram that came twice one was taken"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_our_client_with_the_peer(lab: Lab, transport: str) -> None:
    ends = two_hosts(lab)
    server = peer(
        ends.right, "serve", "eth0", GROUPS[transport], "1026" if transport == "v6-prefix" else "1024"
    )
    ready = first(server, "ready")
    largest = "y" * ((1472 if transport == "v4" else 1452) - 45)
    sender = run(ends.left, "send", *FLAGS[transport], ready["address"], ready["key"], largest)
    assert sender.wait() == 0, sender.transcript()
    assert [answer["text"] for answer in records(sender, "answer")] == [f"you said: {largest[:100]}"]
    assert [message["text"] for message in records(server, "message")] == [largest]
    assert records(server, "other") == []


def test_our_client_with_the_peer_where_a_third_is_lost(lab: Lab) -> None:
    ends = two_hosts(lab)
    for host in (ends.left, ends.right):
        lose(host, 30)
    server = peer(ends.right, "serve", "eth0", GROUPS["v4"], "1024")
    ready = first(server, "ready")
    sender = run(
        *(ends.left, "send", "--ipv4", "--loop", "--timeout", "1"),
        *(ready["address"], ready["key"], "are you there?"),
    )
    first(sender, "answer")
    assert sender.stop() == 143


def test_an_identity_taken_over_is_found_where_it_was(lab: Lab) -> None:
    """On a group that no node of version 1 may choose, and with the key that its clients know."""
    ends = two_hosts(lab)
    seed = b"o" * 32
    public = ClassicIdentity(seed).public.raw
    conf = home_of(ends.right) / "server.conf"
    packed = bytes([224, 0, 245, 100]) + bytes.fromhex("ff1e92a83287fe8b9103a9e6026f73c6")
    conf.write_bytes(packed + seed + public)
    conf.chmod(0o600)
    server = run(ends.right, "serve", "--key", str(conf))
    assert first(server, "listening") == {
        "event": "listening", "address": GROUPS["v6"], "port": 1024, "key": public.hex(),
    }  # fmt: skip
    client = peer(ends.left, "call", "eth0", "ff1e::1:2", "1025", GROUPS["v6"], "1024", public.hex())
    assert client.wait() == 0, client.transcript()


def test_P11_D1_neither_protocol_speaks_to_the_other(lab: Lab) -> None:
    """One key, one group, one port, and both kinds of server there: each hears only its own kind of client."""
    ends = two_hosts(lab)
    left, right = Device(ends.left), Device(ends.right)
    shared = home_of(ends.right) / "shared"
    save_identity(shared, right.identity)
    wire = Capture(ends.left_port)

    # A version 1 node alone, called by a classic client.
    listener = right.listen("--transport", "v4", allow=left.key)
    group, key = listener.group(), right.identity.public.raw.hex()
    classic = run(ends.left, "send", "--ipv4", "--timeout", "1.2", group, key, "x")
    assert classic.wait() == 3
    assert left.ping(listener.key, "--transport", "v4").code == 0
    sent = wire.datagrams(outgoing=True)
    assert {packet.payload[0] for packet in sent if packet.source_port == 1025} == {0, 1}
    assert {packet.payload[0] for packet in sent if packet.source_port == 1024} <= {0x11, 0x14}
    heard = wire.datagrams(outgoing=False)
    assert {packet.payload[0] for packet in heard} <= {0x12, 0x14}
    listener.stop()
    before = len(heard)

    # A classic node alone, in its place, called by a version 1 client.
    server = run(ends.right, "serve", "--ipv4", "--key", str(shared), "--share-key", "--allow", "any")
    listening = first(server, "listening")
    assert (listening["address"], listening["port"], listening["key"]) == (group, 1024, key)
    refused = left.ping(listener.key, "--transport", "v4", "--timeout", "1.2")
    assert (refused.code, refused.error["stage"]) == (3, "nothing heard")
    assert len(wire.datagrams(outgoing=False)) == before
    classic = run(ends.left, "send", "--ipv4", group, key, "hello")
    assert classic.wait() == 0
    after = [packet.payload for packet in wire.datagrams(outgoing=False)[before:]]
    assert [payload[0] for payload in after] == [1, 2]

    # Both at once.
    listener = right.listen("--transport", "v4", allow=left.key)
    again = run(ends.left, "send", "--ipv4", group, key, "hello again")
    assert left.send(listener.key, "over version 1", "--transport", "v4").code == again.wait() == 0
    assert [message["text"] for message in records(server, "message")] == ["hello", "hello again"]
    assert listener.stop() == [(left.key, "over version 1")]
    assert load_identity(shared).public == right.identity.public
