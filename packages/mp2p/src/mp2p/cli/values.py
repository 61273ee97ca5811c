"""Values on a command line: from `key=value` to what a method takes, and from results to text.

Types come from the JSON Schema that the peer told (RFC draft 2020-12, as far as msgspec writes it).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from mp2p import UsageError

__all__ = ["as_json", "read_arguments", "read_value"]

_WORDS: Final = {"true": True, "false": False}


def read_arguments(words: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read `key=value` words. Raises `UsageError` naming the argument and what it takes."""
    properties = schema.get("properties", {})
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is no argument: write name=value ({_takes(properties)})")
        if name not in properties:
            raise UsageError(f"the method has no argument {name!r}: it takes {_takes(properties)}")
        if name in found:
            raise UsageError(f"argument {name!r} is given twice")
        found[name] = read_value(text, properties[name], schema, name)
    return found


def read_value(text: str, schema: Any, root: Mapping[str, Any], name: str) -> Any:
    """Read one value as its schema says: text as it stands, numbers and true/false by themselves, the rest as JSON."""
    for kind in _kinds(schema, root):
        if kind == "string":
            return text
        if kind == "bytes":
            try:
                return base64.b64decode(text, validate=True)
            except binascii.Error:
                raise UsageError(f"argument {name!r} takes bytes: write them as base64") from None
        if kind == "boolean" and text in _WORDS:
            return _WORDS[text]
        if kind == "null" and text in ("", "null"):
            return None
        if kind == "integer" and _number(text, int) is not None:
            return int(text)
        if kind == "number" and _number(text, float) is not None:
            return float(text)
        if kind in ("object", "array", "any"):
            try:
                return json.loads(text)
            except ValueError:
                if kind == "any":
                    return text
    kinds = " or ".join(_kinds(schema, root))
    raise UsageError(f"argument {name!r} takes {kinds}, and {text!r} is none")


def as_json(value: object) -> str:
    """Write a result as one line of JSON in ASCII; bytes as base64, keys that JSON does not have as their own JSON."""
    try:
        encoded = msgspec.json.encode(value)
    except TypeError:
        encoded = msgspec.json.encode(_with_keys_of_text(value))
    return json.dumps(json.loads(encoded))


def _with_keys_of_text(value: object) -> object:
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else as_json(key): _with_keys_of_text(each)
            for key, each in value.items()
        }
    return [_with_keys_of_text(each) for each in value] if isinstance(value, list | tuple) else value


def _takes(properties: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}=" for name in properties) or "none"


def _number(text: str, kind: type[int] | type[float]) -> int | float | None:
    try:
        return kind(text)
    except ValueError:
        return None


def _resolve(schema: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow a reference within the document; a description that refers in circles ends as "any"."""
    for _ in range(8):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        definitions = root.get("$defs")
        schema = (
            definitions.get(reference.removeprefix("#/$defs/")) if isinstance(definitions, dict) else None
        )
    return {}


def _kinds(schema: Any, root: Mapping[str, Any]) -> list[str]:
    """List the JSON types that a value may have; text last, since any word would do for it."""
    found: dict[str, None] = {}
    waiting, seen = [schema], set[int]()
    while waiting:
        each = _resolve(waiting.pop(), root)
        if isinstance(choices := each.get("anyOf"), list):
            if id(choices) not in seen:  # attack: choices among themselves, again and again
                seen.add(id(choices))
                waiting += reversed(choices)
        else:
            found[_kind(each)] = None
    return sorted(found or ["any"], key=lambda kind: kind in ("string", "bytes"))


def _kind(schema: Mapping[str, Any]) -> str:
    if isinstance(values := schema.get("enum"), list):
        return "string" if all(isinstance(value, str) for value in values) else "any"
    kind = schema.get("type", "any")
    if kind == "string" and schema.get("contentEncoding") == "base64":
        return "bytes"
    return kind if isinstance(kind, str) else "any"
