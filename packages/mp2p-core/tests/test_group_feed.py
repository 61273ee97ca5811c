"""From entries to messages and gaps: each message once, none silently skipped (protocol section 8; row G17)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.proto import constants as c
from mp2p_core.proto.group import layout
from mp2p_core.proto.group.events import Gap, Messages
from mp2p_core.proto.group.feed import Entry, Feed
from mp2p_core.proto.group.layout import BEGIN, END


def whole(number: int, count: int = 1) -> Entry:
    return Entry(number, count, [b"%d" % (number + n) for n in range(count)])


def story(feed: Feed) -> list[int | tuple[int | None, int | None]]:
    """Messages as numbers, gaps as pairs."""
    found: list[int | tuple[int | None, int | None]] = []
    while feed.events:
        event = feed.events.popleft()
        if isinstance(event, Messages):
            for n, message in enumerate(event.messages, event.number):
                assert message == b"%d" % n
                found.append(n)
        elif isinstance(event, Gap):
            found.append((event.number, event.missing))
    return found


def feed_from(number: int) -> Feed:
    feed = Feed()
    feed.begin(number)
    return feed


def test_in_order_with_a_gap() -> None:
    feed = feed_from(5)
    for entry in (whole(5), whole(6, 3), whole(12), Entry(13, 0), whole(13)):
        feed.take(entry)
    assert story(feed) == [5, 6, 7, 8, (9, 3), 12, 13]


def test_a_heartbeat_tells_of_messages_lost_at_the_end() -> None:
    feed = feed_from(0)
    feed.take(whole(0))
    feed.lost()
    feed.take(Entry(4, 0))
    assert story(feed) == [0, (1, 3)]
    feed.take(Entry(4, 0))
    assert story(feed) == []


def test_many_messages_beside_many_that_are_kept_cost_no_look_at_each_for_each() -> None:
    looks = 0

    class Stash(dict[int, Entry]):
        def __iter__(self) -> Iterator[int]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    feed = feed_from(0)
    feed._stash = Stash()
    for number in (3, 50, 51, *range(1000, 1100)):
        feed.stash(whole(number))
    feed.take(whole(0, 100))
    assert story(feed) == list(range(100))
    assert looks < 20


def test_repeats_and_overlaps_are_delivered_once() -> None:
    feed = feed_from(0)
    for entry in (whole(0, 5), whole(0, 5), whole(3, 4), whole(2), Entry(1, 0)):
        feed.take(entry)
    assert story(feed) == [0, 1, 2, 3, 4, 5, 6]


def test_what_was_delivered_early_is_not_delivered_again() -> None:
    feed = feed_from(0)
    feed.take(whole(0))
    later = feed.early(whole(2, 2))
    feed.take(whole(1))
    feed.take(later)
    feed.take(whole(4))
    assert story(feed) == [0, 2, 3, 1, 4]


def pieces(number: int, data: bytes, sizes: list[int]) -> list[Entry]:
    found = []
    at = 0
    for n, size in enumerate(sizes):
        flags = (BEGIN if n == 0 else 0) | (END if n == len(sizes) - 1 else 0)
        found.append(Entry(number, 0, None, data[at : at + size] if n < len(sizes) - 1 else data[at:], flags))
        at += size
    return found


def test_pieces_are_put_together_with_a_heartbeat_between_them() -> None:
    feed = feed_from(1)
    first, second, third = pieces(1, b"1", [0, 0, 1])
    for entry in (first, Entry(1, 0), second, third):
        feed.take(entry)
    assert story(feed) == [1]


def test_a_message_with_a_piece_missing_is_a_gap() -> None:
    feed = feed_from(0)
    first, _, third = pieces(0, b"0", [0, 0, 1])
    feed.take(first)
    feed.lost()
    feed.take(third)
    feed.take(whole(1))
    assert story(feed) == [(0, 1), 1]


def test_a_message_that_begins_anew_is_delivered_once() -> None:
    feed = feed_from(0)
    parts = pieces(0, b"0", [0, 1, 0])
    for entry in (parts[0], parts[1], *parts, *parts):
        feed.take(entry)
    assert story(feed) == [0]


def test_pieces_without_a_beginning_are_nothing() -> None:
    feed = feed_from(0)
    for entry in pieces(0, b"0", [0, 0, 1])[1:]:
        feed.take(entry)
    assert story(feed) == []


def test_a_message_that_never_ends_is_given_up() -> None:
    feed = feed_from(0)
    size = 60000
    feed.take(Entry(0, 0, None, bytes(size), BEGIN))
    for _ in range(2 * c.MAX_GROUP_MESSAGE // size):
        feed.take(Entry(0, 0, None, bytes(size), 0))
    assert feed._assembly is None
    feed.take(Entry(0, 0, None, b"", END))
    assert story(feed) == []


def test_what_is_stashed_fills_its_place() -> None:
    feed = feed_from(0)
    feed.take(whole(0))
    for entry in (whole(5, 2), feed.early(whole(9)), Entry(20, 0), Entry(3, 0, None, b"x", 0)):
        feed.stash(entry)
    assert story(feed) == [0, 9]
    feed.take(whole(2))  # the backlog begins
    assert story(feed) == [(1, 1), 2]
    feed.take(whole(6, 2))
    assert story(feed) == [(3, 2), 5, 6, 7]
    feed.take(whole(10))
    assert story(feed) == [(8, 1), 10]


def test_a_restart_says_so_after_what_is_left() -> None:
    feed = feed_from(0)
    feed.take(whole(0))
    feed.stash(whole(3))
    feed.restart()
    assert story(feed) == [0, (1, 2), 3, (None, None)]
    feed.begin(0)
    feed.take(whole(0))
    assert story(feed) == [0]


@given(
    st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=40), st.integers(0, 2**32)
)
def test_every_number_is_delivered_or_reported_once(plan: list[tuple[int, bool, bool]], seed: int) -> None:
    """Entries in order: some lost, some delivered early; then a backlog that overlaps, and the rest."""
    rng = random.Random(seed)
    feed = feed_from(0)
    number = 0
    reported: list[int] = []

    def note() -> None:
        for item in story(feed):
            if isinstance(item, int):
                reported.append(item)
            else:
                start, missing = item
                assert start is not None
                assert missing is not None
                reported.extend(range(start, start + missing))

    stashing = rng.random() < 0.5
    for span, lost, early in plan:
        entry = whole(number, span)
        number += span
        if lost:
            feed.lost()
            continue
        if early:
            entry = feed.early(entry)
        if stashing and early:
            feed.stash(entry)
        else:
            feed.take(entry)
        note()
    feed.take(Entry(number, 0))
    note()
    assert sorted(reported) == list(range(number))


def test_a_packet_of_many_messages_is_cut_once_where_some_are_there_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attack: a publisher that packs thousands of messages into one packet; to cut it for each takes a minute."""
    cuts = 0
    genuine = layout.split

    def split(*arguments: object) -> object:
        nonlocal cuts
        cuts += 1
        return genuine(*arguments)  # type: ignore[arg-type]  # whatever was given

    monkeypatch.setattr(layout, "split", split)
    packet = layout.parse_large_plain_untrusted(layout.large_plain(0, [b"%d" % n for n in range(5000)]))
    feed = feed_from(0)
    feed.stash(whole(4000))
    feed.take(Entry(0, 5000, packet.messages))
    assert story(feed) == list(range(5000))
    assert cuts == 1
