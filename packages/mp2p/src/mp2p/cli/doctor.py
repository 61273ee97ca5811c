"""`mp2p doctor`: why the network does not carry what it should, and what to do about it."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.examination import Examination
from mp2p.cli.listen import allow_option, read_access
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Line, Printer
from mp2p.contact_file import find_contact
from mp2p.doctor.answering import Asked
from mp2p.doctor.findings import Finding, Level, worst
from mp2p_core.access import access_for
from mp2p_core.proto.responder import Access

__all__ = ["doctor"]

_WATCH_EVERY: Final = 5.0
_ASKED_AGAIN: Final = 10.0
"""Seconds of quiet after which --listen tells again that a peer has asked."""
_ASKED_SIZE: Final = 64
_WORDS: Final = {
    Level.PASS: "passed",
    Level.UNKNOWN: "unknown",
    Level.WARN: "warned of",
    Level.FAIL: "failed",
}
_STYLE: Final = {Level.PASS: "green", Level.UNKNOWN: "cyan", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command(short_help="Find out why the network does not carry what it should.")
@click.option(
    "--pair", "contact", metavar="CONTACT", help="Also try the network to this peer, which runs --listen."
)
@click.option(
    "--host", metavar="ADDRESS", help="With --pair: the peer's IP address, to try unicast beside multicast."
)
@click.option(
    "--listen", "listening", is_flag=True, help="Answer the questions of --pair from another machine."
)
@click.option("--watch", is_flag=True, help="Go on, and print what changes.")
@allow_option
@node_options
def doctor(
    options: NodeOptions,
    contact: str | None,
    host: str | None,
    listening: bool,
    watch: bool,
    allow: Sequence[str],
) -> int:
    """Check this machine and its network for everything that is known to stop multicast.

    Each check prints PASS, WARN, FAIL, or UNKNOWN with what was seen, and for what is wrong one cause and one
    command to paste. It changes nothing. Root sees more (the firewall's rules) and is not needed. Exits 5 when
    something failed.

    For the network between two machines, run `mp2p doctor --listen` on one and `mp2p doctor --pair CONTACT` on the
    other.
    """
    if listening and contact is not None:
        raise mp2p.UsageError("--listen and --pair are for two machines: give one of them on each")
    if host is not None and contact is None:
        raise mp2p.UsageError("--host goes with --pair CONTACT")
    _, allowed = read_access(allow)
    peer = find_contact(contact) if contact is not None else None
    return supervise.run(lambda: _doctor(options, peer, host, access_for(allowed), listening, watch))


async def _doctor(
    options: NodeOptions,
    peer: mp2p.Contact | None,
    host: str | None,
    access: Access,
    listening: bool,
    watch: bool,
) -> int:
    examination = Examination(options)
    last: dict[str, Finding] = {}
    while True:
        findings = []
        async for finding in examination.run(peer, host):
            findings.append(finding)
            if last.get(finding.id) != finding:
                _print(options.printer, finding)
        if not last or any(last.get(finding.id) != finding for finding in findings):
            _summarize(options.printer, findings)
        last = {finding.id: finding for finding in findings}
        if not watch:
            break
        await anyio.sleep(_WATCH_EVERY)
    if listening:
        await _listen(options, examination, access)
    return ExitCode.LOCAL_NETWORK if worst(findings) is Level.FAIL else ExitCode.DONE


async def _listen(options: NodeOptions, examination: Examination, access: Access) -> None:
    # Each question of a round, of which there are some hundred, would be a line.
    told: OrderedDict[Asked, float] = OrderedDict()

    def tell(asked: Asked) -> None:
        now = anyio.current_time()
        known = now < told.pop(asked, -math.inf) + _ASKED_AGAIN
        told[asked] = now
        # Attack: whoever knows the key asks under ever new names. Bounded; it costs lines, as before.
        if len(told) > _ASKED_SIZE:
            told.popitem(last=False)
        if known:
            return
        options.printer.emit(
            {"event": "asked", "key": asked.key, "how": asked.how, "source": asked.source},
            [("asked   ", "green"), f"by {asked.key}, from {asked.source}, {asked.how}"],
        )

    contact = str(mp2p.Contact(examination.own, ()))
    options.printer.emit(
        {"event": "listening", "contact": contact},
        ["Answering. On the other machine: ", (f"mp2p doctor --pair {contact}", "bold")],
    )
    await examination.listen(access, tell)


def _print(printer: Printer, finding: Finding) -> None:
    lines: list[Line] = [
        [(f"{finding.level.name:<8}", _STYLE[finding.level]), f"{finding.id:<20}  {finding.fact}"]
    ]
    if finding.cause:
        lines.append([" " * 30, finding.cause])
    if finding.command:
        lines.append([" " * 30, ("$ " + finding.command, "bold")])
    printer.emit({"event": "finding", **finding.as_record()}, *lines)


def _summarize(printer: Printer, findings: list[Finding]) -> None:
    counts = Counter(finding.level for finding in findings)
    level = worst(findings)
    words = ", ".join(f"{counts[each]} {_WORDS[each]}" for each in reversed(Level) if counts[each]) + "."
    printer.emit(
        {"event": "summary", "worst": level.name, **{each.name.lower(): counts[each] for each in Level}},
        [(words, _STYLE[level])],
    )
