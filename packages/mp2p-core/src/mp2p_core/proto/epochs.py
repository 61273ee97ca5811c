"""Which keys of a session seal, which still open, and when new ones are due (docs/protocol.md, section 6)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mp2p_core.proto import constants as c

if TYPE_CHECKING:
    from mp2p_core.proto.epoch import Epoch

__all__ = ["Epochs"]


class Epochs:
    """The last keys, the present ones, and those that the peer has asked for and not confirmed: of these, a few."""

    __slots__ = (
        "_by_id", "_due_at", "_rekey_after", "current", "next_at", "promoted", "rekey_at", "rekeys",
        "retired", "traffic",
    )  # fmt: skip

    def __init__(self, first: Epoch, rekey_after: float) -> None:
        self._by_id = {first.local_id: first}
        self._rekey_after = rekey_after
        self.current = first
        """The one that seals."""
        self.rekey_at = self._due_at = first.began + rekey_after
        """When to ask for new keys."""
        self.next_at = math.inf
        """When `handle_timeout` is due."""
        self.promoted: Epoch | None = None
        """One of the peer's that it has just confirmed, for the endpoint to note."""
        self.retired: list[bytes] = []
        """Ids that are gone, for the endpoint to forget."""
        self.traffic = first.traffic
        self.rekeys = 0
        """How often other keys took over."""

    def __getitem__(self, local_id: bytes) -> Epoch:
        return self._by_id[local_id]

    @property
    def ids(self) -> list[bytes]:
        """The ids under which packets come in."""
        return list(self._by_id)

    def offer(self, epoch: Epoch) -> None:
        """Get ready for keys that the peer asked for: they are used once it has confirmed them.

        A peer that looks for us asks over every way that it knows, and confirms what is answered first.
        """
        offered = [other for other in self._by_id.values() if self._is_offered(other)]
        # Attack: a peer that asks and asks. Bounded; the oldest go.
        if len(offered) >= c.OFFERED_EPOCHS:
            self._retire(offered[0])
        self._add(epoch)
        self._plan()

    def _add(self, epoch: Epoch) -> None:
        epoch.traffic = self.traffic
        self._by_id[epoch.local_id] = epoch

    def _is_offered(self, epoch: Epoch) -> bool:
        return epoch is not self.current and epoch.expires == math.inf

    def install(self, epoch: Epoch, now: float) -> bool:
        """Take over keys that this side asked for and the peer has answered for; True when they seal from now on."""
        self._add(epoch)
        sealing = self._take_over(epoch, now)
        self._plan()
        return sealing

    def opened(self, epoch: Epoch, now: float) -> bool:
        """Note that a packet opened under an epoch: of keys that the peer asked for, the first is the confirmation.

        True when it is. `current` tells whether they seal from now on.
        """
        if not self._is_offered(epoch):
            return False
        self.promoted = epoch
        self._take_over(epoch, now)
        self._plan()
        return True

    def _take_over(self, epoch: Epoch, now: float) -> bool:
        current = self.current
        at_once = current.ours is not epoch.ours and now < current.began + c.HANDSHAKE_BUDGET
        if at_once and current.preferred and self.rekeys:
            self._replaced(epoch, now)
            return False
        self.current = epoch
        self._replaced(current, now)
        self.rekeys += 1
        self.rekey_at = self._due_at = now + self._rekey_after
        return True

    def tried(self, now: float) -> None:
        """Note that new keys are being asked for, which is not done again at once."""
        self.rekey_at = now + c.RETRY_SPACING

    def not_needed(self) -> None:
        """Note that they were asked for only to find the peer, which is there: the present ones stay in use."""
        self.rekey_at = max(self.rekey_at, self._due_at)

    def _replaced(self, epoch: Epoch, now: float) -> None:
        epoch.expires = now + c.EPOCH_OVERLAP
        # Attack: a peer that renews its keys as fast as it is answered. Bounded; late packets lose their keys.
        old = [other for other in self._by_id.values() if other.expires < math.inf]
        if len(old) > c.OLD_EPOCHS:
            self._retire(min(old, key=lambda each: each.expires))

    def _retire(self, epoch: Epoch) -> None:
        del self._by_id[epoch.local_id]
        self.retired.append(epoch.local_id)

    def _ends(self, epoch: Epoch) -> float:
        return epoch.began + c.HALF_OPEN_LIFE if self._is_offered(epoch) else epoch.expires

    def _plan(self) -> None:
        self.next_at = min(map(self._ends, self._by_id.values()))

    def handle_timeout(self, now: float) -> None:
        """Forget keys whose time has come."""
        for epoch in list(self._by_id.values()):
            if self._ends(epoch) <= now:
                self._retire(epoch)
        self._plan()
