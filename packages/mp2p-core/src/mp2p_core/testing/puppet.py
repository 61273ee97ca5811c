"""One endpoint on a bench, and a peer that does as it is told: for what no honest implementation sends.

    bench = Bench(seed=1)
    puppet = Puppet(bench.key, seed=2)
    (resp,) = bench.feed(puppet.init(timestamp=5))
    puppet.read_resp(resp.data)
    bench.feed(puppet.seal(b"\\xff"))          # an unknown frame, properly encrypted

`Puppet` seals whatever it is given; `restamp` makes mac1 right again after an edit, as any attacker can.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from mp2p_core.errors import BadPacket
from mp2p_core.proto import addresses, wire
from mp2p_core.proto import constants as c
from mp2p_core.proto.cookies import keyed_hash, mac1_for, open_cookie_untrusted
from mp2p_core.proto.endpoint import Endpoint
from mp2p_core.proto.events import Event
from mp2p_core.proto.handshake import Handshake
from mp2p_core.proto.identity import Identity, PublicKey
from mp2p_core.proto.noise import HandshakeState
from mp2p_core.proto.noise_suite import CHACHAPOLY_SHA256, Aead, KeyPair, Suite, nonce_little_endian
from mp2p_core.proto.paths import Paths
from mp2p_core.proto.responder import Access, ChannelInfo
from mp2p_core.proto.routes import PathRules
from mp2p_core.testing.simulation import AllowAll, Datagram
from mp2p_core.transport import Address, Path, Reach, Train

__all__ = ["Bench", "CountingSuite", "Puppet", "one_way", "restamp"]

_TIMESTAMP = 1_800_000_000_000_000
_MAX_STILL = 10_000


class CountingSuite:
    """The product's suite, counting key exchanges. Pass its `suite` on."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.suite = replace(CHACHAPOLY_SHA256, dh=self._dh)

    def _dh(self, pair: KeyPair, public: bytes) -> bytes:
        self.exchanges += 1
        return pair.exchange(public)


def restamp(init: bytes, receiver: PublicKey) -> bytes:
    """Put a right mac1 on an INIT or RESP that was edited: it needs nothing but the receiver's public key."""
    if init[0] == c.TYPE_RESP:
        return init[:140] + mac1_for(receiver.raw)(init[:140])
    return init[:224] + mac1_for(receiver.raw)(init[:224]) + init[240:]


def one_way(*, initiator: bool) -> Paths:
    """Return what a session by itself, without an endpoint, knows of paths: one channel, and one way to its peer."""
    group = addresses.pack_ipv4("224.0.230.7", c.DEFAULT_PORT)
    draw = random.Random(0).randbytes  # noqa: S311 - a test must repeat itself
    channels = {0: ChannelInfo(group, c.BASE_DATAGRAM_SIZE, addresses.may_answer)}
    rules = PathRules(channels, random=draw, counters=defaultdict(int), now=0.0)
    return Paths(rules, rules.target(0, Puppet.SOURCE), initiator=initiator)


class Bench:
    """An endpoint with a channel, or more, and a clock that stands still unless told to go on."""

    def __init__(
        self, *, seed: int = 0, identity: Identity | None = None, access: Access | None = None,
        suite: Suite = CHACHAPOLY_SHA256, group: Address | None = None, now: float = 1000.0,
        may_answer: Callable[[Address, Address, Address], bool] = addresses.may_answer,
        idle_timeout: float = c.DEFAULT_IDLE_TIMEOUT, psk: bytes | None = None,
    ) -> None:  # fmt: skip
        draw = random.Random(seed).randbytes  # noqa: S311 - a test must repeat itself
        self.identity = identity or Identity.generate(draw)
        self.key = self.identity.public
        self.group = group or addresses.derive_group_v4(self.key.raw, Reach.GLOBAL, c.DEFAULT_PORT)
        self.now = now
        self.events: list[Event] = []
        self.endpoint = Endpoint(
            self.identity,
            access or AllowAll(),
            now=now,
            random=draw,
            suite=suite,
            idle_timeout=idle_timeout,
            psk=psk,
        )
        self.groups: dict[int, Address] = {}
        self._may_answer = may_answer
        self.add_channel(0, self.group)

    def add_channel(self, number: int, group: Address) -> None:
        """Open one more channel, or the first."""
        self.groups[number] = group
        self.endpoint.add_channel(number, ChannelInfo(group, 1200, self._may_answer))

    def feed(
        self, datagram: bytes, *, source: Address | None = None, to: Address | None = None, interface: int = 1,
        channel: int = 0,
    ) -> list[Datagram]:  # fmt: skip
        """Give the endpoint a datagram and return what it sends in answer, at this very moment."""
        path = Path(source or Puppet.SOURCE, to or self.groups[channel], interface)
        self.endpoint.receive(channel, Train(path, (datagram,), max(len(datagram), 1)), self.now)
        return self.collect()

    def collect(self) -> list[Datagram]:
        """Return what the endpoint wants to send, and note its events."""
        out = [
            Datagram(self.groups[channel], train.path.remote, data)
            for channel, train in self.endpoint.transmits(self.now)
            for data in train.datagrams()
        ]
        self.events.extend(self.endpoint.events())
        return out

    def advance(self, seconds: float) -> list[Datagram]:
        """Let time pass, with every timeout at its time, and return what was sent."""
        end, out, still = self.now + seconds, [], 0
        while (when := self.endpoint.timeout()) is not None and when <= end:
            still = still + 1 if when <= self.now else 0
            assert still < _MAX_STILL, (
                "the endpoint wants to be called again and again, and time stands still"
            )
            self.now = max(self.now, when)
            self.endpoint.handle_timeout(self.now)
            out += self.collect()
        self.now = end
        return out

    def dial(self, peer: PublicKey, to: Address | None = None, timeout: float = c.HANDSHAKE_BUDGET) -> bytes:
        """Call a peer and return the INIT sent."""
        group = to or addresses.derive_group_v4(peer.raw, Reach.GLOBAL, c.DEFAULT_PORT)
        self.endpoint.connect(peer, [(0, group)], timestamp=_TIMESTAMP, timeout=timeout, now=self.now)
        (init,) = self.collect()
        return init.data


@dataclass
class Puppet:
    """A peer's half of one handshake and one session, done by hand.

    `peer` is who it talks to. `identity` is its own; `static` replaces the key pair that Noise uses, for
    an attacker that holds other keys than the ones it claims.
    """

    SOURCE = addresses.pack_ipv4("192.0.2.7", 40000)

    peer: PublicKey
    seed: int = 1
    identity: Identity | None = None
    static: KeyPair | None = None
    suite: Suite = CHACHAPOLY_SHA256
    capabilities: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(f"puppet {self.seed}").randbytes  # noqa: S311 - a test must repeat itself
        self.own = self.identity or Identity.generate(self.random)
        self.key = self.own.public
        self.receive_id = b""
        self.remote_id = b""
        self.told: wire.InitPayload | None = None
        """What the last INIT that it answered said."""
        self.number = 0
        self._handshake = Handshake(self.suite)
        self.noise: HandshakeState | None = None
        self.handshake_hash = b""
        self._send: Aead | None = None
        self._receive: Aead | None = None

    # --- as an initiator

    def init(
        self, *, timestamp: int = _TIMESTAMP, return_address: Address = wire.NO_ADDRESS, hint: Address | None = None,
        claims: bytes | None = None, payload: bytes | None = None, dials: bytes | None = None,
        header: bytes | None = None, max_payload: int = 1200, version: int = c.VERSION, may_cross: bool = False,
        token: bytes | None = None, or_new: bool = False,
    ) -> bytes:  # fmt: skip
        """Make an INIT, with mac2 zero. `claims` is the Ed25519 key it names, `dials` the one it binds to.

        With the token of a connection it asks for new keys.
        """
        self.receive_id = self.random(8)
        head = wire.init_header(self.receive_id, hint) if header is None else header
        self.noise = self._handshake.begin(
            initiator=True, responder=dials or self.peer.raw, header=head, s=self.static or self.own,
            rs=self.peer.x25519,
        )  # fmt: skip
        body = wire.InitPayload(
            key=claims or self.key.raw, timestamp=timestamp, return_address=return_address,
            capabilities=self.capabilities, max_payload=max_payload, version=version,
            continues=token is not None, token=token or bytes(16), may_cross=may_cross, or_new=or_new,
        ).pack() if payload is None else payload  # fmt: skip
        packet = head + self.noise.write_message(body, self.random(32))
        return packet + mac1_for(self.peer.raw)(packet) + bytes(16)

    def with_cookie(self, init: bytes, cookie: bytes) -> bytes:
        """Put the mac2 on an INIT that this COOKIE datagram allows."""
        header = wire.parse_cookie_untrusted(cookie)
        opened = open_cookie_untrusted(header, self.peer.raw, init[wire.INIT_MAC1])
        return init[:240] + keyed_hash(opened, init[:240], 16)

    def read_resp(self, resp: bytes) -> wire.RespPayload:
        """Take the RESP to the last INIT. Raises `BadPacket` when it does not verify."""
        assert self.noise is not None
        if wire.parse_resp_untrusted(resp) != self.receive_id:
            raise BadPacket("another handshake's")
        if mac1_for(self.key.raw)(resp[:140]) != resp[140:]:
            raise BadPacket("mac1")
        noise = self.noise.copy()
        payload = wire.parse_resp_payload_untrusted(noise.read_message_untrusted(resp[wire.RESP_NOISE]))
        send, receive = noise.split()
        self._take_keys(noise, send, receive)
        self.remote_id = payload.receive_id
        return payload

    # --- as a responder

    def resp(
        self, init: bytes, *, status: int = c.STATUS_OK, idle_timeout_ms: int = 30_000, max_payload: int = 1200,
        address: Address = wire.NO_ADDRESS, token: bytes = bytes(16),
    ) -> bytes:  # fmt: skip
        """Answer an INIT that was meant for this puppet's key."""
        noise = self._handshake.begin(initiator=False, responder=self.key.raw, header=init[:32], s=self.own)
        told = self.told = wire.parse_init_payload_untrusted(
            noise.read_message_untrusted(init[wire.INIT_NOISE])
        )
        self.receive_id = self.random(8)
        self.remote_id = init[4:12]
        body = wire.RespPayload(
            receive_id=self.receive_id, token=token, address=address, capabilities=self.capabilities,
            max_payload=max_payload, version=c.VERSION, status=status, idle_timeout_ms=idle_timeout_ms,
        )  # fmt: skip
        head = wire.resp_header(self.remote_id) + noise.write_message(body.pack(), self.random(32))
        receive, send = noise.split()
        self._take_keys(noise, send, receive)
        return head + mac1_for(told.key)(head)

    # --- in a session

    def _take_keys(self, noise: HandshakeState, send: bytes, receive: bytes) -> None:
        self._send, self._receive = self.suite.aead(send), self.suite.aead(receive)
        self.handshake_hash = noise.handshake_hash
        self.number = 0

    def seal(self, plaintext: bytes, number: int | None = None) -> bytes:
        """Make a DATA packet with any content, by default under the next packet number."""
        assert self._send is not None
        if number is None:
            number = self.number
            self.number += 1
        header = wire.data_header(self.remote_id, number)
        return header + self._send.encrypt(nonce_little_endian(number), plaintext, header)

    def open(self, datagram: bytes) -> bytes:
        """Open a DATA packet. Raises `cryptography.exceptions.InvalidTag`."""
        assert self._receive is not None
        (number,) = wire.data_packet_number(datagram, 10)
        return self._receive.decrypt(nonce_little_endian(number), datagram[18:], datagram[:18])

    def connect(self, bench: Bench, *, may_cross: bool = False) -> None:
        """Open a session with the endpoint on the bench, up to the first packet that confirms it."""
        (resp,) = bench.feed(self.init(timestamp=_TIMESTAMP + int(bench.now * 1e6), may_cross=may_cross))
        self.read_resp(resp.data)
        bench.feed(self.seal(b"\x01"))

    def accept(self, bench: Bench) -> None:
        """Have the endpoint on the bench call, and answer, up to its session being open."""
        bench.feed(self.resp(bench.dial(self.key)))
        bench.feed(self.seal(b"\x01"))
