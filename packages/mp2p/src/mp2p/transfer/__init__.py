"""File transfer: whole files, right by their SHA-256, resumed where a connection broke.

    await mp2p.send_file(peer, "photo.jpg")
    await mp2p.receive_files(peer, "inbox")

Layers, lowest first:

    errors                       why a transfer ends
    wire, names, events          messages, safe names, what observers are told: without I/O
    files                        files and hashes on disk
    incoming, sink               a stream's other side; writing while more arrives
    sending, receiving           one file on one stream
    receiver, delivery           a folder for many peers; many files over many connections
"""

from __future__ import annotations

from mp2p.transfer.delivery import Connect, Interruption, deliver_files
from mp2p.transfer.errors import FileError, Reason, TransferBroken, TransferRefused
from mp2p.transfer.events import Observer, TransferEvent, TransferredFile, TransferState
from mp2p.transfer.files import check_folder, size_text
from mp2p.transfer.names import safe_name
from mp2p.transfer.receiver import FileReceiver, receive_files
from mp2p.transfer.sending import send_file

__all__ = [
    "Connect",
    "FileError",
    "FileReceiver",
    "Interruption",
    "Observer",
    "Reason",
    "TransferBroken",
    "TransferEvent",
    "TransferRefused",
    "TransferState",
    "TransferredFile",
    "check_folder",
    "deliver_files",
    "receive_files",
    "safe_name",
    "send_file",
    "size_text",
]
