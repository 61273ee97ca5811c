"""`mp2p ping`: measure a session with a peer."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import NodeOptions, node_options, seconds
from mp2p.cli.output import Printer
from mp2p.contact_file import find_contact

__all__ = ["Tally", "ping", "show_connected"]

_LONGEST_WAIT = 2.0  # s; a reply later than this is of no use to anybody


@dataclass(slots=True)
class Tally:
    """What became of the probes so far; one that was interrupted does not count. Times are in milliseconds."""

    sent: int = 0
    rtts: list[float] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Share of the probes without a reply, in percent."""
        return 100 * (self.sent - len(self.rtts)) / self.sent if self.sent else 0.0

    def summary(self) -> dict[str, object]:
        """Return the numbers as `--json` prints them."""
        rtt = None
        if self.rtts:
            rtt = {
                "min": round(min(self.rtts), 3),
                "median": round(statistics.median(self.rtts), 3),
                "max": round(max(self.rtts), 3),
            }
        return {
            "sent": self.sent,
            "received": len(self.rtts),
            "loss_percent": round(self.loss, 1),
            "rtt_ms": rtt,
        }


@click.command(short_help="Measure handshake, round trips and loss to a peer.")
@click.argument("contact")
@click.option(
    "-c",
    "--count",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Probes to send.",
)
@click.option(
    "-i",
    "--interval",
    type=seconds,
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Time from one probe to the next.",
)
@node_options
def ping(options: NodeOptions, contact: str, count: int, interval: float) -> int:
    """Open a session with the peer at CONTACT and measure it with encrypted probes.

    Prints how long the handshake took, the round trip time of each probe, and at the end the smallest,
    the median and the largest, and the loss. Exits 3 when no reply came at all.
    """
    peer = find_contact(contact)
    return supervise.run(lambda: _ping(options, peer, count, interval))


async def _ping(options: NodeOptions, contact: mp2p.Contact, count: int, interval: float) -> int:
    printer = options.printer
    async with options.connect(contact) as peer:
        handshake_ms = show_connected(printer, peer)
        tally = Tally()
        try:
            await _probe(peer, tally, printer, count, interval, min(options.timeout, _LONGEST_WAIT))
        finally:
            _summarize(printer, tally, handshake_ms)
    return ExitCode.DONE if tally.rtts else ExitCode.UNREACHABLE


def show_connected(printer: Printer, peer: mp2p.Peer) -> float:
    """Print how a peer was reached, and return how long the handshake took, in milliseconds."""
    handshake_ms = round(peer.handshake_time * 1000, 3)
    printer.emit(
        {"event": "connected", "key": str(peer.key), "path": peer.path, "handshake_ms": handshake_ms},
        [("connected", "bold green"), f"  handshake {handshake_ms:.1f} ms over {peer.path}"],
    )
    return handshake_ms


async def _probe(
    peer: mp2p.Peer, tally: Tally, printer: Printer, count: int, interval: float, wait: float
) -> None:
    for number in range(1, count + 1):
        due = anyio.current_time() + interval
        try:
            rtt = round(await peer.ping(timeout=wait) * 1000, 3)
        except TimeoutError:
            tally.sent += 1
            printer.emit(
                {"event": "lost", "number": number},
                [("lost", "yellow"), f"  {number}  no reply within {wait:g} s"],
            )
        else:
            tally.sent += 1
            tally.rtts.append(rtt)
            printer.emit(
                {"event": "reply", "number": number, "rtt_ms": rtt}, [f"reply  {number}  {rtt:.2f} ms"]
            )
        if number < count:
            await anyio.sleep_until(due)


def _summarize(printer: Printer, tally: Tally, handshake_ms: float) -> None:
    numbers = tally.summary()
    line = f"{tally.sent} sent, {len(tally.rtts)} replies, {tally.loss:.0f} % loss"
    if tally.rtts:
        median = statistics.median(tally.rtts)
        line += f"; round trip {min(tally.rtts):.2f} / {median:.2f} / {max(tally.rtts):.2f} ms (min / median / max)"
    printer.emit({"event": "summary", "handshake_ms": handshake_ms} | numbers, [line])
