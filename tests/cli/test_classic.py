"""`mp2p classic serve` and `send`, on the loopback interface (rows D4, L3, L4, L5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click import ClickException

from mp2p.cli.commands import cli
from mp2p.cli.errors import explain
from mp2p_core.classic import ClassicIdentity, load_classic_keys
from mp2p_core.errors import UsageError
from mp2p_core.keyfile import KeyProfile, load_identity

LOCAL = ("--ipv4", "--interface", "lo", "--reach", "host", "--json")
SOMEBODY = ClassicIdentity(b"s" * 32).public.raw.hex()
SERVE = ("classic", "serve", *LOCAL)
SEND = ("classic", "send", "224.0.230.7", SOMEBODY, "hello", *LOCAL)


def warnings(parse_lines: Any, text: str) -> list[str]:
    return [line["warning"]["message"] for line in parse_lines(text) if "warning" in line]


def test_a_message_and_its_answer(mp2p: Any, parse_lines: Any) -> None:
    server = mp2p.start(*SERVE)
    first = server.event("listening")
    assert set(first) == {"event", "address", "port", "key"}
    assert first["address"].startswith("224.0.")
    assert first["port"] == 1024
    assert first["key"] == load_classic_keys(mp2p.config / "classic-key").identity.public.raw.hex()

    done = mp2p.run(
        *("classic", "send", first["address"], first["key"], "bell \a", "--key", mp2p.key("client")), *LOCAL
    )
    assert done.returncode == 0, done.stderr
    session, sent, answer = parse_lines(done.stdout)
    assert (session["event"], session["to"]) == ("session", first["key"])
    assert sent == {"event": "sent", "number": 1}
    assert (answer["event"], answer["number"], answer["text"]) == ("answer", 1, "received")
    assert answer["rtt_ms"] > 0

    message = server.event("message")
    client = load_identity(mp2p.key("client"), profile=KeyProfile.CLASSIC).public.raw.hex()
    assert message == {"event": "message", "from": client, "session": session["session"], "text": "bell \a"}
    for errors in (server.errors(), done.stderr):
        (warning,) = warnings(parse_lines, errors)
        assert "no protection against replays" in warning
    assert server.end() == 130


def test_L5_words_for_people_are_escaped_and_loop_goes_on(mp2p: Any) -> None:
    local = LOCAL[:-1]
    server = mp2p.start("classic", "serve", *local, "--port", "1029")
    words = dict(word.split("=") for word in server.line().split()[1:])
    sender = mp2p.start(
        *("classic", "send", f"{words['address']}:1029", words["key"], "bell \a", "--loop", *local),
        *("--key", mp2p.key("client")),
    )
    assert sender.line().startswith("session")
    for number in (1, 2):
        assert sender.line() == f"sent     message {number}"
        assert sender.line().startswith(f"answer   message {number}")
        assert server.line().endswith(r"  bell \x07")
    assert sender.end() == 130


@pytest.mark.parametrize("command", [SERVE, SEND], ids=["serve", "send"])
def test_D4_L4_every_start_warns_and_a_key_of_version_1_is_refused_without_the_flag(
    mp2p: Any, error_of: Any, parse_lines: Any, command: tuple[str, ...]
) -> None:
    mp2p.public("v1")
    before = Path(mp2p.key("v1")).read_bytes()
    done = mp2p.run(*command, "--key", mp2p.key("v1"))
    assert (done.returncode, done.stdout) == (6, "")
    error = error_of(done)
    assert error["kind"] == "KeyFileError"
    assert "--share-key" in error["message"]
    assert Path(mp2p.key("v1")).read_bytes() == before
    for again in (done, mp2p.run(*command, "--key", mp2p.key("v1"))):
        assert len(warnings(parse_lines, again.stderr)) == 1


def test_D4_the_flag_shares_it(mp2p: Any) -> None:
    public = mp2p.public("v1")
    server = mp2p.start(*SERVE, "--key", mp2p.key("v1"), "--share-key")
    assert server.event("listening")["key"] == load_identity(mp2p.key("v1")).public.raw.hex()
    assert str(load_identity(mp2p.key("v1")).public) == public


def test_D4_version_1_refuses_a_classic_key(mp2p: Any, error_of: Any) -> None:
    load_classic_keys(mp2p.key("classic"))
    for command in (("listen", "--allow", "any"), ("send", f"mp2p:{mp2p.public('peer')}", "x")):
        done = mp2p.run(*command, "--json", "--key", mp2p.key("classic"), *mp2p.LOCAL)
        assert (done.returncode, done.stdout) == (6, "")
        assert "profile 'classic'" in error_of(done)["message"]


def test_a_configuration_of_the_original_is_taken_over(mp2p: Any) -> None:
    seed = b"o" * 32
    path = Path(mp2p.key("server"))
    public = ClassicIdentity(seed).public.raw
    path.write_bytes(bytes([224, 0, 245, 100]) + bytes(16) + seed + public)
    path.chmod(0o600)
    first = mp2p.start(*SERVE, "--key", str(path)).event("listening")
    assert first == {"event": "listening", "address": "224.0.245.100", "port": 1024, "key": public.hex()}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("10.0.0.1", SOMEBODY, "x", "--ipv4"), "IPv4 groups come from"),
        (("224.0.0.1", SOMEBODY, "x", "--ipv4"), "IPv4 groups come from"),
        (("224.0.230.7:53", SOMEBODY, "x", "--ipv4"), "below 1024"),
        (("224.0.230.7", SOMEBODY, "x"), "--ipv4"),
        (("ff1e::1", SOMEBODY, "x", "--ipv4"), "leave out --ipv4"),
        (("ff02::1", SOMEBODY, "x"), "IPv6 groups begin with"),
        (("224.0.230.7", SOMEBODY[:-1], "x", "--ipv4"), "not a public key"),
        (("224.0.230.7", "00" * 32, "x", "--ipv4"), "small order"),
        (("224.0.230.7", SOMEBODY, "x", "--ipv4", "--prefix6"), "choose one"),
        (("224.0.230.7", SOMEBODY, "x", "--ipv4", "--port", "80"), "1024<=x"),
    ],
)
def test_L3_what_cannot_be_right(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises((UsageError, ClickException)) as caught:
        cli.main(["classic", "send", "--reach", "host", *arguments], standalone_mode=False)
    assert words in str(caught.value)
    failure = explain(caught.value)
    assert failure is not None
    assert failure.exit_code == 2


def test_nobody_there(mp2p: Any, error_of: Any) -> None:
    done = mp2p.run(*SEND, "--timeout", "0.1")
    assert done.returncode == 3
    error = error_of(done)
    assert (error["kind"], error["stage"]) == ("PeerUnreachable", "nothing heard")
    assert error["tried"] == ["v4 224.0.230.7:1024"]


def test_a_server_that_lets_others_in(mp2p: Any, error_of: Any) -> None:
    server = mp2p.start(*SERVE, "--allow", SOMEBODY)
    first = server.event("listening")
    done = mp2p.run(
        *("classic", "send", first["address"], first["key"], "x", "--key", mp2p.key("client")),
        *("--timeout", "0.7", *LOCAL),
    )
    assert done.returncode == 3
    assert error_of(done)["stage"] == "nothing heard"


def test_no_command(mp2p: Any) -> None:
    done = mp2p.run("classic")
    assert done.returncode == 2
    assert "serve" in done.stderr
