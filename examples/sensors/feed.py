"""Publish a made-up temperature ten times a second: python feed.py. Prints the contact that watchers take."""

import math
import time
from dataclasses import dataclass

import anyio

import mp2p


@dataclass
class Reading:
    sensor: str
    celsius: float


TOPIC = mp2p.Topic("sensors/roof", Reading, retain=1)


async def main() -> None:
    async with mp2p.open_node("feed.key") as node, node.publish(TOPIC, allow=mp2p.contacts()) as pub:
        print(node.contact, flush=True)
        while True:
            await pub.send(Reading("roof", round(20 + 3 * math.sin(time.time() / 5), 2)))
            await anyio.sleep(0.1)


if __name__ == "__main__":
    anyio.run(main)
