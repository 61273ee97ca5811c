"""Group A, the firewall: whether datagrams, and the queries that keep memberships alive, get in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from mp2p.doctor.findings import Finding, Level
from mp2p.doctor.iptables import TABLES, read_rules
from mp2p.doctor.nftables import Arrival, Entry, Rule, Ruleset, parse
from mp2p.doctor.system import System
from mp2p.doctor.wanted import Wanted
from mp2p_udp import Interface

__all__ = ["check_firewall"]

_MLD_QUERY: Final = "mld-listener-query"


class _Question(NamedTuple):
    """A packet that must get in, and what to say when it does not."""

    id: str
    what: str
    version: int
    arrival: Arrival
    cause: str
    rule: str
    """The match of a rule that would let it in, in the words of nft."""
    options: str
    """The same in those of iptables."""
    ufw: str
    firewalld: str


def check_firewall(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    """Ask the rules about each packet that a node needs; UNKNOWN where they cannot be read."""
    entries, unread = _read_rules(system)
    ruleset = Ruleset(entries)
    manager = _manager(system)
    for question in (each for interface in usable[:1] for each in _questions(wanted, interface.name)):
        verdict = ruleset.ask(question.arrival)
        if verdict.rule is not None:
            yield _drops(verdict.outcome, verdict.rule, question, manager)
        elif unread and system.privileged:
            fact = f"Not known whether {question.what} gets in: {' and '.join(unread)} could not be read."
            yield Finding(question.id, Level.UNKNOWN, fact)
        elif unread:
            fact = f"Not looked at: root can read the rules, and tell whether they let {question.what} in."
            yield Finding(question.id, Level.UNKNOWN, fact + _known(system, manager), "", "sudo mp2p doctor")
        else:
            yield Finding(question.id, Level.PASS, f"The firewall lets {question.what} in.")


def _read_rules(system: System) -> tuple[list[Entry], list[str]]:
    """Return all rules there are, of nft and of both kinds of iptables, and what could not be read."""
    listing = system.run("nft", "-j", "list", "ruleset")
    entries = parse(listing) if listing is not None else None
    unread: list[str] = []
    found = list(entries or ())
    legacy_read = False
    for version, ip in ((4, "ip"), (6, "ip6")):
        # The old kind's rules are not nft's to show; listing tables that are not there would make them.
        legacy = (system.read(f"/proc/net/{ip}_tables_names") or "").split()
        for table in TABLES:
            if table in legacy:
                rules = _listed(system, (f"{ip}tables-legacy", f"{ip}tables"), table, version)
                if rules is None:
                    unread.append(f"table {table} of {ip}tables-legacy")
                legacy_read = legacy_read or rules is not None
                found += rules or ()
            # Of the new kind's rules nft shows the matches of its own, and names the others.
            if any(_is_partly_shown(each, ip, table) for each in found):
                rules = _listed(system, (f"{ip}tables-nft",), table, version)
                if rules is not None:
                    found = [each for each in found if not _is_of(each, ip, table)] + rules
    if entries is None and not legacy_read:  # whoever uses the old kind has no rules of the new one
        unread.append("the rules of nft, which is not installed, or failed,")
    return found, unread


def _listed(system: System, programs: Sequence[str], table: str, version: int) -> list[Entry] | None:
    for program in programs:
        if (text := system.run(program, "-t", table, "-S")) is not None:
            try:
                return read_rules(text, program, table, version)
            except (ValueError, KeyError, IndexError):
                return None
    return None


def _is_of(entry: Entry, family: str, table: str) -> bool:
    """Tell whether an entry is a chain or a rule of one of nft's tables."""
    body = entry.get("rule") or entry.get("chain") or {}
    return (body.get("program"), body.get("family"), body.get("table")) == (None, family, table)


def _is_partly_shown(entry: Entry, family: str, table: str) -> bool:
    rule = entry.get("rule")
    return rule is not None and _is_of(entry, family, table) and any("xt" in each for each in rule["expr"])


def _manager(system: System) -> str:
    """Name the program that makes the rules, where it is a known one; not all of this takes root."""
    enabled = "ENABLED=yes" in (system.read("/etc/ufw/ufw.conf") or "").split()
    if enabled or "active" in (system.run("ufw", "status") or "").split():
        return "ufw"
    if (system.run("firewall-cmd", "--state") or "").strip() == "running":
        return "firewalld"
    return ""


def _known(system: System, manager: str) -> str:
    """Say what anybody may know of the firewall."""
    if not manager:
        return ""
    default = system.read("/etc/default/ufw") or ""
    refuses = manager == "firewalld" or any(
        f'DEFAULT_INPUT_POLICY="{policy}"' in default for policy in ("DROP", "REJECT")
    )
    return f" {manager} is on{', and lets in what it is told to' if refuses else ''}."


def _drops(outcome: str, rule: Rule, question: _Question, manager: str) -> Finding:
    level, may = (Level.FAIL, "drops") if outcome == "drop" else (Level.WARN, "may drop")
    fact = f"The firewall {may} {question.what} ({_where(rule)})."
    return Finding(question.id, level, fact, question.cause, _command(rule, question, manager))


def _where(rule: Rule) -> str:
    if rule.program == "nft":
        chain = f"table {rule.family} {rule.table}, chain {rule.chain}"
        return f"the policy of {chain}" if rule.handle is None else f"{chain}, rule handle {rule.handle}"
    chain = f"{rule.program} -t {rule.table}, chain {rule.chain}"
    return f"the policy of {chain}" if rule.handle is None else f"{chain}, rule {rule.handle}"


def _command(rule: Rule, question: _Question, manager: str) -> str:
    if manager:
        return question.ufw if manager == "ufw" else f"{question.firewalld} && firewall-cmd --reload"
    if rule.program == "nft":
        return f"nft insert rule {rule.family} {rule.table} {rule.chain} {question.rule} accept"
    return f"{rule.program} -t {rule.table} -I {rule.chain} {question.options} -j ACCEPT"


def _questions(wanted: Wanted, interface: str) -> Iterator[_Question]:
    for group in wanted.groups:
        version = group.version
        ip = "ip" if version == 4 else "ip6"
        yield _Question(
            f"A.firewall-udp-v{version}", f"UDP to {group} port {wanted.port}", version,
            _arrival(version, interface, str(group), {
                "meta.l4proto": "udp", "udp.dport": wanted.port, "udp.sport": wanted.port, "ct.state": "new",
            }),
            "Peers cannot reach this machine: their first datagrams are dropped without a word.",
            f"{ip} daddr {group} udp dport {wanted.port}",
            f"-d {group} -p udp --dport {wanted.port}",
            f"ufw allow proto udp to {group} port {wanted.port}",
            f"firewall-cmd --permanent --add-port={wanted.port}/udp",
        )  # fmt: skip
        forgets = (
            "the switch forgets this machine some minutes after it joined, and nothing arrives any more."
        )
        if version == 4:
            yield _Question(
                "A.firewall-igmp", "IGMP queries", 4,
                _arrival(4, interface, "224.0.0.1", {"meta.l4proto": "igmp", "ct.state": "new"}),
                f"The router's questions are not heard, so they are not answered: {forgets}",
                "ip protocol igmp", "-p igmp", "ufw allow proto igmp from any",
                "firewall-cmd --permanent --add-protocol=igmp",
            )  # fmt: skip
        else:
            yield _Question(
                "A.firewall-mld", "MLD queries", 6,
                _arrival(6, interface, "ff02::1", {
                    "meta.l4proto": "ipv6-icmp", "icmpv6.type": _MLD_QUERY, "ct.state": "untracked",
                }),
                f"The router's questions are not heard, so they are not answered: {forgets}",
                f"icmpv6 type {_MLD_QUERY}", "-p ipv6-icmp --icmpv6-type 130",
                "sed -i '/^COMMIT/i -A ufw6-before-input -p icmpv6 --icmpv6-type 130 -j ACCEPT' /etc/ufw/before6.rules"
                " && ufw reload",
                "firewall-cmd --permanent --add-rich-rule='rule family=ipv6 icmp-type name=mld-listener-query accept'",
            )  # fmt: skip


def _arrival(version: int, interface: str, group: str, values: dict[str, str | int]) -> Arrival:
    address = "ip.daddr" if version == 4 else "ip6.daddr"
    return Arrival(
        version, {"meta.iifname": interface, "meta.pkttype": "multicast", address: group, **values}
    )
