"""What people see of the results about devices: what networks cost, how long they take, their files."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ofa_pose.cli.facts import Given, macs_of, show_rows
from ofa_pose.monitor import NO_FLIP
from ofa_pose.utils.console import say, show_facts, warn
from ofa_pose.utils.numbers import counted, format_count, format_size, format_time

if TYPE_CHECKING:
    from ofa_pose.api.profiling import BundleResult, LatencyTableResult, ProfileResult
    from ofa_pose.exports.formats import ExportResult
    from ofa_pose.latency.comparison import ComparedNet, ImageTime, LatencyComparison
    from ofa_pose.latency.measure import NetworkTime, Verification


def show_export(result: ExportResult) -> None:
    """One row a file: of a format's first its size, of a model its difference from torch and its time.

    Below int8 stands what it was made of, in single precision; below the table the APs of both.
    """
    rows = []
    for name, path in result.files.items():
        report = result.reports.get(name, {})
        names = [Path(file).name for file in report.get("files", [path])]
        difference = f"{report['max_difference']:.1e}" if "max_difference" in report else "–"
        time = f"{report['ms']:.1f}" if "ms" in report else "–"
        rows.append((name, names[0], format_size(result.bytes[name]), difference, time))
        rows += [("", other, "", "", "") for other in names[1:]]
        if "float_ms" in report:
            rows.append(
                ("", "the same in float32", format_size(report["float_bytes"]), "–", f"{report['float_ms']:.1f}")
            )
    folder = next(iter(result.files.values())).parent
    say(f"files in {folder}, models compared with torch; ms: of one image in one thread")
    show_rows(("format", "file"), ("size", "max difference", "ms"), rows)
    for name, report in result.reports.items():
        if "AP" in report:
            ap = report["AP"]
            on = f"{counted(ap['images'], 'image')}, {NO_FLIP}"
            say(f"{name}: AP {ap['int8']:.4f}, in float32 {ap['float']:.4f} ({on})")


def after_export(result: ExportResult, given: Given) -> None:
    """Warn of what a format loses; say what groups the joints of a model with its decoder inside, how a page opens."""
    if given["decoder"]:
        package = Path(__file__).resolve().parents[1]
        say(f"next: group its joints with {package / 'web/grouping.js'} or {package / 'native/grouping.hpp'}")
    for name, report in result.reports.items():
        if "warning" in report:
            warn(f"{name}: {report['warning']}")
    if "web" in result.files:
        folder = shlex.quote(str(result.files["web"]))
        say(f"next: python -m http.server --directory {folder}, then open http://localhost:8000")


def show_profile(result: ProfileResult) -> None:
    """The figures, then the layers and the parts."""
    figures = result.figures
    if result.is_space:
        _show_space(figures)
        return
    facts = {
        "network": str(figures["name"]),
        "input": f"{figures['resolution']} pixels, {figures['joints']} joints",
        "parameters": f"{figures['params']:,}",
        "MACs": macs_of(figures["macs"]),
    }
    if result.thop_recount is not None:
        facts["thop itself"] = f"{result.thop_recount:,} MACs, as counted here"
    show_facts(facts | (dict(_time_facts(result.latency)) if result.latency else {}))
    if result.layers:
        conventions = tuple(result.layers[0]["macs"])
        keys = ("name", "operator", "cin", "cout", "side", "params")
        rows = [(*(str(row[key]) for key in keys), *map(format_count, row["macs"].values())) for row in result.layers]
        say("every layer: channels in and out, side of its output in cells, parameters, MACs by convention")
        show_rows(("layer", "operator"), ("in", "out", "side", "params", *conventions), rows)
    if result.latency and result.latency.parts:
        say(f"parts, each measured alone: {result.latency.runtime}")
        parts = [(part.name, f"{part.ms:.3f}", f"{part.share:.1%}") for part in result.latency.parts]
        show_rows(["part"], ("ms", "share"), parts)


def _time_facts(time: NetworkTime) -> Iterator[tuple[str, str]]:
    yield "measured with", f"{time.runtime}, {counted(time.threads, 'thread')}"
    yield "one image", f"{time.median_ms:.2f} ms (median; nine of ten within {time.p90_ms:.2f} ms)"
    if time.images_per_s is not None:
        yield "batches of 8", f"{time.images_per_s:.1f} images/s"
    if time.memory_mb is not None:
        yield "memory", f"{time.memory_mb:.0f} MB at most"


def _show_space(found: Mapping[str, Any]) -> None:
    """A row a resolution, below what all of them cost and what keeps the budget ("inside")."""

    from ofa_pose.arch.spec import ArchSpec
    from ofa_pose.costs.feasible import format_subnets

    def shown(ends: Mapping[str, float], to: str = "–") -> str:
        return to.join(format_count(ends[end]) for end in ("least", "most"))

    budget, conventions = found.get("budget"), tuple(found["macs"])
    counts = ("subnets", "admitted") if budget else ("subnets",)
    rows = [
        (side, *(format_subnets(one[key]) for key in counts), *(shown(one["macs"][name]) for name in conventions))
        for side, one in found["resolutions"].items()
    ]
    columns = ("subnets", *(("inside",) if budget else ()), *(f"MACs, {name}" for name in conventions))
    say(f"{found['name']}, {found['joints']} joints")
    show_rows(["pixels"], columns, rows)
    say(f"{format_subnets(found['subnets'])} subnets, {shown(found['params'], ' to ')} parameters")
    if budget:
        say(f"{budget['text']}; the largest is {ArchSpec.from_dict(budget['largest'])}")


def show_table_file(result: LatencyTableResult) -> None:
    """What a latency table was measured with, how much it holds, and how well it agrees with itself."""
    found = result.to_dict()
    measured = f"{found['runtime']}, {counted(found['threads'], 'thread')}, on {found['device']}"
    facts = {
        "measured": measured,
        "space": f"{found['space']}, {found['joints']} joints",
        "holds": f"{counted(found['pieces'], 'piece')}, {counted(found['nets'], 'whole network')}",
        "error": f"its own networks are predicted {found['net_error']:.1%} wrong on average",
    }
    if between := found.get("interpolation_error"):
        facts["interpolated"] = f"pieces by their neighbours: {between['median']:.1%} wrong (median), "
        facts["interpolated"] += f"nine of ten within {between['p90']:.1%}, of {counted(between['pieces'], 'piece')}"
    if verified := found.get("verification"):
        facts["verified"] = _verified(verified)
    facts["table"] = str(result.out)
    if result.seconds is not None:
        facts["took"] = format_time(result.seconds)
    show_facts(facts)


def _verified(figures: Mapping[str, float | None]) -> str:
    """How well networks were predicted that a table does not hold."""
    ranks = ", ".join(
        f"{name} {figures[key]:.3f}"
        for name, key in (("Spearman's rho", "spearman"), ("Kendall's tau", "kendall"))
        if figures[key] is not None
    )
    return f"{figures['nets']} networks it does not hold: {figures['mape']:.1%} wrong on average" + (
        f", ranked with {ranks}" if ranks else ""
    )


def show_verification(result: Verification) -> None:
    """The subnets, fastest first, each by what differs; then how well they were predicted."""
    parts = [str(spec).split(";") for spec in result.specs]
    names = [
        ";".join(part for part, *others in zip(own, *parts, strict=True) if set(others) != {part}) for own in parts
    ]
    found = sorted(zip(result.measured, result.predicted, result.errors, names, strict=True))
    rows = [(name, f"{ms:.2f}", f"{predicted:.2f}", f"{error:+.1%}") for ms, predicted, error, name in found]
    show_rows(["subnet: what differs"], ("measured, ms", "predicted", "error"), rows)
    say(f"the table's own networks take {result.drift:.3f} times as long now; that is divided out")
    say(_verified(result.to_dict()))


def show_bundle(result: BundleResult) -> None:
    """Where a bundle is, and how large."""
    show_facts(
        {"bundle": f"{result.out}/", "times": counted(result.models, "model"), "size": format_size(result.bytes)}
    )


def after_bundle(result: BundleResult, given: Given) -> None:
    """Say what to do with a bundle."""
    there = f"on the device: python {result.out.name}/measure.py --threads N, as many as networks will run in there"
    if given["format"] == "web":
        there = f"python -m http.server --directory {shlex.quote(str(result.out))}, and open that page on the device"
    say(f"{there}; then here: ofa-pose latency import results.csv --out TABLE")


def show_comparison(result: LatencyComparison) -> None:
    """What the networks cost; then their times, a row with and one without the flip test on every runtime."""

    def times(one: ImageTime) -> tuple[str, ...]:
        ms = ("–" if value is None else f"{value:.1f}" for value in (one.network_ms, one.decode_ms, one.total_ms))
        ratios = ("–" if value is None else f"{value:.2f}" for value in (one.network_ratio, one.total_ratio))
        return (*ms, *ratios)

    several = len(result.runtimes) > 1
    nets: dict[str, list[ComparedNet]] = {}
    for net in result.nets:
        nets.setdefault(net.net, []).append(net)
    costs, rows = [], []
    for name, runs in nets.items():
        first = runs[0]
        macs = (format_count(first.macs[convention]) for convention in ("thop", "exact", "paper"))
        costs.append((name, str(first.resolution), format_count(first.params), *macs))
        if several:
            rows.append((name, *[""] * 5))
        for one in runs:
            rows.append((f"  {one.backend}" if several else name, *times(one.plain)))
            rows.append(("    flipped" if several else "  flipped", *times(one.flip)))
    ran = ", ".join(result.runtimes.values())
    say(f"{ran}, {counted(result.threads, 'thread')}, {result.device}")
    show_rows(["net: costs"], ("pixels", "params", "MACs, thop", "exact", "paper"), costs)
    show_rows(["net: ms of one image"], ("network", "decode", "both", "× network", "× both"), rows)
    scenes = f"the maps of {result.scenes} drawn scenes of {result.people:.1f} people"
    say(f"flipped: with the flip test; ×: times as long as {result.base}")
    say(f"medians of {result.rounds} rounds; decoding: a mean over {scenes}")
