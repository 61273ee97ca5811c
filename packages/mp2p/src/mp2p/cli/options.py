"""The options that every command shares, as one decorator.

No option takes a secret: a command line is readable by every user of the machine. Keys come from files.
"""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

import mp2p
from mp2p.cli.output import Printer, printer
from mp2p.cli.status_socket import show_status
from mp2p_core import Contact, Reach, UsageError
from mp2p_core.access import Allow
from mp2p_core.proto.constants import DEFAULT_PORT
from mp2p_core.transport import InterfaceStatus

__all__ = [
    "NodeOptions",
    "interface_option",
    "json_option",
    "node_options",
    "reach_option",
    "seconds",
    "timeout_option",
    "warn_of_unused",
]


def seconds(text: str) -> float:
    """Read a time in seconds, finite and above zero, as the `type` of an option."""
    try:
        number = float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(number) and number > 0):
        raise click.BadParameter(f"{text!r} is not a time above zero")
    return number


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """How a command opens its node and prints."""

    key: Path | None
    psk: Path | None
    transports: tuple[str, ...]
    interfaces: tuple[str, ...]
    port: int
    reach: Reach
    address: str
    timeout: float
    status: str | None
    printer: Printer

    @asynccontextmanager
    async def open_node(self, allow: Allow = "nobody") -> AsyncIterator[mp2p.Node]:
        """Open the node, and warn of every interface asked for that is of no use."""
        async with mp2p.open_node(
            self.key,
            allow=allow,
            transports=self.transports or None,
            interfaces=self.interfaces,
            port=self.port,
            reach=self.reach,
            address=self.address,
            psk=self.psk,
        ) as node:
            for channel in node.status():
                warn_of_unused(self.printer, self.interfaces, channel.transport, channel.interfaces)
            async with show_status(node, self.status):
                yield node

    @asynccontextmanager
    async def connect(self, contact: Contact) -> AsyncIterator[mp2p.Peer]:
        """Open a node that nobody can call, and connect it to the peer at `contact`."""
        async with self.open_node() as node:
            if contact.key == node.key:
                raise UsageError(
                    "this contact is your own, of the key file in use here: name the key of another peer, or use "
                    "another key file here with --key"
                )
            async with node.connect(contact, timeout=self.timeout) as peer:
                yield peer

    @contextmanager
    def patience(self) -> Iterator[None]:
        """Bound what every peer that serves answers at once: one that serves nothing leaves calls waiting."""
        try:
            with anyio.fail_after(self.timeout):
                yield
        except TimeoutError as error:
            raise TimeoutError(
                f"the peer is connected but has answered no call within {self.timeout:g} s: see that it serves "
                "something (`mp2p serve` there), or allow more with --timeout"
            ) from error


def warn_of_unused(
    to: Printer, asked: Sequence[str], transport: str, interfaces: Sequence[InterfaceStatus]
) -> None:
    """Warn of every interface asked for that a transport does not use."""
    for interface in interfaces:
        if interface.name in asked and not interface.joined:
            to.warn(f"{transport} does not use interface {interface.name}: {interface.detail}")


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line, for programs."
)

interface_option = click.option(
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Use only this network interface; may be repeated. Default: every eligible one.",
)

reach_option = click.option(
    "--reach",
    type=click.Choice([reach.name.lower() for reach in Reach]),
    default="global",
    show_default=True,
    help="How far datagrams may travel: this machine, this link, this site, or anywhere.",
)

timeout_option = click.option(
    "--timeout",
    type=seconds,
    default=20.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the peer.",
)

_OPTIONS = (
    click.option(
        "--key",
        type=click.Path(dir_okay=True, path_type=Path),
        metavar="FILE",
        help="Key file; made on first use. Default: `key` in your configuration folder.",
    ),
    click.option(
        "--psk",
        type=click.Path(dir_okay=True, path_type=Path),
        metavar="FILE",
        help="File of 64 hex digits that only devices have which are to meet; with it they meet no others.",
    ),
    click.option(
        "--transport",
        "transports",
        multiple=True,
        metavar="NAME",
        help="Use only this transport, such as v4, v6 or v6-prefix; may be repeated. Default: all that need "
        "nothing but a key.",
    ),
    interface_option,
    click.option(
        "--port",
        type=click.IntRange(1024, 65535),
        default=DEFAULT_PORT,
        show_default=True,
        metavar="N",
        help="UDP port to listen on.",
    ),
    reach_option,
    click.option(
        "--address",
        default="derived",
        show_default=True,
        metavar="random|derived|ADDRESS",
        help="Group to listen on: derived from the key, so that the key alone is enough to reach it; random; "
        "or this one, such as v4:224.0.230.7:1024.",
    ),
    timeout_option,
    click.option(
        "--status",
        metavar="auto|FILE",
        help="Let `mp2p top` of this user show how the node does: at a socket in the usual folder, or at this one.",
    ),
    json_option,
)


def node_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the shared options to a command and hand them over as its first argument, a `NodeOptions`."""

    @functools.wraps(command)
    def wrapped(
        key: Path | None,
        psk: Path | None,
        transports: tuple[str, ...],
        interfaces: tuple[str, ...],
        port: int,
        reach: str,
        address: str,
        timeout: float,
        status: str | None,
        as_json: bool,
        **arguments: object,
    ) -> int:
        options = NodeOptions(
            key=key,
            psk=psk,
            transports=transports,
            interfaces=interfaces,
            port=port,
            reach=Reach[reach.upper()],
            address=address,
            timeout=timeout,
            status=status,
            printer=printer(as_json=as_json),
        )
        return command(options, **arguments)

    decorated: Callable[..., int] = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
