"""Multiply-adds and parameters of a plan, in the three conventions that people quote.

exact: multiply-adds of convolutions and transposed convolutions (a transposed one costs input pixels × weights).
thop:  what thop.profile counts: a transposed convolution per OUTPUT pixel (4 × too many at stride 2) + 4 per
       BatchNorm element. Budgets are in this convention by default: it is the one LitePose's readers expect.
paper: the LitePose paper's table: per output pixel + 2 per BatchNorm element + 1 per ReLU element.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal, get_args

from ofa_pose.arch.plan import Layer, Plan, make_plan
from ofa_pose.arch.spec import ArchSpec

Convention = Literal["thop", "exact", "paper"]
CONVENTIONS: tuple[str, ...] = get_args(Convention)


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of one forward pass at batch 1, in each convention."""

    thop: int
    exact: int
    paper: int

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.thop + other.thop, self.exact + other.exact, self.paper + other.paper)

    def to_dict(self) -> dict[str, int]:
        """{'thop': …, 'exact': …, 'paper': …}"""
        return asdict(self)


def layer_macs(layer: Layer) -> Macs:
    """Multiply-adds of one layer with its normalisation and activation."""
    elements = layer.cout * layer.side_out**2
    norm, act = elements * layer.norm, elements * (layer.act is not None)
    if layer.kind == "norm":
        return Macs(4 * norm, 0, 2 * norm + act)
    weights = layer.cout * (layer.cin // layer.groups) * layer.kernel**2
    by_output = weights * layer.side_out**2
    exact = weights * layer.side_in**2 if layer.kind == "deconv" else by_output
    return Macs(by_output + 4 * norm, exact, by_output + 2 * norm + act)


def layer_params(layer: Layer) -> int:
    """Trainable parameters of one layer: weights, and the BatchNorm's scale and shift."""
    weights = 0 if layer.kind == "norm" else layer.cout * (layer.cin // layer.groups) * layer.kernel**2
    return weights + 2 * layer.cout * layer.norm


def plan_macs(plan: Plan) -> Macs:
    """Multiply-adds of a network at its spec's resolution."""
    return sum((layer_macs(layer) for layer in plan.layers()), Macs(0, 0, 0))


@lru_cache(maxsize=65536)
def spec_macs(spec: ArchSpec) -> Macs:
    """Multiply-adds of the network that a spec describes."""
    return plan_macs(make_plan(spec))


def spec_params(spec: ArchSpec) -> int:
    """Trainable parameters of the network that a spec describes."""
    return sum(layer_params(layer) for layer in make_plan(spec).layers())
