"""The first screen of a report: which network it is, how good on images that nothing saw, what it costs, what next."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.checkpoints.checkpoint import find_checkpoint, load_checkpoint
from ofa_pose.costs.limits import show_ms
from ofa_pose.families.profile import profile_net
from ofa_pose.formats.reading import fingerprint
from ofa_pose.monitor import NO_FLIP
from ofa_pose.pose.bootstrap import few_people, paired_error, show_ap, shown_difference
from ofa_pose.reports.findings import (
    Evaluated,
    Exported,
    Latency,
    find_evaluations,
    find_exports,
    find_latencies,
)
from ofa_pose.reports.html_parts import command, element, figure, jpeg_address, section, table, tiles
from ofa_pose.reports.pose_pictures import pose_pictures, read_poses
from ofa_pose.reports.runs import Run, attempt, note, source
from ofa_pose.reports.search_section import Searched, search_lead
from ofa_pose.searches.job import BASIS
from ofa_pose.searches.results import UNIFORM
from ofa_pose.utils import files
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import counted, format_count, format_size
from ofa_pose.utils.run_dir import RECIPE

CONFUSION = (
    "Of people who were found (object keypoint similarity 0.5 or more), a joint counts where it and its opposite are "
    "labelled, so far apart that the metric distinguishes them (similarity below 0.5); it is confused where its "
    "prediction lies nearer to the opposite joint's true place than to its own."
)
CONVENTIONS = (
    "MACs, thop: as in LitePose's tables, with BatchNorm, and transposed convolutions by their output's pixels. "
    "Exact: multiply-adds alone. Paper: as thop, but 2 for an element of BatchNorm and 1 of ReLU."
)
TEST = "test"  # the folder that a suggested evaluation writes, beside the run


@dataclass(frozen=True)
class Answer:
    """What the files in and beside a run say of its network.

    Attributes:
        spec: None of a supernet's run, or where there is no network yet.
        checkpoint: its best checkpoint; None where there is none.
        own: its evaluation, of several the one on images that nothing saw, else on the most images.
        others: (what it is, evaluation) of other networks on the same images.
        uses: what the run did with those images, such as 'the training'; empty where they are unseen.
        found: whether all that it started from is found and could be read, so that `uses` can be relied on.
    """

    run: Run
    spec: NetSpec | None
    search: Searched | None
    checkpoint: Path | None
    own: Evaluated | None
    others: Sequence[tuple[str, Evaluated]]
    uses: Sequence[str]
    found: bool
    exports: Sequence[Exported]
    latencies: Sequence[Latency]


def find_answer(
    run: Run, spec: NetSpec | None, search: Searched | None, runs: Sequence[tuple[Run, str]], problems: list[str]
) -> Answer:
    """Look for it; `problems` gets a line of each file at fault, which is left out."""
    say = partial(note, problems=problems)
    checkpoint = next((p for p in (run.path / "checkpoints" / "best.pt", run.path / "best.pt") if p.is_file()), None)
    sha256 = files.sha256(checkpoint) if checkpoint is not None else ""
    every = find_evaluations(run.path, say) if spec is not None and sha256 else []
    mine = [one for one in every if one.sha256 == sha256]
    before = len(problems)
    used = {truth: _uses(truth, [run for run, _ in runs], problems) for truth in {one.truth for one in mine}}
    found = len(problems) == before
    own = max(mine, key=lambda one: (not used[one.truth], one.count, bool(one.breakdown)), default=None)
    others: list[tuple[str, Evaluated]] = []
    if own is not None and spec is not None:
        seen = {own.sha256}
        for one in every:  # with the mirrored image, or without it, as its own
            alike = (one.truth, one.metric, one.flip) == (own.truth, own.metric, own.flip)
            if alike and one.sha256 not in seen:
                seen.add(one.sha256)
                others.append((_role(one, run, spec, search), one))
    others.sort(key=lambda pair: (ROLES.index(pair[0]), pair[1].checkpoint))
    tables = [path] if search and (path := search.latency_table) is not None else []
    exports = find_exports(run.path, sha256, say) if sha256 and spec is not None else []
    latencies = find_latencies(run.path, spec, tables, say) if spec is not None else []
    uses = used[own.truth] if own is not None else []
    found &= not any(run.lost for run, _ in runs)
    return Answer(run, spec, search, checkpoint, own, others, uses, found, exports, latencies)


ROLES = ("uniformly scaled net", "teacher", "same shape, other weights", "other network")


def _role(one: Evaluated, run: Run, spec: NetSpec, search: Searched | None) -> str:
    """What another network is to the run's."""
    teacher = run.option("--teacher")
    with suppress(InputError):
        if teacher and files.sha256(find_checkpoint(run.locate(teacher) or teacher)) == one.sha256:
            return ROLES[1]
    if one.spec == spec:
        return ROLES[2]
    space = search.space if search is not None else None
    return ROLES[0] if space is not None and one.spec in space.uniform(spec.joints) else ROLES[3]


def _uses(truth: str, runs: Sequence[Run], problems: list[str]) -> list[str]:
    """What runs did with the images of these annotations, as far as their files say."""
    found = []
    for run in runs:
        basis = attempt(partial(run.table, BASIS), problems) or {}
        for key, what in (("train", "BatchNorm recalibration"), ("search", "the search")):
            if isinstance(basis.get(key), list) and basis[key][:1] == [truth]:
                found.append(f"{what} ({run.name})")
        recipe = attempt(partial(files.parse_yaml, run.recipe, run.path / RECIPE), problems) or {}
        data = recipe.get("data") if isinstance(recipe, dict) else None
        for key, what in (("val", "the choice of its checkpoint"), ("search", "the search")):
            split = data.get(key) if isinstance(data, dict) else None
            if isinstance(split, dict) and _is_of(run, split, truth):
                found.append(f"{what} ({run.name})")
        checkpoints = {run.name: run.path / "checkpoints" / "best.pt"}
        checkpoints |= {
            value: Path(run.locate(value) or value)
            for option, value in run.sources.items()
            if source(run, option) is None
        }
        for name, checkpoint in checkpoints.items():
            with suppress(InputError, OSError):
                if load_checkpoint(checkpoint).info.get("train_sha256") == truth:
                    found.append(f"the training ({name})")
    return list(dict.fromkeys(found))


def _is_of(run: Run, split: dict[str, object], truth: str) -> bool:
    """Whether a recipe's split has these annotations; False where it is not found."""
    names = [split.get(key) for key in ("annotations", "images")]
    with suppress(InputError, OSError):
        places = [run.locate(name) or Path(name) for name in names if isinstance(name, str)]
        return names[0] is not None and fingerprint(*places) == truth
    return False


def first_screen(answer: Answer) -> list[str]:
    """The HTML of it."""
    body = [element("p", " ".join(_sentences(answer)), "lead")]
    if answer.spec is None:
        return [*body, *_next(answer)]
    costs, own = profile_net(answer.spec), answer.own
    chosen = answer.search.chosen if answer.search is not None else {}
    predicted = chosen.get("latency_ms")
    inherited, validated = chosen.get("AP"), max((ap for _, ap in answer.run.aps), default=None)
    error = answer.search.error if answer.search is not None else None
    models = [one for one in answer.exports if one.ms is not None or len(answer.exports) == 1]
    figures = {
        "AP, test images" if not answer.uses else "AP, images that it had seen": _ap(own) if own else None,
        f"AP, validation images, {NO_FLIP}": None if validated is None else f"{validated:.3f}",
        "AP, search images, inherited weights": None if inherited is None else show_ap(inherited, error),
        **{f"MACs, {name}": format_count(value) for name, value in costs["macs"].items()},
        "parameters": format_count(costs["params"]),
        "resolution": f"{answer.spec.resolution} px",
        "joints": str(answer.spec.joints),
        **{f"latency, {one.device}": show_ms(one.ms) for one in answer.latencies},
        **({"latency, predicted": show_ms(predicted)} if predicted and not answer.latencies else {}),
        **{f"{one.name} file": format_size(one.bytes) for one in models},
    }
    body += [*_verdict(answer), element("p", " ".join(_on_devices(answer)), "lead"), tiles(figures)]
    body.append(element("p", CONVENTIONS, "note"))
    if own is not None:
        body += [*_compared(answer), *_pictures(own)]
    body += _exports(answer.exports)
    return [*body, *_next(answer)]


def _sentences(answer: Answer) -> Iterator[str]:
    """What it is and how it came about."""
    if answer.spec is not None:
        costs, family = profile_net(answer.spec), answer.spec.family
        name = "LitePose" if isinstance(answer.spec, ArchSpec) else f"{family} network"
        size = f"{format_count(costs['params'])} parameters and {format_count(costs['macs']['thop'])} MACs (thop)"
        yield f"The network is a {name} of {size} at {answer.spec.resolution} pixels, for {answer.spec.joints} joints."
    if answer.search is not None:
        yield search_lead(answer.search)
    steps = [record["step"] for record in (*answer.run.trained, *answer.run.validated)]
    if steps:
        came, aps = "", answer.run.aps
        if aps:
            began = f"from AP {aps[0][1]:.3f} " if aps[0][0] == 0 else ""
            came = f" and came {began}to AP {max(ap for _, ap in aps):.3f} on the validation images, {NO_FLIP}"
        yield f"{answer.run.job} ran {max(steps):,} steps{came}."
    if teacher := answer.run.option("--teacher"):
        with suppress(InputError):
            spec = load_checkpoint(answer.run.locate(teacher) or teacher).spec
            macs = profile_net(spec)["macs"]["thop"]
            teacher += f" ({spec.resolution} px, {format_count(macs)} MACs, thop)"
        yield f"Its teacher was {teacher}."


def _verdict(answer: Answer) -> Iterator[str]:
    """How good it is, in sentences, and how far that may be relied on."""
    own = answer.own
    if own is None:
        yield element("p", "There is no AP on test images yet; eval takes it, see below.", "warning")
        return
    said = f"On {own.count:,} test images with {own.people:,} people it has AP {_ap(own)}"
    said += ", of predictions on the image and on its mirror image (twice the time)" if own.flip else ""
    for role in ROLES[:2]:
        best = max((one for what, one in answer.others if what == role), key=lambda one: one.ap or 0.0, default=None)
        if best is not None and own.ap is not None and best.ap is not None:
            way = "more than" if own.ap >= best.ap else "less than"
            which = "the best uniformly scaled net evaluated" if role == ROLES[0] else "its teacher"
            error = paired_error(own.draws, best.draws)
            apart = abs(shown_difference(own.ap, best.ap))
            by = f"{show_ap(apart, error)} {way}" if apart else "as much as"
            said += f"; {by} {which} ({_ap(best)})"
            if error and abs(own.ap - best.ap) < 2 * error:
                said += ", which is within what these images leave open (two standard errors of the difference)"
    yield element("p", f"{said}.", "lead")
    if answer.uses:
        said = f"These images are not unseen: they were used for {', '.join(answer.uses)}."
        yield element("p", f"{said} Evaluate it on others to know how good it is.", "warning")
    elif not answer.found:
        said = "Not all that it started from is found here, so it is not known whether these images are unseen."
        yield element("p", said, "warning")
    else:
        said = "The test images were used neither for training nor for choosing."
        drawn = (
            "± is one standard error, by drawing images again (bootstrap); differences are paired, on the same draws. "
            "What another training run would change is not in it."
        )
        yield element("p", f"{said} {drawn}", "note")
    if few := few_people(own.people, own.ap, own.error, "the test images"):
        yield element("p", f"{few[:1].upper()}{few[1:]}.", "warning")


def _on_devices(answer: Answer) -> Iterator[str]:
    """What it costs on a device, in sentences."""
    for one in answer.latencies:
        yield f"On {one.device} an image takes {show_ms(one.ms)}, as {one.path.name} predicts."
    timed = [one for one in answer.exports if one.ms is not None]
    for device in dict.fromkeys(one.device for one in timed):
        took = ", ".join(f"{show_ms(one.ms)} as {one.name}" for one in timed if one.device == device and one.ms)
        where = f"on {device}, which exported it," if device else "on the machine that exported it"
        yield f"{where[:1].upper()}{where[1:]} an image took {took}, on one thread."
    predicted = answer.search.chosen.get("latency_ms") if answer.search is not None else None
    if not answer.latencies and predicted is not None:
        yield f"Where it was searched an image was predicted to take {show_ms(predicted)}."
    elif not answer.latencies and not timed:
        yield "What an image takes on a device is not known here."


def _compared(answer: Answer) -> list[str]:
    """The table of all networks evaluated on the same images."""
    assert answer.own is not None
    rows = []
    for what, one in [("this network", answer.own), *answer.others]:
        costs = profile_net(one.spec)
        name = what if what == "this network" else f"{what}: {_short(one.checkpoint)}"
        gain = "" if one is answer.own else show_difference(one, answer.own)
        macs, params = format_count(costs["macs"]["thop"]), format_count(costs["params"])
        rows.append([name, _ap(one), gain, str(one.spec.resolution), macs, params, "yes" if one.flip else "no"])
    head = ["net", "AP", "against this one", "resolution", "MACs (thop)", "parameters", "mirrored too"]
    if len(rows) < 2:
        return []
    kinds = ["chosen"] + [""] * (len(rows) - 1)
    body = [element("h2", "On the test images"), table("Networks on the test images", head, rows, kinds)]
    is_beside = any(what == ROLES[0] for what, _ in answer.others)
    return body + [element("p", f"Uniformly scaled: with {UNIFORM}.", "note")] * is_beside


def _pictures(own: Evaluated) -> list[str]:
    """Poses on six of the images."""
    try:
        poses = read_poses(own)
        pictures = pose_pictures(poses)
    except InputError as error:
        return [element("p", f"Poses cannot be shown: {error}", "note")]
    said = (
        "What the network found on two images each of the worst, the median and the best, by the mean object keypoint "
        f"similarity (OKS) of the people on an image, of {len(poses.similarity)} with people."
    )
    body = [element("h2", "Poses on test images"), element("p", said, "note"), '<div class="poses">']
    for one in pictures:
        people = counted(one.people, "person", "people")
        caption = f"{one.place}: OKS {one.similarity:.2f}, {people}, {one.file}"
        picture = f'<img alt="{html.escape(f"poses on {one.file}, {one.place}")}" src="{jpeg_address(one.jpeg)}">'
        body.append(figure(picture, caption))
    return [*body, "</div>"]


def breakdown_section(own: Evaluated) -> list[str]:
    """AP by joint and size, and how often left and right are confused, where the evaluation has it."""
    rows = []
    for part in ("joints", "sizes"):
        for name, one in dict(own.breakdown.get(part) or {}).items():
            figures = [one.get(key) for key in ("AP", "AR")]
            shown = ["" if figure is None else f"{figure:.3f}" for figure in figures]
            swapped = one.get("swapped")
            confused = "" if swapped is None else f"{swapped:.1%} of {one['compared']:,}"
            rows.append([name if part == "joints" else f"{name} people", *shown, str(one.get("people", "")), confused])
    if not rows:
        return []
    head, notes = ["joint or size", "AP", "AR", "people"], []
    joints = [one for one in (own.breakdown.get("joints") or {}).values() if one.get("compared")]
    if joints:
        compared = sum(one["compared"] for one in joints)
        share = sum(one["swapped"] * one["compared"] for one in joints) / compared
        notes = [
            element("p", f"Left and right are confused in {share:.1%} of {compared:,} joints."),
            element("p", CONFUSION, "note"),
        ]
        head.append("left and right confused")
    else:
        rows = [row[:-1] for row in rows]
    return section("By joint and size, test images", [*notes, table("AP by joint and size", head, rows)])


def _exports(exports: Sequence[Exported]) -> list[str]:
    """The files for devices."""
    if not exports:
        return []
    head, notes = ["format", "file", "size"], []
    rows = [[one.name, one.path.name, format_size(one.bytes)] for one in exports]
    if any(one.ms is not None for one in exports):
        head.append("time")
        rows = [[*row, "" if one.ms is None else show_ms(one.ms)] for row, one in zip(rows, exports, strict=True)]
        devices = [one.device for one in exports if one.ms is not None and one.device]
        where = f"on {' and on '.join(dict.fromkeys(devices))}" if devices else "on the machine that exported it"
        notes.append(
            f"Time: the median of one image in one thread {where}, beside whatever else ran there just then; a latency "
            "table predicts the undisturbed time, so the two differ."
        )
    aps = [one.ap.get("int8") for one in exports]
    if any(isinstance(ap, float) for ap in aps):
        head.append("AP in int8")
        rows = [[*row, f"{ap:.3f}" if isinstance(ap, float) else ""] for row, ap in zip(rows, aps, strict=True)]
        notes.append(
            "AP in int8: without the mirrored image, on the images that export was given, else data.test or data.val."
        )
    body = [element("h2", "Exports"), table("Exports", head, rows)]
    return body + [element("p", " ".join(notes), "note")] * bool(notes)


def _next(answer: Answer) -> list[str]:
    """What to run next."""
    steps = list(_steps(answer))
    body = [element("h2", "What to run next")] if steps else []
    for why, words in steps:
        body += [element("p", why), command(shlex.join(words).replace("'…'", "…"))]
    return body


def _steps(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    run, here = str(answer.run.path), files.real(answer.run.path).parent
    if answer.spec is None:
        if (answer.run.path / "checkpoints" / "best.pt").is_file():
            yield "Search it:", ["ofa-pose", "search", "--supernet", run, "--macs", "…", "--out", "…"]
        return
    if answer.checkpoint is None:
        return
    if answer.run.job == "search":
        named = run + "/best.yaml"
        words = ["--subnet", named, "--supernet", answer.run.option("--supernet") or "…", "--teacher", "…"]
        yield "Train the chosen subnet on:", ["ofa-pose", "finetune", *words, "--out", "…"]
    own, data = answer.own, ["--annotations", "…", "--images", "…"]
    ways = ["--flip", "--breakdown"]
    if own is None or answer.uses:
        words = [
            "ofa-pose",
            "eval",
            "--checkpoint",
            run,
            *data,
            *ways,
            "--out",
            f"{here}/{TEST}/{files.real(answer.run.path).name}",
        ]
        yield "Its AP on test images that no training or search has seen:", words
    else:
        data = ["--annotations", own.annotations, "--images", own.images]
        teacher, roles = answer.run.option("--teacher"), {what for what, _ in answer.others}
        if teacher and ROLES[1] not in roles:
            place = str(answer.run.locate(teacher) or teacher)
            words = ["ofa-pose", "eval", "--checkpoint", place, *data, "--flip", "--out", f"{here}/{TEST}/teacher"]
            yield "Its teacher on the same images:", words
    if not answer.exports:
        words = ["ofa-pose", "export", run, "--format", "onnx", "--out", f"{answer.run.path}/export"]
        yield "A file for devices:", words
    if not answer.latencies and answer.search is not None and answer.search.space is not None:
        words = [
            "--space",
            answer.search.space.name,
            "--joints",
            str(answer.spec.joints),
            "--out",
            f"{here}/latency.json",
        ]
        yield "Its latency here, and that of every subnet of the space:", ["ofa-pose", "latency", "build", *words]
    yield "Poses on images of your own:", ["ofa-pose", "predict", "…", "--checkpoint", run, "--out", "…"]


def show_difference(one: Evaluated, other: Evaluated) -> str:
    """Such as '-0.021 ± 0.008', of two networks on the same images; '' where one has no AP."""
    if one.ap is None or other.ap is None:
        return ""
    error = paired_error(one.draws, other.draws)
    return f"{shown_difference(one.ap, other.ap):+.3f}" + ("" if error is None else f" ± {error:.3f}")


def _ap(one: Evaluated) -> str:
    return "–" if one.ap is None else show_ap(one.ap, one.error)


def _short(checkpoint: str) -> str:
    """A checkpoint by its run's name, or its file's."""
    path = Path(checkpoint)
    if path.name != "best.pt":
        return path.stem
    return path.parents[1].name if path.parent.name == "checkpoints" else path.parent.name
