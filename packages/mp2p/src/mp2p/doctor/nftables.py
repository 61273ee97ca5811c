"""Ask an nftables ruleset, as `nft -j list ruleset` prints it, what becomes of a packet that arrives.

No firewall is imitated beyond what decides about multicast: a match that is not understood counts as
"perhaps", and the answer then lists all that may happen (libnftables-json(5)).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any, Final, NamedTuple, TypeAlias

__all__ = ["Arrival", "Entry", "Rule", "Ruleset", "Verdict", "parse"]

Entry: TypeAlias = Mapping[str, Any]
"""A chain, a set or a rule, as nft's JSON has it."""

_HOOKS: Final = ("prerouting", "input")
_TERMINAL: Final = {"accept": "accept", "drop": "drop", "reject": "drop"}
_HARMLESS: Final = frozenset({"counter", "log", "comment"})
_MAX_JUMPS: Final = 16  # the kernel's own bound
_GO_ON: Final = "go on"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet to ask about; `values` are what rules may match on, by "protocol.field" or "meta.key"."""

    version: int
    values: Mapping[str, str | int]


class Rule(NamedTuple):
    """Where a verdict was found; `handle` is None for the policy of a chain, and counts rules with iptables."""

    program: str
    """Whose it is: "nft", or "iptables-legacy" and the like."""
    family: str
    table: str
    chain: str
    handle: int | None


class Verdict(NamedTuple):
    """What becomes of the packet: "accept", "drop" or "unknown", and by which rule it may be dropped."""

    outcome: str
    rule: Rule | None


@dataclass(slots=True)
class _Chain:
    program: str
    family: str
    table: str
    name: str
    hook: str
    priority: int
    policy: str
    rules: list[tuple[int, list[Any]]] = field(default_factory=list)

    def place(self, handle: int | None) -> Rule:
        """Name one of its rules."""
        return Rule(self.program, self.family, self.table, self.name, handle)


def parse(text: str) -> list[Entry] | None:
    """Read what `nft -j list ruleset` printed; None when it is not that."""
    try:
        entries: list[Entry] = json.loads(text)["nftables"]
        Ruleset(entries)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return entries


class Ruleset:
    """A ruleset, and questions to it. Entries without a "program" are nft's own."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._chains: dict[tuple[str, str, str, str], _Chain] = {}
        self._sets: dict[tuple[str, str, str], list[Any]] = {}
        for entry in entries:
            if (chain := entry.get("chain")) is not None:
                key = chain.get("program", "nft"), chain["family"], chain["table"], chain["name"]
                priority = chain.get("prio", 0)
                self._chains[key] = _Chain(
                    *key,
                    hook=chain.get("hook", "") if chain.get("type") == "filter" else "",
                    priority=priority if isinstance(priority, int) else 0,
                    policy=chain.get("policy", "accept"),
                )
            elif (named := entry.get("set")) is not None:
                self._sets[named["family"], named["table"], named["name"]] = named.get("elem", [])
        for entry in entries:
            if (rule := entry.get("rule")) is not None:
                key = rule.get("program", "nft"), rule["family"], rule["table"], rule["chain"]
                self._chains[key].rules.append((rule.get("handle", 0), rule.get("expr", [])))

    def ask(self, packet: Arrival) -> Verdict:
        """Follow a packet from the wire to a socket through every chain it passes."""
        doubt: Rule | None = None
        for chain in self._path(packet.version):
            outcomes: dict[str, Rule] = {}
            for outcome, rule in self._walk(chain, packet, 0):
                outcomes.setdefault(outcome, rule)
            ends = {outcome for outcome in outcomes if outcome != _GO_ON}
            if _GO_ON in outcomes:
                policy = _TERMINAL.get(chain.policy, "accept")
                outcomes.setdefault(policy, chain.place(None))
                ends.add(policy)
            if ends == {"drop"}:
                return Verdict("drop", outcomes["drop"])
            if "drop" in ends and doubt is None:
                doubt = outcomes["drop"]
        return Verdict("accept", None) if doubt is None else Verdict("unknown", doubt)

    def _path(self, version: int) -> list[_Chain]:
        families = ("inet", "ip" if version == 4 else "ip6")
        chains = [c for c in self._chains.values() if c.family in families and c.hook in _HOOKS]
        return sorted(chains, key=lambda chain: (_HOOKS.index(chain.hook), chain.priority))

    def _walk(self, chain: _Chain, packet: Arrival, depth: int) -> Iterator[tuple[str, Rule]]:
        """Yield everything that may happen in a chain, each once it is known to be possible."""
        if depth > _MAX_JUMPS:
            return
        for handle, expressions in chain.rules:
            here = chain.place(handle)
            certain = True
            for expression in expressions:
                kind: str = next(iter(expression), "")
                detail: Any = expression.get(kind)
                if kind == "match":
                    matches = self._matches(chain, detail, packet)
                    if matches is False:
                        break
                    certain = certain and matches is True
                elif kind in _TERMINAL:
                    yield _TERMINAL[kind], here
                    if certain:
                        return
                    break
                elif kind == "return":
                    yield _GO_ON, here
                    if certain:
                        return
                    break
                elif kind in ("jump", "goto"):
                    target = self._chains.get((chain.program, chain.family, chain.table, detail["target"]))
                    inner = list(self._walk(target, packet, depth + 1)) if target else [(_GO_ON, here)]
                    goes_on = any(outcome == _GO_ON for outcome, _ in inner)
                    # From a goto, what the target lets through goes to the policy, not to the next rule.
                    yield from (each for each in inner if kind == "goto" or each[0] != _GO_ON)
                    if certain and (kind == "goto" or not goes_on):
                        return
                elif kind not in _HARMLESS:
                    certain = False
        yield _GO_ON, chain.place(None)

    def _matches(self, chain: _Chain, match: Mapping[str, Any], packet: Arrival) -> bool | None:
        """Compare; None when this cannot tell."""
        name = _name(match.get("left"))
        if name is None:
            return None
        protocol = name.partition(".")[0]
        if protocol in ("ip", "ip6") and protocol != ("ip" if packet.version == 4 else "ip6"):
            return False
        if protocol in ("tcp", "udp", "icmp", "icmpv6", "igmp"):
            carried = packet.values["meta.l4proto"]
            if carried != {"icmpv6": "ipv6-icmp"}.get(protocol, protocol):
                return False
        value = packet.values.get(name)
        if value is None:
            return None
        equal = self._equal(chain, value, match.get("right"))
        if match.get("op") in ("==", "in"):
            return equal
        if match.get("op") == "!=":
            return None if equal is None else not equal
        return None

    def _equal(self, chain: _Chain, value: str | int, right: Any) -> bool | None:
        if isinstance(right, str) and right.startswith("@"):
            elements = self._sets.get((chain.family, chain.table, right[1:]))
            return None if elements is None else self._any(chain, value, elements)
        if isinstance(right, list):
            return self._any(chain, value, right)
        if isinstance(right, dict):
            if "set" in right:
                return self._any(chain, value, right["set"])
            if "range" in right:
                low, high = (_ordered(each) for each in right["range"])
                return bool(low <= _ordered(value) <= high)
            if "prefix" in right:
                network = ip_network(f"{right['prefix']['addr']}/{right['prefix']['len']}", strict=False)
                return ip_address(value) in network
            if "elem" in right:
                return self._equal(chain, value, right["elem"].get("val"))
            return None
        if isinstance(right, str) and isinstance(value, str) and "*" in right:
            return fnmatchcase(value, right)
        return bool(_ordered(value) == _ordered(right))

    def _any(self, chain: _Chain, value: str | int, elements: Sequence[Any]) -> bool | None:
        found = [self._equal(chain, value, element) for element in elements]
        return True if True in found else None if None in found else False


def _name(left: Any) -> str | None:
    """Name what a match looks at, as `Arrival.values` does."""
    if not isinstance(left, dict):
        return None
    if (payload := left.get("payload")) is not None and "field" in payload:
        name = f"{payload['protocol']}.{payload['field']}"
        return "meta.l4proto" if name in ("ip.protocol", "ip6.nexthdr") else name
    if (meta := left.get("meta")) is not None:
        key = {"iif": "iifname"}.get(meta["key"], meta["key"])
        return f"meta.{key}"
    if (ct := left.get("ct")) is not None and ct.get("key") == "state":
        return "ct.state"
    if (fib := left.get("fib")) is not None and fib.get("result") == "type" and fib.get("flags") == ["daddr"]:
        return "meta.pkttype"
    return None


def _ordered(value: Any) -> tuple[int, int] | tuple[int, str]:
    """Make addresses and numbers comparable, and everything else at least equal to itself."""
    if isinstance(value, int):
        return 0, value
    try:
        return 1, int(ip_address(value))
    except ValueError:
        return 2, str(value)
