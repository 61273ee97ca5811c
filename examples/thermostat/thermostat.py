"""A thermostat that others set and watch. Run it, and hand out the contact that it prints.

mp2p contacts add laptop KEY        # whom to let in: `mp2p id` on the laptop shows its key
python thermostat.py
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import anyio

import mp2p


@dataclass
class Reading:
    celsius: float
    heating: bool


class Thermostat(mp2p.Service):
    """Keeps a room warm."""

    def __init__(self) -> None:
        self.target = 20.0
        self.celsius = 18.0

    async def set_target(self, celsius: float) -> float:
        """Set the temperature to keep, and return it."""
        self.target = celsius
        return self.target

    async def readings(self, count: int = 10, every: float = 1.0) -> AsyncIterator[Reading]:
        """Measure `count` times, `every` so many seconds."""
        for _ in range(count):
            heating = self.celsius < self.target
            self.celsius += 0.5 if heating else -0.1
            yield Reading(round(self.celsius, 1), heating)
            await anyio.sleep(every)


async def main() -> None:
    async with mp2p.open_node("thermostat.key") as node:  # made on first use, 0600
        print(node.contact, flush=True)  # mp2p:<key>: all that anyone needs to reach it
        await node.serve(Thermostat(), allow=mp2p.contacts())


if __name__ == "__main__":
    anyio.run(main)
