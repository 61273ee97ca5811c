"""What alice serves in the demo. The class is the interface on both sides."""

from __future__ import annotations

from collections.abc import AsyncIterator

from mp2p_rpc import Service

__all__ = ["Greenhouse"]


class Greenhouse(Service):
    """A room with a heater, in which a reading takes no time at all."""

    def __init__(self) -> None:
        self._celsius = 17.0
        self._target = 17.0

    async def set_target(self, celsius: float) -> float:
        """Set the temperature to keep, and return it."""
        self._target = celsius
        return self._target

    async def readings(self, count: int) -> AsyncIterator[float]:
        """Measure `count` times, while it warms up."""
        for _ in range(count):
            self._celsius = min(self._celsius + 1.5, self._target)
            yield self._celsius
