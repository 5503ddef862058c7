"""What a latency table measures: pieces of a space's networks, and some whole networks that span it."""

from __future__ import annotations

import numpy as np

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.costs.macs import layer_macs
from ofa_pose.latency.pieces import Piece, farthest, space_pieces, spanning_pieces
from ofa_pose.utils.seeding import generator

Subject = Piece | ArchSpec  # what is measured: a piece, or a whole network

NETS = 20  # whole networks in a table
POOL = 200  # random networks that they are chosen from


def table_subjects(space: SearchSpace, joints: int, share: float) -> list[Subject]:
    """What a table of a space measures: pieces, then whole networks."""
    return [*spanning_pieces(space_pieces(space, joints), share), *reference_nets(space, joints)]


def reference_nets(space: SearchSpace, joints: int, count: int = NETS) -> list[ArchSpec]:
    """Networks that span a space: its smallest and largest, then of random ones what is farthest from those chosen.

    Networks are near that divide their multiply-adds alike between stem, stages and head.
    """
    rng = generator("latency", "reference nets")
    pool = [space.smallest(joints), space.largest(joints)]
    pool += [space.decode(space.sample(rng), joints) for _ in range(POOL)]
    pool = list(dict.fromkeys(pool))
    points = np.array([_work(spec) for spec in pool])
    points = (points - points.mean(0)) / np.maximum(points.std(0), 1e-9)
    return [pool[index] for index in farthest(points, list(range(min(2, len(pool)))), count)]


def _work(spec: ArchSpec) -> list[float]:
    """Logarithms of the multiply-adds of the stem, the stages and the head."""
    plan = make_plan(spec)
    stages = [[layer for block in stage for layer in block.layers] for stage in plan.stages]
    parts = (plan.stem, *stages, plan.head())
    return [float(np.log(sum(layer_macs(layer).exact for layer in part))) for part in parts]
