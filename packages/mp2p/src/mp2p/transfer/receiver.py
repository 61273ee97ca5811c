"""Receive files into a folder, from any number of peers."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
from anyio import to_thread

from mp2p.transfer import wire
from mp2p.transfer.errors import FileError, Reason, TransferBroken
from mp2p.transfer.events import Observer, TransferEvent, TransferredFile, TransferState
from mp2p.transfer.files import check_folder
from mp2p.transfer.incoming import Incoming, let_go
from mp2p.transfer.receiving import FinishedFile, Receiving
from mp2p_core.access import Allow, access_for
from mp2p_core.errors import Closed, Mp2pError, RemoteError

if TYPE_CHECKING:
    import mp2p_rpc
    from mp2p_core import Peer, Stream

__all__ = ["FileReceiver", "receive_files"]

_OFFER_PATIENCE: Final = 10.0
_PER_CONNECTION: Final = 4
"""Files at a time; further ones wait. Attack: a peer that sends a file on each of its streams."""
_REMEMBERED: Final = 256
"""Files received last. Attack: a peer that sends new files for ever; the oldest is forgotten."""
_UNFINISHED: Final = 64
"""Files of a connection that may still become whole. Attack: a peer that begins new files for ever; one too
many and the connection ends with an error, whatever becomes of them."""

_Source: TypeAlias = tuple[bytes, bytes]
"""A peer's key, and its name for a file."""


class _Claim:
    """A transfer's claim to its source."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.released = anyio.Event()
        self.superseded = False


class FileReceiver:
    """Receives files into one folder, from any number of peers: `await receiver.serve(peer)` for each.

    A file gets its name only once it is whole and its SHA-256 is right. Until then it is `NAME.TAG.part`,
    which is kept when a transfer breaks off, and which only the same file of the same peer can resume. Names
    are made safe. A file that is there is never replaced, unless with `overwrite`: the new one's name is
    followed by a number. Whoever may connect to the node may fill the disk.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] = ".",
        *,
        overwrite: bool = False,
        observer: Observer | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._overwrite = overwrite
        self._observer = observer
        self._claims: dict[_Source, _Claim] = {}  # one for each slot of each connection at most
        self._finished: OrderedDict[_Source, FinishedFile] = OrderedDict()

    async def serve(self, peer: Peer) -> None:
        """Receive what a peer sends until the connection ends; the observer hears of each file.

        When a file that it brought is not whole by then, raises the error of that: `FileError`,
        `TransferBroken`, `TransferRefused` or `Closed`. What arrived is kept, and resumed when the peer sends
        the file again.
        """
        unfinished: dict[bytes, Mp2pError] = {}
        slots = anyio.Semaphore(_PER_CONNECTION)
        async with anyio.create_task_group() as group:
            with contextlib.suppress(Closed):
                while True:
                    group.start_soon(self._take, peer, await peer.accept_stream(), slots, unfinished)
        for error in unfinished.values():
            raise error

    @contextlib.asynccontextmanager
    async def serving(self, node: mp2p_rpc.Node, *, allow: Allow) -> AsyncIterator[None]:
        """Receive what any peer sends within the block, beside all that the node serves and publishes.

        allow: who may send files; also lets them connect. The streams of others are refused. The observer hears of
        each file; one that breaks off is kept, and resumed when its sender comes back. Raises `FileError` when the
        folder cannot be written to, and `UsageError` when something else receives files of this node.
        """
        await to_thread.run_sync(check_folder, self.folder)
        access, group = access_for(allow), anyio.create_task_group()
        began, ended = anyio.Event(), anyio.Event()
        # Those that are attended, and whether a stream came meanwhile. Attack: a peer that comes back for ever; an
        # entry goes with its connection, of which each key has one.
        came: dict[mp2p_rpc.Peer, bool] = {}

        async def host() -> None:  # what is raised within the block leaves it as it is
            try:
                async with group:
                    began.set()
                    await anyio.sleep_forever()
            finally:
                ended.set()

        async def attend(peer: mp2p_rpc.Peer) -> None:
            while came[peer]:
                came[peer] = False
                with contextlib.suppress(FileError, RemoteError):  # the observer has heard
                    await self.serve(peer)
            del came[peer]

        def wanted(peer: mp2p_rpc.Peer) -> bool:
            if not access.allows(peer.key):
                return False
            if peer not in came:
                group.start_soon(attend, peer)
            came[peer] = True
            return True

        node.tasks.start_soon(host)
        await began.wait()
        try:
            with node.admit(allow), node.other_streams(wire.FIRST, wanted):
                yield
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await ended.wait()

    async def _take(
        self, peer: Peer, stream: Stream, slots: anyio.Semaphore, unfinished: dict[bytes, Mp2pError]
    ) -> None:
        incoming = Incoming(stream)
        code: Reason | None = Reason.CANCELLED
        try:
            try:
                offer = await incoming.message(wire.decode_offer_untrusted, _OFFER_PATIENCE)
            except RemoteError:
                code = Reason.NOT_UNDERSTOOD
                return
            incoming.name = offer.name
            source = (peer.key.raw, offer.id)
            async with self._claim(source) as claim:
                finished = self._finished.get(source)
                if finished is not None and not finished.answers(offer):
                    finished = None
                receiving = Receiving(
                    *(peer, stream, incoming, offer, slots),
                    folder=self.folder,
                    overwrite=self._overwrite,
                    finished=finished,
                    observer=self._observer,
                )
                try:
                    await receiving.run()
                    code = None
                except (FileError, RemoteError) as error:
                    _note(unfinished, offer.id, error)
                    code = None if isinstance(error, FileError) else Reason.CANCELLED
                finally:
                    self._remember(source, receiving.finished)
                    if receiving.file is not None:
                        unfinished.pop(offer.id, None)
            if claim.superseded and receiving.file is None:
                _note(
                    *(unfinished, offer.id),
                    TransferBroken(f"the peer has begun to send {offer.name!r} anew"),
                )
                code = Reason.SUPERSEDED
        finally:
            await let_go(stream, code)

    def _remember(self, source: _Source, finished: FinishedFile | None) -> None:
        self._finished.pop(source, None)
        if finished is not None:
            self._finished[source] = finished
            if len(self._finished) > _REMEMBERED:
                self._finished.popitem(last=False)

    @contextlib.asynccontextmanager
    async def _claim(self, source: _Source) -> AsyncIterator[_Claim]:
        """Be the only transfer of a source: one on a connection that is gone, unnoticed as yet, makes way."""
        while (other := self._claims.get(source)) is not None:
            other.superseded = True
            other.scope.cancel()
            await other.released.wait()
        claim = self._claims[source] = _Claim()
        try:
            with claim.scope:
                yield claim
        finally:
            del self._claims[source]
            claim.released.set()


def _note(unfinished: dict[bytes, Mp2pError], identifier: bytes, error: Mp2pError) -> None:
    known = identifier in unfinished or len(unfinished) < _UNFINISHED
    unfinished[identifier if known else b""] = error  # no file has that one, so the error stays


async def receive_files(
    peer: Peer,
    folder: str | os.PathLike[str] = ".",
    *,
    overwrite: bool = False,
    observer: Observer | None = None,
) -> list[TransferredFile]:
    """Receive what one peer sends until the connection ends, and return the files, in the order of their ends.

    As `FileReceiver.serve`, which takes many peers. Raises what that does, and `FileError` at once when the
    folder cannot be written to.
    """
    files: dict[Path, TransferredFile] = {}

    def note(event: TransferEvent) -> None:
        if event.state is TransferState.DONE:
            assert event.path is not None
            moved = event.size - event.offset
            files.setdefault(  # a file that is there is not sent again
                event.path,
                TransferredFile(event.path, event.name, event.size, event.digest, moved, event.seconds),
            )
        if observer is not None:
            observer(event)

    await to_thread.run_sync(check_folder, Path(folder))
    await FileReceiver(folder, overwrite=overwrite, observer=note).serve(peer)
    return list(files.values())
