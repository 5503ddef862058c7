"""In what numbers and by which kernels a device computes a training: all of torch's switches are set here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

from ofa_pose.models.elastic import Supernet
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.models.sync_norm import SyncNorm
from ofa_pose.train.distributed import Processes
from ofa_pose.utils.console import say
from ofa_pose.utils.errors import OfaPoseError

Precision = Literal["float32", "bfloat16"]


def pick_precision(wanted: Precision | None, device: torch.device) -> Precision:
    """What is wanted, or by default bfloat16 on a GPU that computes in it, float32 elsewhere."""
    if wanted is None and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    return wanted or "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Round a forward pass: convolutions compute in this precision. Weights, BatchNorm statistics and losses stay."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def kernels(precision: Precision, fixed_shapes: bool) -> Iterator[None]:
    """Which of cuDNN's and cuBLAS's kernels a training uses; afterwards all is as it was. On a CPU nothing changes.

    In float32, float32 is what is computed; beside bfloat16, what is left in float32 may be rounded as TF32. Where the
    shapes of a net are fixed, cuDNN tries its kernels on each and keeps the fastest.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = matmul.allow_tf32 = precision == "bfloat16"
    cudnn.benchmark = fixed_shapes
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def compile_net(net: PoseNet) -> None:
    """Have torch.compile make a graph of a fixed net for each resolution that it is trained at, when it first is.

    Other nets are left as they are, and a line says so: a supernet, of which each step's subnet would be another graph,
    and a net whose BatchNorms exchange statistics.
    """
    if isinstance(net, Supernet):
        say("train.compile is left out: each subnet of a supernet would be compiled anew")
    elif any(isinstance(module, SyncNorm) for module in net.modules()):
        say("train.compile is left out: a compiled net exchanges no statistics (train.sync_norm)")
    else:
        net.compile(dynamic=False)


@contextmanager
def compile_faults() -> Iterator[None]:
    """Raise OfaPoseError where a net in it cannot be compiled: on a CPU that takes a C++ compiler."""
    try:
        yield
    except RuntimeError as error:
        dynamo = sys.modules.get("torch._dynamo.exc")
        if dynamo is None or not isinstance(error, dynamo.TorchDynamoException):
            raise
        reason = " ".join(str(error).strip().partition("\n\n")[0].split())  # what follows is for torch's developers
        hint = "go on with --resume --set train.compile=false"
        raise OfaPoseError(f"the net could not be compiled ({reason}); {hint}") from None


def describe(device: torch.device, precision: Precision, processes: Processes) -> str:
    """How a training is computed, for its opening."""
    count, threads = processes.world, torch.get_num_threads()
    started = f"{count} processes" if count > 1 else "1 process"
    return f"{device}, {precision}, {started} of {threads} thread{'s' * (threads > 1)}"
