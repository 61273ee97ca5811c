"""`mp2p serve`: serve a class of your own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import click

import mp2p
from mp2p.cli import supervise
from mp2p.cli.errors import ExitCode
from mp2p.cli.listen import allow_option, announce, read_access
from mp2p.cli.options import NodeOptions, node_options
from mp2p.cli.policy import policy
from mp2p_core.access import Allow

__all__ = ["load", "serve"]


@click.command(short_help="Serve a class or function to peers.")
@click.argument("targets", metavar="MODULE:NAME...", nargs=-1, required=True)
@allow_option
@node_options
def serve(options: NodeOptions, targets: Sequence[str], allow: Sequence[str]) -> int:
    """Serve each NAME of a MODULE: a class (made without arguments), an object, or an mp2p function.

    MODULE is found as Python finds it, and in the present folder. The first line tells how to reach this node; peers
    look with `mp2p describe` and call with `mp2p call`, if --allow lets them. What each contact may call stands in the
    contacts file (`methods`).
    """
    services = [load(target) for target in targets]
    _, allowed = read_access(allow)
    return supervise.run(lambda: _serve(options, services, allowed, list(allow)))


async def _serve(options: NodeOptions, services: list[object], allow: Allow, words: list[str]) -> int:
    async with options.open_node() as node, node.serving(*services, allow=policy(allow, words)):
        announce(options.printer, node, allow)
        await anyio.sleep_forever()
    return ExitCode.DONE


def load(target: str) -> object:
    """Import MODULE:NAME and return what is to be served. Raises `UsageError`, saying what is not there."""
    module_name, colon, name = target.partition(":")
    if not (colon and module_name and name) or module_name.startswith("."):
        raise mp2p.UsageError(
            f"{target!r} names nothing to serve: write MODULE:NAME, such as thermostat:Thermostat"
        )
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # something that the module itself imports: its traceback says more
        raise mp2p.UsageError(
            f"there is no module {error.name!r} here: run this in the folder that has it"
        ) from error
    try:
        found = getattr(module, name)
    except AttributeError as error:
        raise mp2p.UsageError(f"module {module_name!r} has no {name!r}") from error
    if not isinstance(found, type):
        return found
    try:
        return found()
    except TypeError as error:
        raise mp2p.UsageError(
            f"{target} cannot be made without arguments ({error}): make an object in the module and name that"
        ) from error
