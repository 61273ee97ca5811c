"""`mp2p top`: a live view of the nodes that this user's commands run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import json_option
from mp2p.cli.output import Line, Printer, printer, visible
from mp2p.cli.status_socket import Snapshot, read_snapshot, sockets
from mp2p.cli.transfers import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["heading", "rows", "top", "topic_rows"]

_INTERVAL: Final = 1.0
_COLUMNS: Final = ("peer", "path", "RTT", "lost", "in", "out", "for")
_TOPIC_COLUMNS: Final = ("topic", "publisher", "subscribers", "messages", "repairs", "gaps", "for")


@click.command(short_help="Show how the nodes on this machine do: peers, paths, round trips, loss, rates.")
@click.argument("socket", required=False, type=click.Path(path_type=Path))
@click.option("--once", is_flag=True, help="Show it once and end. Rates are then those since the handshake.")
@json_option
def top(socket: Path | None, once: bool, as_json: bool) -> int:
    """Show how running nodes do, anew every second: those of commands of this user that run with `--status auto`.

    With SOCKET, that of `--status FILE`. Ends when they do. With --json each line is one node's snapshot.
    """
    chosen = printer(as_json=as_json)
    return supervise.run(lambda: _top(chosen, socket, once=once))


async def _top(printer: Printer, socket: Path | None, *, once: bool) -> int:
    before: dict[int, Snapshot] = {}
    found = await _ask(socket)
    if not found:
        raise mp2p.UsageError(
            f"nothing answers at {socket}: name the socket of a running command"
            if socket is not None
            else "no command of yours shows its status: run `mp2p listen`, or another, with `--status auto`"
        )
    if printer.interactive and not once:
        from rich.live import Live  # noqa: PLC0415  (a pipe needs none of it)

        with Live(auto_refresh=False) as live:
            while found:
                live.update(_tables(found, before), refresh=True)
                before = {each["pid"]: each for each in found}
                await anyio.sleep(_INTERVAL)
                found = await _ask(socket)
        return ExitCode.DONE
    while found:
        for each in found:
            printer.emit(each, *_lines(each, before.get(each["pid"])))
        if once:
            break
        before = {each["pid"]: each for each in found}
        await anyio.sleep(_INTERVAL)
        found = await _ask(socket)
    return ExitCode.DONE


async def _ask(socket: Path | None) -> list[Snapshot]:
    answers = [await read_snapshot(path) for path in ([socket] if socket is not None else sockets())]
    return [each for each in answers if each is not None]


def heading(node: Snapshot) -> str:
    """Name a node and where it listens."""
    joined = sorted(
        {each["name"] for channel in node["channels"] for each in channel["interfaces"] if each["joined"]}
    )
    return f"{node['key']}  process {node['pid']}  on {', '.join(joined) or 'no interface'}"


def rows(node: Snapshot, before: Snapshot | None) -> Iterator[tuple[str, ...]]:
    """Return what stands in the columns for each peer; rates are those since the snapshot before."""
    earlier = _by_connection(before) if before is not None else {}
    for connection, peer in _by_connection(node).items():
        last = earlier.get(connection)
        if (
            last is None or last["connected_for"] >= peer["connected_for"]
        ):  # or it is a new one of the same key
            last = {"bytes_received": 0, "bytes_sent": 0, "connected_for": 0.0}
        seconds = peer["connected_for"] - last["connected_for"]
        sent = peer["packets_sent"]
        yield (
            peer["key"],
            peer["path"],
            "?" if peer["rtt"] is None else f"{1000 * peer['rtt']:.1f} ms",
            f"{100 * peer['packets_lost'] / sent if sent else 0:.1f} %",
            _rate(peer["bytes_received"] - last["bytes_received"], seconds),
            _rate(peer["bytes_sent"] - last["bytes_sent"], seconds),
            duration(peer["connected_for"]),
        )


def _by_connection(node: Snapshot) -> dict[tuple[str, int], Snapshot]:
    # A key may be there several times.
    found: dict[tuple[str, int], Snapshot] = {}
    for peer in node["peers"]:
        number = sum(key == peer["key"] for key, _ in found)
        found[peer["key"], number] = peer
    return found


def topic_rows(node: Snapshot, before: Snapshot | None) -> Iterator[tuple[str, ...]]:
    """Return what stands in the columns for each topic; the rate of messages is that since the snapshot before."""
    earlier = {_topic(each): each for each in before["topics"]} if before is not None else {}
    for each in node["topics"]:
        last = earlier.get(_topic(each))
        if last is None or last["active_for"] >= each["active_for"]:
            last = {"messages": 0, "active_for": 0.0}
        seconds = each["active_for"] - last["active_for"]
        messages = each["messages"] - last["messages"]
        way = "multicast" if each["multicast"] else "by session"
        yield (
            each["topic"],
            "this node" if each["published"] else each["publisher"],
            str(each["subscribers"]) if each["published"] else way,
            f"{messages / seconds if seconds > 0 else 0:.1f}/s",
            str(each["repairs"]),
            str(each["gaps"]),
            duration(each["active_for"]),
        )


def _topic(status: Snapshot) -> tuple[str, str, bool]:
    return status["topic"], status["publisher"], status["published"]


def _rate(count: int, seconds: float) -> str:
    kilobytes = count / 1024 / seconds if seconds > 0 else 0.0
    return f"{kilobytes:.1f} KiB/s" if kilobytes < 1024 else f"{kilobytes / 1024:.1f} MiB/s"


def _filled(node: Snapshot, before: Snapshot | None) -> Iterator[tuple[Sequence[str], list[tuple[str, ...]]]]:
    yield _COLUMNS, list(rows(node, before))
    if topics := list(topic_rows(node, before)):
        yield _TOPIC_COLUMNS, topics


def _lines(node: Snapshot, before: Snapshot | None) -> list[Line]:
    lines: list[Line] = [[(heading(node), "bold")]]
    for columns, found in _filled(node, before):
        table: list[Sequence[str]] = [columns, *found]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append([f"  {'  '.join(cells).rstrip()}"])
    return lines


def _tables(nodes: Sequence[Snapshot], before: dict[int, Snapshot]) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    tables = []
    for node in nodes:
        title: Text | None = Text(visible(heading(node)))
        for columns, found in _filled(node, before.get(node["pid"])):
            table = Table(*columns, title=title, title_justify="left", expand=True)
            title = None
            for row in found:
                table.add_row(*(Text(visible(cell)) for cell in row))
            tables.append(table)
    return Group(*tables)
