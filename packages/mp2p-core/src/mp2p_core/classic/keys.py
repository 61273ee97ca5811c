"""Key files of the classic profile, and the configuration files of the original implementation.

A key file of ours is that of `mp2p_core.keyfile` with the profile "classic". The original keeps, in
`server.conf` and `client.conf`, 84 bytes:

     0  4 IPv4 group
     4 16 IPv6 group
    20 64 private key: Ed25519 seed 32, public key 32
"""

from __future__ import annotations

import enum
import os
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

from mp2p_core.classic.identity import ClassicIdentity
from mp2p_core.errors import KeyFileError
from mp2p_core.keyfile import KeyProfile, load_identity, load_or_create_identity
from mp2p_core.private_files import quoted, read_private_file

__all__ = ["ClassicKeys", "load_classic_keys"]

_CONF_SIZE: Final = 84
_LIMIT: Final = 1024


class ClassicKeys(NamedTuple):
    """An identity, and the groups that the original implementation listened on with it, if it was taken over."""

    identity: ClassicIdentity
    groups: tuple[IPv4Address | IPv6Address, ...] = ()


def load_classic_keys(path: str | os.PathLike[str], *, share_key: bool = False) -> ClassicKeys:
    """Read a key file of profile classic, made on first use, or a configuration file of the original.

    A key file of version 1 is refused, unless `share_key` says that one key is to serve both protocols: what
    is learned of it in one then counts in the other. Blocks for the disk. Raises `KeyFileError` when the
    file is unsafe, damaged, cannot be written, or of version 1.
    """
    kind = _kind(path)
    if kind is _Kind.CONF:
        if (taken_over := _take_over(path)) is not None:
            return taken_over
        raise KeyFileError(
            f"{quoted(path)} is damaged: the two halves of its private key do not fit. Restore it from a backup"
        )
    if kind is _Kind.V1:
        if share_key:
            return ClassicKeys(ClassicIdentity(load_identity(path).seed()))
        raise KeyFileError(
            f"{quoted(path)} holds a key of version 1, which the classic profile does not share: name another file, "
            "or say explicitly that this key is to serve both protocols (--share-key)"
        )
    identity = load_or_create_identity(path, profile=KeyProfile.CLASSIC)
    return ClassicKeys(ClassicIdentity(identity.seed()))


class _Kind(enum.Enum):
    CONF = enum.auto()
    V1 = enum.auto()
    OTHER = enum.auto()


def _kind(path: str | os.PathLike[str]) -> _Kind:
    """Tell what a file is from its size or first lines; whether it is whole is for its reader to say."""
    try:
        data = read_private_file(path, _LIMIT)
    except FileNotFoundError:
        return _Kind.OTHER
    if data.startswith(b"mp2p-key-file 1\nprofile v1\n"):
        return _Kind.V1
    return _Kind.CONF if len(data) == _CONF_SIZE else _Kind.OTHER


def _take_over(path: str | os.PathLike[str]) -> ClassicKeys | None:
    """Read a configuration file of the original; None when its key is damaged.

    Raises nothing of its own: a report that shows local variables would show the secret.
    """
    data = read_private_file(path, _LIMIT)
    identity = ClassicIdentity(data[20:52])
    if identity.public.raw != data[52:84]:
        return None
    return ClassicKeys(identity, (IPv4Address(data[:4]), IPv6Address(data[4:20])))
