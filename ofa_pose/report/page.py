"""The page itself: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ofa_pose import __version__, files
from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.space import SearchSpace
from ofa_pose.arch.spec import ArchSpec
from ofa_pose.checkpoint import Checkpoint, load_checkpoint
from ofa_pose.costs.macs import layer_macs, layer_params, spec_macs, spec_params
from ofa_pose.errors import InputError
from ofa_pose.report import charts
from ofa_pose.report.runs import BEST, HISTORY, PARETO, Run, chain
from ofa_pose.search.search import PICTURE
from ofa_pose.units import format_count

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a202c; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; }
p.lead { color: #4a5568; margin: 0 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #e2e8f0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
tr.chosen td { font-weight: 600; }
tr.aside td { color: #718096; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; }
.tile { background: #f7fafc; border-radius: .5rem; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.25rem; }
.tile span { color: #4a5568; font-size: .85rem; }
svg, img { max-width: 100%; height: auto; }
pre { background: #f7fafc; padding: .6rem .8rem; overflow-x: auto; font-size: .8rem; }
footer { margin-top: 3rem; color: #718096; font-size: .85rem; }
"""
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
"""
SHOWN = 15  # rows of the front


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write one HTML page about a run and those that it started from; it loads nothing from elsewhere.

    Args:
        run: the directory of a training or a search.
        out: the file to write; by default report.html in the run's directory.

    Raises:
        InputError: there is no run, or what it wrote cannot be read.
    """
    runs = chain(run)
    path = Path(out) if out is not None else runs[-1][0].path / "report.html"
    files.check_folder(path.parent)
    files.write_text(path, page(runs))
    return path


def page(runs: Sequence[tuple[Run, str]]) -> str:
    """The HTML of a chain of runs, as `chain` gives them; the last is what the page is about."""
    main, search = runs[-1][0], _search(runs)
    checkpoints = {run.path: found for run, _ in runs if (found := _checkpoint(run)) is not None}
    spec = _spec(main, checkpoints.get(main.path), search)
    space = next((found.space for found in reversed(checkpoints.values()) if found.space is not None), None)
    title = f"{main.job} {main.path.resolve().name}"
    body = [f"<h1>{_e(title)}</h1>", *_lead(main, search)]
    if spec is not None:
        body += _network(spec, space, main, search)
    if search is not None:
        body += _searched(search)
    for run, role in runs:
        if run.trained or run.validated:
            body += _training(run, role)
    body += _origin(runs)
    body.append(f"<footer>ofa-pose {__version__}</footer>")
    return HEAD.format(title=_e(title), style=STYLE) + "\n".join(body) + "\n</html>\n"


def _search(runs: Sequence[tuple[Run, str]]) -> Run | None:
    """The last search among them."""
    return next((run for run, _ in reversed(runs) if (run.path / HISTORY).exists()), None)


def _checkpoint(run: Run) -> Checkpoint | None:
    """A run's best checkpoint; None where it has not come so far, or is a search's."""
    try:
        return load_checkpoint(run.path) if not (run.path / BEST).exists() else None
    except InputError:
        return None


def _spec(main: Run, checkpoint: Checkpoint | None, search: Run | None) -> ArchSpec | None:
    if checkpoint is not None:
        return None if checkpoint.kind == "supernet" else checkpoint.spec
    best = search.best() if search is main and search is not None else {}
    return ArchSpec.from_dict(best["spec"], main.path / BEST) if "spec" in best else None


def _lead(main: Run, search: Run | None) -> list[str]:
    """What happened, in sentences."""
    told = []
    if search is not None and (best := search.best()):
        limits = {key: value for key, value in (best.get("budget") or {}).items() if value is not None}
        shown = ", ".join(_limit(key, value, best.get("convention", "thop")) for key, value in limits.items())
        told.append(
            f"Searched in the space {best.get('space')} within {shown}: {best.get('evaluations')} subnets were judged, "
            f"the best has AP {best['AP']:.3f} on the search images with the supernet's weights."
        )
    validated = [(r["step"], r["val"]["AP"]) for r in main.validated if isinstance(r["val"].get("AP"), float)]
    if validated:
        (first, start), (last, _) = validated[0], validated[-1]
        highest = max(ap for _, ap in validated)
        before = f"from AP {start:.3f} " if first == 0 else ""
        told.append(f"{main.job} ran {last} steps and came {before}to AP {highest:.3f} on the validation images.")
    return [f'<p class="lead">{_e(" ".join(told))}</p>'] if told else []


def _limit(key: str, value: Any, convention: str) -> str:
    if key == "latency_ms":
        return f"{value:.3g} ms"
    if key == "latency_table":
        return f"latency table {str(value)[:8]}…"
    return f"{format_count(value)} {f'MACs ({convention})' if key == 'macs' else 'parameters'}"


def _network(spec: ArchSpec, space: SearchSpace | None, main: Run, search: Run | None) -> list[str]:
    macs, tiles = spec_macs(spec), [("resolution", f"{spec.resolution} px")]
    aps = [r["val"]["AP"] for r in main.validated if isinstance(r["val"].get("AP"), float)]
    if aps:
        tiles.insert(0, ("AP, validation images", f"{max(aps):.3f}"))
    best = search.best() if search is not None else {}
    if best.get("spec") == spec.to_dict():
        tiles.insert(0, ("AP, search images, inherited weights", f"{best['AP']:.3f}"))
        if best.get("latency_ms") is not None:
            tiles.append(("latency, predicted", f"{best['latency_ms']:.3g} ms"))
    tiles += [(f"MACs, {name}", format_count(value)) for name, value in macs.to_dict().items()]
    tiles += [("parameters", format_count(spec_params(spec))), ("joints", str(spec.joints))]
    shown = "".join(f'<div class="tile"><b>{_e(value)}</b><span>{_e(name)}</span></div>' for name, value in tiles)
    largest = space.largest(spec.joints) if space is not None and _holds(space, spec) else None
    note = "Dashed: the largest of its search space. " if largest is not None else ""
    chart = charts.svg(charts.network_chart(spec, largest), "network")
    return [
        "<h2>The network</h2>", f'<div class="tiles">{shown}</div>', chart,
        f"<p>{note}Bars are as high as a part is wide and as broad as it is deep.</p>", _parts_table(spec),
    ]  # fmt: skip


def _holds(space: SearchSpace, spec: ArchSpec) -> bool:
    try:
        space.encode(spec)
    except InputError:
        return False
    return True


def _parts_table(spec: ArchSpec) -> str:
    plan = make_plan(spec)
    stages = [[layer for block in stage for layer in block.layers] for stage in plan.stages]
    parts: list[tuple[str, Sequence[Layer]]] = [("stem", plan.stem)]
    for number, (blocks, layers) in enumerate(zip(plan.stages, stages, strict=True), start=1):
        parts.append((f"stage {number}, {len(blocks)} blocks", layers))
    rest = list(plan.layers())[len(plan.stem) + sum(map(len, stages)) :]
    parts.append(("deconv head and outputs", rest))
    total = sum(layer_macs(layer).thop for _, layers in parts for layer in layers)
    rows = []
    for name, part in parts:
        macs = sum(layer_macs(layer).thop for layer in part)
        params = sum(layer_params(layer) for layer in part)
        side = f"{part[0].side_in} → {part[-1].side_out}"
        rows.append((name, side, format_count(macs), f"{macs / total:.0%}", format_count(params)))
    return _table(("part", "map, cells", "MACs (thop)", "share", "parameters"), rows)


def _searched(search: Run) -> list[str]:
    history, front = search.rows(HISTORY), search.rows(PARETO)
    body = ["<h2>The search</h2>"]
    if (search.path / PICTURE).exists():
        content = base64.b64encode((search.path / PICTURE).read_bytes()).decode()
        body.append(f'<img alt="AP over cost of all subnets judged" src="data:image/png;base64,{content}">')
    body.append(charts.svg(charts.progress_chart([_number(row.get("AP")) for row in history]), "progress"))
    if front:
        body += ["<h3>The Pareto front</h3>", _front_table(front, history)]
    genes = _genes(history)
    if genes:
        chosen = {label: int(front[0][label]) for label in genes} if front else {}
        chart = charts.svg(charts.choices_chart(genes, chosen), "choices")
        note = (
            "Every dot is a subnet that was judged; red: the best with this choice, blue: their median; bold: chosen. "
            "Subnets keep the budget, so a wide choice here means narrow ones elsewhere."
        )
        body += ["<h3>What the choices were worth</h3>", chart, f"<p>{note}</p>"]
    return body


def _genes(history: Sequence[Mapping[str, str]]) -> dict[str, list[tuple[int, float]]]:
    """By gene, the value and the AP of every subnet; of genes that vary."""
    labels = list(history[0])[4 : list(history[0]).index("macs_thop")] if history else []
    judged = [(row, ap) for row in history if (ap := _number(row.get("AP"))) is not None]
    found = {label: [(int(row[label]), ap) for row, ap in judged] for label in labels}
    return {label: pairs for label, pairs in found.items() if len({value for value, _ in pairs}) > 1}


def _front_table(front: Sequence[Mapping[str, str]], history: Sequence[Mapping[str, str]]) -> str:
    latency = ["latency_ms"] if "latency_ms" in front[0] else []
    head = ("", "resolution", "MACs (thop)", "parameters", *(["latency, ms"] if latency else []), "AP")

    def cells(name: str, row: Mapping[str, str]) -> list[str]:
        counts = [format_count(int(row[key])) for key in ("macs_thop", "params")]
        ap = _number(row.get("AP"))
        costs = [*counts, *(f"{float(row[key]):.3g}" for key in latency)]
        return [name, row["resolution"], *costs, "–" if ap is None else f"{ap:.3f}"]

    rows = [cells(f"front/{int(row['rank']):03}.yaml", row) for row in front[:SHOWN]]
    uniform = [cells("uniformly scaled", row) for row in history if row.get("origin") == "uniform"]
    classes = ["chosen"] + [""] * (len(rows) - 1) + ["aside"] * len(uniform)
    more = f"<p>{len(front) - SHOWN} more are in {PARETO}.</p>" if len(front) > SHOWN else ""
    return _table(head, [*rows, *uniform], classes) + more


def _training(run: Run, role: str) -> list[str]:
    name = f"{run.job} {run.path.resolve().name}" + (f" ({role})" if role else "")
    chart = charts.training_chart(run.trained, run.validated)
    body = [f"<h2>Training: {_e(name)}</h2>", charts.svg(chart, str(run.path))]
    if run.validated:
        last = run.validated[-1]
        figures = ", ".join(f"{key} {value:.3f}" for key, value in last["val"].items() if isinstance(value, float))
        body.append(f"<p>Step {last['step']}, validation images: {_e(figures)}.</p>")
    return body


def _origin(runs: Sequence[tuple[Run, str]]) -> list[str]:
    body = ["<h2>Where it comes from</h2>"]
    for run, role in runs:
        body.append(f"<h3>{_e(run.job)}{_e(f': {role}' if role else '')}</h3>")
        body.append(f"<pre>ofa-pose {_e(' '.join(run.command))}</pre>")
        gone = [f"{option} {value}" for option, value in run.sources.items() if not Path(value).exists()]
        shipped = [one for one in gone if one.split()[-1] in files.shipped_weights()]
        lost = [one for one in gone if one not in shipped]
        if lost:
            body.append(f"<p>Not found any more: {_e(', '.join(lost))}.</p>")
        if run.recipe:
            body.append(f"<details><summary>recipe.yaml</summary><pre>{_e(run.recipe)}</pre></details>")
    return body


def _table(head: Iterable[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    top = "".join(f"<th>{_e(name)}</th>" for name in head)
    lines = []
    for row, kind in zip(rows, classes or [""] * len(rows), strict=True):
        cells = "".join(f"<td>{_e(cell)}</td>" for cell in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _number(text: str | None) -> float | None:
    return float(text) if text else None


def _e(text: object) -> str:
    return html.escape(str(text))
