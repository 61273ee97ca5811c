"""What publisher and subscriber tell each other over their session (docs/protocol.md, section 8).

All but GROUP_NACK travel as reliable messages, in order: `type u8 | topic id 16 | ...`

    01 ASK      run 8 | next number u64 | history u32 | flags u8 (1 FRESH) | n u8 | kinds n    subscriber
    02 GRANT    see `Grant`                                                  publisher
    03 REFUSE   code u8 | len u8 | text                                      publisher
    04 LEAVE                                                                 subscriber
    05 REPORT   channel 8 | highest u64 | next u64 | expected u32 | lost u32 | rtt us u32 | flags u8 (1 DEAF, 2 SLOW)
    06 BACKLOG  run 8 | first number u64 | flags u8 (1 LAST) | count u16 | count x length u32 | messages
    07 RELAY    a GROUP datagram                                             publisher
    08 CONFIRM  channel 8 | last u64                                         publisher

GROUP_NACK is frame 0x20 of the session: `channel 8 | base u64 | n u8 <= 64 | bitmap n`; bit i of the bitmap,
counted from the lowest bit of its first byte, asks for seq base + i.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.transport import ADDRESS_SIZE

__all__ = [
    "BEST_EFFORT",
    "NO_RUN",
    "ORDERED",
    "REFUSE_ENDED",
    "REFUSE_EXCLUDED",
    "REFUSE_FULL",
    "REFUSE_NOT_ALLOWED",
    "REFUSE_REVOKED",
    "REFUSE_UNKNOWN",
    "REPAIRED",
    "Ask",
    "Backlog",
    "Confirm",
    "Control",
    "Grant",
    "Leave",
    "Nack",
    "Refuse",
    "Relay",
    "Report",
    "nacks_for",
    "parse_control_untrusted",
    "parse_nack_untrusted",
]

_ASK: Final = 1
_GRANT: Final = 2
_REFUSE: Final = 3
_LEAVE: Final = 4
_REPORT: Final = 5
_BACKLOG: Final = 6
_RELAY: Final = 7
_CONFIRM: Final = 8

BEST_EFFORT: Final = 0
REPAIRED: Final = 1
ORDERED: Final = 2

REFUSE_UNKNOWN: Final = 1
"""Nobody publishes this topic here."""
REFUSE_NOT_ALLOWED: Final = 2
REFUSE_REVOKED: Final = 3
REFUSE_EXCLUDED: Final = 4
"""Lost too much for too long."""
REFUSE_FULL: Final = 5
REFUSE_ENDED: Final = 6
"""The publisher has stopped."""

NO_RUN: Final = bytes(8)
"""In ASK: has heard nothing of this topic yet."""

_HEAD = struct.Struct(">B16s")
_ASK_BODY = struct.Struct(">8sQIBB")
_GRANT_BODY = struct.Struct(f">8sIH32s32sQ{ADDRESS_SIZE}sIHQQ8sBB")
_REFUSE_BODY = struct.Struct(">BB")
_REPORT_BODY = struct.Struct(">8sQQIIIB")
_CONFIRM_BODY = struct.Struct(">8sQ")
_BACKLOG_BODY = struct.Struct(">8sQBH")
_NACK = struct.Struct(">8sQB")
_MAX_TEXT: Final = 255
_MICRO: Final = 1e6
_MAX_U32: Final = 0xFFFFFFFF


class Ask(NamedTuple):
    """Wants to subscribe, or the keys again.

    `run` and `number` say what it has: of that run of the publisher, everything before that message.
    `history` is how many of the last messages a newcomer wants. `fresh`: not granted anything yet on this
    session, so that a BACKLOG has to follow; else only the keys are wanted, of what it is in already. `kinds` are the
    kinds of addresses (protocol section 3) that it can listen on, a byte each; none: any.
    """

    topic: bytes
    run: bytes
    number: int
    history: int
    fresh: bool
    kinds: bytes = b""

    def pack(self) -> bytes:
        """Pack a control message."""
        body = _ASK_BODY.pack(self.run, self.number, self.history, int(self.fresh), len(self.kinds))
        return _HEAD.pack(_ASK, self.topic) + body + self.kinds


class Grant(NamedTuple):
    """The keys of an epoch from a generation on."""

    topic: bytes
    channel: bytes
    epoch: int
    generation: int
    chain_key: bytes
    signing_key: bytes
    next_seq: int
    group: bytes
    """Address record of the multicast group."""
    history: int
    """How many messages the publisher keeps for those who come late."""
    heartbeat_ms: int
    """Longest wait between heartbeats."""
    last_seq: int
    """The last one of the epoch before this, 0 when it had none."""
    number: int
    """Number of the message that begins at `next_seq`."""
    run: bytes
    """Names this life of the publisher: numbers count from its beginning, and epochs only go up."""
    mode: int
    """BEST_EFFORT, REPAIRED or ORDERED."""
    backlog: bool
    """Whether a BACKLOG follows."""

    def pack(self) -> bytes:
        """Pack a control message."""
        return _HEAD.pack(_GRANT, self.topic) + _GRANT_BODY.pack(*self[1:-1], int(self.backlog))

    def __repr__(self) -> str:
        # Shown in no log: it holds the key.
        return f"Grant(channel={self.channel.hex()}, epoch={self.epoch}, generation={self.generation})"


class Refuse(NamedTuple):
    """No, or no longer."""

    topic: bytes
    code: int
    text: str

    def pack(self) -> bytes:
        """Pack a control message; a long text is cut at 255 bytes, never inside a character."""
        text = self.text.encode(errors="replace")[:_MAX_TEXT].decode(errors="ignore").encode()
        return _HEAD.pack(_REFUSE, self.topic) + _REFUSE_BODY.pack(self.code, len(text)) + text


class Leave(NamedTuple):
    """Wants no more."""

    topic: bytes

    def pack(self) -> bytes:
        """Pack a control message."""
        return _HEAD.pack(_LEAVE, self.topic)


class Report(NamedTuple):
    """How a subscriber fares: of `expected` datagrams since the last report, `lost` did not come by themselves.

    `rtt` in seconds. `deaf`: nothing comes by multicast. `slow`: the publisher is to wait, and go no further
    than a part of the window beyond `next_seq`, below which everything has been passed on.
    """

    topic: bytes
    channel: bytes
    highest: int
    next_seq: int
    expected: int
    lost: int
    rtt: float
    deaf: bool
    slow: bool

    def pack(self) -> bytes:
        """Pack a control message."""
        # Attack: a publisher whose seqs jump has more expected than the field holds.
        expected, lost, rtt = (min(x, _MAX_U32) for x in (self.expected, self.lost, int(self.rtt * _MICRO)))
        return _HEAD.pack(_REPORT, self.topic) + _REPORT_BODY.pack(
            self.channel,
            self.highest,
            self.next_seq,
            expected,
            lost,
            rtt,
            self.deaf | self.slow << 1,
        )


class Backlog(NamedTuple):
    """Messages from before the GRANT, in order; `last` ends them, and one with `last` always comes."""

    topic: bytes
    run: bytes
    number: int
    """Of the first one."""
    last: bool
    messages: Sequence[bytes]

    def pack(self) -> bytes:
        """Pack a control message."""
        count = len(self.messages)
        return b"".join((
            _HEAD.pack(_BACKLOG, self.topic), _BACKLOG_BODY.pack(self.run, self.number, int(self.last), count),
            struct.pack(f">{count}I", *map(len, self.messages)), *self.messages,
        ))  # fmt: skip


class Relay(NamedTuple):
    """A GROUP datagram as it went to the group, for a subscriber that it does not reach."""

    topic: bytes
    datagram: bytes

    def pack(self) -> bytes:
        """Pack a control message."""
        return _HEAD.pack(_RELAY, self.topic) + self.datagram


class Confirm(NamedTuple):
    """Asks for a REPORT as soon as everything up to this seq has been passed on."""

    topic: bytes
    channel: bytes
    last: int

    def pack(self) -> bytes:
        """Pack a control message."""
        return _HEAD.pack(_CONFIRM, self.topic) + _CONFIRM_BODY.pack(self.channel, self.last)


Control: TypeAlias = Ask | Grant | Refuse | Leave | Report | Backlog | Relay | Confirm


def _parse_backlog_untrusted(topic: bytes, data: bytes, at: int) -> Backlog:
    run, number, flags, count = _BACKLOG_BODY.unpack_from(data, at)
    lengths = struct.Struct(f">{count}I")
    start = at + _BACKLOG_BODY.size + lengths.size
    if flags & ~1 or start > len(data) or number >= 2**63:
        raise BadPacket("control-malformed")
    messages = []
    for length in lengths.unpack_from(data, at + _BACKLOG_BODY.size):
        messages.append(data[start : start + length])
        start += length
    if start != len(data):
        raise BadPacket("control-malformed")
    return Backlog(topic, run, number, bool(flags), messages)


def parse_control_untrusted(data: bytes) -> Control:
    """Read a control message, all of it. Raises BadPacket."""
    try:
        kind, topic = _HEAD.unpack_from(data)
        at = _HEAD.size
        if kind == _RELAY:
            return Relay(topic, data[at:])
        if kind == _BACKLOG:
            return _parse_backlog_untrusted(topic, data, at)
        if kind == _REFUSE:
            code, length = _REFUSE_BODY.unpack_from(data, at)
            text = data[at + _REFUSE_BODY.size :]
            if len(text) != length:
                raise BadPacket("control-malformed")
            return Refuse(topic, code, text.decode(errors="replace"))
        body = data[at:]
        if kind == _ASK:
            run, number, history, flags, count = _ASK_BODY.unpack_from(body)
            kinds = body[_ASK_BODY.size :]
            if len(kinds) != count:
                raise BadPacket("control-malformed")
            return Ask(topic, run, number, history, bool(flags & 1), kinds)
        if kind == _GRANT:
            return _grant_untrusted(topic, body)
        if kind == _CONFIRM:
            channel, last = _CONFIRM_BODY.unpack(body)
            return Confirm(topic, channel, min(last, 2**63 - 1))
        if kind == _REPORT:
            channel, highest, next_seq, expected, lost, rtt, flags = _REPORT_BODY.unpack(body)
            return Report(
                topic, channel, highest, next_seq, expected, min(lost, expected), rtt / _MICRO, bool(flags & 1),
                bool(flags & 2),
            )  # fmt: skip
    except struct.error:
        raise BadPacket("control-malformed") from None
    if kind != _LEAVE or body:
        raise BadPacket("control-malformed")
    return Leave(topic)


def _grant_untrusted(topic: bytes, body: bytes) -> Grant:
    *fields, flags = _GRANT_BODY.unpack(body)
    grant = Grant._make((topic, *fields, bool(flags & 1)))
    if (
        grant.generation > c.MAX_GENERATION
        or not 0 < grant.next_seq < 2**63
        or grant.last_seq >= 2**63
        or grant.number >= 2**63
        or not grant.heartbeat_ms
        or grant.mode > ORDERED
        or grant.run == NO_RUN
    ):
        raise BadPacket("control-malformed")
    return grant


class Nack(NamedTuple):
    """Asks for datagrams of a channel again."""

    channel: bytes
    base: int
    bitmap: bytes

    def pack(self) -> bytes:
        """Pack the body of a GROUP_NACK frame, what follows its type."""
        return _NACK.pack(self.channel, self.base, len(self.bitmap)) + self.bitmap

    @property
    def size(self) -> int:
        """How many are asked for."""
        return int.from_bytes(self.bitmap, "little").bit_count()

    def seqs(self) -> list[int]:
        """Return what is asked for, lowest first: at most 512."""
        bits = int.from_bytes(self.bitmap, "little")
        return [self.base + i for i in range(bits.bit_length()) if bits >> i & 1]


def nacks_for(channel: bytes, seqs: Sequence[int]) -> list[Nack]:
    """Make as few GROUP_NACKs of these seqs, lowest first, as they fit."""
    found: list[Nack] = []
    base = bits = 0
    for seq in seqs:
        if bits and seq - base >= c.MAX_NACK_BYTES * 8:
            found.append(_nack(channel, base, bits))
            bits = 0
        if not bits:
            base = seq
        bits |= 1 << (seq - base)
    if bits:
        found.append(_nack(channel, base, bits))
    return found


def _nack(channel: bytes, base: int, bits: int) -> Nack:
    return Nack(channel, base, bits.to_bytes(-(-bits.bit_length() // 8), "little"))


def parse_nack_untrusted(payload: bytes, at: int) -> tuple[Nack, int]:
    """Read the body of a GROUP_NACK frame from `at` on; returns where it ends. Raises BadPacket."""
    try:
        channel, base, length = _NACK.unpack_from(payload, at)
    except struct.error:
        raise BadPacket("nack cut") from None
    at += _NACK.size
    if length > c.MAX_NACK_BYTES or at + length > len(payload):
        raise BadPacket("nack cut")
    return Nack(channel, base, payload[at : at + length]), at + length
