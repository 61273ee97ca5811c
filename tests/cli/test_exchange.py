"""`mp2p listen`, `send` and `ping` in processes of their own, on real datagrams."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest


def test_one_message(mp2p: Any, parse_lines: Any) -> None:
    listener, first = mp2p.listen()
    assert first["contact"] == f"mp2p:{first['key']}"
    assert len(first["groups"]) == 1
    assert first["groups"][0].startswith("v4:224.0.")

    done = mp2p.run(
        "send", "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["contact"], "hello there"
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (taken,) = parse_lines(done.stdout)
    assert (taken["event"], taken["number"], taken["to"]) == ("taken", 1, first["key"])
    message = listener.event("message")
    assert (message["from"], message["text"]) == (mp2p.public("sender"), "hello there")
    assert listener.errors() == ""


def test_H14_devices_that_share_a_secret_meet_and_others_do_not(mp2p: Any, tmp_path: Path) -> None:
    secret = tmp_path / "psk"
    secret.touch(0o600)
    secret.write_text("5e" * 32 + "\n")
    listener, first = mp2p.listen("--psk", str(secret))
    send = ("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, "--timeout", "1", first["key"], "hello")
    done = mp2p.run(*send, "--psk", str(secret))
    assert done.returncode == 0, done.stderr
    assert listener.event("message")["text"] == "hello"
    done = mp2p.run(*send)
    assert done.returncode == 3
    assert "both have the same pre-shared key, or neither has one" in done.stderr
    secret.chmod(0o644)
    done = mp2p.run(*send, "--psk", str(secret))
    assert done.returncode == 6
    assert "chmod" in done.stderr
    assert "5e5e" not in done.stderr


def test_messages_keep_their_order_and_their_bytes(mp2p: Any, parse_lines: Any) -> None:
    listener, first = mp2p.listen()
    texts = [
        "one",
        "",
        "  two  ",
        "drei: äöü €",
        "四 👩\u200d🔧",
        "\x1b[31mred\x1b[0m",
        "-- not an option",
        "x" * 1000,
    ]
    done = mp2p.run("send", "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "--", *texts)
    assert done.returncode == 0, done.stderr
    assert [line["number"] for line in parse_lines(done.stdout)] == list(range(1, len(texts) + 1))
    assert [listener.event("message")["text"] for _ in texts] == texts


def test_messages_from_standard_input(mp2p: Any) -> None:
    listener, first = mp2p.listen()
    lines = [f"line {number}" for number in range(200)]
    text = "\n".join(lines[:100]) + "\r\n" + "\n".join(lines[100:])  # the last one without an end
    done = mp2p.run(
        "send", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "before", "-", "after", text=text
    )
    assert done.returncode == 0, done.stderr
    assert [listener.event("message")["text"] for _ in range(202)] == ["before", *lines, "after"]


def test_texts_of_up_to_a_mebibyte(mp2p: Any) -> None:
    listener, first = mp2p.listen()
    texts = ["x" * 1100, "é" * 100_000, "y" * (2**20 - 1)]
    send = ("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "-")
    with ThreadPoolExecutor() as pool:  # the listener waits for whoever reads its output
        sent = pool.submit(mp2p.run, *send, text="\n".join(texts))
        assert [listener.event("message")["text"] for _ in texts] == texts
        assert sent.result().returncode == 0, sent.result().stderr


def test_a_text_that_does_not_fit_is_refused_before_anything_is_sent_of_it(mp2p: Any, error_of: Any) -> None:
    _, first = mp2p.listen()
    send = ("send", "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["key"], "-")
    done = mp2p.run(*send, text="x" * 2**20)
    assert done.returncode == 2
    assert "1048576 bytes" in error_of(done)["message"]
    assert "several texts" in error_of(done)["message"]
    assert "mp2p send-file" in error_of(done)["message"]
    assert done.stdout == ""


def test_several_senders_at_once(mp2p: Any) -> None:
    listener, first = mp2p.listen()
    senders = [
        mp2p.start("send", "--json", "--key", mp2p.key(f"sender{number}"), *mp2p.LOCAL, first["key"], *"abc")
        for number in range(3)
    ]
    assert [sender.wait() for sender in senders] == [0, 0, 0]
    messages = [listener.event("message") for _ in range(9)]
    by_sender: dict[str, list[str]] = {}
    for message in messages:
        by_sender.setdefault(message["from"], []).append(message["text"])
    assert list(by_sender.values()) == [["a", "b", "c"]] * 3


def test_plain_text_when_piped(mp2p: Any) -> None:
    listener = mp2p.start("listen", "--key", mp2p.key("listener"), "--allow", "any", *mp2p.LOCAL)
    words = dict(word.split("=", 1) for word in listener.line().removeprefix("listening ").split(" "))
    assert words["contact"] == f"mp2p:{words['key']}"
    assert words["groups"].startswith("v4:224.0.")
    done = mp2p.run(
        "send", "--key", mp2p.key("sender"), *mp2p.LOCAL, words["contact"], "hi\x1b[31m\nforged line"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("taken  message 1  ")
    assert listener.line().endswith("  hi\\x1b[31m\\x0aforged line")  # row L5


def test_a_random_group_goes_by_contact(mp2p: Any) -> None:
    listener, first = mp2p.listen("--address", "random")
    assert "?at=v4:224.0." in first["contact"]
    send = ("send", "--key", mp2p.key("sender"), *mp2p.LOCAL)
    assert mp2p.run(*send, first["contact"], "found").returncode == 0
    assert listener.event("message")["text"] == "found"
    assert mp2p.run(*send, "--timeout", "0.7", first["key"], "lost").returncode == 3


@pytest.mark.parametrize("where", [("--port", "2000"), ("--address", "v4:224.0.230.7:3000")])
def test_another_port_or_group_goes_by_contact(mp2p: Any, where: tuple[str, ...]) -> None:
    listener, first = mp2p.listen(*where)
    assert f"?at={first['groups'][0]}" in first["contact"]
    done = mp2p.run("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["contact"], "found")
    assert done.returncode == 0, done.stderr
    assert listener.event("message")["text"] == "found"


class TestAccess:
    def send(self, mp2p: Any, contact: str) -> int:
        done = mp2p.run("send", "--key", mp2p.key("sender"), *mp2p.LOCAL, "--timeout", "0.8", contact, "x")
        return int(done.returncode)

    def test_nobody_by_default_and_it_says_so(self, mp2p: Any) -> None:
        listener = mp2p.start("listen", "--json", "--key", mp2p.key("listener"), *mp2p.LOCAL)
        contact = listener.event("listening")["contact"]
        assert self.send(mp2p, contact) == 3
        assert listener.end() == 130
        assert "--allow" in json.loads(listener.errors())["warning"]["message"]

    def test_one_key(self, mp2p: Any) -> None:
        listener, first = mp2p.listen(allow=mp2p.public("sender"))
        assert self.send(mp2p, first["contact"]) == 0
        assert listener.event("message")["text"] == "x"

    def test_another_key(self, mp2p: Any, error_of: Any) -> None:
        _, first = mp2p.listen(allow=mp2p.public("sender"))
        done = mp2p.run(
            "send",
            "--json",
            "--key",
            mp2p.key("stranger"),
            *mp2p.LOCAL,
            "--timeout",
            "0.8",
            first["contact"],
            "x",
        )
        error = error_of(done)
        assert (done.returncode, error["kind"], error["stage"]) == (3, "PeerUnreachable", "nothing heard")
        assert error["tried"] == [f"{first['groups'][0].replace(':', ' ', 1)} on lo"]
        for cause in ("running", "key", "allows", "firewall", "multicast"):
            assert cause in error["message"]

    def test_contacts_by_name(self, mp2p: Any) -> None:
        mp2p.config.mkdir(parents=True)
        (mp2p.config / "contacts.toml").write_text(
            f'[contacts]\n"the \\u001b[31mshed" = "{mp2p.public("sender")}"\n'
        )
        listener, first = mp2p.listen(allow="contacts")
        assert self.send(mp2p, first["contact"]) == 0
        message = listener.event("message")
        assert (message["name"], message["text"]) == ("the \x1b[31mshed", "x")

    def test_contacts_without_a_file(self, mp2p: Any) -> None:
        done = mp2p.run("listen", "--allow", "contacts", *mp2p.LOCAL)
        assert done.returncode == 2
        assert "contacts.toml" in done.stderr
        assert "[contacts]" in done.stderr


def test_the_key_of_somebody_else(mp2p: Any, error_of: Any) -> None:
    """The group is right and the key is not: whoever listens there stays silent."""
    _, first = mp2p.listen()
    contact = f"mp2p:{mp2p.public('other')}?at={first['groups'][0]}"
    done = mp2p.run(
        "send", "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL, "--timeout", "0.8", contact, "x"
    )
    assert done.returncode == 3
    assert error_of(done)["stage"] == "nothing heard"
    assert "its key is the one in the contact" in error_of(done)["message"]


@pytest.mark.parametrize("command", [("send", "{}", "x"), ("ping", "{}")], ids=["send", "ping"])
def test_ones_own_contact(mp2p: Any, command: tuple[str, ...], error_of: Any) -> None:
    words = [word.format(mp2p.public("sender")) for word in command]
    done = mp2p.run(*words, "--json", "--key", mp2p.key("sender"), *mp2p.LOCAL)
    assert done.returncode == 2
    assert "your own" in error_of(done)["message"]


class TestPing:
    def test_numbers(self, mp2p: Any, parse_lines: Any) -> None:
        _, first = mp2p.listen()
        done = mp2p.run(
            "ping", "--json", "--key", mp2p.key("pinger"), *mp2p.LOCAL, first["key"], "-c", "3", "-i", "0.01"
        )
        assert done.returncode == 0, done.stderr
        connected, *replies, summary = parse_lines(done.stdout)
        assert connected["key"] == first["key"]
        assert connected["handshake_ms"] > 0
        assert [(reply["event"], reply["number"]) for reply in replies] == [("reply", n) for n in (1, 2, 3)]
        rtts = [reply["rtt_ms"] for reply in replies]
        assert (summary["sent"], summary["received"], summary["loss_percent"]) == (3, 3, 0)
        assert summary["rtt_ms"] == {"min": min(rtts), "median": sorted(rtts)[1], "max": max(rtts)}
        assert summary["handshake_ms"] == connected["handshake_ms"]

    def test_words(self, mp2p: Any) -> None:
        _, first = mp2p.listen()
        done = mp2p.run("ping", "--key", mp2p.key("pinger"), *mp2p.LOCAL, first["key"], "-c", "1")
        assert done.returncode == 0
        for word in ("handshake", "reply  1", "0 % loss", "min / median / max"):
            assert word in done.stdout

    def test_nobody_there(self, mp2p: Any, error_of: Any) -> None:
        nobody = mp2p.public("nobody")
        done = mp2p.run(
            "ping", "--json", "--key", mp2p.key("pinger"), *mp2p.LOCAL, "--timeout", "0.7", nobody
        )
        assert done.returncode == 3
        assert error_of(done)["kind"] == "PeerUnreachable"
        assert done.stdout == ""

    def test_a_peer_that_stops_answering(self, mp2p: Any, parse_lines: Any) -> None:
        listener, first = mp2p.listen()
        pinger = mp2p.start(
            *("ping", "--json", "--key", mp2p.key("pinger"), *mp2p.LOCAL, first["key"]),
            *("--timeout", "0.5", "-c", "2", "-i", "0.01"),
        )
        pinger.event("connected")
        listener.process.send_signal(signal.SIGSTOP)
        try:
            events = [pinger.event() for _ in range(3)]
            assert events[-1]["event"] == "summary"
            assert pinger.wait() == (3 if events[-1]["received"] == 0 else 0)
            assert events[-1]["sent"] == 2
        finally:
            listener.process.send_signal(signal.SIGCONT)


class TestLocalTrouble:
    """Row L3 and the rest of what is wrong on this side, each with a message that says what to do."""

    @pytest.mark.parametrize(
        ("arguments", "word"),
        [
            (("--address", "v4:224.0.0.5"), "224.0.224.0"),
            (("--address", "v4:239.1.2.3"), "224.0.224.0"),
            (("--address", "v4:10.0.0.1"), "224.0.224.0"),
            (("--address", "v4:224.0.230.7:53"), "1024"),
            (("--address", "v4:nonsense"), "nonsense"),
            (("--address", "v6:[ff02::1]:1024"), "ff"),
            (("--address", "v6:[ff0e::8000:1]:1024"), "ff"),
            (("--address", "v6:[ff3e:41:2001:db8::8000:1]:1024"), "64"),
            (("--address", "224.0.230.7", "--port", "2000"), "port"),
            (("--address", "v6:[ff1f::8000:1]:1024"), "ff"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )
    def test_L3_addresses_outside_the_rules(
        self, mp2p: Any, error_of: Any, arguments: tuple[str, ...], word: str
    ) -> None:
        done = mp2p.run(
            "listen", "--json", "--interface", "lo", "--allow", "any", "--reach", "host", *arguments
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert done.stdout == ""
        assert word in error_of(done)["message"]

    def test_L3_a_peer_of_narrower_reach_is_called_with_that_reach_only(
        self, mp2p: Any, error_of: Any
    ) -> None:
        key = json.loads(
            mp2p.run("id", "--json", "--key", mp2p.key("peer"), "--reach", "link", "--transport", "v4").stdout
        )
        assert "?at=v4:239.255." in key["contact"]
        done = mp2p.run(
            "send",
            "--json",
            "--key",
            mp2p.key("sender"),
            *mp2p.LOCAL[:4],
            "--reach",
            "host",
            key["contact"],
            "x",
        )
        assert done.returncode == 2
        assert "reach" in error_of(done)["message"]

    def test_unknown_transport(self, mp2p: Any, error_of: Any) -> None:
        done = mp2p.run("listen", "--json", "--transport", "pigeon")
        assert done.returncode == 2
        assert error_of(done)["kind"] == "TransportError"
        assert "v4" in error_of(done)["message"]

    @pytest.mark.parametrize("transport", ["v4", "v6"])
    def test_no_such_interface(self, mp2p: Any, error_of: Any, transport: str) -> None:
        done = mp2p.run(
            "listen", "--json", "--transport", transport, "--interface", "nosuch0", "--reach", "host"
        )
        assert done.returncode == 5
        assert error_of(done)["kind"] == "NoMulticast"
        assert "nosuch0" in error_of(done)["message"]

    def test_one_interface_of_two_is_of_no_use(self, mp2p: Any) -> None:
        listener = mp2p.start("listen", "--json", *mp2p.LOCAL, "--allow", "any", "--interface", "nosuch0")
        listener.event("listening")
        assert listener.end() == 130
        assert "nosuch0" in json.loads(listener.errors())["warning"]["message"]

    def test_port_taken(self, mp2p: Any, error_of: Any) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unfriendly:
            unfriendly.bind(("0.0.0.0", 0))
            port = unfriendly.getsockname()[1]
            done = mp2p.run("listen", "--json", *mp2p.LOCAL, "--port", str(port))
        assert done.returncode == 5
        assert error_of(done)["kind"] == "PortTaken"
        assert error_of(done)["port"] == port
        assert "ss -ulpn" in error_of(done)["message"]

    def test_a_malformed_contact(self, mp2p: Any, error_of: Any) -> None:
        done = mp2p.run("send", "--json", *mp2p.LOCAL, "mp2p:tooshort", "x")
        assert done.returncode == 2
        assert error_of(done)["kind"] == "ContactError"
        assert "mp2p:<key>" in error_of(done)["message"]

    def test_a_configuration_folder_that_cannot_be_made(self, mp2p: Any, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("a file where a folder should be")
        done = mp2p.run("listen", *mp2p.LOCAL)
        assert done.returncode == 6
        assert str(tmp_path / "config") in done.stderr


def test_a_subscriber_that_hears_nothing_says_why(mp2p: Any) -> None:
    listener, first = mp2p.listen()
    subscriber = mp2p.start("sub", "--key", mp2p.key("sender"), *mp2p.LOCAL, first["contact"], "weather/*")
    assert subscriber.line().startswith("subscribed")
    for ends, words in ((False, "nothing has come yet"), (True, "the connection to the publisher has ended")):
        if ends:
            listener.end(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while words not in subscriber.errors():  # a file: nothing tells that it has grown
            assert time.monotonic() < deadline, subscriber.errors()
            time.sleep(0.1)
    assert "'weather/*'" in subscriber.errors()
    assert subscriber.end(signal.SIGINT) == 130
