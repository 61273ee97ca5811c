"""Unix datagram sockets in a folder: mp2p between processes, or containers that share the folder.

A channel is a socket file, ADDRESS.RANDOM. What is sent to an address goes to all of its sockets, as to a
group. ADDRESS is 36 hex digits: port (2 bytes), then 16 bytes of a public key, or random ones.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path as FilePath

import anyio

from mp2p_core.errors import AddressError, NoMulticast
from mp2p_core.transport import (
    MIN_DATAGRAM_SIZE,
    TRANSPORT_API,
    Address,
    InterfaceStatus,
    Listen,
    Path,
    RandomBytes,
    Reach,
    Train,
    Transport,
    hookimpl,
)

__all__ = ["UnixChannel", "UnixTransport", "mp2p_transports"]

_HEAD = b"\x80\0"
_ADDRESS = re.compile(r"[0-9a-f]{36}", re.ASCII)


class UnixTransport:
    """Meets peers in one folder; by default in $MP2P_UNIX_FOLDER, or ~/.mp2p-sockets."""

    api = TRANSPORT_API
    name = family = "unix"
    default = True  # the key alone gives the address

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        given = folder or os.environ.get("MP2P_UNIX_FOLDER", "~/.mp2p-sockets")
        self._folder = FilePath(given).expanduser().absolute()

    def parse_address(self, text: str) -> Address:
        """Read 36 hex digits."""
        if not _ADDRESS.fullmatch(text):
            raise AddressError(f"{text[:40]!a} is no address in a folder: expected 36 lower-case hex digits")
        return _HEAD + bytes.fromhex(text)

    def format_address(self, address: Address) -> str:
        """Write 36 hex digits."""
        return address[2:].hex()

    def derive_address(self, key: bytes, _reach: Reach, port: int) -> Address:
        """Compute the address of a key. Every reach shares it, because a folder reaches one machine."""
        return _HEAD + port.to_bytes(2, "big") + key[:16]

    def create_address(
        self, *, key: bytes | None, reach: Reach, port: int, interfaces: Sequence[str], random: RandomBytes
    ) -> Address:
        """Derive an address, or draw one."""
        del interfaces
        return self.derive_address(key or random(16), reach, port)

    def may_answer(self, answer_to: Address, heard_from: Address, _arrived_at: Address) -> bool:
        """Answer only where the request came from: the kernel vouches for that name."""
        return answer_to == heard_from and answer_to[:2] == _HEAD

    async def open(self, listen: Listen) -> UnixChannel:
        """Bind a socket in the folder, which is made when missing. Raises `NoMulticast`."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return UnixChannel(sock, self._folder, listen.address)
        except OSError as error:
            sock.close()
            raise NoMulticast(str(self._folder), f"{error}: set MP2P_UNIX_FOLDER to a short path") from error


class UnixChannel:
    """One socket file in the folder."""

    max_datagram_size = MIN_DATAGRAM_SIZE

    def __init__(self, sock: socket.socket, folder: FilePath, address: Address) -> None:
        self.address = address
        self._sock = sock
        self._folder = folder
        self._file = folder / f"{address[2:].hex()}.{secrets.token_hex(4)}"
        sock.bind(str(self._file))

    def send(self, train: Train) -> bool:
        """Send to every socket of an address. A queue that is full loses the datagram."""
        complete = self._sock.fileno() >= 0
        for file in self._folder.glob(f"{train.path.remote[2:].hex()}.*") if complete else ():
            for datagram in train.datagrams():
                try:
                    self._sock.sendto(datagram, str(file))
                except BlockingIOError:
                    complete = False
                except OSError as error:
                    if isinstance(error, ConnectionRefusedError) and file.is_socket():
                        file.unlink(missing_ok=True)  # left behind by a process that was killed
                    break
        return complete

    async def receive(self) -> Sequence[Train]:
        """Wait for datagrams and return those that are there."""
        trains: list[Train] = []
        while not trains:
            if self._sock.fileno() >= 0:
                await anyio.wait_readable(self._sock)
            if self._sock.fileno() < 0:  # closed, perhaps between the wake-up and here
                raise anyio.ClosedResourceError
            for _ in range(64):  # and no more: a flood must not keep the event loop
                try:
                    datagram, source = self._sock.recvfrom(65536)
                except BlockingIOError:
                    break
                folder, _, name = (source or "").rpartition("/")
                sender = name.partition(".")[0]
                if folder == str(self._folder) and _ADDRESS.fullmatch(sender):  # others cannot be answered
                    path = Path(_HEAD + bytes.fromhex(sender), self.address)
                    trains.append(Train(path, (datagram,), len(datagram) or 1))
        return trains

    async def aclose(self) -> None:
        """Remove the socket file and end a waiting `receive`."""
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._sock.close()
            self._file.unlink(missing_ok=True)

    def status(self) -> Sequence[InterfaceStatus]:
        """Report the folder as the one interface there is."""
        return (InterfaceStatus(str(self._folder), 0, self._sock.fileno() >= 0, "socket files"),)


@hookimpl
def mp2p_transports() -> Sequence[Transport]:
    """Return the transport "unix", or nothing on systems without such sockets."""
    return (UnixTransport(),) if hasattr(socket, "AF_UNIX") else ()
