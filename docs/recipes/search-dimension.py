"""What search-dimension.diff promises: the kernel is one more gene, and a smaller one is the centre of the largest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.costs.macs import population_costs, spec_macs, spec_params
from ofa_pose.latency.pieces import space_pieces
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.utils.errors import InputError

JOINTS = 5
rng = np.random.default_rng(0)

# Genomes: one gene more, at the end; spaces without `kernels` keep theirs, so archives stay readable.
rigid, space = load_space("litepose-nano"), load_space("litepose-nano-kernels")
assert space.labels == (*rigid.labels, "kernel") and space.size == 3 * rigid.size
assert SearchSpace.from_dict(space.to_dict()) == space and "kernels" not in rigid.to_dict()
genomes = [space.sample(rng) for _ in range(200)]
specs = [space.decode(genome, JOINTS) for genome in genomes]
assert {spec.kernel for spec in specs} == {3, 5, 7} and [space.encode(spec) for spec in specs] == genomes
try:
    replace(space, kernels=(3, 4, 7))
except InputError:
    pass
else:
    raise AssertionError("an even kernel is refused")

# Costs of a population, of a budget's inside and the pieces of latency tables follow.
costs = population_costs(space, JOINTS, np.array(genomes))
assert costs["macs_thop"].tolist() == [spec_macs(spec).thop for spec in specs]
assert costs["params"].tolist() == [spec_params(spec) for spec in specs]
feasible = FeasibleSpace(space, JOINTS, Budget(macs=math.floor(np.median(costs["macs_thop"]))))
assert len({feasible.decode(genome).kernel for genome in feasible.sample_many(100, rng)}) == 3
assert {piece["kernel"] for piece in space_pieces(space, JOINTS) if piece.kind == "block"} == {3, 5, 7}

# A supernet runs, trains and gives away subnets of every kernel.
supernet = Supernet(space, JOINTS, torch.Generator().manual_seed(0)).eval()
image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
large = supernet.state_dict()["stages.0.0.depthwise.conv.weight"]
for kernel in (3, 5, 7):
    spec = replace(space.smallest(JOINTS), kernel=kernel)
    net = extract(supernet, spec)
    small, edge = net.state_dict()["stages.0.0.depthwise.conv.weight"], (7 - kernel) // 2
    assert torch.equal(small, large[: len(small), :, edge : 7 - edge, edge : 7 - edge])
    for whole, cut in zip(supernet(image, spec), net(image), strict=True):
        assert torch.equal(whole, cut)
low, high = supernet.train()(image, replace(space.largest(JOINTS), kernel=3))
(low.square().mean() + high.square().mean()).backward()
gradient = supernet.unit(supernet.plan.stages[0][0].layers[1]).conv.weight.grad
assert gradient is not None and gradient[..., 2:5, 2:5].any() and not gradient[..., :2, :].any()
print("the kernel is a search dimension")
