"""Receive one file from one stream."""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from anyio import to_thread

from mp2p.transfer import wire
from mp2p.transfer.errors import FileError, Reason, TransferBroken
from mp2p.transfer.events import Observer, TransferEvent, TransferredFile, TransferState
from mp2p.transfer.files import CHUNK, PartFile
from mp2p.transfer.names import safe_name
from mp2p.transfer.sink import Sink
from mp2p_core.errors import RemoteError

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from mp2p.transfer.incoming import Incoming
    from mp2p_core import Peer, Stream
    from mp2p_core.errors import Mp2pError

__all__ = ["FinishedFile", "Receiving"]

_REPORT_INTERVAL: Final = 0.5
_WORDS_PATIENCE: Final = 2.0
_GOODBYE_PATIENCE: Final = 5.0

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A file that was received: for a sender that has not heard of it, because the connection ended then."""

    offer: wire.Offer
    path: Path
    digest: bytes
    signature: tuple[int, ...]

    @classmethod
    def of(cls, offer: wire.Offer, path: Path, digest: bytes) -> FinishedFile:
        """Remember what the file looks like now."""
        return cls(offer, path, digest, cls._sign(path))

    @staticmethod
    def _sign(path: Path) -> tuple[int, ...]:
        try:
            seen = path.stat(follow_symlinks=False)
        except OSError:
            return ()
        return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns

    def answers(self, offer: wire.Offer) -> bool:
        """Tell whether this may be what is offered now: it is still there, and has not been touched."""
        same = (offer.name, offer.size) == (self.offer.name, self.offer.size)
        return same and bool(self.signature) and self._sign(self.path) == self.signature


class Receiving:
    """One file on one stream. The observer hears last of DONE or FAILED, whatever happens."""

    def __init__(
        self,
        peer: Peer,
        stream: Stream,
        incoming: Incoming,
        offer: wire.Offer,
        slots: anyio.Semaphore,
        *,
        folder: Path,
        overwrite: bool,
        finished: FinishedFile | None,
        observer: Observer | None,
    ) -> None:
        self._peer = peer
        self._stream = stream
        self._incoming = incoming
        self._offer = offer
        self._slots = slots
        self._folder = folder
        self._overwrite = overwrite
        self.finished = finished
        """What is whole already; set once this file is."""
        self.file: TransferredFile | None = None
        """The file, once it is whole."""
        self._observer = observer
        self._name = safe_name(offer.name)
        self._number = next(_numbers)
        self._part: PartFile | None = None
        self._offset = 0
        self._started: float | None = None
        self._ended = anyio.Event()
        self._speaking = anyio.Lock()

    async def run(self) -> TransferredFile:
        """Receive the file. Raises `FileError`, which the peer has been told, or an error of the connection."""
        failure: Mp2pError | None = TransferBroken(
            f"the transfer of {self._name!r} was interrupted: what has arrived is kept"
        )
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._report)
                try:
                    async with self._slots:
                        await self._receive(group)
                    failure = None
                except (FileError, RemoteError) as error:
                    failure = error
                self._ended.set()
            if isinstance(failure, FileError):
                await self._apologize(failure)
            elif self.file is not None:
                await self._say_goodbye(self.file)
        finally:
            if self._part is not None:
                self._part.set_aside()
            if self.file is not None:
                self.tell(TransferState.DONE, file=self.file)
            elif failure is not None:
                self.tell(TransferState.FAILED, error=failure)
        if failure is not None:
            raise failure
        assert self.file is not None
        return self.file

    async def _receive(self, group: TaskGroup) -> None:
        go = await self._negotiate_finished() if self.finished is not None else None
        if self.finished is not None:
            await self._confirm_finished(self.finished)
            return
        part = self._part = await to_thread.run_sync(
            PartFile.open, self._folder, self._name, self._peer.key.raw, self._offer.id
        )
        if go is None:
            go = await self._negotiate(part)
        else:
            await to_thread.run_sync(part.require_room, self._offer.size)
        if go.offset != part.hashed or part.size != part.hashed:
            await to_thread.run_sync(part.clear)
        self._offset = go.offset
        self._start()
        await self._receive_body(part, group)
        if await self._incoming.exactly(wire.DIGEST_SIZE) != part.digest:
            await to_thread.run_sync(part.discard)
            raise FileError(
                f"what arrived of {self._name} is not what was sent: its SHA-256 is another one",
                Reason.WRONG_HASH,
            )
        await self._finish(part)

    async def _negotiate(self, part: PartFile) -> wire.Go:
        """Tell the sender what is there, and hear where it begins."""
        if part.size <= self._offer.size:
            while part.hashed < (size := part.size):
                await to_thread.run_sync(part.hash_on, size)
        await to_thread.run_sync(part.require_room, self._offer.size)
        await self._say(wire.Have(part.hashed, part.digest))
        go = await self._incoming.message(wire.decode_go_untrusted)
        if go.offset not in (0, part.hashed):
            raise self._out_of_turn()
        return go

    async def _negotiate_finished(self) -> wire.Go:
        """Tell the sender that the file is there; it may have another one by now."""
        finished = self.finished
        assert finished is not None
        await self._say(wire.Have(finished.offer.size, finished.digest))
        go = await self._incoming.message(wire.decode_go_untrusted)
        if go.offset != finished.offer.size:
            self.finished = None
            if go.offset:
                raise self._out_of_turn()
        return go

    async def _confirm_finished(self, finished: FinishedFile) -> None:
        self._offset = finished.offer.size
        self._start()
        if await self._incoming.exactly(wire.DIGEST_SIZE) != finished.digest:
            raise self._out_of_turn()
        self.file = self._file(finished)

    async def _receive_body(self, part: PartFile, group: TaskGroup) -> None:
        sink = Sink(part)
        scope = anyio.CancelScope()
        group.start_soon(sink.run, scope)
        missing = self._offer.size - self._offset
        try:
            with scope:
                while missing:
                    piece = await self._incoming.some(min(CHUNK, missing))
                    missing -= len(piece)
                    await sink.put(piece)
        finally:
            await sink.close()  # what has arrived is kept, also when the connection has ended
        if sink.error is not None:
            raise sink.error

    async def _finish(self, part: PartFile) -> None:
        def finish() -> FinishedFile:
            path = part.finish(self._name, time_ns=self._offer.time_ns, overwrite=self._overwrite)
            return FinishedFile.of(self._offer, path, part.digest)

        self.finished = await to_thread.run_sync(finish)
        self.file = self._file(self.finished)

    def _file(self, finished: FinishedFile) -> TransferredFile:
        return TransferredFile(
            finished.path,
            finished.path.name,
            finished.offer.size,
            finished.digest,
            finished.offer.size - self._offset,
            self._seconds(),
        )

    # --- talking ------------------------------------------------------------------------------------

    async def _report(self) -> None:
        while True:
            with anyio.move_on_after(_REPORT_INTERVAL):
                await self._ended.wait()
                return
            if self._started is not None:
                self.tell(TransferState.PROGRESS)
            elif self._part is not None:
                self.tell(TransferState.CHECKING)
            try:
                await self._say(wire.Written(self._written()))
            except RemoteError:
                return  # whoever reads from the stream hears of it too

    async def _say(self, reply: wire.Reply) -> None:
        async with self._speaking:
            await self._stream.send(wire.encode(reply))

    async def _apologize(self, error: FileError) -> None:
        with anyio.move_on_after(_WORDS_PATIENCE), contextlib.suppress(RemoteError):
            await self._say(wire.Failed(error.reason, error.words))

    async def _say_goodbye(self, file: TransferredFile) -> None:
        """Wait until the sender knows."""
        with anyio.move_on_after(_GOODBYE_PATIENCE), contextlib.suppress(RemoteError):
            await self._say(wire.Done(file.digest, file.name))
            await self._incoming.end()

    def _out_of_turn(self) -> TransferBroken:
        return TransferBroken(f"the peer does not keep to the protocol in the transfer of {self._name!r}")

    # --- telling ------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._started = time.monotonic()
        self.tell(TransferState.STARTED)

    def _seconds(self) -> float:
        return 0.0 if self._started is None else time.monotonic() - self._started

    def _written(self) -> int:
        return self._offset if self._part is None else self._part.hashed

    def tell(
        self, state: TransferState, *, file: TransferredFile | None = None, error: Mp2pError | None = None
    ) -> None:
        """Tell the observer."""
        if self._observer is not None:
            self._observer(
                TransferEvent(
                    state=state,
                    number=self._number,
                    peer=self._peer.key,
                    name=file.name if file else self._name,
                    size=self._offer.size,
                    offset=self._offset,
                    written=file.size if file else self._written(),
                    seconds=file.seconds if file else self._seconds(),
                    digest=file.digest if file else b"",
                    path=file.path if file else None,
                    error=error,
                )
            )
