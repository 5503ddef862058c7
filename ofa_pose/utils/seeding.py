"""Randomness keyed by what it is for: the same keys give the same stream on any machine, in any order of calls."""

from __future__ import annotations

import hashlib
import operator

import numpy as np

Key = int | str


def key_seed(*keys: Key) -> int:
    """A 64-bit seed from keys such as (seed, 'augment', epoch, index); NumPy's integers count as ints."""
    text = "\x1f".join(f"str:{key}" if isinstance(key, str) else f"int:{operator.index(key)}" for key in keys)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def generator(*keys: Key) -> np.random.Generator:
    """A NumPy generator of its own for these keys; equal keys give equal streams."""
    return np.random.default_rng(key_seed(*keys))
