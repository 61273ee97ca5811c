"""What `mp2p top` makes of snapshots."""

from __future__ import annotations

from typing import Any

from mp2p.cli.top import rows


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
