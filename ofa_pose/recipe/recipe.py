"""Recipes: one YAML file for a whole journey, with what differs between its commands under `commands`."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from ofa_pose.data.splits import SPLITS, DataSettings
from ofa_pose.data.transforms import Augmentation
from ofa_pose.recipe.settings import DecodeSettings, LossSettings, SearchSettings, TrainSettings
from ofa_pose.utils.config import Config, apply_overrides, check_config
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import find_yaml, read_yaml

COMMANDS = ("pretrain", "train-supernet", "finetune", "search")


class Recipe(Config):
    """All settings of one command, resolved and checked.

    Attributes:
        space: the search space, by name or file.
        seed: of everything random.
    """

    space: str = "litepose"
    seed: int = Field(0, ge=0)
    data: DataSettings = DataSettings()
    train: TrainSettings = TrainSettings()
    augment: Augmentation = Augmentation()
    loss: LossSettings = LossSettings()
    decode: DecodeSettings = DecodeSettings()
    search: SearchSettings = SearchSettings()


def load_recipe(
    command: str,
    name: str | Path | None,
    overrides: Sequence[str] = (),
    inherited: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a command, and the dict that its checkpoints carry for the commands that follow.

    Args:
        command: whose entry under `commands` is laid over the rest.
        name: a YAML file or a shipped recipe's name; None takes the `inherited` recipe of a checkpoint.
        overrides: `a.b=value`; they win over the file. The commands that follow take them over too, through the
            checkpoint, but for keys that their own entry under `commands` sets.
        seed: short for the last override `seed=…`.

    Raises:
        InputError: unknown key (the nearest is named), wrong type, no recipe at all.
    """
    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    where: str | Path = "the checkpoint's recipe"
    if name is not None:
        where = find_yaml("recipes", name)
        value = read_yaml(where)
        if not isinstance(value, dict):
            raise InputError("holds no mapping of keys", where, "write it as 'key: value' lines")
    elif inherited:
        value = copy.deepcopy(dict(inherited))
    else:
        raise InputError("no recipe", hint="add --recipe NAME (a shipped recipe or a YAML file)")
    sections = {
        name: _with_absolute_paths(section) for name, section in _sections(value.pop("commands", None), where).items()
    }
    for section in sections.values():
        check_config(Recipe, _merge(value, section), where)
    resolved = _with_absolute_paths(apply_overrides(_merge(value, sections.get(command, {})), overrides))
    carried = {**_with_absolute_paths(apply_overrides(copy.deepcopy(value), overrides)), "commands": sections}
    return check_config(Recipe, resolved, f"{where} with --set" if overrides else where), carried


def _with_absolute_paths(value: dict[str, Any]) -> dict[str, Any]:
    """The same recipe with the paths of files made absolute: later commands may run in another folder."""
    value = copy.deepcopy(value)
    data: Any = value.get("data")
    for split in SPLITS:
        source: Any = data.get(split) if isinstance(data, dict) else None
        for key in source if isinstance(source, dict) else ():
            if isinstance(source[key], str):
                source[key] = os.path.abspath(source[key])
    holders: list[tuple[Any, str]] = [(value, "space"), (data, "skeleton")]
    for holder, key in holders:
        path = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(path, str) and os.path.isfile(path):
            holder[key] = os.path.abspath(path)
    return value


def _sections(value: Any, where: object) -> dict[str, dict[str, Any]]:
    """The entries under `commands`. Raises InputError on an unknown command, or what is not a mapping of mappings."""
    if not isinstance(value or {}, dict):
        raise InputError("'commands' holds no mapping", where, f"write it as '{COMMANDS[0]}: {{key: value}}'")
    sections = {}
    for name, section in (value or {}).items():
        if name not in COMMANDS:
            raise InputError(f"unknown command '{name}' under commands", where, nearest(str(name), COMMANDS))
        if not isinstance(section or {}, dict):
            raise InputError(f"'commands.{name}' holds no mapping", where, "write 'key: value' lines under it")
        sections[name] = section or {}
    return sections


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        inner = merged.get(key)
        merged[key] = _merge(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged
