"""One way to a peer, and what a node allows of all of them (docs/protocol.md, sections 5 and 6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from mp2p_core.proto import constants as c
from mp2p_core.proto.addresses import unspecified
from mp2p_core.proto.buckets import BucketTable, TokenBucket
from mp2p_core.proto.target import Target

if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import Mapping

    from mp2p_core.proto.responder import ChannelInfo
    from mp2p_core.transport import Address, Path, RandomBytes

__all__ = ["PathRules", "Route"]

_CHALLENGE_SIZE: Final = 8
_NEVER: Final = math.inf


class PathRules:
    """What the paths of all sessions of a node share: its channels, its address policy, its rates."""

    def __init__(
        self,
        channels: Mapping[int, ChannelInfo],
        *,
        random: RandomBytes,
        counters: defaultdict[str, int],
        now: float,
    ) -> None:
        self.channels = channels
        self.random = random
        self.counters = counters
        # Attack: many sessions, each told that its peer is at one victim's address.
        self._to = BucketTable.at_most(c.CHALLENGE_RATE_ADDRESS)
        self._all = TokenBucket.at_most(c.CHALLENGE_RATE_ALL, now)

    def sizes(self) -> dict[str, int]:
        """Return how many entries the table holds."""
        return {"path-buckets": len(self._to)}

    def targets_untrusted(self, address: Address, channel: int, path: Path) -> list[Target]:
        """Find the channels to an address that the peer names in a packet heard on `path` of `channel`, that one first.

        Only those whose address policy lets a stranger be answered there (section 5, rules 4 and 5). For the
        policy nobody was heard where the packet came over another channel than the one to the address.
        """
        found: list[Target] = []
        for number in sorted(self.channels, key=channel.__ne__):
            info = self.channels[number]
            heard_from, arrived_at = unspecified(address), info.address
            if number == channel and path.remote[0] == info.address[0]:
                heard_from, arrived_at = path.remote, path.local or info.address
            if address[0] == info.address[0] and info.may_answer(address, heard_from, arrived_at):
                found.append(self.target(number, address))
        return found

    def target(self, number: int, address: Address) -> Target:
        """Describe the way to an address over one of the channels."""
        info = self.channels[number]
        return Target(number, address, info.address, info.max_payload)

    def may_ask(self, address: Address, now: float) -> bool:
        """Take one packet to an address that is not proved out of its rate, and the rate of all."""
        return self._to.take(address, now) and self._all.take(now)


class Route:
    """A way to the peer, and what is known of it."""

    __slots__ = (
        "_floor", "_out", "_spent", "_tries", "answered_at", "by_source", "interface", "listed", "named", "next_at",
        "proved", "rtt", "target",
    )  # fmt: skip

    def __init__(self, target: Target, *, named: bool, floor: int = 0) -> None:
        self.target = target
        self.named = named
        """Whether it was the peer who named it, and so may mean a victim."""
        self.listed = False
        """Whether it is one of the peer's ADDR frames, and goes with them."""
        self.by_source = False
        self.proved = False
        """Whether the peer has ever shown that it receives there."""
        self.answered_at = -_NEVER
        self.interface = 0
        """Where its last answer came in; 0 when over another channel."""
        self.rtt: float | None = None
        self.next_at = _NEVER
        """When the next challenge is due, or the last one has failed."""
        self._floor = floor
        self._spent = 0
        self._tries = 0
        self._out: list[tuple[bytes, float]] = []

    def ask(self, now: float) -> None:
        """Begin to challenge it, unless that is under way."""
        if not self._tries:
            self.next_at = min(self.next_at, now)

    def challenge(self, random: RandomBytes, now: float) -> bytes | None:
        """Return the data of the challenge that is due; None when there is none, or the last one went unanswered."""
        if now < self.next_at:
            return None
        if self._tries == len(c.CHALLENGE_WAITS):
            self._rest()
            return None
        data = random(_CHALLENGE_SIZE)
        self._out.append((data, now))
        self.next_at = now + c.CHALLENGE_WAITS[self._tries]
        self._tries += 1
        return data

    def _rest(self) -> None:
        self.next_at = _NEVER
        self._tries = 0
        self._out.clear()

    def answered_untrusted(self, data: bytes, interface: int, now: float) -> bool:
        """Compare with the challenges that are out; True when the way is proved."""
        for sent, at in self._out:
            if sent == data:
                self.proved = True
                self.answered_at, self.rtt, self.interface = now, now - at, interface
                self._rest()
                return True
        return False

    def affords(self, size: int, heard: int) -> bool:
        """Take a packet out of what may be sent to an address that the peer has named (section 5, rule 3)."""
        if self.named and not self.proved:
            if self._spent + size > c.UNPROVED_FACTOR * (heard - self._floor):
                return False
            self._spent += size
        return True
