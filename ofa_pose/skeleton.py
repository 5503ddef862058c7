"""What a person's joints are: the one object that data, targets, decoder, metrics and drawing all read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import read_yaml

AREA_OF_BOX = 0.53  # the share of a person's box that stands in for its area in OKS (the CrowdPose authors' figure)
DEFAULT_SIGMA = 0.079  # as wide as COCO's shoulder, for joints nobody has measured


@dataclass(frozen=True)
class Skeleton:
    """The joints of a keypoint dataset.

    Attributes:
        name: 'coco', 'crowdpose' or the dataset's own.
        joints: J joint names, in the order of the annotations.
        sigmas: J OKS constants k/2 as pycocotools uses them (Ronchi and Perona, 2017).
        flip_pairs: index pairs (left, right) that change places when an image is mirrored.
        limbs: index pairs that are drawn as bones and that order the grouping.
    """

    name: str
    joints: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]

    @property
    def flip_index(self) -> tuple[int, ...]:
        """J indices: joint j of a mirrored image is joint flip_index[j] of the original."""
        index = list(range(len(self.joints)))
        for left, right in self.flip_pairs:
            index[left], index[right] = right, left
        return tuple(index)

    @property
    def grouping_order(self) -> tuple[int, ...]:
        """J indices from the middle of the limb graph outwards (torso first): joints least far from all others lead."""
        count = len(self.joints)
        reach = [_distances(j, count, self.limbs) for j in range(count)]
        return tuple(sorted(range(count), key=lambda j: (sum(reach[j]), j)))

    def differences(self, other: Skeleton) -> str:
        """What differs between two skeletons of the same joints, such as 'flip pairs and sigmas'.

        It is '' where nothing does, and where their joints are not the same.
        """

        def parts(one: Skeleton) -> dict[str, Any]:
            flips, limbs = ({frozenset(pair) for pair in pairs} for pairs in (one.flip_pairs, one.limbs))
            return {"flip pairs": flips, "sigmas": one.sigmas, "limbs": limbs}

        here, there = parts(self), parts(other)
        return " and ".join(name for name in here if here[name] != there[name] and self.joints == other.joints)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict for YAML, JSON and checkpoints; `from_dict` reads it back."""
        names = self.joints
        return {
            "name": self.name,
            "joints": list(names),
            "sigmas": list(self.sigmas),
            "flip_pairs": [[names[a], names[b]] for a, b in self.flip_pairs],
            "limbs": [[names[a], names[b]] for a, b in self.limbs],
        }

    @classmethod
    def from_dict(cls, value: Any, where: object = "") -> Skeleton:
        """Read what `to_dict` writes. Raises InputError naming `where` and the fault."""
        fields = tuple(cls.__dataclass_fields__)
        if not isinstance(value, Mapping) or "joints" not in value:
            raise InputError("is not a skeleton", where, "give name, joints, sigmas, flip_pairs and limbs")
        for key in value:
            if key not in fields:
                raise InputError(f"unknown key '{key}' in a skeleton", where, nearest(str(key), fields))
        joints = tuple(str(name) for name in _list(value, "joints", where))
        if len(set(joints)) != len(joints) or not joints:
            raise InputError("joints must be distinct names, at least one", where, "rename the doubled joint")
        sigmas = tuple(_list(value, "sigmas", where)) or (DEFAULT_SIGMA,) * len(joints)
        if len(sigmas) != len(joints):
            raise InputError(f"{len(sigmas)} sigmas for {len(joints)} joints", where, "give one positive sigma a joint")
        for sigma in sigmas:
            if not isinstance(sigma, int | float) or not 0 < sigma < math.inf:
                raise InputError(f"sigma {sigma!r} is not a positive number", where, "give one positive sigma a joint")
        flips, limbs = (_index_pairs(_list(value, key, where), joints, key, where) for key in ("flip_pairs", "limbs"))
        flipped = [joint for pair in flips for joint in pair]
        for joint in flipped:
            if flipped.count(joint) > 1:
                raise InputError(f"'{joints[joint]}' is twice in flip_pairs", where, "name a joint in one pair only")
        return cls(str(value.get("name", "custom")), joints, tuple(float(s) for s in sigmas), flips, limbs)


def _list(value: Mapping[str, Any], key: str, where: object) -> list[Any]:
    entries = value.get(key) or []
    if not isinstance(entries, list | tuple):
        raise InputError(f"{key} of a skeleton is not a list", where, f"write it as '{key}: [...]'")
    return list(entries)


def _index_pairs(pairs: Sequence[Any], joints: tuple[str, ...], key: str, where: object) -> tuple[tuple[int, int], ...]:
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError(f"{key} entry {pair!r} is not a pair", where, "name two joints, as [a, b]")
        for name in pair:
            if str(name) not in joints:
                raise InputError(f"unknown joint '{name}' in {key}", where, f"use names of: {', '.join(joints)}")
    return tuple((joints.index(str(a)), joints.index(str(b))) for a, b in pairs)


def _distances(start: int, count: int, limbs: Sequence[tuple[int, int]]) -> list[int]:
    """How many limbs each joint lies from one joint; `count` where none lead there."""
    distance = [count] * count
    distance[start] = 0
    for _ in range(count):
        for a, b in limbs:
            distance[a], distance[b] = min(distance[a], distance[b] + 1), min(distance[b], distance[a] + 1)
    return distance


def _skeleton(name: str, joints: str, sigmas: Sequence[float], limbs: str) -> Skeleton:
    names = tuple(joints.split())
    pairs = tuple((names.index(n), names.index(n.replace("left", "right"))) for n in names if n.startswith("left"))
    bones = tuple((names.index(a), names.index(b)) for a, b in (limb.split("-") for limb in limbs.split()))
    return Skeleton(name, names, tuple(sigmas), pairs, bones)


COCO = _skeleton(
    "coco",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle",
    (0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062)
    + (0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    "left_ankle-left_knee left_knee-left_hip right_ankle-right_knee right_knee-right_hip left_hip-right_hip "
    "left_shoulder-left_hip right_shoulder-right_hip left_shoulder-right_shoulder left_shoulder-left_elbow "
    "right_shoulder-right_elbow left_elbow-left_wrist right_elbow-right_wrist left_eye-right_eye nose-left_eye "
    "nose-right_eye left_eye-left_ear right_eye-right_ear left_ear-left_shoulder right_ear-right_shoulder",
)
CROWDPOSE = _skeleton(
    "crowdpose",
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip right_hip "
    "left_knee right_knee left_ankle right_ankle head neck",
    [0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089, 0.079, 0.079],
    "head-neck neck-left_shoulder neck-right_shoulder left_shoulder-left_elbow left_elbow-left_wrist "
    "right_shoulder-right_elbow right_elbow-right_wrist left_shoulder-left_hip right_shoulder-right_hip "
    "left_hip-right_hip left_hip-left_knee left_knee-left_ankle right_hip-right_knee right_knee-right_ankle",
)
BUILT_IN = {"coco": COCO, "crowdpose": CROWDPOSE}


def load_skeleton(name: str | Path) -> Skeleton:
    """A skeleton by built-in name ('coco', 'crowdpose') or from a YAML file. Raises InputError."""
    if str(name) in BUILT_IN:
        return BUILT_IN[str(name)]
    if not Path(name).is_file():
        raise InputError(
            f"no such skeleton: '{name}'", hint="use coco, crowdpose or a YAML file (data check drafts one)"
        )
    return Skeleton.from_dict(read_yaml(name), name)


def same_joints(names: Sequence[str]) -> Skeleton | None:
    """The built-in skeleton with exactly these joint names in this order, if there is one."""
    return next((s for s in BUILT_IN.values() if s.joints == tuple(names)), None)


def draft(name: str, joints: Sequence[str], limbs: Sequence[Sequence[int]] = ()) -> Skeleton:
    """A first guess at a custom skeleton: pairs by left and right in the names, known sigmas, 1-based limbs.

    Limbs that point outside the joints are dropped (CrowdPose's own files hold COCO's limbs).
    """
    names = tuple(joints)
    known = {joint: sigma for s in BUILT_IN.values() for joint, sigma in zip(s.joints, s.sigmas, strict=True)}
    sigmas = tuple(known.get(joint, DEFAULT_SIGMA) for joint in names)
    bones = tuple((a - 1, b - 1) for a, b in limbs if 1 <= a <= len(names) and 1 <= b <= len(names))
    return Skeleton(name, names, sigmas, _pairs_by_name(names), bones)


def _pairs_by_name(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    pairs: list[tuple[int, int]] = []
    paired: set[str] = set()
    for joint in names:
        other = next((mirror for mirror in _mirrors(joint) if mirror in names), joint)
        if other != joint and not {joint, other} & paired:
            pairs.append((names.index(joint), names.index(other)))
            paired |= {joint, other}
    return tuple(pairs)


def _mirrors(joint: str) -> Iterator[str]:
    """The names that the joint on the other side may have."""
    for left, right in (("left", "right"), ("Left", "Right"), ("l_", "r_"), ("L_", "R_"), ("_l", "_r"), ("_L", "_R")):
        for here, there in ((left, right), (right, left)):
            if here in joint:
                yield joint.replace(here, there, 1)
