"""Contacts: what is read, what is refused and how it is said."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mp2p_core.contact import MAX_CONTACT_SIZE, Contact
from mp2p_core.errors import ContactError
from mp2p_core.proto.identity import Identity, PublicKey

KEYS = [Identity.from_seed(bytes([n]) * 32).public for n in range(3)]
KEY = KEYS[0]

families = st.text("abz059-", max_size=31).map("v{}".format)
addresses = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=30)
contacts = st.builds(
    Contact,
    st.sampled_from(KEYS),
    st.lists(st.tuples(families, addresses), max_size=6, unique=True).map(tuple),
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(KEY), ()),
        (KEY.raw.hex(), ()),
        (KEY.raw.hex().upper(), ()),
        (f"mp2p:{KEY}", ()),
        (f"mp2p:{KEY.raw.hex()}", ()),
        (f"mp2p:{KEY}?at=v6:[ff1e::1]:1024", (("v6", "[ff1e::1]:1024"),)),
        (
            f"mp2p:{KEY}?at=v6:[ff1e::1]:1024&at=v4:224.0.230.7:2000",
            (("v6", "[ff1e::1]:1024"), ("v4", "224.0.230.7:2000")),
        ),
        (f"mp2p:{KEY}?at=v6%3A%5Bff1e%3a%3a1%5d%3A1024", (("v6", "[ff1e::1]:1024"),)),
        (f"mp2p:{KEY}?at=v6:[fe80::1%25eth0]:1024", (("v6", "[fe80::1%eth0]:1024"),)),
        (f"mp2p:{KEY}?at=mem:a+b", (("mem", "a+b"),)),
        (f"mp2p:{KEY}?at=mem:a=b", (("mem", "a=b"),)),
        (f"mp2p:{KEY}?at=mem:?", (("mem", "?"),)),
        (f"mp2p:{KEY}?at=mem:M%C3%BCnchen", (("mem", "München"),)),
    ],
)
def test_what_is_read(text: str, expected: tuple[tuple[str, str], ...]) -> None:
    assert Contact.parse(text) == Contact(KEY, expected)


def test_what_is_written() -> None:
    assert str(Contact(KEY)) == f"mp2p:{KEY}"
    two = Contact(KEY, (("v6", "[ff1e::1]:1024"), ("v4", "224.0.230.7:2000")))
    assert str(two) == f"mp2p:{KEY}?at=v6:[ff1e::1]:1024&at=v4:224.0.230.7:2000"
    odd = Contact(KEY, (("x-y", "a b&c#d%e+f='\"`$;é"),))
    assert str(odd) == f"mp2p:{KEY}?at=x-y:a%20b%26c%23d%25e%2Bf%3D%27%22%60%24%3B%C3%A9"


@given(contacts)
@example(Contact(KEY, (("v6", "[fe80::1%eth0]:1024"), ("v6", "%25"), ("a", "&at=b:c"))))
def test_round_trip(contact: Contact) -> None:
    text = str(contact)
    assert Contact.parse(text) == contact
    assert str(Contact.parse(text)) == text
    assert text.isascii()
    assert set(text) <= set(string.ascii_letters + string.digits + "-._~:[]/@,%?&=")


@given(st.text(max_size=200) | st.text(max_size=60).map(lambda text: f"mp2p:{KEY}?at=v6:{text}"))
def test_any_text_is_a_contact_or_refused(text: str) -> None:
    try:
        contact = Contact.parse(text)
    except ContactError:
        return
    assert Contact.parse(str(contact)) == contact


REFUSED = {
    "empty": ("", "the key of this contact does not read"),
    "scheme only": ("mp2p:", "the key of this contact does not read"),
    "another scheme": (f"http:{KEY}", "the key of this contact does not read"),
    "upper case scheme": (f"MP2P:{KEY}", "the key of this contact does not read"),
    "slashes": (f"mp2p://{KEY}", "no // before the key"),
    "short key": (f"mp2p:{str(KEY)[:-1]}", r"\(51 characters\)"),
    "upper case key": (f"mp2p:{str(KEY).upper()}", "lower-case base32"),
    "unusable key": ("mp2p:" + "01" + "00" * 31, "small order"),
    "white space before": (f" mp2p:{KEY}", "the key of this contact does not read"),
    "white space after": (f"mp2p:{KEY}\n", "the key of this contact does not read"),
    "nothing after the mark": (f"mp2p:{KEY}?", "nothing follows the question mark"),
    "addresses without the scheme": (f"{KEY}?at=v6:[ff1e::1]:1024", "addresses need the prefix mp2p:"),
    "unknown key": (f"mp2p:{KEY}?name=kitchen", "a contact holds 'name', and only at= is known"),
    "unknown key later": (f"mp2p:{KEY}?at=v4:1&via=x:y", "a contact holds 'via'"),
    "upper case at": (f"mp2p:{KEY}?AT=v6:x", "a contact holds 'AT'"),
    "no value": (f"mp2p:{KEY}?at", "a contact holds 'at'"),
    "empty value": (f"mp2p:{KEY}?at=", "an address without its family"),
    "empty field": (f"mp2p:{KEY}?at=v6:x&", "a contact holds ''"),
    "no family": (f"mp2p:{KEY}?at=nowhere", "an address without its family"),
    "empty family": (f"mp2p:{KEY}?at=:x", "an address of family ''"),
    "upper case family": (f"mp2p:{KEY}?at=V6:x", "an address of family 'V6'"),
    "bracket family": (f"mp2p:{KEY}?at=[ff1e::1]:1024", "an address of family '\\[ff1e'"),
    "long family": (f"mp2p:{KEY}?at={'a' * 33}:x", "an address of family 'a"),
    "empty address": (f"mp2p:{KEY}?at=v6:", "an address that is empty"),
    "space": (f"mp2p:{KEY}?at=v6:a b", "white space, a loose %"),
    "line feed": (f"mp2p:{KEY}?at=v6:a\n", "white space, a loose %"),
    "fragment": (f"mp2p:{KEY}?at=v6:a#b", "white space, a loose %"),
    "not ASCII": (f"mp2p:{KEY}?at=v6:é", "white space, a loose %"),
    "loose percent": (f"mp2p:{KEY}?at=v6:a%", "white space, a loose %"),
    "loose percent with one digit": (f"mp2p:{KEY}?at=v6:a%2", "white space, a loose %"),
    "loose percent before letters": (f"mp2p:{KEY}?at=v6:a%zz", "white space, a loose %"),
    "escaped control": (f"mp2p:{KEY}?at=v6:a%1b[31m", "unprintable characters"),
    "escaped line feed": (f"mp2p:{KEY}?at=v6:a%0a", "unprintable characters"),
    "escaped right-to-left mark": (f"mp2p:{KEY}?at=v6:a%E2%80%AE", "unprintable characters"),
    "escaped bytes that are not UTF-8": (f"mp2p:{KEY}?at=v6:%ff", "not UTF-8"),
    "overlong UTF-8": (f"mp2p:{KEY}?at=v6:%c0%af", "not UTF-8"),
    "the same twice": (f"mp2p:{KEY}?at=v6:a&at=v6:%61", "lists an address twice"),
    "17 addresses": (f"mp2p:{KEY}?" + "&".join(f"at=v6:{n}" for n in range(17)), "17 addresses, at most 16"),
    "4097 characters": (f"mp2p:{KEY}?at=v6:".ljust(4097, "a"), "4097 characters, at most 4096"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_L3_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ContactError, match=message) as caught:
        Contact.parse(text)
    assert str(caught.value).count("expected mp2p:<key>, or mp2p:<key>?at=v6:[ff1e::1]:1024") == 1
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_L5_messages_are_short_and_printable() -> None:
    for hostile in ("\x1b[2J" * 300, "\u202e" * 300, "\u00e9" * 300, "a" * 3000):
        for text in (f"mp2p:{KEY}?{hostile}=x", f"mp2p:{hostile}", f"mp2p:{KEY}?at={hostile}:x"):
            with pytest.raises(ContactError) as caught:
                Contact.parse(text)
            assert str(caught.value).isprintable()
            assert str(caught.value).isascii()
            assert len(str(caught.value)) < 600


def test_longest_contacts_are_taken() -> None:
    longest = f"mp2p:{KEY}?at=v6:".ljust(MAX_CONTACT_SIZE, "a")
    assert str(Contact.parse(longest)) == longest
    sixteen = Contact(KEY, tuple(("v4", str(n)) for n in range(16)))
    assert Contact.parse(str(sixteen)) == sixteen


def test_long_texts_are_refused_before_they_are_read() -> None:
    # Short once it is decoded, so that only the first check can refuse it.
    with pytest.raises(ContactError, match="4117 characters, at most 4096"):
        Contact.parse(f"mp2p:{KEY}?at=v6:{'%61' * 1351}")
    assert len(str(Contact.parse(f"mp2p:{KEY}?at=v6:{'%61' * 1300}"))) < 1400


def test_contacts_that_could_not_be_read_back_cannot_be_made() -> None:
    with pytest.raises(ContactError, match="at most 4096"):
        Contact(KEY, (("v6", "%" * 1400),))
    # The same text escaped once more would be read and then be too long to be written.
    with pytest.raises(ContactError, match="at most 4096"):
        Contact.parse(f"mp2p:{KEY}?at=v6:" + "+" * 1400)
    for bad in (("v6", ""), ("v6", "a\n"), ("V6", "a"), ("", "a"), ("v6\n", "a"), ("v6", "\ud800")):
        with pytest.raises(ContactError):
            Contact(KEY, (bad,))


def test_contacts_are_values() -> None:
    one, two = Contact(KEY, (("v6", "a"),)), Contact(PublicKey(KEY.raw), (("v6", "a"),))
    assert one == two
    assert hash(one) == hash(two)
    assert one != Contact(KEY)
    assert one != Contact(KEYS[1], (("v6", "a"),))
