"""A publisher's epochs: the present one, and those that are still repaired (docs/protocol.md, section 8)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c
from mp2p_core.proto.group.control import Grant
from mp2p_core.proto.group.keys import SendKeys
from mp2p_core.proto.group.sealing import Sealer
from mp2p_core.proto.group.store import Store

if TYPE_CHECKING:
    from mp2p_core.proto.group.keys import GroupSuite
    from mp2p_core.transport import Address, RandomBytes

__all__ = ["Epochs"]


class Epochs:
    """Draws keys, and keeps what was sent under them for as long as it may be asked for.

    A subscriber that asks for epochs makes none: only the publisher's own decisions do, and MAX_OLD_EPOCHS of
    those that have ended are kept.
    """

    __slots__ = (
        "_kept", "_old", "_owner", "_random", "_rotates", "_suite", "_unused_from", "began", "first_number", "last_seq",
        "sealer", "store",
    )  # fmt: skip

    def __init__(
        self, owner: bytes, kept: int, now: float, *, random: RandomBytes, suite: GroupSuite
    ) -> None:
        """Begin the first epoch; `kept` datagrams of each can be repaired."""
        self._owner = owner
        self._kept = kept
        self._random = random
        self._suite = suite
        self._old: list[Store] = []
        self._rotates: list[tuple[float, bytes]] = []
        self.last_seq = 0
        """The last one of the epoch before this."""
        self.first_number = 0
        """The message with which this one began."""
        self._begin(1, now)

    def _begin(self, epoch: int, now: float) -> None:
        self.sealer = Sealer(self._owner, SendKeys(epoch, self._random, self._suite))
        self.store = Store(self.sealer, self._kept)
        self.began = now
        self._unused_from = 1

    def rotate(self, number: int, now: float) -> None:
        """End the present epoch and begin the next, whose first message is `number`."""
        self.last_seq = self.sealer.next_seq - 1
        if self.last_seq:
            datagram = self.sealer.rotate()
            self._rotates = sorted(self._rotates + [(now + wait, datagram) for wait in c.ROTATE_SCHEDULE])
            self.store.expires = now + c.OLD_EPOCH_LIFE
            self._old = [*self._old, self.store][-c.MAX_OLD_EPOCHS :]
        self.first_number = number
        self._begin(self.sealer.keys.epoch + 1, now)

    def worn_out(self, number: int, now: float) -> bool:
        """Tell whether the epoch has lasted long enough, before message `number`."""
        return now >= self.began + c.GROUP_EPOCH_LIFE or number >= self.first_number + c.GROUP_EPOCH_MESSAGES

    def grant(
        self, topic: bytes, *, group: Address, history: int, number: int, run: bytes, mode: int
    ) -> Grant:
        """Make the GRANT of the present epoch, from here on."""
        keys = self.sealer.keys
        return Grant(
            topic=topic, channel=keys.channel, epoch=keys.epoch, generation=keys.generation,
            chain_key=keys.chain_key, signing_key=keys.signing_key, next_seq=self.sealer.next_seq, group=group,
            history=history, heartbeat_ms=int(c.HEARTBEAT_LAST * 1000), last_seq=self.last_seq, number=number,
            run=run, mode=mode, backlog=False,
        )  # fmt: skip

    def step(self) -> bool:
        """See to it that newcomers cannot read what has been sent; False when that takes a new epoch."""
        if self.sealer.next_seq > self._unused_from:  # else nobody has used this generation yet
            if self.sealer.keys.generation >= c.MAX_GENERATION:
                return False
            self.sealer.keys.step()
            self._unused_from = self.sealer.next_seq
        return True

    def stores(self) -> list[Store]:
        """Return what can be repaired, the present epoch first."""
        return [self.store, *self._old]

    def find(self, channel: bytes) -> Store | None:
        """Return what can be repaired of a channel."""
        return next((store for store in self.stores() if store.channel == channel), None)

    def rotates(self, now: float) -> list[bytes]:
        """Return the ROTATEs that are due, of epochs that have ended."""
        found = []
        while self._rotates and self._rotates[0][0] <= now:
            found.append(self._rotates.pop(0)[1])
        return found

    def next_rotate(self) -> float:
        """Return when the next ROTATE is due."""
        return self._rotates[0][0] if self._rotates else math.inf

    def next_expiry(self) -> float:
        """Return when `expire` has something to forget."""
        return self._old[0].expires if self._old else math.inf

    def expire(self, now: float) -> None:
        """Forget epochs that ended long enough ago."""
        self._old = [store for store in self._old if store.expires > now]
