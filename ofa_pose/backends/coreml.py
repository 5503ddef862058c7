"""Core ML: a network as an ML Program, an .mlpackage folder, written from the layer plan. Apple's devices compute it.

The operations: https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.plan import Layer
from ofa_pose.backends.folding import NetPart, check_plan, whole, write_part
from ofa_pose.backends.runners import INPUT
from ofa_pose.backends.runtimes import Backend
from ofa_pose.utils import atomic

if TYPE_CHECKING:
    from ofa_pose.models.pose_net import PoseNet

RATIOS = (Fraction(1), Fraction(4, 3), Fraction(16, 9))  # long side / short side, of cameras
MULTIPLE = 32  # of input sides, as predict makes them
logging.getLogger("coremltools").setLevel(logging.ERROR)  # else it warns of every package that is newer than itself


def input_sides(resolution: int) -> list[tuple[int, int]]:
    """(height, width) of the inputs that a model takes, its own square one first; the Neural Engine wants few."""
    long = [-(-resolution * ratio // MULTIPLE) * MULTIPLE for ratio in RATIOS[1:]]
    return [(resolution, resolution), *((resolution, side) for side in long), *((side, resolution) for side in long)]


def coreml_program(part: NetPart) -> Any:
    """The program of a network in MIL, of any sides that are multiples of 16; one image at a time.

    The image is float32 (1, 3, height, width), RGB from 0 to 255, normalised in the program; outputs are as a runner's.
    """
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program, get_new_symbol, types

    image = Builder.TensorSpec(shape=(1, 3, get_new_symbol(), get_new_symbol()), dtype=types.fp32)
    with Function({INPUT: image}, opset_version=ct.target.iOS15) as function:
        graph = _MilGraph(Builder, {INPUT: function.inputs[INPUT]})
        write_part(graph, part)
        function.set_outputs([graph.values[name] for name in part.outputs])
    program = Program()
    program.add_function("main", function)
    return program


@dataclass
class _MilGraph:
    """Values of a function by name; the operations go into the function that is being made."""

    builder: Any
    values: dict[str, Any] = field(default_factory=dict)

    def centre(self, image: str, mean: np.ndarray) -> str:
        shift = mean.astype(np.float32).reshape(1, 3, 1, 1)
        self.values["normalise"] = self.builder.sub(x=self.values[image], y=shift, name="normalise")
        return "normalise"

    def concat(self, name: str, maps: list[str]) -> str:
        self.values[name] = self.builder.concat(values=[self.values[one] for one in maps], axis=1, name=name)
        return name

    def conv(self, layer: Layer, named: Layer, x: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        options: dict[str, Any] = {"strides": [layer.stride] * 2, "pad_type": "custom", "pad": [layer.padding] * 4}
        if bias is not None:
            options["bias"] = bias.astype(np.float32)
        if layer.kind != "deconv":
            options["groups"] = layer.groups
        operation = self.builder.conv_transpose if layer.kind == "deconv" else self.builder.conv
        y = operation(x=self.values[x], weight=weight.astype(np.float32), name=named.name, **options)
        if named.act:
            y = getattr(self.builder, named.act)(x=y, name=f"{named.name}.{named.act}")
        self.values[named.name] = y
        return named.name

    def add(self, name: str, one: str, other: str) -> str:
        self.values[name] = self.builder.add(x=self.values[one], y=self.values[other], name=name)
        return name

    def rename(self, old: str, new: str) -> None:
        self.values[new] = self.builder.identity(x=self.values.pop(old), name=new)


def _write(net: PoseNet, path: Path, metadata: Mapping[str, str]) -> None:
    """An .mlpackage of 16-bit floats, the Neural Engine's, whose input is an image; the metadata are its own."""
    atomic.check_folder(path)
    with redirect_stderr(io.StringIO()), atomic.temporary_folder(path) as folder:  # its progress
        import coremltools as ct

        sizes = [(1, 3, *sides) for sides in input_sides(net.spec.resolution)]
        image = ct.ImageType(INPUT, ct.EnumeratedShapes(sizes, sizes[0]), color_layout=ct.colorlayout.RGB)
        model = ct.convert(
            coreml_program(whole(net)),
            convert_to="mlprogram",
            inputs=[image],
            minimum_deployment_target=ct.target.iOS15,
            compute_precision=ct.precision.FLOAT16,
            skip_model_load=True,
            package_dir=str(folder / f".{path.name}"),  # else one among the system's temporary files
        )
        model.user_defined_metadata.update(metadata)
        model.save(str(folder / path.name))
        if path.exists():
            path.replace(folder / "before")  # whole or not there, whenever this is killed
        (folder / path.name).replace(path)


BACKEND = Backend(
    title="Core ML",
    packages=("coremltools",),
    extra="coreml",
    files=(".mlpackage",),
    write=_write,
    check=check_plan,
)
