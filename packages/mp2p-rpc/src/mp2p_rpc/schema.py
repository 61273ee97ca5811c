"""Which types travel, and how: from an annotation to bytes and back, checked on both sides (sans-IO).

The wire form of each type is in docs/rpc.md. msgspec reads msgpack straight into the annotated type: it
builds nothing that the annotation does not name, and nothing by a name that the peer sends.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from msgspec import inspect as ms

from mp2p_rpc.errors import BadMessage, InterfaceError
from mp2p_rpc.limits import Limits
from mp2p_rpc.scan import check_untrusted

__all__ = ["Codec", "Misfit", "make_record"]

_ENCODER: Final = msgspec.msgpack.Encoder()
_AT: Final = " - at `$"
_SHOWN: Final = 1024
"""Characters of a message of msgspec, which repeats what a peer sent, and of a path."""

_KEYS: Final = (
    ms.BoolType, ms.IntType, ms.FloatType, ms.StrType, ms.BytesType, ms.EnumType, ms.LiteralType, ms.DateTimeType,
    ms.DateType, ms.TimeType, ms.TimeDeltaType, ms.UUIDType, ms.DecimalType, ms.NoneType,
)  # fmt: skip
"""What keys of maps and elements of sets may be, or unions and tuples of them: types with a hash."""

_OF_OPEN_SIZE: Final = (ms.AnyType, ms.ListType, ms.VarTupleType, ms.SetType, ms.FrozenSetType, ms.DictType)


class Misfit(Exception):
    """A value on this side that does not fit its annotation. Becomes the error of whoever made the value."""

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class Codec:
    """Values of one annotation, as msgpack. Raises InterfaceError for a type that cannot travel."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation
        try:
            shape = ms.type_info(annotation)
            self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(annotation)
        except (TypeError, NameError) as error:
            text = _first_line(error)
            raise InterfaceError(f"{_name(annotation)} cannot travel: {text}{_advice(text)}") from error
        inner = list(_check(shape))
        # A type that says itself how many values there are and how deep they nest needs no look beforehand.
        self._needs_scan = any(isinstance(each, _OF_OPEN_SIZE) for each in inner) or _recursive(inner)

    def encode(self, value: Any) -> bytes:
        """Write a value. Raises Misfit when it does not fit, with its path: what the other side would see."""
        try:
            data = _ENCODER.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Misfit(str(error)) from error
        try:
            self._decoder.decode(data)
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
            raise Misfit(*_split(error)) from error
        return data

    def decode_untrusted(self, data: bytes, limits: Limits) -> Any:
        """Read a value. Raises BadMessage: what it is not, and where."""
        if len(data) > limits.message:
            raise BadMessage(
                "too-large", f"a message of {len(data)} bytes, at most {limits.message} are taken"
            )
        if self._needs_scan:
            check_untrusted(data, depth=limits.depth, elements=limits.elements)
        try:
            return self._decoder.decode(data)
        except msgspec.ValidationError as error:
            raise BadMessage("misfit", *_split(error)) from error
        except (msgspec.DecodeError, TypeError, ValueError, RecursionError) as error:
            raise BadMessage("malformed", f"no msgpack of this type: {_first_line(error)}") from error

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of the annotation."""
        schema = msgspec.json.schema(self.annotation)
        inner = schema.get("$defs", {})
        name = schema.get("$ref", "").removeprefix("#/$defs/")
        if name in inner and not any(_refers(each, schema["$ref"]) for each in inner.values()):
            schema = {**inner.pop(name), **({"$defs": inner} if inner else {})}
        return schema


def _refers(schema: Any, reference: str) -> bool:
    if isinstance(schema, dict):
        return schema.get("$ref") == reference or any(_refers(each, reference) for each in schema.values())
    return isinstance(schema, list) and any(_refers(each, reference) for each in schema)


def make_record(name: str, fields: Iterable[tuple[Any, ...]]) -> type[msgspec.Struct]:
    """Make the type of arguments by name: (name, annotation) or (name, annotation, default) each."""
    return msgspec.defstruct(name, list(fields), forbid_unknown_fields=True, kw_only=True)


def _split(error: Exception) -> tuple[str, str]:
    """Take the path out of a message of msgspec.

    Attack: a megabyte that looks like many paths, for what is to be one of a few words: the message has all of it.
    """
    text = str(error)
    said, at, path = text.rpartition(_AT)
    if not (at and path.endswith("`")):
        return text[:_SHOWN], "$"
    path = f"${path[:-1]}"[:_SHOWN]
    return f"{said[:_SHOWN]} at {path}", path


def _check(root: ms.Type) -> Iterator[ms.Type]:
    """Yield every type within a type. Raises InterfaceError for what cannot travel."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, ms.CustomType):
            raise InterfaceError(
                f"{_name(each.cls)} cannot travel: use a dataclass, TypedDict, NamedTuple, Enum, msgspec.Struct "
                "or a builtin type"
            )
        if isinstance(each, (ms.ExtType, ms.RawType)):
            raise InterfaceError(f"{type(each).__name__.removesuffix('Type')} cannot travel: use bytes")
        if isinstance(each, ms.DictType):
            _check_hashable(each.key_type, "a key")
        elif isinstance(each, (ms.SetType, ms.FrozenSetType)):
            _check_hashable(each.item_type, "an element of a set")
        waiting += _parts(each)


def _parts(shape: ms.Type) -> list[ms.Type]:
    """Return what a type is directly made of."""
    if isinstance(shape, (ms.StructType, ms.DataclassType, ms.TypedDictType, ms.NamedTupleType)):
        return [field.type for field in shape.fields]
    if isinstance(shape, (ms.ListType, ms.VarTupleType, ms.SetType, ms.FrozenSetType)):
        return [shape.item_type]
    if isinstance(shape, ms.TupleType):
        return list(shape.item_types)
    if isinstance(shape, ms.DictType):
        return [shape.key_type, shape.value_type]
    if isinstance(shape, ms.UnionType):
        return list(shape.types)
    return [shape.type] if isinstance(shape, ms.Metadata) else []


def _check_hashable(shape: ms.Type, what: str) -> None:
    if isinstance(shape, (ms.UnionType, ms.TupleType, ms.Metadata)):
        for part in _parts(shape):
            _check_hashable(part, what)
    elif isinstance(shape, ms.VarTupleType):
        _check_hashable(shape.item_type, what)
    elif not isinstance(shape, _KEYS):
        raise InterfaceError(
            f"{type(shape).__name__.removesuffix('Type')} cannot be {what}: use text, numbers, enums or tuples of them"
        )


def _recursive(shapes: Iterable[ms.Type]) -> bool:
    """Tell whether a type contains itself."""
    return any(_reaches(shape, shape) for shape in shapes if _parts(shape))


def _reaches(start: ms.Type, target: ms.Type) -> bool:
    seen: set[int] = set()
    waiting = _parts(start)
    while waiting:
        each = waiting.pop()
        if each is target:
            return True
        if id(each) not in seen:
            seen.add(id(each))
            waiting += _parts(each)
    return False


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _advice(text: str) -> str:
    """Say what to do about a union whose members look alike on the wire; in other cases nothing."""
    if "union" not in text.lower():
        return ""
    return (
        ": make each a class with `class Name(msgspec.Struct, tag=True)`, whose name then travels with it "
        "(docs/rpc.md, Types)"
    )


def _name(annotation: Any) -> str:
    return getattr(annotation, "__qualname__", None) or str(annotation)
