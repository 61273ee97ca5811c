"""The mutation script has not rotted: every text that it replaces is in the source exactly once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mp2p_mutation", Path(__file__).with_name("mutation.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _load()


@pytest.mark.parametrize("mutation", script.MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_text_to_replace_is_there_exactly_once(mutation: script.Mutation) -> None:  # type: ignore[name-defined]  # loaded by path
    text = mutation.source.read_text()
    assert text.count(mutation.old) == 1
    assert mutation.old != mutation.new
    compile(text.replace(mutation.old, mutation.new), mutation.file, "exec")


def test_names_are_unique_and_the_tests_exist() -> None:
    names = [mutation.name for mutation in script.MUTATIONS]
    assert len(names) == len(set(names))
    for mutation in script.MUTATIONS:
        assert {path.stem.removeprefix("test_") for path in mutation.paths} == {
            *mutation.tests.partition(":")[0].split()
        }
