"""`mp2p receive-file`: receive files from peers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import anyio
import click
from anyio import to_thread

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.listen import Names, allow_option, announce, read_access
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.transfers import Transfers
from mp2p.transfer import FileReceiver, TransferEvent, TransferState, check_folder
from mp2p_core.access import Allow

__all__ = ["receive_file"]


@click.command("receive-file", short_help="Receive files from peers.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    default=".",
    metavar="FOLDER",
    help="Folder to put the files into. Default: the current one.",
)
@allow_option
@click.option("--once", is_flag=True, help="End after the first file.")
@click.option(
    "--overwrite", is_flag=True, help="Replace files of the same name. Default: add a number to the name."
)
@node_options
def receive_file(
    options: NodeOptions, folder: Path, allow: Sequence[str], once: bool, overwrite: bool
) -> int:
    """Receive files from peers that run `mp2p send-file`, and put them into a folder.

    A file gets its name only once it is whole and its SHA-256 is right. What arrives of one before the
    connection breaks is kept as NAME.TAG.part, and goes on from there when its sender tries again. Whoever
    is let in by --allow can fill the disk.
    """
    names, allowed = read_access(allow)
    return supervise.run(lambda: _receive(options, folder, allowed, names, once, overwrite))


async def _receive(
    options: NodeOptions,
    folder: Path,
    allow: Allow,
    names: Names,
    once: bool,
    overwrite: bool,
) -> int:
    await to_thread.run_sync(check_folder, folder)
    with Transfers(options.printer, sending=False, names=names) as transfers:
        async with options.open_node(allow) as node, anyio.create_task_group() as group:

            def observe(event: TransferEvent) -> None:
                transfers(event)
                if once and event.state is TransferState.DONE:
                    group.cancel_scope.cancel()

            receiver = FileReceiver(folder, overwrite=overwrite, observer=observe)

            async def serve(peer: mp2p.Peer) -> None:
                with contextlib.suppress(mp2p.FileError, mp2p.RemoteError):  # `transfers` has said so
                    await receiver.serve(peer)

            announce(options.printer, node, allow)
            while True:
                group.start_soon(serve, await node.accept())
    return ExitCode.DONE
