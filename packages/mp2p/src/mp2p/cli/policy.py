"""What --allow lets peers do, for commands that serve or publish."""

from __future__ import annotations

import mp2p
from mp2p_core.access import Allow, access_for

__all__ = ["policy"]


def policy(allow: Allow, words: list[str]) -> mp2p.Policy:
    """Make a policy of --allow: contacts may do what their entry in the contacts file says, others everything."""
    return _Policy(allow, mp2p.contacts() if "contacts" in words and "any" not in words else None)


class _Policy:
    def __init__(self, allow: Allow, contacts: mp2p.Contacts | None) -> None:
        self._access = access_for(allow)
        self._contacts = contacts

    def may_connect(self, key: mp2p.PublicKey) -> bool:
        return self._access.allows(key)

    def may_call(self, key: mp2p.PublicKey, method: str) -> bool:
        if self._contacts is not None and self._contacts.may_connect(key):
            return self._contacts.may_call(key, method)
        return self._access.allows(key)
