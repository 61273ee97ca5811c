"""What a node can say of its topics: plain values, made when asked for (docs/monitoring.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mp2p_core import Metric, PublicKey

__all__ = ["TopicStatus", "topic_metrics"]


@dataclass(frozen=True, slots=True)
class TopicStatus:
    """How one topic does here. Counts begin when it is published, or followed."""

    topic: str
    publisher: PublicKey
    published: bool
    """Whether this node publishes it, or else is subscribed."""
    subscribers: int | None
    """Sessions that are subscribed. The publisher knows, and nobody else."""
    multicast: bool
    """Whether it comes by multicast; False when it has to be sent to this node alone, over the session."""
    messages: int
    """Messages sent, or come in."""
    datagrams: int
    """Datagrams of messages that left, or came in by multicast."""
    repairs: int
    """Datagrams sent again for those who missed them; of a subscriber, how often it has asked for some."""
    gaps: int
    """How often a subscriber was told that messages are missing, but for those that its own reader was too slow for."""
    active_for: float
    """Seconds since it is published, or followed."""


_COUNTERS: Final = (
    ("messages", "Messages sent, or come in."),
    ("datagrams", "Datagrams of messages that left, or came in by multicast."),
    ("repairs", "Datagrams sent again, or requests for them."),
    ("gaps", "Times that messages were missing."),
)


def topic_metrics(topics: Iterable[TopicStatus]) -> Iterator[Metric]:
    """Make metrics of these. A topic that is followed more than once is one series: sums."""
    series: dict[tuple[str, str, str], list[TopicStatus]] = {}
    for each in topics:
        side = "published" if each.published else "subscribed"
        series.setdefault((each.topic, str(each.publisher), side), []).append(each)
    labelled = [
        ({"topic": topic, "publisher": publisher, "side": side}, same)
        for (topic, publisher, side), same in series.items()
    ]
    for attribute, text in _COUNTERS:
        for labels, same in labelled:
            count = sum(getattr(each, attribute) for each in same)
            yield Metric(f"mp2p_topic_{attribute}_total", "counter", text, count, labels)
    for labels, same in labelled:
        if same[0].subscribers is not None:
            yield Metric(
                "mp2p_topic_subscribers", "gauge", "Sessions subscribed.", same[0].subscribers, labels
            )
    for labels, same in labelled:
        text = "Whether it comes by multicast."
        yield Metric("mp2p_topic_multicast", "gauge", text, int(all(each.multicast for each in same)), labels)
