"""One method of an interface: its shape and its types, read from a function's annotations (sans-IO)."""

from __future__ import annotations

import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec

from mp2p_rpc.errors import ArgumentError, DeclaredError, InterfaceError, RpcError
from mp2p_rpc.schema import Codec, Misfit, make_record

__all__ = ["ANYTHING", "Method", "MethodOptions", "Shape", "is_remote", "read_method"]

_STREAMS: Final = (AsyncIterator, AsyncIterable, AsyncGenerator)
ANYTHING: Final = Codec(Any)
"""For data of errors that nobody has declared."""


class Shape(Enum):
    """How many values go each way. The value is how descriptions write it."""

    UNARY = "unary"
    SERVER_STREAM = "server stream"
    CLIENT_STREAM = "client stream"
    BOTH_STREAM = "both stream"

    @property
    def streams_arguments(self) -> bool:
        """Whether the caller sends items."""
        return self in (Shape.CLIENT_STREAM, Shape.BOTH_STREAM)

    @property
    def streams_results(self) -> bool:
        """Whether the handler sends items."""
        return self in (Shape.SERVER_STREAM, Shape.BOTH_STREAM)


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """What a decorator says about a method."""

    name: str = ""
    idempotent: bool = False
    errors: tuple[type[DeclaredError], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Method:
    """One method. `full_name` is such as "Thermostat.set_target"."""

    name: str
    attribute: str
    """What the function is called in the class."""
    full_name: str
    shape: Shape
    positional: tuple[str, ...]
    """Parameters that may be given by position, the stream of items among them."""
    required: frozenset[str]
    fields: tuple[str, ...]
    """Parameters that travel in ARGUMENTS: all but the stream of items."""
    items_name: str | None
    """The parameter that is a stream of items."""
    arguments: Codec
    items: Codec | None
    result: Codec
    """Of the result, or of each item of it."""
    idempotent: bool
    errors: Mapping[str, tuple[type[DeclaredError], Codec]]
    """By code: the classes that the interface declares, and the type of their data."""
    doc: str

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bytes, Any]:
        """Turn the arguments of a call into the body of ARGUMENTS and the stream of items, if it takes one.

        Raises ArgumentError.
        """
        if len(args) > len(self.positional):
            raise ArgumentError(
                self.full_name, f"{len(args)} arguments by position, it takes {len(self.positional)}"
            )
        given = dict(zip(self.positional, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise ArgumentError(self.full_name, f"argument {name!r} is given twice", f"$.{name}")
            given[name] = value
        missing = self.required - given.keys()
        if missing:
            names = ", ".join(sorted(missing))
            raise ArgumentError(self.full_name, f"missing argument: {names}", f"$.{min(missing)}")
        items = None
        if self.items_name is not None:
            items = given.pop(self.items_name)
            if not hasattr(items, "__aiter__"):
                raise ArgumentError(
                    self.full_name,
                    f"{self.items_name!r} takes an async iterator, not {type(items).__name__}",
                    f"$.{self.items_name}",
                )
        try:
            return self.arguments.encode(given), items
        except Misfit as misfit:
            raise ArgumentError(self.full_name, str(misfit), misfit.path) from misfit

    def unbind(self, record: msgspec.Struct) -> dict[str, Any]:
        """Turn decoded arguments into those of the handler; what was not given keeps the handler's default."""
        values = msgspec.structs.asdict(record)
        if not self.required.issuperset(self.fields):
            return {name: value for name, value in values.items() if value is not msgspec.UNSET}
        return values

    def declared(self, error: RpcError) -> Codec:
        """Return the type of an error's data."""
        if isinstance(error, DeclaredError) and (known := self.errors.get(error.code)) is not None:
            return known[1]
        return ANYTHING


def is_remote(function: object) -> bool:
    """Tell whether a function can be called by peers: it is async, or returns an async iterator."""
    if not inspect.isfunction(function):
        return False
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return True
    returned = function.__annotations__.get("return")
    if isinstance(returned, str):
        return returned.split("[")[0].rsplit(".", 1)[-1] in {each.__name__ for each in _STREAMS}
    return _is_stream(returned)


def read_method(
    function: Callable[..., Any], *, service: str, options: MethodOptions, bound: bool = True
) -> Method:
    """Read a function of a class (or, not `bound`, a function by itself).

    Raises InterfaceError, and NameError when an annotation names what is not defined yet.
    """
    attribute = function.__name__
    name = options.name or attribute
    where = f"{service}.{name}" if service else name
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    fields: list[tuple[Any, ...]] = []
    required: set[str] = set()
    items_name, items = None, None
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InterfaceError(
                f"{where} takes {parameter}: name each parameter, so that both sides know its type"
            )
        if parameter.name not in hints:
            raise InterfaceError(f"{where}: parameter {parameter.name!r} has no annotation: add its type")
        annotation = hints[parameter.name]
        if parameter.default is parameter.empty:
            required.add(parameter.name)
        if _is_stream(annotation):
            if items_name is not None or parameter.name not in required:
                raise InterfaceError(
                    f"{where}: one parameter may be an async iterator, and without a default"
                )
            items_name, items = parameter.name, _codec(where, parameter.name, _item(where, annotation))
            continue
        _codec(where, parameter.name, annotation)  # by itself, for the name in the message
        default = () if parameter.name in required else (msgspec.UNSET,)
        fields.append((parameter.name, annotation, *default))
    if "return" not in hints:
        raise InterfaceError(f"{where} has no annotation of what it returns: write `-> None` for nothing")
    returned = hints["return"]
    streams = _is_stream(returned)
    if streams and inspect.iscoroutinefunction(function):
        raise InterfaceError(
            f"{where} is `async def` and returns an async iterator: write `def`, or `yield` the items"
        )
    if options.idempotent and items_name is not None:
        raise InterfaceError(
            f"{where} takes a stream of items, which is gone once sent: it cannot be called again by itself"
        )
    shapes = {
        (False, False): Shape.UNARY,
        (False, True): Shape.SERVER_STREAM,
        (True, False): Shape.CLIENT_STREAM,
        (True, True): Shape.BOTH_STREAM,
    }
    return Method(
        name=name,
        attribute=attribute,
        full_name=where,
        shape=shapes[items_name is not None, streams],
        positional=tuple(each.name for each in parameters if each.kind is not each.KEYWORD_ONLY),
        required=frozenset(required),
        fields=tuple(field[0] for field in fields),
        items_name=items_name,
        arguments=Codec(make_record(where.replace(".", "_"), fields)),
        items=items,
        result=_codec(where, "the result", _item(where, returned) if streams else returned),
        idempotent=options.idempotent,
        errors={each.declared_code: (each, _data_of(where, each)) for each in options.errors},
        doc=inspect.getdoc(function) or "",
    )


def _is_stream(annotation: Any) -> bool:
    return (typing.get_origin(annotation) or annotation) in _STREAMS


def _item(where: str, annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    if not arguments:
        raise InterfaceError(f"{where}: an async iterator of what? Write AsyncIterator[T]")
    return arguments[0]


def _codec(where: str, what: str, annotation: Any) -> Codec:
    try:
        return Codec(annotation)
    except InterfaceError as error:
        raise InterfaceError(f"{where}, {what}: {error}") from error


def _data_of(where: str, error: type[DeclaredError]) -> Codec:
    annotation = typing.get_type_hints(error, include_extras=True).get("data", Any)
    return _codec(where, f"data of {error.__name__}", annotation)
