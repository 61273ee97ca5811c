"""How much may be in flight: NewReno as RFC 9002 section 7 has it, and a larger least (docs/protocol.md, section 6)."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["NewReno"]

_INITIAL_WINDOW: Final = 10
"""Datagrams (RFC 9002, section 7.2)."""
_MINIMUM_WINDOW: Final = 2
_MAXIMUM_WINDOW: Final = 64 << 20
"""Bytes. Memory for what is in flight is bounded by it, whatever the path claims to carry."""


class NewReno:
    """The congestion window in bytes. Grows as bytes are acknowledged, halves once per round of losses."""

    __slots__ = ("_datagram", "_recovery_start", "_threshold", "window")

    def __init__(self, datagram: int) -> None:
        self._datagram = datagram
        self._threshold = math.inf
        self._recovery_start = -math.inf
        self.window: float = _INITIAL_WINDOW * datagram

    @property
    def slow_start(self) -> bool:
        """Whether the window still doubles per round trip."""
        return self.window < self._threshold

    def resize(self, datagram: int) -> None:
        """Take another size of datagrams; the window always has room for two."""
        self._datagram = datagram
        self.window = max(self.window, _MINIMUM_WINDOW * datagram)

    def acknowledged(self, size: int, sent_at: float) -> None:
        """Note that bytes arrived, of an application that had filled the window."""
        if sent_at <= self._recovery_start:
            return
        if self.window < self._threshold:
            self.window += size
        else:
            self.window += self._datagram * size / self.window
        self.window = min(self.window, _MAXIMUM_WINDOW)

    def lost(self, sent_at: float, now: float, *, crowded: bool) -> None:
        """Note a loss. Losses of packets sent before the last halving belong to that one.

        `crowded` tells whether packets may wait in a queue on the way. Where none do, going below what is sent to
        any path at first spares nobody anything: what is lost there is lost by chance, however much it is.
        """
        if sent_at <= self._recovery_start:
            return
        self._recovery_start = now
        least = (_MINIMUM_WINDOW if crowded else _INITIAL_WINDOW) * self._datagram
        self.window = self._threshold = max(self.window / 2, min(self.window, least))

    def persistent(self) -> None:
        """Start over: nothing arrived for so long that the path must be taken for another one."""
        self.window = _MINIMUM_WINDOW * self._datagram
        self._recovery_start = -math.inf
