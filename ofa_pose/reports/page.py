"""The page itself: one HTML file that needs nothing beside it; all text on it is escaped."""

from __future__ import annotations

import base64
import html
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ofa_pose import __version__
from ofa_pose.arch.plan import Layer, make_plan
from ofa_pose.arch.space import Genome, SearchSpace
from ofa_pose.arch.spec import ArchSpec, NetSpec
from ofa_pose.checkpoints.checkpoint import load_checkpoint
from ofa_pose.costs.limits import Budget, show_ms
from ofa_pose.costs.macs import layer_macs, layer_params
from ofa_pose.costs.subnet_rows import read_subnets
from ofa_pose.families.profile import profile_net
from ofa_pose.families.table import load_net
from ofa_pose.latency.latency_table import LatencyTable
from ofa_pose.pose.bootstrap import show_ap
from ofa_pose.reports import charts
from ofa_pose.reports.runs import RESTORE, SOURCES, Run, chain, read_run, reading, source
from ofa_pose.searches.job import BASIS, BEST, HISTORY, PICTURE, RESULT
from ofa_pose.searches.results import ap_cells, front_notes
from ofa_pose.utils import files
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.numbers import format_count, positive
from ofa_pose.utils.run_dir import METRICS

SHOWN = 15  # rows of the front
SETTINGS = ("algorithm", "population", "seed", "surrogate")
HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a202c; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.6rem; margin: 0 0 .3rem; }}
h2 {{ font-size: 1.2rem; margin: 2.2rem 0 .6rem; }}
h3 {{ font-size: 1rem; }}
p.lead {{ color: #4a5568; margin: 0 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .25rem .8rem; border-bottom: 1px solid #e2e8f0; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
tr.chosen td {{ font-weight: 600; }}
tr.aside td {{ color: #718096; }}
.tiles {{ display: flex; flex-wrap: wrap; gap: .7rem; }}
.tile {{ background: #f7fafc; border-radius: .5rem; padding: .6rem 1rem; }}
.tile b {{ display: block; font-size: 1.25rem; }}
.tile span {{ color: #4a5568; font-size: .85rem; }}
svg, img {{ max-width: 100%; height: auto; }}
pre {{ background: #f7fafc; padding: .6rem .8rem; overflow-x: auto; font-size: .8rem; }}
footer {{ margin-top: 3rem; color: #718096; font-size: .85rem; }}
</style>
"""


def write_report(run: str | Path, out: str | Path | None = None) -> Path:
    """See `ofa_pose.report`: one HTML page, which loads nothing from elsewhere."""
    path = Path(out) if out is not None else Path(run) / "report.html"
    files.check_file(path, "name a file, such as report.html")
    files.check_folder(path.parent)
    files.write_text(path, page(read_run(run)))
    return path


def page(main: Run) -> str:
    """The HTML about a run."""
    spec, chooser = _spec(main), source(main, "--subnet")
    shape = spec if isinstance(spec, ArchSpec) else None
    search = read_search(main, None) or (read_search(chooser, shape) if chooser is not None else None)
    body = [element("h1", main.name), *_lead(main, search)]
    if spec is not None:
        body += _network(spec, main, search)
    if search is not None:
        body += _search_section(search)
    runs = chain(main)
    for number, (run, role) in enumerate(runs):
        if run.trained or run.validated:
            body += _training(run, role, f"training{number}")
    body += _origin(runs)
    body.append(f"<footer>ofa-pose {__version__}</footer>\n</html>\n")
    return HEAD.format(title=html.escape(main.name)) + "\n".join(body)


@dataclass(frozen=True)
class Searched:
    """A search and the network that was taken from it.

    Attributes:
        best, result: of best.yaml, and of what the search printed in the end; empty where there is none.
        history: of every candidate the AP (or None), any predicted latency, and each gene's value under its label.
        basis: of search.json, what was evaluated on what, and how.
        genome: of the network in question; empty where it is not of the space.
    """

    run: Run
    space: SearchSpace | None
    best: Mapping[str, Any]
    history: Mapping[Genome, Mapping[str, Any]]
    basis: Mapping[str, Any]
    result: Mapping[str, Any]
    genome: Genome

    @property
    def chosen(self) -> Mapping[str, Any]:
        """Of `history` the network in question; empty where it was not evaluated."""
        return self.history.get(self.genome, {})

    @property
    def error(self) -> float | None:
        """The standard error of its AP, where the search gave it: of what it chose, and of the front."""
        front, best, chosen = (self.result.get(key) for key in ("front", "best", "chosen"))
        nets = [*front] if isinstance(front, list) else []
        nets += [{**best, "genome": chosen}] if isinstance(best, Mapping) else []
        found = (net for net in nets if isinstance(net, Mapping) and net.get("genome") == list(self.genome))
        errors = (net.get("AP_stderr") for net in found)
        return next((error for error in errors if isinstance(error, float)), None)

    @property
    def budget(self) -> Budget | None:
        """The budget, to be shown: it predicts no latency."""
        kept = self.best.get("budget") or {}
        with reading(self.run.path / BEST):
            limits = {key: kept[key] for key in ("macs", "params", "latency_ms") if kept.get(key) is not None}
            if not all(map(positive, limits.values())):
                raise ValueError(f"a budget of {limits}")
            convention = self.best.get("convention", "thop")
            return Budget(**limits, convention=convention, predict_ms=lambda _: math.nan) if limits else None


def read_search(run: Run, spec: ArchSpec | None) -> Searched | None:
    """The search in a run's directory, if any, for a network or the one it chose. Raises InputError where damaged."""
    path = run.path / HISTORY
    if not path.exists():
        return None
    basis, best = run.table(BASIS), run.best() or {}
    space = SearchSpace.from_dict(basis["space"], run.path / BASIS) if isinstance(basis.get("space"), Mapping) else None
    history = read_subnets(path, ("AP",), space, ("AP",), ("latency_ms",), "a history of a search", RESTORE)
    if not all(math.isfinite(cell) for row in history.values() for cell in row.values() if cell is not None):
        raise InputError("holds an AP or a latency that is not a number", path, RESTORE)
    genome: Genome = ()
    wanted = spec or best.get("spec")
    with suppress(InputError):  # it is not of the space
        genome = space.encode(wanted) if space is not None and wanted else ()
    return Searched(run, space, best, history, basis, run.table(RESULT), genome)


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


def _lead(main: Run, search: Searched | None) -> list[str]:
    """What happened, in sentences."""
    said = [_search_lead(search)] if search is not None else []
    steps = [record["step"] for record in (*main.trained, *main.validated)]
    if steps:
        came = ""
        if main.aps:
            began = f"from AP {main.aps[0][1]:.3f} " if main.aps[0][0] == 0 else ""
            came = f" and came {began}to AP {max(ap for _, ap in main.aps):.3f} on the validation images"
        said.append(f"{main.job} ran {max(steps):,} steps{came}.")
    if teacher := main.option("--teacher"):
        with suppress(InputError):
            spec = load_checkpoint(main.locate(teacher) or teacher).spec
            macs = profile_net(spec)["macs"]["thop"]
            teacher += f" ({spec.resolution} px, {format_count(macs)} MACs)"
        said.append(f"Its teacher was {teacher}.")
    return [element("p", " ".join(said), "lead")] if said else []


def _search_lead(search: Searched) -> str:
    """The search in a sentence or two."""
    count, ap = len(search.history), search.chosen.get("AP")
    where = f"in the space {search.space.name} " if search.space else ""
    subnets = "1 subnet was" if count == 1 else f"{count:,} subnets were"
    said = f"Searched {where}within {search.budget or 'a budget'}: {subnets} evaluated"
    if ap is None:
        return f"{said}."
    rank = 1 + sum((row["AP"] or 0) > ap for row in search.history.values())
    place = "the best" if rank == 1 else f"the one taken ranks {rank} by AP and"
    shown = show_ap(ap, search.error)
    computed = f", computed in {search.chosen['precision']}" if "precision" in search.chosen else ""
    return f"{said}; {place} has AP {shown} on the search images with the supernet's weights{computed}."


def _network(spec: NetSpec, main: Run, search: Searched | None) -> list[str]:
    chosen = search.chosen if search is not None else {}
    costs = profile_net(spec)
    ap, best, latency = chosen.get("AP"), max((ap for _, ap in main.aps), default=None), chosen.get("latency_ms")
    figures = {
        "AP, search images, inherited weights": None if ap is None else show_ap(ap, search.error if search else None),
        "AP, validation images": None if best is None else f"{best:.3f}",
        "resolution": f"{spec.resolution} px",
        "latency, predicted": None if latency is None else show_ms(latency),
        **{f"MACs, {name}": format_count(value) for name, value in costs["macs"].items()},
        "parameters": format_count(costs["params"]),
        "joints": str(spec.joints),
    }
    head, shape = element("h2", "The network"), details("all of its shape", files.dump_yaml(spec.to_dict()))
    if not isinstance(spec, ArchSpec):
        return [head, tiles(figures), element("p", f"A network of the family {spec.family}."), shape]
    largest = search.space.largest(spec.joints) if search is not None and search.space and search.genome else None
    note = "Dashed: the largest of its search space. " if largest is not None else ""
    return [
        head,
        tiles(figures),
        charts.svg(charts.network_chart(spec, largest), "network"),
        element("p", f"{note}Bars are as high as a part is wide and as broad as it is deep."),
        _parts_table(spec),
        shape,
    ]


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
    return table(("part", "map, cells", "MACs (thop)", "share", "parameters"), rows)


def _search_section(search: Searched) -> list[str]:
    """The HTML of a search."""
    with reading(search.run.path / BASIS):
        said = " ".join(_rests_on(search))
    picture = search.run.path / PICTURE
    body = [element("h2", "The search"), *([element("p", said)] if said else [])]
    if picture.exists() and picture.stat().st_size:
        content = base64.b64encode(picture.read_bytes()).decode()
        body.append(f'<img alt="AP over cost of all subnets evaluated" src="data:image/png;base64,{content}">')
    if search.history:
        body.append(charts.svg(charts.progress_chart([row["AP"] for row in search.history.values()]), "progress"))
    with reading(search.run.path / RESULT):
        body += _front(search)
    evaluated = [row for row in search.history.values() if row["AP"] is not None]
    labels = search.space.labels if search.space is not None else ()
    choices = {label: [(row[label], row["AP"]) for row in evaluated] for label in labels}
    choices = {label: pairs for label, pairs in choices.items() if len({value for value, _ in pairs}) > 1}
    if choices:
        bold = "; bold: chosen" if search.chosen else ""
        note = (
            f"Every dot is a subnet that was evaluated; red: the best with this choice, blue: their median{bold}. "
            "All keep the budget, so what is wide here is narrow elsewhere."
        )
        chart = charts.svg(charts.choices_chart(choices, search.chosen), "choices")
        body += [element("h3", "What the choices were worth"), chart, element("p", note)]
    return body


def _rests_on(search: Searched) -> Iterator[str]:
    """What the APs rest on, in sentences."""
    basis = search.basis
    if isinstance(basis.get("search"), list) and isinstance(basis.get("train"), list):
        (_, there, images), (_, _, calibration) = basis["search"], basis["train"]
        what = f"{min(images, there)} search images, after BatchNorm recalibration on {calibration} training images"
        yield f"AP is measured on {what}."
    if isinstance(basis.get("algorithm"), Mapping):
        named = [f"{key} {basis['algorithm'][key]}" for key in SETTINGS if key in basis["algorithm"]]
        yield f"Settings: {', '.join(named)}."
    name = search.run.option("--latency-table")
    if name:
        yield f"Latencies are predicted from {_latency_table(search, name)}."
    if search.result.get("people") is not None:
        people = search.result["people"]
        yield f"{people} people are on them, crowds and people without joints aside; ± is one standard error of the AP."
    notes = search.result.get("notes")
    yield from (f"{str(note)[:1].upper()}{str(note)[1:]}." for note in (notes if isinstance(notes, list) else []))
    if not search.result:
        yield f"The search did not come to its end, or is of a version that wrote no {RESULT}."


def _latency_table(search: Searched, name: str) -> str:
    """A latency table in words: the device and the runtime, if the file can be found and is still the same."""
    path = search.run.locate(name)
    with reading(search.run.path / BEST):
        wanted = (search.best.get("budget") or {}).get("latency_table")
    if path is None or not path.is_file() or files.sha256(path) != wanted:
        return f"{name}, which is not found or has changed"
    header = LatencyTable.load(path).header
    threads = "1 thread" if header.threads == 1 else f"{header.threads} threads"
    return f"{path.name}: {header.device}, {header.runtime}, {threads}"


def _front(search: Searched) -> list[str]:
    """The Pareto front beside the uniformly scaled nets; nothing where the search did not end."""
    front, uniform = search.result.get("front"), search.result.get("uniform")
    if not front or uniform is None:
        return []
    latency = front[0]["latency_ms"] is not None
    nets = [(f"front/{entry['rank']:03}.yaml", entry) for entry in front[:SHOWN]]
    nets += [("uniformly scaled", net) for net in uniform]
    rows, kinds = [], ["chosen" if tuple(entry["genome"]) == search.genome else "" for entry in front[:SHOWN]]
    for name, net in nets:
        costs = [format_count(net["macs"]["thop"]), format_count(net["params"])]
        costs += [show_ms(net["latency_ms"])] if latency else []
        rows.append([name, str(net["resolution"]), *costs, *ap_cells(net)])
    kinds += ["aside"] * len(uniform)
    head = ["", "resolution", "MACs (thop)", "parameters", *(["latency"] if latency else []), "AP", "uniform", "gain"]
    quantity = search.budget.limits[0].quantity.removeprefix("of ") if search.budget else "cost"
    notes = [element("p", note) for note in front_notes(search.result, quantity, SHOWN)]
    return [element("h3", "The Pareto front"), table(head, rows, kinds), *notes]


def _training(run: Run, role: str, salt: str) -> list[str]:
    with reading(run.path / METRICS):
        chart = charts.svg(charts.training_chart(run.trained, run.validated), salt)
    body = [element("h2", f"Training: {run.name}" + (f" ({role})" if role else "")), chart]
    if run.validated:
        last = run.validated[-1]
        metrics = [f"{name} {value:.3f}" for name, value in last["val"].items() if isinstance(value, float)]
        said = f"Last validation, step {last['step']:,}: {', '.join(metrics)}."
        step, best = max(run.aps, key=lambda pair: pair[1], default=(0, 0.0))
        if run.aps and best > run.aps[-1][1]:
            said += f" The best AP was {best:.3f}, at step {step:,}."
        body.append(element("p", said))
    return body


def _origin(runs: Sequence[tuple[Run, str]]) -> list[str]:
    body, shipped = [element("h2", "Where it comes from")], files.shipped_weights()
    for run, role in runs:
        body.append(element("h3", run.name + (f": {role}" if role else "")))
        body += [element("pre", shlex.join(["ofa-pose", *words])) for words in run.commands]
        named = {option: value for option in SOURCES if (value := run.option(option)) and value not in shipped}
        lost = [f"{name} {value} ({SOURCES[name]})" for name, value in named.items() if run.locate(value) is None]
        if lost:
            warn(f"{run.path}: what it started from is not found from here: {', '.join(lost)}")
            body.append(element("p", f"Not found when this page was made: {', '.join(lost)}."))
        if run.recipe:
            body.append(details("recipe.yaml", run.recipe))
    return body


def element(name: str, text: object, kind: str = "") -> str:
    """An element around a text, of a class where one is given."""
    opening = f'{name} class="{kind}"' if kind else name
    return f"<{opening}>{html.escape(str(text))}</{name}>"


def details(summary: str, text: str) -> str:
    """A long text, folded away."""
    return f"<details>{element('summary', summary)}{element('pre', text)}</details>"


def tiles(figures: Mapping[str, str | None]) -> str:
    """Figures side by side, those that there are, by name."""
    known = {name: value for name, value in figures.items() if value is not None}
    shown = (f'<div class="tile">{element("b", value)}{element("span", name)}</div>' for name, value in known.items())
    return f'<div class="tiles">{"".join(shown)}</div>'


def table(head: Iterable[str], rows: Sequence[Sequence[str]], kinds: Sequence[str] = ()) -> str:
    """A table; `kinds` are the classes of the rows, '' for none."""
    top = "".join(element("th", name) for name in head)
    lines = []
    for row, kind in zip(rows, kinds or [""] * len(rows), strict=True):
        cells = "".join(element("td", cell) for cell in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
