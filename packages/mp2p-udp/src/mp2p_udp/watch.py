"""Hear that the machine's interfaces have changed: from netlink on Linux, by looking again elsewhere.

What changed is not read from the messages: whoever waits looks at all interfaces anyway, and a list is
right also when messages were lost.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Final

import anyio

__all__ = ["InterfaceWatch"]

# Linux, include/uapi/linux/rtnetlink.h: links, and the addresses of both families.
_GROUPS: Final = 0x1 | 0x10 | 0x100
_MESSAGE_SIZE: Final = 65536


class InterfaceWatch:
    """Waits for changes. `tells` is False where the system cannot be asked."""

    def __init__(self) -> None:
        self._sock = _open()

    @property
    def tells(self) -> bool:
        """Whether `wait` ever returns."""
        return self._sock is not None

    async def wait(self) -> None:
        """Wait for the next change, and take in all that wait with it."""
        if self._sock is None:
            await anyio.sleep_forever()
            return
        await anyio.wait_readable(self._sock)
        # Full when ENOBUFS: changes were lost, and a change it is.
        with contextlib.suppress(OSError):
            while self._sock.recv(_MESSAGE_SIZE):
                pass

    def close(self) -> None:
        """Stop. Nobody waits any more."""
        if self._sock is not None:
            self._sock.close()


def _open() -> socket.socket | None:
    if sys.platform != "linux":
        return None
    sock = None
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
    except OSError:  # some sandboxes
        if sock is not None:
            sock.close()
        return None
    return sock
