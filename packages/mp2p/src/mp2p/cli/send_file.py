"""`mp2p send-file`: send files to a peer, whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import click
from anyio import to_thread

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.transfers import Transfers
from mp2p.contact_file import find_contact
from mp2p.transfer import deliver_files
from mp2p.transfer.files import SourceFile

__all__ = ["send_file"]


@click.command("send-file", short_help="Send files to a peer that receives them.")
@click.argument("contact")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-p", "--preserve-time", is_flag=True, help="Send the modification times too.")
@node_options
def send_file(options: NodeOptions, contact: str, files: Sequence[Path], preserve_time: bool) -> int:
    """Send each FILE to the peer at CONTACT, which runs `mp2p receive-file`.

    Exits 0 only when every file is whole on the peer's disk, with the same SHA-256. When the connection
    breaks, it is tried again for up to --timeout seconds, and the file goes on from where it stopped. So it
    does when the command is run again.
    """
    peer = find_contact(contact)
    if Path("-") in files:
        raise mp2p.UsageError(
            "standard input cannot be sent as a file, because what is lost on the way has to be read once more: "
            "save it to a file first, or send text with `mp2p send` (a file of that name is ./-)"
        )
    return supervise.run(lambda: _send(options, peer, files, preserve_time))


async def _send(options: NodeOptions, contact: mp2p.Contact, files: Sequence[Path], keep_time: bool) -> int:
    for file in files:  # all of them, before the first is sent
        (await to_thread.run_sync(SourceFile.open, file)).close()

    def connect(seconds: float) -> AbstractAsyncContextManager[mp2p.Peer]:
        return dataclasses.replace(options, timeout=seconds).connect(contact)

    with Transfers(options.printer, sending=True) as transfers:
        await deliver_files(
            *(connect, files),
            patience=options.timeout,
            keep_time=keep_time,
            observer=transfers,
            interrupted=transfers.interrupted,
        )
    return ExitCode.DONE
