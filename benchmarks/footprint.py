"""What importing mp2p takes, and the memory of a node with nothing to do."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import Child, Speed, Table, children, median, run_on, say
from benchmarks.network import LOOPBACK

_ROUNDS = 9
_BARE = "bare interpreter"
_IMPORTS = {
    _BARE: "pass",
    "asyncio": "import asyncio",
    "anyio and its asyncio backend": "import anyio, anyio._backends._asyncio",
    "anyio, X25519, ChaCha20-Poly1305": "import anyio, anyio._backends._asyncio\n"
    "from cryptography.hazmat.primitives.asymmetric import x25519\n"
    "from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305",
    "mp2p_core": "import mp2p_core",
    "mp2p_core and the IPv4 transport": "import mp2p_core, mp2p_transport_v4",
    "mp2p_rpc": "import mp2p_rpc",
    "mp2p": "import mp2p",
}


def run() -> Table:
    """Measure, each import once in each round."""
    speed = Speed()
    times: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for turn in range(1 + _ROUNDS):
        speed.look()
        for name, code in _IMPORTS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            if turn:  # the first one may compile and fill caches
                times[name].append(time.perf_counter() - began)
    bare = median(times[_BARE])
    with children() as start:
        memory = {
            **{name: start("footprint:imported", code=code).hear() for name, code in _IMPORTS.items()},
            "asyncio, running": start("footprint:idle_loop").hear(),
            "mp2p_core, an idle node on IPv4": start("footprint:idle_node").hear(),
            "mp2p_rpc, idle after a call, asyncio": _idle_client(start, "asyncio"),
            "mp2p_rpc, idle after a call, trio": _idle_client(start, "trio"),
        }
    rows: list[list[Any]] = []
    for name, size in memory.items():
        taken = times.get(name)
        ms = "-" if taken is None else (median(taken) - bare) * 1e3
        fastest = "-" if taken is None else (min(taken) - min(times[_BARE])) * 1e3
        rows.append([name, ms, fastest, size / 1e6, (size - memory[_BARE]) / 1e6])
    return Table(
        "Footprint: import time beyond a bare interpreter, ms; resident memory, MB",
        ["", "import", "fastest", "memory", "beyond bare"],
        rows,
        speed,
        notes=[f"a bare interpreter starts and ends in {bare * 1e3:.1f} ms; median of {_ROUNDS}"],
    )


def _idle_client(start: Callable[..., Child], loop: str) -> int:
    server = start("rpc:mp2p_server", loop="asyncio", options=LOOPBACK.node)
    size: int = start("footprint:idle_client", loop=loop, contact=server.hear()).hear()
    return size


def imported(code: str) -> None:
    """Tell this process's resident memory after some code."""
    exec(code, {})
    _tell()
    sys.stdin.read()


def idle_loop() -> None:
    """Tell the resident memory with an event loop running."""
    import asyncio

    async def main() -> None:
        _tell()
        await asyncio.Event().wait()

    asyncio.run(main())


def idle_node() -> None:
    """Tell the resident memory with a node open."""
    run_on("asyncio", _idle_node)


async def _idle_node() -> None:
    import anyio

    from mp2p_core import open_node

    async with open_node(allow="any", **LOOPBACK.node):
        _tell()
        await anyio.sleep_forever()


def idle_client(loop: str, contact: str) -> None:
    """Tell the resident memory of a client that has made a call and has nothing to do."""
    run_on(loop, _idle_client_on, contact)


async def _idle_client_on(contact: str) -> None:
    import anyio

    import mp2p_rpc

    class Echo(mp2p_rpc.Service):
        async def echo(self, data: bytes) -> bytes: ...

    async with mp2p_rpc.open_node(**LOOPBACK.node) as node, node.connect(contact) as peer:
        assert await peer.client(Echo).echo(b"said") == b"said"
        _tell()
        await anyio.sleep_forever()


def _tell() -> None:
    gc.collect()
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
    say(int(line.split()[1]) * 1024)
