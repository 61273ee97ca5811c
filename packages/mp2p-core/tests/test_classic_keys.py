"""Key files of the classic profile, and those of the original (rows D4, K1, K2, K3, L2)."""

from __future__ import annotations

import stat
import traceback
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from mp2p_core.classic import ClassicIdentity, ClassicKeys, load_classic_keys
from mp2p_core.errors import KeyFileError
from mp2p_core.keyfile import KeyProfile, create_identity, load_identity

SEED = b"the seed of an original device.."
PUBLIC = ClassicIdentity(SEED).public.raw
IPV4, IPV6 = IPv4Address("224.0.245.100"), IPv6Address("ff1e:92a8:3287:fe8b:9103:a9e6:26f:73c6")
CONF = IPV4.packed + IPV6.packed + SEED + PUBLIC


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_a_key_file_is_made_on_first_use_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "classic-key"
    made, again = load_classic_keys(path), load_classic_keys(path)
    assert made.identity.public == again.identity.public
    assert made.groups == ()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_identity(path, profile=KeyProfile.CLASSIC).public == made.identity.public


def test_D4_a_key_of_version_1_is_refused_unless_it_is_to_be_shared(tmp_path: Path) -> None:
    path = tmp_path / "key"
    identity = create_identity(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=r"holds a key of version 1.*--share-key"):
        load_classic_keys(path)
    assert load_classic_keys(path, share_key=True).identity.public == identity.public
    assert path.read_bytes() == before


def test_D4_a_classic_key_is_refused_by_version_1_however_it_was_made(tmp_path: Path) -> None:
    load_classic_keys(tmp_path / "key", share_key=True)
    with pytest.raises(KeyFileError, match="holds a key of profile 'classic'"):
        load_identity(tmp_path / "key")
    with pytest.raises(KeyFileError, match="is no key file of mp2p"):
        load_identity(put(tmp_path / "server.conf", CONF))


def test_sharing_changes_nothing_for_a_classic_key(tmp_path: Path) -> None:
    made = load_classic_keys(tmp_path / "key", share_key=True)
    assert load_classic_keys(tmp_path / "key").identity.public == made.identity.public


@pytest.mark.parametrize("name", ["server.conf", "client.conf"])
def test_a_configuration_of_the_original_is_taken_over(tmp_path: Path, name: str) -> None:
    taken_over = load_classic_keys(put(tmp_path / name, CONF))
    assert taken_over.identity.public.raw == PUBLIC
    assert taken_over.groups == (IPV4, IPV6)
    assert (tmp_path / name).read_bytes() == CONF
    assert isinstance(taken_over, ClassicKeys)


@pytest.mark.parametrize("size", [0, 1, 64, 83, 85, 168])
def test_K2_another_length_is_no_configuration(tmp_path: Path, size: int) -> None:
    with pytest.raises(KeyFileError):
        load_classic_keys(put(tmp_path / "server.conf", (CONF * 2)[:size]))


@pytest.mark.parametrize("at", [20, 51, 52, 83])
def test_K3_a_damaged_configuration_is_refused_and_not_quoted(tmp_path: Path, at: int) -> None:
    damaged = CONF[:at] + bytes([CONF[at] ^ 1]) + CONF[at + 1 :]
    with pytest.raises(KeyFileError, match="damaged") as caught:
        load_classic_keys(put(tmp_path / "server.conf", damaged))
    ours = caught.tb.tb_next  # without this test's own locals
    report = traceback.TracebackException(KeyFileError, caught.value, ours, capture_locals=True)
    for word in (SEED, damaged[20:52]):
        assert repr(word)[2:-1] not in "".join(report.format())
    assert "load_classic_keys" in "".join(report.format())


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
def test_K1_a_configuration_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = put(tmp_path / "server.conf", CONF)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_classic_keys(path)
