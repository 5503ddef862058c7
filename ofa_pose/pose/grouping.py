"""Whom joints belong to, by associative embedding (Newell, Huang and Deng, 2017).

`ofa_pose/web/grouping.js` and `ofa_pose/native/grouping.hpp` are the same in JavaScript and C++ and change with this.
All three compute in doubles and in the same order, so that ties break alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ofa_pose.pose.geometry import Array

STEP_COST = 100.0  # of a pair of tags that do not fit: no difference of heats outweighs it
TIE_WEIGHT = 1e-3  # of heat times heat, against heat: decides ties only


@dataclass(frozen=True)
class FoundJoints:
    """What may be people's joints on a batch of images, sorted by plane = image · J + joint.

    Attributes:
        plane: int64 (N,).
        places: float64 (N, 3): x, y in input pixels and heat.
        tags: float64 (N, T).
    """

    plane: Array
    places: Array
    tags: Array


@dataclass(frozen=True)
class Groups:
    """The people of a batch of images, sorted by image, each image's best first.

    Attributes:
        image: int64 (P,).
        member: int64 (P, J): the number of a person's joint among the `FoundJoints`, or -1.
        scores: float64 (P,): the sum of the heats of a person's joints over J.
    """

    image: Array
    member: Array
    scores: Array

    @property
    def found(self) -> Array:
        """bool (P, J): which joints people have."""
        return self.member >= 0

    def keypoints(self, joints: FoundJoints) -> Array:
        """float32 (P, J, 3): x, y in input pixels and heat; zeros where a person has no such joint."""
        keypoints = np.zeros((*self.member.shape, 3), np.float32)
        keypoints[self.found] = joints.places[self.member[self.found]]
        return keypoints


def group(
    joints: FoundJoints, batch: int, order: Sequence[int], tag_threshold: float, reach: float, max_people: int
) -> Groups:
    """The people of each image of a batch.

    Args:
        order: the J joints' indices in the order of grouping, `Skeleton.grouping_order`.
        tag_threshold: a joint may be a person's where its tag lies within half of this from the mean of the person's.
        reach: input pixels; the longer side of the box round a person's joints is at most this.
        max_people: at most so many people an image, the best ones.
    """
    count = len(order)
    bounds = np.searchsorted(joints.plane, np.arange(batch * count + 1)).tolist()
    limit = (tag_threshold / 2) ** 2
    groups = [
        _group_image(joints, bounds[b * count : (b + 1) * count + 1], order, limit, reach, max_people)
        for b in range(batch)
    ]
    image = np.repeat(np.arange(batch), [len(strength) for _, strength in groups])
    member, strength = (np.concatenate(parts) for parts in zip(*groups, strict=True))
    return Groups(image, member, strength / count)


def _group_image(
    joints: FoundJoints, bounds: Sequence[int], order: Sequence[int], limit: float, reach: float, max_people: int
) -> tuple[Array, Array]:
    """The people of one image, best first: `Groups.member`, and the sums of heats.

    A joint's peaks, bounds[joint] to bounds[joint + 1], go to the people so that the sum of the costs is least: nothing
    where tags fit, so that the higher peak decides, and the same for every other pair, so that hopeless ones do not
    push good ones apart. Among equal sums higher peaks go to people with more heat, or a second peak beside a joint
    would tear a person in two.
    """
    most = bounds[-1] - bounds[0]
    member = np.full((most, len(order)), -1)
    tag_sum, strength, size = np.zeros((most, joints.tags.shape[1])), np.zeros(most), np.zeros(most)
    box = np.zeros((most, 4))  # of a person: the corners of greatest x, y, -x and -y
    people = 0
    for joint in order:
        start, end = bounds[joint], bounds[joint + 1]
        if start == end:
            continue
        place, heat, tag = joints.places[start:end, :2], joints.places[start:end, 2], joints.tags[start:end]
        corner = np.concatenate([place, -place], axis=1)
        fresh = np.ones(end - start, bool)
        if people:
            apart = tag[:, None] - (tag_sum[:people] / size[:people, None])
            near = np.einsum("ijk,ijk->ij", apart, apart) < limit
            if reach < math.inf:
                grown = np.maximum(box[:people], corner[:, None])
                near &= (grown[..., :2] + grown[..., 2:] <= reach).all(axis=2)
            cost = np.where(near, -TIE_WEIGHT * heat[:, None] * strength[:people], STEP_COST) - heat[:, None]
            peak, person = linear_sum_assignment(cost)
            taken = near[peak, person]
            peak, person = peak[taken], person[taken]
            member[person, joint] = start + peak
            tag_sum[person] += tag[peak]
            strength[person] += heat[peak]
            size[person] += 1
            box[person] = np.maximum(box[person], corner[peak])
            fresh[peak] = False
        alone = np.flatnonzero(fresh)
        added = slice(people, people + len(alone))
        member[added, joint] = start + alone
        tag_sum[added], strength[added], size[added], box[added] = tag[alone], heat[alone], 1, corner[alone]
        people += len(alone)
    best = np.argsort(-strength[:people], kind="stable")[:max_people]
    return member[best], strength[best]
