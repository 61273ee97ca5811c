"""`mp2p bench`: measure calls and streams, to a peer or between two processes of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

import mp2p
from mp2p.bench import CallFigures, Direction, StreamFigures, check_served, measure_calls, measure_stream
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import NodeOptions, node_options, seconds
from mp2p.cli.output import Printer
from mp2p.cli.ping import show_connected
from mp2p.cli.process import start
from mp2p.contact_file import find_contact

__all__ = ["bench"]

_DIRECTIONS: tuple[Direction, ...] = ("to the peer", "from the peer")


@click.command(short_help="Measure calls and throughput.")
@click.argument("contact", required=False)
@click.option(
    "--seconds",
    "lasting",
    type=seconds,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each of the four measurements takes; a peer sends for 60 at most.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 100),
    default=64,
    show_default=True,
    metavar="N",
    help="Calls at once, in the second measurement.",
)
@node_options
def bench(options: NodeOptions, contact: str | None, lasting: float, parallel: int) -> int:
    """Measure how many calls a second the peer at CONTACT answers, and how fast bytes reach it and come back.

    The peer runs `mp2p serve mp2p.bench:Bench --allow KEY`. Without CONTACT another process on this machine answers:
    both have fresh keys that are kept nowhere, and nothing leaves the machine; of the options --transport (default
    v4), --timeout and --json matter then.

    Beside each figure stands how much of one processor it took, here and at the peer: near 100 % that device is what
    holds it back; where both are well below, it is the network, or waiting for each other.
    """
    peer = find_contact(contact) if contact is not None else None
    return supervise.run(lambda: _bench(options, peer, lasting, parallel))


async def _bench(options: NodeOptions, contact: mp2p.Contact | None, lasting: float, parallel: int) -> int:
    printer = options.printer
    async with options.connect(contact) if contact is not None else _here(options) as peer:
        show_connected(printer, peer)
        with options.patience():
            await check_served(peer)
        for count in dict.fromkeys((1, parallel)):
            _show_calls(printer, await measure_calls(peer, lasting, parallel=count))
        for direction in _DIRECTIONS:
            _show_stream(printer, await measure_stream(peer, lasting, direction))
    return ExitCode.DONE


@asynccontextmanager
async def _here(options: NodeOptions) -> AsyncIterator[mp2p.Peer]:
    """Connect to another process of this machine."""
    transport, *more = options.transports or ("v4",)
    if more:
        raise mp2p.UsageError("without CONTACT one transport is measured at a time: name one --transport")
    identity = mp2p.Identity.generate()
    async with (
        start("the answering process", "-m", "mp2p.cli.bench_peer", "answering", transport) as answering,
        mp2p.open_node(identity, transports=[transport], reach=mp2p.Reach.HOST) as node,
    ):
        await answering.order(allow=str(identity.public))
        contact = (await answering.expect("serving"))["contact"]
        async with node.connect(contact, timeout=options.timeout) as peer:
            yield peer


def _show_calls(printer: Printer, figures: CallFigures) -> None:
    median, slowest = (round(1000 * took, 3) for took in (figures.median, figures.slowest_percent))
    printer.emit(
        {
            "event": "calls",
            "parallel": figures.parallel,
            "calls": figures.calls,
            "calls_per_second": round(figures.rate, 1),
            "median_ms": median,
            "p99_ms": slowest,
        }
        | _times(figures),
        [
            ("calls", "bold"),
            f"  {'one after another' if figures.parallel == 1 else f'{figures.parallel} at once':<17}"
            f"  {figures.rate:>9,.0f}/s     {_processors(figures)}"
            f"  {median:.2f} ms, 99 of 100 within {slowest:.2f} ms",
        ],
    )


def _show_stream(printer: Printer, figures: StreamFigures) -> None:
    printer.emit(
        {
            "event": "stream",
            "direction": figures.direction,
            "bytes": figures.size,
            "bytes_per_second": round(figures.rate),
        }
        | _times(figures),
        [
            ("bytes", "bold"),
            f"  {figures.direction:<17}  {figures.rate / 1e6:>9,.1f} MB/s  {_processors(figures)}",
        ],
    )


def _times(figures: CallFigures | StreamFigures) -> dict[str, object]:
    return {
        "seconds": round(figures.seconds, 3),
        "cpu_seconds_here": round(figures.cpu_here, 3),
        "cpu_seconds_there": round(figures.cpu_there, 3),
    }


def _processors(figures: CallFigures | StreamFigures) -> str:
    here, there = (100 * used / figures.seconds for used in (figures.cpu_here, figures.cpu_there))
    return f"processor {here:3.0f} % here, {there:3.0f} % there"
