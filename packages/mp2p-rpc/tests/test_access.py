"""`allow=` of `serve`: exact keys, patterns of methods, functions, policies (row C4)."""

from __future__ import annotations

from typing import Any

import pytest

from mp2p_core import BadKey, Contact, ContactError, Identity, UsageError
from mp2p_rpc.access import Allow, admission, policy_for

FRIEND, OTHER, STRANGER = (Identity.from_seed(bytes([number]) * 32).public for number in range(3))


@pytest.mark.parametrize(
    "allow", [[FRIEND], f"mp2p:{FRIEND}", (str(FRIEND), OTHER), {Contact(FRIEND)}, {FRIEND: "*"}], ids=repr
)
def test_C4_the_keys_that_are_named_may_call_everything_and_no_others(allow: Allow) -> None:
    policy = policy_for(allow)
    assert policy.may_connect(FRIEND)
    assert policy.may_call(FRIEND, "Thermostat.set_target")
    assert not policy.may_connect(STRANGER)
    assert not policy.may_call(STRANGER, "Thermostat.set_target")


@pytest.mark.parametrize(
    ("patterns", "may", "may_not"),
    [
        (
            "Thermostat.*",
            ["Thermostat.read", "Thermostat.set"],
            ["Thermostats.read", "Meter.read", "Thermostat", "greet"],
        ),
        (
            ["Thermostat.read", "Meter.*"],
            ["Thermostat.read", "Meter.x"],
            ["Thermostat.reads", "Thermostat.set"],
        ),
        ("gr??t", ["greet"], ["great2", "gret"]),
        ([], [], ["greet", ""]),
        ("", [], ["greet"]),
        ("Thermostat.set*\\n", [], ["Thermostat.set"]),
    ],
)
def test_C4_patterns_match_full_names_as_a_whole(patterns: Any, may: list[str], may_not: list[str]) -> None:
    policy = policy_for({FRIEND: patterns, OTHER: "*"})
    for name in may:
        assert policy.may_call(FRIEND, name), name
    for name in may_not:
        assert not policy.may_call(FRIEND, name), name
        assert policy.may_call(OTHER, name)
    assert not policy.may_call(STRANGER, "greet")


def test_C4_nobody_and_anybody() -> None:
    assert policy_for("any").may_connect(STRANGER)
    assert policy_for("any").may_call(STRANGER, "x")
    assert not policy_for("nobody").may_connect(STRANGER)
    assert not policy_for([]).may_connect(STRANGER)


def test_C4_functions_decide_and_only_true_is_yes() -> None:
    policy = policy_for(lambda key, name: key == FRIEND and name in (None, "x"))
    assert policy.may_connect(FRIEND)
    assert policy.may_call(FRIEND, "x")
    assert not policy.may_call(FRIEND, "y")
    careless = policy_for(lambda _key, _name: 1)  # type: ignore[arg-type,return-value] # the mistake in question
    assert not careless.may_connect(FRIEND)
    assert not careless.may_call(FRIEND, "x")

    async def waits(_key: object, _name: object) -> bool:
        return True

    with pytest.raises(UsageError, match="plain function"):
        policy_for(waits)  # type: ignore[arg-type] # the mistake in question


def test_a_policy_may_change_while_in_use() -> None:
    class Changing:
        def __init__(self) -> None:
            self.keys = {FRIEND}

        def may_connect(self, key: object) -> bool:
            return key in self.keys

        def may_call(self, key: object, method: str) -> bool:
            return key in self.keys and method != "no"

    changing = Changing()
    policy = policy_for(changing)
    assert policy is changing
    assert policy.may_call(FRIEND, "yes")
    changing.keys.clear()
    assert not policy.may_call(FRIEND, "yes")


def test_known_keys_are_what_the_node_admits_and_functions_are_asked() -> None:
    assert admission(policy_for([FRIEND, OTHER])) == [FRIEND, OTHER]
    decide = admission(policy_for("any"))
    assert callable(decide)
    assert decide(STRANGER)


@pytest.mark.parametrize("allow", ["somebody", ["mp2p:short"], {"mp2p:" + "a" * 52: "*"}])
def test_what_is_no_contact_is_refused_at_once(allow: Any) -> None:
    with pytest.raises((ContactError, BadKey)):
        policy_for(allow)
