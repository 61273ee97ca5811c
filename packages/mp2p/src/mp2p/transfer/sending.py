"""Send a file."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from mp2p.transfer import wire
from mp2p.transfer.errors import FileError, Reason, TransferBroken, TransferRefused
from mp2p.transfer.events import Observer, TransferEvent, TransferredFile, TransferState
from mp2p.transfer.files import SourceFile
from mp2p.transfer.incoming import Incoming, let_go
from mp2p_core.errors import Closed, RemoteError, StreamClosed

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from mp2p_core import Peer, Stream

__all__ = ["SILENCE", "send_file"]

SILENCE: Final = 8.0
"""Seconds without a word from the receiver, which speaks twice a second, after which it is given up."""

_REPORT_INTERVAL: Final = 0.25
"""Seconds between reports to the observer, at least: after an outage, what the receiver said comes all at once."""

_AHEAD: Final = 2
"""Chunks read ahead of the network."""

_numbers = itertools.count(1)


async def send_file(
    peer: Peer,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    keep_time: bool = False,
    observer: Observer | None = None,
    silence: float = SILENCE,
) -> TransferredFile:
    """Send a file to a peer that receives files, and return once it is whole on the peer's disk.

    A file that the peer has a part of, from this source, is resumed, if that part is the same; what is whole
    there already is not sent again. `name` is what it is offered as; the peer decides what it is called there.
    With `keep_time` the peer is told when it was last modified. Reads and hashes in threads.

    Raises `FileError` when this side cannot read the file or it changes meanwhile, `TransferRefused` when the
    peer gives it up, and `TransferBroken` (after `silence` seconds, too) or `Closed` when it stopped midway:
    send it again to go on, as `deliver_files` does by itself. Cancelling leaves it to be resumed as well.
    """
    source = await to_thread.run_sync(SourceFile.open, Path(path))
    try:
        time_ns = source.time_ns if keep_time else None
        offer = wire.Offer(source.id, name or source.path.name, source.size, time_ns)
        return await _Sending(peer, source, offer, observer, silence).run()
    finally:
        source.close()


class _Sending:
    """One file on one stream."""

    def __init__(
        self, peer: Peer, source: SourceFile, offer: wire.Offer, observer: Observer | None, silence: float
    ) -> None:
        self._peer = peer
        self._source = source
        self._offer = offer
        self._observer = observer
        self._silence = silence
        self._number = next(_numbers)
        self._offset = 0
        self._written = 0
        self._began = time.monotonic()
        self._reported = 0.0
        self._failure: FileError | None = None

    async def run(self) -> TransferredFile:
        stream = await self._peer.open_stream()
        code: Reason | None = Reason.CANCELLED
        try:
            done = await self._converse(stream)
            code = None
        except FileError as error:
            code = error.reason
            raise
        finally:
            await let_go(stream, code)
        size, digest = self._offer.size, done.digest
        self._tell(TransferState.DONE, name=done.name, digest=digest)
        seconds = time.monotonic() - self._began
        return TransferredFile(self._source.path, done.name, size, digest, size - self._offset, seconds)

    async def _converse(self, stream: Stream) -> wire.Done:
        replies = Incoming(stream, self._offer.name)
        with contextlib.suppress(StreamClosed):  # the next reply says why
            await stream.send(wire.encode(self._offer))
        have = await self._reply(replies)
        while isinstance(have, wire.Written):
            if have.size:  # or it waits for other transfers
                self._report(TransferState.CHECKING, have.size)
            have = await self._reply(replies)
        if not isinstance(have, wire.Have):
            raise self._out_of_turn()
        self._offset = self._written = await self._agree(have)
        self._began = time.monotonic()
        self._tell(TransferState.STARTED)
        done: wire.Done | None = None
        ended: RemoteError | None = None
        give, take = anyio.create_memory_object_stream[bytes](_AHEAD)
        with give, take:
            async with anyio.create_task_group() as group:
                group.start_soon(self._read, give, group.cancel_scope)
                group.start_soon(self._send, take, stream)
                try:
                    done = await self._done(replies)
                except RemoteError as error:
                    ended = error
                group.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if ended is not None:
            raise ended
        if done is None or self._source.hashed != self._source.size or done.digest != self._source.digest:
            raise self._out_of_turn()
        return done

    async def _agree(self, have: wire.Have) -> int:
        """Return where to begin: at the end of what the receiver has, if this file begins in the same way."""
        source = self._source
        if have.offset <= source.size:
            while source.hashed < have.offset:
                before = source.hashed
                await to_thread.run_sync(source.hash_on, have.offset)
                if source.hashed == before:
                    break  # cut short meanwhile
                self._report(TransferState.CHECKING, source.hashed)
            if (source.hashed, source.digest) == (have.offset, have.digest):
                return have.offset
        source.start_over()
        return 0

    async def _read(self, give: MemoryObjectSendStream[bytes], scope: anyio.CancelScope) -> None:
        source = self._source
        try:
            while source.hashed < source.size:
                await give.send(await to_thread.run_sync(source.read))
            source.check_unchanged()
            await give.send(source.digest)
            give.close()
        except FileError as error:
            self._failure = error
            scope.cancel()

    async def _send(self, take: MemoryObjectReceiveStream[bytes], stream: Stream) -> None:
        with contextlib.suppress(StreamClosed, Closed):  # the next reply says why
            await stream.send(wire.encode(wire.Go(self._offset)))
            async for data in take:
                await stream.send(data)

    async def _done(self, replies: Incoming) -> wire.Done:
        while not isinstance(reply := await self._reply(replies), wire.Done):
            if not isinstance(reply, wire.Written) or reply.size > self._offer.size:
                raise self._out_of_turn()
            if reply.size >= self._written:
                self._report(TransferState.PROGRESS, reply.size)
        self._written = self._offer.size
        return reply

    async def _reply(self, replies: Incoming) -> wire.Reply:
        reply = await replies.message(wire.decode_reply_untrusted, self._silence)
        if isinstance(reply, wire.Failed):
            raise TransferRefused(self._offer.name, reply.code, reply.words)
        return reply

    def _out_of_turn(self) -> TransferBroken:
        return TransferBroken(
            f"the peer does not keep to the protocol in the transfer of {self._offer.name!r}"
        )

    def _report(self, state: TransferState, written: int) -> None:
        self._written = written
        now = time.monotonic()
        if now >= self._reported + _REPORT_INTERVAL:
            self._reported = now
            self._tell(state)

    def _tell(self, state: TransferState, *, name: str = "", digest: bytes = b"") -> None:
        if self._observer is not None:
            self._observer(
                TransferEvent(
                    state=state,
                    number=self._number,
                    peer=self._peer.key,
                    name=name or self._offer.name,
                    size=self._offer.size,
                    offset=self._offset,
                    written=self._written,
                    seconds=time.monotonic() - self._began,
                    digest=digest,
                    path=self._source.path,
                )
            )
