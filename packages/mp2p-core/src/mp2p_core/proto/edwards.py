"""Check that 32 bytes are an Ed25519 public key fit for Diffie-Hellman (protocol section 2).

Interface: `check_public_key(key)` returns the X25519 u-coordinate or raises `BadKey` with the reason;
`fits_identity(x25519_public, ed25519_public)` is the identity equation of the responder.

An Ed25519 key is a point of edwards25519 written as its y (255 bits, little-endian) and the sign of its x
(RFC 8032, section 5.1.2). X25519 knows the same group as curve25519, where only u counts, and
u = (1 + y) / (1 - y)  (RFC 7748, section 4.1). The group has 8 * L elements, L prime. A usable key is a
point of order L: any other one leaks bits of the peer's scalar, or gives several keys one secret.

The textbook test multiplies by L with plain integers: 1.5 ms. This module does it with ONE X25519
operation (31 us) by the constant scalar

    k = 5 * L - 1

and accepts exactly when X25519(k, u) == u. Why that is right:

1.  Clamping leaves k alone, so the operation really multiplies by k. L mod 8 is 5, so k is a multiple
    of 8 (25 - 1 = 24); L is a little above 2^252, so k lies between 2^254 and 2^255: bit 254 is set and
    bit 255 is not.
2.  X25519 computes the u of [k]Q, where Q is a point with coordinate u. Two points share a u exactly
    when they are P and -P. So for a finite u other than 0 the result equals u exactly when
    [k]Q = Q or [k]Q = -Q, that is [k - 1]Q = O or [k + 1]Q = O, with k - 1 = 5L - 2 and k + 1 = 5L.
3.  Say Q lies on curve25519, so that its order divides 8L. [5L]Q = O says that the order divides
    gcd(5L, 8L) = L. [5L - 2]Q = O would say that it divides gcd(5L - 2, 8L), which is 1: 5L - 2 is odd,
    and is -2 modulo L. The neutral element has no finite u, so what remains are exactly the points of
    order L.
4.  Say u belongs to no point of curve25519. Then it belongs to a point of its quadratic twist, and
    X25519 multiplies there just as well. The twist has 2p + 2 - 8L = 4 * L' elements, L' another
    prime. Both 5L and 5L - 2 are odd and neither is a multiple of L' (2 L' < 5L - 2 < 5L < 3 L'), so both
    are coprime to 4L': on the twist only the neutral element passes, and it has no finite u either.
5.  u is on curve25519 exactly when the y it came from decodes to a point of edwards25519. In
    x^2 = (y^2 - 1) / (d y^2 + 1) and v^2 = -486664 u^2 / x^2 the constant -486664 is a square modulo p,
    so that x^2 and v^2 are squares together. So "no point" is refused by 4, with no square root.
6.  u = 0 is the one u that would be a fixed point without being of order L: y = -1 has u = 0 and order
    2, and y = 1 (the neutral element) has no u at all. Both, and everything else of small order, are
    refused from a list of five y before the multiplication.

The arithmetic here is on public data only, so it need not be constant-time.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from mp2p_core.errors import BadKey

__all__ = ["check_public_key", "fits_identity"]

# RFC 8032, section 5.1
_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _P) % _P
_L: Final = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT: Final = 1 << 255

# The y of the order-8 points is a root of d y^4 + 2 y^2 - 1, and so is its negative.
_ORDER_8_Y: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7

# Eight points, five y: the points of order 4 share one, those of order 8 share two.
_SMALL_ORDER_Y: Final = {
    1: 1,
    _P - 1: 2,
    0: 4,
    _ORDER_8_Y: 8,
    _P - _ORDER_8_Y: 8,
}

# Public, and loaded once: loading costs as much as a multiplication.
_SUBGROUP_TEST: Final = X25519PrivateKey.from_private_bytes((5 * _L - 1).to_bytes(32, "little"))


def check_public_key(key: bytes) -> bytes:
    """Check an Ed25519 public key and return its X25519 u-coordinate, 32 bytes.

    Takes about 60 us for a good key and 150 us for a bad one. Raises `BadKey`, with the check that failed.
    Protocol section 2; the module's docstring proves the test.
    """
    if len(key) != 32:
        raise BadKey(f"a public key has 32 bytes, and this has {len(key)}: copy the whole key again")
    number = int.from_bytes(key, "little")
    y = number & (_SIGN_BIT - 1)
    if y >= _P:
        raise BadKey(
            "not a canonical public key: its y is not below 2^255 - 19. No key generator makes such a key"
        )
    order = _SMALL_ORDER_Y.get(y)
    if order is not None:
        if order <= 2 and number & _SIGN_BIT:
            raise BadKey(
                "not a canonical public key: it writes x = 0 as minus zero. No key generator makes such a key"
            )
        raise BadKey(
            f"a public key of small order ({order}): anybody could compute the secrets agreed with it"
        )
    u = ((1 + y) * pow(1 - y, -1, _P) % _P).to_bytes(32, "little")
    if _SUBGROUP_TEST.exchange(X25519PublicKey.from_public_bytes(u)) == u:
        return u
    if _is_on_curve(y):
        raise BadKey("a public key mixed with a point of small order, outside the prime-order subgroup")
    raise BadKey("not a public key: these 32 bytes are no point of the curve. Copy the key again")


def _is_on_curve(y: int) -> bool:
    """Tell whether some x belongs to this y: (y^2 - 1) / (d y^2 + 1) is a square. Only words a refusal."""
    numerator, denominator = y * y - 1, _D * y * y + 1
    # A quotient is a square exactly when the product is, which saves the inversion.
    return pow(numerator * denominator, (_P - 1) // 2, _P) in (0, 1)


def fits_identity(x25519_public: bytes, ed25519_public: bytes) -> bool:
    """Tell whether an X25519 key belongs to an Ed25519 key: u * (1 - y) == 1 + y (mod p).

    Both must be written canonically. It does not replace `check_public_key`. Never raises. Protocol
    section 2 (row H7).
    """
    if len(x25519_public) != 32 or len(ed25519_public) != 32:
        return False
    u = int.from_bytes(x25519_public, "little")
    y = int.from_bytes(ed25519_public, "little") & (_SIGN_BIT - 1)
    return u < _P and y < _P and (u * (1 - y) - (1 + y)) % _P == 0
