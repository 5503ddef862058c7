"""YAML plus `a.b=value` overrides become a checked, frozen pydantic model; each package owns its own models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ofa_pose.utils.errors import Fault, InputError, nearest
from ofa_pose.utils.files import dump_yaml, parse_yaml


class Config(BaseModel):
    """Base of every recipe section: frozen; unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


C = TypeVar("C", bound=Config)


def apply_overrides(value: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Lay `a.b=value` overrides over `value` in place; the values are YAML. Raises InputError where there is no '='."""
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            what = f"'--set {override}' names no key" if equals else f"'--set {override}' has no '='"
            raise InputError(what, hint=f"write --set {key or 'KEY'}={text or 'VALUE'}")
        *parents, last = key.strip().split(".")
        section = value
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[last] = parse_yaml(text, f"--set {key}")
    return value


def check_config(model: type[C], value: Mapping[str, Any], where: object) -> C:
    """`value` as `model`. Raises InputError with a line for each fault."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InputError.of([_fault(model, item, where) for item in error.errors()]) from None


def config_text(config: Config) -> str:
    """The resolved config as YAML text."""
    return dump_yaml(config.model_dump(mode="json"))


def _fault(model: type[BaseModel], item: Any, where: object) -> Fault:
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "missing":
        return Fault(f"has no '{key}'", str(where), "add it")
    if item["type"] != "extra_forbidden":
        what = item["msg"].removeprefix("Value error, ").lower()
        return Fault(f"{key}: {what} (got {item.get('input')!r:.60})", str(where), "correct that value")
    valid = _keys_at(model, location[:-1])
    prefix = ".".join(location[:-1])
    hint = nearest(location[-1], valid)
    if not prefix and (deeper := list(_places(model, location[-1]))):
        hint = f"did you mean {' or '.join(map(repr, deeper))}?"
    if prefix and hint.startswith("did you mean '"):
        hint = hint.replace("'", f"'{prefix}.", 1)
    return Fault(f"unknown key '{key}'", str(where), hint)


def _places(model: type[BaseModel], key: str, prefix: str = "") -> Iterator[str]:
    """Where a section below has this key, dotted."""
    for name, field in model.model_fields.items():
        for inner in _sections(field.annotation):
            if key in inner.model_fields:
                yield f"{prefix}{name}.{key}"
            yield from _places(inner, key, f"{prefix}{name}.")


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
