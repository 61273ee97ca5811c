"""A peer of the classic profile, written from section 10 of docs/protocol.md alone, without a line of mp2p.

    python classic_peer.py serve INTERFACE GROUP PORT
    python classic_peer.py call INTERFACE GROUP PORT SERVER SERVER_PORT SERVER_KEY [swap] [twice]

As the section has it, and no better: it sends a declaration and an initiation as two datagrams and repeats both
until it is answered, reads at most 1500 bytes, and keeps no nonces. Its server makes a new key for an initiation
that comes again, and its client a new nonce for a text. `swap` sends the initiation first, `twice` sends each
datagram twice. Prints JSON lines.
"""

from __future__ import annotations

import ipaddress
import json
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BUFFER = 1500
ROUND = 0.3
"""Seconds after which a client asks again."""
IP_MULTICAST_ALL = 49


def say(event: str, **facts: Any) -> None:
    print(json.dumps({"event": event, **facts}), flush=True)


class Peer:
    def __init__(self, interface: str, group: str, port: int) -> None:
        self.signer = Ed25519PrivateKey.generate()
        self.src = self.signer.public_key().public_bytes_raw()
        self.group, self.port = group, port
        index = socket.if_nametoindex(interface)
        raw = ipaddress.ip_address(group).packed
        if len(raw) == 4:
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            membership = raw + struct.pack("@4si", bytes(4), index)
            self.socket.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, membership)
            self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        else:
            self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            self.socket.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, raw + struct.pack("@i", index)
            )
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((group, port))
        say("ready", address=group, port=port, key=self.src.hex())

    def read(self, timeout: float | None) -> bytes | None:
        if not select.select([self.socket], [], [], timeout)[0]:
            return None
        return self.socket.recv(BUFFER)

    def declaration(self) -> bytes:
        address = ipaddress.ip_address(self.group)
        raw = bytes(10) + b"\xff\xff" + address.packed if address.version == 4 else address.packed
        signed = b"\0" + struct.pack(">H", self.port) + raw + self.src
        return signed + self.signer.sign(signed)

    def initiation(self, session_id: bytes, dst: bytes, private: X25519PrivateKey) -> bytes:
        signed = b"\1" + session_id + self.src + dst + private.public_key().public_bytes_raw()
        return signed + self.signer.sign(signed)


def data(session_id: bytes, key: bytes, text: bytes) -> bytes:
    nonce = os.urandom(12)
    return b"\2" + session_id + nonce + AESGCM(key).encrypt(nonce, text, None)


def texts(session_id: bytes, key: bytes, text: bytes) -> list[bytes]:
    return [data(session_id, key, text)]


def opened(datagram: bytes, key: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(datagram[17:29], datagram[29:], None)
    except InvalidTag:
        return None


def verify(datagram: bytes, src: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(src).verify(datagram[-64:], datagram[:-64])


def serve(peer: Peer) -> None:
    homes: dict[bytes, tuple[str, int]] = {}
    sessions: dict[bytes, tuple[bytes, bytes]] = {}  # by session id: src, key
    while (datagram := peer.read(None)) is not None:
        if datagram[0] == 0 and len(datagram) == 115:
            src = datagram[19:51]
            verify(datagram, src)
            address = ipaddress.IPv6Address(datagram[3:19])
            homes[src] = str(address.ipv4_mapped or address), struct.unpack(">H", datagram[1:3])[0]
        elif datagram[0] == 1 and len(datagram) == 177:
            session_id, src, dst = datagram[1:17], datagram[17:49], datagram[49:81]
            verify(datagram, src)
            if src in homes and dst == peer.src:
                private = X25519PrivateKey.generate()
                key = private.exchange(X25519PublicKey.from_public_bytes(datagram[81:113]))
                sessions[session_id] = src, key
                peer.socket.sendto(peer.initiation(session_id, src, private), homes[src])
        elif datagram[0] == 2 and datagram[1:17] in sessions:
            src, key = sessions[datagram[1:17]]
            if (text := opened(datagram, key)) is not None:
                say("message", **{"from": src.hex(), "text": text.decode(), "size": len(datagram)})
                peer.socket.sendto(data(datagram[1:17], key, b"you said: " + text[:100]), homes[src])
        else:
            say("other", size=len(datagram), type=datagram[0])


def call(peer: Peer, server: tuple[str, int], dst: bytes, ways: set[str]) -> None:
    session_id, private = os.urandom(16), X25519PrivateKey.generate()
    pair = [peer.declaration(), peer.initiation(session_id, dst, private)]
    if "swap" in ways:
        pair.reverse()
    copies = 2 if "twice" in ways else 1

    def ask(make: Callable[[], list[bytes]], kind: int) -> bytes:
        rounds = 0
        while True:
            rounds += 1
            for datagram in make():
                for _ in range(copies):
                    peer.socket.sendto(datagram, server)
            until = time.monotonic() + ROUND
            while (rest := until - time.monotonic()) > 0:
                if (heard := peer.read(rest)) and heard[0] == kind and heard[1:17] == session_id:
                    say("asked", type=kind, rounds=rounds)
                    return heard

    answer = ask(lambda: pair, 1)
    verify(answer, dst)
    assert (answer[17:49], answer[49:81]) == (dst, peer.src)
    key = private.exchange(X25519PublicKey.from_public_bytes(answer[81:113]))
    say("session", session=session_id.hex())
    for text in (b"Hello server, how are you?", b"x" * 1300):
        reply = opened(ask(partial(texts, session_id, key, text), 2), key)
        assert reply is not None
        say("answer", text=reply.decode())


if __name__ == "__main__":
    role, interface, group, port, *rest = sys.argv[1:]
    me = Peer(interface, group, int(port))
    if role == "serve":
        serve(me)
    else:
        call(me, (rest[0], int(rest[1])), bytes.fromhex(rest[2]), set(rest[3:]))
