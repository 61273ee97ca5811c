"""Layouts of INIT, RESP, COOKIE and the DATA header (protocol sections 3, 4 and 6; rows P2, P4, P9)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto import wire

ID = bytes(range(1, 9))
GROUP = bytes.fromhex("04000400" + "00" * 10 + "ffff" + "e000e607")
PLAIN_INIT = wire.init_header(ID, None) + bytes(224)
HINTED_INIT = wire.init_header(ID, GROUP) + bytes(224)


def is_init(datagram: bytes) -> bool:
    return wire.is_init_untrusted(datagram, PLAIN_INIT[:4], HINTED_INIT[:4])


def edited(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + bytes([value]) + packet[at + 1 :]


def test_init_header_to_the_byte() -> None:
    assert wire.init_header(ID, None) == b"\x11\x01\x00\x00" + ID + bytes(20)
    assert wire.init_header(ID, GROUP) == b"\x11\x01\x01\x00" + ID + GROUP
    assert wire.init_fields(PLAIN_INIT) == (ID, None)
    assert wire.init_fields(HINTED_INIT) == (ID, GROUP)


def test_init_payload_to_the_byte() -> None:
    payload = wire.InitPayload(
        key=b"K" * 32, timestamp=0x0102030405060708, return_address=GROUP, capabilities=0x0A0B0C0D,
        max_payload=1452, version=1, continues=True, token=b"T" * 16, may_cross=False, or_new=True,
    )  # fmt: skip
    packed = payload.pack()
    assert packed == b"".join(
        [b"K" * 32, bytes.fromhex("0102030405060708"), GROUP, bytes.fromhex("0a0b0c0d"), b"\x05\xac", b"\x01",
         b"\x05", b"T" * 16, bytes(12)]
    )  # fmt: skip
    assert len(packed) == 96
    assert wire.parse_init_payload_untrusted(packed) == payload


def test_resp_to_the_byte() -> None:
    payload = wire.RespPayload(
        receive_id=ID, token=b"T" * 16, address=GROUP, capabilities=1, max_payload=1452, version=2, status=1,
        idle_timeout_ms=30_000,
    )  # fmt: skip
    packed = payload.pack()
    assert packed == b"".join(
        [ID, b"T" * 16, GROUP, b"\0\0\0\1", b"\x05\xac", b"\x02", b"\x01", b"\0\0\x75\x30", bytes(24)]
    )
    assert len(packed) == 80
    assert wire.parse_resp_payload_untrusted(packed) == payload
    assert wire.resp_header(ID) == b"\x12\x01\0\0" + ID
    assert wire.parse_resp_untrusted(wire.resp_header(ID) + bytes(144)) == ID


def test_cookie_to_the_byte() -> None:
    packed = wire.cookie_header(ID, b"N" * 16, b"S" * 32)
    assert packed == b"\x13\0\0\0" + ID + b"N" * 16 + b"S" * 32
    assert len(packed) == c.COOKIE_SIZE
    assert wire.parse_cookie_untrusted(packed) == (ID, b"N" * 16, b"S" * 32)


def test_data_header_to_the_byte() -> None:
    header = wire.data_header(ID, 0x0102030405060708)
    assert header == b"\x14\0" + ID + bytes.fromhex("0102030405060708")
    assert wire.data_packet_number(header, 10) == (0x0102030405060708,)


@pytest.mark.parametrize("size", range(301))
def test_P2_only_the_exact_size_is_taken(size: int) -> None:
    assert is_init((PLAIN_INIT + bytes(50))[:size]) == (size == 256)
    for parse, packet, right in (
        (wire.parse_resp_untrusted, wire.resp_header(ID), 156),
        (wire.parse_cookie_untrusted, b"\x13", 60),
    ):
        datagram = packet.ljust(300, b"\0")[:size]
        if size == right:
            parse(datagram)
        else:
            with pytest.raises(BadPacket, match="malformed"):
                parse(datagram)


@pytest.mark.parametrize("value", range(256))
def test_P4_type_suite_flags_and_reserved_byte_of_an_init(value: int) -> None:
    assert is_init(edited(PLAIN_INIT, 0, value)) == (value == 0x11)
    assert is_init(edited(PLAIN_INIT, 1, value)) == (value == 1)
    assert is_init(edited(PLAIN_INIT, 2, value)) == (value == 0)
    assert is_init(edited(HINTED_INIT, 2, value)) == (value == 1)
    assert is_init(edited(PLAIN_INIT, 3, value)) == (value == 0)
    assert is_init(edited(HINTED_INIT, 3, value)) == (value == 0)


@pytest.mark.parametrize("at", range(12, 32))
def test_P4_a_hint_without_its_flag_is_refused(at: int) -> None:
    assert not is_init(edited(PLAIN_INIT, at, 1))


def test_P4_a_hint_of_kind_zero_or_with_a_second_byte_is_refused() -> None:
    assert is_init(HINTED_INIT)
    assert not is_init(edited(HINTED_INIT, 12, 0))
    assert not is_init(edited(HINTED_INIT, 13, 1))


@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_P4_header_bytes_of_resp_and_cookie(at: int) -> None:
    resp, cookie = wire.resp_header(ID) + bytes(144), wire.cookie_header(ID, bytes(16), bytes(32))
    for value in range(256):
        for parse, packet in ((wire.parse_resp_untrusted, resp), (wire.parse_cookie_untrusted, cookie)):
            if value == packet[at]:
                parse(edited(packet, at, value))
            else:
                with pytest.raises(BadPacket, match="malformed"):
                    parse(edited(packet, at, value))


INIT_PAYLOAD = wire.InitPayload(bytes(32), 0, wire.NO_ADDRESS, 0, 1200, 1, False, bytes(16)).pack()
RESP_PAYLOAD = wire.RespPayload(ID, bytes(16), wire.NO_ADDRESS, 0, 1200, 1, 0, 1).pack()


@pytest.mark.parametrize(
    "payload",
    [
        *(edited(INIT_PAYLOAD, at, 1) for at in range(84, 96)),
        *(edited(INIT_PAYLOAD, 67, flags) for flags in range(256) if flags not in (0, 1, 2, 5)),
        edited(INIT_PAYLOAD, 41, 1),
        edited(INIT_PAYLOAD, 66, 0),
        edited(INIT_PAYLOAD, 65, 0xAF),
        INIT_PAYLOAD[:95],
        INIT_PAYLOAD + b"\0",
    ],
)
def test_P4_an_init_payload_that_is_not_right_is_refused(payload: bytes) -> None:
    wire.parse_init_payload_untrusted(INIT_PAYLOAD)
    with pytest.raises(BadPacket):
        wire.parse_init_payload_untrusted(payload)


@pytest.mark.parametrize(
    "payload",
    [
        *(edited(RESP_PAYLOAD, at, 1) for at in range(56, 80)),
        edited(RESP_PAYLOAD, 25, 1),
        edited(RESP_PAYLOAD, 50, 0),
        edited(RESP_PAYLOAD, 49, 0xAF),
        RESP_PAYLOAD[:79],
        RESP_PAYLOAD + b"\0",
    ],
)
def test_P4_a_resp_payload_that_is_not_right_is_refused(payload: bytes) -> None:
    wire.parse_resp_payload_untrusted(RESP_PAYLOAD)
    with pytest.raises(BadPacket):
        wire.parse_resp_payload_untrusted(payload)


DECODERS = [
    wire.parse_resp_untrusted,
    wire.parse_cookie_untrusted,
    wire.parse_init_payload_untrusted,
    wire.parse_resp_payload_untrusted,
]
PACKETS = [PLAIN_INIT, HINTED_INIT, wire.resp_header(ID) + bytes(144), INIT_PAYLOAD, RESP_PAYLOAD]


@st.composite
def near_packets(draw: st.DrawFn) -> bytes:
    """Arbitrary bytes, or a good packet with a piece replaced, cut out or put in."""
    packet = draw(st.sampled_from(PACKETS))
    start = draw(st.integers(0, len(packet)))
    end = draw(st.integers(start, len(packet)))
    return packet[:start] + draw(st.binary(max_size=40)) + packet[end:]


@given(st.one_of(st.binary(max_size=300), near_packets()))
def test_P9_decoders_raise_only_bad_packet(datagram: bytes) -> None:
    is_init(datagram)
    for decode in DECODERS:
        with contextlib.suppress(BadPacket):
            decode(datagram)


@given(
    st.builds(
        lambda flags, *fields: wire.InitPayload(*fields[:6], flags[0], fields[6], *flags[1:]),
        st.sampled_from([(False, False, False), (True, False, False), (False, True, False), (True, False, True)]),
        st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 1), st.just(GROUP), st.integers(0, 2**32 - 1),
        st.integers(1200, 65535), st.integers(1, 255), st.binary(min_size=16, max_size=16),
    )
)  # fmt: skip
def test_init_payloads_read_back(payload: wire.InitPayload) -> None:
    assert wire.parse_init_payload_untrusted(payload.pack()) == payload


@given(
    st.builds(
        wire.RespPayload,
        st.binary(min_size=8, max_size=8), st.binary(min_size=16, max_size=16), st.just(GROUP),
        st.integers(0, 2**32 - 1), st.integers(1200, 65535), st.integers(1, 255), st.integers(0, 255),
        st.integers(0, 2**32 - 1),
    )
)  # fmt: skip
def test_resp_payloads_read_back(payload: wire.RespPayload) -> None:
    assert wire.parse_resp_payload_untrusted(payload.pack()) == payload
