"""Layouts of GROUP datagrams and of control messages (protocol section 8; rows P1, P6, G6)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto.group import control as g
from mp2p_core.proto.group import layout as la

TOPIC = bytes(range(16))
RUN = b"run-run-"
CHANNEL = b"channel-"
GRANT = g.Grant(
    topic=TOPIC, channel=CHANNEL, epoch=3, generation=2, chain_key=b"c" * 32, signing_key=b"s" * 32, next_seq=9,
    group=b"g" * 20, history=5, heartbeat_ms=2000, last_seq=77, number=2**40, run=RUN, mode=g.ORDERED, backlog=True,
)  # fmt: skip
CONTROLS: list[g.Control] = [
    g.Ask(TOPIC, RUN, 2**40, 7, fresh=True),
    g.Ask(TOPIC, RUN, 2**40, 7, fresh=False, kinds=b"\4\6"),
    GRANT,
    g.Refuse(TOPIC, g.REFUSE_REVOKED, "no"),
    g.Leave(TOPIC),
    g.Report(TOPIC, CHANNEL, 2**50, 2**49, 100, 3, 0.25, deaf=True, slow=False),
    g.Backlog(TOPIC, RUN, 12, last=True, messages=[b"a", b"", b"bcd"]),
    g.Backlog(TOPIC, RUN, 12, last=False, messages=[]),
    g.Relay(TOPIC, b"datagram"),
    g.Confirm(TOPIC, CHANNEL, 2**40),
]


def test_the_header_is_that_of_the_protocol_to_the_byte() -> None:
    header = la.group_header(0x0102, CHANNEL, 0x1122)
    assert header == bytes.fromhex("15 00 0102") + CHANNEL + bytes.fromhex("0000000000001122")
    assert la.group_fields(header) == (0x15, 0, 0x0102, CHANNEL, 0x1122)


def test_bodies_are_those_of_the_protocol_to_the_byte() -> None:
    assert la.data_plain(la.DATA, la.BEGIN, 2**32 + 5, b"xy") == bytes.fromhex("11 00000005") + b"xy"
    assert (
        la.several_plain(la.DATA_COVERED, 5, [b"a", b"", b"bc"])
        == bytes.fromhex("72 00000005 03 0001 0000 0002") + b"abc"
    )
    assert la.manifest_body([b"1" * 16, b"2" * 16]) == b"\x02" + b"1" * 16 + b"2" * 16
    assert la.heartbeat_body(1, 2, 3, 2**32 + 4) == bytes.fromhex(
        "0000000000000001 0000000000000002 00000003 00000004"
    )
    assert la.rotate_body(7) == bytes.fromhex("0000000000000007")


def test_the_grant_is_that_of_the_protocol_to_the_byte() -> None:
    packed = GRANT.pack()
    assert packed == (
        b"\x02" + TOPIC + CHANNEL + bytes.fromhex("00000003 0002") + b"c" * 32 + b"s" * 32
        + bytes.fromhex("0000000000000009") + b"g" * 20 + bytes.fromhex("00000005 07d0 000000000000004d")
        + (2**40).to_bytes(8, "big") + RUN + bytes.fromhex("02 01")
    )  # fmt: skip
    assert len(packed) == 155


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: type(control).__name__)
def test_control_messages_come_back_as_they_were(control: g.Control) -> None:
    packed = control.pack()
    assert g.parse_control_untrusted(packed) == control
    if not isinstance(control, g.Relay):
        for end in range(len(packed)):
            with pytest.raises(BadPacket):
                g.parse_control_untrusted(packed[:end])
        with pytest.raises(BadPacket):
            g.parse_control_untrusted(packed + b"\0")


@pytest.mark.parametrize(
    "wrong",
    [
        {"generation": 65},
        {"next_seq": 0},
        {"next_seq": 2**63},
        {"last_seq": 2**63},
        {"number": 2**63},
        {"heartbeat_ms": 0},
        {"mode": 3},
        {"run": g.NO_RUN},
    ],
    ids=str,
)
def test_a_grant_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BadPacket):
        g.parse_control_untrusted(GRANT._replace(**wrong).pack())  # type: ignore[arg-type]  # each value fits its name


def test_a_grant_shows_no_key() -> None:
    assert "c" * 32 not in repr(GRANT)
    assert repr(GRANT.chain_key) not in repr(GRANT)


def test_a_report_cannot_lose_more_than_there_was() -> None:
    found = g.parse_control_untrusted(
        g.Report(TOPIC, CHANNEL, 1, 1, 10, 11, 0.0, deaf=False, slow=False).pack()
    )
    assert isinstance(found, g.Report)
    assert found.lost == 10


def test_a_refusal_is_cut_between_characters() -> None:
    found = g.parse_control_untrusted(g.Refuse(TOPIC, 1, "ä" * 200).pack())
    assert isinstance(found, g.Refuse)
    assert found.text == "ä" * 127


@given(st.binary(max_size=200))
def test_P1_any_bytes_raise_nothing_but_bad_packet(data: bytes) -> None:
    for start in (b"", *(bytes([kind]) for kind in range(9))):
        with contextlib.suppress(BadPacket):
            g.parse_control_untrusted(start + data)
    for parse in (
        la.parse_data_untrusted,
        la.parse_heartbeat_untrusted,
        la.parse_manifest_untrusted,
        la.parse_rotate_untrusted,
    ):
        with contextlib.suppress(BadPacket):
            parse(b"k" + data, len(data) + 1)
    with contextlib.suppress(BadPacket):
        g.parse_nack_untrusted(data, 0)


@given(
    st.integers(0, 2**32 - 1), st.lists(st.binary(max_size=20), min_size=1, max_size=255), st.integers(0, 70)
)
def test_several_messages_come_back_whatever_follows(number: int, messages: list[bytes], tail: int) -> None:
    body = la.several_plain(la.DATA, number, messages)
    data = la.parse_data_untrusted(body + bytes(tail), len(body))
    assert (data.number, data.messages, data.piece) == (number, messages, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x31\0\0\0",
        b"\x81\0\0\0\0x",  # a flag that there is not
        b"\x51\0\0\0\0\x01\0\x01x",  # SEVERAL without END
        b"\x71\0\0\0\0",
        b"\x71\0\0\0\0\0",  # none
        b"\x71\0\0\0\0\x02\0\x01",  # lengths cut
        b"\x71\0\0\0\0\x01\0\x02x",  # message cut
        b"\x71\0\0\0\0\x01\0\x01xy",  # more than there should be
    ],
)
def test_data_that_contradicts_itself_is_refused(body: bytes) -> None:
    with pytest.raises(BadPacket):
        la.parse_data_untrusted(body, len(body))


@pytest.mark.parametrize(("flags", "piece"), [(3, None), (0, b"xy"), (1, b"xy"), (2, b"xy")])
def test_one_message_or_a_piece_of_one(flags: int, piece: bytes | None) -> None:
    body = la.data_plain(la.DATA, flags, 9, b"xy")
    found = la.parse_data_untrusted(body, len(body))
    assert (found.flags, found.number, found.piece) == (flags, 9, piece)
    assert found.messages == ([b"xy"] if piece is None else [])


@pytest.mark.parametrize("count", [0, 65, 255])
def test_G6_a_manifest_of_none_or_of_too_many_is_refused(count: int) -> None:
    body = bytes([3, count]) + bytes(16 * count)
    with pytest.raises(BadPacket):
        la.parse_manifest_untrusted(body, len(body))


def test_a_manifest_has_what_its_count_says() -> None:
    body = b"\x03" + la.manifest_body([b"1" * 16, b"2" * 16])
    assert la.parse_manifest_untrusted(body, len(body)) == [b"1" * 16, b"2" * 16]
    for end in (len(body) - 1, len(body) - 16, 1):
        with pytest.raises(BadPacket):
            la.parse_manifest_untrusted(body, end)


@given(st.sets(st.integers(1, 3000), min_size=1), st.integers(0, 2**62))
def test_nacks_name_exactly_what_was_asked_for(places: set[int], base: int) -> None:
    seqs = sorted(base + place for place in places)
    found = g.nacks_for(CHANNEL, seqs)
    back = []
    for nack in found:
        again, at = g.parse_nack_untrusted(b"??" + nack.pack() + b"?", 2)
        assert again == nack
        assert at == 2 + len(nack.pack())
        assert len(nack.bitmap) <= 64
        back += nack.seqs()
    assert back == seqs


def test_the_nack_is_that_of_the_protocol_to_the_byte() -> None:
    (nack,) = g.nacks_for(CHANNEL, [5, 6, 14])
    assert nack.pack() == CHANNEL + bytes.fromhex("0000000000000005 02 0302")
    with pytest.raises(BadPacket):
        g.parse_nack_untrusted(nack.pack()[:-1], 0)
    with pytest.raises(BadPacket):
        g.parse_nack_untrusted(CHANNEL + bytes(8) + b"\x41" + bytes(65), 0)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=30), st.integers(0, 8))
def test_messages_of_a_packet_are_what_was_packed_however_they_are_looked_at(
    sent: list[bytes], head: int
) -> None:
    data = la.parse_large_plain_untrusted(la.large_plain(7, sent))
    packed = data.messages
    assert (data.number, len(packed), [*packed]) == (7, len(sent), sent)
    assert [packed[n] for n in range(len(sent))] == sent
    assert [*packed[1:]] == sent[1:]
    heads, rests = la.split(packed, head)
    assert [*heads] == [each[:head] for each in sent]
    assert [*rests] == [each[head:] for each in sent]
    assert (heads, rests) == tuple(map(type(heads), la.split(sent, head)))
