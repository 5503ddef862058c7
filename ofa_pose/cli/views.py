"""What people see of the commands' results, and what comes next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ofa_pose.utils.console import say, show, warn
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.numbers import format_count

if TYPE_CHECKING:
    from ofa_pose.api.datasets import CheckResult, ConvertResult
    from ofa_pose.api.evaluating import EvaluationResult
    from ofa_pose.api.exchanging import ImportResult
    from ofa_pose.api.profiling import BundleResult, ProfileResult
    from ofa_pose.exports.formats import ExportResult
    from ofa_pose.inference.predict import PredictionResult
    from ofa_pose.latency.comparison import ImageTime, LatencyComparison
    from ofa_pose.latency.measure import Verification
    from ofa_pose.searches.results import SearchResult
    from ofa_pose.studies.demo import DemoResult
    from ofa_pose.studies.exhaustive import ExhaustiveTable
    from ofa_pose.studies.fidelity import CountComparison, FidelityResult, TuningComparison
    from ofa_pose.studies.summary import StudyResult
    from ofa_pose.train.loop import TrainingResult

Given = Mapping[str, Any]  # a call's arguments


def show_values(result: Mapping[str, Any], without: Sequence[str] = ()) -> None:
    """A table of names and values; numbers that are not integers with four decimals."""
    shown = {key: value for key, value in result.items() if key not in without}
    show_rows(("", ""), (), _rows(shown), show_header=False)


def show_rows(text: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]], **style: Any) -> None:
    """A table of columns of text, then columns of numbers, which stand to the right; `style` as rich's Table has it."""
    table = Table(**style)
    for name in text:
        table.add_column(escape(name), overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*map(escape, row))  # a path may hold what rich takes for markup
    show(table)


def _rows(result: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    """Plain values in one row each; a mapping of plain values in one row; what is deeper below it, indented."""
    for key, value in result.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            yield f"{indent}{key}", ""
            yield from _rows(value, indent + "  ")
        elif isinstance(value, Mapping):
            if value:
                yield f"{indent}{key}", "  ".join(f"{k} {format_value(v)}" for k, v in value.items())
        elif isinstance(value, list | tuple) and value and all(isinstance(inner, str) for inner in value):
            yield f"{indent}{key}", "\n".join(value)
        elif value != []:
            yield f"{indent}{key}", format_value(value)


def format_value(value: Any) -> str:
    """A value as people read it."""
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def suggest(*commands: str) -> Callable[[Any, Given], None]:
    """What says the next commands: {names} are those of the result or the call, '…' is what the user chooses."""

    def say_next(result: Any, given: Given) -> None:
        known = {name: shlex.quote(str(value)) for name, value in {**given, **vars(result)}.items()}
        for command in commands:
            say(f"next: ofa-pose {command.format_map(known)}")

    return say_next


def show_check(result: CheckResult) -> None:
    """The figures; of images that are there twice the warnings name the first."""
    figures = result.to_dict()
    against = figures.get("against")
    if against:
        figures["against"] = {**against, "shared_images": len(against["shared_images"])}
    show_values(figures, without=("repeated_images",))


def after_check(result: CheckResult, given: Given) -> None:
    """Say where the labels are drawn."""
    if given["pictures"]:
        say(f"open in a browser: {given['pictures']}")


def show_conversion(result: ConvertResult) -> None:
    """A row a split; below what to know of the data, and what was lost."""
    from ofa_pose.formats.annotated import LOSSES

    rows = [
        (name, str(one["annotations"]), str(one["images"]), str(one["count"]), str(one["people"]))
        for name, one in result.splits.items()
    ]
    title = f"Read as {result.source_format}"
    show_rows(("split", "annotations", "images folder"), ("images", "people"), rows, title=title)
    if result.skeleton:
        say(f"flip pairs, sigmas and limbs, to check by eye: {result.skeleton}")
    for note in result.notes:
        warn(note)
    for key, count in result.lost.items():
        warn(f"{count} lost: {LOSSES[key]}")


def after_convert(result: ConvertResult, given: Given) -> None:
    """A converted dataset is looked over."""
    one = next(iter(result.splits.values()))
    if given["format"] == "coco":
        suggest("data check --annotations {annotations} --images {images}")(result, {**given, **one})


def after_pretrain(result: TrainingResult, given: Given) -> None:
    """The largest net of a space is there for its supernet."""
    if given["net"] is None:
        suggest("train-supernet --init {out} --out …")(result, given)


def show_search(result: SearchResult) -> None:
    """All but the front and the notes, which the search has shown."""
    shown = result.to_dict()
    _join_error(shown["best"])
    float_only = () if result.int8 else ("int8",)
    show_values(shown, without=("chosen", "front", "uniform", "notes", *float_only))


def show_table(result: ExhaustiveTable) -> None:
    """The figures; the AP with its standard error."""
    shown = result.to_dict()
    _join_error(shown["best"])
    show_values(shown)


def _join_error(figures: dict[str, Any]) -> None:
    """Put an AP's standard error into the AP's row."""
    error = figures.pop("AP_stderr", None)
    if error is not None:
        figures["AP"] = f"{format_value(figures['AP'])} ± {format_value(error)} (standard error)"


def after_import(result: ImportResult, given: Given) -> None:
    """An imported checkpoint goes on as one of ours would."""
    supernet = "search --supernet {checkpoint} --recipe coco --macs … --out …"
    net = "eval --checkpoint {checkpoint} --annotations … --images …"
    suggest(supernet if result.kind == "supernet" else net)(result, given)


def after_predict(result: PredictionResult, given: Given) -> None:
    """Exit code 1 where something could not be read."""
    if result.failed:
        raise OfaPoseError(f"{result.failed} of the {result.unit} could not be read; the rest is done")


def show_fidelity(result: FidelityResult) -> None:
    """The rank correlations, the advice below them; then where every figure is."""

    def cells(found: CountComparison | TuningComparison, seconds: float) -> tuple[str, str, str]:
        known = found.tau is not None
        tau, interval = (f"{found.tau:.3f}", f"{found.low:.2f} to {found.high:.2f}") if known else ("–", "–")
        return tau, interval, f"{seconds:.2f}"

    rows = [
        (f"{line.count} {unit}", str(lines[-1].count), *cells(line, line.seconds))
        for lines, unit in ((result.images, "images"), (result.calibration, "calibration images"))
        for line in lines[:-1]
    ]
    most, tuned = result.images[-1], result.finetuned
    if tuned:
        rows.append((f"{most.count} images, inherited", f"after {tuned.steps} steps", *cells(tuned, most.seconds)))
    columns = ("Kendall's tau", "95 % interval", "s a subnet")
    title = f"Rank correlation over {result.subnets} subnets of all costs"
    style = {"title": title, "caption": result.advice, "caption_justify": "left"}
    show_rows(("evaluated on", "against"), columns, rows, **style)
    say(f"every figure: {result.table}" + (f", drawn: {result.picture}" if result.picture else ""))


def show_study(result: StudyResult) -> None:
    """A table for each metric, a row an arm; then where all figures are."""
    from ofa_pose.studies.summary import arm_cells

    columns = ("to the first", "MACs, exact", "parameters", "steps", "s a run")
    for metric in dict.fromkeys(arm.metric for arm in result.arms):
        cells = [arm_cells(arm) for arm in result.arms if arm.metric == metric]
        rows = [(*row[:4], *row[6:]) for row in cells]  # the MACs of other conventions are in the files
        show_rows([""], (metric, *columns), rows, title=result.study, title_justify="left")
    say(result.asks)
    drawn = f", drawn: {result.picture}" if result.picture else ""
    say(f"every figure: {result.csv}, the table: {result.table}{drawn}")


def after_study(result: StudyResult, given: Given) -> None:
    """Exit code 1 where a run failed."""
    if result.failed:
        names = "; ".join(result.failed)
        raise OfaPoseError(f"runs failed: {names}; the others are done, the same command tries these again")


def show_demo(result: DemoResult) -> None:
    """The figures as a table."""
    from ofa_pose.studies.demo import demo_table

    show(demo_table(result))


def after_demo(result: DemoResult, given: Given) -> None:
    """Where everything is, and how long it took."""
    say(f"everything is in {given['out']}: report.html, summary.json, poses.jpg, export/")
    say(f"{result.seconds['total']:.0f} s in all")


def show_import(result: ImportResult) -> None:
    """Keys are counted, the first ones named."""
    shown = result.to_dict()
    for name in ("used", "ignored", "missed"):
        count, first = shown[name]["count"], shown[name]["keys"]
        listed = ", ".join(first) + (" …" if count > len(first) else "")
        shown[name] = f"{count} keys" + (f": {listed}" if first else "")
    show_values(shown)


def show_evaluation(result: EvaluationResult) -> None:
    """The metrics first, the AP with its standard error; a table for each part of the breakdown."""
    shown, columns = result.to_dict(), ("AP", "AR", "people")
    _join_error(shown["metrics"])
    parts, sides = shown.pop("breakdown", {}), ", ".join(map(str, result.resolutions or ()))
    show_values({**shown.pop("metrics"), **shown, "resolutions": sides})
    for what, part in parts.items():
        rows = [(name, *(format_value(row[column]) for column in columns)) for name, row in part.items()]
        show_rows([what], columns, rows)


def show_export(result: ExportResult) -> None:
    """One row a format: its files, their size; of a model its difference from torch and its time.

    Below int8 stands what it was made of, in single precision; below the table the APs of both.
    """
    rows = []
    for name, path in result.files.items():
        report = result.reports.get(name, {})
        names = "\n".join(Path(file).name for file in report.get("files", [path]))
        difference = f"{report['max_difference']:.1e}" if "max_difference" in report else "–"
        time = f"{report['ms']:.1f}" if "ms" in report else "–"
        rows.append((name, names, _size(result.bytes[name]), difference, time))
        if "float_ms" in report:
            rows.append(("", "the same in float32", _size(report["float_bytes"]), "–", f"{report['float_ms']:.1f}"))
    folder = next(iter(result.files.values())).parent
    show_rows(("format", f"files in {folder}"), ("size", "max difference", "ms, one thread"), rows)
    for name, report in result.reports.items():
        if "AP" in report:
            ap = report["AP"]
            say(f"{name}: AP {ap['int8']:.4f}, in float32 {ap['float']:.4f} ({ap['images']} images, no flip test)")


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


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def show_profile(result: ProfileResult) -> None:
    """The figures, then the layers and the parts."""
    if result.is_space:
        _show_space(result.figures)
        return
    figures = result.to_dict()
    show_values({**figures, **figures.get("latency", {})}, without=("layers", "latency", "parts"))
    if result.layers:
        columns = ("in", "out", "side", "params", *result.layers[0]["macs"])
        keys = ("name", "operator", "cin", "cout", "side", "params")
        rows = [(*(str(row[key]) for key in keys), *map(format_count, row["macs"].values())) for row in result.layers]
        title = f"{result.spec}, {result.spec.joints} joints: MACs by convention"
        show_rows(("layer", "operator"), columns, rows, title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    if result.latency and result.latency.parts:
        title = f"Parts, each measured alone: {result.latency.runtime}"
        parts = [(part.name, f"{part.ms:.3f}", f"{part.share:.1%}") for part in result.latency.parts]
        show_rows(["part"], ("ms", "share"), parts, title=title, box=SIMPLE_HEAD, title_justify="left")


def _show_space(figures: Mapping[str, Any]) -> None:
    """A row a resolution, below what all of them cost and what keeps the budget ("inside")."""

    from ofa_pose.arch.spec import ArchSpec
    from ofa_pose.costs.feasible import format_subnets

    def shown(ends: Mapping[str, float], to: str = "–") -> str:
        return to.join(format_count(ends[end]) for end in ("least", "most"))

    budget, conventions = figures.get("budget"), tuple(figures["macs"])
    counts = ("subnets", "admitted") if budget else ("subnets",)
    rows = [
        (side, *(format_subnets(one[key]) for key in counts), *(shown(one["macs"][name]) for name in conventions))
        for side, one in figures["resolutions"].items()
    ]
    columns = ("subnets", *(("inside",) if budget else ()), *(f"MACs, {name}" for name in conventions))
    show_rows(["resolution"], columns, rows, title=f"{figures['name']}, {figures['joints']} joints")
    say(f"{format_subnets(figures['subnets'])} subnets, {shown(figures['params'], ' to ')} parameters")
    if budget:
        say(f"{budget['text']}; the largest is {ArchSpec.from_dict(budget['largest'])}")


def show_verification(result: Verification) -> None:
    """The subnets, fastest first, each by what differs; then how well they were predicted."""
    parts = [str(spec).split(";") for spec in result.specs]
    names = [
        ";".join(part for part, *others in zip(own, *parts, strict=True) if set(others) != {part}) for own in parts
    ]
    found = sorted(zip(result.measured, result.predicted, result.errors, names, strict=True))
    rows = [(name, f"{ms:.2f}", f"{predicted:.2f}", f"{error:+.1%}") for ms, predicted, error, name in found]
    show_rows(["subnet: what differs"], ("measured, ms", "predicted, ms", "error"), rows)
    say(f"the table's own networks take {result.drift:.3f} times as long now; that is divided out")
    show_values(result.to_dict())


def after_bundle(result: BundleResult, given: Given) -> None:
    """Say what to do with a bundle."""
    there = f"on the device: python {result.out.name}/measure.py"
    if given["format"] == "web":
        there = f"python -m http.server --directory {shlex.quote(str(result.out))}, and open that page on the device"
    say(f"{there}; then here: ofa-pose latency import results.csv --out TABLE")


def show_comparison(result: LatencyComparison) -> None:
    """Two rows a network, the second with the flip test."""

    def times(one: ImageTime) -> tuple[str, ...]:
        ms = ("–" if value is None else f"{value:.1f}" for value in (one.network_ms, one.decode_ms, one.total_ms))
        ratios = ("–" if value is None else f"{value:.2f}" for value in (one.network_ratio, one.total_ratio))
        return (*ms, *ratios)

    rows: list[tuple[str, ...]] = []
    several = len(result.runtimes) > 1
    for net in result.nets:
        costs = map(format_count, (net.params, net.macs["exact"], net.macs["paper"]))
        on = (net.backend,) if several else ()
        rows.append((net.net, *on, str(net.resolution), *costs, *times(net.plain)))
        rows.append(("  flipped", *on, *[""] * 4, *times(net.flip)))
    columns = ("pixels", "params", "exact", "paper", "network", "decode", "both", "network", "both")
    ran = ", ".join(result.runtimes.values())
    title = f"{ran}, threads {result.threads}, {result.device}: MACs, ms of one image, × {result.base}"
    style = {"title": title, "title_justify": "left", "box": SIMPLE_HEAD, "padding": 0}
    show_rows(["net", *["on"] * several], columns, rows, **style)
    scenes = f"the maps of {result.scenes} drawn scenes of {result.people:.1f} people"
    say(f"flipped: with the flip test; medians of {result.rounds} rounds; decoding: a mean over {scenes}")
