"""Loading transports: one broken plugin is named, and the others load."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint

import pytest

from mp2p_core import transport
from mp2p_core.plugins import load_plugins, load_transports
from mp2p_core.testing.memory import MemoryHub, MemoryTransport


def _plugin(monkeypatch: pytest.MonkeyPatch, name: str, **members: object) -> EntryPoint:
    module = types.ModuleType(name)
    for key, value in members.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return EntryPoint(name, name, "mp2p")


def _hook(*transports: object) -> object:
    @transport.hookimpl
    def mp2p_transports() -> list[object]:
        return list(transports)

    return mp2p_transports


class _Named(MemoryTransport):
    def __init__(self, name: str, api: int = transport.TRANSPORT_API) -> None:
        super().__init__(MemoryHub())
        self.name = name  # type: ignore[misc] # several of one class, told apart
        self.api = api  # type: ignore[misc] # one of another contract version


def _raise() -> list[object]:
    raise RuntimeError("needs a radio")


@transport.hookimpl
def _another_name() -> list[object]:
    return []


def test_each_broken_plugin_is_named_with_its_reason_and_the_others_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = [
        _plugin(monkeypatch, "a_good", mp2p_transports=_hook(_Named("good"))),
        EntryPoint("b_missing", "no_such_module_anywhere", "mp2p"),
        _plugin(monkeypatch, "c_crashes", mp2p_transports=transport.hookimpl(_raise)),
        _plugin(monkeypatch, "d_old", mp2p_transports=_hook(_Named("old", api=0))),
        _plugin(monkeypatch, "e_not_one", mp2p_transports=_hook("a string")),
        _plugin(monkeypatch, "f_twice", mp2p_transports=_hook(_Named("good"))),
        _plugin(monkeypatch, "g_misspelt", mp2p_transport=transport.hookimpl(_another_name)),
        _plugin(monkeypatch, "h_nothing"),
        _plugin(monkeypatch, "i_good", mp2p_transports=_hook(_Named("better"), _Named("best"))),
    ]
    loaded = load_plugins(points)
    assert list(loaded.transports) == ["good", "better", "best"]
    reasons = {
        "b_missing": "no_such_module_anywhere",
        "c_crashes": "needs a radio",
        "d_old": "version 0",
        "e_not_one": "lacks",
        "f_twice": "already provides",
        "g_misspelt": "mp2p_transport",
        "h_nothing": "no function mp2p_transports",
    }
    assert loaded.failures.keys() == reasons.keys()
    for name, words in reasons.items():
        assert words in loaded.failures[name]


def test_a_plugin_of_two_transports_with_one_broken_gives_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_plugins([_plugin(monkeypatch, "half", mp2p_transports=_hook(_Named("fine"), "broken"))])
    assert not loaded.transports
    assert "half" in loaded.failures


def test_installed_transports_are_looked_up_once() -> None:
    assert load_transports() is load_transports()
