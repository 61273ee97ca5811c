"""The networks that the tests run on. Each function wires one into a lab and returns its ends."""

from __future__ import annotations

from typing import NamedTuple

from netlab.firewall import masquerade
from netlab.lab import Bridge, Host, Interface, Lab, Router, Subnet

__all__ = [
    "Ends",
    "Shared",
    "TwoLans",
    "nat_on_both_sides",
    "one_switch",
    "three_routers",
    "two_hosts",
    "two_lans",
]


class Ends(NamedTuple):
    """Two hosts that want to talk, with their interfaces, and the routers between them."""

    left: Host
    right: Host
    left_port: Interface
    right_port: Interface
    routers: tuple[Router, ...] = ()


def two_hosts(lab: Lab) -> Ends:
    """Wire two hosts directly: left - right."""
    left, right = lab.host("left"), lab.host("right")
    return Ends(left, right, *lab.link(left, right))


def _chain(lab: Lab, left_subnet: Subnet, right_subnet: Subnet) -> Ends:
    left, right = lab.host("left"), lab.host("right")
    first, middle, last = (lab.router(f"router{n}") for n in (1, 2, 3))
    left_port, left_gateway = lab.link(left, first, left_subnet)
    near_core, far_core = lab.subnet(), lab.subnet()
    _, middle_in = lab.link(first, middle, near_core)
    right_port, right_gateway = lab.link(right, last, right_subnet)
    _, middle_out = lab.link(last, middle, far_core)
    left.route(left_gateway)
    right.route(right_gateway)
    first.route(middle_in)
    last.route(middle_out)
    for router in (first, middle, last):
        router.start_multicast()
    return Ends(left, right, left_port, right_port, (first, middle, last))


def three_routers(lab: Lab) -> Ends:
    """Put three routers between two hosts, with unicast routes everywhere."""
    left_subnet, right_subnet = lab.subnet(), lab.subnet()
    ends = _chain(lab, left_subnet, right_subnet)
    first, middle, last = ends.routers
    middle.route(first.interfaces[1], left_subnet)
    middle.route(last.interfaces[1], right_subnet)
    return ends


def nat_on_both_sides(lab: Lab) -> Ends:
    """Put two home routers and a core between two hosts that have the same private IPv4 address.

    The core knows no way to either home: all that reaches them is multicast.
    """
    home = "192.168.1.0/24"
    ends = _chain(lab, Subnet(home), Subnet(home))
    first, _, last = ends.routers
    for router in (first, last):
        masquerade(router, router.interfaces[1])
    return ends


class Shared(NamedTuple):
    """Hosts on one switch."""

    switch: Bridge
    hosts: tuple[Host, ...]
    ports: tuple[Interface, ...]


def one_switch(lab: Lab, count: int, *, snooping: bool = False, querier: bool = False) -> Shared:
    """Put hosts on one switch."""
    switch = lab.bridge("switch", snooping=snooping, querier=querier)
    hosts = tuple(lab.host(f"host{n}") for n in range(1, count + 1))
    return Shared(switch, hosts, tuple(lab.link(host, switch)[0] for host in hosts))


class TwoLans(NamedTuple):
    """A host with a leg in each of two networks, and a neighbour in each."""

    host: Host
    first: Host
    second: Host
    host_ports: tuple[Interface, Interface]
    first_port: Interface
    second_port: Interface


def two_lans(lab: Lab) -> TwoLans:
    """Give a host two networks; its default route leads to the neighbour in the first."""
    host, first, second = lab.host("host"), lab.host("first"), lab.host("second")
    eth0, first_port = lab.link(host, first)
    eth1, second_port = lab.link(host, second)
    host.route(first_port)
    return TwoLans(host, first, second, (eth0, eth1), first_port, second_port)
