"""The other side of `process`: play a role in a process that a command runs beside it.

It reads orders, one JSON object a line, from standard input and reports what happened, one JSON object a line, on
standard output. It ends when its standard input does, so none outlives the command, however that ended.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from mp2p.cli.errors import EXPLAINABLE, ExitCode, explain
from mp2p.cli.lines import StandardInput
from mp2p.cli.output import dump

__all__ = ["Orders", "Role", "play", "report"]

Orders: TypeAlias = MemoryObjectReceiveStream[dict[str, Any]]
"""What the command says."""

Role: TypeAlias = Callable[[Orders, str], Awaitable[None]]
"""What a process does, given its orders and the name of a transport."""


def report(event: str, **facts: object) -> None:
    """Tell the command what happened."""
    sys.stdout.write(dump({"event": event} | facts) + "\n")
    sys.stdout.flush()


def play(roles: Mapping[str, Role], words: Sequence[str]) -> int:
    """Play the role that the first of `words` names, on the transport that the second one names; return the exit code.

    An error that is no fault of the program is reported as `failed`.
    """
    try:
        anyio.run(_play, roles[words[0]], words[1])
    except EXPLAINABLE as error:
        failure = explain(error)
        if failure is None:
            raise
        report("failed", kind=failure.kind, message=failure.message, exit_code=int(failure.exit_code))
        return failure.exit_code
    return ExitCode.DONE


async def _play(role: Role, transport: str) -> None:
    give, orders = anyio.create_memory_object_stream[dict[str, Any]](8)
    with StandardInput() as standard_input, give, orders:
        async with anyio.create_task_group() as group:

            async def read() -> None:
                while (line := await standard_input.line()) is not None:
                    await give.send(json.loads(line))
                group.cancel_scope.cancel()

            group.start_soon(read)
            await role(orders, transport)
            await anyio.sleep_forever()
