"""What a check has found: one fact, one cause, one command."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Finding", "Level", "for_a_user", "worst"]

_FOR_ROOT: Final = (
    "firewall-cmd ", "ip link set ", "ip6tables", "iptables", "nft ", "sed -i ", "smcroutectl ", "sysctl -w ",
    "timedatectl ", "ufw ",
)  # fmt: skip


class Level(enum.IntEnum):
    """How bad a finding is. The order is that of the exit codes: the worst one counts."""

    PASS = 0
    UNKNOWN = 1
    """It could not be looked at; the finding says what would have allowed it."""
    WARN = 2
    FAIL = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    id: str
    """Stable, such as `A.firewall-udp`: the group of the check, and its name."""
    level: Level
    fact: str
    """What was seen, in one sentence."""
    cause: str = ""
    """What it means, for findings that do not pass."""
    command: str = ""
    """One command to paste; empty where none would help."""

    def as_record(self) -> dict[str, str]:
        """Return it for `--json`."""
        return {
            "id": self.id,
            "level": self.level.name,
            "fact": self.fact,
            "cause": self.cause,
            "command": self.command,
        }


def for_a_user(finding: Finding) -> Finding:
    """Have the command of a finding run as root where it must, to be pasted by somebody else."""
    if not finding.command.startswith(_FOR_ROOT):
        return finding
    return replace(finding, command="sudo " + finding.command.replace(" && ", " && sudo "))


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level; UNKNOWN is no worse than PASS, since nothing is known to be wrong."""
    levels = {finding.level for finding in findings} - {Level.UNKNOWN}
    return max(levels, default=Level.PASS)
