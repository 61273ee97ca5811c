"""An interceptor that tells the log of each call, for either side."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from types import TracebackType

import anyio

from mp2p_rpc.call import Call

__all__ = ["log_calls"]

_log = logging.getLogger("mp2p.rpc")


def log_calls(call: Call) -> AbstractContextManager[None]:
    """Tell the log `mp2p.rpc` of a call's end: its id, which is the same on both sides, and how long it took.

    `interceptors=[log_calls]`. INFO, or WARNING for a call that fails. Arguments and results are not told.
    """
    return _Logged(call)


class _Logged(AbstractContextManager[None]):
    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._began = anyio.current_time()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        level, outcome = logging.INFO, "done" if error is None else "cancelled"
        if isinstance(error, Exception):
            level, outcome = logging.WARNING, type(error).__name__
        call, took = self._call, (anyio.current_time() - self._began) * 1e3
        side = "by" if call.incoming else "at"
        _log.log(level, "call %s: %s %s %s %s, %.1f ms", call.id, call.method, side, call.peer, outcome, took)
