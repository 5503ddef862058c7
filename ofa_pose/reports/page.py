"""The pages themselves, of one run and of several: HTML that needs nothing beside it; all text on it is escaped."""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.limits import show_ms
from ofa_pose.costs.macs import layer_macs, layer_params
from ofa_pose.data.label_pictures import SAMPLES
from ofa_pose.families.profile import profile_net
from ofa_pose.families.table import load_net
from ofa_pose.pose.bootstrap import paired_error, show_ap
from ofa_pose.reports import charts
from ofa_pose.reports.answer import Answer, breakdown_section, find_answer, first_screen, show_difference
from ofa_pose.reports.explorer import explorer
from ofa_pose.reports.findings import Evaluated
from ofa_pose.reports.html_parts import command, details, document, element, jpeg_address, section, table
from ofa_pose.reports.origins import origins
from ofa_pose.reports.runs import Run, attempt, chain, note, read_run, source, values_of
from ofa_pose.reports.search_section import Searched, read_search, search_section
from ofa_pose.utils import atomic, files
from ofa_pose.utils.numbers import format_count
from ofa_pose.utils.run_dir import METRICS

COMPARISON = "comparison.html"
DEVICES = 2  # latency tables that have a column in a comparison
MOST_SAMPLES, LARGEST_SAMPLE = 6, 100_000  # pictures of training samples, and bytes of one
JPEG = b"\xff\xd8\xff"


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """See `ofa_pose.report`: one HTML page, which loads nothing from elsewhere."""
    first = Path(runs[0])
    path = Path(out) if out is not None else first / "report.html" if len(runs) == 1 else first.parent / COMPARISON
    atomic.check_file(path, "name a file, such as report.html")
    atomic.check_folder(path.parent)
    read = [read_run(run) for run in runs]
    files.write_text(path, page(read[0]) if len(read) == 1 else comparison(read))
    return path


def page(main: Run) -> str:
    """The HTML about a run. What cannot be read of it is named at the top."""
    problems: list[str] = []
    answer, runs = _answer(main, problems)
    spec, search, own = answer.spec, answer.search, answer.own
    explored = attempt(partial(explorer, search, problems), problems) or [] if search is not None else []
    body = first_screen(answer)
    if own is not None:
        body += breakdown_section(own)
    if search is not None:
        body += search_section(search, explored)
    if spec is not None:
        body += _network(spec, search)
    trained = [(run, role) for run, role in runs if run.trained or run.validated]
    for run, role in trained:
        body += attempt(partial(_training, run, role, run is trained[-1][0]), problems) or []
    evaluations = [("this network", own), *answer.others] if own is not None else []
    body += origins(runs, evaluations, problems)
    scripts = ["report.js", *(["explorer.js"] if explored else [])]
    return document(main.name, [element("h1", main.name), *_problems(problems), *body], scripts)


def _problems(problems: Sequence[str]) -> list[str]:
    """What could not be read, at the top of a page."""
    if not problems:
        return []
    said = "This page is not complete: what these files hold could not be read."
    lines = "".join(element("li", problem) for problem in problems)
    return [f'<div class="warning">{element("p", said)}<ul>{lines}</ul></div>']


def _answer(main: Run, problems: list[str]) -> tuple[Answer, list[tuple[Run, str]]]:
    """What the files say of a run's network, and the chain of runs that it ends."""
    spec, chooser = attempt(partial(_spec, main, problems), problems), source(main, "--subnet")
    shape = spec if isinstance(spec, ArchSpec) else None
    search = read_search(main, None, problems)
    if search is None and chooser is not None:
        search = read_search(chooser, shape, problems)
    runs = chain(main)
    for run, _ in runs:
        if run.unreadable:
            note(f"{run.path / METRICS}: {run.unreadable} lines are not records of a run", problems)
    return find_answer(main, spec, search, runs, problems), runs


def _spec(main: Run, problems: list[str]) -> NetSpec | None:
    """The network that a run trained or chose; None of a supernet's, or where the run has not come so far."""
    best, subnet = attempt(main.best, problems), main.option("--subnet")
    if best is not None:
        spec: NetSpec = best["spec"]
        return spec
    if any((main.path / place).exists() for place in ("checkpoints/best.pt", "best.pt")):
        checkpoint = attempt(partial(load_checkpoint, main.path), problems)
        if checkpoint is not None:
            return None if checkpoint.kind == "supernet" else checkpoint.spec
    place = main.locate(subnet) if subnet else None
    return load_net(place) if place is not None and place.is_file() else None


def _network(spec: NetSpec, search: Searched | None) -> list[str]:
    shape = details("all of its shape", files.dump_yaml(spec.to_dict()))
    if not isinstance(spec, ArchSpec):
        return section("The network", [element("p", f"A network of the family {spec.family}."), shape])
    largest = search.space.largest(spec.joints) if search is not None and search.space and search.genome else None
    note = "Dashed: the largest of its search space. " if largest is not None else ""
    parts = [
        charts.network_chart(spec, largest),
        element("p", f"{note}Bars are as long as a part is wide, in channels.", "note"),
        _parts_table(spec),
        shape,
    ]
    return section("The network", parts)


def _parts_table(spec: ArchSpec) -> str:
    plan = make_plan(spec)
    parts: dict[str, Sequence[Layer]] = {"stem": plan.stem}
    for number, blocks in enumerate(plan.stages, start=1):
        parts[f"stage {number}, {len(blocks)} block{'s' * (len(blocks) > 1)}"] = [
            layer for block in blocks for layer in block.layers
        ]
    parts["deconv head and outputs"] = list(plan.head())
    macs = {name: sum(layer_macs(layer).thop for layer in part) for name, part in parts.items()}
    total, rows = sum(macs.values()), []
    for name, part in parts.items():
        side = f"{part[0].side_in} → {part[-1].side_out}"
        params = format_count(sum(layer_params(layer) for layer in part))
        rows.append((name, side, format_count(macs[name]), f"{macs[name] / total:.0%}", params))
    return table("Parts of the network", ("part", "map, cells", "MACs (thop)", "share", "parameters"), rows)


def _training(run: Run, role: str, with_samples: bool) -> list[str]:
    with values_of(run.path / METRICS):
        body = ['<div class="charts">', *charts.training_charts(run.trained, run.validated), "</div>"]
    if run.validated:
        last = run.validated[-1]
        metrics = [f"{name} {value:.3f}" for name, value in last["val"].items() if isinstance(value, float)]
        said = f"Last validation, step {last['step']:,}: {', '.join(metrics)}."
        step, best = max(run.aps, key=lambda pair: pair[1], default=(0, 0.0))
        if run.aps and best > run.aps[-1][1]:
            said += f" The best AP was {best:.3f}, at step {step:,}."
        body.append(element("p", said))
    return section(f"Training: {run.name}" + (f" ({role})" if role else ""), body + _samples(run) * with_samples)


def _samples(run: Run) -> list[str]:
    """Pictures of labels as the training saw them, where it kept them."""
    pictures = []
    for path in sorted((run.path / SAMPLES).glob("*.jpg"))[:MOST_SAMPLES]:
        own = files.real(path).is_relative_to(files.real(run.path)) and path.is_file()
        code = path.read_bytes() if own and path.stat().st_size <= LARGEST_SAMPLE else b""
        if code.startswith(JPEG):
            pictures.append(
                f'<img alt="{html.escape(f"labels of training sample {path.stem}")}" src="{jpeg_address(code)}">'
            )
    if not pictures:
        return []
    note = (
        "The first images as the training saw them, turned, scaled, moved, mirrored and recoloured, with the labels "
        "that it learnt from: a dot is a visible joint, a ring a hidden one; a dotted white line joins left (light) "
        "and right (dark). What is dark is left out of the loss."
    )
    return [
        element("h3", "Labels as augmented"),
        element("p", note, "note"),
        '<div class="poses">',
        *pictures,
        "</div>",
    ]


def comparison(runs: Sequence[Run]) -> str:
    """The HTML about several runs: what each came to and costs, their APs over the steps.

    APs on test images are compared only where these are the same.
    """
    problems: list[str] = []
    answers = [_answer(run, problems)[0] for run in runs]
    title = " and ".join(answer.run.name for answer in answers)
    body = [element("h1", title), *_problems(problems), element("p", " ".join(_compared(answers)), "lead")]
    body += section("Networks", [_networks(answers)])
    curves = {answer.run.name: answer.run.aps for answer in answers if answer.run.aps}
    if curves:
        body += section("Training", [charts.ap_chart(curves)])
    lines = [(answer.run, shlex.join(["ofa-pose", *words])) for answer in answers for words in answer.run.commands]
    body += section("Where they come from", [element("h3", run.name) + command(words) for run, words in lines])
    return document(title, body, ["report.js"])


def _best(answers: Sequence[Answer]) -> Evaluated | None:
    """The evaluation with the highest AP, where all are of the same images, mirrored too or not."""
    found = [answer.own for answer in answers if answer.own is not None and answer.own.ap is not None]
    same = len({(one.truth, one.metric, one.flip) for one in found}) == 1 and len(found) > 1
    return max(found, key=lambda one: one.ap or 0.0) if same else None


def _compared(answers: Sequence[Answer]) -> Iterator[str]:
    evaluated = [answer for answer in answers if answer.own is not None and answer.own.ap is not None]
    best = _best(answers)
    if best is not None and best.ap is not None:
        name = next(answer.run.name for answer in evaluated if answer.own is best)
        yield f"On the same {best.count:,} test images {name} has the highest AP, {show_ap(best.ap, best.error)}."
        yield "± is one standard error, of a difference on the same images drawn again."
        near = [answer.run.name for answer in evaluated if answer.own is not best and _is_near(answer.own, best)]
        if near:
            why = "the difference is below two standard errors"
            yield f"These images do not tell it apart from {', '.join(near)}: {why}."
    elif len(evaluated) > 1:
        yield "The APs cannot be compared: of different test images, or with and without a flip test."
    if missing := [answer.run.name for answer in answers if answer not in evaluated]:
        yield f"No AP on test images is found of {', '.join(missing)}; eval --out beside the run brings it."
    if seen := [answer.run.name for answer in answers if answer.uses]:
        yield f"The images had been used in the training or search of {', '.join(seen)}."


def _is_near(one: Evaluated | None, best: Evaluated) -> bool:
    error = None if one is None else paired_error(one.draws, best.draws)
    return one is not None and error is not None and (best.ap or 0.0) - (one.ap or 0.0) < 2 * error


def _networks(answers: Sequence[Answer]) -> str:
    devices = list(dict.fromkeys(one.device for answer in answers for one in answer.latencies))[:DEVICES]
    best, rows = _best(answers), []
    for answer in answers:
        own, spec = answer.own, answer.spec
        costs = profile_net(spec) if spec is not None else None
        validated = max((ap for _, ap in answer.run.aps), default=None)
        row = [answer.run.name, "" if own is None or own.ap is None else show_ap(own.ap, own.error)]
        row += [show_difference(own, best) if best is not None and own is not None and own is not best else ""]
        row += ["" if own is None else f"{own.count:,}", "" if validated is None else f"{validated:.3f}"]
        row += (
            ["", "", ""]
            if costs is None or spec is None
            else [str(spec.resolution), format_count(costs["macs"]["thop"]), format_count(costs["params"])]
        )
        known = {one.device: show_ms(one.ms) for one in answer.latencies}
        rows.append([*row, *(known.get(device, "") for device in devices)])
    head = ["run", "AP, test", "below the best", "test images", "AP, validation", "resolution", "MACs (thop)"]
    return table("Networks of the runs", [*head, "parameters", *devices], rows)
