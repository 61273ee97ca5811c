"""Being found: what is announced is a claim, and reading it does no harm. The network is in tests/network."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mp2p
from mp2p import discovery

KEY = mp2p.Identity.from_seed(bytes(32)).public
CONTACT = mp2p.Contact(KEY, (("v4", "224.0.230.7:2000"),))


def test_what_is_announced_is_read() -> None:
    found = discovery.read_untrusted("garage", {b"contact": str(CONTACT).encode()})
    assert found == mp2p.Found("garage", CONTACT)


@given(st.text(), st.dictionaries(st.sampled_from([b"contact", b"key"]), st.none() | st.binary()))
def test_anything_else_is_nothing(name: str, properties: dict[bytes, bytes | None]) -> None:
    assert discovery.read_untrusted(name, properties) is None


def test_a_long_name_is_cut() -> None:
    found = discovery.read_untrusted("x" * 500, {b"contact": str(CONTACT).encode()})
    assert found is not None
    assert len(found.name) == 63


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["", "a.b", "x" * 64, "ü" * 32, "\udcff", "a\nb", "\x7f", "_sub"])
async def test_a_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(mp2p.UsageError, match="choose"):
        async with mp2p.announce(cast("Any", None), name):
            pass


@pytest.mark.anyio
async def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    monkeypatch.setattr(discovery, "_addresses", lambda _: ["127.0.0.1"])
    with pytest.raises(mp2p.UsageError, match=r"mp2p\[discovery\]"):
        async with mp2p.discover():
            pass


@pytest.mark.anyio
async def test_without_a_network_it_says_so() -> None:
    with pytest.raises(mp2p.NoMulticast, match="there is no interface of this name"):
        async with mp2p.discover(interfaces=["nowhere0"]):
            pass
