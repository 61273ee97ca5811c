"""`mp2p doctor`: why the network does not carry what it should, and what to do about it."""

from __future__ import annotations

from collections import Counter
from typing import Final

import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.groups import planned_groups
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.output import Line, Printer
from mp2p.doctor.alone import check_alone
from mp2p.doctor.findings import Finding, Level, worst
from mp2p.doctor.firewall import check_firewall
from mp2p.doctor.host import check_host, eligible
from mp2p.doctor.system import LocalSystem
from mp2p.doctor.wanted import Wanted
from mp2p_core.keyfile import load_or_create_identity
from mp2p_core.opening import select
from mp2p_core.proto.addresses import ip

__all__ = ["doctor"]

_STYLE: Final = {Level.PASS: "green", Level.UNKNOWN: "cyan", Level.WARN: "yellow", Level.FAIL: "bold red"}


@click.command(short_help="Find out why the network does not carry what it should.")
@node_options
def doctor(options: NodeOptions) -> int:
    """Check this machine and its network for everything that is known to stop multicast.

    Each check prints PASS, WARN, FAIL, or UNKNOWN with what was seen, and for what is wrong one cause and one
    command to paste. It changes nothing. Root sees more (the firewall's rules) and is not needed. Exits 5 when
    something failed.
    """
    return supervise.run(lambda: _doctor(options))


async def _doctor(options: NodeOptions) -> int:
    printer = options.printer
    key = load_or_create_identity(options.key or mp2p.default_key_path()).public.raw
    groups = [ip(address) for _, address in planned_groups(options, select(options.transports or None), key)]
    wanted = Wanted(tuple(groups), options.port, options.interfaces)
    system = LocalSystem()
    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        _print(printer, finding)

    for finding in check_host(system, wanted):
        tell(finding)
    for finding in check_firewall(system, wanted, eligible(system, wanted)):
        tell(finding)
    async for finding in check_alone(system, wanted, options.reach):
        tell(finding)
    _summarize(printer, findings)
    return ExitCode.LOCAL_NETWORK if worst(findings) is Level.FAIL else ExitCode.DONE


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
    words = ", ".join(f"{counts[each]} {each.name}" for each in Level if counts[each])
    printer.emit(
        {"event": "summary", "worst": level.name, **{each.name.lower(): counts[each] for each in Level}},
        [(f"{level.name:<8}", _STYLE[level]), words],
    )
