"""Set the thermostat and watch it: python control.py CONTACT CELSIUS."""

import sys

import anyio
from thermostat import Thermostat

import mp2p


async def main() -> None:
    contact, celsius = sys.argv[1], float(sys.argv[2])
    async with mp2p.open_node() as node, node.connect(contact) as peer:
        thermostat = peer.client(Thermostat)  # typed: an editor completes it, mypy checks it
        print(f"target {await thermostat.set_target(celsius):.1f}", flush=True)
        async for reading in thermostat.readings(count=3, every=0.2):
            print(f"{reading.celsius:.1f} {'heating' if reading.heating else 'idle'}", flush=True)


if __name__ == "__main__":
    anyio.run(main)
