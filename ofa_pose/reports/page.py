"""The page itself: one HTML file that needs nothing beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_pose import __version__
from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ofa_pose.costs.limits import show_ms
from ofa_pose.costs.macs import layer_macs, layer_params, spec_macs, spec_params
from ofa_pose.reports import charts
from ofa_pose.reports.html import details, document, element, table, tiles
from ofa_pose.reports.runs import SOURCES, Run, chain, read_run, source
from ofa_pose.reports.searched import Searched, holds, read_search, search_lead, search_section
from ofa_pose.searches.job import BEST
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.units import format_count


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write one HTML page about a run and those that it started from; it loads nothing from elsewhere.

    Args:
        run: the directory of a training or a search.
        out: the file to write; by default report.html in the run's directory.

    Raises:
        InputError: there is no run, or what it wrote cannot be read; or `out` cannot be written.
    """
    path = Path(out) if out is not None else Path(run) / "report.html"
    files.check_file(path, "name a file, such as report.html")
    files.check_folder(path.parent)
    files.write_text(path, page(read_run(run)))
    return path


def page(main: Run) -> str:
    """The HTML about a run."""
    checkpoint = _checkpoint(main)
    spec = _spec(main, checkpoint)
    own = read_search(main, None)
    chooser = source(main, "--subnet")
    search = own or (read_search(chooser, spec) if chooser is not None else None)
    body = [element("h1", main.name), *_lead(main, search)]
    if spec is not None:
        body += _network(spec, search.space if search is not None else None, main, search)
    if search is not None:
        body += search_section(search)
    runs = chain(main)
    for number, (run, role) in enumerate(runs):
        if run.trained or run.validated:
            body += _training(run, role, f"training{number}")
    body += _origin(runs)
    return document(main.name, [*body, f"<footer>ofa-pose {__version__}</footer>"])


def _checkpoint(run: Run) -> Checkpoint | None:
    """A run's best checkpoint; None where it has not come so far, is a search's, or is damaged, which is said."""
    if (run.path / BEST).exists() or not (run.path / "checkpoints" / "best.pt").exists():
        return None
    try:
        return load_checkpoint(run.path)
    except InputError as error:
        warn(str(error))
        return None


def _spec(main: Run, checkpoint: Checkpoint | None) -> ArchSpec | None:
    """The network that a run trained or chose; None of a supernet's."""
    if checkpoint is not None:
        return None if checkpoint.kind == "supernet" else checkpoint.spec
    best, subnet = main.best(), main.option("--subnet")
    if best is not None:
        return best["spec"]
    place = main.locate(subnet) if subnet else None
    return load_spec(place) if place is not None and place.is_file() else None


def _lead(main: Run, search: Searched | None) -> list[str]:
    """What happened, in sentences."""
    sentences = [search_lead(search)] if search is not None else []
    steps = [record["step"] for record in (*main.trained, *main.validated)]
    aps = _aps(main)
    if steps:
        began = f"from AP {aps[0][1]:.3f} " if aps and aps[0][0] == 0 else ""
        came = f" and came {began}to AP {max(ap for _, ap in aps):.3f} on the validation images" if aps else ""
        sentences.append(f"{main.job} ran {max(steps):,} steps{came}.")
    teacher = _teacher(main)
    if teacher:
        sentences.append(f"Its teacher was {teacher}.")
    return [element("p", " ".join(sentences), "lead")] if sentences else []


def _teacher(main: Run) -> str:
    """The teacher in words; '' where there was none."""
    name = main.option("--teacher")
    if not name:
        return ""
    try:
        spec = load_checkpoint(main.locate(name) or name).spec
    except InputError:
        return name
    return f"{name} ({spec.resolution} px, {format_count(spec_macs(spec).thop)} MACs)"


def _aps(run: Run) -> list[tuple[int, float]]:
    """Steps and APs of its validations."""
    return [(r["step"], r["val"]["AP"]) for r in run.validated if isinstance(r["val"].get("AP"), float)]


def _network(spec: ArchSpec, space: SearchSpace | None, main: Run, search: Searched | None) -> list[str]:
    figures: list[tuple[str, str]] = []
    chosen = search.chosen if search is not None else {}
    if (ap := chosen.get("AP")) is not None:
        figures.append(("AP, search images, inherited weights", f"{ap:.3f}"))
    if _aps(main):
        figures.append(("AP, validation images", f"{max(ap for _, ap in _aps(main)):.3f}"))
    figures.append(("resolution", f"{spec.resolution} px"))
    if (latency := chosen.get("latency_ms")) is not None:
        figures.append(("latency, predicted", show_ms(latency)))
    figures += [(f"MACs, {name}", format_count(value)) for name, value in spec_macs(spec).to_dict().items()]
    figures += [("parameters", format_count(spec_params(spec))), ("joints", str(spec.joints))]
    largest = space.largest(spec.joints) if space is not None and holds(space, spec) else None
    note = "Dashed: the largest of its search space. " if largest is not None else ""
    return [
        element("h2", "The network"),
        tiles(figures),
        charts.svg(charts.network_chart(spec, largest), "network"),
        element("p", f"{note}Bars are as high as a part is wide and as broad as it is deep."),
        _parts_table(spec),
        details("all of its shape", files.dump_yaml(spec.to_dict())),
    ]


def _parts_table(spec: ArchSpec) -> str:
    plan = make_plan(spec)
    parts: list[tuple[str, Sequence[Layer]]] = [("stem", plan.stem)]
    for number, blocks in enumerate(plan.stages, start=1):
        layers = [layer for block in blocks for layer in block.layers]
        parts.append((f"stage {number}, {len(blocks)} blocks", layers))
    parts.append(("deconv head and outputs", list(plan.head())))
    total = sum(layer_macs(layer).thop for _, part in parts for layer in part)
    rows = []
    for name, part in parts:
        macs = sum(layer_macs(layer).thop for layer in part)
        side = f"{part[0].side_in} → {part[-1].side_out}"
        params = sum(layer_params(layer) for layer in part)
        rows.append((name, side, format_count(macs), f"{macs / total:.0%}", format_count(params)))
    return table(("part", "map, cells", "MACs (thop)", "share", "parameters"), rows)


def _training(run: Run, role: str, salt: str) -> list[str]:
    chart = charts.svg(charts.training_chart(run.trained, run.validated), salt)
    body = [element("h2", f"Training: {run.name}" + (f" ({role})" if role else "")), chart]
    if run.validated:
        last = run.validated[-1]
        text = f"Last validation, step {last['step']:,}: {_metrics(last['val'])}."
        aps = _aps(run)
        if aps and max(ap for _, ap in aps) > aps[-1][1]:
            step, best = max(aps, key=lambda pair: pair[1])
            text += f" The best AP was {best:.3f}, at step {step:,}."
        body.append(element("p", text))
    return body


def _metrics(val: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in val.items() if isinstance(value, float))


def _origin(runs: Sequence[tuple[Run, str]]) -> list[str]:
    body, shipped = [element("h2", "Where it comes from")], files.shipped_weights()
    for run, role in runs:
        body.append(element("h3", run.name + (f": {role}" if role else "")))
        body += [element("pre", shlex.join(["ofa-pose", *words])) for words in run.commands]
        lost = [
            f"{option} {value} ({SOURCES[option]})"
            for option, value in run.sources.items()
            if value not in shipped and run.locate(value) is None
        ]
        if lost:
            warn(f"{run.path}: what it started from is not found from here: {', '.join(lost)}")
            body.append(element("p", f"Not found when this page was made: {', '.join(lost)}."))
        if run.recipe:
            body.append(details("recipe.yaml", run.recipe))
    return body
