"""The driver and its channels: what is optional in the contract is used where it is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mp2p_core.driver import Driver


class Plain:
    """A channel with no upkeep."""


class Maintained:
    def __init__(self) -> None:
        self.maintained = self.silences = 0

    async def maintain(self) -> None:
        self.maintained += 1

    def silent(self) -> None:
        self.silences += 1


def driver(*channels: object) -> Driver:
    opened = [cast("Any", SimpleNamespace(channel=channel)) for channel in channels]
    return Driver(cast("Any", None), opened, lambda: 0.0, lambda _events, _now: False)


@pytest.mark.anyio
async def test_a_channels_upkeep_is_done_where_it_has_any() -> None:
    channel = Maintained()
    both = driver(Plain(), channel)
    for number in range(2):
        await both.maintain(number)
    assert channel.maintained == 1


def test_every_channel_with_upkeep_hears_of_a_silent_peer() -> None:
    channel = Maintained()
    driver(Plain(), channel).silent()
    assert channel.silences == 1
