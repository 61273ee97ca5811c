"""Which interfaces are used, and the words for those that are not."""

from __future__ import annotations

import errno
import os
import socket
from ipaddress import ip_interface

import pytest

from mp2p_udp import Choice, Features, Interface, choose, detect, errnos, inventory, list_interfaces
from mp2p_udp.options import set_quietly

psutil = pytest.importorskip("psutil", reason="what other systems are asked with, and Linux compared with")

V4, V6 = socket.AF_INET, socket.AF_INET6
USABLE = frozenset({"up", "running", "multicast", "broadcast"})


def interface(name: str, flags: frozenset[str] = USABLE, *addresses: str) -> Interface:
    own = tuple(map(ip_interface, addresses or ("192.0.2.1/24", "fe80::1/64")))
    return Interface(name, sum(name.encode()), flags, own, 1500)


LO = interface("lo", frozenset({"up", "running", "loopback"}), "127.0.0.1/8", "::1/128")
ETH = interface("eth0")
VPN = interface("tun0", USABLE | {"pointopoint"})
ALL = (LO, ETH, VPN)


def names(choice: Choice) -> list[str]:
    return [each.name for each in choice.eligible]


def reasons(choice: Choice) -> dict[str, str]:
    return {each.name: each.reason for each in choice.skipped}


@pytest.mark.parametrize("number", [V4, V6])
def test_every_usable_interface_is_taken_and_the_others_explained(number: int) -> None:
    choice = choose(ALL, number)
    assert names(choice) == ["eth0"]
    assert "loopback" in reasons(choice)["lo"]
    assert "point-to-point" in reasons(choice)["tun0"]


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (USABLE - {"up"}, "down"),
        (USABLE - {"running"}, "carrier"),
        (USABLE - {"multicast"}, "MULTICAST"),
        (frozenset({""}), "down"),
    ],
)
def test_an_interface_that_cannot_is_refused_even_when_asked_for(flags: frozenset[str], word: str) -> None:
    for asked in ((), ("x0",)):
        choice = choose([interface("x0", flags)], V4, asked=asked)
        assert not choice.eligible
        assert word in reasons(choice)["x0"]


def test_the_missing_address_is_named_by_its_family() -> None:
    only_v6, only_v4 = interface("a", USABLE, "2001:db8::1/64"), interface("b", USABLE, "192.0.2.1/24")
    assert "no IPv4 address" in reasons(choose([only_v6], V4))["a"]
    assert "no IPv6 address" in reasons(choose([only_v4], V6))["b"]
    assert names(choose([only_v6, only_v4], V4)) == ["b"]


def test_names_override_loopback_and_point_to_point() -> None:
    choice = choose(ALL, V4, asked=("lo", "tun0"))
    assert names(choice) == ["lo", "tun0"]
    assert reasons(choice) == {"eth0": "it was not asked for"}


def test_unknown_names_are_reported_once_with_the_known_ones() -> None:
    choice = choose(ALL, V4, asked=("eth1", "eth1", "eth0"))
    assert names(choice) == ["eth0"]
    assert reasons(choice)["eth1"] == "there is no interface of this name (there is: eth0, lo, tun0)"
    assert "none at all" in reasons(choose((), V4, asked=("eth1",)))["eth1"]


def test_loopback_alone_for_reach_host_unless_others_are_named() -> None:
    assert names(choose(ALL, V4, loopback=True)) == ["lo"]
    assert names(choose(ALL, V4, loopback=True, asked=("eth0",))) == ["eth0"]


def test_the_system_agrees_with_psutil_and_the_kernel() -> None:
    found = {each.name: each for each in list_interfaces()}
    assert list(found) == sorted(found, key=lambda name: found[name].index)
    assert all(socket.if_indextoname(each.index) == name for name, each in found.items())
    assert found.keys() == psutil.net_if_stats().keys()
    words = {"up", "running", "multicast", "loopback", "pointopoint"}
    for name, stats in psutil.net_if_stats().items():
        if stats.flags:  # not on Windows
            assert found[name].flags & words == set(stats.flags.split(",")) & words
        assert found[name].mtu == stats.mtu
    for name, entries in psutil.net_if_addrs().items():
        there = {entry.address.partition("%")[0] for entry in entries if entry.family in (V4, V6)}
        assert {str(address.ip) for address in found[name].addresses} == there
    loopbacks = [each for each in found.values() if "loopback" in each.flags]
    assert any(str(address) == "127.0.0.1/8" for each in loopbacks for address in each.addresses)


def test_aliases_masks_and_systems_without_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    address = psutil._ntuples.snicaddr
    name = socket.if_indextoname(1)
    addresses = {
        name: [
            address(socket.AF_INET, "192.0.2.1", "255.255.255.0", None, None),
            address(socket.AF_INET6, f"fe80::1%{name}", "ffff:ffff:ffff:ffff::", None, None),
            address(socket.AF_INET6, "2001:db8::5", None, None, None),
            address(psutil.AF_LINK, "00:00:00:00:00:00", None, None, None),
        ],
        f"{name}:1": [address(socket.AF_INET, "192.0.2.7", "255.255.255.255", None, None)],
        f"{name}1": [address(socket.AF_INET, "198.51.100.1", "255.255.255.0", None, None)],
    }
    stats = {
        name: psutil._ntuples.snicstats(True, 0, 0, 1400, ""),
        "gone0": psutil._ntuples.snicstats(True, 0, 0, 1400, ""),
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: addresses)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: stats)
    monkeypatch.setattr(inventory, "_ask_linux", inventory._ask_psutil)
    (only,) = list_interfaces()
    assert [str(each) for each in only.addresses] == [
        "192.0.2.1/24",
        "fe80::1/64",
        "2001:db8::5/128",
        "192.0.2.7/32",
    ]
    assert (only.mtu, only.index) == (1400, 1)
    assert names(choose([only], V4)) == [name]
    stats[name] = psutil._ntuples.snicstats(False, 0, 0, 1400, "")
    assert "down" in reasons(choose(list_interfaces(), V4))[name]


# Features and errors.


@pytest.mark.parametrize("number", [V4, V6])
def test_features_are_what_a_socket_accepts(number: int) -> None:
    found = detect(number)
    assert found is detect(number)
    if os.uname().sysname == "Linux":
        assert found.recvmsg
        assert found.bind_to_group
        assert found.multicast_all
        assert not found.reuse_port


def test_a_family_that_the_system_lacks_has_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        found = detect.__wrapped__(V6)
    assert found == Features()


def test_options_that_are_not_there_are_no_trouble() -> None:
    with socket.socket(V4, socket.SOCK_DGRAM) as sock:
        assert not set_quietly(sock, socket.SOL_SOCKET, None, 1)
        assert not set_quietly(sock, socket.SOL_SOCKET, 9999, 1)
        assert set_quietly(sock, socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


@pytest.mark.parametrize("explain", [errnos.of_send, errnos.of_join, errnos.of_bind])
def test_each_error_number_has_a_meaning_and_a_thing_to_do(explain: object) -> None:
    assert callable(explain)
    for number in errno.errorcode:
        text, _ = explain(number)
        assert text.partition(": ")[2], text
    assert explain(None).transient
    assert "EPERM" in explain(errno.EPERM).text


def test_what_passes_by_itself_is_transient() -> None:
    for number in (errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.EPERM, errno.ENODEV):
        assert errnos.of_send(number).transient
    assert not errnos.of_send(errno.EMSGSIZE).transient
