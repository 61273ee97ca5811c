"""What a command finds when its coroutine begins."""

from __future__ import annotations

import gc

from mp2p.cli import supervise


async def _collects() -> int:
    return int(gc.isenabled())


def test_garbage_is_looked_for_from_then_on() -> None:
    gc.disable()  # as the command's entry point does
    try:
        assert supervise.run(_collects) == 1
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_program_of_its_own_keeps_what_it_has_set() -> None:
    assert supervise.run(_collects) == 1
    assert not gc.get_freeze_count()
