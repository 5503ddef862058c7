"""Which joints an annotator would mark as seen, guess as hidden, or leave out: read off the painted pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofa_pose.synthetic.figures import Array
from ofa_pose.synthetic.painting import FACTOR, Painted

NEIGHBOURHOOD = 0.1  # standing heights; a hidden joint is guessed if so near to it something of the person is seen
_FACE = frozenset({"nose", "face", "head"})
_SHOWS: dict[str, frozenset[str]] = {
    "nose": _FACE,
    "left_eye": _FACE,
    "right_eye": _FACE,
    "head": frozenset({"head", "hair", "hat", "face"}),
    "neck": frozenset({"neck", "torso"}),
    **{f"{s}_ear": frozenset({f"{s}_ear", "head"}) for s in ("left", "right")},
    **{f"{s}_shoulder": frozenset({"torso", "neck", f"{s}_upper_arm"}) for s in ("left", "right")},
    **{f"{s}_elbow": frozenset({f"{s}_upper_arm", f"{s}_forearm"}) for s in ("left", "right")},
    **{f"{s}_wrist": frozenset({f"{s}_forearm", f"{s}_hand"}) for s in ("left", "right")},
    **{f"{s}_hip": frozenset({"torso", "pelvis", "skirt", f"{s}_thigh"}) for s in ("left", "right")},
    **{f"{s}_knee": frozenset({f"{s}_thigh", f"{s}_shin", "skirt"}) for s in ("left", "right")},
    **{f"{s}_ankle": frozenset({f"{s}_shin", f"{s}_foot"}) for s in ("left", "right")},
}
_TRUNK = frozenset({"torso", "pelvis", "skirt", "neck"})
# How far behind the trunk's middle (standing heights) a joint may lie and still show through its surface.
_BEHIND = {"shoulder": 0.075, "hip": 0.048}
# Nearness on the unit head from which a facial joint can be seen, and from which an annotator would guess it.
_SEEN = {"nose": (-0.12, 0.05), "eye": (0.0, 0.15), "ear": (-0.3, 0.0)}


def label_joints(painted: Painted, owner: Array, number: int, joints: Sequence[str]) -> Array:
    """(J, 3) x, y in image pixels and visibility of person `number` under COCO's rules; zeros where unlabelled.

    `owner` is the image-sized map of who is on top: v = 2 lies on a pixel of the person's own.
    """
    labels = np.zeros((len(joints), 3))
    side = owner.shape[0]
    reach = max(2.0, NEIGHBOURHOOD * painted.scale)
    for row, name in enumerate(joints):
        x, y = painted.joints[name][:2]
        if not (0 <= x < side and 0 <= y < side):
            continue
        seen = _visibility(painted, owner, number, name, reach)
        if seen:
            # two decimals, as stored, must not round a joint out of the image or off its pixel
            labels[row] = (np.floor(x * 100) / 100, np.floor(y * 100) / 100, seen)
    return labels


def _visibility(painted: Painted, owner: Array, number: int, name: str, reach: float) -> int:
    x, y = (int(value) for value in painted.joints[name][:2])
    kind = name.rpartition("_")[2]
    turned = False
    if kind in _SEEN:
        seen_from, guessed_from = _SEEN[kind]
        if painted.facing[name] < seen_from:
            return 0
        turned = painted.facing[name] < guessed_from
    part = painted.part_at(x * FACTOR + FACTOR // 2, y * FACTOR + FACTOR // 2)
    shows = part in _SHOWS[name] and not _behind(painted, name, kind, part)
    if shows and owner[y, x] == number:
        return 2
    if turned:  # the far side of a head, and something in front of it as well
        return 0
    near = owner[max(int(y - reach), 0) : int(y + reach) + 1, max(int(x - reach), 0) : int(x + reach) + 1]
    return 1 if (near == number).any() else 0


def _behind(painted: Painted, name: str, kind: str, part: str) -> bool:
    if kind not in _BEHIND or part not in _TRUNK:
        return False
    middle = painted.joints["neck" if kind == "shoulder" else "pelvis"][2]
    return bool(painted.joints[name][2] < middle - _BEHIND[kind])
