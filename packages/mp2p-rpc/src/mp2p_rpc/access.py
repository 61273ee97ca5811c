"""Who may call what: the `allow=` of `Node.serve`. Decided for each call by the peer's exact key."""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol, TypeAlias, cast, runtime_checkable

import mp2p_core
from mp2p_core import Contact, PublicKey, UsageError

__all__ = ["Allow", "Key", "Patterns", "Policy", "admission", "policy_for"]

Key: TypeAlias = "str | PublicKey | Contact"
Patterns: TypeAlias = str | Iterable[str]
"""Full names of methods; `*` stands for any text, as in "Thermostat.*"."""


@runtime_checkable
class Policy(Protocol):
    """A decision about keys and methods that may change while it is in use. Asked often: it must be quick."""

    def may_connect(self, key: PublicKey) -> bool:
        """Tell whether this key may have a session at all. The key has not been proved yet."""

    def may_call(self, key: PublicKey, method: str) -> bool:
        """Tell whether this key, which is proved, may call the method of that full name."""


Allow: TypeAlias = (
    Literal["nobody", "any"]
    | str
    | Iterable[Key]
    | Mapping[Key, Patterns]
    | Callable[[PublicKey, str | None], bool]
    | Policy
)
"""`"nobody"`, `"any"`, one contact, several keys or contacts, a mapping of those to patterns of methods, a
function of the key and the method's full name, or a `Policy`.

A function is asked with None as the method when a key wants to connect, before its owner has proved it.
Nothing but True lets anybody in.
"""


class _Patterns:
    """Exact keys, each with the methods it may call."""

    def __init__(self, allowed: Mapping[PublicKey, re.Pattern[str]]) -> None:
        self._allowed = allowed

    @property
    def keys(self) -> list[PublicKey]:
        return list(self._allowed)

    def may_connect(self, key: PublicKey) -> bool:
        return key in self._allowed

    def may_call(self, key: PublicKey, method: str) -> bool:
        pattern = self._allowed.get(key)
        return pattern is not None and pattern.fullmatch(method) is not None


class _Anybody:
    """Every key, for everything."""

    def may_connect(self, _key: PublicKey) -> bool:
        return True

    def may_call(self, _key: PublicKey, _method: str) -> bool:
        return True


OWN: Final = (_Patterns, _Anybody)
"""Policies that answer True or False and never fail. Those of the application may do anything."""


class _Function:
    def __init__(self, decide: Callable[[PublicKey, str | None], bool]) -> None:
        if inspect.iscoroutinefunction(decide):
            raise UsageError("allow= takes a plain function: it is asked where nothing can wait")
        self._decide = decide

    def may_connect(self, key: PublicKey) -> bool:
        return self._decide(key, None) is True

    def may_call(self, key: PublicKey, method: str) -> bool:
        return self._decide(key, method) is True


def policy_for(allow: Allow) -> Policy:
    """Turn `allow=` into a policy. Raises `UsageError`, `ContactError` or `BadKey`."""
    if isinstance(allow, Policy):
        return allow
    if callable(allow):
        return _Function(allow)
    if allow == "any":
        return _Anybody()
    if allow == "nobody":
        return _Patterns({})
    if isinstance(allow, str):
        return _Patterns({_key_of(allow): _pattern("*")})
    if isinstance(allow, Mapping):
        pairs = cast("Mapping[Key, Patterns]", allow)
        return _Patterns({_key_of(key): _pattern(patterns) for key, patterns in pairs.items()})
    return _Patterns({_key_of(key): _pattern("*") for key in allow})


def admission(policy: Policy) -> mp2p_core.Allow:
    """Return who may connect under a policy: the keys, where they are known, so that others learn even less."""
    return policy.keys if isinstance(policy, _Patterns) else policy.may_connect


def _key_of(key: Key) -> PublicKey:
    if isinstance(key, PublicKey):
        return key
    return (key if isinstance(key, Contact) else Contact.parse(key)).key


def _pattern(patterns: Patterns) -> re.Pattern[str]:
    each = [patterns] if isinstance(patterns, str) else list(patterns)
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in each) or r"(?!)")
