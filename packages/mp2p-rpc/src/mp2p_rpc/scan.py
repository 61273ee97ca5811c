"""Look a msgpack message over before it is decoded: is it whole, how deep, how many values (sans-IO).

Nothing is allocated for what a message declares. What a scan has let through takes memory in proportion to
its own size: at most some sixty bytes for each of its values, of which there are at most `elements`.

    first byte   is                       followed by
    00-7f e0-ff  integer                  nothing
    80-8f        map of 0-15 pairs        the pairs
    90-9f        array of 0-15 values     the values
    a0-bf        string of 0-31 bytes     the bytes
    c0 c2 c3     nil, false, true         nothing
    c4 c5 c6     bytes                    a length of 1, 2, 4 bytes; the bytes
    ca cb        float                    4, 8 bytes
    cc-cf d0-d3  integer                  1, 2, 4, 8 bytes
    d6 d7 c7     time, if its type is ff  4 or 8 bytes; c7: a length of 1 byte, which is 12
    d9 da db     string                   a length of 1, 2, 4 bytes; the bytes
    dc dd        array                    a count of 2, 4 bytes; the values
    de df        map                      a count of 2, 4 bytes; the pairs

Everything else is refused: c1, which msgpack does not use, and extensions other than time.
"""

from __future__ import annotations

from typing import Final

from mp2p_rpc.errors import BadMessage

__all__ = ["check_untrusted"]

_VARIABLE: Final = -1
_CONTAINER: Final = -2
_EXTENSION: Final = -3
_REFUSED: Final = -4

_RUN: Final = 16
"""Values of an array from which on it is worth looking whether all are alike."""


def _kinds() -> tuple[int, ...]:
    """Return for each first byte how many bytes follow, or which of the kinds above it is."""
    kinds = [0] * 256
    for byte in range(0x80, 0xA0):
        kinds[byte] = _CONTAINER
    for byte in range(0xA0, 0xC0):
        kinds[byte] = byte - 0xA0
    for byte in (0xC1, 0xC8, 0xC9, 0xD4, 0xD5, 0xD8):
        kinds[byte] = _REFUSED
    for byte in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
        kinds[byte] = _VARIABLE
    for byte in (0xC7, 0xD6, 0xD7):
        kinds[byte] = _EXTENSION
    for byte in (0xDC, 0xDD, 0xDE, 0xDF):
        kinds[byte] = _CONTAINER
    for byte, size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True):
        kinds[byte] = size
    return tuple(kinds)


_KINDS: Final = _kinds()
_LENGTHS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTS: Final = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_TIMES: Final = {0xD6: (b"\xff", 4), 0xD7: (b"\xff", 8), 0xC7: (b"\x0c\xff", 12)}


def check_untrusted(data: bytes, *, depth: int, elements: int) -> None:
    """Raise BadMessage unless `data` is one whole msgpack value within the limits."""
    kinds = _KINDS
    end = len(data)
    at = 0
    left = 1  # values to come in the container that is open
    outer: list[int] = []  # the same of those around it
    while at <= end:
        while not left:
            if not outer:
                if at != end:
                    raise BadMessage("malformed", f"{end - at} bytes follow the message")
                return
            left = outer.pop()
        if at == end:
            break
        left -= 1
        first = data[at]
        kind = kinds[first]
        at += 1
        if kind >= 0:
            at += kind
        elif kind == _VARIABLE:
            size = _LENGTHS[first]
            at += size + int.from_bytes(data[at : at + size], "big")
        elif kind == _CONTAINER:
            if first >= 0xDC:
                size = _COUNTS[first]
                count = int.from_bytes(data[at : at + size], "big")
                at += size
                is_map = first >= 0xDE
            else:
                count = first & 15
                is_map = first < 0x90
            values = 2 * count if is_map else count
            elements -= values
            if elements < 0:
                raise BadMessage("too-many", "the message has more values than are taken")
            if values > end - at:
                break
            if len(outer) >= depth:
                raise BadMessage("too-deep", f"the message nests deeper than {depth}")
            outer.append(left)
            left = values
            if count >= _RUN and not is_map and (size := kinds[data[at]]) >= 0:
                stop = at + count * (size + 1)
                if data[at : stop : size + 1] == data[at : at + 1] * count:
                    at, left = stop, 0
        elif kind == _EXTENSION:
            mark, size = _TIMES[first]
            if data[at : at + len(mark)] != mark:
                raise BadMessage("malformed", "the message has an extension that is no time")
            at += len(mark) + size
        else:
            raise BadMessage("malformed", f"the message has a byte that begins nothing: {first:#04x}")
    raise BadMessage("malformed", "the message is cut short")
