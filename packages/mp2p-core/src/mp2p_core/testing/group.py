"""One publisher and any number of subscribers on a simulated network (docs/protocol.md, section 8).

    sim = GroupSim(seed=7, loss=0.1)
    sim.join(50)
    sim.publish(b"hello")
    sim.run(2)
    assert all(s.numbers == [0] for s in sim.subscribers)

One seed gives one run. Failures should print `sim.seed`. Ciphers and signatures are computed once for each
datagram, whoever opens it, so that a thousand subscribers cost little.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from mp2p_core.proto.group.control import REPAIRED, Grant, Nack, parse_control_untrusted
from mp2p_core.proto.group.events import Gap, Messages, Refused, SubscriberEvent, Suspicion
from mp2p_core.proto.group.keys import ED25519_CHACHAPOLY, GroupSuite, Verifier
from mp2p_core.proto.group.publisher import Publisher
from mp2p_core.proto.group.subscriber import Subscriber
from mp2p_core.proto.transmit import trains
from mp2p_core.testing.clock import VirtualClock
from mp2p_core.transport import Path

__all__ = ["GroupSim", "Member", "SharedSuite", "SimSubscriber"]

OWNER = b"P" * 32
GROUP = b"G" * 20


class Member(NamedTuple):
    """A subscriber's session, as the publisher knows it."""

    name: int
    session: int


class _SharedAead:
    def __init__(self, shared: SharedSuite, key: bytes) -> None:
        self._shared = shared
        self._key = key
        self._aead = ChaCha20Poly1305(key)
        self._opened: dict[tuple[bytes, bytes, bytes | None], bytes | None] = {}

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        shared = self._shared
        if shared.sealed.setdefault((self._key, nonce), data) != data:
            shared.repeats += 1
        return self._aead.encrypt(nonce, data, associated_data)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        query = nonce, data, associated_data
        if query not in self._opened:
            try:
                self._opened[query] = self._aead.decrypt(nonce, data, associated_data)
            except InvalidTag:
                self._opened[query] = None
        plaintext = self._opened[query]
        if plaintext is None:
            raise InvalidTag
        return plaintext


class SharedSuite:
    """Does each computation once, and notes when a key seals two things under one nonce."""

    def __init__(self) -> None:
        self.sealed: dict[tuple[bytes, bytes], bytes] = {}
        self.repeats = 0
        self._aeads: dict[bytes, _SharedAead] = {}
        self._verifiers: dict[bytes, Verifier] = {}
        self.suite = GroupSuite(self._aead, self._verifier)

    def _aead(self, key: bytes) -> _SharedAead:
        if key not in self._aeads:
            self._aeads[key] = _SharedAead(self, key)
        return self._aeads[key]

    def _verifier(self, key: bytes) -> Verifier:
        if key not in self._verifiers:
            genuine = ED25519_CHACHAPOLY.verifier(key)
            known: dict[tuple[bytes, bytes], bool] = {}

            def check(signature: bytes, data: bytes) -> bool:
                if (signature, data) not in known:
                    known[signature, data] = genuine(signature, data)
                return known[signature, data]

            self._verifiers[key] = check
        return self._verifiers[key]


class SimSubscriber:
    """A subscriber, its place in the network, and everything it was told."""

    def __init__(self, name: int, subscriber: Subscriber) -> None:
        self.name = name
        self.key = name.to_bytes(32, "big")
        self.session = 0
        self.subscriber = subscriber
        self.loss: float | None = None
        """Share of datagrams that the group's do not bring here; None: as for everybody."""
        self._online = True
        self._late: list[Callable[[], None]] = []
        self.numbers: list[int] = []
        """Numbers of the messages, in the order they came."""
        self.messages: list[bytes] = []
        self.gaps: list[Gap] = []
        self.refused: list[Refused] = []
        self.suspicions: list[Suspicion] = []
        self.others: list[SubscriberEvent] = []
        self.grants: list[Grant] = []
        self.heard: list[bytes] = []
        """Datagrams that reached it, if `GroupSim.record` is set."""
        self.wake = math.inf

    @property
    def online(self) -> bool:
        """Whether anything reaches it or leaves it. What its session carries comes later then, in order."""
        return self._online

    @online.setter
    def online(self, now: bool) -> None:
        self._online = now
        late, self._late = self._late, []
        for each in late:
            self.carry(each)

    def carry(self, arrive: Callable[[], None]) -> None:
        """Deliver what its session carries, once it is online."""
        if self._online:
            arrive()
        else:
            self._late.append(arrive)

    @property
    def member(self) -> Member:
        """What the publisher calls its session."""
        return Member(self.name, self.session)

    def note(self) -> None:
        """Take down what it says."""
        for event in self.subscriber.events():
            if isinstance(event, Messages):
                self.numbers += range(event.number, event.number + len(event.messages))
                self.messages += event.messages
            elif isinstance(event, Gap):
                self.gaps.append(event)
            elif isinstance(event, Refused):
                self.refused.append(event)
            elif isinstance(event, Suspicion):
                self.suspicions.append(event)
            else:
                self.others.append(event)


class GroupSim:
    """The network: `loss` for each subscriber apart, `shared_loss` for all at once, `nack_loss` of GROUP_NACKs.

    Control messages arrive, as over a session, unless `drop_control` says otherwise.
    """

    def __init__(
        self,
        seed: int,
        *,
        loss: float = 0.0,
        shared_loss: float = 0.0,
        nack_loss: float = 0.0,
        delay: float = 0.001,
        jitter: float = 0.0,
        mode: int = REPAIRED,
        history: int = 0,
        **options: Any,
    ) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311  # a simulation has to repeat itself
        self.clock = VirtualClock()
        self.shared = SharedSuite()
        self.loss, self.shared_loss, self.nack_loss = loss, shared_loss, nack_loss
        self.delay, self.jitter = delay, jitter
        self.options: dict[str, Any] = {"mode": mode, "history": history, **options}
        self.allow: Callable[[bytes], bool] = lambda _key: True
        self.drop: Callable[[bytes], bool] = lambda _datagram: False
        """Tells which datagrams nobody gets."""
        self.drop_control: Callable[[SimSubscriber, bytes], bool] = lambda _subscriber, _data: False
        self.record = False
        self.sent: list[bytes] = []
        self.nacks = 0
        self.traffic: Counter[str] = Counter()
        self.publisher = self._publisher()
        self.events: list[Any] = []
        self.subscribers: list[SimSubscriber] = []
        self._wake = math.inf

    def _publisher(self) -> Publisher:
        return Publisher(
            OWNER, "topic", [GROUP], allow=self._allows, now=self.clock.now, random=self.rng.randbytes,
            suite=self.shared.suite, **self.options,
        )  # fmt: skip

    def _allows(self, key: bytes) -> bool:
        return self.allow(key)

    @property
    def now(self) -> float:
        """The virtual time."""
        return self.clock.now

    def join(self, count: int = 1, *, history: int = 0, settle: float = 0.5) -> list[SimSubscriber]:
        """Add subscribers and let them get their keys."""
        added = [self.add(history=history) for _ in range(count)]
        self.run(settle)
        return added

    def add(self, *, history: int = 0) -> SimSubscriber:
        """Add a subscriber, whose session stands at once."""
        new = SimSubscriber(
            len(self.subscribers),
            Subscriber(OWNER, "topic", history=history, random=self.rng.randbytes, suite=self.shared.suite),
        )
        self.subscribers.append(new)
        self.connect(new)
        return new

    def connect(self, each: SimSubscriber) -> None:
        """Give a subscriber a new session."""
        each.session += 1
        each.subscriber.set_rtt(2 * self.delay)
        each.subscriber.connected(self.now)
        self.serve(each)

    def disconnect(self, each: SimSubscriber) -> None:
        """Take its session away, on both sides."""
        each.subscriber.disconnected()
        self.publisher.ended(each.member)
        self.serve_publisher()

    def restart_publisher(self) -> None:
        """Let the publisher lose everything; sessions begin anew."""
        for each in self.subscribers:
            each.subscriber.disconnected()
        self.publisher = self._publisher()
        self._wake = math.inf
        for each in self.subscribers:
            self.connect(each)

    def publish(self, *messages: bytes) -> None:
        """Send messages."""
        for message in messages:
            self.publisher.send(message)
        self.serve_publisher()

    def stream(
        self, count: int, every: float, make: Callable[[int], bytes] = lambda n: b"message %d" % n
    ) -> None:
        """Send messages one after the other."""
        for n in range(count):
            self.clock.call_at(self.now + n * every, partial(self._make, make, n))
        self.run(count * every)

    def _make(self, make: Callable[[int], bytes], n: int) -> None:
        self.publish(make(n))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.clock.step(end):
            pass

    # --- plumbing -----------------------------------------------------------------------------------

    def serve_publisher(self) -> None:
        """Do what the publisher's caller does after each call."""
        datagrams = self.publisher.transmits(self.now)
        for member, data in self.publisher.controls():
            assert isinstance(member, Member)
            self._control(self.subscribers[member.name], data, to_publisher=False, session=member.session)
        self.events += self.publisher.events()
        if datagrams:
            self.send(datagrams)
        due = self.publisher.timeout()
        if due is not None and due < self._wake:
            self._wake = max(due, self.now)
            self.clock.call_at(self._wake, partial(self._publisher_due, self._wake))

    def _publisher_due(self, wake: float) -> None:
        if wake != self._wake:
            return  # an earlier one has been served since
        self._wake = math.inf
        self.publisher.handle_timeout(self.now)
        self.serve_publisher()

    def send(self, datagrams: Sequence[bytes]) -> None:
        """Carry datagrams to the group."""
        self.traffic["datagrams"] += len(datagrams)
        self.traffic["bytes"] += sum(map(len, datagrams))
        if self.record:
            self.sent += datagrams
        arriving = [
            each for each in datagrams if self.rng.random() >= self.shared_loss and not self.drop(each)
        ]
        if not self.jitter:
            self.clock.call_at(self.now + self.delay, partial(self._arrive, arriving))
            return
        for datagram in arriving:
            at = self.now + self.delay + self.rng.random() * self.jitter
            self.clock.call_at(at, partial(self._arrive, [datagram]))

    def _arrive(self, datagrams: list[bytes]) -> None:
        draw = self.rng.random
        for each in self.subscribers:
            if each.online:
                loss = self.loss if each.loss is None else each.loss
                heard = [datagram for datagram in datagrams if not loss or draw() >= loss]
                for train in trains(Path(GROUP), [(one, len(one)) for one in heard if one]):
                    whole = (b"".join(train.buffers), train.segment_size)
                    if not each.subscriber.receive_large_untrusted([whole], self.now):
                        each.subscriber.receive_train_untrusted(train.datagrams(), self.now)
                if self.record:
                    each.heard += heard
                self.serve(each)

    def serve(self, each: SimSubscriber) -> None:
        """Do what a subscriber's caller does after each call."""
        subscriber = each.subscriber
        each.note()
        for data in subscriber.controls():
            self._control(each, data, to_publisher=True, session=each.session)
        for nack in subscriber.nacks():
            self.nacks += 1
            if each.online and self.rng.random() >= self.nack_loss:
                self.clock.call_at(self.now + self.delay, partial(self._nack, each.member, nack))
        due = subscriber.timeout()
        if due is not None and due < each.wake:
            each.wake = max(due, self.now)
            self.clock.call_at(each.wake, partial(self._due, each, each.wake))

    def _nack(self, member: Member, nack: Nack) -> None:
        self.publisher.nack_untrusted(member, nack, self.now)
        self.serve_publisher()

    def _due(self, each: SimSubscriber, wake: float) -> None:
        if wake != each.wake:
            return  # an earlier one has been served since
        each.wake = math.inf
        each.subscriber.handle_timeout(self.now)
        self.serve(each)

    def _control(self, each: SimSubscriber, data: bytes, *, to_publisher: bool, session: int) -> None:
        if self.drop_control(each, data):
            return
        self.traffic["control"] += 1

        def arrive() -> None:
            if session != each.session:
                return
            if to_publisher:
                self.publisher.receive_control_untrusted(each.member, each.key, data, self.now)
                self.serve_publisher()
                return
            control = parse_control_untrusted(data)
            if isinstance(control, Grant):
                each.grants.append(control)
            each.subscriber.receive_control_untrusted(OWNER, data, self.now)
            self.serve(each)

        self.clock.call_at(self.now + self.delay, partial(each.carry, arrive))
