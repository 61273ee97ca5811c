"""A laboratory of hosts, bridges and routers, wired by the test and removed after it."""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import re
import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

from netlab.namespaces import Namespace, run, scratch_folder
from netlab.processes import Process

__all__ = ["ALL_GROUPS", "Bridge", "Host", "Interface", "Lab", "Node", "Router", "Subnet", "wait_until"]

ALL_GROUPS = (
    # 224.0.224.0 to 224.0.249.255, then the transient and the prefix-based IPv6 groups.
    *("224.0.224.0/20", "224.0.240.0/21", "224.0.248.0/23"),
    *("ff1e::/16", "ff3e::/16"),
)
"""Every group that a node of reach "global" chooses from, as prefixes."""

IFA_F_TENTATIVE = 0x40

AnyNode = TypeVar("AnyNode", bound="Node")


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 20) -> None:
    """Look at kernel state, which announces nothing, until it is as awaited.

    Raises AssertionError, naming what was awaited, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}")
        time.sleep(0.002)


class Subnet:
    """The addresses of one link; either family may be absent."""

    def __init__(self, v4: str | None = None, v6: str | None = None) -> None:
        self.v4 = ipaddress.IPv4Network(v4) if v4 else None
        self.v6 = ipaddress.IPv6Network(v6) if v6 else None
        self._hosts = itertools.count(1)

    def take(self) -> tuple[ipaddress.IPv4Interface | None, ipaddress.IPv6Interface | None]:
        """Return the next free address of each family."""
        host = next(self._hosts)
        return (
            ipaddress.IPv4Interface((self.v4[host], self.v4.prefixlen)) if self.v4 else None,
            ipaddress.IPv6Interface((self.v6[host], self.v6.prefixlen)) if self.v6 else None,
        )


class Interface:
    """One end of a wire (a veth pair)."""

    far: Interface

    def __init__(self, node: Node, name: str, subnet: Subnet) -> None:
        self.node = node
        self.name = name
        self.subnet = subnet
        self._v4: ipaddress.IPv4Interface | None = None
        self._v6: ipaddress.IPv6Interface | None = None
        self._routes: list[str] = []

    @property
    def v4(self) -> str:
        """Its IPv4 address; empty when it has none."""
        return str(self._v4.ip) if self._v4 else ""

    @property
    def v6(self) -> str:
        """Its global IPv6 address; empty when it has none."""
        return str(self._v6.ip) if self._v6 else ""

    @property
    def index(self) -> int:
        """Its interface index in its namespace."""
        with self.node.entered():
            return socket.if_nametoindex(self.name)

    def assign(self, subnet: Subnet) -> None:
        """Replace its addresses by the next free ones of a subnet; routes through it are lost."""
        self.node.ip(*(f"addr del {old} dev {self.name}" for old in (self._v4, self._v6) if old))
        self.subnet = subnet
        self._routes.clear()
        self._v4, self._v6 = subnet.take()
        self.node.ip(*(f"addr add {new} dev {self.name}" for new in (self._v4, self._v6) if new))

    def add_route(self, route: str) -> None:
        """Add a route (an `ip` command short of its device) that leads out of here."""
        self.node.ip(f"{route} dev {self.name}")
        self._routes.append(route)

    def down(self) -> None:
        """Switch it off; the other end loses its carrier. It keeps its addresses, and its routes go."""
        self.node.ip(f"link set {self.name} down")

    def up(self) -> None:
        """Switch it on, wait until it carries traffic, and put its routes back."""
        self.node.ip(f"link set {self.name} up")
        self.wait_ready()
        self.node.ip(*(f"{route} dev {self.name}" for route in self._routes))

    def wait_ready(self) -> None:
        """Wait until its link-local address is usable, which needs both ends to be up."""

        def ready() -> bool:
            rows = (line.split() for line in self.node.proc("if_inet6").splitlines())
            mine = [row for row in rows if row[5] == self.name]
            return any(row[0].startswith("fe80") for row in mine) and not any(
                int(row[4], 16) & IFA_F_TENTATIVE for row in mine
            )

        if not isinstance(self.node, Bridge):
            wait_until(ready, f"an IPv6 address on {self.name} of {self.node.label}")

    def set_mtu(self, size: int) -> None:
        """Set the MTU of both ends, in bytes."""
        for end in (self, self.far):
            end.node.ip(f"link set {end.name} mtu {size}")

    def limit_rate(self, rate: str, *, burst: str = "16kb", latency: str = "50ms") -> None:
        """Send no faster than `rate` (such as "20mbit") and queue at most `latency` worth of it."""
        limit = f"rate {rate} burst {burst} latency {latency}"
        run("tc", "-n", self.node.name, "qdisc", "replace", "dev", self.name, "root", "tbf", *limit.split())

    def queued(self) -> int:
        """Return how many packets wait in the queue of `limit_rate`."""
        statistics = run("tc", "-n", self.node.name, "-s", "qdisc", "show", "dev", self.name)
        found = re.search(r"backlog \S+ (\d+)p", statistics)
        assert found, statistics
        return int(found[1])

    def segment_in_software(self) -> None:
        """Cut segmentation-offload trains into datagrams before the wire, as a plain network card does.

        A veth pair passes a train on as one packet, so a loss rule or a rate would act on whole trains.
        """
        self.node.ip(f"link set {self.name} gso_max_segs 1")

    def unplug(self) -> None:
        """Remove the wire with both its ends, as a pulled USB adapter does."""
        self.node.ip(f"link del {self.name}")
        for end in (self, self.far):
            end.node.interfaces.remove(end)

    def replug(self, bridge: Bridge) -> None:
        """Carry the far end of this wire to another bridge; this end loses its carrier meanwhile.

        Give it addresses of the new place with `assign`.
        """
        port = self.far
        name = bridge.next_name()
        port.node.ip(
            f"link set {port.name} down nomaster", f"link set {port.name} name {name} netns {bridge.name}"
        )
        port.node.interfaces.remove(port)
        port.node, port.name = bridge, name
        bridge.connect(port)
        self.wait_ready()


class Node(Namespace):
    """A namespace with interfaces: a host, a bridge or a router."""

    interface_names = "eth{}"

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.interfaces: list[Interface] = []
        self.processes: list[Process] = []
        self._sockets: list[socket.socket] = []

    def next_name(self) -> str:
        """Return the first interface name that is free."""
        taken = {interface.name for interface in self.interfaces}
        names = map(self.interface_names.format, itertools.count())
        return next(name for name in names if name not in taken)

    def connect(self, interface: Interface) -> None:
        """Take the end of a wire into use: with addresses, and switched on."""
        self.interfaces.append(interface)
        interface.assign(interface.subnet)
        self.ip(f"link set {interface.name} up")

    def route(self, via: Interface, *subnets: Subnet) -> None:
        """Send unicast for these subnets, or by default, to the neighbour that owns `via`."""
        out = next(interface for interface in self.interfaces if interface.subnet is via.subnet)
        for gateway in filter(None, (via.v4, via.v6)):
            networks = [subnet.v6 if ":" in gateway else subnet.v4 for subnet in subnets]
            targets = [str(network) for network in networks if network] if subnets else ["default"]
            for target in targets:
                out.add_route(f"route add {target} via {gateway}")

    def start(self, *argv: str, label: str = "", env: Mapping[str, str] | None = None) -> Process:
        """Start a program in here; the lab ends it, and reports its output when the test fails."""
        process = Process(self, *argv, label=label, env=env)
        self.processes.append(process)
        return process

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Open a socket in here; the lab closes it."""
        opened = super().socket(family, kind, protocol)
        self._sockets.append(opened)
        return opened

    def close(self) -> None:
        """Close its sockets and remove it."""
        for opened in self._sockets:
            opened.close()
        super().close()

    def memberships(self) -> set[tuple[str, str]]:
        """Return (interface name, group) for every multicast group joined in here, by any process."""
        joined = set()
        interface = ""
        for line in self.proc("igmp").splitlines()[1:]:
            words = line.split()
            if line[0].isdigit():
                interface = words[1]
            else:
                joined.add((interface, str(ipaddress.IPv4Address(bytes.fromhex(words[0])[::-1]))))
        for line in self.proc("igmp6").splitlines():
            _, interface, group = line.split()[:3]
            joined.add((interface, str(ipaddress.IPv6Address(bytes.fromhex(group)))))
        return joined

    def wait_joined(self, group: str, interface: str = "eth0") -> None:
        """Wait until the kernel lists a group as joined on an interface."""
        wanted = (interface, str(ipaddress.ip_address(group)))
        wait_until(lambda: wanted in self.memberships(), f"{self.label} to join {group} on {interface}")


class Host(Node):
    """A computer at the edge of the network."""


class Bridge(Node):
    """A switch. Its ports are the far ends of its hosts' wires, and its hosts share one subnet."""

    interface_names = "port{}"

    def __init__(self, label: str, subnet: Subnet, *, snooping: bool = False, querier: bool = False) -> None:
        super().__init__(label)
        self.subnet = subnet
        self.sysctl({"net/ipv6/conf/default/disable_ipv6": 1})  # a switch has nothing to say of its own
        self.ip(f"link add br0 type bridge forward_delay 0 mcast_snooping {int(snooping)}")
        if querier:
            # A query needs a source address. The intervals, in hundredths of a second, are the shortest
            # that the kernel takes, so that what a switch forgets it forgets within seconds. A host that was asked
            # in an older version repeats each report once, up to 10 s later (RFC 2236, section 8.10), and so would be
            # remembered again after the tests have seen that it was forgotten.
            self.sysctl({"net/ipv6/conf/br0/disable_ipv6": 0})
            self.ip(
                "link set br0 type bridge mcast_query_interval 100 mcast_startup_query_interval 100"
                " mcast_query_response_interval 50 mcast_membership_interval 300"
                " mcast_igmp_version 3 mcast_mld_version 2",
                "link set br0 type bridge mcast_querier 1",
            )
        self.ip("link set br0 up")

    def connect(self, interface: Interface) -> None:
        """Make the end of a wire one of its ports."""
        self.interfaces.append(interface)
        self.ip(f"link set {interface.name} master br0 up")

    def registered(self) -> set[tuple[str, str]]:
        """Return (port, group) for every membership that snooping has learned."""
        return set(re.findall(r"port (\S+) grp (\S+)", self.run("bridge", "mdb", "show")))

    def forget(self, interface: Interface) -> None:
        """Forget every membership of this host's interface, as if no report had come for long enough."""
        for port, group in self.registered():
            if port == interface.far.name:
                self.run("bridge", "mdb", "del", "dev", "br0", "port", port, "grp", group)

    def wait_registered(self, interface: Interface, group: str, *, gone: bool = False) -> None:
        """Wait until the switch knows that this host's interface wants a group, or has forgotten it."""
        wanted = interface.far.name, str(ipaddress.ip_address(group))
        state = "to forget" if gone else "to know"
        wait_until(lambda: (wanted in self.registered()) != gone, f"{self.label} {state} {wanted}")


class Router(Node):
    """A router: unicast by its routes, multicast by smcroute between all of its interfaces."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.sysctl({"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})
        self._smcroute: Process | None = None

    def start_multicast(self, groups: tuple[str, ...] = ALL_GROUPS, *, ttl_threshold: int = 1) -> None:
        """Forward these groups (addresses or prefixes) from each interface to all the others.

        The rules are templates: the kernel hands smcroute the first datagram of each source and group,
        and it installs the route. A datagram must arrive with more hops left than `ttl_threshold`.
        """
        names = [interface.name for interface in self.interfaces]
        rules = [f"phyint {name} enable ttl-threshold {ttl_threshold}" for name in names]
        for name in names:
            others = " ".join(other for other in names if other != name)
            rules += [f"mroute from {name} group {group} to {others}" for group in groups]
        files = scratch_folder() / self.name
        configuration = files.with_suffix(".conf")
        configuration.write_text("\n".join(rules) + "\n")
        self.run("smcrouted", "-F", str(configuration))  # a daemon skips a bad line without a word
        self._smcroute = self.start(
            *("smcrouted", "-n", "-N", "-l", "info", "-i", self.name, "-f", str(configuration)),
            *("-P", str(files.with_suffix(".pid")), "-u", str(files.with_suffix(".sock"))),
        )
        self._smcroute.wait_for_line("Ready, waiting", stderr=True)

    def stop_multicast(self) -> None:
        """Forward no multicast any more."""
        if self._smcroute:
            self._smcroute.stop()
            self._smcroute = None


class Lab:
    """All nodes of one test. Leaving it ends every process and removes every namespace."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._subnets = itertools.count(1)
        self._indexes = itertools.count(11)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.ExitStack() as last_first:
            for node in self.nodes:
                last_first.callback(node.close)
            for node in self.nodes:
                for process in node.processes:
                    last_first.callback(process.stop)

    def subnet(self) -> Subnet:
        """Return a subnet of both families that no other link of this lab has."""
        number = next(self._subnets)
        return Subnet(f"10.0.{number}.0/24", f"2001:db8:{number:x}::/64")

    def _keep(self, node: AnyNode) -> AnyNode:
        self.nodes.append(node)
        return node

    def host(self, label: str) -> Host:
        """Add a host."""
        return self._keep(Host(label))

    def router(self, label: str) -> Router:
        """Add a router, which forwards multicast once it is wired and told to."""
        return self._keep(Router(label))

    def bridge(
        self, label: str, subnet: Subnet | None = None, *, snooping: bool = False, querier: bool = False
    ) -> Bridge:
        """Add a switch: a flooding one, or one that snoops on IGMP and MLD, with or without a querier."""
        return self._keep(Bridge(label, subnet or self.subnet(), snooping=snooping, querier=querier))

    def link(self, left: Node, right: Node, subnet: Subnet | None = None) -> tuple[Interface, Interface]:
        """Wire two nodes together and return both ends, ready for use.

        The left one takes the first address of the subnet. A bridge brings its own subnet.
        """
        if subnet is None:
            bridges = [node for node in (left, right) if isinstance(node, Bridge)]
            subnet = bridges[0].subnet if bridges else self.subnet()
        ends = Interface(left, left.next_name(), subnet), Interface(right, right.next_name(), subnet)
        near, far = ends
        near.far, far.far = far, near
        # Both ends of a pair with one index (each the second interface of its namespace) would come up
        # a second later: the kernel takes them for a physical device, whose carrier changes it holds back.
        left_index, right_index = next(self._indexes), next(self._indexes)
        left.ip(
            f"link add {near.name} index {left_index} type veth"
            f" peer name {far.name} index {right_index} netns {right.name}"
        )
        for end in ends:
            end.node.connect(end)
        for end in ends:
            end.wait_ready()
        return ends

    def transcripts(self) -> list[tuple[str, str]]:
        """Return (program, everything it printed) for every program started."""
        return [(process.label, process.transcript()) for node in self.nodes for process in node.processes]
