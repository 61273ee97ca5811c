"""What the shell sees: a module of its own, because not every command needs what the errors need."""

from __future__ import annotations

import enum

__all__ = ["ExitCode"]


class ExitCode(enum.IntEnum):
    """What the shell sees."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    LOCAL_NETWORK = 5
    KEY_FILE = 6
    FILE = 7
    INTERRUPTED = 130
    UNREAD = 141
    TERMINATED = 143
