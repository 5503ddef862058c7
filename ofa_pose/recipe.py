"""Recipes: one YAML file for a whole journey, with what differs between its commands under `commands`."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, field_validator

from ofa_pose.arch.spec import MOST, TOTAL_STRIDE
from ofa_pose.data.keypoint_dataset import SPLITS, DataSettings
from ofa_pose.data.transforms import Augmentation
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.utils.config import Config, apply_overrides, check_config
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import find_yaml, read_yaml

LARGEST_SEED = 2**63 - 1  # which an archive of a search has room for
Side = Annotated[int, Field(gt=0, le=MOST["resolution"], multiple_of=TOTAL_STRIDE)]
MANY = 10**9  # steps, images and the like: more are a slip of the pen, or an attack
Minutes = Annotated[str, Field(pattern=r"^[1-9]\d*(\.\d+)? ?min$")]
AlgorithmName = Literal["evolution", "nsga2", "random"]
ALGORITHM_NAMES: tuple[str, ...] = get_args(AlgorithmName)
COMMANDS = ("pretrain", "train-supernet", "finetune", "search")


class TrainSettings(Config):
    """The optimisation. Steps are batches; evaluation and checkpoints come every so many steps."""

    steps: int = Field(1000, ge=1, le=MANY, description="how long to train")
    batch: int = Field(16, ge=1, le=2**17, description="images in a step, of all processes together")
    lr: float = Field(2e-3, gt=0, description="highest learning rate, of AdamW")
    weight_decay: float = Field(1e-2, ge=0, description="of AdamW; none on biases and BatchNorm")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the rate rises")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    resolutions: tuple[Side, ...] | None = Field(None, description="a fixed net's training sides; none: its own")
    workers: int = Field(1, ge=0, le=1024, description="processes that read images; 0: the training's own")
    evaluate_every: int = Field(500, ge=1, le=MANY, description="steps between evaluations on data.val")
    evaluate_images: int = Field(200, ge=1, le=MANY, description="of data.val, on which the best checkpoint is chosen")
    checkpoint_every: Annotated[int, Field(ge=1)] | Minutes = Field(
        200, description="steps that a killed run loses at most, or minutes, as in 10min"
    )
    # Those below came later: left out of files where they are as they were before.
    keep: int = Field(
        2,
        ge=1,
        le=1000,
        description="checkpoints to go on from, the newest; more than one, in case a disk damages it",
        exclude_if=lambda keep: keep == 2,
    )
    accumulate: int = Field(
        1,
        ge=1,
        le=2**17,
        description="parts of a process's images that are computed in turn",
        exclude_if=lambda count: count == 1,
    )
    sync_norm: bool = Field(
        False, description="BatchNorm sees the images of all processes", exclude_if=lambda given: not given
    )
    precision: Literal["float32", "bfloat16"] | None = Field(
        None,
        description="of the network; none: bfloat16 on a GPU that computes in it, else float32",
        exclude_if=lambda given: given is None,
    )
    compile: bool = Field(
        False, description="torch.compile of a fixed net; not of a supernet", exclude_if=lambda given: not given
    )
    ema: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights that is evaluated and kept as best.pt; 0: none",
        exclude_if=lambda decay: decay == 0,
    )
    sampling: Literal["uniform", "sandwich"] = Field(
        "uniform",
        description="of a supernet's subnets; uniform: one a step; sandwich: the largest, the smallest and some "
        "between, which learn from labels and, by loss.distill, from the largest",
        exclude_if=lambda sampling: sampling == "uniform",
    )
    sandwich: int = Field(
        2,
        ge=1,
        le=1000,
        description="random subnets in a sandwich; a step is as many passes and two",
        exclude_if=lambda k: k == 2,
    )

    int8: bool = Field(
        False,
        description="a fixed LitePose learns to run as onnx-int8: it rounds as that does, and is evaluated as it",
        exclude_if=lambda given: not given,
    )

    @field_validator("checkpoint_every", mode="wrap")
    @classmethod
    def _say_both(cls, value: Any, check: ValidatorFunctionWrapHandler) -> int | str:
        try:
            found: int | str = check(value)
            return found
        except ValidationError:
            raise ValueError("write a number of steps, or minutes, from 1min, as in 10min") from None

    def is_due(self, step: int, seconds: float) -> bool:
        """Whether a checkpoint is to be written after a step, so many seconds after the one before."""
        if isinstance(self.checkpoint_every, int):
            return step % self.checkpoint_every == 0
        return seconds >= 60 * float(self.checkpoint_every.removesuffix("min"))


class LossSettings(Config):
    """The weights of the losses.

    HigherHRNet weighs push and pull 1e-3 beside plain heatmap errors; beside errors with a foreground weight, which
    are some 30 times larger, that is 1e-2 and more. Push outweighs pull: where all tags are equal neither has a slope,
    and with equal weights the tags can stay there.
    """

    sigma: float = Field(2.0, gt=0, le=100, description="of the target Gaussians, in cells")
    foreground: float = Field(30.0, ge=0, description="extra weight where the target is 1")
    high: float = Field(1.0, gt=0, description="weight of the heatmaps at 1/2; a joint covers a fourth of their area")
    push: float = Field(4e-2, ge=0, description="weight of the loss that sets people's tags apart")
    pull: float = Field(1e-2, ge=0, description="weight of the loss that draws one person's tags together")
    distill: float = Field(0.5, ge=0, le=1, description="share of the heatmap loss that comes from the teacher")


class DecodeSettings(Config):
    """Those of `DecodeConfig`'s settings that depend on how a net was trained.

    `reach` is half as much again as the largest person of the training images, where people are small on all of them.
    The recipe's thresholds serve while a net is trained; at the end those that suit it are sought on training images.
    All are kept in the checkpoint, unless one was given with --set: who does that has decided.
    """

    threshold: float = Field(DecodeConfig.threshold, gt=0, le=1000, description="height above which a peak is a joint")
    tag_threshold: float = Field(
        DecodeConfig.tag_threshold, gt=0, le=1000, description="twice what a joint's tag may differ from its person's"
    )

    reach: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="longest side of a person as a share of the input's short side; none: no limit",
        exclude_if=lambda reach: reach is None,
    )

    calibrate: bool = Field(
        True,
        description="trainings seek these three for their net on training images; a --set of one turns it off",
        exclude_if=lambda calibrate: calibrate,
    )

    def config(self) -> DecodeConfig:
        """As the decoder takes them."""
        return DecodeConfig(threshold=self.threshold, tag_threshold=self.tag_threshold, reach=self.reach)


class SearchSettings(Config):
    """How to search, and how exactly a candidate is evaluated."""

    algorithm: AlgorithmName = Field(
        "evolution", description="evolution: the best AP; nsga2: the whole AP–cost front; random: the baseline"
    )
    population: int = Field(32, ge=2, le=10**6, description="subnets evaluated in each generation")
    generations: int = Field(12, ge=0, le=10**6, description="after the first population")
    images: int = Field(200, ge=1, le=MANY, description="of the search split, on which a candidate's AP is measured")
    calibration_images: int = Field(64, ge=1, le=MANY, description="training images for BatchNorm recalibration")
    batch: int = Field(16, ge=1, le=2**17, description="images evaluated at once")
    parents: float = Field(0.5, gt=0, le=1, description="share of the population that may have offspring")
    crossover: float = Field(0.5, ge=0, le=1, description="share of offspring with two parents")
    mutation: float = Field(0.15, gt=0, le=1, description="chance of each gene to change")
    fill: float = Field(0.5, ge=0, le=1, description="share of evolution's samples and offspring grown to the budget")
    uniform_start: bool = Field(True, description="the first population holds the widest uniform nets in the budget")
    prefer_cheaper: bool = Field(True, description="take the cheapest subnet whose AP is within noise of the best")
    int8: bool = Field(
        False,
        description="each subnet is evaluated as the format onnx-int8 would run it; on the CPU",
        exclude_if=lambda given: not given,
    )
    surrogate: bool = Field(False, description="a model of the AP chooses which offspring are evaluated")
    surrogate_proposals: int = Field(20, ge=2, le=10**6, description="offspring bred for each one that is evaluated")
    surrogate_round: int = Field(3, ge=1, description="subnets evaluated between lessons; more processes would idle")
    surrogate_samples: int = Field(6, ge=5, description="evaluated subnets before the model is first asked")
    surrogate_tau: float = Field(0.3, ge=0, lt=1, description="Kendall tau of held-out APs below which it stands aside")


class Recipe(Config):
    """All settings of one command, resolved and checked.

    Attributes:
        space: the search space, by name or file.
        seed: of everything random.
    """

    space: str = "litepose"
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
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
            checkpoint, but for keys that their own entry under `commands` sets. One of decode's thresholds turns its
            calibration off.
        seed: short for the last override `seed=…`.

    Raises:
        InputError: unknown key (the nearest is named), wrong type, no recipe at all.
    """
    overrides = _completed(overrides, seed)
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
    return check_config(Recipe, resolved, where, overrides), carried


def check_named(command: str, name: str | Path | None, overrides: Sequence[str] = (), seed: int | None = None) -> None:
    """Raise InputError where the recipe that is named, or an override, is at fault, before what takes seconds."""
    if name is not None:
        load_recipe(command, name, overrides, seed=seed)
    else:
        _completed(overrides, seed)


def resumed_recipe(
    path: Path, carried: Mapping[str, Any], overrides: Sequence[str] = (), seed: int | None = None
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a run that goes on, from its recipe.yaml, and what its checkpoints carry; see `load_recipe`.

    Args:
        carried: what they carried until now.
    """
    overrides, value = _completed(overrides, seed), read_yaml(path)
    if not isinstance(value, dict):
        raise InputError("holds no mapping of keys", path, "restore it, or name a recipe with --recipe")
    resolved = _with_absolute_paths(apply_overrides(value, overrides))
    kept = _with_absolute_paths(apply_overrides(copy.deepcopy(dict(carried)), overrides))
    return check_config(Recipe, resolved, path, overrides), kept


def _completed(overrides: Sequence[str], seed: int | None) -> list[str]:
    """Overrides, the seed among them; one of decode's thresholds turns its calibration off."""
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    if seed is not None and not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"the seed is {seed}", hint="give 0 or more" if seed < 0 else f"give at most {LARGEST_SEED}")
    if seed is not None:
        overrides.append(f"seed={seed}")
    given = apply_overrides({}, overrides).get("decode")
    if isinstance(given, dict) and given.keys() & DecodeSettings.model_fields.keys() and "calibrate" not in given:
        overrides.append("decode.calibrate=false")
    return overrides


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
