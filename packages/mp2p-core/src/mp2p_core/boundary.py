"""Where other people's code runs inside ours: plugins, handlers, policies, iterators that the application gave."""

from __future__ import annotations

from types import TracebackType

__all__ = ["Boundary"]


class Boundary:
    """A block whose exceptions end up in `error` and go no further; cancellation passes.

    The one place in all packages that takes any exception. Such code may raise anything, and no failure of it may
    end the node, another call, or the other plugins. The code after the block decides what the failure means.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Boundary:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        return False
