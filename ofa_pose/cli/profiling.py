"""`ofa-pose profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from ofa_pose.cli.common import JsonOption, key_table, print_result
from ofa_pose.utils.console import show
from ofa_pose.utils.errors import InputError


def profile(
    net: Annotated[str, typer.Argument(help="A preset such as litepose-xs, a spec file, or a checkpoint.")],
    joints: Annotated[int | None, typer.Option("--joints", min=1, help="Number of keypoints; default 17.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Count again with thop on a throwaway net.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure time and memory on this machine's CPU, and each part's share.")
    ] = False,
    backend: Annotated[
        str | None, typer.Option("--backend", help="With --measure: onnxruntime (the default), torch, openvino, ncnn.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="With --measure; default 1.")] = None,
    as_json: JsonOption = False,
) -> None:
    """MACs in three conventions (thop is the default one for budgets), parameters, layers, time.

    median_ms and p90_ms are of one image that is a network's input already; images_per_s of batches of 8, from uint8
    images to outputs in NumPy; memory_mb is what the process takes for both, at most.

    Example: ofa-pose profile litepose-xs --joints 14 --measure --backend onnxruntime
    """
    if not measure and (backend is not None or threads is not None):
        raise InputError("--backend and --threads say how to measure", hint="add --measure")

    from ofa_pose.checkpoints.nets import load_any_spec
    from ofa_pose.costs import profile as profiling

    spec = load_any_spec(net, joints)
    result = profiling.profile(spec, name=net)
    if check:
        from ofa_pose.models.thop_count import check_with_thop

        result["thop_recount"] = check_with_thop(spec)
    if measure:
        from ofa_pose.latency.profile import measure_network, parts_table

        result["latency"] = measure_network(spec, backend or "onnxruntime", threads or 1)
    if layers:
        result["layers"] = profiling.layer_rows(spec)
    if as_json:
        print_result(result, as_json)
        return
    figures = result.get("latency", {})
    told = {key: value for key, value in result.items() if key not in ("layers", "latency")}
    measured = {key: value for key, value in figures.items() if key != "parts"}
    print_result(result, as_json, key_table({**told, **measured}))
    if layers:
        profiling.show_layers(spec)
    if measure:
        show(parts_table(figures))
