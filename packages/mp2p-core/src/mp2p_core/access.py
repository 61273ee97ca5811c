"""Who may connect: the `allow=` of a node."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

from mp2p_core.boundary import Boundary
from mp2p_core.contact import Contact, read_contact
from mp2p_core.errors import UsageError
from mp2p_core.proto.identity import PublicKey
from mp2p_core.proto.responder import Access

__all__ = ["AccessPolicies", "Allow", "access_for"]

_log = logging.getLogger("mp2p")

Allow: TypeAlias = (
    Literal["nobody", "any"] | str | Iterable[str | PublicKey | Contact] | Callable[[PublicKey], bool]
)
"""`"nobody"`, `"any"`, one contact, several keys or contacts, or a function that decides about each key.

A function is called with a key whose owner has not proved it yet, so it must be quick and have no effects.
"""


class _Keys:
    """An access list: exact keys, found early by the X25519 key that they map to."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = frozenset(keys)
        self._x25519 = frozenset(key.x25519 for key in self._keys)

    def may_know(self, x25519: bytes) -> bool:
        return x25519 in self._x25519

    def allows(self, key: PublicKey) -> bool:
        return key in self._keys


class _Function:
    """A decision per key. Strangers reach it, at the rate that handshakes are limited to."""

    def __init__(self, decide: Callable[[PublicKey], bool]) -> None:
        if inspect.iscoroutinefunction(decide):
            raise UsageError(
                "allow= takes a plain function: it is asked in the middle of a handshake and cannot wait"
            )
        self._decide = decide
        self._reported = False

    def may_know(self, _x25519: bytes) -> bool:
        return True

    def allows(self, key: PublicKey) -> bool:
        allowed = False
        # The application's own code, run for a stranger's packet: no failure of it may end the node, or let
        # the stranger in.
        with Boundary() as boundary:
            # Nothing but True lets anybody in: what a mistake returns (None, a coroutine) may be truthy.
            allowed = self._decide(key) is True
        if boundary.error is not None and not self._reported:  # once: strangers decide how often this happens
            self._reported = True
            _log.error("the allow= function failed; whoever it fails for is refused", exc_info=boundary.error)
        return allowed


class AccessPolicies:
    """Several policies as one: who any of them lets in, comes in."""

    def __init__(self, first: Access) -> None:
        self._policies = [first]

    def add(self, policy: Access) -> None:
        """Let in whom this one does, too."""
        self._policies.append(policy)

    def remove(self, policy: Access) -> None:
        """Ask this one no more."""
        self._policies.remove(policy)

    def may_know(self, x25519: bytes) -> bool:
        """Tell whether any of them may know this X25519 key."""
        return any(policy.may_know(x25519) for policy in self._policies)

    def allows(self, key: PublicKey) -> bool:
        """Tell whether any of them lets this key in."""
        return any(policy.allows(key) for policy in self._policies)


def access_for(allow: Allow) -> Access:
    """Turn what the application gave as `allow=` into a policy. Raises `ContactError`, `BadKey` or `UsageError`."""
    if allow == "nobody":
        return _Keys(())
    if allow == "any":
        return _Function(lambda _key: True)
    if callable(allow):
        return _Function(allow)
    items = [allow] if isinstance(allow, str) else allow
    if not isinstance(items, Iterable):
        raise UsageError(f'allow={allow!r}: write "nobody", "any", keys or contacts in a list, or a function')
    return _Keys(read_contact(item).key for item in items)
