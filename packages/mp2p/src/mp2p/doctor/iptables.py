"""Read what `iptables -S` prints, in the terms of `nft -j list ruleset` (iptables(8), iptables-extensions(8)).

For the old kind of iptables ("legacy"), which nft does not see, and for the rules of the new kind that nft can only
name: `Ruleset` then answers for all of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, Final

from mp2p.doctor.nftables import Entry

__all__ = ["TABLES", "read_rules"]

TABLES: Final = {"raw": -300, "mangle": -150, "filter": 0}
"""The tables that decide about what arrives, and the priority of their chains."""

_HOOKS: Final = {"PREROUTING": "prerouting", "INPUT": "input"}
_PROTOCOLS: Final = {"2": "igmp", "6": "tcp", "17": "udp", "58": "ipv6-icmp", "icmpv6": "ipv6-icmp"}
_ICMPV6: Final = {"130": "mld-listener-query", "131": "mld-listener-report", "143": "mld2-listener-report"}
_UNDERSTOOD: Final = frozenset(
    {"addrtype", "comment", "conntrack", "icmp6", "multiport", "pkttype", "state", "tcp", "udp"}
)
_TARGETS: Final = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}


def read_rules(text: str, program: str, table: str, version: int) -> list[Entry]:
    """Translate the rules of one table. What is not understood becomes an expression that nobody understands.

    Raises ValueError, KeyError or IndexError for what is no such listing.
    """
    entries: list[Entry] = []
    place = {"program": program, "family": "ip" if version == 4 else "ip6", "table": table}
    rules: dict[str, int] = {}
    for line in filter(None, text.splitlines()):
        command, name, *words = shlex.split(line)
        if command == "-A":
            rules[name] += 1
            expressions = list(_expressions(words, frozenset(rules), version))
            entries.append({"rule": {**place, "chain": name, "handle": rules[name], "expr": expressions}})
        else:
            rules[name] = 0
            chain: dict[str, Any] = {**place, "name": name}
            if (hook := _HOOKS.get(name)) is not None:
                chain |= {"type": "filter", "hook": hook, "policy": words[0].lower()}
            entries.append({"chain": {**chain, "prio": TABLES[table]}})
    return entries


def _expressions(words: list[str], chains: frozenset[str], version: int) -> Iterator[Entry]:
    rest = iter(words)
    protocol = ""
    op = "=="
    for word in rest:
        if word == "!":
            op = "!="
            continue
        if word in ("-j", "-g"):
            yield _target(next(rest), chains, goto=word == "-g")
            return
        if word == "-f" or (word == "-m" and next(rest) not in _UNDERSTOOD):
            yield {"xt": None}  # the options of such a match are passed over below
        elif word == "--comment":
            next(rest)
        elif word == "-p":
            name = next(rest)
            protocol = _PROTOCOLS.get(name, name)
            yield _match(op, {"meta": {"key": "l4proto"}}, protocol)
        elif (left := _compared(word, protocol, version)) is not None:
            values = [_value(word, each) for each in next(rest).split(",")]
            yield _match(op, left, values[0] if len(values) == 1 else {"set": values})
        op = "=="


def _compared(word: str, protocol: str, version: int) -> Entry | None:
    """Name what an option compares."""
    ip = "ip" if version == 4 else "ip6"
    match word:
        case "-i":
            return {"meta": {"key": "iifname"}}
        case "-d" | "-s":
            return _field(ip, "daddr" if word == "-d" else "saddr")
        case "--dport" | "--dports" | "--sport" | "--sports":
            return _field(protocol, word[2:7])
        case "--icmpv6-type":
            return _field("icmpv6", "type")
        case "--ctstate" | "--state":
            return {"ct": {"key": "state"}}
        case "--pkt-type" | "--dst-type":
            return {"meta": {"key": "pkttype"}}
        case _:
            return None


def _field(protocol: str, name: str) -> Entry:
    return {"payload": {"protocol": protocol, "field": name}}


def _value(word: str, text: str) -> Any:
    """Write one value as nft does."""
    if word == "-i":
        return text[:-1] + "*" if text.endswith("+") else text
    if word in ("-d", "-s"):
        address, _, length = text.partition("/")
        if not length:
            return address
        return {"prefix": {"addr": address, "len": int(length)}} if length.isdigit() else {"mask": length}
    if "port" in word:
        low, colon, high = text.partition(":")
        return {"range": [int(low), int(high)]} if colon else int(low)
    return _ICMPV6.get(text, text.lower())


def _match(op: str, left: Entry, right: Any) -> Entry:
    return {"match": {"op": op, "left": left, "right": right}}


def _target(name: str, chains: frozenset[str], *, goto: bool) -> Entry:
    if name in chains:
        return {"goto" if goto else "jump": {"target": name}}
    # All others let the packet go on: they log, mark or count it.
    return {_TARGETS.get(name, "log"): None}
