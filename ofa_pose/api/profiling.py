"""`ofa_pose.profile`, `ofa_pose.latency_build`, `_verify`, `_bundle`, `_import` and `_compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.api.decorators import check_range, single_process
from ofa_pose.skeleton import MOST_JOINTS
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.result import Result, plain

if TYPE_CHECKING:
    from ofa_pose.arch.space import SearchSpace
    from ofa_pose.arch.spec import NetSpec
    from ofa_pose.latency.comparison import LatencyComparison
    from ofa_pose.latency.latency_table import LatencyTable
    from ofa_pose.latency.measure import NetworkTime, Verification

MOST_THREADS = 1024
MOST_NETS = 1000  # subnets that are measured whole
MOST_ROUNDS = 10**6
SPEC_SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class ProfileResult(Result):
    """What a network costs, or from what to what the subnets of a search space.

    Attributes:
        spec: its shape; of a space, that of its largest subnet.
        figures: its name, resolution, joints, params and MACs; see `ofa_pose.costs.macs.profile` and of a
            space `ofa_pose.costs.space_profile.profile_space`.
        thop_recount: the MACs that thop counts; latency: what was measured; layers: a row for each; None if not asked.
    """

    spec: NetSpec
    figures: dict[str, Any]
    thop_recount: Any = None
    latency: NetworkTime | None = None
    layers: list[dict[str, Any]] | None = None

    @property
    def is_space(self) -> bool:
        """Whether the figures are a search space's."""
        return "subnets" in self.figures

    def to_dict(self) -> dict[str, Any]:
        """The figures, and what else was asked for by its name."""
        asked = {"thop_recount": self.thop_recount, "latency": self.latency, "layers": self.layers}
        return self.figures | {name: plain(value) for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class LatencyTableResult(Result):
    """A latency table and its file.

    Attributes:
        seconds: that measuring took; None where it was imported.
        verification: of an imported one, the networks that its bundle measured besides the table's own.
    """

    table: LatencyTable
    out: Path
    seconds: float | None = None
    verification: Verification | None = None

    def to_dict(self) -> dict[str, Any]:
        """Where it was measured and of what, how many pieces and networks, and how well it agrees with itself.

        'net_error' is the mean relative error of what is predicted for its networks; 'interpolation_error', where not
        all pieces were measured, is that of measured ones, each predicted by the others. 'verification' says how well
        networks were predicted that the table does not hold.
        """
        import numpy as np

        from ofa_pose.latency.predictor import Interpolator, Predictor

        header, pieces = self.table.header, self.table.pieces
        result: dict[str, Any] = {
            **{name: getattr(header, name) for name in ("device", "runtime", "threads")},
            "space": header.space.name,
            "joints": header.joints,
            "pieces": len(pieces),
            "nets": len(self.table.nets),
            "net_error": Predictor(self.table).error,
        }
        if header.share < 1 and len(left_out := np.abs(Interpolator(pieces).leave_out_errors())):
            median, p90 = np.percentile(left_out, (50, 90)).tolist()
            result["interpolation_error"] = {"median": median, "p90": p90, "pieces": len(left_out)}
        if self.verification is not None:
            figures = self.verification.to_dict()
            result["verification"] = {key: figures[key] for key in ("spearman", "kendall", "mape", "nets")}
        return result | ({} if self.seconds is None else {"seconds": self.seconds}) | {"out": str(self.out)}


@dataclass(frozen=True)
class BundleResult(Result):
    """A device bundle: its folder, how many pieces and networks it times, and its size in bytes."""

    out: Path
    models: int
    bytes: int


@single_process
def profile(
    net: str | Path,
    *,
    joints: int | None = None,
    macs: str | int | None = None,
    params: str | int | None = None,
    macs_convention: str = "thop",
    check: bool = False,
    layers: bool = False,
    measure: bool = False,
    backend: str | None = None,
    threads: int | None = None,
) -> ProfileResult:
    """MACs in three conventions (thop is the default one for budgets), parameters, layers, time.

    Of a search space: from what to what its subnets cost, at each resolution, and how many keep a budget.

    median_ms and p90_ms are of one image that is a network's input already; images_per_s of batches of 8, from uint8
    images to outputs in NumPy; memory_mb is what the process takes for both, at most.

    Example: ofa-pose profile litepose-xs --joints 14 --measure --backend onnxruntime

    Args:
        net: a preset such as litepose-xs or higherhrnet-w32, a spec file, a checkpoint, or a search space such as
            litepose-nano.
        joints: number of keypoints; default 17.
        macs: of a space, count the subnets that keep this budget, such as 120M.
        params: of a space, the same with a budget of parameters.
        check: count again with thop on a throwaway net.
        layers: show every layer.
        measure: measure time and memory on this machine's CPU, and each part's share.
        backend: with --measure: {backends}; default: onnxruntime.
        threads: with --measure; default 1.

    Raises:
        InputError: no such network or backend, or its package is missing.
    """
    from ofa_pose.arch.spec import ArchSpec
    from ofa_pose.costs.limits import Budget
    from ofa_pose.costs.space_profile import profile_space

    if not measure and (backend is not None or threads is not None):
        raise InputError("--backend and --threads say how to measure", hint="add --measure")
    check_range(1, MOST_JOINTS, joints=joints)
    check_range(1, MOST_THREADS, threads=threads)
    space = _space_of(str(net))
    if space is not None:
        if check or layers or measure:
            hint = "name one network, or leave out --check, --layers and --measure"
            raise InputError(f"{net} is a search space, many networks", hint=hint)
        limited = macs is not None or params is not None
        budget = Budget.parse(macs, params, macs_convention) if limited else None
        return ProfileResult(space.largest(joints or 17), profile_space(space, joints or 17, budget))
    if macs is not None or params is not None:
        raise InputError("--macs and --params count the subnets of a space", hint="name a search space, or leave out")
    spec = _spec_of(str(net), joints)
    if isinstance(spec, ArchSpec):  # counted without torch
        from ofa_pose.costs import macs as costs

        result = ProfileResult(spec, costs.profile(spec, str(net)), layers=costs.layer_rows(spec) if layers else None)
    else:
        from ofa_pose.families.profile import net_rows, profile_net

        result = ProfileResult(spec, profile_net(spec, str(net)), layers=net_rows(spec) if layers else None)
    if check:
        from ofa_pose.families.profile import check_with_thop

        result = replace(result, thop_recount=check_with_thop(spec))
    if measure:
        from ofa_pose.latency.measure import measure_network

        result = replace(result, latency=measure_network(spec, backend or "onnxruntime", threads or 1))
    return result


@single_process
def latency_build(
    space: str | Path,
    *,
    out: str | Path,
    backend: str = "onnxruntime",
    threads: int = 1,
    joints: int = 17,
    share: float = 1.0,
    rounds: int = 5,
    resume: bool = False,
) -> LatencyTableResult:
    """Measure the pieces of a search space's networks on this machine, and some whole networks, into a table.

    Any network's latency is then predicted by summing its pieces, corrected by what the whole networks took.

    Example: ofa-pose latency build --space litepose-nano --backend onnxruntime --threads 1 --out nano.json

    Args:
        out: table to write, JSON.
        backend: runtime: {backends}.
        threads: threads of a run.
        rounds: how many times each is measured.
        resume: go on with a table that was cut off.

    Raises:
        InputError: no such space or backend, its package is missing, or the table exists.
    """
    import time

    from ofa_pose.arch.space import load_space
    from ofa_pose.latency.measure import build_table

    check_range(1, MOST_JOINTS, joints=joints)
    check_range(1, MOST_ROUNDS, rounds=rounds)
    check_range(1, MOST_THREADS, threads=threads)
    check_range(0.05, 1, share=share)
    start = time.monotonic()
    table = build_table(Path(out), load_space(str(space)), joints, backend, threads, share, rounds, resume)
    return LatencyTableResult(table, Path(out), round(time.monotonic() - start, 1))


@single_process
def latency_verify(table: str | Path, *, nets: int = 40, seed: int = 0, out: str | Path | None = None) -> Verification:
    """Measure random subnets whole, interleaved with the table's own networks, and compare with what it predicts.

    mape is the mean absolute error as a share: 0.05 is 5 %.

    Example: ofa-pose latency verify --table nano.json --nets 40 --out nano.png

    Args:
        table: table that `latency build` wrote.
        nets: random subnets to measure whole.
        seed: seed of the subnets.
        out: also draw them: a PNG, SVG or PDF.

    Raises:
        InputError: the table cannot be read or is not complete, its runtime is missing, or `out` names no picture.
    """
    from ofa_pose.backends.on_device import cpu_name
    from ofa_pose.latency.latency_table import LatencyTable
    from ofa_pose.latency.measure import draw, open_device, random_nets, verify
    from ofa_pose.utils.atomic import check_folder
    from ofa_pose.utils.console import warn

    check_range(2, MOST_NETS, nets=nets)
    check_range(0, seed=seed)
    if out is not None:
        if Path(out).suffix not in (".png", ".svg", ".pdf"):
            raise InputError(f"--out {out} is not a picture's name", hint="end it in .png, .svg or .pdf")
        check_folder(Path(out).parent)
    loaded = LatencyTable.load(table)
    loaded.check_complete(table)
    header = loaded.header
    device = open_device(header.backend, header.threads)
    for what, here, there in (("runtime", device.runtime, header.runtime), ("device", cpu_name(), header.device)):
        if here != there:
            warn(f"the table's {what} is {there}, this one is {here}")
    specs = random_nets(header.space, header.joints, loaded.nets, nets, seed) if nets <= header.space.size else []
    if len(specs) < nets:
        what = f"the space {header.space.name} has no {nets:,} subnets besides the table's own"
        raise InputError(what, hint="lower --nets")
    verification = verify(loaded, device, specs)
    if out is not None:
        draw(out, verification, f"{header.space.name}, {header.runtime}, threads {header.threads}")
    return verification


@single_process
def latency_bundle(
    space: str | Path,
    *,
    out: str | Path,
    format: str = "onnx",
    joints: int = 17,
    share: float = 1.0,
    nets: int = 15,
    runtime_files: str | Path | None = None,
) -> BundleResult:
    """Write a folder that measures a table on another device: models and a script that needs numpy and the runtime.

    With --format web the folder is a page for any static server, which measures the browser that opens it.

    Example: ofa-pose latency bundle --space litepose --format onnx --out bundle

    Args:
        out: folder to write.
        format: {bundles}: what the device's runtime opens.
        nets: random subnets, at most, to measure whole besides: `latency import` says how well the table predicts them.
        runtime_files: with --format web, folder of onnxruntime-web's files to copy; default: the page loads them from
            its CDN.

    Raises:
        InputError: no such space or format, the folder holds something, or the runtime's files are not all there.
    """
    from ofa_pose.arch.space import load_space
    from ofa_pose.latency.bundle import write_bundle

    check_range(1, MOST_JOINTS, joints=joints)
    check_range(0, MOST_NETS, nets=nets)
    check_range(0.05, 1, share=share)
    files = None if runtime_files is None else Path(runtime_files)
    count = write_bundle(Path(out), load_space(str(space)), joints, format, share, nets, files)
    size = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    return BundleResult(Path(out), count, size)


@single_process
def latency_import(results: str | Path, *, out: str | Path) -> LatencyTableResult:
    """Make a table of what a bundle measured on a device, and say how well it predicts networks it does not hold.

    Example: ofa-pose latency import bundle/results.csv --out phone.json

    Args:
        results: a bundle that has been measured, or its results.csv.
        out: table to write, JSON.

    Raises:
        InputError: `out` exists, or the results cannot be read or are not complete.
    """
    from ofa_pose.latency.bundle import import_results

    path, out = Path(results), Path(out)
    if out.exists():
        raise InputError("exists already", out, "name another file")
    table, verification = import_results(path / "results.csv" if path.is_dir() else path)
    table.save(out)
    return LatencyTableResult(table, out, verification=verification)


@single_process
def latency_compare(
    nets: Sequence[str],
    *,
    backends: Sequence[str] = ("onnxruntime",),
    threads: int = 1,
    joints: int | None = None,
    rounds: int = 5,
    base: str | None = None,
) -> LatencyComparison:
    """Measure networks of any family in turn on this machine: one table of times, and their ratios to one of them.

    Times are of one image: the network's with random weights; with the flip test (two forward passes); and the decoding
    of maps that training asks of a network on drawn scenes, which with the flip test are averaged and have two tags.

    Example: ofa-pose latency compare litepose-s scaled-higherhrnet-w24 efficienthrnet-h-1 --joints 14

    Args:
        nets: presets, spec files or checkpoints.
        backends: runtimes: {backends}; may be repeated.
        threads: threads of a run.
        joints: number of keypoints; default: each network's own.
        rounds: how many times each is measured; the median counts.
        base: the one of the networks that ratios are to, on the first backend; default: the first.

    Raises:
        InputError: no such network or backend, its package is missing, it cannot hold one of the networks, an input is
            not square, or the base is not among the networks.
    """
    from ofa_pose.latency.comparison import compare_networks

    check_range(1, MOST_JOINTS, joints=joints)
    check_range(1, MOST_ROUNDS, rounds=rounds)
    check_range(1, MOST_THREADS, threads=threads)
    if not len(nets):
        raise InputError("no networks are named", hint="name some, as in ['litepose-s', 'litepose-m']")
    if not len(backends):
        raise InputError("no backends are named", hint="name some, as in ['onnxruntime', 'torch']")
    specs = {str(net): _spec_of(str(net), joints) for net in nets}
    return compare_networks(
        specs, list(dict.fromkeys(backends)), threads, rounds, str(nets[0] if base is None else base)
    )


def _space_of(net: str) -> SearchSpace | None:
    """The search space of a shipped space's name or a YAML file; None where it names something else."""
    from ofa_pose.arch.space import load_space
    from ofa_pose.utils.files import read_yaml, shipped_folder

    path = Path(net)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        value = read_yaml(path)
        return load_space(path) if isinstance(value, dict) and "blocks" in value and "family" not in value else None
    shipped = {file.stem for file in shipped_folder("search_spaces").glob("*.yaml")}
    return load_space(net) if net.removesuffix(".yaml") in shipped and not path.exists() else None


def _spec_of(net: str, joints: int | None) -> NetSpec:
    """The spec of a preset, a spec file or a checkpoint (a supernet's largest net)."""
    from ofa_pose.arch.presets import PRESETS, load_spec
    from ofa_pose.utils.files import shipped_weights

    path = Path(net)
    if net in PRESETS:
        return load_spec(net, joints)
    if path.suffix in SPEC_SUFFIXES or not (path.exists() or net in shipped_weights()):
        from ofa_pose.families.table import load_net

        return load_net(net, joints)
    from ofa_pose.checkpoints.checkpoint import load_checkpoint

    spec = load_checkpoint(net).spec
    return spec if joints is None else spec.with_joints(joints)
