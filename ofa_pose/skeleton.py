"""What a person's joints are: the one object that data, targets, decoder, metrics and drawing all read."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.files import read_yaml

AREA_OF_BOX = 0.53  # the share of a person's box that stands in for its area in OKS (the CrowdPose authors' figure)
DEFAULT_SIGMA = 0.079  # as wide as COCO's shoulder, for joints nobody has measured
MOST_JOINTS = 1000  # more, or more limbs or longer names, are a slip of the pen, or an attack
MOST_LIMBS = 10_000
LONGEST_NAME = 200  # characters
_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
_SIDE = re.compile("left|right|l|r", re.IGNORECASE)
_SIDE_WORD = re.compile("left|right", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^A-Za-z0-9]+")  # 'LEFT_eye' and 'legL1' apart


@dataclass(frozen=True)
class Skeleton:
    """The joints of a keypoint dataset.

    Attributes:
        name: 'coco', 'crowdpose' or the dataset's own.
        joints: J joint names, in the order of the annotations.
        sigmas: J OKS constants k/2 as pycocotools uses them (Ronchi and Perona, 2017).
        flip_pairs: index pairs (left, right) that change places when an image is mirrored.
        limbs: index pairs that are drawn as bones and that order the grouping.
        mirror: whether left and right are known, so that images may be mirrored; else neither training nor a flip test
            mirrors them.
    """

    name: str
    joints: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    limbs: tuple[tuple[int, int], ...]
    mirror: bool = True

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
        neighbours: list[set[int]] = [set() for _ in range(count)]
        for a, b in self.limbs:
            neighbours[a].add(b)
            neighbours[b].add(a)
        reach = [_distances(j, neighbours) for j in range(count)]
        return tuple(sorted(range(count), key=lambda j: (sum(reach[j]), j)))

    def differences(self, other: Skeleton) -> str:
        """What differs between two skeletons of the same joints, such as 'flip pairs and sigmas'.

        It is '' where nothing does, and where their joints are not the same.
        """

        def parts(one: Skeleton) -> dict[str, Any]:
            flips, limbs = ({frozenset(pair) for pair in pairs} for pairs in (one.flip_pairs, one.limbs))
            return {"flip pairs": flips if one.mirror else None, "sigmas": one.sigmas, "limbs": limbs}

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
            **({} if self.mirror else {"mirror": False}),
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
        check_size(joints, _list(value, "limbs", where), where)
        sigmas = tuple(_list(value, "sigmas", where)) or (DEFAULT_SIGMA,) * len(joints)
        if len(sigmas) != len(joints):
            raise InputError(f"{len(sigmas)} sigmas for {len(joints)} joints", where, "give one positive sigma a joint")
        for sigma in sigmas:
            if not isinstance(sigma, int | float) or not 0 < sigma <= sys.float_info.max:
                raise InputError(f"sigma {sigma!r} is not a positive number", where, "give one positive sigma a joint")
        flips, limbs = (_index_pairs(_list(value, key, where), joints, key, where) for key in ("flip_pairs", "limbs"))
        for joint, times in Counter(joint for pair in flips for joint in pair).items():
            if times > 1:
                raise InputError(f"'{joints[joint]}' is twice in flip_pairs", where, "name a joint in one pair only")
        mirror = value.get("mirror", value.get("flip_pairs") is not None)
        if not isinstance(mirror, bool):
            raise InputError(f"mirror is {mirror!r}", where, "give true or false")
        return cls(str(value.get("name", "custom")), joints, tuple(float(s) for s in sigmas), flips, limbs, mirror)


def check_size(joints: Sequence[str], limbs: Sequence[Any], where: object) -> None:
    """Raise InputError where a skeleton is larger than any that a network learns."""
    for what, found, most in (("joints", len(joints), MOST_JOINTS), ("limbs", len(limbs), MOST_LIMBS)):
        if found > most:
            raise InputError(f"has {found:,} {what}", where, f"give at most {most:,}")
    long = next((name for name in joints if len(name) > LONGEST_NAME), None)
    if long is not None:
        hint = f"give names of at most {LONGEST_NAME} characters"
        raise InputError(f"joint '{long:.40}…' has a name of {len(long):,} characters", where, hint)


def _list(value: Mapping[str, Any], key: str, where: object) -> list[Any]:
    entries = value.get(key) or []
    if not isinstance(entries, list | tuple):
        raise InputError(f"{key} of a skeleton is not a list", where, f"write it as '{key}: [...]'")
    return list(entries)


def _index_pairs(pairs: Sequence[Any], joints: tuple[str, ...], key: str, where: object) -> tuple[tuple[int, int], ...]:
    places = {name: place for place, name in enumerate(joints)}
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError(f"{key} entry {pair!r} is not a pair", where, "name two joints, as [a, b]")
        for name in pair:
            if str(name) not in places:
                raise InputError(f"unknown joint '{name}' in {key}", where, f"use names of: {', '.join(joints)}")
    return tuple((places[str(a)], places[str(b)]) for a, b in pairs)


def _distances(start: int, neighbours: Sequence[set[int]]) -> list[int]:
    """How many limbs each joint lies from one joint; the number of all joints where none lead there."""
    distance = [len(neighbours)] * len(neighbours)
    distance[start], edge, steps = 0, {start}, 0
    while edge:
        steps += 1
        edge = {joint for known in edge for joint in neighbours[known] if distance[joint] > steps}
        for joint in edge:
            distance[joint] = steps
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
    """A first guess at a custom skeleton: pairs by the sides in the names, known sigmas, limbs as the file lists them.

    Limbs are counted from 1, as COCO does, or from 0 where the list holds a 0. Those that point outside the joints are
    dropped (CrowdPose's own files hold COCO's limbs). Where no pairs are found, or a joint's other side is missing,
    images are not to be mirrored.
    """
    names = tuple(joints)
    known = {joint: sigma for s in BUILT_IN.values() for joint, sigma in zip(s.joints, s.sigmas, strict=True)}
    sigmas = tuple(known.get(joint, DEFAULT_SIGMA) for joint in names)
    first = 0 if any(0 in limb for limb in limbs) else 1
    bones = tuple((a - first, b - first) for a, b in limbs if all(first <= end < first + len(names) for end in (a, b)))
    pairs = _pairs_by_name(names)
    return Skeleton(name, names, sigmas, pairs, bones, mirror=bool(pairs) and not one_sided(names))


def one_sided(names: Sequence[str]) -> list[str]:
    """The joints whose names say left or right, and whose other side is not among the names."""
    paired = {names[joint] for pair in _pairs_by_name(tuple(names)) for joint in pair}
    return [name for name in names if name not in paired and any(map(_SIDE.fullmatch, _WORDS.findall(name)))]


def _pairs_by_name(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    pairs: list[tuple[int, int]] = []
    paired: set[str] = set()
    for joint in names:
        other = next((mirror for mirror in _mirrors(joint) if mirror in names and mirror != joint), joint)
        if other != joint and not {joint, other} & paired:
            pairs.append((names.index(joint), names.index(other)))
            paired |= {joint, other}
    return tuple(pairs)


def _mirrors(joint: str) -> Iterator[str]:
    """The names that the joint on the other side may have, the likeliest first.

    A side is a word or letter of its own (left_eye, LEye, eyeL, legL1), 'left' inside a word (lefteye), or a word's
    first or last letter (lwrist, Relbow, pawFL).
    """
    words = list(_WORDS.finditer(joint))
    whole = [word.span() for word in words if _SIDE.fullmatch(word[0])]
    inside = [side.span() for side in _SIDE_WORD.finditer(joint)]
    ends = [(at, at + 1) for word in words if word[0].isalpha() for at in (word.start(), word.end() - 1)]
    for spans in (whole, *([span] for span in (*whole, *inside, *ends))):
        yield _swapped(joint, spans)


def _swapped(joint: str, spans: Sequence[tuple[int, int]]) -> str:
    """A name with the sides at these places exchanged, upper case as it was."""
    for start, end in reversed(spans):
        here = joint[start:end]
        there = _OTHER_SIDE.get(here.lower(), here)
        if there != here:
            there = there.upper() if here.isupper() else there.title() if here.istitle() else there
        joint = joint[:start] + there + joint[end:]
    return joint
