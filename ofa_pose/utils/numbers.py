"""Values of a JSON file that must be numbers: true, text, NaN, infinity and integers beyond a float are none."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NUMBER = frozenset((int, float))  # compared as types, so that bool is none


def finite_array(values: Any) -> NDArray[np.float64] | None:
    """A list of finite numbers as float64, or None."""
    if not isinstance(values, list) or not _NUMBER.issuperset(map(type, values)):
        return None
    try:
        array = np.array(values, np.float64)
    except OverflowError:
        return None
    return array if np.isfinite(array).all() else None


def are_numbers(values: Any, count: int) -> bool:
    """Whether `values` is a list of `count` finite numbers."""
    if not isinstance(values, list) or len(values) != count or not _NUMBER.issuperset(map(type, values)):
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:
        return False


def positive(value: Any) -> bool:
    """Whether a value is a finite number above zero."""
    return are_numbers([value], 1) and value > 0


def is_id(value: Any) -> bool:
    """Whether a value can be the id of a record."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)
