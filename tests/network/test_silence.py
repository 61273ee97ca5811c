"""What a node does not answer: read off its wire, with a call that it does answer as the proof of life."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from netlab.capture import Capture, Packet
from netlab.devices import Device, Listener
from netlab.lab import Interface, Lab
from netlab.probes import send
from netlab.topologies import one_switch

from mp2p_core.proto.addresses import SOURCE_SEEN, pack_ipv4, pack_ipv6
from mp2p_core.proto.handshake import Handshake
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.proto.initiator import Dial
from mp2p_core.proto.target import Target
from mp2p_core.transport import Address

pytestmark = pytest.mark.network

V4 = ("--transport", "v4")


@dataclass
class Scene:
    """A listener that allows one friend, and a stranger on the same switch."""

    listener: Listener
    friend: Device
    stranger: Device
    stranger_port: Interface
    wire: Capture

    def knock(self, datagram: bytes, *, source: str = "", source_port: int = 0) -> None:
        """Send a datagram to the listener's group."""
        send(self.stranger_port, self.listener.group(), datagram, source=source, source_port=source_port)

    def answers(self) -> list[Packet]:
        """Return every datagram that left the listener's host."""
        return self.wire.datagrams(outgoing=True)

    def check_alive(self) -> None:
        """Check that the listener has read everything so far: it answers the friend, who comes after it."""
        assert self.friend.ping(self.listener.key, *V4).code == 0


@pytest.fixture
def scene(lab: Lab) -> Scene:
    shared = one_switch(lab, 3)
    listening, friend, stranger = (Device(host) for host in shared.hosts)
    listener = listening.listen(*V4, allow=friend.key)
    return Scene(listener, friend, stranger, shared.ports[2], Capture(shared.ports[0]))


def init(sender: Identity, listener: Listener, group: Address, return_address: Address) -> bytes:
    """Make the INIT of an honest initiator that asks for its answer at `return_address`."""
    target = Target(0, group, return_address, 1472)
    dial = Dial(
        *(1, sender, PublicKey.parse(listener.key), [target]),
        timestamp=time.time_ns() // 1000,
        random=os.urandom,
        handshake=Handshake(),
        timeout=20,
        now=0,
    )
    (outgoing,) = dial.handle_timeout(0)
    return outgoing.datagram


def classic_messages(listener: Listener) -> list[bytes]:
    """Make one valid message of each kind of the original implementation (protocol section 10)."""
    signer = Ed25519PrivateKey.generate()
    own = signer.public_key().public_bytes_raw()
    declaration = struct.pack(">BH12s4s32s", 0, 1025, bytes(10) + b"\xff\xff", b"\x0a\x00\x01\x03", own)
    initiation = b"\x01" + os.urandom(16) + own + PublicKey.parse(listener.key).raw + os.urandom(32)
    return [
        declaration + signer.sign(declaration),
        initiation + signer.sign(initiation),
        b"\x02" + os.urandom(16 + 12 + 20 + 16),
    ]


def test_H13_a_stranger_s_whole_dial_gets_no_datagram(scene: Scene) -> None:
    knocked = scene.stranger.ping(scene.listener.key, *V4, "--timeout", "6")  # past the second, fresh INIT
    assert knocked.code == 3
    assert knocked.error["stage"] == "nothing heard"
    inits = [packet for packet in scene.wire.datagrams(outgoing=False) if packet.payload[0] == 0x11]
    assert len(inits) >= 5
    assert scene.answers() == []
    scene.check_alive()
    assert scene.answers()


def test_P11_classic_messages_get_no_datagram(scene: Scene) -> None:
    messages = classic_messages(scene.listener)
    assert [len(message) for message in messages] == [115, 177, 65]
    for message in messages:
        scene.knock(message, source_port=1025)
    scene.check_alive()
    assert len({packet.destination for packet in scene.answers()}) == 1
    seen = {packet.payload for packet in scene.wire.datagrams(outgoing=False)}
    assert seen.issuperset(messages)


def test_P3_the_largest_datagram_gets_no_datagram(scene: Scene) -> None:
    for kind in (0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0xFF):
        scene.knock(bytes((kind,)) + os.urandom(65506), source_port=2000)
    scene.check_alive()
    assert len({packet.destination for packet in scene.answers()}) == 1


@pytest.mark.parametrize(
    ("transport", "pack", "nobody"), [("v4", pack_ipv4, "10.0.1.77"), ("v6", pack_ipv6, "2001:db8:1::77")]
)
def test_R1_nothing_goes_to_a_unicast_address_but_the_source(
    lab: Lab, transport: str, pack: Callable[[str, int], Address], nobody: str
) -> None:
    shared = one_switch(lab, 3)
    listening, friend, attacker = (Device(host) for host in shared.hosts)
    own, victim = (port.v4 if transport == "v4" else port.v6 for port in (shared.ports[2], shared.ports[1]))
    options = ("--transport", transport)
    listener = listening.listen(*options, "--allow", attacker.key, allow=friend.key)
    scene = Scene(listener, friend, attacker, shared.ports[2], Capture(shared.ports[0]))

    def knock(return_address: Address, source: str) -> None:
        group = pack(listener.group(), 1024)
        scene.knock(init(attacker.identity, listener, group, return_address), source=source, source_port=2000)

    for source in (own, nobody):
        knock(pack(victim, 2000), source)
    assert friend.ping(listener.key, *options).code == 0
    assert {packet.destination_port for packet in scene.answers()} == {1024}

    # The same INIT is answered when its return address is the source, so it was the address that failed.
    for number, address in enumerate((pack(own, 2000), SOURCE_SEEN), start=1):
        answered = Capture(shared.ports[2])
        knock(address, own)
        answered.wait_until(lambda packet: packet.destination_port == 2000 and not packet.outgoing)
        to_attacker = [packet for packet in scene.answers() if packet.destination == own]
        assert [len(packet.payload) for packet in to_attacker] == [156] * number


def _random_data() -> bytes:
    return b"\x14\x00" + os.urandom(8 + 8 + 32)


def _foreign_init() -> bytes:
    return b"\x11\x01" + bytes(2) + os.urandom(8) + bytes(20) + os.urandom(224)


@pytest.mark.parametrize("make", [_random_data, _foreign_init])
def test_R10_a_flood_at_a_shared_group_gets_no_datagram(lab: Lab, make: Callable[[], bytes]) -> None:
    shared = one_switch(lab, 3)
    busy, idle = Device(shared.hosts[0], "busy"), Device(shared.hosts[0], "idle")
    friend, stranger = (Device(host) for host in shared.hosts[1:])
    options = (*V4, "--address", "v4:224.0.230.7:1024")
    listeners = [device.listen(*options, allow=friend.key) for device in (busy, idle)]
    wire = Capture(shared.ports[0])
    scene = Scene(listeners[0], friend, stranger, shared.ports[2], wire)
    for _ in range(500):
        scene.knock(make())
    assert wire.datagrams(outgoing=True) == []
    for listener in listeners:
        assert friend.ping(listener.contact, *V4).code == 0
    assert len({packet.destination for packet in scene.answers()}) == 1
