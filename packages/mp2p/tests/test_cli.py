"""The command line itself: options, help, refusals. Nothing here opens a socket."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import mp2p
from mp2p.cli.commands import cli
from mp2p.cli.errors import ExitCode
from mp2p.cli.listen import read_access
from mp2p.cli.ping import Tally

KEY = str(mp2p.Identity.from_seed(bytes(32)).public)
CLASSIC = ["classic send", "classic serve"]
CONTACTS = ["contacts add", "contacts list", "contacts remove"]
NAMES = [
    "bench", "call", "demo", "describe", "discover", "doctor", "id", "listen", "ping", "pub", "receive-file", "send",
    "send-file", "serve", "sub", "top",
]  # fmt: skip


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return CliRunner()


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Walk the tree of commands."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        assert command.name == name
        yield " ".join((*path, name)), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_the_commands() -> None:
    assert sorted(name for name, _ in commands()) == sorted(
        [*NAMES, *CLASSIC, *CONTACTS, "classic", "contacts"]
    )


@pytest.mark.parametrize("name", [*NAMES, *CLASSIC, *CONTACTS])
def test_every_command_has_json_and_help(runner: CliRunner, name: str) -> None:
    result = runner.invoke(cli, [*name.split(), "--help"])
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("demo", "discover", "top")])
def test_shared_options(runner: CliRunner, name: str) -> None:
    text = runner.invoke(cli, [name, "--help"]).stdout
    for option in ("--key", "--transport", "--interface", "--port", "--reach", "--address", "--timeout"):
        assert option in text


@pytest.mark.parametrize("name", CLASSIC)
def test_shared_options_of_the_classic_commands(runner: CliRunner, name: str) -> None:
    text = runner.invoke(cli, [*name.split(), "--help"]).stdout
    for option in ("--ipv4", "--prefix6", "--key", "--share-key", "--interface", "--port", "--reach"):
        assert option in text


def test_help_documents_the_exit_codes(runner: CliRunner) -> None:
    text = runner.invoke(cli, ["--help"]).stdout
    assert [int(code) for code in re.findall(r"^ +(\d+)  ", text, re.MULTILINE)] == sorted(ExitCode)


def test_no_command_is_a_usage_error_with_help(runner: CliRunner) -> None:
    result = runner.invoke(cli, [])
    assert result.exit_code == 2
    assert "Usage: mp2p" in result.stderr
    assert result.stdout == ""


def test_L1_no_option_takes_a_secret() -> None:
    """A command line can be read by every user of the machine: secrets come from files."""
    known_arguments = {
        *((name, "contact") for name in ("bench", "call", "describe", "ping", "send", "send-file", "sub")),
        *(("pub", name) for name in ("topic", "values")),
        ("sub", "pattern"),
        *(("call", name) for name in ("method", "words")),
        ("serve", "targets"),
        ("send", "texts"),
        ("send-file", "files"),
        ("top", "socket"),
        *(("contacts add", name) for name in ("name", "contact")),
        ("contacts remove", "name"),
        *(("classic send", name) for name in ("address", "key_of_server", "text")),
    }
    for name, command in commands():
        for parameter in command.params:
            assert parameter.envvar is None, f"{name} {parameter.name}"
            if isinstance(parameter, click.Argument):
                assert (name, parameter.name) in known_arguments
                continue
            if parameter.name in ("key", "psk"):
                assert isinstance(parameter.type, click.Path), f"--{parameter.name} names a file"
                continue
            words = " ".join(
                [parameter.name or "", *parameter.opts, str(parameter.human_readable_name)]
            ).lower()
            for secret in ("seed", "secret", "private", "password", "passphrase", "psk", "token"):
                assert secret not in words, f"{name} {words}"


def test_L1_key_material_given_as_an_option_is_taken_for_a_file_name(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(cli, ["id", "--json", "--key", "ab" * 32])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["key"] != str(mp2p.Identity.from_seed(b"\xab" * 32).public)
    assert (tmp_path / ("ab" * 32)).is_file()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nonsense"], "No such command"),
        (["id", "--nonsense"], "No such option"),
        (["id", "--port", "80"], "1024<=x<=65535"),
        (["id", "--port", "70000"], "1024<=x<=65535"),
        (["id", "--reach", "moon"], "'host', 'link', 'site', 'global'"),
        (["send"], "CONTACT"),
        (["send", KEY], "TEXT"),
        (["send-file", KEY], "FILE"),
        (["send-file", "garage", "x"], "mp2p:<key>"),
        (["send-file", KEY, "-"], "standard input"),
        (["receive-file", "--allow", "everyone"], "mp2p:<key>"),
        (["ping", KEY, "-c", "0"], "x>=1"),
        (["ping", KEY, "-i", "0"], "above zero"),
        (["ping", KEY, "--timeout", "nan"], "above zero"),
        (["ping", KEY, "--timeout", "inf"], "above zero"),
        (["ping", KEY, "--timeout", "soon"], "number of seconds"),
        (["ping", "garage"], "mp2p:<key>"),
        (["send", "mp2p:", "x"], "mp2p:<key>"),
        (["send", f"mp2p:{KEY[:-1]}", "x"], "mp2p:<key>"),
        (["send", f"mp2p:{KEY}?to=v4:1", "x"], "at="),
        (["listen", "--allow", "everyone"], "mp2p:<key>"),
        (["id", "--transport", "pigeon"], "pigeon"),
        (["serve", ".here:Thermostat"], "MODULE:NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors(runner: CliRunner, arguments: list[str], word: str) -> None:
    result = runner.invoke(cli, arguments)
    assert result.exit_code == 2, result.output
    assert word in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""

    result = runner.invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 2
    assert result.stdout == ""
    error = json.loads(result.stderr)["error"]
    assert error["exit_code"] == 2
    assert word in error["message"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["send-file", KEY, "there", "gone"], "cannot read gone: No such file"),
        (["send-file", KEY, "."], "it is a folder"),
        (["receive-file", "--output", "gone"], "make it first"),
        (["receive-file", "--output", "there"], "is not a folder"),
        (["receive-file", "--output", 300 * "x"], "is not a folder"),
    ],
)
def test_L6_files_are_looked_at_before_anything_else(
    runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").touch()
    result = runner.invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 7
    error = json.loads(result.stderr)["error"]
    assert (error["kind"], error["exit_code"]) == ("FileError", 7)
    assert word in error["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]  # no key was made for it


def test_version(runner: CliRunner) -> None:
    assert re.fullmatch(r"mp2p \d+\.\d+\.\d+\S*\n", runner.invoke(cli, ["--version"]).stdout)


def loaded_by(code: str, *names: str) -> list[str]:
    """Run a program in a fresh interpreter and return which of these modules it has loaded at its end."""
    at_exit = (
        f"import atexit, sys; atexit.register(lambda: print([m for m in {names!r} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{at_exit}\n{code}"], capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    return found


def test_importing_mp2p_loads_nothing_of_the_command() -> None:
    names = ("mp2p_rpc", "click", "rich", "platformdirs", "mp2p.cli")
    assert loaded_by("import mp2p; mp2p.open_node", *names) == ["mp2p_rpc"]


def test_a_command_loads_only_what_it_needs(tmp_path: Path) -> None:
    """A device with a slow processor and storage starts commands from scripts."""
    run = "from mp2p.cli import main; sys.argv = ['mp2p', *{!r}]; main()"
    names = ("click", "anyio", "cryptography", "msgspec", "mp2p_core", "mp2p_rpc", "rich", "mp2p.cli.demo")
    assert loaded_by(run.format(["--version"]), *names) == ["click"]
    own = ["id", "--key", str(tmp_path / "key")]
    assert loaded_by(run.format(own), *names) == ["click", "anyio", "cryptography", "mp2p_core"]


def test_public_names_are_sorted_and_there() -> None:
    assert mp2p.__all__ == sorted(mp2p.__all__)
    for name in mp2p.__all__:
        assert getattr(mp2p, name)
    assert set(mp2p.__all__) <= set(dir(mp2p))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mp2p.nothing  # noqa: B018


def test_a_fault_shows_its_traceback(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mp2p.cli.identity.load_or_create_identity", lambda path: 1 / 0)
    result = runner.invoke(cli, ["id"])
    assert result.exit_code == 1
    assert isinstance(result.exception, ZeroDivisionError)


class TestAccess:
    def test_nobody_by_default(self) -> None:
        assert read_access(())[1] == "nobody"

    def test_keys(self) -> None:
        key = mp2p.PublicKey.parse(KEY)
        names, allow = read_access((KEY, f"mp2p:{KEY}"))
        assert allow == {key}
        assert names(key) is None

    def test_any_wins_and_the_rest_is_still_checked(self) -> None:
        assert read_access((KEY, "any"))[1] == "any"
        with pytest.raises(mp2p.ContactError):
            read_access(("any", "nonsense"))

    def test_contacts_have_names_and_come_beside_keys(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        (tmp_path / "mp2p").mkdir()
        (tmp_path / "mp2p" / "contacts.toml").write_text(f'[contacts]\ngarage = "{KEY}"\n')
        key, other, stranger = (mp2p.Identity.from_seed(bytes([n]) * 32).public for n in (0, 1, 2))
        names, allow = read_access(("contacts", str(other)))
        assert names(key) == "garage"
        assert names(other) is None
        assert callable(allow)
        assert [allow(each) for each in (key, other, stranger)] == [True, True, False]

    def test_contacts_without_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        with pytest.raises(mp2p.UsageError, match="there is no contacts file"):
            read_access(("contacts",))


class TestTally:
    def test_nothing_yet(self) -> None:
        assert Tally().summary() == {"sent": 0, "received": 0, "loss_percent": 0.0, "rtt_ms": None}

    def test_numbers(self) -> None:
        assert Tally(sent=4, rtts=[3.0, 1.0, 2.5]).summary() == {
            "sent": 4,
            "received": 3,
            "loss_percent": 25.0,
            "rtt_ms": {"min": 1.0, "median": 2.5, "max": 3.0},
        }

    def test_all_lost(self) -> None:
        assert Tally(sent=3).summary() == {"sent": 3, "received": 0, "loss_percent": 100.0, "rtt_ms": None}
