"""The page itself: one HTML file that needs nothing beside it; all text on it is escaped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.macs import layer_macs, layer_params
from ofa_pose.families.table import load_net
from ofa_pose.reports import charts
from ofa_pose.reports.answer import Answer, find_answer, first_screen
from ofa_pose.reports.explorer import explorer
from ofa_pose.reports.html_parts import command, details, document, element, section, table
from ofa_pose.reports.run_comparison import comparison
from ofa_pose.reports.runs import SOURCES, Run, chain, read_run, reading, source
from ofa_pose.reports.search_section import Searched, read_search, search_section
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count
from ofa_pose.utils.run_dir import METRICS

COMPARISON = "comparison.html"


def write_report(runs: Sequence[str | Path], out: str | Path | None = None) -> Path:
    """See `ofa_pose.report`: one HTML page, which loads nothing from elsewhere."""
    first = Path(runs[0])
    path = Path(out) if out is not None else first / "report.html" if len(runs) == 1 else first.parent / COMPARISON
    files.check_file(path, "name a file, such as report.html")
    files.check_folder(path.parent)
    read = [read_run(run) for run in runs]
    files.write_text(path, page(read[0]) if len(read) == 1 else comparison([_answer(run)[0] for run in read]))
    return path


def page(main: Run) -> str:
    """The HTML about a run."""
    answer, runs = _answer(main)
    spec, search = answer.spec, answer.search
    explored = explorer(search) if search is not None else []
    body = [element("h1", main.name), *first_screen(answer)]
    if search is not None:
        body += search_section(search, explored)
    if spec is not None:
        body += _network(spec, search)
    for number, (run, role) in enumerate(runs):
        if run.trained or run.validated:
            body += _training(run, role, f"training{number}")
    body += _origin(runs)
    scripts = ["report.js", *(["explorer.js"] if explored else [])]
    return document(main.name, body, scripts)


def _answer(main: Run) -> tuple[Answer, list[tuple[Run, str]]]:
    """What the files say of a run's network, and the chain of runs that it ends."""
    spec, chooser = _spec(main), source(main, "--subnet")
    shape = spec if isinstance(spec, ArchSpec) else None
    search = read_search(main, None) or (read_search(chooser, shape) if chooser is not None else None)
    runs = chain(main)
    return find_answer(main, spec, search, runs), runs


def _spec(main: Run) -> NetSpec | None:
    """The network that a run trained or chose; None of a supernet's, or where the run has not come so far."""
    best, subnet = main.best(), main.option("--subnet")
    if best is not None:
        return best["spec"]
    if (main.path / "checkpoints" / "best.pt").exists():
        try:
            checkpoint = load_checkpoint(main.path)
        except InputError as error:
            warn(str(error))
        else:
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
        charts.svg(charts.network_chart(spec, largest), "network", "channels of each part of the network"),
        element("p", f"{note}Bars are as long as a part is wide.", "note"),
        _parts_table(spec),
        shape,
    ]
    return section("The network", parts)


def _parts_table(spec: ArchSpec) -> str:
    plan = make_plan(spec)
    parts: dict[str, Sequence[Layer]] = {"stem": plan.stem}
    for number, blocks in enumerate(plan.stages, start=1):
        parts[f"stage {number}, {len(blocks)} blocks"] = [layer for block in blocks for layer in block.layers]
    parts["deconv head and outputs"] = list(plan.head())
    macs = {name: sum(layer_macs(layer).thop for layer in part) for name, part in parts.items()}
    total, rows = sum(macs.values()), []
    for name, part in parts.items():
        side = f"{part[0].side_in} → {part[-1].side_out}"
        params = format_count(sum(layer_params(layer) for layer in part))
        rows.append((name, side, format_count(macs[name]), f"{macs[name] / total:.0%}", params))
    return table("Parts of the network", ("part", "map, cells", "MACs (thop)", "share", "parameters"), rows)


def _training(run: Run, role: str, salt: str) -> list[str]:
    with reading(run.path / METRICS):
        chart = charts.training_charts(run.trained, run.validated, salt)
    body = ['<div class="charts">', *chart, "</div>"]
    if run.validated:
        last = run.validated[-1]
        metrics = [f"{name} {value:.3f}" for name, value in last["val"].items() if isinstance(value, float)]
        said = f"Last validation, step {last['step']:,}: {', '.join(metrics)}."
        step, best = max(run.aps, key=lambda pair: pair[1], default=(0, 0.0))
        if run.aps and best > run.aps[-1][1]:
            said += f" The best AP was {best:.3f}, at step {step:,}."
        body.append(element("p", said))
    return section(f"Training: {run.name}" + (f" ({role})" if role else ""), body)


def _origin(runs: Sequence[tuple[Run, str]]) -> list[str]:
    body: list[str] = []
    shipped = files.shipped_weights()
    for run, role in runs:
        body.append(element("h3", run.name + (f": {role}" if role else "")))
        body += [command(shlex.join(["ofa-pose", *words])) for words in run.commands]
        named = {option: value for option in SOURCES if (value := run.option(option)) and value not in shipped}
        lost = [f"{name} {value} ({SOURCES[name]})" for name, value in named.items() if run.locate(value) is None]
        if lost:
            warn(f"{run.path}: what it started from is not found from here: {', '.join(lost)}")
            body.append(element("p", f"Not found when this page was made: {', '.join(lost)}."))
        if run.recipe:
            body.append(details("recipe.yaml", run.recipe))
    return section("Where it comes from", body)
