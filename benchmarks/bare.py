"""The floor of calls and of bulk: what Python, a UDP socket, msgspec and ChaCha20-Poly1305 take by themselves.

Datagrams are sealed and opened, calls encoded and decoded by their types, those of one turn of the event loop share
datagrams, and a message leaves in packets of 64 KB. Nothing is acknowledged, repeated, bounded, checked for its age,
timed or cancelled; there is one peer, and its address is believed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from benchmarks.measure import say

__all__ = ["connected", "serve"]

_SEGMENT: Final = 1440
_NONCE: Final = 12
_OVERHEAD: Final = _NONCE + 16
_PACKET: Final = 45 * _SEGMENT
_ROOM: Final = _PACKET - _OVERHEAD
_CALLS: Final = 15
"""Of 64 bytes, in a datagram."""
_BUFFER: Final = 8 << 20
"""Bytes that the system is made to keep: a message, and what it adds, for nothing is sent again."""
_SO_RCVBUFFORCE, _UDP_SEGMENT, _UDP_GRO = 33, 103, 104
_AS_TRAIN: Final = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", _SEGMENT))]


class _Call(msgspec.Struct, array_like=True):
    number: int
    data: bytes


class _Wire:
    """Takes messages of `size` bytes, or calls when that is 0, and sends either."""

    def __init__(self, sock: socket.socket, took: Callable[[list[_Call]], None], size: int = 0) -> None:
        self._sock = sock
        self._took = took
        self._cipher = ChaCha20Poly1305(bytes(32))
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[_Call]).decode
        self._waiting: list[_Call] = []
        self._sent = 0
        self._to: object = None
        self._whole = size and size + _OVERHEAD * -(-size // _ROOM)
        self._come = 0
        self._pieces: list[bytes] = []
        self._opened: list[bytes] = []
        sock.setblocking(False)
        if size:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def say(self, number: int, data: bytes) -> None:
        """Send a call or an answer, together with what else is said in this turn."""
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(_Call(number, data))

    def send_message(self, data: bytes) -> None:
        view = memoryview(data)
        for at in range(0, len(data), _ROOM):
            self._send(view[at : at + _ROOM], _AS_TRAIN)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for at in range(0, len(waiting), _CALLS):
            self._send(self._encode(waiting[at : at + _CALLS]), [])

    def _send(self, data: bytes | memoryview, ancillary: list[tuple[int, int, bytes]]) -> None:
        self._sent += 1
        nonce = self._sent.to_bytes(_NONCE, "little")
        self._sock.sendmsg([nonce, self._cipher.encrypt(nonce, data, None)], ancillary, 0, self._to)

    def _readable(self) -> None:
        while True:
            try:
                data, _, _, self._to = self._sock.recvmsg(_PACKET + _SEGMENT, 64)
            except BlockingIOError:
                return
            if self._whole:
                self._take_piece(data)
            else:
                self._took(self._decode(self._open(memoryview(data))))

    def _open(self, packet: memoryview) -> bytes:
        return self._cipher.decrypt(bytes(packet[:_NONCE]), packet[_NONCE:], None)

    def _take_piece(self, data: bytes) -> None:
        """Take datagrams of a message; the system joins them as it likes, also those of two packets."""
        self._come += len(data)
        self._pieces.append(data)
        held = sum(map(len, self._pieces))
        while held >= _PACKET or (held and self._come == self._whole):
            joined = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._opened.append(self._open(memoryview(joined)[:_PACKET]))
            held = max(0, held - _PACKET)
            self._pieces = [joined[_PACKET:]] if held else []
        if self._come == self._whole:
            message = b"".join(self._opened)
            self._opened, self._come = [], 0
            self._took([_Call(0, message)])


async def serve(host: str, handler: Callable[[bytes], Awaitable[bytes]], size: int = 0) -> None:
    """Answer calls, or messages of `size` bytes (root only), with what `handler` returns. It must not wait."""

    def took(calls: list[_Call]) -> None:
        for each in calls:
            try:
                handler(each.data).__await__().send(None)
            except StopIteration as done:
                wire.say(each.number, done.value)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        wire = _Wire(sock, took, size)
        say({"host": host, "port": sock.getsockname()[1]})
        await asyncio.Event().wait()


@asynccontextmanager
async def connected(
    host: str, port: int, size: int = 0
) -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Give what makes a call, or what sends a message when there is a `size`, and returns the answer."""
    waiting: dict[int, asyncio.Future[bytes]] = {}
    number = 0

    def took(answers: list[_Call]) -> None:
        for each in answers:
            waiting.pop(each.number).set_result(each.data)

    async def call(data: bytes) -> bytes:
        nonlocal number
        number = 0 if size else number + 1
        answer = waiting[number] = asyncio.get_running_loop().create_future()
        if size:
            wire.send_message(data)
        else:
            wire.say(number, data)
        return await answer

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, port))
    wire = _Wire(sock, took)
    try:
        yield call
    finally:
        wire.close()
