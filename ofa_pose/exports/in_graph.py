"""The decoder up to the grouping as nodes of an ONNX graph: `pose.peaks` in standard operators, in single precision.

The outputs low and high give way to one, joints: float32 (B, J, K, 4) of x, y in input pixels, heat and tag, the K
highest peaks of each joint, the highest first. Rows without a peak, which may lie between others, are zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.spec import TOTAL_STRIDE
from ofa_pose.backends.runners import JOINTS
from ofa_pose.pose.decode import DecodeConfig
from ofa_pose.pose.geometry import HIGH_STRIDE, Array
from ofa_pose.pose.peaks import (
    FAR_TAG,
    LEAST_HEAT,
    MOST_HEAT,
    REACH,
    Maps,
    find_peaks,
    fuse,
    place,
    warm_cells,
)
from ofa_pose.utils.errors import InputError, OfaPoseError

if TYPE_CHECKING:
    import onnx

COLUMNS = ("x", "y", "heat", "tag")  # of the output
TOLERANCE = (0.05, 0.05, 1e-4, 1e-3)  # of each: doubles place flat peaks more exactly
PREFIX = "decoder."  # of the nodes' names
MOST_CANDIDATES = (TOTAL_STRIDE // HIGH_STRIDE) ** 2  # the cells of the smallest input


def check_candidates(config: DecodeConfig) -> None:
    """Raise InputError where a graph cannot hold a decoder with these settings."""
    if not 1 <= config.candidates <= MOST_CANDIDATES:
        what = f"a decoder in the graph finds 1 to {MOST_CANDIDATES} candidates a joint, not {config.candidates}"
        raise InputError(what, hint="export without --decoder in-graph, or train with other decode.candidates")


def add_decoder(model: onnx.ModelProto, joints: int, config: DecodeConfig) -> None:
    """Change a network's model (outputs low and high, see `Runner`) in place into one whose output is joints."""
    from onnx import TensorProto, helper

    nodes = _Nodes()
    heat, tags = nodes.add("Split", "low", nodes.whole(joints, joints), outputs=2, axis=1)
    fused = _fuse(nodes, heat)
    planes = nodes.add("Reshape", fused, nodes.whole(0, 0, -1))
    top, cell = _peaks(nodes, fused, config)
    width = nodes.add("Gather", nodes.add("Shape", fused), nodes.whole(3, scalar=True))
    height = nodes.add("Gather", nodes.add("Shape", fused), nodes.whole(2, scalar=True))
    y = nodes.add("Div", cell, width)
    x = nodes.add("Sub", cell, nodes.add("Mul", y, width))
    is_joint = nodes.add("Greater", _without_doubled(nodes, top, x, y, config.candidates), nodes.number(0))
    two = nodes.whole(2, scalar=True)
    coarse = nodes.add("Mul", nodes.add("Div", y, two), nodes.add("Div", width, two))
    coarse = nodes.add("Add", coarse, nodes.add("Div", x, two))
    tag = nodes.add("GatherElements", nodes.add("Reshape", tags, nodes.whole(0, 0, -1)), coarse, axis=2)
    columns = [
        _placed(nodes, planes, x, width, cell, nodes.whole(1, scalar=True)),
        _placed(nodes, planes, y, height, cell, width),
        top,
        _finite(nodes, tag),
    ]
    found = nodes.add("Concat", *(nodes.add("Unsqueeze", column, nodes.whole(3)) for column in columns), axis=3)
    rows = nodes.add("Unsqueeze", is_joint, nodes.whole(3))
    nodes.add("Where", rows, found, nodes.number(0), name=JOINTS)
    graph = model.graph
    graph.node.extend(nodes.nodes)
    graph.initializer.extend(nodes.constants)
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param
    del graph.output[:]
    shape = (batch, joints, config.candidates, 4)
    graph.output.append(helper.make_tensor_value_info(JOINTS, TensorProto.FLOAT, shape))


def find_joints(low: Array, high: Array, config: DecodeConfig) -> Array:
    """What the graph gives, by `pose.peaks` from the network's outputs, see `Runner`: float64 (B, J, K, 4)."""
    batch, joints = high.shape[:2]
    maps = Maps(fuse(low[:, :joints], high), low[:, joints:].reshape(batch, 1, joints, *low.shape[2:]))
    peaks = find_peaks(maps, *warm_cells(maps.fused, config.threshold), config.threshold, config.candidates)
    rank = np.arange(len(peaks.plane)) - np.searchsorted(peaks.plane, peaks.plane)
    found = np.zeros((batch * joints, config.candidates, 4))
    found[peaks.plane, rank] = np.concatenate([place(maps, peaks), peaks.tags], axis=1)
    return found.reshape(batch, joints, config.candidates, 4)


def compare_joints(joints: Array, low: Array, high: Array, config: DecodeConfig, runtime: str) -> None:
    """Raise OfaPoseError where joints (B, J, K, 4) are not those of the maps, but for the last bits."""
    expected = find_joints(low, high, config)
    for b, j in np.ndindex(joints.shape[:2]):
        sides = [rows[rows[:, 2] > 0] for rows in (joints[b, j], expected[b, j])]
        for some, others in (sides, sides[::-1]):
            some = some[some[:, 2] > config.threshold + TOLERANCE[2]]
            apart = np.abs(some[:, None] - others) / (TOLERANCE * np.maximum(1, np.abs(some[:, None]) * (0, 0, 1, 1)))
            if not (apart.max(axis=2) <= 1).any(axis=1).all():
                raise OfaPoseError(f"{runtime}'s decoder in the graph does not find the joints that ours finds")


class _Nodes:
    """Nodes in the order of execution, and their constants; each has the number of its place in its name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str, outputs: int = 1, name: str = "", **attributes: Any) -> Any:
        """Append a node; the name of its output, or a list of the names of several."""
        from onnx import helper

        own = f"{PREFIX}{operator}{len(self.nodes)}"
        names = [name or own] if outputs == 1 else [f"{own}.{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=own, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"{PREFIX}constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def whole(self, *values: int, scalar: bool = False) -> str:
        return self.constant(np.array(values[0] if scalar else values, np.int64))


def _fuse(nodes: _Nodes, heat: str) -> str:
    """`pose.peaks.fuse`: OpenCV's INTER_LINEAR samples at half pixels."""
    scales = nodes.constant(np.array([1, 1, 2, 2], np.float32))
    upsampled = nodes.add("Resize", heat, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    return str(nodes.add("Mul", nodes.add("Add", upsampled, "high"), nodes.number(0.5)))


def _peaks(nodes: _Nodes, fused: str, config: DecodeConfig) -> tuple[str, str]:
    """The heats and the cells (B, J, K) of the highest local maxima above the threshold, equal ones in reading order.

    A cell that is not finite is not a peak: NaN is not above the threshold, and inf less inf is not 0.
    """
    size = 2 * REACH + 1
    zero = nodes.number(0)
    warm = nodes.add("Where", nodes.add("Greater", fused, nodes.number(config.threshold)), fused, zero)
    highest = nodes.add("MaxPool", warm, kernel_shape=[size, size], pads=[REACH] * 4, strides=[1, 1])
    is_highest = nodes.add("Equal", nodes.add("Sub", warm, highest), zero)
    peaks = nodes.add("Reshape", nodes.add("Where", is_highest, warm, zero), nodes.whole(0, 0, -1))
    top, cell = nodes.add("TopK", peaks, nodes.whole(config.candidates), outputs=2, axis=2)
    return top, cell


def _without_doubled(nodes: _Nodes, top: str, x: str, y: str, candidates: int) -> str:
    """The heats without those of peaks that lie on one plateau with an earlier one, see `pose.peaks.find_peaks`."""

    def apart(values: str) -> str:
        ours, others = (nodes.add("Unsqueeze", values, nodes.whole(axis)) for axis in (3, 2))
        return str(nodes.add("Abs", nodes.add("Sub", ours, others)))

    reach = nodes.whole(REACH, scalar=True)
    near = [nodes.add("LessOrEqual", apart(values), reach) for values in (x, y)]
    same = nodes.add("Equal", apart(top), nodes.number(0))
    earlier = nodes.constant(np.tri(candidates, k=-1, dtype=bool))
    pairs = nodes.add("And", nodes.add("And", *near), nodes.add("And", same, earlier))
    first = nodes.number(0)
    doubled = nodes.add("ReduceMax", nodes.add("Where", pairs, nodes.number(1), first), axes=[3], keepdims=0)
    return str(nodes.add("Where", nodes.add("Greater", doubled, first), first, top))


def _placed(nodes: _Nodes, planes: str, at: str, side: str, cell: str, stride: str) -> str:
    """One coordinate in input pixels, as `pose.peaks.place` finds it along that axis.

    Args:
        planes: the fused maps, flat (B, J, cells).
        at, cell: (B, J, K), the peaks' whole coordinate along this axis, and their numbers of cells.
        side, stride: the map's cells along this axis, and how far apart neighbours are in a flat map.
    """
    one, half = nodes.whole(1, scalar=True), nodes.number(0.5)
    last = nodes.add("Sub", side, nodes.whole(2, scalar=True))
    inner = nodes.add("Max", nodes.add("Min", at, last), one)
    off = nodes.add("Sub", inner, at)
    middle = nodes.add("Add", cell, nodes.add("Mul", off, stride))
    logs = []
    for three in (nodes.add("Sub", middle, stride), middle, nodes.add("Add", middle, stride)):
        heat, least = nodes.add("GatherElements", planes, three, axis=2), nodes.number(LEAST_HEAT)
        heat = nodes.add("Where", nodes.add("Greater", heat, least), heat, least)  # NaN becomes the least
        logs.append(nodes.add("Log", nodes.add("Min", heat, nodes.number(MOST_HEAT))))
    before, here, after = logs
    left, right = nodes.add("Sub", before, here), nodes.add("Sub", after, here)
    bend = nodes.add("Min", nodes.add("Add", left, right), nodes.number(-1e-9))
    vertex = nodes.add("Mul", half, nodes.add("Div", nodes.add("Sub", left, right), bend))
    shift = nodes.add("Add", nodes.add("Cast", off, to=1), vertex)
    shift = nodes.add("Max", nodes.add("Min", shift, half), nodes.number(-0.5))
    centre = nodes.add("Add", nodes.add("Cast", at, to=1), half)
    return str(nodes.add("Mul", nodes.add("Add", centre, shift), nodes.number(HIGH_STRIDE)))


def _finite(nodes: _Nodes, tag: str) -> str:
    """Tags of which broken ones are far ones, as `Maps.tags_at` has them."""
    is_finite = nodes.add("LessOrEqual", nodes.add("Abs", tag), nodes.number(float(np.finfo(np.float32).max)))
    below = nodes.add("Less", tag, nodes.number(0))
    far = nodes.add("Where", below, nodes.number(-FAR_TAG), nodes.number(FAR_TAG))
    return str(nodes.add("Where", is_finite, tag, far))
