"""The replay window of a session (docs/protocol.md, section 6; the idea is RFC 4303's anti-replay window)."""

from __future__ import annotations

from mp2p_core.proto.constants import REPLAY_WINDOW

__all__ = ["ReplayWindow"]

_MASK = (1 << REPLAY_WINDOW) - 1


class ReplayWindow:
    """Remembers which of the last 2048 packet numbers were taken.

    `is_new` only looks; `commit` is called once the AEAD has opened, so that a forged number moves nothing.
    """

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._seen = 0  # bit i: packet number `highest - i` was taken

    def is_new(self, number: int) -> bool:
        """Tell whether this number is neither taken nor too old to tell."""
        behind = self.highest - number
        if behind < 0:
            return True
        return behind < REPLAY_WINDOW and not (self._seen >> behind) & 1

    def commit(self, number: int) -> None:
        """Take a number for which `is_new` was true."""
        ahead = number - self.highest
        if ahead > 0:
            # A jump past the window empties it; shifting by the jump itself could ask for 2**63 bits.
            self._seen = ((self._seen << ahead) & _MASK) | 1 if ahead < REPLAY_WINDOW else 1
            self.highest = number
        else:
            self._seen |= 1 << -ahead
