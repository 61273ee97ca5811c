"""Group A, the firewall: whether datagrams, and the queries that keep memberships alive, get in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from mp2p.doctor.findings import Finding, Level
from mp2p.doctor.nftables import Arrival, Rule, Ruleset, parse
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
    """The match of a rule that would let it in."""
    ufw: str
    firewalld: str


def check_firewall(system: System, wanted: Wanted, usable: Sequence[Interface]) -> Iterator[Finding]:
    """Ask the ruleset about each packet that a node needs; UNKNOWN where it cannot be read."""
    questions = [question for interface in usable[:1] for question in _questions(wanted, interface.name)]
    listing = system.run("nft", "-j", "list", "ruleset")
    ruleset = parse(listing) if listing is not None else None
    if ruleset is None:
        for question in questions:
            if system.privileged:
                yield Finding(question.id, Level.UNKNOWN, "Not looked at: nft is not installed, or failed.")
            else:
                fact = "Not looked at: reading the ruleset takes root."
                yield Finding(question.id, Level.UNKNOWN, fact, "", "sudo mp2p doctor")
        return
    for question in questions:
        yield _answer(system, ruleset, question)


def _answer(system: System, ruleset: Ruleset, question: _Question) -> Finding:
    verdict = ruleset.ask(question.arrival)
    if verdict.rule is None:
        return Finding(question.id, Level.PASS, f"The firewall lets {question.what} in.")
    where = _where(verdict.rule)
    level, may = (Level.FAIL, "drops") if verdict.outcome == "drop" else (Level.WARN, "may drop")
    return Finding(
        question.id, level, f"The firewall {may} {question.what} ({where}).", question.cause,
        _command(system, verdict.rule, question),
    )  # fmt: skip


def _where(rule: Rule) -> str:
    chain = f"table {rule.family} {rule.table}, chain {rule.chain}"
    return f"the policy of {chain}" if rule.handle is None else f"{chain}, rule handle {rule.handle}"


def _command(system: System, rule: Rule, question: _Question) -> str:
    if "active" in (system.run("ufw", "status") or "").split():
        return question.ufw
    if (system.run("firewall-cmd", "--state") or "").strip() == "running":
        return question.firewalld
    return f"nft insert rule {rule.family} {rule.table} {rule.chain} {question.rule} accept"


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
                "ip protocol igmp", "ufw allow proto igmp from any",
                "firewall-cmd --permanent --add-protocol=igmp",
            )  # fmt: skip
        else:
            yield _Question(
                "A.firewall-mld", "MLD queries", 6,
                _arrival(6, interface, "ff02::1", {
                    "meta.l4proto": "ipv6-icmp", "icmpv6.type": _MLD_QUERY, "ct.state": "untracked",
                }),
                f"The router's questions are not heard, so they are not answered: {forgets}",
                f"icmpv6 type {_MLD_QUERY}",
                "sed -i '/^COMMIT/i -A ufw6-before-input -p icmpv6 --icmpv6-type 130 -j ACCEPT' /etc/ufw/before6.rules",
                "firewall-cmd --permanent --add-rich-rule='rule family=ipv6 icmp-type name=mld-listener-query accept'",
            )  # fmt: skip


def _arrival(version: int, interface: str, group: str, values: dict[str, str | int]) -> Arrival:
    address = "ip.daddr" if version == 4 else "ip6.daddr"
    return Arrival(
        version, {"meta.iifname": interface, "meta.pkttype": "multicast", address: group, **values}
    )
