"""Show transfers of files: a bar each on a terminal, a line now and then in a pipe, events for programs."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from mp2p.cli.output import Line, Printer, visible
from mp2p.transfer import Interruption, TransferEvent, TransferState, size_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mp2p_core import PublicKey

__all__ = ["Transfers", "duration", "percent"]

_LINE_INTERVAL: Final = 10.0
"""Seconds between progress lines in a pipe."""
_RATE_SPAN: Final = 10
"""Events, of two a second, that the rate is measured over."""

_MARGIN: Final = 4
"""Columns to the right of a bar."""


def duration(seconds: float) -> str:
    """Write a time for people: 0:07, 12:34 or 1:02:03."""
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def percent(done: int, size: int) -> int:
    """Return the whole percents, 100 only for all."""
    return 100 if done >= size else 100 * done // size


class _Rate:
    """Bytes a second of late."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=_RATE_SPAN)

    def add(self, seconds: float, written: int) -> float:
        self._seen.append((seconds, written))
        then, before = self._seen[0]
        return (written - before) / (seconds - then) if seconds > then else 0.0


class Transfers:
    """An observer of transfers that prints. A context manager: leaving it takes down what is on the screen."""

    def __init__(
        self, printer: Printer, *, sending: bool, names: Callable[[PublicKey], str | None] = lambda _key: None
    ) -> None:
        self._printer = printer
        self._sending = sending
        self._names = names
        self._rates: dict[int, _Rate] = {}
        self._next_line: dict[int, float] = {}
        self._bars = _bars() if printer.interactive else None
        self._tasks: dict[int, TaskID] = {}
        self._said = ""
        """Why the connection broke last; nothing once a transfer has gone on."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.hide()

    def __call__(self, event: TransferEvent) -> None:
        """Show an event."""
        if event.state is TransferState.STARTED:
            self._start(event)
        elif event.state is TransferState.PROGRESS:
            self._progress(event)
        elif event.state is TransferState.CHECKING:
            self._checking(event)
        else:
            self._forget(event.number)
            self.hide()
            if event.state is TransferState.DONE:
                self._done(event)
            else:
                self._failed(event)

    def hide(self) -> None:
        """Take the bars off the screen, so that lines can be printed; the next progress shows them again."""
        if self._bars is not None:
            self._bars.stop()

    def interrupted(self, interruption: Interruption) -> None:
        """Show that the connection has broken, and forget every transfer that has not ended."""
        for number in list(self._next_line):
            self._forget(number)
        self.hide()
        error, left = interruption.error, round(interruption.left, 1)
        lines: list[Line] = [[("interrupted", "yellow"), f"  {error}; trying again for {left:.0f} s"]]
        if str(error) == self._said:  # for as long as an interface is down, say
            lines.clear()
        self._said = str(error)
        self._printer.emit(
            {"event": "retry", "kind": type(error).__name__, "message": self._said, "seconds_left": left},
            *lines,
        )

    # --- events -------------------------------------------------------------------------------------

    def _start(self, event: TransferEvent) -> None:
        self.hide()
        self._said = ""
        self._rates[event.number] = _Rate()
        self._rates[event.number].add(event.seconds, event.written)
        self._line_is_due(event)
        words = f"{event.name}  {size_text(event.size)}"
        if event.offset:
            words += f", going on at {size_text(event.offset)}"
        self._printer.emit(
            {"event": "start", **self._facts(event), "offset": event.offset},
            [("sending" if self._sending else "receiving", "bold"), f"  {words}"],
            *self._whom(event),
        )

    def _checking(self, event: TransferEvent) -> None:
        standing = f"{size_text(event.written)} checked, of an earlier attempt"
        self._standing(event, standing, {"event": "check"})

    def _progress(self, event: TransferEvent) -> None:
        rate = self._rates[event.number].add(event.seconds, event.written)
        standing = (
            f"{percent(event.written, event.size):3} %  {size_text(event.written)} of {size_text(event.size)}"
            f"  {size_text(rate)}/s"
        )
        if rate > 0:
            standing += f"  {duration((event.size - event.written) / rate)} left"
        facts = {"event": "progress", "seconds": round(event.seconds, 3), "rate": round(rate)}
        self._standing(event, standing, facts)

    def _standing(self, event: TransferEvent, standing: str, facts: Mapping[str, object]) -> None:
        if self._bars is not None:
            self._show_bar(self._bars, event, standing)
            return
        lines: list[Line] = [[f"progress  {event.name}  {standing}"]] if self._line_is_due(event) else []
        self._printer.emit({**facts, **self._facts(event), "bytes": event.written}, *lines)

    def _line_is_due(self, event: TransferEvent) -> bool:
        """Tell whether a line may be printed about this transfer again, and then no more for a while."""
        now = time.monotonic()
        due = now >= self._next_line.setdefault(event.number, now + _LINE_INTERVAL)
        if due:
            self._next_line[event.number] = now + _LINE_INTERVAL
        return due

    def _done(self, event: TransferEvent) -> None:
        seconds = round(event.seconds, 3)
        moved = f" in {seconds:.1f} s, {size_text(event.rate)}/s"
        if event.offset:
            moved = f", the last {size_text(event.size - event.offset)}{moved}"
        if event.offset == event.size > 0:
            moved = ", all of it there already"
        self._printer.emit(
            {
                "event": "done",
                **self._facts(event),
                "path": str(event.path),
                "bytes": event.size,
                "offset": event.offset,
                "sha256": event.digest.hex(),
                "seconds": seconds,
                "rate": round(event.rate),
            },
            [
                ("sent" if self._sending else "received", "green"),
                f"  {event.name}  {size_text(event.size)}{moved}",
            ],
            *self._whom(event),
            [f"  sha256  {event.digest.hex()}"],
        )

    def _failed(self, event: TransferEvent) -> None:
        kind = type(event.error).__name__
        self._printer.emit(
            {
                "event": "error",
                **self._facts(event),
                "bytes": event.written,
                "kind": kind,
                "message": str(event.error),
            },
            [
                ("stopped", "yellow"),
                f"  {event.name}  at {percent(event.written, event.size)} %: {event.error}",
            ],
            *self._whom(event),
        )

    def _facts(self, event: TransferEvent) -> dict[str, object]:
        facts: dict[str, object] = {
            "to" if self._sending else "from": str(event.peer),
            "number": event.number,
            "name": event.name,
            "size": event.size,
        }
        if (name := self._names(event.peer)) is not None:
            facts["contact"] = name
        return facts

    def _whom(self, event: TransferEvent) -> Sequence[Line]:
        """Say on a line of its own, for a key is long, who sends; the sender knows to whom."""
        if self._sending:
            return ()
        return [["  from    ", (self._names(event.peer) or str(event.peer), "cyan")]]

    # --- bars ---------------------------------------------------------------------------------------

    def _show_bar(self, bars: Progress, event: TransferEvent, standing: str) -> None:
        facts: dict[str, Any] = {"completed": event.written, "standing": standing}
        task = self._tasks.get(event.number)
        if task is None:
            facts["total"] = max(event.size, 1)
            self._tasks[event.number] = bars.add_task(visible(event.name), **facts)
        else:
            bars.update(task, **facts)
        # So that the ^C that a terminal shows stays on the line of the bar, and goes away with it.
        bars.console.width = shutil.get_terminal_size().columns - _MARGIN
        bars.start()
        bars.refresh()

    def _forget(self, number: int) -> None:
        self._rates.pop(number, None)
        self._next_line.pop(number, None)
        task = self._tasks.pop(number, None)
        if task is not None and self._bars is not None:
            self._bars.remove_task(task)


def _bars() -> Progress:
    # Imported here because a pipe needs none of it, and before a transfer begins, because it takes a moment.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[standing]}", markup=False),
        console=Console(),
        auto_refresh=False,  # no thread: there is news twice a second
        transient=True,
    )
