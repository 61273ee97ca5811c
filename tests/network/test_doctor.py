"""`mp2p doctor` on real networks: each fault is injected, and named with its id, its cause and a command."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest
from netlab.devices import Device, Outcome
from netlab.firewall import block_membership_queries, drop_new_inbound
from netlab.lab import Host, Lab
from netlab.probes import wait_until_selective
from netlab.processes import Process
from netlab.topologies import one_switch, three_routers, two_hosts

pytestmark = pytest.mark.network

Record = dict[str, Any]

MENDED = {
    "A.mtu", "A.ipv6", "A.rp-filter", "A.membership-limit", "A.firewall-udp-v4", "A.firewall-igmp", "A.firewall-mld",
    "A.bridge-snooping",
}  # fmt: skip
"""Faults that the command of the finding ends; others need somebody who decides."""

AHEAD = """
import sys, time
real = time.time
time.time = lambda: real() + 3600
from mp2p.__main__ import main
sys.argv[0] = "mp2p"
main()
"""


def findings(outcome: Outcome) -> dict[str, Record]:
    """Return the doctor's findings by id, each of which comes once."""
    found = outcome.events("finding")
    by_id = {record["id"]: record for record in found}
    assert len(by_id) == len(found)
    return by_id


def trouble(outcome: Outcome) -> dict[str, str]:
    """Return the level of each finding that is not a pass; each has its cause, and a command."""
    for record in findings(outcome).values():
        if record["level"] in ("WARN", "FAIL"):
            assert record["cause"], record
            assert record["command"], record
    return {name: record["level"] for name, record in findings(outcome).items() if record["level"] != "PASS"}


def examine(device: Device, *options: str) -> Outcome:
    return Outcome(device.start("doctor", *options))


def listening(device: Device, *options: str, allow: str = "any") -> Process:
    process = device.start("doctor", "--listen", "--allow", allow, *options)
    process.wait_for_line("listening")
    return process


def test_a_healthy_pair_has_nothing_to_say(lab: Lab) -> None:
    ends = two_hosts(lab)
    near, far = Device(ends.left), Device(ends.right)
    there = listening(far)
    outcome = examine(near, "--pair", far.key, "--host", ends.right_port.v4)
    assert trouble(outcome) == {}
    assert outcome.code == 0
    for name in ("C.multicast-out-v4", "C.multicast-out-v6"):
        assert "by multicast on eth0" in findings(outcome)[name]["fact"]
    asked = [json.loads(line) for line in there.stdout if '"asked"' in line]
    assert [record["how"] for record in asked] == ["multicast on eth0"] * 2, "once for each IP version"
    assert {
        "C.multicast-out-v4",
        "C.multicast-in-v6",
        "C.loss-v4",
        "C.size-v6",
        "D.clock",
        "D.access",
    } <= set(findings(outcome))


def test_unicast_that_a_firewall_keeps_out_is_not_taken_for_multicast_nor_the_other_way_round(
    lab: Lab,
) -> None:
    ends = two_hosts(lab)
    near, far = Device(ends.left), Device(ends.right)
    ends.left.nft(
        f"table ip group {{ chain input {{ type filter hook input priority 0; ip daddr {ends.left_port.v4} meta"
        " l4proto udp drop\n}\n}"
    )
    listening(far, "--transport", "v4")
    outcome = examine(near, "--transport", "v4", "--pair", far.key)
    assert trouble(outcome) == {}
    assert "does not arrive" in findings(outcome)["C.unicast-v4"]["fact"]


def test_across_three_routers_too(lab: Lab) -> None:
    ends = three_routers(lab)
    near, far = Device(ends.left), Device(ends.right)
    listening(far)
    outcome = examine(near, "--pair", far.key)
    assert trouble(outcome) == {}


# --- one machine -------------------------------------------------------------------------------------


def take_port(host: Host) -> Callable[[], None]:
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("", 1024))
    return sock.close


def two_legs(lab: Lab, host: Host) -> None:
    lab.link(host, lab.host("neighbour"))


@pytest.mark.parametrize(
    ("name", "level", "cause", "command", "options"),
    [
        ("A.interfaces-v4", "FAIL", "must be up", "ip link set", ()),
        ("A.interfaces-v4", "WARN", "ever arrives", "ip -brief", ("--interface", "lo")),
        ("A.mtu", "FAIL", "never fragments", "mtu 1500", ()),
        ("A.ipv6", "WARN", "out of reach", "disable_ipv6=0", ()),
        ("A.rp-filter", "WARN", "drops multicast", "rp_filter=2", ()),
        ("A.membership-limit", "FAIL", "Joins fail", "igmp_max_memberships", ()),
        ("A.firewall-udp-v4", "FAIL", "cannot reach this machine", "nft insert rule", ()),
        ("A.firewall-igmp", "FAIL", "forgets this machine", "nft insert rule", ()),
        ("A.firewall-mld", "FAIL", "forgets this machine", "nft insert rule", ()),
        ("A.bridge-snooping", "WARN", "forgets members", "mcast_querier 1", ()),
        ("B.port-v4", "FAIL", "holds it for itself", "ss -lunp", ()),
        ("B.echo-v4", "FAIL", "", "nft", ()),
    ],
)
def test_a_fault_of_the_machine_is_named(
    lab: Lab,
    name: str,
    level: str,
    cause: str,
    command: str,
    options: tuple[str, ...],
    request: pytest.FixtureRequest,
) -> None:
    ends = two_hosts(lab)
    host, device = ends.left, Device(ends.left)
    match name:
        case "A.interfaces-v4" if not options:
            ends.left_port.down()
        case "A.mtu":
            ends.left_port.set_mtu(1000)
        case "A.ipv6":
            host.sysctl({"net/ipv6/conf/all/disable_ipv6": 1})
        case "A.rp-filter":
            two_legs(lab, host)
            host.sysctl({"net/ipv4/conf/all/rp_filter": 1})
        case "A.membership-limit":
            two_legs(lab, host)
            host.sysctl({"net/ipv4/igmp_max_memberships": 1})
        case "A.firewall-udp-v4":
            drop_new_inbound(host)
        case "A.firewall-igmp" | "A.firewall-mld":
            block_membership_queries(host)
        case "A.bridge-snooping":
            # Its own network is a bridge of its own, as for virtual machines.
            host.ip(
                "link add br0 type bridge mcast_snooping 1 forward_delay 0",
                f"link set {ends.left_port.name} master br0",
                f"addr del {ends.left_port.v4}/24 dev {ends.left_port.name}",
                f"addr add {ends.left_port.v4}/24 dev br0",
                "link set br0 up",
            )
        case "B.port-v4":
            request.addfinalizer(take_port(host))
        case "B.echo-v4":
            host.nft(
                "table ip quiet { chain out { type filter hook output priority 0; ip protocol udp drop\n}\n}"
            )
    finding = findings(examine(device, *options))[name]
    assert finding["level"] == level
    assert cause in finding["cause"]
    assert command in finding["command"]
    if name in MENDED:
        host.run(*finding["command"].split())
        after = findings(examine(device, *options))
        assert name not in after or after[name]["level"] == "PASS", "the command does not help"


@pytest.mark.parametrize("command", ["iptables-legacy", "iptables-nft"])
def test_rules_of_either_kind_of_iptables_are_read(lab: Lab, command: str) -> None:
    if shutil.which(command) is None:
        pytest.skip(f"{command} is not installed")
    ends = two_hosts(lab)
    rules = {
        command: (
            "-A INPUT -p igmp -m pkttype --pkt-type multicast -j DROP",
            "-A INPUT -p udp --dport 5353 -j DROP",
        ),
        command.replace("ip", "ip6", 1): ("-A INPUT -p ipv6-icmp --icmpv6-type 130 -j DROP",),
    }
    for program, lines in rules.items():
        for line in lines:
            try:
                ends.left.run(program, *line.split())
            except RuntimeError as error:
                pytest.skip(f"{command} does not work here: {error}")
    device = Device(ends.left)
    found = findings(examine(device))
    firewall = {name: each["level"] for name, each in found.items() if name.startswith("A.firewall")}
    assert firewall == {
        "A.firewall-udp-v4": "PASS", "A.firewall-igmp": "FAIL", "A.firewall-udp-v6": "PASS", "A.firewall-mld": "FAIL",
    }  # fmt: skip
    for name in ("A.firewall-igmp", "A.firewall-mld"):
        ends.left.run(*found[name]["command"].split())
    assert not any(name.startswith("A.firewall") for name in trouble(examine(device)))


# --- two machines ------------------------------------------------------------------------------------


def test_a_peer_that_is_not_running(lab: Lab) -> None:
    ends = two_hosts(lab)
    near, far = Device(ends.left), Device(ends.right)
    outcome = examine(near, "--transport", "v4", "--pair", far.key, "--host", ends.right_port.v4)
    assert trouble(outcome) == {"C.peer-v4": "FAIL"}
    assert "not running" in findings(outcome)["C.peer-v4"]["cause"]
    assert outcome.code == 5


def test_a_peer_with_another_key(lab: Lab) -> None:
    ends = two_hosts(lab)
    near, far, other = Device(ends.left), Device(ends.right), Device(ends.right, "other")
    listening(far, "--transport", "v4")
    outcome = examine(near, "--transport", "v4", "--pair", other.key, "--host", ends.right_port.v4)
    assert trouble(outcome) == {"C.peer-v4": "FAIL"}
    assert "another key" in findings(outcome)["C.peer-v4"]["cause"]


def test_without_its_address_it_asks_for_it(lab: Lab) -> None:
    ends = two_hosts(lab)
    near, far = Device(ends.left), Device(ends.right)
    outcome = examine(near, "--transport", "v6", "--pair", far.key)
    assert "--host" in findings(outcome)["C.multicast-out-v6"]["command"]


def test_a_peer_that_does_not_allow_this_key(lab: Lab) -> None:
    ends = two_hosts(lab)
    near, far = Device(ends.left), Device(ends.right)
    listening(far, "--transport", "v4", allow=far.key)
    outcome = examine(near, "--transport", "v4", "--pair", far.key)
    assert trouble(outcome) == {"D.access": "FAIL"}
    assert near.key in findings(outcome)["D.access"]["command"]


@pytest.mark.parametrize("transport", ["v4", "v6"])
def test_a_switch_that_forgot_the_peer(lab: Lab, transport: str) -> None:
    shared = one_switch(lab, 2, snooping=True, querier=True)
    near, far = map(Device, shared.hosts)
    group, unused = group_of(far, transport), "ff1e::9000:1" if transport == "v6" else "224.0.240.9"
    wait_until_selective(*shared.ports, unused)
    block_membership_queries(shared.hosts[1])
    listening(far, "--transport", transport)
    port = shared.ports[1]
    # Its report may still be on the way, and what is not known yet looks like what is forgotten.
    shared.switch.wait_registered(port, group)
    if transport == "v6":
        # Such a switch keeps neighbour discovery, which is multicast too, from the host that it forgot.
        link = json.loads(shared.hosts[1].run("ip", "-j", "link", "show", port.name))[0]["address"]
        shared.hosts[0].ip(f"neigh replace {port.v6} lladdr {link} dev {shared.ports[0].name} nud permanent")
    shared.switch.wait_registered(port, group, gone=True)
    host = port.v4 if transport == "v4" else port.v6
    outcome = examine(near, "--transport", transport, "--pair", far.key, "--host", host)
    assert trouble(outcome) == {f"C.forgotten-{transport}": "FAIL"}
    finding = findings(outcome)[f"C.forgotten-{transport}"]
    assert "queries do not reach it" in finding["cause"]
    assert "mcast_querier" in finding["command"]


def group_of(device: Device, transport: str) -> str:
    (record,) = Outcome(device.start("id", "--transport", transport)).records
    text: str = record["groups"][0]
    return text.partition(":")[2].rpartition(":")[0].strip("[]")


def test_a_router_without_the_group(lab: Lab) -> None:
    ends = three_routers(lab)
    near, far = Device(ends.left), Device(ends.right)
    listening(far, "--transport", "v4")
    for node in lab.nodes:
        if hasattr(node, "stop_multicast"):
            node.stop_multicast()
    outcome = examine(near, "--transport", "v4", "--pair", far.key, "--host", ends.right_port.v4)
    assert trouble(outcome) == {"C.router-v4": "FAIL"}
    assert "smcroutectl" in findings(outcome)["C.router-v4"]["command"]


def test_a_hop_limit_that_is_too_small(lab: Lab) -> None:
    ends = three_routers(lab)
    near, far = Device(ends.left), Device(ends.right)
    listening(far, "--transport", "v4", "--reach", "global")
    address = group_of(far, "v4")
    outcome = examine(
        near, "--transport", "v4", "--reach", "link", "--pair", f"mp2p:{far.key}?at=v4:{address}:1024"
    )
    assert trouble(outcome) == {"C.hops-v4": "FAIL"}
    assert "hop limit of 1" in findings(outcome)["C.hops-v4"]["cause"]


def test_a_path_that_carries_small_datagrams_only(lab: Lab) -> None:
    ends = three_routers(lab)
    near, far = Device(ends.left), Device(ends.right)
    listening(far, "--transport", "v4")
    routers = [node for node in lab.nodes if hasattr(node, "stop_multicast")]
    routers[1].nft(
        "table ip small { chain f { type filter hook forward priority 0; ip length > 1000 udp dport 1024 drop\n}\n}"
    )
    outcome = examine(near, "--transport", "v4", "--pair", far.key)
    assert trouble(outcome)["C.size-v4"] == "FAIL"


def test_a_clock_that_is_far_off(lab: Lab) -> None:
    ends = two_hosts(lab)
    near, far = Device(ends.left), Device(ends.right)
    # Both ends have this machine's clock: one is told another.
    process = far.host.start(
        *(sys.executable, "-c", AHEAD, "doctor", "--listen", "--json", "--allow", "any", "--transport", "v4"),
        *("--key", str(far._key_file)),
        label="mp2p doctor an hour ahead",
    )
    process.wait_for_line("listening")
    outcome = examine(near, "--transport", "v4", "--pair", far.key)
    assert trouble(outcome) == {"D.clock": "WARN"}
    assert "3600 s" in findings(outcome)["D.clock"]["fact"]
