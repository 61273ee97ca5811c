"""Large packets: one seal, many datagrams (docs/protocol.md, section 7).

    0  1 type 0x16
    1  1 part index
    2  1 part count, 2 to 64
    3  1 zero
    4  8 receiver's id
   12  8 packet number
   20  n slice of ciphertext and tag; every part but the last has the same length

The associated data is the header with index zero. A forged part can spoil its own packet and no other.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from mp2p_core.errors import BadPacket
from mp2p_core.proto.constants import TAG_SIZE, TYPE_PART

__all__ = [
    "MAX_PARTS",
    "PART_HEADER_SIZE",
    "PartHeader",
    "Reassembly",
    "cut",
    "parse_part_untrusted",
    "part_header",
    "part_room",
    "split_untrusted",
    "taker",
]

_HEADER = struct.Struct(">BBBB8sQ")
PART_HEADER_SIZE: Final = _HEADER.size
MAX_PARTS: Final = 64
_MAX_PACKETS: Final = 64
"""Packets being put together, per session (section 7)."""
_PART_COST: Final = 128
"""Bytes of memory that a part takes beside its content."""
_MAX_COST: Final = 5 << 20
"""Bytes of memory per session: 64 packets of 64 KB."""
_MAX_COST_OF_ALL: Final = 64 << 20
"""Bytes of memory for all sessions of a node."""

_INDICES: Final = bytes(range(MAX_PARTS))
_STARTS: Final = [bytes((TYPE_PART, index)) for index in _INDICES]

PartHeader = tuple[int, int, bytes, int]
"""Index, count, receiver's id, packet number."""


def part_header(receive_id: bytes, number: int, count: int, index: int = 0) -> bytes:
    """Pack the header of a part; with index 0 it is the packet's associated data."""
    return _HEADER.pack(TYPE_PART, index, count, 0, receive_id, number)


def part_room(datagram: int, count: int) -> int:
    """Return the bytes of plaintext that fit `count` parts of `datagram` bytes."""
    return count * (datagram - PART_HEADER_SIZE) - TAG_SIZE


@lru_cache(maxsize=256)
def taker(skip: int, size: int, count: int) -> Callable[..., tuple[bytes, ...]]:
    """Return what takes `count` pieces of `size` bytes out of a buffer, passing over `skip` before each.

    One call for all of them, and no object that the garbage collector has to follow. A stranger's sizes are
    not in the cache and cost ten microseconds a train, which its datagrams one by one would, too.
    """
    return struct.Struct(f"{skip}x{size}s" * count).unpack_from


def cut(sealed: bytes, receive_id: bytes, number: int, datagram: int) -> bytes:
    """Cut ciphertext and tag into parts of `datagram` bytes, header included, and return them one after the other."""
    step = datagram - PART_HEADER_SIZE
    count = -(-len(sealed) // step)
    pieces = [_HEADER.pack(TYPE_PART, 0, count, 0, receive_id, number)[2:]] * (3 * count)
    pieces[0::3] = _STARTS[:count]
    pieces[2::3] = (*taker(0, step, count - 1)(sealed), sealed[(count - 1) * step :])
    return b"".join(pieces)


def parse_part_untrusted(datagram: bytes | memoryview) -> PartHeader:
    """Check a part's header and size."""
    if len(datagram) <= PART_HEADER_SIZE:
        raise BadPacket("part-malformed")
    _, index, count, zero, receive_id, number = _HEADER.unpack_from(datagram)
    if zero or not 2 <= count <= MAX_PARTS or index >= count:
        raise BadPacket("part-malformed")
    return index, count, receive_id, number


def _whole_untrusted(buffer: bytes, at: int, size: int) -> tuple[int, PartHeader, bytes] | None:
    """Look for a whole large packet whose parts follow each other in a received train, from `at` on.

    `size` is the train's segment size. Returns where the packet ends, its header, and its ciphertext and
    tag; None when it is not whole here, and the datagrams have to be taken one by one.
    Of the headers only the indices and the two at the ends are looked at: the seal decides about the rest.
    """
    if size <= PART_HEADER_SIZE or len(buffer) - at <= PART_HEADER_SIZE:
        return None
    _, index, count, zero, receive_id, number = _HEADER.unpack_from(buffer, at)
    last = at + (count - 1) * size
    body = last + PART_HEADER_SIZE
    if (
        index
        or zero
        or count < 2  # above MAX_PARTS there are no indices
        or body >= len(buffer)
        or buffer[at + 1 : last + 2 : size] != _INDICES[:count]
        or buffer[last + 2 : body] != buffer[at + 2 : at + PART_HEADER_SIZE]
    ):
        return None
    pieces = taker(PART_HEADER_SIZE, size - PART_HEADER_SIZE, count - 1)(buffer, at)
    end = last + size
    return end, (0, count, receive_id, number), b"".join((*pieces, buffer[body:end]))


def split_untrusted(buffer: bytes, size: int) -> Iterator[tuple[PartHeader | None, bytes]]:
    """Go through a received train of segments of `size` bytes.

    Yields the header with ciphertext and tag of each large packet that is whole in it, and None with the
    datagram for everything else.
    """
    at = 0
    while at < len(buffer):
        found = _whole_untrusted(buffer, at, size) if buffer[at] == TYPE_PART else None
        if found is None:
            yield None, buffer[at : at + size]
            at += size
        else:
            at, header, sealed = found
            yield header, sealed


class _Packet:
    __slots__ = ("cost", "count", "parts")

    def __init__(self, count: int) -> None:
        self.count = count
        self.parts: dict[int, bytes] = {}
        self.cost = 0


class _Held:
    """What is held for one id."""

    __slots__ = ("cost", "packets")

    def __init__(self) -> None:
        self.packets: dict[int, _Packet] = {}  # by number, the oldest first
        self.cost = 0


class Reassembly:
    """Parts of large packets, of all sessions, until a packet is whole.

    Attack: anybody who saw an id sends parts of packets that never become whole, or contradicts genuine
    ones. Nothing can be verified before a packet is whole, so each id has its bounds, and all have one
    together; what has waited longest goes, and is sent again, smaller.
    """

    __slots__ = ("_ages", "_by_id", "cost")

    def __init__(self) -> None:
        self._ages: OrderedDict[tuple[bytes, int], None] = OrderedDict()  # id and number, the oldest first
        self._by_id: dict[bytes, _Held] = {}
        self.cost = 0
        """About how many bytes of memory are held."""

    def add_untrusted(self, header: PartHeader, body: bytes) -> bytes | None:
        """Take a part; returns the packet's ciphertext and tag once it is whole."""
        index, count, receive_id, number = header
        held = self._by_id.get(receive_id)
        packet = None if held is None else held.packets.get(number)
        if held is None or packet is None or packet.count != count:
            # A contradiction: the genuine packet may be either. The newer one wins, and costs the other.
            self.drop(receive_id, number)
            held = self._by_id.setdefault(receive_id, _Held())
            packet = held.packets[number] = _Packet(count)
            self._ages[receive_id, number] = None
        elif index in packet.parts:
            return None
        packet.parts[index] = body
        if len(packet.parts) == count:
            self.drop(receive_id, number)
            return b"".join([packet.parts[i] for i in range(count)])
        cost = len(body) + _PART_COST
        packet.cost += cost
        held.cost += cost
        self.cost += cost
        while len(held.packets) > _MAX_PACKETS or held.cost > _MAX_COST:
            self.drop(receive_id, next(iter(held.packets)))
        while self.cost > _MAX_COST_OF_ALL:
            self.drop(*next(iter(self._ages)))
        return None

    def drop(self, receive_id: bytes, number: int) -> None:
        """Forget a packet, when it is there."""
        held = self._by_id.get(receive_id)
        packet = None if held is None else held.packets.pop(number, None)
        if held is not None and packet is not None:
            del self._ages[receive_id, number]
            self.cost -= packet.cost
            held.cost -= packet.cost
            if not held.packets:
                del self._by_id[receive_id]

    def forget(self, receive_id: bytes) -> None:
        """Forget everything of an id."""
        if (held := self._by_id.get(receive_id)) is not None:
            for number in list(held.packets):
                self.drop(receive_id, number)

    def __len__(self) -> int:
        return len(self._ages)
