"""A call as handlers and interceptors see it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from mp2p_core import PublicKey, UsageError
from mp2p_rpc.method import Shape

__all__ = ["CURRENT", "Call", "Interceptor", "current_call"]


@dataclass(slots=True, eq=False)
class Call:
    """One call, on either side of it."""

    id: str
    """Sixteen hex digits, the same in the logs of both sides; all attempts at an idempotent call share it."""
    method: str
    """The full name, such as "Thermostat.set_target"."""
    version: int
    """The interface's."""
    shape: Shape
    peer: PublicKey
    """The other side: who calls, or who is called."""
    incoming: bool
    """Whether the handler is on this side."""
    deadline: float
    """On anyio's clock (`anyio.current_time()`); infinite when there is none."""
    metadata: dict[str, str]
    """What goes along with the call. The caller's interceptors may add to it; the handler's side reads it."""


Interceptor: TypeAlias = Callable[[Call], AbstractContextManager[Any]]
"""Called for each call, on the side it was given to; what it returns is entered before the call and left
after it, with the exception if it failed. Raising in front of it refuses the call."""


class _Handled(Protocol):
    """What is being handled. Most handlers never ask for the call itself, so it is made when they do."""

    @property
    def call(self) -> Call: ...


CURRENT: Final[ContextVar[_Handled]] = ContextVar("mp2p_rpc_call")
"""What the running task handles, for `current_call`."""


def current_call() -> Call:
    """Return the call that the running handler answers. Raises `UsageError` outside of handlers."""
    try:
        return CURRENT.get().call
    except LookupError:
        raise UsageError(
            "no call is being handled here: ask within a method that a peer has called"
        ) from None
