"""What people see of the results of data, trainings, searches, studies and evaluations, and what comes next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ofa_pose.cli.facts import Given, format_value, macs_of, show_rows, stages_of, suggest, sure_ap
from ofa_pose.monitor import NO_FLIP
from ofa_pose.utils.console import say, show, show_facts, warn
from ofa_pose.utils.errors import OfaPoseError
from ofa_pose.utils.numbers import counted, format_count, format_size, format_time

if TYPE_CHECKING:
    from ofa_pose.api.datasets import CheckResult, ConvertResult, SynthResult
    from ofa_pose.api.evaluating import EvaluationResult
    from ofa_pose.api.exchanging import ImportResult
    from ofa_pose.api.searching import ReportResult
    from ofa_pose.inference.predict import PredictionResult
    from ofa_pose.monitor.run_state import RunState
    from ofa_pose.searches.results import SearchResult
    from ofa_pose.studies.demo import DemoResult
    from ofa_pose.studies.exhaustive import ExhaustiveTable
    from ofa_pose.studies.fidelity import CountComparison, FidelityResult, TuningComparison
    from ofa_pose.studies.summary import StudyResult
    from ofa_pose.train.loop import TrainingResult


def show_synth(result: SynthResult) -> None:
    """How many scenes were drawn, and where they are."""
    show_facts({"drawn": counted(result.count, "scene"), "annotations": str(result.annotations)})


def show_check(result: CheckResult) -> None:
    """What a dataset holds; of images that are there twice the warnings name the first."""
    found = result.to_dict()
    shared = found.get("against")
    sizes = (f"{name} {width} × {height}" for name, (width, height) in found["image_sizes"].items())
    quartiles = (f"{name} {value:.2f}" for name, value in found["person_sizes"].items() if value is not None)
    people = (f"{count:,} with {number}" for number, count in found["people_per_image"].items() if count)
    facts = {
        "skeleton": found["skeleton"],
        "images": f"{found['images']:,}, {found['images_with_people']:,} of them with labelled people",
        "people": f"{found['people']:,}, {found['labelled_people']:,} of them with a labelled joint",
        "people an image": ", ".join(people),
        "image sizes": f"{', '.join(sizes)} pixels",
        "person sizes": f"{', '.join(quartiles)} of the short side (quartiles)" if found["person_sizes"] else "",
        "crowd regions": f"{found['crowd_regions']:,}",
    }
    if shared:
        same = ", with the same annotations" if shared["same_annotations"] else ""
        facts["shared images"] = f"{len(shared['shared_images']):,} of {shared['images']:,} of {shared['annotations']}"
        facts["shared images"] += same
    show_facts({name: text for name, text in facts.items() if text})
    rows = [
        (name, f"{joint['labelled']:,}", f"{joint['visible']:,}", f"{joint['hidden']:,}", f"{joint['share']:.0%}")
        for name, joint in found["joints"].items()
    ]
    show_rows(["joint"], ("labelled", "visible", "hidden", "of people"), rows)
    for warning in found["warnings"]:
        warn(warning)


def after_check(result: CheckResult, given: Given) -> None:
    """Say where the labels are drawn."""
    if given["pictures"]:
        say(f"open in a browser: {given['pictures']}")


def show_conversion(result: ConvertResult) -> None:
    """What each split has; below what to know of the data, and what was lost."""
    from ofa_pose.formats.annotated import LOSSES

    for name, one in result.splits.items():
        held = f"{counted(one['count'], 'image')}, {counted(one['people'], 'person', 'people')}"
        facts = {"holds": held, "annotations": str(one["annotations"]), "images": str(one["images"])}
        show_facts(facts, title=f"{name}, read as {result.source_format}")
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


def show_training(result: TrainingResult) -> None:
    """The best AP with what it is of, where the network is, and how long it took."""
    on = f"{counted(result.images, 'validation image')}, {counted(result.people, 'person', 'people')}"
    facts = {
        "best AP": f"{result.AP:.4f} on {on}, {NO_FLIP}",
        "after": f"step {result.step:,} of {result.steps:,}",
        "checkpoint": str(result.checkpoint),
        "poses": str(result.poses or ""),
        "took": format_time(result.seconds),
    }
    show_facts({name: text for name, text in facts.items() if text})


def after_pretrain(result: TrainingResult, given: Given) -> None:
    """The largest net of a space is there for its supernet."""
    if given["net"] is None:
        suggest("train-supernet --init {out} --out …")(result, given)


def show_search(result: SearchResult) -> None:
    """All but the front and the notes, which the search has shown."""
    best = result.best
    latency = "" if best.latency_ms is None else f", {best.latency_ms:.3g} ms"
    known = result.evaluations - min(result.judged, result.evaluations)
    people = "" if result.people is None else f", {counted(result.people, 'person', 'people')}"
    facts = {
        "chosen": str(best.spec),
        "AP": f"{sure_ap(best.AP, best.AP_stderr)} on the search images{people}, {NO_FLIP}",
        "costs": f"{macs_of(best.macs)} MACs, {format_count(best.params)} parameters{latency}",
        "evaluated": f"{counted(result.evaluations, 'subnet')} by {result.algorithm}"
        + (f", {known:,} of them looked up in the archive" if known else ""),
        "subnet": str(result.subnet),
        "checkpoint": str(result.checkpoint or ""),
        "archive": str(result.archive),
        "took": format_time(result.seconds),
    }
    if result.int8:
        images = counted(result.int8["calibration_images"], "training image")
        facts["int8"] = f"the AP is int8's; ranges of maps from {images} ({result.int8['annotations']})"
    show_facts({name: text for name, text in facts.items() if text})


def after_search(result: SearchResult, given: Given) -> None:
    """The chosen subnet is fine-tuned, for int8 where it was searched for it; not one that finds nobody."""
    int8 = " --int8" if result.int8 else ""
    if result.best.AP > 0:
        suggest(f"finetune --subnet {{subnet}} --supernet {{supernet}} --teacher …{int8} --out …")(result, given)


def show_table(result: ExhaustiveTable) -> None:
    """The best subnet, and where all are."""
    from ofa_pose.arch.spec import ArchSpec

    best, known = result.best, result.subnets - result.judged
    show_facts(
        {
            "evaluated": counted(result.subnets, "subnet") + (f", {known:,} of them before" if known else ""),
            "best": str(ArchSpec.from_dict(best["spec"])),
            "AP": f"{sure_ap(best['AP'], best['AP_stderr'])} on the search images, {NO_FLIP}",
            "costs": f"{macs_of(best['macs'])} MACs, {format_count(best['params'])} parameters",
            "table": str(result.table),
            "took": format_time(result.seconds),
        }
    )


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
    say(f"Rank correlation over {result.subnets} subnets of all costs; APs {NO_FLIP}")
    show_rows(("evaluated on", "against"), columns, rows)
    say(result.advice)
    say(f"every figure: {result.table}" + (f", drawn: {result.picture}" if result.picture else ""))
    say(f"took {format_time(result.seconds)}")


def show_study(result: StudyResult) -> None:
    """A table for each metric, a row an arm; then where all figures are."""
    from ofa_pose.studies.summary import arm_cells

    columns = ("to the first", "MACs, exact", "params", "steps", "s a run")
    say(f"{result.study}: {result.asks}")
    for metric in dict.fromkeys(arm.metric for arm in result.arms):
        cells = [arm_cells(arm) for arm in result.arms if arm.metric == metric]
        rows = [(*row[:4], *row[6:]) for row in cells]  # the MACs of other conventions are in the files
        tested = f"{metric} (flip test)" if metric == "AP" else metric
        show_rows([""], (tested, *columns), rows)
    drawn = f", drawn: {result.picture}" if result.picture else ""
    say(f"every figure: {result.csv}, the table: {result.table}{drawn}")
    say(f"took {format_time(result.seconds)}")


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
    say(f"took {format_time(result.seconds['total'])}")


def show_import(result: ImportResult) -> None:
    """What was read, and its keys counted, the first ones named."""
    found = result.to_dict()
    facts = {
        "checkpoint": str(result.checkpoint),
        "read": f"a {result.kind}: {result.net}",
        "joints": f"{result.joints}, {result.skeleton}",
        "costs": f"{macs_of(result.macs)} MACs, {format_count(result.params)} parameters",
    }
    for name in ("used", "ignored", "missed"):
        count, first = found[name]["count"], found[name]["keys"]
        listed = ", ".join(first) + (" …" if count > len(first) else "")
        facts[name] = counted(count, "key") + (f": {listed}" if first else "")
    show_facts(facts)


def after_import(result: ImportResult, given: Given) -> None:
    """An imported checkpoint goes on as one of ours would."""
    supernet = "search --supernet {checkpoint} --recipe coco --macs … --out …"
    net = "eval --checkpoint {checkpoint} --annotations … --images …"
    suggest(supernet if result.kind == "supernet" else net)(result, given)


def show_evaluation(result: EvaluationResult) -> None:
    """The metrics first, the AP with its standard error and how it was taken; a table a part of the breakdown."""
    metrics, sides = dict(result.metrics), ", ".join(map(str, result.resolutions or ()))
    test = "" if result.flip is None else ", with the flip test" if result.flip else f", {NO_FLIP}"
    facts = {"AP": sure_ap(metrics.pop("AP", None), metrics.pop("AP_stderr", None)) + test}
    facts["of"] = f"{counted(result.people, 'person', 'people')} on {counted(result.images, 'image')}"
    if sides:
        facts["input"] = f"short side {sides} pixels"
    facts |= {name: format_value(value) for name, value in metrics.items()}
    show_facts({**facts, "took": stages_of(result.seconds)})
    for what, part in (result.breakdown or {}).items():
        parts = {name: {key: format_value(row[key]) for key in ("AP", "AR", "people")} for name, row in part.items()}
        for name, row in part.items():
            if "compared" in row:
                swapped = "–" if row["swapped"] is None else f"{row['swapped']:.1%}"
                parts[name]["sides confused"] = f"{swapped} of {row['compared']:,}"
        columns = tuple(dict.fromkeys(key for row in parts.values() for key in row))
        show_rows([what], columns, [(name, *(row.get(key, "") for key in columns)) for name, row in parts.items()])


def show_prediction(result: PredictionResult) -> None:
    """What was found, where it is, and how long it took."""
    facts = {
        "done": counted(result.images, result.unit.removesuffix("s")),
        "failed": f"{result.failed:,} could not be read" if result.failed else "",
        "found": counted(result.people, "person", "people") + f", of {counted(result.candidates, 'candidate')}",
        "followed": "" if result.tracks is None else counted(result.tracks, "person", "people"),
        "results": str(result.predictions),
        "overlays": str(result.overlays),
        "took": stages_of(result.seconds),
    }
    show_facts({name: text for name, text in facts.items() if text})


def after_predict(result: PredictionResult, given: Given) -> None:
    """Exit code 1 where something could not be read."""
    if result.failed:
        raise OfaPoseError(f"{result.failed} of the {result.unit} could not be read; the rest is done")


def show_report(result: ReportResult) -> None:
    """Where the page is."""
    say(f"open in a browser: {result.out} ({format_size(result.bytes)})")


def show_nothing(result: RunState) -> None:
    """What the command has shown itself."""
