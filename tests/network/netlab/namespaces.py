"""Network namespaces: made, entered, configured, and removed whatever becomes of this process."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

__all__ = ["Namespace", "run", "scratch_folder", "unavailable"]

PREFIX = f"mp2p-{os.getpid()}-"
"""Two runs on one machine never share a name, because they never share a process id."""

CLONE_NEWNET = 0x40000000

TOOLS = {"ip": "iproute2", "tc": "iproute2", "bridge": "iproute2", "nft": "nftables", "smcrouted": "smcroute"}

# Removes what a killed test run leaves behind: end of file on its input means that the run is gone.
REAPER = """
read -r _
for ns in $(ip netns list | cut -d ' ' -f 1 | grep "^$1"); do
    kill -KILL $(ip netns pids "$ns") 2>/dev/null
    ip netns delete "$ns"
done
rm -rf "$2"
"""

_numbers = itertools.count(1)
_scratch: Path | None = None


def run(*argv: str, stdin: str = "") -> str:
    """Run a program that ends by itself and return what it printed.

    Raises RuntimeError with both outputs when it fails.
    """
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(argv)}` failed\n{stdin}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def scratch_folder() -> Path:
    """Return this process's folder for sockets and configuration, removed with the namespaces.

    Short on purpose: it holds UNIX sockets, whose paths end at 107 bytes.
    """
    global _scratch  # noqa: PLW0603 - one folder and one reaper guard the whole process
    if _scratch is None:
        _scratch = Path(tempfile.mkdtemp(prefix=PREFIX))
        # A session of its own, so that Ctrl-C at the terminal reaches the tests and not their cleaner.
        reaper = subprocess.Popen(
            ["sh", "-c", REAPER, "sh", PREFIX, str(_scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert reaper.stdin is not None
        atexit.register(_dismiss, reaper, reaper.stdin)
    return _scratch


def _dismiss(reaper: subprocess.Popen[bytes], stdin: IO[bytes]) -> None:
    stdin.close()
    reaper.wait()


def unavailable() -> str | None:
    """Say why this machine cannot run the lab, or None when it can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "the network lab needs root"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"the network lab needs the packages {', '.join(missing)}"
    if not all(Path("/proc/net", name).exists() for name in ("ip_mr_vif", "ip6_mr_vif")):
        return "the network lab needs a kernel with IPv4 and IPv6 multicast routing (CONFIG_IP(V6)_MROUTE)"
    try:
        with contextlib.closing(Namespace("trial")) as trial:
            trial.nft("add table inet trial")
    except RuntimeError as error:
        return f"the network lab needs network namespaces and nftables: {error}"
    return None


class Namespace:
    """A network namespace, empty but for its loopback interface."""

    def __init__(self, label: str) -> None:
        scratch_folder()
        self.label = label
        self.name = f"{PREFIX}{next(_numbers)}-{label}"
        run("ip", "netns", "add", self.name)
        self.sysctl(
            {
                # Addresses are usable at once, and nothing but the test speaks on the wire.
                "net/ipv6/conf/all/accept_dad": 0,
                "net/ipv6/conf/default/accept_dad": 0,
                "net/ipv6/conf/default/router_solicitations": 0,
                "net/ipv6/conf/default/router_solicitation_delay": 0,
                "net/ipv6/conf/default/keep_addr_on_down": 1,
                "net/ipv4/conf/all/rp_filter": 0,
                "net/ipv4/conf/default/rp_filter": 0,
            }
        )
        self.ip("link set lo up")

    def close(self) -> None:
        """Remove it; its links go with it. Every process in it must have ended."""
        run("ip", "netns", "delete", self.name)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Put the calling thread into this namespace for the length of a block.

        A socket stays in the namespace it was opened in, so the block need only open it.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.name}", os.O_RDONLY)

        def move(to: int) -> None:
            if libc.setns(to, CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), self.name)

        try:
            move(there)
            try:
                yield
            finally:
                move(home)
        finally:
            os.close(home)
            os.close(there)

    def command(self, *argv: str) -> list[str]:
        """Return the command line that runs a program in here; the program keeps the process id."""
        return ["ip", "netns", "exec", self.name, *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a program in here that ends by itself and return what it printed."""
        return run(*self.command(*argv), stdin=stdin)

    def ip(self, *lines: str) -> None:
        """Run `ip` commands, each without the word `ip`, as one batch."""
        run("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Load nftables rules as one transaction."""
        self.run("nft", "-f", "-", stdin=rules)

    def sysctl(self, values: dict[str, int]) -> None:
        """Set kernel parameters, named by their path below /proc/sys."""
        with self.entered():
            for name, value in values.items():
                Path("/proc/sys", name).write_text(str(value))

    def proc(self, name: str) -> str:
        """Read a file of /proc/net as this namespace shows it."""
        with self.entered():
            return Path("/proc/thread-self/net", name).read_text()

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket in here."""
        with self.entered():
            return socket.socket(family, kind, protocol)
