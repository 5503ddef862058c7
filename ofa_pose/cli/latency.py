"""`ofa-pose latency build`, `verify`, `bundle` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ofa_pose.cli.common import JsonOption, print_result
from ofa_pose.utils.console import say, show, warn
from ofa_pose.utils.errors import InputError

if TYPE_CHECKING:
    from ofa_pose.latency.table import LatencyTable
    from ofa_pose.latency.verify import Verdict

app = typer.Typer(help="Tables that predict how long a network takes on a device.", no_args_is_help=True)

SpaceOption = Annotated[str, typer.Option("--space", help="Search space: a YAML file or a shipped space's name.")]
JointsOption = Annotated[int, typer.Option("--joints", min=1, help="Number of keypoints.")]
ShareOption = Annotated[
    float, typer.Option("--share", min=0.05, max=1, help="Measure this share of the pieces, interpolate the rest.")
]
TableOut = Annotated[Path, typer.Option("--out", help="Table to write, JSON.")]
TableOption = Annotated[Path, typer.Option("--table", help="Table that `latency build` wrote.")]


@app.command("build")
def build(
    space: SpaceOption,
    out: TableOut,
    backend: Annotated[
        str, typer.Option("--backend", help="Runtime: onnxruntime, torch, openvino or ncnn.")
    ] = "onnxruntime",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of a run.")] = 1,
    joints: JointsOption = 17,
    share: ShareOption = 1.0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How many times each is measured.")] = 5,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a table that was cut off.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the pieces of a search space's networks on this machine, and some whole networks, into a table.

    Any network's latency is then predicted by summing its pieces, corrected by what the whole networks took.

    Example: ofa-pose latency build --space litepose-nano --backend onnxruntime --threads 1 --out nano.json
    """
    import time

    from ofa_pose.arch.space import load_space
    from ofa_pose.latency.build import build_table

    start = time.monotonic()
    table = build_table(out, load_space(space), joints, backend, threads, share, rounds, resume)
    result = {**summary(table), "seconds": round(time.monotonic() - start, 1), "out": str(out)}
    print_result(result, as_json)


@app.command("verify")
def verify(
    table: TableOption,
    nets: Annotated[int, typer.Option("--nets", min=2, help="Random subnets to measure whole.")] = 40,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the subnets.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Also draw them: a PNG, SVG or PDF.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure random subnets whole, interleaved with the table's own networks, and compare with what it predicts.

    mape is the mean absolute error as a share: 0.05 is 5 %.

    Example: ofa-pose latency verify --table nano.json --nets 40 --out nano.png
    """
    from ofa_pose.backends.on_device import cpu_name
    from ofa_pose.latency import verify as verification
    from ofa_pose.latency.measure import open_device
    from ofa_pose.latency.table import LatencyTable
    from ofa_pose.utils.files import check_folder

    if out is not None and out.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--out {out} is not a picture's name", hint="end it in .png, .svg or .pdf")
    if out is not None:
        check_folder(out.parent)
    loaded = LatencyTable.load(table)
    loaded.check_complete(table)
    header = loaded.header
    device = open_device(header.backend, header.threads)
    for what, here, there in (("runtime", device.runtime, header.runtime), ("device", cpu_name(), header.device)):
        if here != there:
            warn(f"the table's {what} is {there}, this one is {here}")
    verdict = verification.verify(loaded, device, verification.random_nets(loaded, nets, seed))
    if out is not None:
        title = f"{header.space.name}, {header.runtime}, threads {header.threads}"
        verification.draw(out, verdict, title)
    if not as_json:
        show(_nets_table(verdict))
        say(f"the table's own networks take {verdict.drift:.3f} times as long now; that is divided out")
    print_result(verdict.to_dict(), as_json)


@app.command("bundle")
def bundle(
    space: SpaceOption,
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    form: Annotated[str, typer.Option("--format", help="onnx (for ONNX Runtime) or ncnn.")] = "onnx",
    joints: JointsOption = 17,
    share: ShareOption = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Write a folder that measures a table on another device: models and a script that needs numpy and the runtime.

    Example: ofa-pose latency bundle --space litepose --format onnx --out bundle
    """
    from ofa_pose.arch.space import load_space
    from ofa_pose.latency.bundle import write_bundle

    count = write_bundle(out, load_space(space), joints, form, share)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print_result({"out": str(out), "models": count, "bytes": size}, as_json)
    say(f"on the device: python {out.name}/measure.py; then here: ofa-pose latency import results.csv --out TABLE")


@app.command("import")
def import_(
    results: Annotated[Path, typer.Argument(help="A bundle that has been measured, or its results.csv.")],
    out: TableOut,
    as_json: JsonOption = False,
) -> None:
    """Make a table of what a bundle measured on a device.

    Example: ofa-pose latency import bundle/results.csv --out phone.json
    """
    from ofa_pose.latency.bundle import import_results

    if out.exists():
        raise InputError("exists already", out, "name another file")
    table = import_results(results / "results.csv" if results.is_dir() else results)
    table.save(out)
    print_result({**summary(table), "out": str(out)}, as_json)


def summary(table: LatencyTable) -> dict[str, Any]:
    """What a table holds, and how well it agrees with itself."""
    import numpy as np

    from ofa_pose.latency.interpolate import Interpolator
    from ofa_pose.latency.predict import Predictor

    header, predictor = table.header, Predictor(table)
    result: dict[str, Any] = {
        "device": header.device,
        "runtime": header.runtime,
        "threads": header.threads,
        "space": header.space.name,
        "joints": header.joints,
        "pieces": len(table.pieces),
        "nets": len(table.nets),
        "net_error": predictor.error,
    }
    left_out = np.abs(Interpolator(table.pieces).leave_out_errors()) if header.share < 1 else np.array([])
    if len(left_out):
        median, p90 = np.percentile(left_out, (50, 90))
        result["interpolation_error"] = {"median": float(median), "p90": float(p90), "pieces": len(left_out)}
    return result


def _nets_table(verdict: Verdict) -> Table:
    parts = [str(spec).split(";") for spec in verdict.specs]
    told = [";".join(part for part, *others in zip(own, *parts, strict=True) if set(others) != {part}) for own in parts]
    table = Table("subnet: what differs", *("measured, ms", "predicted, ms", "error"))
    for column in table.columns[1:]:
        column.justify = "right"
    rows = zip(told, verdict.measured, verdict.predicted, verdict.errors, strict=True)
    for name, measured, predicted, error in sorted(rows, key=lambda row: row[1]):
        table.add_row(name, f"{measured:.2f}", f"{predicted:.2f}", f"{error:+.1%}")
    return table
