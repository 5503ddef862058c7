"""Several runs on one page: what each came to and costs, their APs over the steps."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ofa_pose.costs.limits import show_ms
from ofa_pose.families.profile import profile_net
from ofa_pose.pose.bootstrap import show_ap
from ofa_pose.reports import charts
from ofa_pose.reports.answer import Answer
from ofa_pose.reports.html_parts import command, document, element, section, table
from ofa_pose.utils.numbers import format_count

DEVICES = 2  # latency tables that have a column


def comparison(answers: Sequence[Answer]) -> str:
    """The HTML about several runs. APs on test images are compared only where these are the same."""
    title = " and ".join(answer.run.name for answer in answers)
    body = [element("h1", title), element("p", " ".join(_sentences(answers)), "lead")]
    body += section("Networks", [_table(answers)])
    curves = {answer.run.name: answer.run.aps for answer in answers if answer.run.aps}
    if curves:
        chart = charts.svg(charts.comparison_chart(curves), "aps", "AP on the validation images over the steps")
        body += section("Training", [chart])
    lines = [(answer.run, shlex.join(["ofa-pose", *words])) for answer in answers for words in answer.run.commands]
    body += section("Where they come from", [element("h3", run.name) + command(words) for run, words in lines])
    return document(title, body, ["report.js"])


def _sentences(answers: Sequence[Answer]) -> Iterator[str]:
    evaluated = [answer for answer in answers if answer.own is not None and answer.own.ap is not None]
    truths = {(answer.own.truth, answer.own.metric) for answer in evaluated if answer.own is not None}
    missing = [answer.run.name for answer in answers if answer not in evaluated]
    if len(truths) == 1 and len(evaluated) > 1:
        best = max(evaluated, key=lambda answer: (answer.own.ap or 0.0) if answer.own else 0.0)
        assert best.own is not None and best.own.ap is not None
        said = f"On the same {best.own.count:,} test images {best.run.name} has the highest AP"
        yield f"{said}, {show_ap(best.own.ap, best.own.error)} (± is one standard error)."
    elif len(truths) > 1:
        yield "The runs were evaluated on different test images, so their APs there cannot be compared."
    if missing:
        yield f"No AP on test images is found of {', '.join(missing)}; eval --out beside the run brings it."
    seen = [answer.run.name for answer in answers if answer.uses]
    if seen:
        yield f"The images had been used in the training or search of {', '.join(seen)}."


def _table(answers: Sequence[Answer]) -> str:
    devices = list(dict.fromkeys(one.device for answer in answers for one in answer.latencies))[:DEVICES]
    rows = []
    for answer in answers:
        own, spec = answer.own, answer.spec
        costs = profile_net(spec) if spec is not None else None
        validated = max((ap for _, ap in answer.run.aps), default=None)
        row = [answer.run.name, "" if own is None or own.ap is None else show_ap(own.ap, own.error)]
        row += ["" if own is None else f"{own.count:,}", "" if validated is None else f"{validated:.3f}"]
        row += (
            ["", "", ""]
            if costs is None or spec is None
            else [str(spec.resolution), format_count(costs["macs"]["thop"]), format_count(costs["params"])]
        )
        known = {one.device: show_ms(one.ms) for one in answer.latencies}
        rows.append([*row, *(known.get(device, "") for device in devices)])
    head = ["run", "AP, test", "test images", "AP, validation", "resolution", "MACs (thop)", "parameters", *devices]
    return table("Networks of the runs", head, rows)
