"""The contacts file: what it may say, that changes count at once, and the command that writes it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner, Result

import mp2p
from mp2p import contact_file
from mp2p.cli.commands import cli
from mp2p.contact_file import find_contact, read_contacts

KEYS = [mp2p.Identity.from_seed(bytes([n]) * 32).public for n in range(4)]
KEY, OTHER, THIRD, STRANGER = KEYS


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mp2p").mkdir()
    return tmp_path / "mp2p" / "contacts.toml"


def write(path: Path, text: str) -> None:
    """Write the file so that its change is seen, however fast it follows."""
    stamp = path.stat().st_mtime_ns + 1_000_000 if path.exists() else None
    path.write_text(text)
    if stamp is not None:
        os.utime(path, ns=(stamp, stamp))


def test_short_and_long_entries(path: Path) -> None:
    write(
        path,
        f"""
        [contacts]
        garage = "mp2p:{KEY}"
        "the shed" = "{OTHER}"

        [contacts.kitchen]
        key = "{THIRD}"
        addresses = ["v4:224.0.230.7:2000"]
        groups = ["family"]
        methods = ["Thermostat.*"]
        """,
    )
    known = mp2p.contacts()
    assert list(known) == ["garage", "the shed", "kitchen"]
    assert known["garage"] == mp2p.KnownContact("garage", mp2p.Contact(KEY))
    kitchen = known["kitchen"]
    assert str(kitchen.contact) == f"mp2p:{THIRD}?at=v4:224.0.230.7:2000"
    assert (kitchen.groups, kitchen.methods) == (frozenset({"family"}), ("Thermostat.*",))
    assert [known(key) for key in KEYS] == [True, True, True, False]
    assert known.find(THIRD) == kitchen


def test_it_decides_about_methods(path: Path) -> None:
    write(
        path,
        f'[contacts]\ngarage = "{KEY}"\n[contacts.kitchen]\nkey = "{OTHER}"\nmethods = ["Thermostat.get*"]\n',
    )
    known = mp2p.contacts()
    assert isinstance(known, mp2p.Policy)
    assert [known.may_connect(key) for key in (KEY, OTHER, STRANGER)] == [True, True, False]
    assert known.may_call(KEY, "Thermostat.set_target")
    assert known.may_call(OTHER, "Thermostat.get_target")
    assert not known.may_call(OTHER, "Thermostat.set_target")
    assert not known.may_call(STRANGER, "Thermostat.get_target")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (None, "there is no contacts file"),
        (b"", "names nobody"),
        (b"contacts = 3", "names nobody"),
        (b"[contacts", "is not TOML"),
        (b"a = " + 5000 * b"[", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b"[contacts]\ngarage = 3", "garage"),
        (b'[contacts]\ngarage = "mp2p:short"', "garage"),
        (b"[contacts.garage]\nmethods = []", "needs either"),
        (f'[contacts.garage]\nkey = "{KEY}"\ncontact = "{KEY}"'.encode(), "needs either"),
        (f'[contacts.garage]\nkey = "{KEY}"\nmethod = "x"'.encode(), "has 'method'"),
        (f'[contacts.garage]\nkey = "{KEY}"\nmethods = "x"'.encode(), "methods of contact 'garage'"),
        (f'[contacts.garage]\nkey = "{KEY}"\ngroups = [1]'.encode(), "groups of contact 'garage'"),
        (f'[contacts.garage]\nkey = "{KEY}"\naddresses = ["nowhere"]'.encode(), "garage"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(path: Path, text: bytes | None, word: str) -> None:
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(mp2p.UsageError, match=word) as raised:
        read_contacts(path)
    assert str(path) in str(raised.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(mp2p.UsageError, match="cannot be read"):
        read_contacts(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("words", [["list"], ["add", "garage", str(KEY)], ["remove", "garage"]])
def test_a_pipe_or_device_is_refused_and_not_waited_for(tmp_path: Path, words: list[str]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/null", str(tmp_path / "pipe")):
        done = subprocess.run(
            [sys.executable, "-m", "mp2p", "contacts", *words, "--file", name],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name} is not a regular file" in done.stderr


def test_a_folder_that_may_not_be_looked_into_is_no_missing_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", refuse)
        patched.setattr(contact_file, "read_text", refuse)
        for use in (lambda: mp2p.contacts(path), lambda: find_contact("garage")):
            with pytest.raises(mp2p.UsageError, match="cannot be read: Permission denied"):
                use()


def test_changes_count_while_it_is_in_use(path: Path) -> None:
    write(path, f'[contacts]\ngarage = "{KEY}"\n')
    known = mp2p.Contacts(look_every=0)
    assert known(KEY)
    write(path, f'[contacts]\ngarage = "{OTHER}"\n')
    assert (known(KEY), known(OTHER)) == (False, True)


def test_a_mistake_keeps_what_was_known_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, f'[contacts]\ngarage = "{KEY}"\n')
    known = mp2p.Contacts(look_every=0)
    write(path, "[contacts")
    assert [known(KEY) for _ in range(5)] == [True] * 5
    assert [record.message.count("is not TOML") for record in caplog.records] == [1]
    write(path, f'[contacts]\ngarage = "{OTHER}"\n')
    assert not known(KEY)


def test_a_file_that_goes_away_keeps_what_was_known(path: Path) -> None:
    write(path, f'[contacts]\ngarage = "{KEY}"\n')
    known = mp2p.Contacts(look_every=0)
    path.unlink()
    assert known(KEY)


def test_a_file_that_is_not_there_yet_names_nobody_and_may_come(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = mp2p.Contacts(look_every=0)
    assert "mp2p contacts add" in caplog.text
    assert not known(KEY)
    assert len(known) == 0
    write(path, f'[contacts]\ngarage = "{KEY}"\n')
    assert known(KEY)


@pytest.mark.parametrize("options", [(), ("--method", "Thermostat.*")], ids=["a line", "a table"])
def test_removing_the_last_contact_shuts_it_out(
    path: Path, options: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    assert run("add", "garage", str(KEY), *options).exit_code == 0
    known = mp2p.Contacts(look_every=0)
    assert known(KEY)
    assert run("remove", "garage").exit_code == 0
    assert not known(KEY)
    assert not caplog.text
    assert (run("list").exit_code, run("list").stdout) == (0, "")
    assert not mp2p.contacts()(KEY)
    assert "names nobody" in caplog.text
    assert run("add", "shed", str(OTHER)).exit_code == 0
    assert (known(KEY), known(OTHER)) == (False, True)


# --- the command -------------------------------------------------------------------------------------


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["contacts", *words])


def test_add_list_remove_keep_the_comments(path: Path) -> None:
    write(path, f'# mine\n[contacts]\ngarage = "{KEY}"  # the old one\n')
    assert run("add", "shed", f"mp2p:{OTHER}").exit_code == 0
    added = run("add", "kitchen", str(THIRD), "--group", "family", "--method", "Thermostat.*", "--json")
    assert json.loads(added.stdout)["key"] == str(THIRD)
    assert {"# mine", "# the old one"} <= {
        part.strip() for part in path.read_text().replace('"  #', "\n#").splitlines()
    }
    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    assert [(each["name"], each["key"], each["methods"]) for each in listed] == [
        ("garage", str(KEY), ["*"]),
        ("shed", str(OTHER), ["*"]),
        ("kitchen", str(THIRD), ["Thermostat.*"]),
    ]
    assert run("remove", "garage").exit_code == 0
    assert list(read_contacts(path)) == ["shed", "kitchen"]


def test_add_makes_the_file(path: Path) -> None:
    assert run("add", "garage", str(KEY)).exit_code == 0
    assert read_contacts(path)["garage"].contact.key == KEY


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("add", "garage", str(OTHER)), "--replace"),
        (("add", "new", "nonsense"), "expected"),
        (("remove", "nobody"), "no contact 'nobody'"),
        (("add", "\udcff", str(OTHER)), "not valid UTF-8"),
    ],
)
def test_refusals_leave_the_file_alone(path: Path, words: tuple[str, ...], message: str) -> None:
    write(path, f'[contacts]\ngarage = "{KEY}"\n')
    before = path.read_bytes()
    result = run(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert path.read_bytes() == before


def test_replace(path: Path) -> None:
    write(path, f'[contacts]\ngarage = "{KEY}"\n')
    assert run("add", "garage", str(OTHER), "--replace").exit_code == 0
    assert read_contacts(path)["garage"].contact.key == OTHER


def test_a_file_that_is_not_toml_is_left_alone(path: Path) -> None:
    write(path, "[contacts")
    assert run("add", "garage", str(KEY)).exit_code == 2
    assert path.read_text() == "[contacts"


def test_commands_take_a_name_for_a_contact(path: Path) -> None:
    with pytest.raises(mp2p.ContactError):
        find_contact("garage")
    write(path, f'[contacts]\ngarage = "mp2p:{KEY}"\n')
    assert find_contact("garage") == mp2p.Contact(KEY)
    assert find_contact(str(OTHER)) == mp2p.Contact(OTHER)
    with pytest.raises(mp2p.ContactError, match=r"'shed' is no contact, and no name in .*contacts\.toml"):
        find_contact("shed")
    with pytest.raises(mp2p.ContactError, match="does not read"):
        find_contact("mp2p:garage")
