"""Every error, its exit code and its message."""

from __future__ import annotations

import click
import pytest

from mp2p.bench import NotServed
from mp2p.cli.errors import EXPLAINABLE, ClaimFailed, ExitCode, NotTaken, explain, reader_gone
from mp2p.transfer import FileError, Reason, TransferBroken, TransferRefused
from mp2p_core import errors
from mp2p_rpc import errors as calls

CASES = [
    (errors.AddressError("x"), 2),
    (errors.BadKey("x"), 2),
    (errors.ContactError("x"), 2),
    (errors.DatagramTooLarge(2000, 1100), 2),
    (errors.MessageTooLarge(2**20 + 1, 2**20), 2),
    (errors.TransportError("x"), 2),
    (errors.UsageError("x"), 2),
    (click.UsageError("x"), 2),
    (errors.PeerUnreachable("nothing heard", ("v4 224.0.230.7:1024 on lo",), "Check."), 3),
    (errors.Closed(0, "done"), 3),
    (errors.StreamClosed(2, 7), 3),
    (errors.StreamReset(2, 7), 3),
    (NotTaken("x"), 3),
    (TransferBroken("x"), 3),
    (TimeoutError(), 3),
    (errors.AuthRejected("busy"), 4),
    (errors.Closed(8, "not allowed"), 4),
    (TransferRefused("x", Reason.NO_SPACE), 4),
    (calls.InterfaceError("x"), 2),
    (calls.ArgumentError("Door.open", "x"), 2),
    (calls.OutcomeUnknown("sent", "x"), 3),
    (calls.Deadline("x"), 3),
    (calls.ArgumentsRefused("x"), 4),
    (calls.BadAnswer("x"), 4),
    (calls.BadResult("x"), 4),
    (calls.Busy("x"), 4),
    (calls.DeclaredError("x"), 4),
    (calls.InternalError("x"), 4),
    (calls.NotAllowed("Door.open"), 4),
    (calls.RequestRefused("too-large", "x"), 4),
    (calls.RpcError("too-hot", "x"), 4),
    (calls.UnknownMethod("x"), 4),
    (NotServed("x"), 4),
    (errors.NoMulticast(None, "x"), 5),
    (errors.PortTaken(1024), 5),
    (errors.KeyFileError("x"), 6),
    (FileError("x", Reason.CANNOT_READ), 7),
    (KeyboardInterrupt(), 130),
    (click.Abort(), 130),
    (ClaimFailed("x"), 1),
    (ClaimFailed("x", 5), 5),
]


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda value: type(value).__name__)
def test_L6_exit_codes(error: BaseException, code: int) -> None:
    failure = explain(error)
    assert failure is not None
    assert failure.exit_code == code
    assert failure.message
    assert isinstance(error, EXPLAINABLE)


def test_L6_no_error_of_the_tree_is_without_a_code() -> None:
    covered = {type(error) for error, _ in CASES}
    abstract = {errors.Mp2pError, errors.LocalNetworkError, errors.RemoteError, errors.BadPacket}
    abstract |= {calls.CallError, calls.BadMessage}
    tree = {getattr(module, name) for module in (errors, calls) for name in module.__all__}
    assert tree - covered == abstract


def test_details_for_programs() -> None:
    unreachable = explain(errors.PeerUnreachable("nothing heard", ("v4 on lo",), "Check."))
    assert unreachable is not None
    assert unreachable.details == {"stage": "nothing heard", "tried": ["v4 on lo"]}
    taken = explain(errors.PortTaken(1024))
    assert taken is not None
    assert taken.details == {"port": 1024}
    closed = explain(errors.Closed(2, "bad frame"))
    assert closed is not None
    assert closed.details == {"code": 2}
    answer = explain(calls.RpcError("too-hot", "x"))
    assert answer is not None
    assert answer.details == {"code": "too-hot"}


def test_a_group_of_explained_errors_is_explained_by_the_first() -> None:
    inner = BaseExceptionGroup("tasks", [errors.Closed(0, ""), KeyboardInterrupt()])
    failure = explain(BaseExceptionGroup("tasks", [inner, errors.PortTaken(1024)]))
    assert failure is not None
    assert failure.exit_code == ExitCode.UNREACHABLE


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError(), ExceptionGroup("tasks", [errors.Closed(0, ""), ZeroDivisionError()]), OSError()],
)
def test_a_fault_of_the_program_is_not_explained_away(error: BaseException) -> None:
    assert explain(error) is None


def test_reader_gone() -> None:
    assert reader_gone(BrokenPipeError())
    assert reader_gone(ExceptionGroup("tasks", [BrokenPipeError()]))
    assert not reader_gone(ExceptionGroup("tasks", [BrokenPipeError(), ZeroDivisionError()]))
    assert not reader_gone(errors.Closed(0, ""))
