"""Which losses are chance and no congestion (docs/protocol.md, section 6).

Radio, and multicast on Wi-Fi above all, loses some datagrams whatever is sent. A window that is halved for each of
them holds ten, where hundreds fit. As in BBR (draft-ietf-ccwg-bbr), up to two in a hundred are taken for chance.
Losses while a queue stands are congestion all the same: whoever fills the queue of a bottleneck shares it as
NewReno does.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LossTolerance"]

_SHARE: Final = 0.02
"""Datagrams that may be lost for each one that arrives (BBRLossThresh)."""
_SAVED: Final = 8.0
"""Datagrams that may be lost at once. With five, a loss of 1 % that is chance would be taken for congestion every
80 MB; with eight, forty times as seldom."""
_CERTAIN: Final = 16
"""A large packet is lost with any one of its datagrams, so it counts as one for each begun sixteen: no size of packets
hides that more than a third of them are lost."""


class LossTolerance:
    """A bucket of losses that count as chance, filled by what arrives."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = _SAVED

    def arrived(self, datagrams: int) -> None:
        """Note that a packet of so many datagrams was acknowledged."""
        saved = self._saved + _SHARE * datagrams
        self._saved = saved if saved < _SAVED else _SAVED

    def forgives(self, datagrams: int, *, queued: bool) -> bool:
        """Tell whether the loss of a packet of so many datagrams is taken for chance.

        `queued` tells whether packets wait in a queue on the way.
        """
        price = -(-datagrams // _CERTAIN)
        if queued or self._saved < price:
            return False
        self._saved -= price
        return True
