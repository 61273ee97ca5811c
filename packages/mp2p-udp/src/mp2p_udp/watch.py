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

    async def wait(self) -> bool:
        """Wait for the next change, and take in all that wait with it; False once closed."""
        if self._sock is None:
            await anyio.sleep_forever()
            return False
        if self._sock.fileno() < 0:  # closed before this was called
            return False
        try:
            await anyio.wait_readable(self._sock)
        except anyio.ClosedResourceError:
            return False
        # Full when ENOBUFS: changes were lost, and a change it is.
        with contextlib.suppress(OSError):
            while self._sock.recv(_MESSAGE_SIZE):
                pass
        return True

    def close(self) -> None:
        """Stop, and end a waiting `wait`."""
        if self._sock is not None:
            anyio.notify_closing(self._sock)
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
