"""What `mp2p top` makes of snapshots."""

from __future__ import annotations

from typing import Any

from mp2p.cli.top import rows, topic_rows


def peer(key: str, **facts: Any) -> dict[str, Any]:
    return {
        "key": key, "path": "v4 10.0.0.1:1024", "rtt": 0.0123, "packets_sent": 200, "packets_lost": 3,
        "bytes_received": 0, "bytes_sent": 0, "connected_for": 0.0,
    } | facts  # fmt: skip


def test_rates_are_those_since_the_snapshot_before() -> None:
    before = {"peers": [peer("gone"), peer("a", bytes_received=1024, bytes_sent=4096, connected_for=60.0)]}
    now = {"peers": [peer("a", bytes_received=3072, bytes_sent=4096 + 4 * 2**20, connected_for=62.0)]}
    (row,) = rows(now, before)
    assert row == ("a", "v4 10.0.0.1:1024", "12.3 ms", "1.5 %", "1.0 KiB/s", "2.0 MiB/s", "1:02")


def test_a_key_with_two_connections_and_one_that_is_new() -> None:
    before = {
        "peers": [
            peer("a", bytes_sent=1024, connected_for=5.0),
            peer("a", bytes_sent=9216, connected_for=9.0),
        ]
    }
    now = {
        "peers": [peer("a", bytes_sent=2048, connected_for=6.0), peer("a", bytes_sent=512, connected_for=0.5)]
    }
    assert [row[5] for row in rows(now, before)] == ["1.0 KiB/s", "1.0 KiB/s"]


def test_what_is_not_known_yet() -> None:
    (row,) = rows({"peers": [peer("a", rtt=None, packets_sent=0, packets_lost=0)]}, None)
    assert row[2:6] == ("?", "0.0 %", "0.0 KiB/s", "0.0 KiB/s")


def topic(name: str, **facts: Any) -> dict[str, Any]:
    return {
        "topic": name, "publisher": "key", "published": False, "subscribers": None, "multicast": True, "messages": 0,
        "datagrams": 0, "repairs": 0, "gaps": 0, "active_for": 0.0,
    } | facts  # fmt: skip


def test_topics_of_both_sides() -> None:
    before = {"topics": [topic("a", messages=10, active_for=60.0), topic("gone")]}
    now = {
        "topics": [
            topic("a", messages=15, active_for=62.0, gaps=1, repairs=3, multicast=False),
            topic("a", published=True, subscribers=1000, messages=4, active_for=2.0),
        ]
    }
    assert list(topic_rows(now, before)) == [
        ("a", "key", "by session", "2.5/s", "3", "1", "1:02"),
        ("a", "this node", "1000", "2.0/s", "0", "0", "0:02"),
    ]


def test_a_topic_that_was_subscribed_to_anew() -> None:
    before = {"topics": [topic("a", messages=100, active_for=60.0)]}
    now = {"topics": [topic("a", messages=1, active_for=0.5), topic("b")]}
    assert [row[3] for row in topic_rows(now, before)] == ["2.0/s", "0.0/s"]
