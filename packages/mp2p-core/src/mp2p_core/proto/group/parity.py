"""Repairs that serve everybody: sums of a block's datagrams over GF(256) (docs/protocol.md, section 8).

Where each subscriber misses something else, sending again what each misses would be more than sending it all
twice. A PARITY stands for any datagram of its block: whoever misses m of them restores them from any m. The
coefficients are those of a Cauchy matrix, of which every square part can be inverted (RFC 6330 and RFC 5510
name the idea; the field is GF(2^8) with polynomial 0x11d as there).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from mp2p_core.errors import BadPacket
from mp2p_core.proto import constants as c
from mp2p_core.proto.group.layout import FIRST_PARITY, group_header

__all__ = [
    "MAX_PARITIES",
    "PARITY_OVERHEAD",
    "Block",
    "block_of",
    "block_start",
    "parity_fields",
    "parity_seq",
    "parity_sum",
]

_SIZE: Final = c.PARITY_BLOCK
MAX_PARITIES: Final = 256 - _SIZE
"""Different ones of a block."""
_SYMBOL_HEAD = struct.Struct("<HH")
PARITY_OVERHEAD: Final = 1 + c.TAG_SIZE + _SYMBOL_HEAD.size
"""Bytes by which a PARITY is longer than the longest datagram that it is the sum of."""


def _tables() -> tuple[list[int], list[bytes]]:
    exponents, logarithms = [0] * 512, [0] * 256
    value = 1
    for i in range(255):
        exponents[i] = exponents[i + 255] = value
        logarithms[value] = i
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    inverses = [0] + [exponents[255 - logarithms[x]] for x in range(1, 256)]
    # All products of a factor are the powers from its logarithm on, at the places that the logarithms name.
    powers, places = bytes(exponents), bytes(logarithms[1:])
    products = [b"\0" + places.translate(powers[start : start + 256]) for start in logarithms[1:]]
    return inverses, [bytes(256), *products]


_INVERSE, _TIMES = _tables()
"""1/x, and for each factor the products with all bytes: a table for `bytes.translate`."""


def block_of(seq: int) -> int:
    """Return the block that a seq belongs to."""
    return (seq - 1) // _SIZE


def block_start(block: int) -> int:
    """Return the first seq of a block."""
    return block * _SIZE + 1


def parity_seq(block: int, index: int, count: int) -> int:
    """Return the seq of PARITY number `index` of the first `count` datagrams of a block."""
    return FIRST_PARITY | block << 16 | index << 8 | count


def parity_fields(seq: int) -> tuple[int, int, int]:
    """Return block, index and count of a PARITY by its seq."""
    return seq - FIRST_PARITY >> 16, seq >> 8 & 0xFF, seq & 0xFF


def _coefficient(index: int, place: int) -> int:
    return _INVERSE[(_SIZE + index) ^ place]


@functools.cache  # of an index, of which there are 192
def _row(index: int) -> list[bytes]:
    """Return the tables that multiply by the coefficients of a PARITY, by place."""
    return [_TIMES[_coefficient(index, place)] for place in range(_SIZE)]


def _symbol(datagram: bytes) -> bytes:
    """Leave out of a datagram what its place tells: of the header, all but the generation."""
    generation = int.from_bytes(datagram[2:4], "big")
    return _SYMBOL_HEAD.pack(len(datagram), generation) + datagram[c.GROUP_HEADER_SIZE :]


def parity_sum(datagrams: Sequence[bytes], index: int) -> bytes:
    """Return the content of PARITY number `index` of the first datagrams of a block.

    Shorter datagrams count as if they ended in zeros, which a little-endian integer need not hold.
    """
    total = 0
    size = 0
    for datagram, table in zip(datagrams, _row(index), strict=False):
        symbol = _symbol(datagram)
        size = max(size, len(symbol))
        total ^= int.from_bytes(symbol.translate(table), "little")
    return total.to_bytes(size, "little")


class _Sum:
    """A PARITY less the datagrams that have come."""

    __slots__ = ("count", "rest", "row", "size")

    def __init__(self, index: int, count: int, content: bytes) -> None:
        self.row = _row(index)
        self.count = count
        self.rest = int.from_bytes(content, "little")
        self.size = len(content)


class Block:
    """A block at a subscriber: what has come of it, proven or not, and the sums that may restore the rest.

    Attack: a member makes sums of its own. What they restore does not verify; then this block takes none any
    more, and what is missing is asked for until it comes over the session.
    """

    __slots__ = ("_datagrams", "_sums", "spoiled")

    def __init__(self) -> None:
        self.spoiled = False
        """Whether one of the sums was forged."""
        self._datagrams: dict[int, bytes] = {}
        self._sums: dict[int, _Sum] = {}  # by index; no more than a block has places

    @property
    def has_sums(self) -> bool:
        """Whether there is a PARITY that may help."""
        return bool(self._sums)

    def add(self, seq: int, datagram: bytes, *, proven: bool) -> None:
        """Take a datagram of the block; one that is proven replaces one that is not."""
        place = (seq - 1) % _SIZE
        before = self._datagrams.get(place)
        if before is None:
            self._datagrams[place] = datagram
            if self._sums:
                symbol = _symbol(datagram)
                for each in self._sums.values():
                    if place < each.count:
                        each.rest ^= int.from_bytes(symbol.translate(each.row[place]), "little")
        elif proven and before != datagram:
            self._datagrams[place] = datagram
            self._sums.clear()  # they are less the wrong one

    def extend(self, seq: int, datagrams: Sequence[bytes]) -> None:
        """Take proven datagrams from `seq` on."""
        if self._sums:
            for each, datagram in enumerate(datagrams, seq):
                self.add(each, datagram, proven=True)
        else:
            self._datagrams.update(enumerate(datagrams, (seq - 1) % _SIZE))

    def add_sum(self, index: int, count: int, content: bytes) -> None:
        """Take a PARITY."""
        if not self.spoiled and len(self._sums) < _SIZE and index not in self._sums:
            new = self._sums[index] = _Sum(index, count, content)
            for place, datagram in self._datagrams.items():
                if place < count:
                    new.rest ^= int.from_bytes(_symbol(datagram).translate(new.row[place]), "little")

    def spoil(self) -> None:
        """Believe no PARITY of this block: one of them was forged."""
        self._sums.clear()
        self.spoiled = True

    def unrestored(self, seqs: Iterable[int]) -> list[int]:
        """Leave out of missing seqs, lowest first, those for which there is a sum: so many more restore them all."""
        counts = sorted(each.count for each in self._sums.values())
        found = []
        for seq in seqs:
            place = (seq - 1) % _SIZE
            useful = next((i for i, count in enumerate(counts) if place < count), None)
            if useful is None:
                found.append(seq)
            else:
                del counts[useful]
        return found

    def restore_untrusted(self, channel: bytes, block: int) -> list[bytes]:
        """Return missing datagrams, not verified in any way; none if there are too few sums.

        Raises BadPacket when the sums give what cannot be a datagram.
        """
        missing = [place for place in range(_SIZE) if place not in self._datagrams]
        self._sums = {i: each for i, each in self._sums.items() if missing and missing[0] < each.count}
        # Sums are of the first datagrams of a block, of more and more of them: the early ones may do.
        for count in sorted({each.count for each in self._sums.values()}):
            places = [place for place in missing if place < count]
            sums = [(i, each) for i, each in self._sums.items() if each.count <= count]
            if len(sums) < len(places):
                continue
            size = max(each.size for _, each in sums)
            if any(each.rest >> 8 * size for _, each in sums):
                raise BadPacket("group-forged")  # a datagram longer than the sum that is said to hold it
            rows = [
                ([_coefficient(i, place) if place < each.count else 0 for place in places], each.rest)
                for i, each in sums
            ]
            symbols = _eliminate(rows, len(places), size)
            if symbols is not None:
                first = block_start(block)
                return [
                    _datagram_untrusted(symbol, channel, first + place)
                    for place, symbol in zip(places, symbols, strict=True)
                ]
        return []


def _eliminate(rows: list[tuple[list[int], int]], unknowns: int, size: int) -> list[bytes] | None:
    """Solve by Gauss-Jordan elimination; rows are coefficients and the right side."""
    for column in range(unknowns):
        pivot = next((i for i in range(column, len(rows)) if rows[i][0][column]), None)
        if pivot is None:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        coefficients, value = rows[column]
        scale = _TIMES[_INVERSE[coefficients[column]]]
        own = [scale[x] for x in coefficients]
        content = value.to_bytes(size, "little").translate(scale)
        rows[column] = own, int.from_bytes(content, "little")
        for i, (others, right) in enumerate(rows):
            factor = others[column]
            if i != column and factor:
                times = _TIMES[factor]
                rows[i] = (
                    [x ^ times[y] for x, y in zip(others, own, strict=True)],
                    right ^ int.from_bytes(content.translate(times), "little"),
                )
    return [value.to_bytes(size, "little") for _, value in rows[:unknowns]]


def _datagram_untrusted(symbol: bytes, channel: bytes, seq: int) -> bytes:
    if len(symbol) < _SYMBOL_HEAD.size:
        raise BadPacket("group-forged")
    length, generation = _SYMBOL_HEAD.unpack_from(symbol)
    end = length - c.GROUP_HEADER_SIZE + _SYMBOL_HEAD.size
    if not _SYMBOL_HEAD.size < end <= len(symbol):
        raise BadPacket("group-forged")
    return group_header(generation, channel, seq) + symbol[_SYMBOL_HEAD.size : end]
