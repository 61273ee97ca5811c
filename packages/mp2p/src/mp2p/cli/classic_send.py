"""`mp2p classic send`: send a text to a device with the original implementation, and wait for its answer."""

from __future__ import annotations

import time
from typing import Final

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.classic_options import ClassicOptions, classic_options
from mp2p.cli.errors import ExitCode, NotTaken
from mp2p.cli.options import timeout_option, warn_of_unused
from mp2p_core.classic import ClassicConnection, connect_classic

__all__ = ["send"]

_PAUSE: Final = 1.0
"""Seconds between the texts of --loop."""


@click.command(short_help="Send a message to a classic server.")
@click.argument("address")
@click.argument("key_of_server", metavar="KEY")
@click.argument("text")
@click.option("--loop", is_flag=True, help="Send TEXT every second, until interrupted.")
@timeout_option
@classic_options
def send(
    options: ClassicOptions, address: str, key_of_server: str, text: str, loop: bool, timeout: float
) -> int:
    """Send TEXT to the classic server that listens at the group ADDRESS and has this KEY; print its answer.

    ADDRESS is HOST, with the original's port understood, or HOST:PORT, or [HOST]:PORT. KEY is 64 hex digits.

    The wire confirms nothing, so only an answer tells that the text arrived. It is sent once: exits 0 when an
    answer came within --timeout seconds.
    """
    server = mp2p.PublicKey.parse(key_of_server)
    options.place.parse_server(address)  # what cannot be right is said even with --loop
    return supervise.run(lambda: _send(options, address, server, text.encode(), loop, timeout))


async def _send(
    options: ClassicOptions, address: str, server: mp2p.PublicKey, text: bytes, loop: bool, timeout: float
) -> int:
    number = 0
    while True:
        try:
            async with connect_classic(
                options.key,
                server,
                address,
                options.place,
                timeout=timeout,
                share_key=options.share_key,
            ) as connection:
                _announce(options, connection)
                while True:
                    number += 1
                    await _exchange(options, connection, number, text, timeout)
                    if not loop:
                        return ExitCode.DONE
                    await anyio.sleep(_PAUSE)
        except mp2p.RemoteError as error:
            if not loop:
                raise
            options.printer.warn(f"{error} Beginning a new session")


def _announce(options: ClassicOptions, connection: ClassicConnection) -> None:
    session = connection.session
    to, name = session.peer.raw.hex(), session.session_id.hex()
    options.printer.emit({"event": "session", "to": to, "session": name}, [("session", "green"), f"  {name}"])
    warn_of_unused(
        options.printer, options.place.interfaces, str(options.place.transport), connection.status()
    )


async def _exchange(
    options: ClassicOptions, connection: ClassicConnection, number: int, text: bytes, timeout: float
) -> None:
    """Send the text and print the answer. Raises `NotTaken` when none comes."""
    began = time.perf_counter()
    connection.send(text)
    options.printer.emit({"event": "sent", "number": number}, ["sent     ", f"message {number}"])
    with anyio.move_on_after(timeout):
        answer = (await connection.receive()).decode(errors="backslashreplace")
        rtt_ms = round((time.perf_counter() - began) * 1000, 3)
        options.printer.emit(
            {"event": "answer", "number": number, "text": answer, "rtt_ms": rtt_ms},
            [("answer   ", "green"), f"message {number}  {rtt_ms:.1f} ms  ", answer],
        )
        return
    raise NotTaken(
        f"the server agreed to a session, and answered nothing within {timeout:g} s: the text or its answer "
        "was lost, or the server answers none. Send it again if it may arrive twice."
    )
