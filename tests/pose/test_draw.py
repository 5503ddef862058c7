from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ofa_pose.pose.draw import draw_labels, draw_poses, joint_colours, person_colour
from ofa_pose.skeleton import COCO, CROWDPOSE, Skeleton, draft

GREY = np.full((240, 320, 3), 128, np.uint8)


def standing(x: float, y: float, size: float) -> np.ndarray:
    """One COCO pose (17, 3) whose joints lie on a grid, left joints to the right, all of score 0.9."""
    pose = np.array([[x, y + size * j / 17, 0.9] for j in range(17)])
    for left, right in COCO.flip_pairs:
        pose[left, 0] += size / 6
        pose[right, 0] -= size / 6
    return pose


def changed(image: np.ndarray) -> np.ndarray:
    return (image != GREY).any(axis=2)


def test_joints_and_limbs_are_drawn_where_they_are() -> None:
    pose = standing(160, 40, 150)
    out = draw_poses(GREY, pose[None], COCO)
    assert out.shape == GREY.shape and out.dtype == np.uint8 and out is not GREY
    assert (GREY == 128).all()
    drawn = changed(out)
    for x, y, _ in pose:
        assert drawn[int(y), int(x)]
    for a, b in COCO.limbs:
        x, y = (pose[a, :2] + pose[b, :2]) / 2
        assert drawn[int(y), int(x)]
    rows, columns = np.nonzero(drawn)
    assert rows.min() > 30 and rows.max() < 200 and columns.min() > 120 and columns.max() < 200


def test_a_dot_is_centred_on_its_joint() -> None:
    one = draft("one", ["tip"])
    rows, columns = np.nonzero(changed(draw_poses(GREY, np.array([[[100.0, 60.0, 1.0]]]), one)))
    assert np.mean(columns + 0.5) == pytest.approx(100, abs=0.1)
    assert np.mean(rows + 0.5) == pytest.approx(60, abs=0.1)


def test_unsure_missing_and_broken_joints_are_left_out() -> None:
    pose = standing(160, 40, 150)
    pose[:, 2] = 0.05
    assert not changed(draw_poses(GREY, pose[None], COCO, 0.1)).any()
    pose[:, 2] = 0
    assert not changed(draw_poses(GREY, pose[None], COCO, 0.0)).any()
    pose[:, 2] = 0.9
    pose[0] = np.nan
    pose[16, :2] = 1e12
    assert changed(draw_poses(GREY, pose[None], COCO)).any()
    assert not changed(draw_poses(GREY, np.zeros((0, 14, 3)), CROWDPOSE)).any()


def test_people_and_sides_have_their_own_colours() -> None:
    colours = np.array([person_colour(n) for n in range(12)])
    apart = np.abs(colours[:, None] - colours[None]).max(axis=2) + 255 * np.eye(12)
    assert apart.min() > 40
    pose = standing(160, 40, 150)
    out = draw_poses(GREY, pose[None], COCO).astype(int)
    left, right = (out[int(pose[j, 1]), int(pose[j, 0])].sum() for j in (5, 6))
    assert left > right + 100


def test_the_first_person_is_on_top() -> None:
    pose = standing(160, 40, 150)
    both = draw_poses(GREY, np.stack([pose, pose]), COCO).astype(int)
    alone = draw_poses(GREY, pose[None], COCO).astype(int)
    x, y = int(pose[0, 0]), int(pose[0, 1])
    np.testing.assert_array_equal(both[y, x], alone[y, x])


def test_large_people_have_thicker_lines() -> None:
    share = [changed(draw_poses(GREY, standing(160, 20, size)[None], COCO)).sum() / size for size in (40, 200)]
    assert share[1] > 1.3 * share[0]


def test_any_image_and_skeleton_will_do() -> None:
    limbless = draft("dots", ["a", "b"])
    out = draw_poses(np.zeros((5, 4, 3), np.uint8)[:, ::-1], np.array([[[1, 1, 1], [9, 9, 1.0]]]), limbless)
    assert out.any()


def labelled(x: float, y: float, size: float, visibility: int = 2) -> np.ndarray:
    pose = standing(x, y, size)
    pose[:, 2] = visibility
    return pose


def test_each_label_is_a_dot_in_its_joints_colour_or_a_ring_where_hidden() -> None:
    colours = joint_colours(COCO)
    for visibility in (2, 1):
        pose = labelled(160, 20, 200, visibility)
        out = draw_labels(GREY, pose[None], COCO)
        for joint, (x, y, _) in enumerate(pose):
            centre = tuple(out[round(y - 0.5), round(x - 0.5)].tolist())
            assert (centre == colours[joint]) == (visibility == 2), COCO.joints[joint]
            around = out[round(y) - 6 : round(y) + 6, round(x) - 6 : round(x) + 6].reshape(-1, 3)
            assert (around == colours[joint]).all(axis=1).sum() > 5
    nothing = labelled(160, 20, 200, 0)
    assert not changed(draw_labels(GREY, nothing[None], COCO)).any()
    assert not changed(draw_labels(GREY, np.zeros((0, 17, 3)), COCO)).any()


def test_flip_pairs_are_joined_by_dots() -> None:
    pose = np.zeros((17, 3))
    left, right = COCO.joints.index("left_wrist"), COCO.joints.index("right_wrist")
    pose[left], pose[right] = (60, 100, 2), (260, 100, 2)
    white = (draw_labels(GREY, pose[None], COCO) > 250).all(axis=2)
    assert 0.1 < white[98:103, 80:240].any(axis=0).mean() < 0.7, "dotted"
    other = draft("figure", COCO.joints[:-1] + ("tail",))
    alone = replace(other, flip_pairs=())
    assert not changed(draw_labels(GREY, pose[None], alone))[98:103, 80:240].any()


def test_what_is_odd_is_marked() -> None:
    pose = np.zeros((17, 3))
    pose[0], pose[5] = (-500, 120, 2), (10_000, -9_000, 2)
    out = draw_labels(GREY, pose[None], COCO)
    assert changed(out)[110:130, :12].any() and changed(out)[:12, -12:].any()
    one = np.zeros((1, 17, 3))
    one[0, 0] = (160, 120, 2)
    empty, given = (changed(draw_labels(GREY, one, COCO, np.array([[150, 110, side, side]]))) for side in (0, 20))
    assert changed(draw_labels(GREY, one * 1e300, COCO, np.array([[-1e300, 1e300, 1e300, 1e308]]))).any()
    assert empty[120, 144] and not given[120, 144 - 10] and given[110, 160] and not empty[110 - 20, 160]


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, draft("four", ["snout", "leftear", "rightear", "tail"])])
def test_joints_have_colours_of_their_own(skeleton: Skeleton) -> None:
    colours = joint_colours(skeleton)
    assert len(set(colours)) == len(skeleton.joints)
    for left, right in skeleton.flip_pairs:
        assert sum(colours[left]) > sum(colours[right]) + 100, "left is the lighter one"
    apart = [
        sum(abs(a - b) for a, b in zip(one, other, strict=True)) for one, other in itertools.combinations(colours, 2)
    ]
    assert min(apart) > 50
