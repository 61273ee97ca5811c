"""The options that the classic commands share, as one decorator."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from mp2p.cli.options import interface_option, json_option, reach_option
from mp2p.cli.output import Printer, printer
from mp2p.paths import default_classic_key_path
from mp2p_core.classic import ClassicPlace

__all__ = ["ClassicOptions", "classic_options"]

_WARNING: Final = (
    "the classic profile is the original's wire: no key derivation, one key for both directions, and no protection "
    "against replays at the original's end. Use it only for devices that cannot run version 1 yet; docs/classic.md "
    "says how to move them"
)


@dataclass(frozen=True, slots=True)
class ClassicOptions:
    """How a classic command gets its key, finds its place on the network, and prints."""

    key: Path
    share_key: bool
    place: ClassicPlace
    printer: Printer


_OPTIONS: Final = (
    click.option("--ipv4", is_flag=True, help="Use IPv4 groups. Default: transient IPv6 groups."),
    click.option("--prefix6", is_flag=True, help="Use IPv6 groups of the network's own prefix."),
    click.option(
        "--key",
        type=click.Path(dir_okay=True, path_type=Path),
        metavar="FILE",
        help="Key file of profile classic, made on first use, or the original's server.conf or client.conf. "
        "Default: `classic-key` in your configuration folder.",
    ),
    click.option("--share-key", is_flag=True, help="Use a key of version 1 here, too, if --key names one."),
    interface_option,
    click.option(
        "--port",
        type=click.IntRange(1024, 65535),
        metavar="N",
        help="UDP port to listen on. Default: the original's, 1024 for serve, 1025 for send, 1026 with --prefix6.",
    ),
    reach_option,
    json_option,
)


def classic_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options to a command, warn, and hand them over as its first argument, a `ClassicOptions`."""

    @functools.wraps(command)
    def wrapped(
        ipv4: bool,
        prefix6: bool,
        key: Path | None,
        share_key: bool,
        interfaces: tuple[str, ...],
        port: int | None,
        reach: str,
        as_json: bool,
        **arguments: object,
    ) -> int:
        if ipv4 and prefix6:
            raise click.UsageError("--ipv4 and --prefix6 name two kinds of groups: choose one")
        options = ClassicOptions(
            key=key or default_classic_key_path(),
            share_key=share_key,
            place=ClassicPlace("v4" if ipv4 else "v6-prefix" if prefix6 else "v6", interfaces, port, reach),
            printer=printer(as_json=as_json),
        )
        options.printer.warn(_WARNING)
        return command(options, **arguments)

    decorated: Callable[..., int] = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
