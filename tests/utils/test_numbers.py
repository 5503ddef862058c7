"""Quantities with units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count, format_size, format_time, parse_count, parse_seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("1.2G", 1_200_000_000), ("442M", 442_000_000), ("90000", 90_000), ("2k", 2000), ("2 K", 2000), ("1e9", 10**9)]
    + [(".5G", 500_000_000), ("1T", 10**12), ("1.1G", 1_100_000_000), ("0.4", 1)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (1, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3600, "1 h")]
    + [(3901, "1 h 5 min"), (86400 * 2 + 3 * 3600 + 59, "2 d 3 h"), (1e30, "11574 d 1 h")],
)
def test_times(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 kB"),
        (312, "0.3 kB"),
        (31_249, "31.2 kB"),
        (99_949, "99.9 kB"),
        (99_950, "0.1 MB"),
        (3_249_999, "3.2 MB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert format_size(count) == text


@pytest.mark.parametrize(("text", "seconds"), [("30ms", 0.03), ("1.5s", 1.5), ("800us", 8e-4), ("800µs", 8e-4)])
def test_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "G", "1.2X", "-3M", "0", "0G", "1,2G", "nan", "inf", "1e999", "1.2g", "30ms"])
def test_no_count(text: str) -> None:
    with pytest.raises(InputError, match="is not a count; write it like"):
        parse_count(text)


@pytest.mark.parametrize("text", ["", "30", "30m", "0ms", "-1s", "1e999s", "1e306s", "1G"])
def test_no_time(text: str) -> None:
    with pytest.raises(InputError, match="is not a time; write it like"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_220_200_000, "1.22G"),
        (999, "999"),
        (999.7, "1K"),
        (999_999, "1M"),
        (999_499, "999K"),
        (0, "0"),
        (-5e6, "-5M"),
    ],
)
def test_format_keeps_three_digits(value: float, text: str) -> None:
    assert format_count(value) == text


@given(st.integers(1, 10**15))
def test_a_formatted_count_reads_back_within_half_a_percent(value: int) -> None:
    assert parse_count(format_count(value)) == pytest.approx(value, rel=5e-3)
