"""Checked configs: overrides, unknown keys with the nearest valid one, wrong values with their key."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from ofa_pose.utils.config import Config, apply_overrides, check_config, config_text
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import parse_yaml


class Inner(Config):
    rate: float = Field(1e-3, gt=0)
    sides: tuple[int, ...] | None = None
    range: tuple[float, float] = (0.75, 1.5)
    loud: bool = False
    kind: Literal["plain", "fusion"] = "plain"


class Outer(Config):
    name: str = "x"
    inner: Inner = Inner()
    extra: Inner | None = None


class Named(Config):
    name: str
    count: int | None = None


def read(value: dict[str, Any]) -> Outer:
    return check_config(Outer, value, "r.yaml")


def test_overrides_are_yaml_and_reach_inner_keys() -> None:
    value = apply_overrides(
        {"inner": {"rate": 1.0}}, ["inner.rate=1e-3", "inner.sides=[1, 2]", "extra.rate=2", "name=y"]
    )
    assert read(value) == Outer(name="y", inner=Inner(rate=1e-3, sides=(1, 2)), extra=Inner(rate=2.0))


def test_an_override_may_hold_an_equals_sign_and_replaces_a_scalar_by_a_mapping() -> None:
    assert apply_overrides({"a": 1}, ["name=k=v", "a.b=2"]) == {"name": "k=v", "a": {"b": 2}}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("inner.rate", "'--set inner.rate' has no '='; write --set inner.rate=VALUE"),
        ("=3", "'--set =3' names no key; write --set KEY=3"),
        ("", "'--set ' has no '='; write --set KEY=VALUE"),
    ],
)
def test_an_override_without_key_or_equals_sign_is_refused(override: str, told: str) -> None:
    with pytest.raises(InputError) as error:
        apply_overrides({}, [override])
    assert str(error.value) == told


def test_a_very_long_override_is_refused_before_it_is_read() -> None:
    with pytest.raises(InputError, match=r"'--set a.b…' has 10,007 characters, more than 10,000; write the value into"):
        apply_overrides({}, ['a.b="' + "x " * 5000 + '""'])
    assert apply_overrides({}, ["a=" + "x" * 9000])["a"] == "x" * 9000


def test_an_override_that_is_no_yaml_names_its_key() -> None:
    with pytest.raises(InputError, match="--set inner"):
        apply_overrides({}, ["inner.sides=[1, 2"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"nane": 1}, "r.yaml: unknown key 'nane'; did you mean 'name'?"),
        ({"inner": {"rat": 1}}, "r.yaml: unknown key 'inner.rat'; did you mean 'inner.rate'?"),
        ({"extra": {"side": [1]}}, "r.yaml: unknown key 'extra.side'; did you mean 'extra.sides'?"),
        ({"inner": {"zzz": 1}}, "r.yaml: unknown key 'inner.zzz'; choose one of: kind, loud, range, rate, sides"),
    ],
)
def test_an_unknown_key_names_the_nearest(value: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        read(value)
    assert str(error.value) == message


@pytest.mark.parametrize("rate", [0, "fast", None, float("nan"), float("inf"), [1]])
def test_a_wrong_value_names_its_key_and_shows_what_it_got(rate: Any) -> None:
    with pytest.raises(InputError, match=r"r.yaml: inner.rate: .*\(got ") as error:
        read({"inner": {"rate": rate}})
    assert repr(rate) in str(error.value)


@pytest.mark.parametrize(
    ("key", "given", "said"),
    [
        ("sides", 128, "a list is wanted (got 128); write it as in [128]"),
        ("sides", "a", "a list is wanted (got 'a'); write it as in [16]"),
        ("range", 1.2, "a list is wanted (got 1.2); write it as in [0.75, 1.5]"),
        ("range", [1, 2, 3], "a shorter list is wanted (got [1, 2, 3]); write it as in [0.75, 1.5]"),
        ("rate", "fast", "a number is wanted (got 'fast'); write it as in 0.001"),
        ("loud", 7, "true or false is wanted (got 7); write it as in false"),
        ("kind", "fussion", "no such choice (got 'fussion'); did you mean 'fusion'?"),
        ("kind", 3, "no such choice (got 3); choose one of: fusion, plain"),
    ],
)
def test_a_value_of_another_type_is_said_in_words_with_an_example(key: str, given: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        read({"inner": {key: given}})
    assert str(error.value) == f"r.yaml: inner.{key}: {said}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"inner": {"sides": ["a"]}}, "inner.sides.0: a whole number is wanted (got 'a'); write it as in 16"),
        ({"inner": {"range": [1]}}, "inner.range.1: a longer list is wanted (got [1]); write it as in [0.75, 1.5]"),
        ({"inner": 3}, "inner: a section is wanted (got 3); write it as in {key: value}"),
        ({"name": 3}, 'name: text is wanted (got 3); write it as in "x"'),
    ],
)
def test_so_are_parts_of_lists_and_sections(value: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        read(value)
    assert str(error.value) == f"r.yaml: {said}"


def test_an_example_of_a_key_without_default_is_of_its_type() -> None:
    with pytest.raises(InputError) as error:
        check_config(Named, {"name": 3, "count": 1.5}, "r.yaml")
    text, count = str(error.value).splitlines()
    assert text.endswith("write it as in 'name'") and count.endswith("write it as in 16")


def test_a_fault_names_the_override_that_it_comes_from() -> None:
    overrides = ["name=3", "inner.rate=fast", "inner.rate=slow", "extra.loud=true"]
    value = apply_overrides({"inner": {"sides": 3}}, overrides)
    with pytest.raises(InputError) as error:
        check_config(Outer, value, "r.yaml", overrides)
    places = [fault.where for fault in error.value.faults]
    assert places == ["--set name=3", "--set inner.rate=slow", "r.yaml"]
    with pytest.raises(InputError, match=r"^r.yaml with --set extra.loud=true: extra: a section"):
        check_config(Outer, {"extra": 3}, "r.yaml", overrides)


def test_every_fault_is_named() -> None:
    with pytest.raises(InputError) as error:
        read({"nam": 1, "inner": {"rate": -1, "sides": ["a"]}})
    assert len(error.value.faults) == 3


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Outer().name = "y"


def test_config_text_reads_back() -> None:
    config = Outer(name="1e-3", inner=Inner(rate=1e-5, sides=(3, 4)))
    assert read(parse_yaml(config_text(config), "x")) == config


def test_a_missing_key_is_asked_for() -> None:
    with pytest.raises(InputError, match=r"^r.yaml: has no 'name'; add it$"):
        check_config(Named, {}, "r.yaml")
