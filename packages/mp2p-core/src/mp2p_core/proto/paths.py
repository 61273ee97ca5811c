"""Other ways to a peer: named, asked whether they are the peer's, and taken (docs/protocol.md, section 6).

Multicast has no source address to trust, and a peer may be hostile: whoever names an address may mean a victim.
So nothing but a few small packets goes to an address until the peer has sent back, under the session's keys,
eight random bytes that went there. Where packets seem to come from never matters, unless the peer asked to be
answered at its source.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from mp2p_core.proto import constants as c
from mp2p_core.proto.addresses import SOURCE_SEEN
from mp2p_core.proto.frames import (
    Addr,
    PathChallenge,
    encode_addr,
    encode_path_challenge,
    encode_path_response,
)
from mp2p_core.proto.routes import Route
from mp2p_core.transport import Path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mp2p_core.proto.frames import PathFrame
    from mp2p_core.proto.routes import PathRules
    from mp2p_core.proto.target import Target
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["PathPacket", "Paths"]

_NEVER: Final = math.inf


class PathPacket(NamedTuple):
    """A packet for a path of its own: the frames are not sealed yet."""

    channel: int
    path: Path
    frames: bytes


class Paths:
    """The ways to one session's peer."""

    __slots__ = (
        "_answers", "_initiator", "_moved_at", "_routes", "_rules", "_sequence", "_sequence_heard", "_withdrawn",
        "by_source", "current", "heard", "next_at", "wanted",
    )  # fmt: skip

    def __init__(
        self,
        rules: PathRules,
        current: Target,
        others: Iterable[Target] = (),
        *,
        initiator: bool,
        by_source: bool = False,
    ) -> None:
        self._rules = rules
        self._initiator = initiator
        self.current = Route(current, named=False)
        """The one that carries everything. The handshake has proved it."""
        self.current.proved = True
        self._routes = [self.current]
        # The application's, so that they need no limit but the contact's.
        self._routes += [Route(each, named=False) for each in dict.fromkeys(others) if each != current]
        self.by_source = by_source
        """Whether the peer asked to be answered at its source, and so is followed when it gets another one."""
        self.wanted: Route | None = None
        """The one to be taken as soon as it answers."""
        self.heard = 0
        """Bytes authenticated in this session; up to, and without, the packet at hand."""
        self.next_at = _NEVER
        """When `packets` is due."""
        self._answers: dict[Route, tuple[bytes, int]] = {}
        self._sequence = 0
        self._sequence_heard = 0
        self._withdrawn: list[Route] = []
        self._moved_at = -_NEVER

    def __iter__(self) -> Iterator[Route]:
        """Yield every way that is known."""
        return iter(self._routes)

    @property
    def random(self) -> RandomBytes:
        """Where unpredictable bytes come from."""
        return self._rules.random

    def targets(self) -> Sequence[Target]:
        """Return where a handshake may look for the peer: what it has not merely named."""
        return [route.target for route in self._routes if route.proved or not route.named]

    # --- telling the peer ---------------------------------------------------------------------------

    def announce(self) -> bytes:
        """Return ADDR frames with where this node can be reached; nothing when there never was but one place."""
        own = [info.address for info in self._rules.channels.values()]
        if len(own) < 2 and not self._sequence:
            return b""
        self._sequence += 1
        return b"".join(encode_addr(self._sequence, address) for address in own[: c.MAX_NAMED_ADDRESSES])

    # --- what the peer says -------------------------------------------------------------------------

    def opened(self, now: float) -> None:
        """Begin: ask the other ways of the application's once, for the day on which they are needed."""
        for route in self._routes:
            if not route.proved:
                route.ask(now + (0.0 if route is self.wanted else c.PATH_SETTLE))
        self._plan()

    def prefer_untrusted(self, address: Address, channel: int, path: Path) -> None:
        """Note where the peer would rather have DATA: it is asked there first (row R6).

        `path.local` is where our request went.
        """
        targets = self._rules.targets_untrusted(address, channel, path)
        if not targets:
            self._rules.counters["addr-refused"] += 1
        elif targets[0] != self.current.target:
            self.wanted = self._add(targets[0])

    def receive_untrusted(self, frame: PathFrame, channel: int, path: Path, now: float) -> Route | None:
        """Take a frame about paths; returns the way that it proves, if any."""
        if isinstance(frame, Addr):
            self._named_untrusted(frame, channel, path, now)
        elif isinstance(frame, PathChallenge):
            route = self._on(channel) or self.current
            # Attack: a packet full of challenges. One answer each packet, no larger than it.
            self._answers[route] = frame.data, path.interface if route.target.channel == channel else 0
            if not route.proved:
                route.ask(now)
            self._plan()
        else:
            for route in self._routes:
                interface = path.interface if route.target.channel == channel else 0
                if route.answered_untrusted(frame.data, interface, now):
                    self._rules.counters["path-answered"] += 1
                    self._plan()
                    return route
        return None

    def _named_untrusted(self, frame: Addr, channel: int, path: Path, now: float) -> None:
        if frame.sequence < self._sequence_heard:
            return
        if frame.sequence > self._sequence_heard:
            self._sequence_heard = frame.sequence
            self._forget(self._withdrawn)
            self._withdrawn = [route for route in self._routes if route.listed and route is not self.current]
            self._routes = [route for route in self._routes if route not in self._withdrawn]
        if frame.address == SOURCE_SEEN:
            return
        targets = self._rules.targets_untrusted(frame.address, channel, path)
        if not targets:
            self._rules.counters["addr-refused"] += 1
        for target in targets:
            self._list(target, now)

    def _list(self, target: Target, now: float) -> None:
        for route in self._withdrawn:
            if route.target == target:
                self._withdrawn.remove(route)
                self._routes.append(route)
                return
        if self._find(target) is not None:
            return
        # Attack: a peer that names ever more. Bounded; what comes later is refused.
        if sum(route.listed for route in self._routes) >= c.MAX_NAMED_ADDRESSES:
            self._rules.counters["addr-refused"] += 1
            return
        route = self._add(target)
        route.listed = True
        route.ask(now + c.PATH_SETTLE)
        self._plan()

    def _find(self, target: Target) -> Route | None:
        return next((route for route in self._routes if route.target == target), None)

    def _add(self, target: Target) -> Route:
        route = Route(target, named=True, floor=self.heard)
        self._routes.append(route)
        return route

    def _forget(self, gone: Iterable[Route]) -> None:
        """Forget ways, and what was to be answered there: under keys that are too old nothing is."""
        for route in gone:
            self._answers.pop(route, None)
            if route in self._routes:
                self._routes.remove(route)

    def _on(self, channel: int) -> Route | None:
        """Choose the way over a channel: the present one, else one that is proved."""
        found = [route for route in self._routes if route.target.channel == channel]
        return max(found, key=lambda route: (route is self.current, route.proved), default=None)

    def follow_untrusted(self, channel: int, path: Path, now: float) -> Route | None:
        """Follow a peer whose newest packet came over another channel than the present one.

        One that is answered at its source is followed to another source, too, as behind a NAT. Returns the way to
        take when it has answered lately; else it is asked first.
        """
        if channel != self.current.target.channel:
            pause = c.FOLLOW_PAUSE if self._initiator else 0.0
            route = self._on(channel) if now >= self._moved_at + pause else None
        else:
            route = self._at_source_untrusted(channel, path)
        if route is None or route is self.current or now <= route.answered_at + c.PATH_FRESH:
            return route if route is not self.current else None
        self.wanted = route
        route.ask(now)
        self._plan()
        return None

    def _at_source_untrusted(self, channel: int, path: Path) -> Route | None:
        targets = self._rules.targets_untrusted(path.remote, channel, path) if self.by_source else []
        if not targets or targets[0].channel != channel:
            return None
        target = targets[0]
        if (route := self._find(target)) is None:
            # Attack: packets relayed with ever new sources. One is kept, besides the present one.
            self._forget([each for each in self._routes if each.by_source and each is not self.current])
            route = self._add(target)
            route.by_source = True
        return route

    # --- choosing -----------------------------------------------------------------------------------

    def search(self, now: float) -> None:
        """Ask every other way: the present one is failing."""
        for route in self._routes:
            if route is not self.current:
                route.ask(now)
        self._plan()

    def alive(self, now: float) -> Route | None:
        """Return another way that has answered lately, the last one to do so."""
        others = [route for route in self._routes if route is not self.current]
        best = max(others, key=lambda route: route.answered_at, default=None)
        return best if best is not None and now <= best.answered_at + c.PATH_FRESH else None

    def take(self, route: Route, now: float) -> None:
        """Note that everything goes over this way from now on."""
        self.current = route
        self.wanted = None
        self._moved_at = now
        self._rules.counters["paths-changed"] += 1

    def take_proved(self, channel: int, address: Address, now: float) -> None:
        """Note that a handshake has led to an address, which is proved by it."""
        target = self._rules.target(channel, address)
        route = self._find(target)
        if route is None:
            # Attack: a peer that asks for new keys from ever new addresses. Bounded; the oldest go.
            found = [
                each for each in self._routes if each.named and not (each.listed or each is self.current)
            ]
            self._forget(found[: 1 - c.MAX_PROVED_ADDRESSES])
            route = self._add(target)
        route.proved = True
        self.take(route, now)

    # --- sending ------------------------------------------------------------------------------------

    def _plan(self) -> None:
        self.next_at = -_NEVER if self._answers else min(route.next_at for route in self._routes)

    def packets(self, now: float) -> list[PathPacket]:
        """Return what is due: answers, and challenges, each for its own way."""
        found: list[PathPacket] = []
        answers, self._answers = self._answers, {}
        for route in self._routes:
            number, address = route.target.channel, route.target.address
            frames = b""
            interface = 0
            if (answer := answers.get(route)) is not None:
                frames, interface = encode_path_response(answer[0]), answer[1]
            if (data := route.challenge(self._rules.random, now)) is not None:
                if number != self.current.target.channel:
                    # Where to answer: the peer may not have heard it yet, and may not hear us elsewhere.
                    frames += encode_addr(self._sequence, self._rules.channels[number].address)
                frames += encode_path_challenge(data)
                self._rules.counters["path-asked"] += 1
            elif route is self.wanted and route.next_at == _NEVER:
                self.wanted = None
            if not frames:
                continue
            if not (
                route.affords(len(frames) + c.DATA_MIN_SIZE, self.heard)
                and (route.proved or self._rules.may_ask(address, now))
            ):
                self._rules.counters["path-withheld"] += 1
                continue
            found.append(PathPacket(number, Path(address, None, interface), frames))
        self._plan()
        return found
