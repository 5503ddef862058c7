"""Numbers: as people write them, with units ('1.2G' multiply-adds, '442M', '30ms'), and in JSON files.

Of a JSON file true, text, NaN, infinity and integers beyond a float are not numbers.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Collection
from typing import Any

from ofa_pose.utils.errors import InputError

NUMBER = frozenset((int, float))  # compared as types, so that bool is none
_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LONGEST = 1e9  # seconds, thirty years
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}


def _parse(text: str, units: dict[str, float], what: str, example: str, most: float = sys.float_info.max) -> float:
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)\s*([A-Za-zµ]*)\s*", str(text))
    unit = match.group(2) if match else None
    value = float(match.group(1)) * units.get(unit, 0) if match and unit is not None else 0.0
    if not 0 < value <= most:
        raise InputError(f"'{text}' is not {what}", hint=f"write it like {example}")
    return value


def parse_count(text: str) -> int:
    """'1.2G' → 1_200_000_000, at least 1; units K, M, G, T. Raises InputError."""
    return max(1, round(_parse(text, {**_COUNTS, "k": 1000}, "a count", "1.2G, 442M or 90000")))


def parse_seconds(text: str) -> float:
    """'30ms' → 0.03; units us, ms, s. Raises InputError."""
    return _parse(text, _SECONDS, "a time", "30ms, 1.5s or 800us", _LONGEST)


def format_count(value: float) -> str:
    """1_220_200_000 → '1.22G': three significant digits."""
    value = float(f"{value:.3g}")  # first, so that 999_999 is 1M
    for unit in ("T", "G", "M", "K"):
        if abs(value) >= _COUNTS[unit]:
            return f"{value / _COUNTS[unit]:.3g}{unit}"
    return f"{value:.0f}"


def counted(number: int, one: str, several: str = "") -> str:
    """'1 image', '2,000 images'."""
    return f"{number:,} {one if number == 1 else several or f'{one}s'}"


def format_size(count: int) -> str:
    """Bytes as '3.2 MB', '0.1 MB', '94.7 kB' or '0.3 kB'."""
    return f"{count / 1e6:.1f} MB" if count >= 99_950 else f"{count / 1e3:.1f} kB"


def format_time(seconds: float) -> str:
    """'0.4 s', '41 s', '3 min 20 s', '1 h 5 min', '2 d 3 h'."""
    if seconds < 1:
        return f"{seconds:.1f} s"
    whole = min(round(seconds), 10**9)
    for unit, size, below, less in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // less
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def are_numbers(values: Any, count: int) -> bool:
    """Whether `values` is a list of `count` finite numbers."""
    if not isinstance(values, list) or len(values) != count or not NUMBER.issuperset(map(type, values)):
        return False
    try:
        return all(map(math.isfinite, values))
    except OverflowError:
        return False


def positive(value: Any) -> bool:
    """Whether a value is a finite number above zero."""
    return are_numbers([value], 1) and value > 0


def is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to 1."""
    return are_numbers([value], 1) and 0 <= value <= 1


def as_id(value: Any) -> int | str | None:
    """A record's id: a text, or a whole number, also where it is written 1.0; None for anything else."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def find_id(value: Any, known: Collection[Any]) -> int | str | None:
    """Which of the `known` ids a value names: itself, else the one of the other type (12 and '12'); None: no one."""
    own = as_id(value)
    if own is None or own in known:
        return own
    other: int | str = str(own)
    if isinstance(own, str):
        other = int(own) if re.fullmatch(r"-?\d{1,18}", own, re.ASCII) else own
    return other if other in known and str(other) == str(own) else None


def id_order(value: int | str) -> tuple[bool, int | str]:
    """By what ids are sorted: numbers before texts, which do not compare with each other."""
    return isinstance(value, str), value
