"""The responder's half of the handshake: nine steps, cheapest first (docs/protocol.md, section 4)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hmac import compare_digest
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire
from mp2p_core.proto.buckets import BucketTable, TokenBucket
from mp2p_core.proto.cookies import CookieJar, mac1_for
from mp2p_core.proto.edwards import fits_identity
from mp2p_core.proto.epoch import Epoch, SessionKeys
from mp2p_core.proto.identity import PublicKey
from mp2p_core.proto.initiator import Outgoing
from mp2p_core.proto.paths import Paths
from mp2p_core.proto.routes import PathRules
from mp2p_core.proto.session import Session
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from collections.abc import Callable

    from mp2p_core.proto.handshake import Handshake
    from mp2p_core.proto.identity import Identity
    from mp2p_core.proto.noise import HandshakeState
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["Access", "Answer", "ChannelInfo", "Responder"]

_MAX_U32: Final = 0xFFFF_FFFF


class Access(Protocol):
    """Who may connect. Exact Ed25519 keys; X25519 keys only to turn strangers away early."""

    def may_know(self, x25519: bytes, /) -> bool:
        """Tell whether some allowed key maps to this X25519 key; True when that cannot be told."""

    def allows(self, key: PublicKey, /) -> bool:
        """Decide about the exact key."""


@dataclass(frozen=True, slots=True)
class ChannelInfo:
    """What the protocol needs to know of an open channel."""

    address: Address
    max_payload: int
    may_answer: Callable[[Address, Address, Address], bool]


class Answer(NamedTuple):
    """What an INIT led to: something to send, and what it may become once the peer confirms it.

    `begin` makes a half-open session, which takes as long as a key exchange and can wait until the answer is out: the
    peer is at work on that meanwhile. An epoch was offered to `renewed`, which had connected before.
    """

    outgoing: Outgoing
    begin: Callable[[], Session] | None = None
    renewed: Session | None = None
    epoch: Epoch | None = None


class _Cached:
    """The RESP to one INIT."""

    __slots__ = ("at", "outgoing", "repeats", "sent")

    def __init__(self, outgoing: Outgoing, now: float) -> None:
        self.outgoing = outgoing
        self.at = self.sent = now
        self.repeats = 0


class Responder:
    """Answers INITs. Each refusal raises BadPacket, whose text is the counter to raise."""

    def __init__(
        self,
        identity: Identity,
        access: Access,
        find: Callable[[PublicKey, bytes], Session | None],
        knows: Callable[[bytes], bool],
        rules: PathRules,
        *,
        random: RandomBytes,
        handshake: Handshake,
        idle_timeout: float,
        version: int,
        now: float,
    ) -> None:
        self._identity = identity
        self._access = access
        self._find = find
        self._knows = knows
        self._rules = rules
        self._random = random
        self._handshake = handshake
        self._leads = [wire.init_lead(handshake.number, hint=hint) for hint in (False, True)]
        self._idle_timeout = idle_timeout
        self._version = version
        self._idle_timeout_ms = max(int(min(idle_timeout * 1000, _MAX_U32)), 1)
        self._mac1 = mac1_for(identity.public.raw)
        self._jar = CookieJar(identity.public.raw, random, now)
        # Attack: INITs that were recorded, or sent twice by the network. Bounded; the oldest answer goes.
        self._answers: OrderedDict[bytes, _Cached] = OrderedDict()
        # Attack: a stream of keys in open mode. Bounded; a forgotten peer is treated like one never met.
        self._confirmed: OrderedDict[bytes, int] = OrderedDict()
        self._handshakes = TokenBucket(c.HANDSHAKE_RATE, c.HANDSHAKE_BURST, now)
        self._sources = BucketTable(c.SOURCE_RATE, c.SOURCE_BURST)
        self._stale = BucketTable(c.STALE_RATE, c.STALE_BURST)
        self._answers_to = BucketTable.at_most(c.ANSWER_RATE_ADDRESS)
        self._answers_all = TokenBucket.at_most(c.ANSWER_RATE_ALL, now)
        self._cookies_to = BucketTable.at_most(c.COOKIE_RATE_ADDRESS)
        self._cookies_all = TokenBucket.at_most(c.COOKIE_RATE_ALL, now)
        self._cookies_to_hint = BucketTable.at_most(c.COOKIE_RATE_HINT)
        self._cookies_hints = TokenBucket.at_most(c.COOKIE_RATE_HINTS, now)

    def sizes(self) -> dict[str, int]:
        """Return how many entries each table holds."""
        return {
            "answer-buckets": len(self._answers_to),
            "answers": len(self._answers),
            "confirmed": len(self._confirmed),
            "cookie-buckets": len(self._cookies_to),
            "hint-buckets": len(self._cookies_to_hint),
            "source-buckets": len(self._sources),
            "stale-buckets": len(self._stale),
        }

    def confirmed(self, key: PublicKey, timestamp: int) -> None:
        """Remember when a peer began the session it has just confirmed."""
        seen = self._confirmed
        seen[key.raw] = max(timestamp, seen.pop(key.raw, 0))
        if len(seen) > c.PEER_TABLE_SIZE:
            seen.popitem(last=False)

    def screen_untrusted(self, datagram: bytes) -> str | None:
        """Take steps 1 and 2; returns the counter to raise for an INIT that ends there, None for others.

        Attack: INITs for others, at line rate. No exception and no look at any table, so that they cost
        little more than the one hash.
        """
        if not wire.is_init_untrusted(datagram, *self._leads):  # 1
            return "init-malformed"
        if not compare_digest(self._mac1(datagram[:224]), datagram[224:240]):  # 2
            return "init-mac1"
        return None

    def read_init_untrusted(
        self, datagram: bytes, number: int, channel: ChannelInfo, path: Path, *, busy: bool, now: float
    ) -> Answer:
        """Take steps 3 to 9 with an INIT that passed `screen_untrusted` and came in on channel `number`."""
        header = wire.init_fields(datagram)
        signed = datagram[wire.INIT_BEFORE_MAC2]
        if (cached := self._answers.get(signed)) is not None and now - cached.at < c.ANSWER_CACHE_LIFE:  # 3
            return self._repeat(cached, path, now)
        proved = False
        if self._under_load(now):  # 4
            proved = self._jar.accepts(datagram, header, path.remote, now)
            if not proved:
                return self._cookie(datagram, header, number, channel, path, now)
            if not self._sources.take(_prefix(path.remote), now):
                raise BadPacket("init-source-rate")
        if not self._handshakes.take(now):
            raise BadPacket("init-rate")
        noise = self._handshake.begin(
            initiator=False, responder=self._identity.public.raw, header=datagram[:32], s=self._identity
        )
        try:
            noise.read_start_untrusted(datagram[wire.INIT_NOISE], until="s")  # 5
        except BadPacket:
            raise BadPacket("init-forged") from None
        static = noise.remote_static
        assert static is not None
        # Whom this node has called may ask for new keys of that connection, also when it lets nobody call.
        if not (self._access.may_know(static) or self._knows(static)):  # 6
            raise BadPacket("init-not-allowed")
        try:
            opened = noise.read_finish_untrusted()  # 7
        except BadPacket:
            raise BadPacket("init-forged") from None
        payload = wire.parse_init_payload_untrusted(opened)
        if not fits_identity(static, payload.key):
            raise BadPacket("init-identity")
        try:
            peer = PublicKey.read_untrusted(payload.key)
        except BadPacket:
            raise BadPacket("init-bad-key") from None
        session = self._find(peer, payload.token) if payload.continues else None
        if not (self._access.allows(peer) or (session is not None and session.initiator)):
            raise BadPacket("init-not-allowed")
        answer_path = self._answer_path_untrusted(payload.return_address, channel, path)
        if payload.timestamp <= self._confirmed.get(peer.raw, -1):  # 8
            if not (proved or self._jar.accepts(datagram, header, path.remote, now)):
                return self._cookie(datagram, header, number, channel, path, now)
            if not self._stale.take(peer.raw, now):
                raise BadPacket("init-stale-rate")
        if payload.continues and session is None and not payload.or_new:
            raise BadPacket("init-token")  # row H15: another peer's, or that of a connection that has ended
        self._allow_answer(answer_path.remote, now)
        return self._answer(
            noise, header, payload, peer, number, channel, answer_path, signed, session, busy=busy, now=now
        )  # 9

    def _under_load(self, now: float) -> bool:
        """Tell whether what is left, of work or of answers, is kept for those who prove their address."""
        return min(self._handshakes.level(now), self._answers_all.level(now)) < c.UNDER_LOAD_BELOW

    def _repeat(self, cached: _Cached, path: Path, now: float) -> Answer:
        """Send the same bytes to the same address, on the interface where the INIT was heard this time.

        Attack: an INIT injected on another interface before the genuine one comes, to lead the answer astray.
        """
        if cached.repeats >= c.ANSWER_REPEATS or now - cached.sent < c.ANSWER_SPACING:
            raise BadPacket("init-repeated")
        self._allow_answer(cached.outgoing.path.remote, now)
        cached.repeats += 1
        cached.sent = now
        number, to, resp = cached.outgoing
        return Answer(Outgoing(number, to._replace(interface=path.interface), resp))

    def _cookie(
        self,
        datagram: bytes,
        header: wire.InitHeader,
        number: int,
        channel: ChannelInfo,
        path: Path,
        now: float,
    ) -> Answer:
        """Ask for a proof of address. Sent to the source, or to the hint, where the address policy lets it."""
        to = header.hint or path.remote
        if not channel.may_answer(to, path.remote, path.local or channel.address):
            raise BadPacket("init-hint" if header.hint else "init-source")
        if header.hint and not (self._cookies_to_hint.take(to, now) and self._cookies_hints.take(now)):
            raise BadPacket("cookie-rate")
        if not (self._cookies_to.take(path.remote, now) and self._cookies_all.take(now)):
            raise BadPacket("cookie-rate")
        sealed = self._jar.seal(datagram, header, path.remote, now)
        return Answer(Outgoing(number, Path(to, None, path.interface), sealed))

    @staticmethod
    def _answer_path_untrusted(address: Address, channel: ChannelInfo, path: Path) -> Path:
        """Apply section 5, rules 4 and 5, to the return address. Kind 0 is the source itself."""
        to = path.remote if address == wire.NO_ADDRESS else address
        if not channel.may_answer(to, path.remote, path.local or channel.address):
            raise BadPacket("init-return-address")
        return Path(to, None, path.interface)

    def _allow_answer(self, to: Address, now: float) -> None:
        if not (self._answers_to.take(to, now) and self._answers_all.take(now)):
            raise BadPacket("answer-rate")

    def _answer(
        self, noise: HandshakeState, header: wire.InitHeader, payload: wire.InitPayload, peer: PublicKey, number: int,
        channel: ChannelInfo, path: Path, signed: bytes, renewed: Session | None, *, busy: bool, now: float,
    ) -> Answer:  # fmt: skip
        local_id = self._random(8)
        token = self._random(16) if renewed is None else renewed.token
        busy = busy and renewed is None
        resp = wire.RespPayload(
            receive_id=local_id, token=token, address=channel.address, capabilities=c.CAPABILITY_PARTS,
            max_payload=channel.max_payload, version=self._version,
            status=c.STATUS_BUSY if busy else c.STATUS_OK,
            idle_timeout_ms=self._idle_timeout_ms,
        )  # fmt: skip
        head = wire.resp_header(header.receive_id, self._handshake.number)
        head += noise.write_message(resp.pack(), self._random(32))
        outgoing = Outgoing(number, path, head + mac1_for(peer.raw)(head))
        cache = self._answers
        cache.pop(signed, None)  # an expired answer's place is among the oldest
        cache[signed] = _Cached(outgoing, now)
        if len(cache) > c.ANSWER_CACHE_SIZE:
            cache.popitem(last=False)
        if busy:
            return Answer(outgoing)

        def epoch() -> Epoch:
            receive, send = noise.split()
            aead = self._handshake.suite.aead
            keys = SessionKeys(aead(send), aead(receive), noise.handshake_hash, token)
            return Epoch(
                keys=keys, local_id=local_id, remote_id=header.receive_id, channel=number, path=path, began=now,
                first_number=0 if renewed is None else renewed.packer.next_number, ours=False,
                preferred=peer.raw < self._identity.public.raw, timestamp=payload.timestamp,
            )  # fmt: skip

        if renewed is not None:
            return Answer(outgoing, None, renewed, epoch())
        rekey_after = c.REKEY_AFTER_RESPONDER * (1 + self._random(1)[0] / 2560)

        def begin() -> Session:
            return Session(
                peer=peer, epoch=epoch(), token=token, now=now, idle_timeout=self._idle_timeout,
                paths=Paths(
                    self._rules, self._rules.target(number, path.remote), initiator=False,
                    by_source=payload.return_address == wire.NO_ADDRESS,
                ),
                rekey_after=rekey_after,
                max_payload=min(payload.max_payload, channel.max_payload),
                large=bool(payload.capabilities & c.CAPABILITY_PARTS), may_cross=payload.may_cross,
            )  # fmt: skip

        return Answer(outgoing, begin)


def _prefix(address: Address) -> bytes:
    """Cut an address to its /24 (IPv4) or /64: what one attacker plausibly owns whole."""
    return address[4:19] if address[0] == 4 else address[4:12]
