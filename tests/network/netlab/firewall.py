"""Packet filters and address translation (nftables). Each is its own table, so they combine freely."""

from __future__ import annotations

from netlab.lab import Host, Interface, Node

__all__ = [
    "allow_groups",
    "block_family",
    "block_membership_queries",
    "drop_new_inbound",
    "lose",
    "masquerade",
]


def drop_new_inbound(host: Host) -> None:
    """Accept answers to what the host itself sent and nothing else, as desktop firewalls do.

    Error messages, neighbour discovery and multicast membership stay allowed.
    """
    host.nft(
        """
        table inet stateful {
            set groups4 { type ipv4_addr; flags interval; }
            set groups6 { type ipv6_addr; flags interval; }
            chain input {
                type filter hook input priority 0; policy drop;
                iifname "lo" accept
                ct state established,related accept
                meta l4proto { icmp, igmp, ipv6-icmp } accept
                ip daddr @groups4 accept
                ip6 daddr @groups6 accept
            }
        }
        """
    )


def allow_groups(host: Host, *groups: str) -> None:
    """Let new flows to these groups (addresses or prefixes) through the firewall of `drop_new_inbound`."""
    for group in groups:
        family = 6 if ":" in group else 4
        host.nft(f"add element inet stateful groups{family} {{ {group} }}")


def lose(node: Node, percent: int) -> None:
    """Lose this share of the UDP datagrams that arrive, at random; 0 ends it.

    A node loses what is addressed to it, and a router also what it passes on.
    """
    rule = f"meta l4proto udp numgen random mod 100 < {percent} drop"
    node.nft(
        f"""
        table inet loss {{ }}
        delete table inet loss
        table inet loss {{
            chain input {{ type filter hook input priority -10; {rule}; }}
            chain forward {{ type filter hook forward priority -10; {rule}; }}
        }}
        """
    )


def block_family(host: Host, version: int) -> None:
    """Let no UDP of this IP version in from now on."""
    host.nft(
        f"""
        table {"ip" if version == 4 else "ip6"} blocked {{
            chain input {{ type filter hook input priority -15; meta l4proto udp drop; }}
        }}
        """
    )


def masquerade(router: Node, out: Interface) -> None:
    """Translate the source of all IPv4 that leaves through `out` to its address, as home routers do."""
    router.nft(
        f"""
        table ip nat {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname "{out.name}" masquerade
            }}
        }}
        """
    )


def block_membership_queries(host: Host) -> None:
    """Drop inbound IGMP and MLD: the host's memberships die in switches that snoop."""
    host.nft(
        """
        table inet membership {
            chain input {
                type filter hook input priority -20;
                meta l4proto igmp drop
                icmpv6 type { mld-listener-query, mld-listener-report, mld2-listener-report } drop
            }
        }
        """
    )
