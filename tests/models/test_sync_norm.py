"""BatchNorm over several processes, held to torch's over the whole batch: here the processes are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.models import sync_norm
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.sync_norm import SyncNorm, synchronise
from tests.networks import picture, randomised


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Run a function in so many threads, each of which takes itself for a process."""

    def run(world: int, work: Callable[[int], Any]) -> list[Any]:
        barrier, given, results = threading.Barrier(world, timeout=60), {}, [None] * world
        ranks: dict[int, int] = {}

        def all_reduce(tensor: Tensor) -> None:
            # Gradients are computed in the thread that asks for them on a CPU.
            given[ranks[threading.get_ident()]] = tensor.clone()
            barrier.wait()
            total = torch.stack([given[rank] for rank in range(world)]).sum(0)
            barrier.wait()
            tensor.copy_(total)

        def start(rank: int) -> None:
            ranks[threading.get_ident()] = rank
            results[rank] = work(rank)

        monkeypatch.setattr(sync_norm.dist, "all_reduce", all_reduce)
        monkeypatch.setattr(sync_norm.dist, "get_world_size", lambda: world)
        threads = [threading.Thread(target=start, args=(rank,)) for rank in range(world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    return run


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("world", [1, 3])
def test_it_is_batch_norm_of_the_whole_batch(
    in_threads: Callable[..., list[Any]], world: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(1)
    whole = torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64) * 2 + torch.arange(5).view(5, 1, 1) * 3
    whole = whole.to(dtype)
    weights = torch.randn(6, 5, 4, 3, generator=generator, dtype=torch.float64)  # of the outputs in the loss

    def tensors(norm: nn.BatchNorm2d, kind: torch.dtype) -> nn.BatchNorm2d:
        with torch.no_grad():
            norm.to(kind).weight.copy_(torch.linspace(0.5, 2, 5))
            norm.bias.copy_(torch.linspace(-1, 1, 5))
        return norm.train()

    exact = tensors(nn.BatchNorm2d(5), torch.float64)
    x = whole.double().requires_grad_()
    y = exact(x)
    (weights * y).sum().backward()

    def work(rank: int) -> tuple[Any, ...]:
        norm = tensors(SyncNorm(5), torch.float64 if dtype == torch.float64 else torch.float32)
        own = whole.detach().chunk(world)[rank].clone().requires_grad_()
        out = norm(own)
        assert out.dtype == dtype
        (weights.chunk(world)[rank] * out).sum().backward()
        return norm, own.grad, out

    parts = in_threads(world, work)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.05}[dtype]

    def close(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one.double(), other, atol=tolerance * max(1, float(other.abs().max())), rtol=0)

    assert close(torch.cat([out for _, _, out in parts]).detach(), y.detach())
    assert x.grad is not None and close(torch.cat([grad for _, grad, _ in parts]), x.grad)
    for name in ("weight", "bias"):
        wanted = getattr(exact, name).grad
        assert close(sum(getattr(norm, name).grad for norm, _, _ in parts), wanted), name
    for norm, _, _ in parts:
        assert close(norm.running_mean, exact.running_mean) and close(norm.running_var, exact.running_var)
        assert norm.num_batches_tracked == 1 and norm.running_var.dtype == norm.weight.dtype


def test_leading_channels_are_normalised_alone(in_threads: Callable[..., list[Any]]) -> None:
    norm, plain = SyncNorm(6).train(), nn.BatchNorm2d(4).train()
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1)) * 3 + 1
    slices = [tensor[:4] for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)]
    (found,) = in_threads(1, lambda rank: norm.normalise(x, *slices))
    assert torch.allclose(found, plain(x), atol=1e-6)
    assert torch.allclose(norm.running_var[:4], plain.running_var, atol=1e-6)
    assert torch.equal(norm.running_var[4:], torch.ones(2)) and torch.equal(norm.running_mean[4:], torch.zeros(2))


def test_a_net_keeps_its_tensors_and_is_the_same_in_eval_mode(tiny_spec: ArchSpec) -> None:
    net = randomised(LitePose(tiny_spec, torch.Generator().manual_seed(1))).eval()
    before, weights = net(picture()), list(net.parameters())
    names = list(net.state_dict())
    synchronise(net)
    after = net(picture())
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(one is other for one, other in zip(net.parameters(), weights, strict=True))
    assert list(net.state_dict()) == names
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(isinstance(norm, SyncNorm) for norm in norms)
