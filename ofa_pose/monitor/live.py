"""A run's state on a terminal: its curves as lines of bars, its last figures, its speed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from pathlib import Path

from rich.live import Live
from rich.text import Text

from ofa_pose.monitor import NO_FLIP
from ofa_pose.monitor.run_state import Curve, RunState, is_awaited, read_state
from ofa_pose.utils.console import say, show_facts, terminal, width
from ofa_pose.utils.numbers import format_time

BARS = "▁▂▃▄▅▆▇█"
WIDEST = 40  # bars of a curve
BETWEEN = 5  # blanks before, between and after names, bars and numbers
SHOWN = 6  # curves at most: loss, AP, rate and wait, and of a supernet its subnets' APs
NAMES = {"lr": "learning rate", "data_wait": "wait for data"}
PARTS = {  # of a training's losses, and a search's figures, by their keys: the line that they stand on, and what of
    "low": ("heatmap loss", "at 1/4 of the input's sides"),
    "high": ("heatmap loss", "at 1/2"),
    "teacher_low": ("teacher loss", "at 1/4 of the input's sides"),
    "teacher_high": ("teacher loss", "at 1/2"),
    "pull": ("tag loss", "within a person"),
    "push": ("tag loss", "between people"),
    "AP_mean": ("mean AP", "of the last generation"),
}


def watch_run(run: str | Path, every: float, once: bool) -> RunState:
    """Show how far a run is until it ends or Ctrl-C; once, where asked to or where stderr is not a terminal.

    Where it is to be shown until it ends, it may begin later. Raises InputError as `read_state`.
    """
    console = None if once else terminal()
    if console and is_awaited(run):
        say(f"{run}: no run has begun there yet; waiting for it, Ctrl-C ends that")
        while is_awaited(run):
            time.sleep(every)
    state = read_state(run)
    if state.ended or console is None:
        show_facts(_rows(state), title=_title(state))
        return state
    try:
        with Live(_text(state), console=console, auto_refresh=False) as live:
            took = 0.0
            while not state.ended:
                time.sleep(max(every, 5 * took))
                start = time.monotonic()
                state = read_state(run)
                took = time.monotonic() - start  # of a long run's records: reading them must not disturb it
                live.update(_text(state), refresh=True)
    except KeyboardInterrupt:  # who watches ends nothing but that
        pass
    return state


def _text(state: RunState) -> Text:
    return Text("\n".join(lines_of(state)), overflow="fold")


def lines_of(state: RunState) -> list[str]:
    """A state as lines for people, none wider than the terminal but for paths."""
    rows = _rows(state)
    column = max(len(name) for name, _ in rows)
    return [_title(state), *(f"  {name.ljust(column)}  {text}" for name, text in rows)]


def _rows(state: RunState) -> list[tuple[str, str]]:
    return [*_curve_rows(state), *_facts(state)]


def _title(state: RunState) -> str:
    of = f" of {state.total:,}" if state.total is not None else ""
    share = f" ({state.done / state.total:.0%})" if state.total else ""
    return f"{state.command}{', ended' if state.ended else ''}: {state.done:,}{of} {state.unit}{share}"


def _curve_rows(state: RunState) -> Iterator[tuple[str, str]]:
    shown = [*dict.fromkeys(("loss", "val/AP", "best AP", "AP", *state.curves))]
    curves = {NAMES.get(name, name): state.curves[name] for name in shown if state.curves.get(name)}
    curves = dict([*curves.items()][:SHOWN])
    ends = {name: (curve[-1][1], *_ends(curve)) for name, curve in curves.items()}
    texts = {name: f"{last:.4g} ({least:.3g} to {most:.3g})" for name, (last, least, most) in ends.items()}
    beside = max(map(len, texts), default=0) + max(map(len, texts.values()), default=0) + BETWEEN
    bars = max(4, min(WIDEST, width() - beside))
    for name, curve in curves.items():
        yield name, f"{sparkline([value for _, value in curve], bars).ljust(bars)} {texts[name]}"


def _facts(state: RunState) -> Iterator[tuple[str, str]]:
    if state.best:
        place = f"after step {state.best['at']:,}" if state.unit == "steps" else f"subnet {state.best['at']:,}"
        yield "best", f"AP {state.best['AP']:.4f}, {place}, {NO_FLIP}"
    if state.speed:
        left = "" if state.seconds_left is None else f", {format_time(state.seconds_left)} left"
        number = f"{state.speed:.2f}" if state.speed < 10 else f"{state.speed:.0f}"
        yield "speed", f"{number} {state.unit}/s{left}"
    yield from _losses(state)
    if not state.ended:
        unknown = "; whether it still runs cannot be seen here" if state.running is None else ""
        yield "wrote", f"{format_time(state.seconds_silent)} ago{unknown}"
        if state.running is False:
            yield "stopped", "no process of this machine works on it"
            yield "go on with", state.go_on.removeprefix("go on with").lstrip(": ")
    yield "run", str(state.run)
    if state.poses:
        yield "poses", str(state.poses)


def _losses(state: RunState) -> Iterator[tuple[str, str]]:
    """The parts of the last step's loss, which stand before the gradient's norm; of a search its other figures."""
    shown = {*state.curves, "step", "seconds", "evaluations", "measured", "AP", "macs"}
    parts = takewhile(lambda part: part[0] != "grad_norm", state.last.items())
    lines: dict[str, list[str]] = {}
    for name, value in parts:
        if name not in shown:
            line, of = PARTS.get(name, ("last", name))
            lines.setdefault(line, []).append(f"{value:.3g} {of}" if name in PARTS else f"{of} {value:.3g}")
    for line, texts in lines.items():
        yield line, ", ".join(texts[:4])


def _ends(curve: Curve) -> tuple[float, float]:
    values = [value for _, value in curve]
    return min(values), max(values)


def sparkline(values: Sequence[float], bars: int) -> str:
    """Values as a line of bars, from the least to the most; of more values than bars each bar is a mean."""
    values = [*map(float, values)]  # whole numbers may be too large to be divided
    if len(values) > bars:
        edges = [round(place * len(values) / bars) for place in range(bars + 1)]
        values = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    least, most = min(values), max(values)
    if not 0 < most - least < math.inf:
        return BARS[0] * len(values)
    return "".join(BARS[min(int((value - least) / (most - least) * len(BARS)), len(BARS) - 1)] for value in values)
