"""Charts of a report, as SVG that stands in the page itself and takes its colours."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ofa_pose.arch.spec import ArchSpec
from ofa_pose.utils.numbers import are_numbers, is_share

Point = tuple[float, float]
COLOURS = ("blue", "red", "green", "grey")  # classes of report.css
PANEL, SMALL, NETWORK = (400, 250), (200, 180), (440, 290)  # width and height in pixels
LETTER = 6.4  # pixels that a letter of a tick takes
PARTS = {  # what a training logs of its steps, in panels
    "loss by part": ("low", "high", "push", "pull"),
    "learning rate": ("lr",),
    "seconds waiting for data": ("data_wait",),
}
MANY = 600  # of more points some are drawn, evenly chosen
SMOOTHED = 40  # a loss curve is the mean of as many stretches of steps
FEW = 20  # marks of validations that are drawn one by one
MOST, LEAST = 1e30, 1e-30  # numbers beyond the one, and nearer to 0 than the other, are drawn as that and as 0


@dataclass(frozen=True)
class Curve:
    """Points of a chart: a line, a line with its points marked, dots alone, stairs, or short bars."""

    points: Sequence[Point]
    colour: str = "blue"
    style: Literal["line", "thin", "marked", "dots", "stairs", "bars"] = "line"
    name: str = ""


def panel(
    label: str,
    curves: Sequence[Curve],
    x: str,
    y: str,
    size: tuple[int, int] = PANEL,
    marks: Sequence[float] = (),
    limits: tuple[float | None, float | None] = (None, None),
    choices: Sequence[str] = (),
    bold: int | None = None,
) -> str:
    """A chart as an <svg> element, always the same of the same values.

    Args:
        label: what it shows, for those who do not see it.
        x, y: the names of the axes; '' leaves one out.
        size: width and height in pixels.
        marks: values of x with a dotted line.
        limits: the lowest and the highest y; what lies beyond is drawn at the edge. None: what the points need.
        choices: names of x = 0, 1, 2 …, of which the one numbered `bold` is bold; none: x are numbers.
    """
    width, height = size
    curves = [replace(one, points=[(_bounded(x), _bounded(y)) for x, y in one.points]) for one in curves]
    xs = [point[0] for curve in curves for point in curve.points] + list(marks)
    ys = [point[1] for curve in curves for point in curve.points]
    across = (-0.6, len(choices) - 0.4) if choices else _range(xs, 0.02)
    low, high = _range(ys, 0.05)
    low, high = (low if limits[0] is None else limits[0], high if limits[1] is None else limits[1])
    names = [curve for curve in curves if curve.name]
    rows = _ticks(low, high, height / 55)
    left = 12 + LETTER * max((len(text) for _, text in rows), default=1) + (18 if y else 0)
    right, top, bottom = 12, 28 if len(names) > 1 else 12, 40 if x else 24

    def place(point: Point) -> tuple[float, float]:
        share = (point[0] - across[0]) / (across[1] - across[0]), (min(max(point[1], low), high) - low) / (high - low)
        return left + share[0] * (width - left - right), height - bottom - share[1] * (height - top - bottom)

    parts = []
    for value, text in rows:
        level = place((across[0], value))[1]
        parts.append(f'<path class="grid" d="M{left:.1f} {level:.1f}H{width - right}"/>')
        parts.append(_text(text, left - 6, level + 4, "end"))
    columns = [(float(n), name) for n, name in enumerate(choices)] or _ticks(*across, width / 90, whole=True)
    for value, text in columns:
        parts.append(
            _text(text, place((value, low))[0], height - bottom + 16, "middle", bold is not None and value == bold)
        )
    for value in marks:
        parts.append(f'<path class="mark" d="M{place((value, low))[0]:.1f} {top}V{height - bottom}"/>')
    parts += [drawn for curve in curves for drawn in _drawn(curve, place)]
    parts.append(f'<path class="axis" d="M{left:.1f} {top}V{height - bottom}H{width - right}"/>')
    middle, centre = (left + width - right) / 2, (top + height - bottom) / 2
    if x:
        parts.append(_text(x, middle, height - 6, "middle"))
    if y:
        parts.append(f'<g transform="translate(13 {centre:.1f}) rotate(-90)">{_text(y, 0, 0, "middle")}</g>')
    if len(names) > 1:
        parts += _legend(names, left)
    return _svg(size, label, parts)


def _drawn(curve: Curve, place: Callable[[Point], tuple[float, float]]) -> Iterator[str]:
    points = [place(point) for point in curve.points]
    if not points:
        return
    joined = [f"{x:.1f} {y:.1f}" for x, y in points]
    if curve.style in ("line", "thin", "marked"):
        yield f'<path class="{curve.colour}{" thin" * (curve.style == "thin")}" d="M{"L".join(joined)}"/>'
    if curve.style in ("marked", "dots"):
        yield f'<path class="{curve.colour} dots" d="{"".join(f"M{one}h0" for one in joined)}"/>'
    if curve.style == "stairs":
        yield f'<path class="{curve.colour}" d="M{joined[0]}{"".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])}"/>'
    if curve.style == "bars":
        yield f'<path class="{curve.colour} bars" d="{"".join(f"M{x - 6:.1f} {y:.1f}h12" for x, y in points)}"/>'


def _legend(curves: Iterable[Curve], left: float) -> Iterator[str]:
    for curve in curves:
        yield f'<path class="{curve.colour} bars" d="M{left:.1f} 14h14"/>'
        yield _text(curve.name, left + 19, 18, "start")
        left += 34 + LETTER * len(curve.name)


def _svg(size: tuple[int, int], label: str, parts: Iterable[str]) -> str:
    width, height = size
    head = f'<svg class="chart" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {width} {height}"'
    return f'{head} width="{width}" height="{height}">{"".join(parts)}</svg>'


def _text(text: str, x: float, y: float, anchor: str, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{html.escape(text)}</text>'


def _bounded(value: float) -> float:
    return min(max(float(value), -MOST), MOST) if abs(value) >= LEAST else 0.0


def _range(values: Sequence[float], more: float) -> tuple[float, float]:
    """From the lowest to the highest value, and this share more on both sides."""
    low, high = (float(min(values)), float(max(values))) if values else (0.0, 1.0)
    wide = high - low or abs(high) or 1.0
    return low - more * wide, high + more * wide


def _ticks(low: float, high: float, most: float, whole: bool = False) -> list[tuple[float, str]]:
    """Round values between two, about so many at most, as they are written."""
    rough = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= rough)
    step = max(step, 1.0) if whole else step
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, f"{number * step:,.{decimals}f}") for number in range(first, last + 1)]


def training_charts(trained: Sequence[Mapping[str, Any]], validated: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Over the steps the loss, the AP (of a supernet that of three subnets), the loss's parts, rate and data wait.

    Steps with a validation are marked on the loss.
    """
    if trained:
        yield _loss(trained, [record["step"] for record in validated])
    of_supernet = any("AP_largest" in record["val"] for record in validated)
    names = ("AP_largest", "AP_middle", "AP_smallest") if of_supernet else ("AP",)
    points = {name: [(r["step"], ap) for r in validated if is_share(ap := r["val"].get(name))] for name in names}
    curves = {name.removeprefix("AP_"): curve for name, curve in points.items() if curve}
    if curves:
        yield ap_chart(curves)
    for title, parts in PARTS.items():
        logged = {name: [(r["step"], _bounded(r[name])) for r in trained if _is_number(r.get(name))] for name in parts}
        smooth = {name: _smooth(curve) for name, curve in logged.items() if curve}
        if smooth:
            yield panel(f"{title} over the steps", _coloured(smooth, "line"), "step", title)


def ap_chart(curves: Mapping[str, Sequence[Point]]) -> str:
    """APs over the steps, by what they are of; of more than four curves the first four."""
    title = "AP on the validation images"
    return panel(f"{title} over the steps", _coloured(curves, "marked"), "step", title)


def _coloured(curves: Mapping[str, Sequence[Point]], style: Literal["line", "marked"]) -> list[Curve]:
    named = zip(curves.items(), COLOURS, strict=False)
    return [Curve(points, colour, style, name.replace("_", " ")) for (name, points), colour in named]


def _smooth(points: Sequence[tuple[int, float]]) -> list[Point]:
    """Means of stretches of steps."""
    parts = np.array_split(np.array(points, np.float64), min(SMOOTHED, len(points)))
    return [(float(step), float(value)) for step, value in (part.mean(axis=0) for part in parts)]


def _is_number(value: Any) -> bool:
    return are_numbers([value], 1)


def _loss(trained: Sequence[Mapping[str, Any]], marks: Sequence[int]) -> str:
    points = [(record["step"], _bounded(record["loss"])) for record in trained]
    losses = np.array([loss for _, loss in points])
    raw = [Curve(_some(points), "grey", "thin")] if len(points) > 2 * SMOOTHED else []
    smooth = Curve(_smooth(points), "blue", "line" if len(points) > 2 else "marked")
    top = 1.1 * float(np.quantile(losses, 0.99))
    title = "training loss" + (", spikes cut off" if losses.max() > top > 0 else "")
    limits = (min(0.0, float(losses.min())), top if top > 0 else None)
    return panel("training loss over the steps", [*raw, smooth], "step", title, marks=_some(marks, FEW), limits=limits)


def _some(values: Sequence[Any], most: int = MANY) -> list[Any]:
    """Up to so many of the values, evenly chosen."""
    return list(values[:: math.ceil(len(values) / most)]) if values else []


def progress_chart(aps: Sequence[float | None]) -> str:
    """The AP of every subnet that a search evaluated, in its order, and the best so far."""
    known = [(order, ap) for order, ap in enumerate(aps, start=1) if ap is not None]
    best = np.maximum.accumulate([ap for _, ap in known]).tolist() if known else []
    rises = [
        (order, ap) for n, ((order, _), ap) in enumerate(zip(known, best, strict=True)) if not n or ap > best[n - 1]
    ]
    end = [(len(aps), best[-1])] if best else []
    curves = [
        Curve(_some(known), "grey", "dots", "a subnet"),
        Curve([*rises, *end], "blue", "stairs", "the best so far"),
    ]
    return panel("AP of the subnets in their order", curves, "evaluation", "AP on the search images")


def choice_chart(name: str, pairs: Sequence[tuple[int, float]], chosen: int | None = None) -> str:
    """What a gene's choices were worth: (value, AP) of every subnet, with best and median; bold: the chosen value."""
    values = sorted({value for value, _ in pairs})
    aps = {value: [_bounded(ap) for one, ap in pairs if one == value] for value in values}
    # Side by side where there are many, so that their density can be seen.
    spread = 0.25 * min(1.0, len(pairs) / len(values) / 50)
    dots = [(values.index(value) + spread * math.sin(2.4 * n), ap) for n, (value, ap) in enumerate(_some(pairs))]
    medians = [(float(n), float(np.median(aps[value]))) for n, value in enumerate(values)]
    best = [(float(n), max(aps[value])) for n, value in enumerate(values)]
    curves = [Curve(dots, "grey", "dots"), Curve(medians, "blue"), Curve(medians, "blue", "bars")]
    curves.append(Curve(best, "red", "bars"))
    bold = values.index(chosen) if chosen in values else None
    return panel(f"AP by {name}", curves, name, "", SMALL, choices=[str(value) for value in values], bold=bold)


def network_chart(spec: ArchSpec, largest: ArchSpec | None = None) -> str:
    """A bar for each part, as long as it is wide; round it, dashed, the largest of its space."""
    parts, reach = _parts(spec), _parts(largest or spec)
    width, height = NETWORK
    longest = max(width for _, width, _ in (*reach, *parts))
    left, scale, row = 70, (width - 70 - 150) / longest, height / len(parts)
    drawn = []
    for place, ((name, wide, depth), (_, most, deepest)) in enumerate(zip(parts, reach, strict=True)):
        middle = (place + 0.5) * row
        colour = "blue" if name.startswith("stage") else "green" if name.startswith("deconv") else "red"
        drawn.append(_text(name, left - 8, middle + 4, "end"))
        drawn.append(_bar(colour, left, middle, wide * scale, 0.6 * row))
        said = str(wide)
        if largest is not None:
            drawn.append(_bar("most", left, middle, most * scale, 0.72 * row))
            said = f"{wide} of {most}"
        if name.startswith("stage"):
            blocks = "1 block" if deepest == 1 else f"{deepest} blocks"
            said += f", {blocks}" if depth == deepest else f", {depth} of {blocks}"
        drawn.append(_text(said, left + max(wide, most if largest else 0) * scale + 6, middle + 4, "start"))
    return _svg(NETWORK, "channels of each part of the network", drawn)


def _bar(colour: str, x: float, middle: float, width: float, height: float) -> str:
    y = middle - height / 2
    return f'<rect class="{colour}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'


def _parts(spec: ArchSpec) -> list[tuple[str, int, int]]:
    """Name, width and depth of stem, stages and deconvs."""
    stages = [(f"stage {i}", width, len(spec.expansions[i - 1])) for i, width in enumerate(spec.stages, start=1)]
    deconvs = [(f"deconv {i}", width, 1) for i, width in enumerate(spec.deconv, start=1)]
    return [("stem", spec.stem, 1), *stages, *deconvs]
