"""Group A of the doctor, on made-up machines: each fault is named, with its cause and a command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface

import pytest

from mp2p.doctor.findings import Finding, Level, for_a_user, worst
from mp2p.doctor.firewall import check_firewall
from mp2p.doctor.host import check_host, eligible
from mp2p.doctor.wanted import Wanted
from mp2p_udp import Interface

UP = frozenset({"up", "running", "multicast"})
LO = Interface("lo", 1, frozenset({"up", "running", "loopback"}), (ip_interface("127.0.0.1/8"),), 65536)
ETH0 = Interface("eth0", 2, UP, (ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")), 1500)
ETH1 = replace(ETH0, name="eth1", index=3, addresses=(ip_interface("198.51.100.1/24"),))
TUN = Interface("tun0", 4, frozenset({"up", "running", "pointopoint"}), (ip_interface("10.0.0.1/32"),), 1400)

BOTH = Wanted((ip_address("224.0.230.7"), ip_address("ff1e::9000:1")), 1024)

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
{}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
"""


@dataclass
class Machine:
    """A healthy one, unless told otherwise."""

    devices: Sequence[Interface] = (LO, ETH0)
    files: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    privileged: bool = True

    def read(self, path: str) -> str | None:
        healthy = {
            "/proc/net/route": ROUTES.format("eth0"),
            "/proc/sys/net/ipv4/conf/all/rp_filter": "0",
            "/proc/sys/net/ipv4/conf/eth0/rp_filter": "2",
            "/proc/sys/net/ipv4/conf/eth1/rp_filter": "2",
            "/proc/sys/net/ipv4/igmp_max_memberships": "20",
            "/proc/sys/net/ipv6/conf/all/disable_ipv6": "0",
            "/proc/sys/net/core/rmem_max": "212992",
            "/proc/sys/kernel/osrelease": "6.18.0-generic",
        }
        return (healthy | self.files).get(path)

    def run(self, *argv: str) -> str | None:
        return self.programs.get(" ".join(argv))

    def interfaces(self) -> Sequence[Interface]:
        return self.devices


def host(machine: Machine, wanted: Wanted = BOTH) -> dict[str, Finding]:
    return {finding.id: finding for finding in check_host(machine, wanted)}


def test_a_healthy_machine_has_nothing_to_say() -> None:
    findings = host(Machine())
    assert {finding.level for finding in findings.values()} == {Level.PASS}
    assert worst(findings.values()) is Level.PASS
    assert "eth0" in findings["A.interfaces-v4"].fact
    assert "lo: it is a loopback" in findings["A.interfaces-v6"].fact


@pytest.mark.parametrize(
    ("machine", "wanted", "name", "level", "words", "command"),
    [
        (Machine((LO,)), BOTH, "A.interfaces-v4", Level.FAIL, "up, running", "ip -brief"),
        (
            Machine((LO, replace(ETH0, flags=UP - {"running"}))),
            BOTH, "A.interfaces-v6", Level.FAIL, "IPv6 address", "ip -brief",
        ),
        (
            Machine((LO, replace(ETH0, flags=UP - {"up"}))),
            BOTH, "A.interfaces-v4", Level.FAIL, "must be up", "ip link set dev eth0 up",
        ),
        (
            Machine((LO, replace(ETH0, flags=UP - {"multicast"}))),
            BOTH, "A.interfaces-v4", Level.FAIL, "able to do multicast", "ip link set dev eth0 multicast on",
        ),
        (Machine(), replace(BOTH, asked=("lo",)), "A.interfaces-v4", Level.WARN, "ever arrives", "ip -brief"),
        (Machine(), replace(BOTH, asked=("wlan0",)), "A.interfaces-v4", Level.FAIL, "must be up", "ip -brief"),
        (Machine((LO, replace(ETH0, mtu=1000))), BOTH, "A.mtu", Level.FAIL, "1248", "mtu 1500"),
        (
            Machine(files={"/proc/sys/net/ipv6/conf/eth0/disable_ipv6": "1"}),
            BOTH, "A.ipv6", Level.WARN, "out of reach", "net.ipv6.conf.eth0.disable_ipv6=0",
        ),
        (
            Machine((LO, ETH0, ETH1), {"/proc/sys/net/ipv4/conf/eth1/rp_filter": "1"}),
            BOTH, "A.rp-filter", Level.WARN, "drops multicast", "net.ipv4.conf.all.rp_filter=2",
        ),
        (
            Machine((LO, ETH0, ETH1), {"/proc/sys/net/ipv4/igmp_max_memberships": "1"}),
            BOTH, "A.membership-limit", Level.FAIL, "Joins fail", "igmp_max_memberships=20",
        ),
        (
            Machine(files={
                "/sys/class/net/eth0/bridge/multicast_snooping": "1",
                "/sys/class/net/eth0/bridge/multicast_querier": "0",
            }),
            BOTH, "A.bridge-snooping", Level.WARN, "forgets", "mcast_querier 1",
        ),
        (
            Machine(files={"/proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2"}),
            BOTH, "A.wsl", Level.WARN, "NAT", "mirrored",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith("A.") else "",
)  # fmt: skip
def test_each_fault_is_named(
    machine: Machine, wanted: Wanted, name: str, level: Level, words: str, command: str
) -> None:
    finding = host(machine, wanted)[name]
    assert finding.level is level
    assert words in finding.cause
    assert command in finding.command


def test_a_strict_filter_on_the_only_interface_is_no_fault() -> None:
    machine = Machine(files={"/proc/sys/net/ipv4/conf/eth0/rp_filter": "1"})
    assert host(machine)["A.rp-filter"].level is Level.PASS


def test_a_vpn_with_the_default_route_is_told_and_not_used() -> None:
    machine = Machine((LO, TUN, ETH0), {"/proc/net/route": ROUTES.format("tun0")})
    findings = host(machine)
    assert findings["A.route"].level is Level.PASS
    assert "tun0" in findings["A.route"].fact
    assert [interface.name for interface in eligible(machine, BOTH)] == ["eth0"]


def test_a_container_is_told_and_no_fault() -> None:
    finding = host(Machine(files={"/.dockerenv": ""}))["A.container"]
    assert finding.level is Level.PASS
    assert "--network host" in finding.fact


def test_a_system_that_tells_nothing_is_no_trouble() -> None:
    class Silent(Machine):
        def read(self, path: str) -> str | None:
            del path
            return None

    assert worst(host(Silent()).values()) is Level.PASS


def test_unknown_is_not_worse_than_nothing_wrong() -> None:
    unknown = Finding("A.x", Level.UNKNOWN, "Not looked at.")
    assert worst([unknown]) is Level.PASS
    assert worst([unknown, Finding("A.y", Level.WARN, "")]) is Level.WARN
    assert worst([]) is Level.PASS


# --- the firewall ------------------------------------------------------------------------------------


def nft(*entries: dict[str, object]) -> dict[str, str]:
    return {"nft -j list ruleset": json.dumps({"nftables": [{"metainfo": {}}, *entries]})}


def chain(
    name: str = "input", hook: str | None = "input", policy: str = "accept", family: str = "inet"
) -> dict[str, object]:
    base = {} if hook is None else {"type": "filter", "hook": hook, "prio": 0, "policy": policy}
    return {"chain": {"family": family, "table": "fw", "name": name, **base}}


def rule(*expressions: dict[str, object], into: str = "input", handle: int = 7) -> dict[str, object]:
    return {
        "rule": {"family": "inet", "table": "fw", "chain": into, "handle": handle, "expr": list(expressions)}
    }


def match(kind: str, name: str, right: object, op: str = "==") -> dict[str, object]:
    protocol, _, key = name.partition(".")
    left = {"payload": {"protocol": protocol, "field": key}} if kind == "payload" else {kind: {"key": name}}
    return {"match": {"op": op, "left": left, "right": right}}


ACCEPT: dict[str, object] = {"accept": None}
DROP: dict[str, object] = {"drop": None}
MLD = match("payload", "icmpv6.type", {"set": ["mld-listener-query", "mld-listener-report"]})
ESTABLISHED = match("ct", "state", ["established", "related"], "in")


def firewall(*entries: dict[str, object], **programs: str) -> dict[str, Finding]:
    machine = Machine(
        programs=nft(*entries) | {name.replace("_", " "): text for name, text in programs.items()}
    )
    return {finding.id: finding for finding in check_firewall(machine, BOTH, eligible(machine, BOTH))}


def levels(*entries: dict[str, object]) -> list[str]:
    """Return the levels for UDP over IPv4, IGMP, UDP over IPv6, MLD."""
    found = firewall(*entries)
    names = ("A.firewall-udp-v4", "A.firewall-igmp", "A.firewall-udp-v6", "A.firewall-mld")
    return [found[name].level.name for name in names]


PASSES = ["PASS"] * 4
FAILS = ["FAIL"] * 4


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], PASSES),
        ([chain()], PASSES),
        ([chain(policy="drop")], FAILS),
        ([chain(policy="drop", family="ip")], ["FAIL", "FAIL", "PASS", "PASS"]),
        ([chain(policy="drop", family="ip6")], ["PASS", "PASS", "FAIL", "FAIL"]),
        ([chain(hook="forward", policy="drop")], PASSES),
        ([chain(policy="drop", hook="prerouting"), chain("late")], FAILS),
        ([chain(), rule(DROP)], FAILS),
        ([chain(), rule({"counter": {}}, {"reject": {"type": "icmpx"}})], FAILS),
        ([chain(policy="drop"), rule(ACCEPT)], PASSES),
        ([chain(policy="drop"), rule(ESTABLISHED, ACCEPT)], FAILS),
        ([chain(), rule(match("meta", "l4proto", "igmp"), DROP), rule(MLD, DROP)], ["PASS", "FAIL", "PASS", "FAIL"]),
        ([chain(), rule(match("payload", "ip.protocol", "igmp"), DROP)], ["PASS", "FAIL", "PASS", "PASS"]),
        ([chain(), rule(match("payload", "udp.dport", 1024), DROP)], ["FAIL", "PASS", "FAIL", "PASS"]),
        (
            [chain(), rule(match("payload", "udp.dport", {"range": [1000, 2000]}), DROP)],
            ["FAIL", "PASS", "FAIL", "PASS"],
        ),
        ([chain(), rule(match("payload", "udp.dport", {"range": [1025, 2000]}), DROP)], PASSES),
        ([chain(), rule(match("payload", "tcp.dport", 1024), DROP)], PASSES),
        ([chain(), rule(match("payload", "udp.dport", 53, "!="), DROP)], ["FAIL", "PASS", "FAIL", "PASS"]),
        (
            [chain(), rule(match("payload", "ip.daddr", {"prefix": {"addr": "224.0.0.0", "len": 4}}), DROP)],
            ["FAIL", "FAIL", "PASS", "PASS"],
        ),
        (
            [chain(), rule(match("payload", "ip.daddr", {"range": ["224.0.1.0", "224.0.255.255"]}), DROP)],
            ["FAIL", "PASS", "PASS", "PASS"],
        ),
        ([chain(policy="drop"), rule(match("meta", "iifname", "eth*"), ACCEPT)], PASSES),
        ([chain(policy="drop"), rule(match("meta", "iif", "lo"), ACCEPT)], FAILS),
        ([chain(policy="drop"), rule(match("meta", "pkttype", "multicast"), ACCEPT)], PASSES),
        (
            [
                {"set": {"family": "inet", "table": "fw", "name": "open", "elem": [1024, {"elem": {"val": 9}}]}},
                chain(policy="drop"), rule(match("payload", "udp.dport", "@open"), ACCEPT),
            ],
            ["PASS", "FAIL", "PASS", "FAIL"],
        ),
        ([chain(), chain("more", None), rule({"jump": {"target": "more"}}), rule(DROP, into="more")], FAILS),
        (
            [chain(), chain("more", None), rule({"jump": {"target": "more"}}), rule({"return": None}, into="more"),
             rule(DROP)],
            FAILS,
        ),
        (
            [chain(policy="accept"), chain("more", None), rule({"goto": {"target": "more"}}), rule(DROP)],
            PASSES,
        ),
        # What is not understood may be, or not.
        ([chain(), rule({"xt": None}, DROP)], ["WARN"] * 4),
        ([chain(policy="drop"), rule({"xt": None}, ACCEPT)], ["WARN"] * 4),
        ([chain(), rule({"match": {"op": "==", "left": {"numgen": {}}, "right": 1}}, DROP)], ["WARN"] * 4),
        ([chain(), chain("more", None), rule({"jump": {"target": "more"}}, into="input"),
          rule({"limit": {}}, DROP, into="more")], ["WARN"] * 4),
        # A chain that jumps to itself, which the kernel would not load.
        ([chain(), rule({"jump": {"target": "input"}})], PASSES),
    ],
)  # fmt: skip
def test_what_a_ruleset_does_with_what_a_node_needs(
    entries: list[dict[str, object]], expected: list[str]
) -> None:
    assert levels(*entries) == expected


def test_the_command_goes_before_the_rule_that_drops() -> None:
    found = firewall(chain(), rule(MLD, DROP))["A.firewall-mld"]
    assert "rule handle 7" in found.fact
    assert found.command == "nft insert rule inet fw input icmpv6 type mld-listener-query accept"
    assert "forgets" in found.cause
    udp = firewall(chain(policy="drop"))["A.firewall-udp-v4"]
    assert "the policy of table inet fw" in udp.fact
    assert udp.command == "nft insert rule inet fw input ip daddr 224.0.230.7 udp dport 1024 accept"


def test_the_command_is_that_of_the_program_that_rules() -> None:
    drop = chain(policy="drop")
    assert firewall(drop, ufw_status="Status: active\n")["A.firewall-udp-v4"].command.startswith("ufw allow")
    assert firewall(drop, ufw_status="Status: inactive\n")["A.firewall-udp-v4"].command.startswith(
        "nft insert"
    )
    running = {"firewall-cmd --state": "running\n"}
    machine = Machine(programs=nft(drop) | running)
    commands = {each.id: each.command for each in check_firewall(machine, BOTH, [ETH0])}
    both = "firewall-cmd --permanent --add-protocol=igmp && firewall-cmd --reload"
    assert commands["A.firewall-igmp"] == both
    assert for_a_user(Finding("A.x", Level.FAIL, "", "", both)).command == (
        "sudo firewall-cmd --permanent --add-protocol=igmp && sudo firewall-cmd --reload"
    )
    assert for_a_user(Finding("A.x", Level.FAIL, "", "", "ip -brief address")).command == "ip -brief address"


@pytest.mark.parametrize("listing", [None, "", "{}", "[]", '{"nftables": 7}', '{"nftables": [{"rule": {}}]}'])
def test_a_ruleset_that_cannot_be_read_is_unknown(listing: str | None) -> None:
    for privileged in (True, False):
        programs = {} if listing is None else {"nft -j list ruleset": listing}
        machine = Machine(programs=programs, privileged=privileged)
        findings = list(check_firewall(machine, BOTH, [ETH0]))
        assert [finding.level for finding in findings] == [Level.UNKNOWN] * 4
        assert all(("sudo" in finding.command) is not privileged for finding in findings)


# --- iptables ----------------------------------------------------------------------------------------

# As iptables-legacy 1.8.9 printed it.
LEGACY = r"""
-P INPUT DROP
-P FORWARD ACCEPT
-P OUTPUT ACCEPT
-N services
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -j services
-A INPUT -m limit --limit 3/min -j LOG --log-prefix "[X] "
-A INPUT -p udp -m udp ! --dport 1000:1100 -m hashlimit --hashlimit-upto 5/sec --hashlimit-name x -j ACCEPT
-A INPUT -s 10.0.0.0/8 -m state --state NEW -j REJECT --reject-with icmp-port-unreachable
-A services -p udp -m multiport --dports 53,1000:1100 -j ACCEPT
-A services -p udp -m udp --dport 5353 -m comment --comment "mdns it\'s" -j ACCEPT
-A services -p igmp -m pkttype --pkt-type multicast -j ACCEPT
-A services -d 224.0.0.0/8 -m addrtype --dst-type MULTICAST -j RETURN
-A services ! -i eth+ -p igmp -j ACCEPT
"""
LEGACY6 = """
-P INPUT ACCEPT
-P FORWARD ACCEPT
-P OUTPUT ACCEPT
-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 130 -j DROP
-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT
-A INPUT -d ff00::/8 -p udp -m udp --dport 5353 -j REJECT --reject-with icmp6-port-unreachable
"""
RAW = """
-P PREROUTING ACCEPT
-P OUTPUT ACCEPT
-A PREROUTING -p udp -m udp --sport 1024 -j CT --notrack
"""
BARE = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n"


def legacy(
    filter4: str | None = BARE, filter6: str | None = BARE, *, nothing_else: bool = False, **more: str
) -> dict[str, Finding]:
    """Ask a machine that has these rules of the old kind, and none of the new one unless there is no nft."""
    listings = {"iptables-legacy -t filter -S": filter4, "ip6tables-legacy -t filter -S": filter6}
    programs = {} if nothing_else else nft()
    programs |= {name: text for name, text in listings.items() if text is not None}
    files = {"/proc/net/ip_tables_names": "filter\nraw", "/proc/net/ip6_tables_names": "filter"}
    programs["iptables-legacy -t raw -S"] = RAW
    machine = Machine(files=files, programs=programs | more)
    return {finding.id: finding for finding in check_firewall(machine, BOTH, [ETH0])}


def test_rules_of_iptables_legacy_that_let_everything_in() -> None:
    assert {each.level for each in legacy(LEGACY).values()} == {Level.PASS}
    assert {each.level for each in legacy(LEGACY, nothing_else=True).values()} == {Level.PASS}


@pytest.mark.parametrize(
    ("without", "name", "options"),
    [
        ("multiport", "A.firewall-udp-v4", "-d 224.0.230.7 -p udp --dport 1024"),
        ("pkttype", "A.firewall-igmp", "-p igmp"),
    ],
)
def test_rules_of_iptables_legacy_that_keep_something_out(without: str, name: str, options: str) -> None:
    def leaving_out(rules: str, word: str) -> str:
        return "".join(line for line in rules.splitlines(keepends=True) if word not in line)

    rules = leaving_out(LEGACY, without)
    found = legacy(rules)[name]
    assert found.level is Level.FAIL, "by that rule, or by the policy"
    assert "(iptables-legacy -t filter, chain INPUT, rule 6)" in found.fact
    assert found.command == f"iptables-legacy -t filter -I INPUT {options} -j ACCEPT"
    assert legacy(rules.replace("-P INPUT DROP", "-P INPUT ACCEPT"))[name].level is Level.WARN
    found = legacy(leaving_out(rules, "--state NEW"))[name]
    assert found.level is Level.FAIL
    assert "(the policy of iptables-legacy -t filter, chain INPUT)" in found.fact


def test_mld_queries_dropped_by_ip6tables_legacy() -> None:
    found = legacy(LEGACY, LEGACY6)
    assert [found[f"A.firewall-{each}"].level.name for each in ("mld", "igmp", "udp-v6")] == [
        "FAIL",
        "PASS",
        "PASS",
    ]
    mld = found["A.firewall-mld"]
    assert "ip6tables-legacy -t filter, chain INPUT, rule 1" in mld.fact
    assert mld.command == "ip6tables-legacy -t filter -I INPUT -p ipv6-icmp --icmpv6-type 130 -j ACCEPT"


@pytest.mark.parametrize(
    "listing", [None, "what?", "-A INPUT -j ACCEPT", "-P INPUT", "-P INPUT DROP\n-A INPUT --dport x"]
)
def test_a_table_that_cannot_be_read_leaves_a_doubt(listing: str | None) -> None:
    found = legacy(listing)
    assert {each.level for each in found.values()} == {Level.UNKNOWN}
    assert "table filter of iptables-legacy" in found["A.firewall-udp-v4"].fact
    assert legacy(listing, LEGACY6)["A.firewall-mld"].level is Level.FAIL, "what is read counts"


def test_what_nft_only_names_is_asked_of_iptables() -> None:
    """Rules of the new kind with a match of iptables' own, as nft 1.0.6 and iptables 1.8.9 print them."""
    shown: list[dict[str, object]] = [
        {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "handle": 1, "type": "filter",
                   "hook": "input", "prio": 0, "policy": "accept"}},
        {"rule": {"family": "ip", "table": "filter", "chain": "INPUT", "handle": 2, "expr": [
            {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}},
            {"xt": {"type": "match", "name": "multiport"}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": None},
        ]}},
    ]  # fmt: skip
    assert firewall(*shown)["A.firewall-udp-v4"].level is Level.WARN
    rules = "-P INPUT ACCEPT\n-A INPUT -p udp -m multiport --dports {} -j DROP\n"
    for ports, level in (("53,1000:1100", Level.FAIL), ("53,1100:1200", Level.PASS)):
        machine = Machine(programs=nft(*shown) | {"iptables-nft -t filter -S": rules.format(ports)})
        found = {each.id: each for each in check_firewall(machine, BOTH, [ETH0])}["A.firewall-udp-v4"]
        assert found.level is level
    assert legacy()["A.firewall-udp-v4"].level is Level.PASS


@pytest.mark.parametrize(
    ("files", "programs", "words"),
    [
        ({}, {}, ""),
        ({"/etc/ufw/ufw.conf": "ENABLED=no\nLOGLEVEL=low"}, {}, ""),
        ({"/etc/ufw/ufw.conf": "ENABLED=yes\nLOGLEVEL=low"}, {}, "ufw is on."),
        (
            {"/etc/ufw/ufw.conf": "ENABLED=yes", "/etc/default/ufw": 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"'}, {},
            "ufw is on, and lets in what it is told to.",
        ),
        ({}, {"firewall-cmd --state": "running\n"}, "firewalld is on, and lets in what it is told to."),
        ({}, {"firewall-cmd --state": "not running\n"}, ""),
    ],
)  # fmt: skip
def test_without_root_it_says_what_anybody_may_know_and_what_root_would_add(
    files: dict[str, str], programs: dict[str, str], words: str
) -> None:
    machine = Machine(files=files, programs=programs, privileged=False)
    found = {each.id: each for each in check_firewall(machine, BOTH, [ETH0])}["A.firewall-igmp"]
    assert found.level is Level.UNKNOWN
    assert (
        found.fact
        == f"Not looked at: root can read the rules, and tell whether they let IGMP queries in. {words}".rstrip()
    )
    assert found.command == "sudo mp2p doctor"
