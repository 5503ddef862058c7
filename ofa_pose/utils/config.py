"""YAML plus `a.b=value` overrides become a checked, frozen pydantic model; each package owns its own models."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ofa_pose.utils.errors import Fault, InputError, nearest
from ofa_pose.utils.files import dump_yaml, parse_yaml

_WHOLE, _NUMBER, _BOOLEAN = ("a whole number", "16"), ("a number", "0.5"), ("true or false", "true")
WANTED: dict[str, tuple[str, str]] = {  # by pydantic's type of a fault: what is wanted instead, and an example
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _BOOLEAN),
    "string_type": ("text", "'name'"),
    "tuple_type": ("a list", "[16]"),
    "too_long": ("a shorter list", "[16]"),
    "missing": ("a longer list", "[16]"),
    **dict.fromkeys(("model_type", "dict_type"), ("a section", "{key: value}")),
}


class Config(BaseModel):
    """Base of every recipe section: frozen; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


C = TypeVar("C", bound=Config)
LONGEST_OVERRIDE = 10_000  # characters; PyYAML takes .1 s for them, and a study's are read for each of its runs


def apply_overrides(value: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Lay `a.b=value` overrides over `value` in place; the values are YAML. Raises InputError where there is no '='."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            what = f"'--set {override}' names no key" if equals else f"'--set {override}' has no '='"
            raise InputError(what, hint=f"write --set {key or 'KEY'}={text or 'VALUE'}")
        if len(override) > LONGEST_OVERRIDE:
            what = f"'--set {key:.40}…' has {len(override):,} characters, more than {LONGEST_OVERRIDE:,}"
            raise InputError(what, hint="write the value into the recipe")
        *parents, last = key.strip().split(".")
        section = value
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[last] = parse_yaml(text, f"--set {key}")
    return value


def check_config(model: type[C], value: Mapping[str, Any], where: object, overrides: Sequence[str] = ()) -> C:
    """`value` as `model`. Raises InputError with a line for each fault; one that comes from an override names that."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError.of([_fault(model, item, where, overrides) for item in error.errors()]) from None


def config_text(config: Config) -> str:
    """The resolved config as YAML text."""
    return dump_yaml(config.model_dump(mode="json"))


def _fault(model: type[BaseModel], item: Any, where: object, overrides: Sequence[str]) -> Fault:
    location = [str(part) for part in item["loc"]]
    key, origin = ".".join(location), _origin(location, where, overrides)
    if item["type"] == "extra_forbidden":
        return Fault(f"unknown key '{key}'", origin, _right_key(model, location))
    if item["type"] == "missing" and isinstance(item["input"], Mapping):
        return Fault(f"has no '{key}'", origin, "add it")
    what, hint = item["msg"].removeprefix("Value error, ").lower(), "correct that value"
    if item["type"] == "literal_error":
        choices = re.findall("'([^']*)'", item["ctx"]["expected"])
        what, hint = "no such choice", nearest(str(item["input"]), choices)
    elif item["type"] in WANTED:
        what, example = WANTED[item["type"]]
        what, hint = f"{what} is wanted", f"write it as in {_example(model, item, example)}"
    return Fault(f"{key}: {what} (got {item.get('input')!r:.60})", origin, hint)


def _example(model: type[BaseModel], item: Any, other: str) -> str:
    """What may stand where a fault is: the default, else what was given as a list if one is wanted, else `other`."""
    first, *below = item["loc"]
    if item["type"] == "missing":  # in a list that is too short
        below.pop()
    value: Any = model.model_fields[first].default if first in model.model_fields else None
    for part in below:
        inside = isinstance(value, tuple) and isinstance(part, int) and part < len(value)
        value = value[part] if inside else getattr(value, str(part), None)
    if isinstance(value, str | int | float | tuple) and value != ():
        return json.dumps(value)
    return f"[{item['input']}]" if other[0] == "[" and isinstance(item["input"], int | float) else other


def _origin(location: Sequence[str], where: object, overrides: Sequence[str]) -> str:
    """The override that a value comes from, or the file; of what holds such a value, both."""
    for override in reversed(overrides):
        parts = override.partition("=")[0].strip().split(".")
        if parts == list(location[: len(parts)]):
            return f"--set {override}"
        if parts[: len(location)] == list(location):
            return f"{where} with --set {override}"
    return str(where)


def _right_key(model: type[BaseModel], location: Sequence[str]) -> str:
    """A hint that names the key that an unknown one may stand for."""
    prefix = ".".join(location[:-1])
    if not prefix and (deeper := [one for one in all_keys(model) if one.endswith(f".{location[-1]}")]):
        return f"did you mean {' or '.join(map(repr, deeper))}?"
    hint = nearest(location[-1], _keys_at(model, location[:-1]))
    return hint.replace("'", f"'{prefix}.", 1) if prefix and hint.startswith("did you mean '") else hint


def all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a config and of its sections, dotted."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _sections(field.annotation):
            yield from all_keys(inner, f"{prefix}{name}.")


def _sections(annotation: Any) -> list[type[BaseModel]]:
    options = [annotation, *getattr(annotation, "__args__", ())]
    return [one for one in options if isinstance(one, type) and issubclass(one, BaseModel)]


def _keys_at(model: type[BaseModel], parents: Sequence[str]) -> list[str]:
    for parent in parents:
        annotation = model.model_fields[parent].annotation if parent in model.model_fields else None
        inner = next(iter(_sections(annotation)), None)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)
