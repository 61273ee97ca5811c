"""Names of files out of what the network says."""

from __future__ import annotations

import itertools
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mp2p.transfer.names import MAX_BYTES, PART_SUFFIX, numbered, part_name, safe_name

DEVICES = {"con", "prn", "aux", "nul", *(f"{word}{n}" for word in ("com", "lpt") for n in range(10))}
NASTY = st.text(
    st.sampled_from('a.-~/\\ \t\r\n\0\x1b\x7f:*?"<>|con1\u202e\u200d\ufeff\u2028é\u0301😀\ue000\udcff')
)


def check(name: str) -> None:
    assert name
    assert len(name.encode()) <= MAX_BYTES
    assert not set(name) & set('/\\<>:"|?*\0')
    assert not name.startswith((".", "-", "~", " "))
    assert not name.endswith((".", " "))
    assert not name.lower().endswith(PART_SUFFIX)
    assert name.split(".", maxsplit=1)[0].rstrip().lower() not in DEVICES
    assert all(unicodedata.category(each) not in {"Cc", "Cn", "Co", "Cs", "Zl", "Zp"} for each in name)
    assert all(each in "\u200c\u200d" for each in name if unicodedata.category(each) == "Cf")
    assert Path(name).name == name


@given(NASTY | st.text() | st.text(min_size=150, max_size=400))
@example(".")
@example("..")
@example("../../etc/passwd")
@example("a" * 195 + ".part")
@example("x" * 198 + ".é")
@example("nul.part")
@example("x" * 197 + "\xa0é" + "y" * 10)
def test_any_text_gives_a_safe_name_and_a_safe_name_stays(text: str) -> None:
    name = safe_name(text)
    check(name)
    assert safe_name(name) == name


@given(NASTY)
def test_a_safe_name_stays_in_its_folder(text: str) -> None:
    inside = os.path.realpath(os.path.join("/some/folder", safe_name(text)))  # noqa: PTH118 - as text
    assert os.path.dirname(inside) == "/some/folder"  # noqa: PTH120 - as text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("photo.jpg", "photo.jpg"),
        ("Bericht (Entwurf) äöü €.pdf", "Bericht (Entwurf) äöü €.pdf"),
        ("四 👩\u200d🔧.txt", "四 👩\u200d🔧.txt"),
        ("no extension", "no extension"),
        ("a.tar.gz", "a.tar.gz"),
        ("", "unnamed"),
        ("...", "unnamed"),
        ("   ", "unnamed"),
        ("\u200d\u200c", "unnamed"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Windows\\system.ini", "system.ini"),
        ("/etc/", "unnamed"),
        (".bashrc", "_bashrc"),
        ("..hidden", "_hidden"),
        ("-rf", "_-rf"),
        ("~root", "_~root"),
        ("a\nb\x1b[31m\x7f", "a_b_[31m_"),
        ("invoice\u202efdp.exe", "invoice_fdp.exe"),
        ("name. . ", "name"),
        ("CON", "_CON"),
        ("aux.h", "_aux.h"),
        ("Lpt1 .txt", "_Lpt1 .txt"),
        ("com¹", "_com¹"),
        ("console.txt", "console.txt"),
        ('a<b>:c|d?e*f"g', "a_b__c_d_e_f_g"),
        ("x.abc.part", "x.abc.par_"),
        ("x.PART", "x.PAR_"),
        ("e\u0301.txt", "é.txt"),
        ("x" * 300 + ".jpeg", "x" * 195 + ".jpeg"),
        ("é" * 300, "é" * 100),
        ("x." + "y" * 300, "x." + "y" * 198),
    ],
)
def test_names(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_numbers_stand_before_the_extension() -> None:
    assert list(itertools.islice(numbered("a.tar.gz"), 3)) == ["a.tar.gz", "a.tar (1).gz", "a.tar (2).gz"]
    assert list(itertools.islice(numbered("README"), 2)) == ["README", "README (1)"]
    assert len(list(numbered("x"))) == 10_000


@given(NASTY)
def test_a_part_belongs_to_one_source_of_one_sender(text: str) -> None:
    name = safe_name(text)
    parts = {
        part_name(name, sender * 32, identifier * 16)
        for sender in (b"a", b"b")
        for identifier in (b"1", b"2")
    }
    assert len(parts) == 4
    for part in parts:
        assert len(part.encode()) <= 255 - len(" (9999)")
        assert part.startswith(f"{name}.")
        assert part.endswith(PART_SUFFIX)
        # No name that a peer can choose is the name of an unfinished file.
        assert safe_name(part) != part
