"""A study as its YAML file declares it: a question, runs that answer it, and what all of them share."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from ofa_pose.arch.spec import NetSpec
from ofa_pose.checkpoints.checkpoint import find_checkpoint
from ofa_pose.data.duplicates import warn_of_shared
from ofa_pose.data.keypoint_dataset import SPLITS, DataSettings, load_splits
from ofa_pose.families.table import load_net, read_spec
from ofa_pose.recipe import COMMANDS, load_recipe
from ofa_pose.utils import files
from ofa_pose.utils.config import Config, apply_overrides, check_config
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.result import plain

CLASSIFY = "classify"
GIVEN = {"out", "seed", "resume", "recipe", "overrides", "device"}  # options of a command that the study gives
GIVEN |= {"workers", "scheduler", "executor", "objective", "crops"}  # and those that a run of a study has not
NETS = "nets"
CHECKPOINTS = ("init", "supernet", "teacher")  # options that name one
REFERENCE = ("run", "file")  # the keys of a reference to another run

Commands = Mapping[str, Callable[..., Any]]
"""The functions of the commands that runs may name, each of which can be pickled."""


class DrawnScenes(Config):
    """Drawn scenes: how many images a split has, their side in pixels, their joints, and people in a scene at most."""

    size: int = 96
    joints: str = "coco"
    people: int = 6
    train: int = Field(ge=1)
    val: int = Field(ge=1)
    test: int = Field(ge=1)
    search: int = Field(0, ge=0)  # 0: a share of the training images, see data.search_share

    def count(self, split: str) -> int:
        """The number of images of a split."""
        return int(getattr(self, split))


class DrawnCrops(Config):
    """Drawn crops to classify: their side in pixels, and how many."""

    size: int = Field(96, ge=16)
    train: int = Field(ge=1)
    test: int = Field(ge=1)


class StudyRun(Config):
    """One run: a command with its options, which stand beside these keys.

    An option may be {run: NAME}, the directory of a run above it of the same seed, or {run: NAME, file: FILE} in it; or
    a network, as a mapping of its spec or of {preset: NAME} and what is changed of it.
    """

    model_config = ConfigDict(extra="allow")

    command: str
    arm: str | None = None  # its row's name in the table; none: the run only serves others
    settings: dict[str, Any] = Field({})  # recipe keys, nested, over those that all runs share

    @property
    def options(self) -> dict[str, Any]:
        """The command's, by the parameters' names."""
        return dict(self.model_extra or {})

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the runs that it takes something from."""
        return tuple(dict.fromkeys(value["run"] for value in self.options.values() if _is_reference(value)))


class Ablation(Config):
    """A study.

    Attributes:
        asks: what it asks and what the paper says, a sentence or two.
        seeds: each run is done with each; the data are the same.
        recipe: of all runs, a file or a shipped name.
        settings: recipe keys, nested, over the recipe's: what all runs share.
        scenes: what to draw, unless `data` names images; `data` as in a recipe, with train, val and test.
        crops: what a run of 'classify' reads.
        subnets: so many of a supernet are evaluated, chosen beforehand.
        picture: the figure over the MACs, or as bars.
        runs: by name, the first arm being what the others are compared with.
    """

    asks: str
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: str = "nano"
    settings: dict[str, Any] = Field({})
    scenes: DrawnScenes | None = None
    data: DataSettings | None = None
    crops: DrawnCrops | None = None
    subnets: int = Field(30, ge=1)
    picture: Literal["macs", "bars"] = "bars"
    runs: dict[str, StudyRun] = Field(min_length=1)

    @classmethod
    def load(cls, name: str | Path, commands: Commands, overrides: Sequence[str] = (), quick: bool = False) -> Ablation:
        """A shipped study by name, or one in a YAML file.

        Args:
            overrides: `a.b=value`, over the file.
            quick: lay the file's 'quick' section over the rest.

        Raises:
            InputError: with each fault that can be found without the data.
        """
        where = files.find_yaml(files.STUDIES, name)
        value = files.read_yaml(where)
        if not isinstance(value, dict):
            raise InputError("holds no mapping of keys", where, "write it as 'key: value' lines")
        fast = value.pop("quick", None) or {}
        if not isinstance(fast, dict):
            raise InputError("'quick' holds no mapping", where, "write 'key: value' lines under it")
        value.pop("shared", None)  # a place for YAML anchors
        if quick:
            value = _merge(value, fast)
        value = apply_overrides(value, overrides)
        try:
            json.dumps(value, allow_nan=False)  # as the records of runs hold it
        except (TypeError, ValueError) as error:
            raise InputError(f"holds a value that JSON does not know ({error})", where, "quote dates") from None
        study = check_config(cls, value, where, overrides)
        study._check(commands, where)
        return study

    def overrides(self, run: StudyRun, data: Sequence[str] = ()) -> list[str]:
        """The recipe overrides of a run: what is shared, its own, and the data's."""
        return [*flattened(self.settings), *flattened(run.settings), *data]

    def write_nets(self, folder: Path) -> None:
        """Write into `folder` the networks that options give as mappings, where `resolved_option` says they are."""
        for name, run in self.runs.items():
            for option, value in run.options.items():
                if isinstance(value, Mapping) and not _is_reference(value):
                    path = net_file(folder, name, option)
                    files.write_text(path, files.dump_yaml(inline_net(value, path).to_dict()))

    def _check(self, commands: Commands, where: Path) -> None:
        if not self.seeds or len({*self.seeds}) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"seeds: {list(self.seeds)} are not distinct numbers from 0", where, "write [0, 1, 2]")
        if self.data is None and self.scenes is None and any(run.command != CLASSIFY for run in self.runs.values()):
            raise InputError("names no images", where, "add 'scenes', or 'data' with train, val and test")
        if self.data and (missing := [one for one in ("train", "val", "test") if getattr(self.data, one) is None]):
            raise InputError(f"data: names no {missing[0]} images", where, f"add --set data.{missing[0]}.annotations=…")
        if not any(run.arm for run in self.runs.values()):
            raise InputError("no run is an arm, so there is nothing to compare", where, "name the arms with 'arm'")
        above: list[str] = []
        for name, run in self.runs.items():
            at = f"{where}: runs.{name}"
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
                raise InputError(f"'{name}' cannot be a run's name", where, "use letters, digits and dashes")
            if same := [other for other in above if other.lower() == name.lower()]:
                what = f"'{same[0]}' and '{name}' are one folder where capitals do not count"
                raise InputError(what, where, "rename one")
            if run.command not in commands:
                raise InputError(f"no such command of a study: '{run.command}'", at, nearest(run.command, commands))
            self._check_options(run, inspect.signature(commands[run.command]).parameters, above, at)
            above.append(name)
            if run.command in COMMANDS:
                load_recipe(run.command, self.recipe, self.overrides(run))
            elif run.command == CLASSIFY and self.crops is None:
                raise InputError("there is nothing to classify", at, "add 'crops' to the study")

    def _check_options(
        self, run: StudyRun, parameters: Mapping[str, inspect.Parameter], above: Sequence[str], where: str
    ) -> None:
        known = [name for name in parameters if name not in GIVEN]
        for option, value in run.options.items():
            if option not in known:
                raise InputError(f"{run.command} of a study has no option '{option}'", where, nearest(option, known))
            if _is_reference(value):
                if value["run"] not in above:
                    hint = nearest(str(value["run"]), above) if above else "name one that stands above it"
                    raise InputError(f"no run '{value['run']}' above this one", where, hint)
                if unknown := [key for key in value if key not in REFERENCE]:
                    what = f"{option}: unknown key '{unknown[0]}' beside 'run'"
                    raise InputError(what, where, nearest(str(unknown[0]), REFERENCE))
                if not isinstance(value.get("file", ""), str):
                    raise InputError(f"{option}: {value['file']!r} is not a file's name", where, "quote it")
            elif isinstance(value, Mapping):
                inline_net(value, f"{where}.{option}")
            elif option in ("net", "subnet"):
                _named_net(value, f"{where}.{option}")
        for option in known:
            if parameters[option].default is inspect.Parameter.empty and option not in run.options:
                raise InputError(f"{run.command} needs '{option}'", where, "add it")


@dataclass(frozen=True)
class StudyData:
    """The images of a study, and where its recipe overrides say so.

    Attributes:
        overrides: data.SPLIT.annotations and data.SPLIT.images of every split.
        test: annotations and images that the figures are taken on; None where runs only classify.
        crops: the file of `synthetic.crops`; None where nothing is classified.
    """

    overrides: tuple[str, ...] = ()
    test: tuple[str, str] | None = None
    crops: Path | None = None


def own_data(settings: DataSettings) -> StudyData:
    """The images of a `data` section, read and checked once. Raises InputError where they are at fault."""
    named = [split for split in SPLITS if getattr(settings, split) is not None]
    loaded = dict(zip(named, load_splits(settings, *named), strict=True))
    warn_of_shared(loaded["train"], loaded["test"], "test")
    values = settings.model_dump(mode="json", exclude_none=True)
    for split, data in loaded.items():  # another process may run in another folder
        places = {"annotations": data.annotations_path, "images": data.images_dir}
        values[split] = {key: str(path.absolute()) for key, path in places.items()}
    return StudyData(tuple(flattened({"data": values})), (values["test"]["annotations"], values["test"]["images"]))


def flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`a.b=value` for each value of nested mappings; JSON is YAML."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flattened(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={json.dumps(inner)}"


def net_file(folder: Path, run: str, option: str) -> Path:
    """Where the network is written that an option of a run gives as a mapping."""
    return folder / f"{run}-{option}.yaml"


def resolved_option(value: Any, runs: Path, net: Path) -> Any:
    """An option as a command takes it: of a reference its path below `runs`, of a network's mapping the file `net`."""
    if _is_reference(value):
        return str(runs / value["run"] / value.get("file", ""))
    return str(net) if isinstance(value, Mapping) else value


def inline_net(value: Mapping[str, Any], where: object) -> NetSpec:
    """A network's spec as a study's YAML gives it, of any family. Raises InputError that names `where`."""
    changes = dict(value)
    base = _named_net(changes.pop("preset"), where).to_dict() if "preset" in changes else {}
    return read_spec({**base, **changes}, where)


def option_basis(option: str, value: Any) -> Any:
    """What an option rests on by content: a network's spec, a file's SHA-256; None: on nothing but its value."""
    if option in ("net", "subnet") and not _is_reference(value):
        spec = inline_net(value, option) if isinstance(value, Mapping) else _named_net(value, option)
        return plain(spec.to_dict())
    if isinstance(value, str) and option in (*CHECKPOINTS, "latency_table"):
        with suppress(InputError):  # the run says what is wrong
            return files.sha256(find_checkpoint(value) if option in CHECKPOINTS else value)
    return None


def _named_net(value: Any, where: object) -> NetSpec:
    """The network of a preset's name or a file. Raises InputError that names `where`."""
    if not isinstance(value, str):
        raise InputError(f"{value!r:.60} is not a network", where, "name a preset or a file, or write out its spec")
    try:
        return load_net(value)
    except InputError as error:
        fault = error.faults[0]
        raise InputError(f"{fault.where}: {fault.what}" if fault.where else fault.what, where, fault.hint) from None


def _is_reference(value: Any) -> bool:
    return isinstance(value, Mapping) and "run" in value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        inner = merged.get(key)
        both = isinstance(inner, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged
