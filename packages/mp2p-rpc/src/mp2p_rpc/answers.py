"""What an ERROR says, as an exception at the caller, and back (docs/rpc.md, "Errors")."""

from __future__ import annotations

from typing import Final

import msgspec

from mp2p_rpc.errors import (
    ArgumentsRefused,
    BadAnswer,
    BadMessage,
    BadResult,
    Busy,
    CallError,
    Deadline,
    InternalError,
    NotAllowed,
    OutcomeUnknown,
    RequestRefused,
    RpcError,
    UnknownMethod,
)
from mp2p_rpc.frames import MAX_HEADER_SIZE, ErrorBody, ErrorKind
from mp2p_rpc.limits import Limits
from mp2p_rpc.method import ANYTHING, Method
from mp2p_rpc.schema import Misfit

__all__ = ["bad_answer", "describe_bad_message", "error_from", "refusal"]

_MESSAGE: Final = 4096
"""Characters of an error's message that travel; the rest is cut."""


def _application_error(error: RpcError, method: Method) -> ErrorBody:
    data = method.declared(error).encode(error.data)
    if len(data) > MAX_HEADER_SIZE // 2:
        raise Misfit(f"{len(data)} bytes of data in an error, at most {MAX_HEADER_SIZE // 2} are sent")
    return ErrorBody(
        ErrorKind.APPLICATION, error.code[:256], error.message[: _MESSAGE // 4], "$", msgspec.Raw(data)
    )


def refusal(error: Exception, method: Method) -> ErrorBody | None:
    """Write what a handler, or an interceptor before it, says on purpose; None for any other failure.

    Raises Misfit when the data of an error cannot travel.
    """
    if not isinstance(error, CallError) or error.from_peer:
        return None
    if isinstance(error, RpcError):
        return _application_error(error, method)
    if isinstance(error, NotAllowed):
        return ErrorBody(ErrorKind.NOT_ALLOWED)
    if isinstance(error, Busy):
        return ErrorBody(ErrorKind.BUSY, "", str(error)[: _MESSAGE // 4])
    return None


def describe_bad_message(error: BadMessage, *, arguments: bool) -> ErrorBody:
    """Write what was wrong with a request."""
    if arguments and error.reason == "misfit":
        return ErrorBody(ErrorKind.ARGUMENTS, "", str(error)[: _MESSAGE // 4], error.path[:1024])
    return ErrorBody(ErrorKind.REQUEST, error.reason, str(error)[: _MESSAGE // 4])


def error_from(body: ErrorBody, method: Method, limits: Limits) -> CallError:
    """Turn an ERROR into what the caller gets. What it says cannot be trusted, and is text only."""
    error = _error_from(body, method, limits)
    error.method, error.from_peer = method.full_name, True
    return error


def _error_from(body: ErrorBody, method: Method, limits: Limits) -> CallError:
    kind, where = body.kind, method.full_name
    if kind == ErrorKind.APPLICATION:
        return _application(body, method, limits)
    if kind == ErrorKind.INTERNAL:
        return InternalError(body.code)
    if kind == ErrorKind.UNKNOWN_METHOD:
        return UnknownMethod(f"{where}: {body.message}")
    if kind == ErrorKind.NOT_ALLOWED:
        return NotAllowed(where)
    if kind == ErrorKind.BUSY:
        return Busy(f"{where}: the peer is busy ({body.message}): try again later")
    if kind == ErrorKind.DEADLINE:
        return Deadline(f"{where}: the time for the call was over before the peer had a result")
    if kind == ErrorKind.ARGUMENTS:
        return ArgumentsRefused(f"{where}: the peer refuses the arguments: {body.message}", body.path)
    if kind == ErrorKind.REQUEST:
        return RequestRefused(body.code, f"{where}: the peer refuses the request: {body.message}")
    if kind == ErrorKind.RESULT:
        return BadResult(
            f"{where}: the handler's result does not fit the interface: {body.message}", body.path
        )
    if kind == ErrorKind.STOPPED:
        return OutcomeUnknown("sent", "the peer has stopped serving")
    return BadAnswer(f"{where}: the peer answers with an error of unknown kind {kind}: update this side")


def _application(body: ErrorBody, method: Method, limits: Limits) -> CallError:
    declared = method.errors.get(body.code)
    try:
        if declared is None:
            return RpcError(body.code, body.message, ANYTHING.decode_untrusted(bytes(body.data), limits))
        kind, codec = declared
        data = codec.decode_untrusted(bytes(body.data), limits)
    except BadMessage as bad:
        return bad_answer(bad, method)
    # Not through the class's own __init__, whose parameters are its author's business.
    error = kind.__new__(kind, body.message or body.code)
    RpcError.__init__(error, body.code, body.message, data)
    return error


def bad_answer(bad: BadMessage, method: Method) -> CallError:
    """Turn an answer that cannot be read, or does not fit, into what the caller gets."""
    error: CallError
    if bad.reason == "misfit":
        error = BadResult(f"{method.full_name}: the answer does not fit the interface: {bad}", bad.path)
    else:
        error = BadAnswer(f"{method.full_name}: the answer cannot be read: {bad}")
    error.method = method.full_name
    return error
