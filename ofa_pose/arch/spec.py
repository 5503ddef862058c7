"""A network's shape, frozen and hashable, with YAML and JSON round trips; ArchSpec is LitePose's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args

from ofa_pose.skeleton import MOST_JOINTS
from ofa_pose.utils.errors import InputError, nearest

TOTAL_STRIDE = 16  # the deepest map stands at 1/16 of the input
MEAN = (0.485, 0.456, 0.406)  # ImageNet's, RGB, of values in [0, 1]: a network's input is normalised with them
STD = (0.229, 0.224, 0.225)
STAGES = 4
DECONVS = 3
# More than any pose network has, so that a slip of the pen is refused before it fills the memory.
MOST = {"resolution": 8192, "width": 4096, "expansion": 64, "blocks": 64, "modules": 16, "kernel": 63}
MOST |= {"joints": MOST_JOINTS}
Head = Literal["fusion", "plain"]
HEADS: tuple[str, ...] = get_args(Head)
FORMS = {  # what a field's value may be, by its annotation: in words, and an example
    "int": ("a whole number", "8"),
    "str": ("a text", "name"),
    "tuple[int, ...]": ("a list of whole numbers", "[8, 16]"),
    "tuple[tuple[int, ...], ...]": ("a list of lists of whole numbers", "[[8, 16], [16, 24]]"),
}
T = TypeVar("T")


class NetSpec:
    """What the spec of any family of networks is: a frozen dataclass with these fields, and its family's name.

    Attributes:
        family: of `ofa_pose.families`; files name it where it is not LitePose.
        resolution: side of the square input it is counted for, in pixels; a multiple of 16.
        joints: number of keypoints J.
    """

    family: ClassVar[str]
    multiple: ClassVar[int] = TOTAL_STRIDE  # of which the resolution is one
    resolution: int
    joints: int

    def __post_init__(self) -> None:
        own, common = self.problem(), exceeded({"resolution": self.resolution, "joints": self.joints})
        problem = "; ".join(filter(None, (own, common)))
        if self.resolution <= 0 or self.resolution % self.multiple:
            problem = f"resolution {self.resolution} is not a positive multiple of {self.multiple}"
        if problem:
            raise InputError(f"no valid network: {problem}", hint="correct that value of the spec")

    def problem(self) -> str:
        """Why no network has this shape, whatever its resolution, in words; "" where one has."""
        return ""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input it is counted for, in pixels."""
        return self.resolution, self.resolution

    def with_joints(self, joints: int) -> Self:
        """The same network for another number of keypoints."""
        return replace(self, joints=joints)  # type: ignore[type-var]

    def at(self, resolution: int) -> Self:
        """The same network at another input resolution."""
        return replace(self, resolution=resolution)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for YAML, JSON and checkpoints."""
        values = asdict(self)  # type: ignore[call-overload]
        return {"family": self.family} | {key: _plain(value) for key, value in values.items()}

    @classmethod
    def from_dict(cls, value: Any, where: object = "") -> Self:
        """Read what `to_dict` writes. Raises InputError that names `where` and the key."""
        if isinstance(value, Mapping) and "family" in value:
            if value["family"] != cls.family:
                what = f"is a network of the family '{value['family']}', not '{cls.family}'"
                raise InputError(what, where, f"name one of the family '{cls.family}' here")
            value = {key: item for key, item in value.items() if key != "family"}
        return read_fields(cls, value, "network spec", where)

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that name this spec."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    def __str__(self) -> str:
        return f"{self.family}, {self.resolution} pixels, {self.joints} joints, {self.digest}"


@dataclass(frozen=True)
class ArchSpec(NetSpec):
    """One LitePose network (Wang et al., CVPR 2022, sections 3 and 4).

    Attributes:
        resolution: side of the square input it is counted for, in pixels; a multiple of 16.
        stem, stages: output channels of the stem (C0) and of the four stages.
        expansions: for each stage, the expansion factor of each of its blocks (so its length is the depth).
        deconv: filters of the three deconv steps.
        kernel: side of the depthwise kernels in the stages; odd.
        joints: number of keypoints J; the outputs have 2J and J channels.
        head: 'fusion' (section 3.3): deconvs and outputs read a raw backbone map besides the refined path; 'plain': the
            refined path alone, as in SimpleBaseline (Xiao et al., ECCV 2018).
    """

    resolution: int
    stem: int
    stages: tuple[int, ...]
    expansions: tuple[tuple[int, ...], ...]
    deconv: tuple[int, ...]
    kernel: int = 7
    joints: int = 17
    head: Head = "fusion"
    family: ClassVar[str] = "litepose"

    def problem(self) -> str:
        """Why no LitePose has this shape; "" where one has."""
        plain, expansions = (self.stem, *self.stages, *self.deconv), [e for stage in self.expansions for e in stage]
        if len(self.stages) != STAGES or len(self.expansions) != STAGES or len(self.deconv) != DECONVS:
            return f"it needs {STAGES} stages, {STAGES} lists of expansions and {DECONVS} deconv filters"
        if min(self.depth) < 1:
            return "every stage needs at least one block"
        if min(*plain, *expansions, self.joints) < 1:
            return "widths, expansions and joints must be at least 1"
        if self.kernel < 1 or self.kernel % 2 == 0:
            return f"kernel {self.kernel} is not a positive odd number"
        if self.head not in HEADS:
            return f"head {self.head!r} is none of {', '.join(HEADS)}"
        largest = {"width": max(plain), "expansion": max(expansions), "blocks": max(self.depth), "kernel": self.kernel}
        return exceeded(largest)

    @property
    def depth(self) -> tuple[int, ...]:
        """The number of blocks of each stage."""
        return tuple(len(stage) for stage in self.expansions)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict; it names no family, and the head only where that is not the fusion head."""
        value = super().to_dict()
        del value["family"]  # so that files and digests are those of versions that knew no other
        if self.head == "fusion":
            del value["head"]
        return value

    def __str__(self) -> str:
        expansions = {e for stage in self.expansions for e in stage}
        blocks = "/".join(map(str, self.depth))
        shown = expansions.pop() if len(expansions) == 1 else "|".join(",".join(map(str, s)) for s in self.expansions)
        widths = f"{self.stem};{','.join(map(str, self.stages))};{','.join(map(str, self.deconv))}"
        head = "" if self.head == "fusion" else f";{self.head} head"
        return f"{self.resolution};{widths};e{shown};k{self.kernel};blocks {blocks}{head}"


@dataclass(frozen=True)
class ForeignSpec(NetSpec):
    """What is known of a network of another family where its code is not at hand."""

    resolution: int
    joints: int
    name: str
    family: ClassVar[str] = "foreign"

    def problem(self) -> str:
        """Why it is not a network's; "" where it is."""
        return "" if self.joints > 0 else f"{self.joints} joints"

    def __str__(self) -> str:
        return f"{self.name}, {self.resolution} pixels"


def read_shape(value: Any, where: object = "") -> NetSpec:
    """The spec that an exported model carries: LitePose's, or of other families what is needed to run it.

    Raises InputError that names `where`.
    """
    family = value.get("family", ArchSpec.family) if isinstance(value, Mapping) else ArchSpec.family
    if family == ArchSpec.family:
        return ArchSpec.from_dict(value, where)
    known = {key: value[key] for key in ("resolution", "joints") if key in value}
    return ForeignSpec.from_dict(known | {"name": family}, where)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def read_fields(kind: type[T], value: Any, what: str, where: object) -> T:
    """A dataclass of texts, whole numbers and tuples of these from a mapping. Raises InputError that names `where`."""
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    needed = [key for key, field in known.items() if field.default is MISSING]
    if not isinstance(value, Mapping):
        raise InputError(f"holds no {what}", where, f"give {', '.join(needed)}")
    for key in value:
        if key not in known:
            valid = [*known, "family"] if hasattr(kind, "family") else known
            raise InputError(f"unknown key '{key}' in a {what}", where, nearest(str(key), valid))
    for key in needed:
        if key not in value:
            raise InputError(f"the {what} has no '{key}'", where, "add it")
    values = {}
    for key, item in value.items():
        form = str(known[key].type)
        try:
            values[key] = _parsed(item, form)
        except (TypeError, ValueError, OverflowError):
            wanted, example = FORMS.get(form, (f"of type {form}", "…"))
            fault = f"'{key}' of the {what} is {item!r:.60}, not {wanted}"
            raise InputError(fault, where, f"write it as in {key}: {example}") from None
    try:
        return kind(**values)
    except InputError as error:
        raise InputError(error.faults[0].what, where, error.faults[0].hint) from None


def _parsed(value: Any, form: str) -> Any:
    """A value for a field of one of the `FORMS`, or of another as it is; '8' and True are not whole numbers.

    Raises TypeError, ValueError or OverflowError where it is none.
    """
    if form.startswith("tuple["):
        if not isinstance(value, list | tuple):
            raise TypeError
        inner = form.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_parsed(item, inner) for item in value)
    if form == "int" and (isinstance(value, bool) or int(value) != value):
        raise ValueError
    if form == "str" and not isinstance(value, str | int | float):
        raise TypeError
    return {"int": int, "str": str}[form](value) if form in FORMS else value


def exceeded(largest: Mapping[str, int]) -> str:
    """Which values are more than MOST has under their names, in words; "" where none is."""
    found = (f"{name} {value} is more than {MOST[name]}" for name, value in largest.items() if value > MOST[name])
    return "; ".join(found)
