"""Every error of a call. The root of the tree, and of `UsageError` and `RemoteError`, is mp2p_core.errors.

    Mp2pError
    ├── UsageError
    │   ├── InterfaceError           an interface that cannot work, said when it is defined
    │   └── ArgumentError            this side's arguments do not fit the interface; nothing was sent
    └── RemoteError
        ├── BadPacket
        │   └── BadMessage           what a peer sent is no message of a call; never leaves this package
        └── CallError                a call that has no result
            ├── RpcError             the handler's own answer: a code, a message, data
            │   └── DeclaredError    base of the error classes that an interface declares
            ├── InternalError        the handler failed; the peer's log has the rest, under an incident id
            ├── UnknownMethod        the peer has no such service, version or method
            ├── NotAllowed           the peer has the method, but not for this key
            ├── Busy                 the peer runs as many calls as it takes; this one was not begun
            ├── Deadline             the time given for the call was over at the peer
            ├── ArgumentsRefused     the peer's interface does not take these arguments
            ├── RequestRefused       the peer could not read the request, or it is past a limit there
            ├── BadResult            the result does not fit the interface
            ├── BadAnswer            the answer broke off, or cannot be read
            └── OutcomeUnknown       the connection ended: the handler may have run, or not

A session that ended before the call was sent is `mp2p_core.Closed`. The caller's own cancel scope ends in
anyio's `TimeoutError`; `Deadline` is one, too.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mp2p_core.errors import BadPacket, RemoteError, UsageError

__all__ = [
    "ArgumentError",
    "ArgumentsRefused",
    "BadAnswer",
    "BadMessage",
    "BadResult",
    "Busy",
    "CallError",
    "Deadline",
    "DeclaredError",
    "InterfaceError",
    "InternalError",
    "NotAllowed",
    "OutcomeUnknown",
    "RequestRefused",
    "RpcError",
    "UnknownMethod",
]


class InterfaceError(UsageError):
    """An interface cannot work as it is written; the message names the method and the cure."""


class ArgumentError(UsageError):
    """The arguments of a call do not fit the interface. Nothing was sent.

    `path` says where, such as "$.readings[3].celsius"; "$" is the call itself, "$.name" an argument.
    """

    def __init__(self, method: str, message: str, path: str = "$") -> None:
        super().__init__(f"{method}: {message}")
        self.method = method
        self.path = path


class BadMessage(BadPacket):
    """What a peer sent is no message of a call, or does not fit the interface.

    `reason` is one of "too-large", "too-deep", "too-many", "malformed", "misfit"; `path` is for the last.
    Raised by functions whose name ends in `_untrusted`, and turned into an error of the call.
    """

    def __init__(self, reason: str, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.reason = reason
        self.path = path


class CallError(RemoteError):
    """A call that has no result. `method` is the full name, such as "Thermostat.set_target"; "" until known."""

    method: str = ""
    from_peer: bool = False
    """Whether it came from a peer. A handler that lets it pass has failed: what one peer says is not for another."""


class RpcError(CallError):
    """What a handler raises to answer with an error, and what its caller gets.

    `code` is for programs, `message` for people, `data` is anything that can travel.
    """

    code: str

    def __init__(self, code: str, message: str = "", data: Any = None) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message
        self.data = data


class DeclaredError(RpcError):
    """Base of error classes that an interface declares; its caller gets the same class.

        class TooHot(DeclaredError, code="too-hot"):
            data: float

        class Thermostat(Service, errors=[TooHot]): ...

    The code is the class's name unless given. An annotation of `data` is checked like an argument.
    """

    declared_code: ClassVar[str] = ""

    def __init_subclass__(cls, *, code: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls.declared_code = code or cls.__name__

    def __init__(self, message: str = "", data: Any = None) -> None:
        super().__init__(self.declared_code, message, data)


class InternalError(CallError):
    """The handler failed. What went wrong is in the peer's log under `incident`, and nowhere else."""

    def __init__(self, incident: str) -> None:
        super().__init__(f"the handler failed: the log of the peer has incident {incident}")
        self.incident = incident


class UnknownMethod(CallError):
    """The peer has no such service, version or method; or does not tell this key of it."""


class NotAllowed(CallError):
    """This key may not call the method `method` of the peer."""

    def __init__(self, method: str) -> None:
        super().__init__(f"the peer does not let this key call {method}: ask its owner to allow it")
        self.method = method


class Busy(CallError):
    """The peer has as many calls as it takes. This one was not begun: it may be made again, later."""


class Deadline(CallError, TimeoutError):
    """The time that the caller gave was over before the peer had a result."""


class ArgumentsRefused(CallError):
    """The peer's interface does not take these arguments: it has another version of it. `path` says where."""

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class RequestRefused(CallError):
    """The peer could not read the request, or it is past a limit there.

    `reason` is one of "too-large", "too-deep", "too-many", "malformed".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadResult(CallError):
    """The result does not fit the interface; `path` says where. The peer has run the handler."""

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class BadAnswer(CallError):
    """The answer broke off, or cannot be read. The peer has run the handler, or part of it."""


class OutcomeUnknown(CallError):
    """The connection ended before the result was here: the handler may have run, or not.

    `stage` says how far it got: "sent", or "after 3 items". Methods marked `idempotent` are called again
    instead.
    """

    def __init__(self, stage: str, cause: str) -> None:
        super().__init__(
            f"the connection ended ({cause}) and the outcome is not known (stage: {stage}): find out before you "
            "call again, or mark the method idempotent if calling twice does no harm"
        )
        self.stage = stage
