"""A session of the classic profile where one of version 1 is expected is a type error (row D5)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "packages/mp2p-core/src"

HEAD = """
from mp2p_core import Identity, Node, Peer, open_node
from mp2p_core.classic import ClassicConnection, ClassicIdentity, ClassicKeys, ClassicSession, connect_classic
from mp2p_core.proto.session import Session

def take_peer(peer: Peer) -> None: ...
def take_session(session: Session) -> None: ...
def take_classic(session: ClassicSession) -> None: ...
"""

MISTAKES = [
    "def a(classic: ClassicConnection) -> None: take_peer(classic)",
    "def b(classic: ClassicSession) -> None: take_peer(classic)",
    "def c(classic: ClassicSession) -> None: take_session(classic)",
    "def d(v1: Peer) -> None: take_classic(v1)",
    "def e(v1: Session) -> None: take_classic(v1)",
    "def f(node: Node, classic: ClassicSession) -> None: node.connect(classic)",
    "def g(classic: ClassicIdentity) -> None: open_node(classic)",
    "def h(classic: ClassicKeys) -> None: open_node(classic)",
    "def i(v1: Identity) -> None: ClassicKeys(v1)",
]
RIGHT = "def right(classic: ClassicSession, v1: Session) -> None: take_classic(classic); take_session(v1)"


def test_D5_a_type_checker_refuses_each_mistake(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "case.py").write_text("\n".join([*MISTAKES, RIGHT, HEAD]), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "", "--no-error-summary", "--follow-imports=silent",
         "--cache-dir", str(tmp_path / "cache"), "case.py"],
        cwd=tmp_path, env={"MYPYPATH": str(SOURCE)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    refused = re.findall(r"^case\.py:(\d+): error: .*\[arg-type\]$", found.stdout, re.MULTILINE)
    assert refused == [str(number) for number in range(1, len(MISTAKES) + 1)], found.stdout + found.stderr
    assert len(found.stdout.splitlines()) == len(MISTAKES), found.stdout
