"""Key files and timestamps (rows K1 to K3, K6, K7, D4), and that no seed shows in an error (row L2)."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from mp2p_core.errors import KeyFileError
from mp2p_core.keyfile import (
    KeyProfile,
    TimestampStore,
    create_identity,
    export_pem,
    import_pem,
    load_identity,
    load_or_create_identity,
    save_identity,
)
from mp2p_core.private_files import write_private_file
from mp2p_core.proto.identity import Identity

SEED = bytes(range(100, 132))
IDENTITY = Identity.from_seed(SEED)
TEXT = (f"mp2p-key-file 1\nprofile v1\npublic {IDENTITY.public.raw.hex()}\nseed {SEED.hex()}\n").encode()

# Waits for the start, then makes a key; prints the public key, or nothing when it was refused.
GENERATOR = """
import sys
from mp2p_core.errors import KeyFileError
from mp2p_core.keyfile import create_identity, load_or_create_identity

make = create_identity if sys.argv[2] == "create" else load_or_create_identity
print("ready", flush=True)
sys.stdin.readline()
try:
    print(make(sys.argv[1]).public)
except KeyFileError as error:
    print(error, file=sys.stderr)
    sys.exit(6)
"""


def put(path: Path, data: bytes) -> Path:
    write_private_file(path, data, overwrite=True)
    return path


def report(error: BaseException) -> str:
    """Everything that a report with local variables would show below the test itself."""
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None:
        described = traceback.TracebackException.from_exception(current, capture_locals=True)
        chain += [str(current), repr(current)]
        for frame in described.stack:
            if Path(frame.filename).name != Path(__file__).name:
                chain += [str(frame.line), *(frame.locals or {}).values()]
        current = current.__cause__ or current.__context__
    return "\n".join(chain)


def assert_hidden(error: BaseException) -> None:
    shown = report(error)
    for form in (SEED.hex(), repr(SEED)[2:-1], SEED.hex()[:16], repr(SEED[:6])[2:-1]):
        assert form not in shown


def test_format_is_four_lines(tmp_path: Path) -> None:
    path = tmp_path / "key"
    save_identity(path, IDENTITY)
    assert path.read_bytes() == TEXT
    assert load_identity(path).seed() == SEED
    assert load_identity(str(path)).public == IDENTITY.public


def test_create_makes_a_new_key_each_time(tmp_path: Path) -> None:
    one, two = create_identity(tmp_path / "one"), create_identity(tmp_path / "two")
    assert one.public != two.public
    assert load_identity(tmp_path / "one").public == one.public
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600
    drawn = create_identity(tmp_path / "three", random=lambda size: SEED[:size])
    assert drawn.public == IDENTITY.public


def test_load_or_create(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key"
    made = load_or_create_identity(path, random=lambda size: SEED[:size])
    assert made.public == IDENTITY.public
    assert load_or_create_identity(path).public == IDENTITY.public
    assert path.read_bytes() == TEXT


def test_load_of_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match=r"there is no key file .*: check the name, or make a new key"):
        load_identity(tmp_path / "key")


def test_K1_unsafe_files_are_refused_and_stay(tmp_path: Path) -> None:
    path, link = put(tmp_path / "key", TEXT), tmp_path / "link"
    link.symlink_to(path)
    path.chmod(0o644)
    for load in (load_identity, load_or_create_identity):
        with pytest.raises(KeyFileError, match="run `chmod 600 ") as caught:
            load(path)
        assert_hidden(caught.value)
        with pytest.raises(KeyFileError, match="symbolic link"):
            load(link)
        with pytest.raises(KeyFileError, match="not a regular file"):
            load(tmp_path)
    assert path.read_bytes() == TEXT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_K1_a_link_to_nowhere_is_not_an_invitation(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(KeyFileError, match="symbolic link"):
        load_or_create_identity(link)
    assert not (tmp_path / "nowhere").exists()


DAMAGED = {
    "empty": (b"", "is empty: restore it from a backup, or delete it"),
    "zeros": (bytes(169), "is no key file of mp2p"),
    "another file": (b"hello\n", "is no key file of mp2p"),
    "PEM": (b"-----BEGIN PRIVATE KEY-----\n", "is a PEM file: import it"),
    "newer version": (
        TEXT.replace(b"file 1", b"file 2"),
        "has format version 2, and this mp2p reads version 1",
    ),
    "version only": (b"mp2p-key-file 7\n", "has format version 7"),
    "endless version": (TEXT.replace(b"file 1", b"file " + b"1" * 10), "is no key file of mp2p"),
    "version 0": (TEXT.replace(b"file 1", b"file 0"), "has format version 0"),
    "last line feed missing": (TEXT[:-1], "is damaged: it is cut short"),
    "cut in the seed": (TEXT[:-20], "is damaged: it is cut short"),
    "last line missing": (TEXT[: TEXT.index(b"seed")], "is damaged: it is cut short"),
    "trailing byte": (TEXT + b"x", "is damaged: something follows"),
    "trailing line": (TEXT + b"\n", "is damaged: something follows"),
    "trailing zero": (TEXT + b"\0", "is damaged: something follows"),
    "twice": (TEXT * 2, "is damaged: something follows"),
    "Windows line ends": (TEXT.replace(b"\n", b"\r\n"), "is no key file of mp2p|lines end as on Windows"),
    "one Windows line end": (TEXT[:-1] + b"\r\n", "lines end as on Windows"),
    "leading space": (b" " + TEXT, "is no key file of mp2p"),
    "byte order mark": (b"\xef\xbb\xbf" + TEXT, "is no key file of mp2p"),
    "UTF-16": (TEXT.decode().encode("utf-16"), "is no key file of mp2p"),
    "no hex": (TEXT.replace(SEED.hex().encode(), b"g" * 64), "a line is not as it should be"),
    "upper case": (
        TEXT.replace(SEED.hex().encode(), SEED.hex().upper().encode()),
        "a line is not as it should",
    ),
    "long seed": (TEXT.replace(b"seed ", b"seed 00"), "a line is not as it should be"),
    "short seed": (TEXT.replace(b"seed 64", b"seed "), "a line is not as it should be"),
    "two spaces": (TEXT.replace(b"seed ", b"seed  "), "a line is not as it should be"),
    "lines swapped": (
        b"".join(TEXT.splitlines(keepends=True)[i] for i in (0, 1, 3, 2)),
        "a line is not as it should be",
    ),
    "binary": (TEXT.replace(SEED.hex().encode(), b"\xff" * 64), "a line is not as it should be"),
    "other public key": (
        TEXT.replace(IDENTITY.public.raw.hex().encode(), Identity.generate().public.raw.hex().encode()),
        "its public key does not fit its seed",
    ),
    "other seed": (
        TEXT.replace(SEED.hex().encode(), SEED.hex()[:-1].encode() + b"0"),
        "does not fit its seed",
    ),
    "too long": (TEXT + bytes(1024), r"too long \(1193 bytes, at most 1024\)"),
}


@pytest.mark.parametrize(("data", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_K2_K3_L2_damaged_files_are_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = put(tmp_path / "key", data)
    for load in (load_identity, load_or_create_identity):
        with pytest.raises(KeyFileError, match=message) as caught:
            load(path)
        assert str(path) in str(caught.value)
        assert_hidden(caught.value)
    assert path.read_bytes() == data


@pytest.mark.parametrize("size", range(0, len(TEXT), 7))
def test_K2_files_cut_anywhere_are_refused(tmp_path: Path, size: int) -> None:
    with pytest.raises(KeyFileError):
        load_identity(put(tmp_path / "key", TEXT[:size]))


def test_K3_every_flipped_bit_of_a_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for bit in range(len(TEXT) * 8):
        data = bytearray(TEXT)
        data[bit // 8] ^= 1 << bit % 8
        write_private_file(path, bytes(data), overwrite=True, durable=False)
        with pytest.raises(KeyFileError):
            load_identity(path)


def test_D4_profiles_never_share_a_key(tmp_path: Path) -> None:
    classic, v1 = tmp_path / "classic", put(tmp_path / "v1", TEXT)
    made = create_identity(classic, profile=KeyProfile.CLASSIC)
    assert load_identity(classic, profile=KeyProfile.CLASSIC).public == made.public
    with pytest.raises(KeyFileError, match="holds a key of profile 'classic', and 'v1' is needed here"):
        load_identity(classic)
    with pytest.raises(KeyFileError, match="holds a key of profile 'v1', and 'classic' is needed here"):
        load_or_create_identity(v1, profile=KeyProfile.CLASSIC)
    with pytest.raises(KeyFileError, match="holds a key of profile 'v9'"):
        load_identity(put(tmp_path / "v9", TEXT.replace(b"profile v1", b"profile v9")))


def test_K6_nothing_is_overwritten_without_being_asked(tmp_path: Path) -> None:
    path = put(tmp_path / "key", TEXT)
    with pytest.raises(KeyFileError, match="exists already and stays as it is: choose another name"):
        create_identity(path)
    with pytest.raises(KeyFileError, match="exists already"):
        save_identity(path, Identity.generate())
    assert path.read_bytes() == TEXT
    other = Identity.generate()
    save_identity(path, other, overwrite=True)
    assert load_identity(path).public == other.public


def generate_at_once(path: Path, how: str, count: int = 4) -> list[tuple[int, str]]:
    """Let several processes make a key in one place at the same moment; return exit codes and outputs."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", GENERATOR, str(path), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    results = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, _ = process.communicate(timeout=60)
        results.append((process.returncode, output.strip()))
    return results


def test_K6_first_use_takes_the_key_of_whoever_was_faster(tmp_path: Path) -> None:
    path = tmp_path / "key"

    def overtaken(size: int) -> bytes:
        save_identity(path, IDENTITY)
        return bytes(size)

    assert load_or_create_identity(path, random=overtaken).public == IDENTITY.public
    assert path.read_bytes() == TEXT


def test_K6_of_several_generators_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key"
    results = generate_at_once(path, "create")
    winners = [output for code, output in results if code == 0]
    assert winners == [str(load_identity(path).public)]
    assert [code for code, _ in results].count(6) == 3
    assert [entry.name for entry in path.parent.iterdir()] == ["key"]


def test_K6_first_uses_at_once_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "key"
    results = generate_at_once(path, "load or create")
    assert results == [(0, str(load_identity(path).public))] * 4


def test_pem_round_trip() -> None:
    pem = export_pem(IDENTITY)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert import_pem(pem).seed() == SEED
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    assert pem == key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def encrypted_pem() -> bytes:
    return Ed25519PrivateKey.from_private_bytes(SEED).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


def x25519_pem() -> bytes:
    return X25519PrivateKey.from_private_bytes(SEED).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem() -> bytes:
    return (
        Ed25519PrivateKey.from_private_bytes(SEED)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


BAD_PEM = {
    "empty": (b"", "damaged, or is no private key"),
    "text": (b"hello", "damaged, or is no private key"),
    "cut": (export_pem(IDENTITY)[:-40], "damaged, or is no private key"),
    "edited": (export_pem(IDENTITY).replace(b"MC4C", b"MC4D"), "damaged, or is no private key"),
    "public": (public_pem(), "damaged, or is no private key"),
    "encrypted": (encrypted_pem(), "is encrypted: decrypt it first, for example with `openssl pkey"),
    "X25519": (x25519_pem(), "holds a key of another kind: mp2p needs an Ed25519"),
    "key file": (TEXT, "damaged, or is no private key"),
}


@pytest.mark.parametrize(("pem", "message"), BAD_PEM.values(), ids=BAD_PEM.keys())
def test_K2_L2_bad_pem_is_refused(pem: bytes, message: str) -> None:
    with pytest.raises(KeyFileError, match=message) as caught:
        import_pem(pem)
    shown = report(caught.value)
    assert_hidden(caught.value)
    assert "MC4" not in shown


@given(st.binary(max_size=300))
def test_K2_any_pem_is_a_key_or_refused(data: bytes) -> None:
    with pytest.raises(KeyFileError):
        import_pem(data)


def test_timestamps_rise(tmp_path: Path) -> None:
    for path in (None, tmp_path / "key"):
        store = TimestampStore(path)
        assert [store.next(now) for now in (1000, 2000, 2000, 5, 0, 3000)] == [
            1000,
            2000,
            2001,
            2002,
            2003,
            3000,
        ]
        assert store.warning is None


def test_timestamps_rise_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert TimestampStore(path).next(10**15) == 10**15
    restarted = TimestampStore(str(path))
    assert restarted.next(5) == 10**15 + 1
    assert restarted.warning is None
    assert stat.S_IMODE((tmp_path / "key.time").stat().st_mode) == 0o600


def test_Y6_two_processes_rise_together(tmp_path: Path) -> None:
    one, two = TimestampStore(tmp_path / "key"), TimestampStore(tmp_path / "key")
    given_out = [store.next(100) for store in (one, two, two, one, two, one)]
    assert given_out == sorted(set(given_out))


def test_K7_lost_state_is_as_usual(tmp_path: Path) -> None:
    store = TimestampStore(tmp_path / "key")
    store.next(1000)
    (tmp_path / "key.time").unlink()
    assert store.next(5) == 1001
    assert store.warning is None
    (tmp_path / "key.time").unlink()
    fresh = TimestampStore(tmp_path / "key")
    assert fresh.next(5) == 5
    assert fresh.warning is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"-5\n",
        b"12",
        b"12\n\n",
        b"1e9\n",
        b"0x10\n",
        b" 12\n",
        b"12\0",
        b"9" * 19 + b"\n",
        b"9" * 30 + b"\n",
    ],
    ids=ascii,
)
def test_K7_damaged_state_is_replaced_with_a_warning(tmp_path: Path, data: bytes) -> None:
    state = put(tmp_path / "key.time", data)
    store = TimestampStore(tmp_path / "key")
    assert store.next(1000) == 1000
    assert store.warning is not None
    assert re.search(r"damaged and was written anew: .*key\.time", store.warning)
    assert state.read_bytes() == b"1000\n"
    assert store.next(1000) == 1001
    assert store.warning is None


def test_K7_unsafe_state_is_ignored_with_a_warning(tmp_path: Path) -> None:
    state = put(tmp_path / "key.time", b"5000\n")
    state.chmod(0o666)
    store = TimestampStore(tmp_path / "key")
    assert store.next(1000) == 1000
    assert store.warning is not None
    assert "ignored" in store.warning
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


def test_K7_unwritable_state_still_rises_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "key.time").mkdir()
    for path in (tmp_path / "file" / "key", tmp_path / "key"):
        store = TimestampStore(path)
        assert [store.next(100), store.next(50)] == [100, 101]
        assert store.warning is not None
        assert "cannot be kept" in store.warning
        assert "cannot be written" in store.warning


def test_K7_a_warning_goes_when_its_cause_does(tmp_path: Path) -> None:
    (tmp_path / "key.time").mkdir()
    store = TimestampStore(tmp_path / "key")
    store.next(100)
    assert store.warning is not None
    (tmp_path / "key.time").rmdir()
    assert store.next(100) == 101
    assert store.warning is None
