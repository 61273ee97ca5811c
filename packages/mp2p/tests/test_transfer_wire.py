"""The messages of a file transfer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p.transfer import wire
from mp2p_core.errors import BadPacket

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
SIZES = st.integers(0, wire.MAX_SIZE)
DIGESTS = st.binary(min_size=32, max_size=32)
OFFERS = st.builds(
    wire.Offer,
    id=st.binary(min_size=16, max_size=16),
    name=TEXTS,
    size=SIZES,
    time_ns=st.none() | st.integers(-(2**63), 2**63 - 1),
)
REPLIES = st.one_of(
    st.builds(wire.Have, offset=st.integers(0, 2**64 - 1), digest=DIGESTS),
    st.builds(wire.Written, size=st.integers(0, 2**64 - 1)),
    st.builds(wire.Done, digest=DIGESTS, name=TEXTS),
    st.builds(wire.Failed, code=st.integers(0, 65535), words=TEXTS),
)
GOES = st.builds(wire.Go, offset=SIZES)


@given(OFFERS | REPLIES | GOES, st.binary(max_size=20))
def test_round_trip_and_what_follows_is_left_alone(
    message: wire.Offer | wire.Go | wire.Reply, rest: bytes
) -> None:
    data = wire.encode(message)
    assert decoder_of(message)(data + rest) == (message, len(data))


@given(OFFERS | REPLIES | GOES, st.data())
def test_a_message_that_is_not_whole_is_waited_for(
    message: wire.Offer | wire.Go | wire.Reply, draw: st.DataObject
) -> None:
    data = wire.encode(message)
    assert decoder_of(message)(data[: draw.draw(st.integers(0, len(data) - 1))]) is None


def decoder_of(message: object) -> Callable[[bytes], tuple[object, int] | None]:
    if isinstance(message, wire.Offer):
        return wire.decode_offer_untrusted
    return wire.decode_go_untrusted if isinstance(message, wire.Go) else wire.decode_reply_untrusted


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda data: b"mp2pfile\x01" + data))
def test_P9_any_bytes_raise_only_bad_packet(data: bytes) -> None:
    for decode_untrusted in (
        wire.decode_offer_untrusted,
        wire.decode_go_untrusted,
        wire.decode_reply_untrusted,
    ):
        try:
            found = decode_untrusted(data)
        except BadPacket:
            continue
        if found is not None:
            message, length = found
            assert wire.encode(message) == data[:length]


GOOD = wire.encode(wire.Offer(bytes(16), "name", 5))


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"GET / HTTP/1.1",
        GOOD[:8] + b"\x02" + GOOD[9:],
        GOOD[:9] + b"\x02" + GOOD[10:],
        GOOD[:26] + b"\x80" + GOOD[27:],
        GOOD[:41] + b"\x01" + GOOD[42:],
        GOOD[:42] + b"\x04\x01" + bytes(1025),
        GOOD[:44] + b"\xff" + GOOD[45:],
    ],
    ids=["letter", "http", "version", "flag", "size", "time without flag", "long name", "not UTF-8"],
)
def test_offers_that_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        wire.decode_offer_untrusted(data)


def test_what_is_no_offer_is_refused_at_its_first_byte() -> None:
    """Not only once 44 bytes have come, which some other protocol may never send."""
    for length in range(1, 9):
        assert wire.decode_offer_untrusted(b"mp2pfile"[:length]) is None
        with pytest.raises(BadPacket):
            wire.decode_offer_untrusted(b"mp2pfile"[: length - 1] + b"x")


@pytest.mark.parametrize("data", [b"\x00" * 9, b"\x02" + bytes(8), b"\x01\x80" + bytes(7)])
def test_goes_that_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        wire.decode_go_untrusted(data)


@pytest.mark.parametrize("data", [b"\x00", b"\x1f\x00\x00\x04\x01", b"\x1f\x00\x00\x00\x01\xff"])
def test_replies_that_are_refused(data: bytes) -> None:
    with pytest.raises(BadPacket):
        wire.decode_reply_untrusted(data)


def test_texts_are_cut_to_what_fits() -> None:
    found = wire.decode_offer_untrusted(wire.encode(wire.Offer(bytes(16), "é" * 600 + "\udcff", 0)))
    assert found is not None
    assert found[0].name == "é" * 512
    found_reply = wire.decode_reply_untrusted(wire.encode(wire.Failed(1, "x" * 2000)))
    assert found_reply is not None
    assert found_reply[0] == wire.Failed(1, "x" * 1024)


def test_a_name_that_is_no_unicode_is_sent_with_a_question_mark() -> None:
    found = wire.decode_offer_untrusted(wire.encode(wire.Offer(bytes(16), "caf\udce9.txt", 0)))
    assert found is not None
    assert found[0].name == "caf?.txt"
