"""Keep identities in files (protocol section 2).

Interface: `load_identity`, `create_identity`, `load_or_create_identity`, `save_identity`, `export_pem`,
`import_pem`, `load_psk`, and `TimestampStore` for the timestamps of INIT. Errors: `KeyFileError`, each with the cure.

A key file is four lines of ASCII, each ended by a line feed, and nothing else:

    mp2p-key-file 1         format version
    profile v1              "v1", or "classic" for the original implementation's wire (section 10)
    public <64 hex digits>  Ed25519 public key, so that a damaged seed is noticed
    seed <64 hex digits>    Ed25519 private seed (RFC 8032, section 5.1.5): the secret
"""

from __future__ import annotations

import enum
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mp2p_core.errors import KeyFileError
from mp2p_core.private_files import quoted, read_private_file, write_private_file
from mp2p_core.proto.identity import Identity

if TYPE_CHECKING:
    from mp2p_core.transport import RandomBytes

__all__ = [
    "KeyProfile",
    "TimestampStore",
    "create_identity",
    "export_pem",
    "import_pem",
    "load_identity",
    "load_or_create_identity",
    "load_psk",
    "save_identity",
]

# The format
_VERSION: Final = 1
_FORM: Final = re.compile(
    rb"mp2p-key-file ([0-9]{1,9})\nprofile ([a-z0-9-]{1,32})\npublic ([0-9a-f]{64})\nseed ([0-9a-f]{64})\n"
)
_PSK_FORM: Final = re.compile(rb"([0-9a-fA-F]{64})\r?\n?")
_MAX_TIMESTAMP: Final = 2**63

# Read at most this much: a key file has 169 bytes, a timestamp file at most 20.
_MAX_FILE_SIZE: Final = 1024


class KeyProfile(enum.Enum):
    """Which wire protocol a key file belongs to. A key of one is never used for the other (rows D4, L4)."""

    V1 = "v1"
    CLASSIC = "classic"


class _Refused(Exception):
    """Carries the reason out of the frames that hold the secret."""


def load_identity(path: str | os.PathLike[str], *, profile: KeyProfile = KeyProfile.V1) -> Identity:
    """Read the identity kept in a key file.

    Blocks for the disk. Raises `KeyFileError` when the file is missing, unsafe (see `read_private_file`),
    damaged, or of another profile or format version.
    """
    try:
        return _load(path, profile)
    except FileNotFoundError:
        reason = f"there is no key file {quoted(path)}: check the name, or make a new key there"
    except _Refused as refusal:
        reason = str(refusal)
    # Raised here, not from there: a report that shows local variables would show the seed.
    raise KeyFileError(reason)


def create_identity(
    path: str | os.PathLike[str], *, profile: KeyProfile = KeyProfile.V1, random: RandomBytes = os.urandom
) -> Identity:
    """Draw a fresh identity and keep it in a new key file, which must not exist yet.

    Blocks for the disk. Of several processes that do this at once, one wins. Raises `KeyFileError`.
    """
    identity = Identity.generate(random)
    save_identity(path, identity, profile=profile)
    return identity


def load_or_create_identity(
    path: str | os.PathLike[str], *, profile: KeyProfile = KeyProfile.V1, random: RandomBytes = os.urandom
) -> Identity:
    """Read the identity kept in a key file, or make the file if there is none.

    Several processes that do this at once get the same identity. Blocks for the disk. Raises `KeyFileError`
    when the file is there and is unsafe or damaged, or cannot be written.
    """
    # A link to nowhere counts as a file that is there, and is refused.
    if os.path.lexists(path):
        return load_identity(path, profile=profile)
    identity = Identity.generate(random)
    try:
        write_private_file(path, _encode(identity, profile), overwrite=False)
    except FileExistsError:
        return load_identity(path, profile=profile)  # another process was faster
    return identity


def load_psk(path: str | os.PathLike[str]) -> bytes:
    """Read a pre-shared key, 32 bytes, from a file of 64 hex digits that is as safe as a key file has to be.

    Blocks for the disk. Raises `KeyFileError` when the file is missing, unsafe (see `read_private_file`) or damaged.
    """
    name = quoted(path)
    try:
        psk = _read_psk(path)
    except FileNotFoundError:
        raise KeyFileError(
            f"there is no file {name} with a pre-shared key: bring it here from another of the devices that share it, "
            f"or make one for all of them with (umask 077; openssl rand -hex 32 >{name})"
        ) from None
    if psk is None:
        raise KeyFileError(f"{name} holds no pre-shared key, which is 64 hex digits and nothing else")
    return psk


def _read_psk(path: str | os.PathLike[str]) -> bytes | None:
    found = _PSK_FORM.fullmatch(read_private_file(path, _MAX_FILE_SIZE))
    return None if found is None else bytes.fromhex(found[1].decode("ascii"))


def save_identity(
    path: str | os.PathLike[str],
    identity: Identity,
    overwrite: bool = False,
    *,
    profile: KeyProfile = KeyProfile.V1,
) -> None:
    """Write a key file with mode 0600, whole or not at all.

    Blocks for the disk. Raises `KeyFileError`, also when something has that name and `overwrite` is False.
    """
    try:
        write_private_file(path, _encode(identity, profile), overwrite=overwrite)
    except FileExistsError:
        raise KeyFileError(
            f"{quoted(path)} exists already and stays as it is: choose another name, or move the old file away"
        ) from None


def export_pem(identity: Identity) -> bytes:
    """Write an identity as unencrypted PKCS#8 PEM (RFC 5958, RFC 8410), as OpenSSL and OpenSSH tools read it.

    It holds the secret: write it with `write_private_file` only.
    """
    # Here, because loading it takes a tenth of the time that importing all of mp2p takes.
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 (see above)
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.from_private_bytes(identity.seed())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def import_pem(pem: bytes) -> Identity:
    """Read an identity from unencrypted PKCS#8 PEM. Raises `KeyFileError`."""
    # As in export_pem.
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 (see there)

    reason = "this PEM text is damaged, or is no private key: export the key again as PKCS#8 PEM"
    try:
        key = load_pem_private_key(pem, password=None)
        if isinstance(key, Ed25519PrivateKey):
            return Identity.from_seed(key.private_bytes_raw())
        reason = "this PEM text holds a key of another kind: mp2p needs an Ed25519 private key"
    except TypeError:
        reason = (
            "this PEM text is encrypted: decrypt it first, for example with `openssl pkey -in FILE -out NEW`"
        )
    except UnsupportedAlgorithm:
        reason = "this PEM text holds a key of an unknown kind: mp2p needs an Ed25519 private key"
    except ValueError:
        pass  # and nothing of its text, which may quote the input
    del pem
    raise KeyFileError(reason)


def _encode(identity: Identity, profile: KeyProfile) -> bytes:
    return (
        f"mp2p-key-file {_VERSION}\nprofile {profile.value}\n"
        f"public {identity.public.raw.hex()}\nseed {identity.seed().hex()}\n"
    ).encode("ascii")


def _load(path: str | os.PathLike[str], profile: KeyProfile) -> Identity:
    name = quoted(path)
    data = read_private_file(path, _MAX_FILE_SIZE)
    form = _FORM.fullmatch(data)
    if form is None:
        raise _Refused(_explain(data, name))
    version, found, public, seed = form.groups()
    if int(version) != _VERSION:
        raise _Refused(_other_version(name, version))
    if found != profile.value.encode("ascii"):
        raise _Refused(
            f"{name} holds a key of profile {found.decode('ascii')!r}, and {profile.value!r} is needed here: the two "
            "protocols never share a key. Name another file, or make a new key"
        )
    identity = Identity.from_seed(bytes.fromhex(seed.decode("ascii")))
    if identity.public.raw != bytes.fromhex(public.decode("ascii")):
        raise _Refused(f"{name} is damaged: its public key does not fit its seed. Restore it from a backup")
    return identity


def _other_version(name: str, version: bytes) -> str:
    return (
        f"{name} has format version {int(version)}, and this mp2p reads version {_VERSION}: "
        "update mp2p, or make a new key"
    )


def _explain(data: bytes, name: str) -> str:
    """Say why a key file does not parse, without a word of its contents."""
    if not data:
        return f"{name} is empty: restore it from a backup, or delete it and make a new key"
    if data.startswith(b"-----BEGIN "):
        return f"{name} is a PEM file: import it into a key file first"
    header = re.match(rb"mp2p-key-file ([0-9]{1,9})\n", data)
    if header is None:
        return f"{name} is no key file of mp2p: its first line is not 'mp2p-key-file {_VERSION}'. Name another file"
    if int(header[1]) != _VERSION:
        return _other_version(name, header[1])
    lines = data.split(b"\n")
    if b"\r" in data:
        what = "its lines end as on Windows: convert it with `dos2unix`, or restore it"
    elif len(lines) < 5:
        what = "it is cut short: restore it"
    elif len(lines) > 5 or lines[4]:
        what = "something follows its four lines: restore it"
    else:
        what = "a line is not as it should be: restore it"
    return f"{name} is damaged: {what} from a backup"


class TimestampStore:
    """Hands out the rising timestamps of INIT, and remembers the last one across restarts (section 4, row K7).

    `path` is the key file; the timestamp is kept beside it in a file of the same name with `.time` added.
    With None it is kept in memory only. Best effort, because a responder lets a peer in without it after
    one more round trip: nothing is raised when the file cannot be read or written, and `warning` then says
    what to do.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = None if path is None else Path(f"{os.fspath(path)}.time")
        self._last = 0
        self.warning: str | None = None

    def next(self, now_us: int) -> int:
        """Return a timestamp above all earlier ones, `now_us` if that is (microseconds since 1970).

        Another process that shares the key file is taken into account, as far as it has written. Blocks
        for the disk, without waiting for the data to reach it. Never raises.
        """
        self.warning = None
        if self._path is not None:
            self._last = max(self._last, self._read(self._path))
        self._last = max(now_us, self._last + 1)
        if self._path is not None:
            self._write(self._path, self._last)
        return self._last

    def _read(self, path: Path) -> int:
        try:
            text = read_private_file(path, _MAX_FILE_SIZE)
        except FileNotFoundError:
            return 0  # nothing kept yet, or lost: both are as usual
        except KeyFileError as error:
            self.warning = f"the timestamp kept for this key is ignored: {error}"
            return 0
        if not re.fullmatch(rb"[0-9]{1,19}\n", text) or int(text) > _MAX_TIMESTAMP:
            self.warning = f"the timestamp kept for this key is damaged and was written anew: {quoted(path)}"
            return 0
        return int(text)

    def _write(self, path: Path, value: int) -> None:
        try:
            write_private_file(path, b"%d\n" % value, overwrite=True, durable=False)
        except KeyFileError as error:
            self.warning = (
                "the timestamp for this key cannot be kept, so that connecting after a restart may take one more "
                f"round trip: {error}"
            )
