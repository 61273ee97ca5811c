"""A node's counters and gauges, and how Prometheus and its relatives read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from mp2p_core.status import ChannelStatus, PeerStatus

__all__ = ["Metric", "collect_metrics", "render_metrics"]

_Kind: TypeAlias = Literal["counter", "gauge"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number. Counters only rise, and begin at 0 when what they count does; times are in seconds."""

    name: str
    kind: _Kind
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


_PEER_COUNTERS: Final = (
    ("packets_sent", "Packets sent to the peer."),
    ("bytes_sent", "Bytes of packets sent to the peer, sealed."),
    ("packets_received", "Packets of the peer that opened."),
    ("bytes_received", "Bytes of packets of the peer that opened."),
    ("packets_lost", "Packets sent to the peer that count as lost."),
    ("unsent_messages", "Datagrams of the application dropped before the network."),
    ("unread_messages", "Datagrams of the peer dropped before the application."),
    ("rekeys", "Times that new keys took over."),
)


def collect_metrics(
    counters: Mapping[str, int],
    tables: Mapping[str, int],
    channels: Sequence[ChannelStatus],
    peers: Sequence[PeerStatus],
) -> Iterator[Metric]:
    """Make metrics of what a node counts; those of one name follow each other."""
    for event, count in sorted(counters.items()):
        labels = {"event": event}
        yield Metric(
            "mp2p_events_total", "counter", "Datagrams and sessions by what became of them.", count, labels
        )
    for table, size in sorted(tables.items()):
        yield Metric("mp2p_table_entries", "gauge", "Entries of each bounded table.", size, {"table": table})
    yield Metric("mp2p_peers", "gauge", "Connections.", len(peers))
    yield from _of_interfaces(channels)
    yield from _of_peers(peers)


def _of_interfaces(channels: Sequence[ChannelStatus]) -> Iterator[Metric]:
    listed = [
        ({"channel": channel.address, "interface": each.name}, each)
        for channel in channels
        for each in channel.interfaces
    ]
    for labels, each in listed:
        text = "Whether the node listens on the interface."
        yield Metric("mp2p_interface_joined", "gauge", text, int(each.joined), labels)
    for labels, each in listed:
        if each.joined_for is not None:
            text = "Time since the last join."
            yield Metric("mp2p_interface_joined_seconds", "gauge", text, each.joined_for, labels)
    for labels, each in listed:
        if each.heard_ago is not None:
            text = "Time since a datagram came in."
            yield Metric("mp2p_interface_heard_seconds", "gauge", text, each.heard_ago, labels)
    for labels, each in listed:
        text = "Leaves and joins to remind the network."
        yield Metric("mp2p_interface_rejoins_total", "counter", text, each.rejoins, labels)
    for labels, each in listed:
        text = "Datagrams that could not be sent."
        yield Metric("mp2p_interface_unsent_total", "counter", text, each.unsent, labels)


def _of_peers(peers: Sequence[PeerStatus]) -> Iterator[Metric]:
    # A key may have several connections, and a series has one value: sums, and of the gauges the best.
    by_key: dict[str, list[PeerStatus]] = {}
    for peer in peers:
        by_key.setdefault(str(peer.key), []).append(peer)
    for attribute, text in _PEER_COUNTERS:
        for key, each in by_key.items():
            count = sum(getattr(peer, attribute) for peer in each)
            yield Metric(f"mp2p_peer_{attribute}_total", "counter", text, count, {"peer": key})
    for key, each in by_key.items():
        if measured := [peer.rtt for peer in each if peer.rtt is not None]:
            yield Metric(
                "mp2p_peer_rtt_seconds", "gauge", "Smoothed round-trip time.", min(measured), {"peer": key}
            )
    for key, each in by_key.items():
        longest = max(peer.connected_for for peer in each)
        yield Metric(
            "mp2p_peer_connected_seconds", "gauge", "Time since the handshake.", longest, {"peer": key}
        )


def render_metrics(metrics: Iterable[Metric]) -> str:
    """Write metrics in the text format that Prometheus scrapes (version 0.0.4), each name's in one group."""
    groups: dict[str, list[Metric]] = {}
    for metric in metrics:
        groups.setdefault(metric.name, []).append(metric)
    lines: list[str] = []
    for name, group in groups.items():
        lines += [f"# HELP {name} {_escape(group[0].help)}", f"# TYPE {name} {group[0].kind}"]
        for metric in group:
            labels = ",".join(f'{label}="{_escape_label(value)}"' for label, value in metric.labels.items())
            lines.append(
                f"{name}{{{labels}}} {_number(metric.value)}" if labels else f"{name} {_number(metric.value)}"
            )
    return "".join(f"{line}\n" for line in lines)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape(text).replace('"', '\\"')


def _number(value: float) -> str:
    # Python's own words for what is no number (inf, nan) are read as well, in any case of letters.
    return str(value)
