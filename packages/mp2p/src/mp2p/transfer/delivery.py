"""Send files, and go on after the connection has broken."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio

from mp2p.transfer.errors import TransferBroken
from mp2p.transfer.events import Observer, TransferEvent, TransferredFile, TransferState
from mp2p.transfer.sending import SILENCE, send_file
from mp2p_core.errors import Closed, LocalNetworkError, Mp2pError, PeerUnreachable
from mp2p_core.proto.constants import CLOSE_NOT_ALLOWED

if TYPE_CHECKING:
    from mp2p_core import Peer

__all__ = ["Connect", "Interruption", "deliver_files"]

Connect: TypeAlias = "Callable[[float], AbstractAsyncContextManager[Peer]]"
"""Connects within so many seconds: `lambda seconds: node.connect(contact, timeout=seconds)`."""

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_ONE_ATTEMPT: Final = 5.0
"""Seconds; a node that was opened while an interface was down may see nothing for ever, a new one does."""
_FRUITLESS: Final = 10
"""Breaks in a row without a byte in between: agreeing on where to begin, again and again, leads nowhere."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """The connection has broken, and is tried again after `pause` seconds, for `left` seconds at most."""

    error: Mp2pError
    pause: float
    left: float


async def deliver_files(
    connect: Connect,
    paths: Iterable[str | os.PathLike[str]],
    *,
    patience: float = 20.0,
    keep_time: bool = False,
    observer: Observer | None = None,
    interrupted: Callable[[Interruption], None] | None = None,
) -> list[TransferredFile]:
    """Send files one after the other, connecting again when the connection breaks; returns them in order.

    After a break, tries again for `patience` seconds, with growing pauses, and resumes. What fails before
    there ever was a connection is raised at once: `connect` has waited `patience` seconds then.

    Raises what `connect` and `send_file` raise.
    """
    waiting = deque(map(Path, paths))
    delivered: list[TransferredFile] = []
    progress = _Progress(observer)
    pause = _FIRST_PAUSE
    connected = False
    give_up_at = time.monotonic() + patience
    while waiting:
        left = give_up_at - time.monotonic()
        try:
            async with connect(min(left, _ONE_ATTEMPT) if connected else patience) as peer:
                connected = True
                while waiting:
                    delivered.append(
                        await send_file(
                            *(peer, waiting[0]),
                            keep_time=keep_time,
                            observer=progress,
                            silence=min(SILENCE, patience),
                        )
                    )
                    waiting.popleft()
        except (Closed, LocalNetworkError, PeerUnreachable, TransferBroken) as error:
            if not connected or (isinstance(error, Closed) and error.code == CLOSE_NOT_ALLOWED):
                raise
            now = time.monotonic()
            if progress.resumed:
                give_up_at, pause = now + patience, _FIRST_PAUSE
            if now + pause >= give_up_at or progress.fruitless >= _FRUITLESS:
                raise
            progress.interrupted()
            if interrupted is not None:
                interrupted(Interruption(error, pause, give_up_at - now))
        if waiting:
            await anyio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    return delivered


class _Progress:
    """Notes what has come of a connection."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self._furthest: tuple[Path | None, int] = (None, -1)
        self.resumed = False
        """Whether there was an agreement on where to begin since the last break."""
        self.fruitless = 0
        """Breaks in a row without a byte in between."""

    def __call__(self, event: TransferEvent) -> None:
        if event.state is not TransferState.CHECKING:
            self.resumed = True
            path, written = self._furthest
            if event.path != path or event.written > written:
                self._furthest = event.path, event.written
                self.fruitless = 0
        if self._observer is not None:
            self._observer(event)

    def interrupted(self) -> None:
        self.resumed = False
        self.fruitless += 1
