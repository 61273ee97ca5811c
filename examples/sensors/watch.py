"""Watch the feed as a live chart: python watch.py CONTACT. Any number of watchers cost the feed nothing."""

import sys
from collections import deque

import anyio
from feed import TOPIC
from rich.live import Live

import mp2p

BARS = " ▁▂▃▄▅▆▇█"


def chart(values: deque[float], note: str) -> str:
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / max(high - low, 0.1)
    line = "".join(BARS[round((value - low) * scale)] for value in values)
    return f"{line}\n{values[-1]:.2f} degrees, {low:.2f} to {high:.2f}  {note}"


async def main() -> None:
    values: deque[float] = deque(maxlen=72)
    note = ""
    async with mp2p.open_node() as node, node.subscribe(sys.argv[1], TOPIC) as feed:
        with Live(auto_refresh=False) as live:
            async for item in feed:
                if isinstance(item, mp2p.Gap):
                    note = f"{item.missing or 'some'} missing: {item.reason}"
                    continue
                values.append(item.value.celsius)
                live.update(chart(values, note), refresh=True)
                if len(sys.argv) > 2 and item.number >= int(sys.argv[2]):
                    return


if __name__ == "__main__":
    anyio.run(main)
