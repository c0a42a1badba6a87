"""One number for each thing that is random, derived from what the thing is and never from what ran before it."""

import hashlib


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed that is a pure function of `key`; keys that differ anywhere give unrelated seeds.

    The parts are hashed as one unambiguous text (BLAKE2b), so `("a", 12)` and `("a1", 2)` differ.
    torch's CPU generator takes the lower 32 bits.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
