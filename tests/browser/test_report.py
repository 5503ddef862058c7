"""The report in a real browser: on a desk and on a phone, light and dark; no text of files runs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ofa_pose.reports.page import write_report
from ofa_pose.utils.files import read_json
from tests.reports.made_run import HOSTILE, make_runs

LABELS = """[...document.querySelectorAll('#plot text')].filter(one => one.textContent.startsWith('front'))
  .map(one => { const box = one.getBoundingClientRect();
  return { text: one.textContent, left: box.left, right: box.right, top: box.top, bottom: box.bottom } })"""
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
AXE = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(one => "
AXE += "one.id + ': ' + one.nodes.map(node => node.target.join(' ') + ' ' + node.failureSummary).join('; ')))"
# Elements that reach over the right edge and stand in no box that scrolls by itself.
WIDE = """[...document.querySelectorAll('body *')].filter(one => !one.closest('.wide') && !one.closest('svg') &&
  one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("made"), name=HOSTILE.replace("/", ""))


@pytest.fixture(scope="module")
def report(run: Path) -> Path:
    return write_report([run])


@pytest.fixture
def open_page(browser) -> Iterator[Any]:
    """A function that opens a page; at the end nothing was said on the console and no text has run."""
    opened, said = [], []

    def start(path: Path, **context: Any) -> Any:
        page = browser.new_page(**context)
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url)
        )
        page.goto(path.as_uri())
        return page

    yield start
    for page in opened:
        page.close()
    assert said == []


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("size", [*SIZES])
def test_it_fits_and_axe_finds_nothing(open_page, report: Path, axe_script: str, size: str, colours: str) -> None:
    page = open_page(report, viewport=SIZES[size], color_scheme=colours)
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size]["width"]
    assert page.evaluate(WIDE) == []
    page.evaluate(axe_script)
    assert page.evaluate(AXE) == []


def test_a_table_that_is_wider_than_its_place_says_so(open_page, report: Path) -> None:
    hint = "box => getComputedStyle(box, '::before').content"
    box = open_page(report, viewport=SIZES["phone"]).locator(".wide[aria-label='Networks on the test images']")
    assert "scroll sideways" in box.evaluate(hint)
    box = open_page(report, viewport=SIZES["desk"]).locator(".wide[aria-label='Networks on the test images']")
    assert box.evaluate(hint) == "none"


def test_hostile_names_stay_text(open_page, report: Path) -> None:
    page = open_page(report, viewport=SIZES["desk"])
    assert page.evaluate("document.querySelectorAll('img[src=x]').length") == 0
    assert HOSTILE.replace("/", "") in page.inner_text("main")


def test_it_prints_in_black_on_white_within_the_paper(open_page, report: Path) -> None:
    page = open_page(report, viewport={"width": 700, "height": 1000}, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.is_visible("button.copy")
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_a_command_is_copied(open_page, report: Path) -> None:
    page = open_page(report, viewport=SIZES["desk"])
    page.click("button.copy >> nth=0")
    page.wait_for_selector("button.copy:text-matches('copied|marked')")


def chosen_net(run: Path) -> dict[str, Any]:
    result = read_json(run.parent / "search" / "result.json")
    return next(net for net in result["front"] if net["genome"] == result["chosen"])


def test_every_dot_tells_what_it_is_to_the_mouse(open_page, report: Path, run: Path) -> None:
    page = open_page(report, viewport=SIZES["desk"])
    history = (run.parent / "search" / "history.csv").read_text().splitlines()
    dots = page.locator("#plot .dot")
    assert dots.count() == len(history) - 1 == page.locator("#plot [role=option]").count()
    chosen = chosen_net(run)
    assert f"AP {chosen['AP']:.3f} ± 0.020 (chosen)" in page.inner_text("#about")
    other = page.locator("#plot .dot[aria-label^='front/002']")
    other.hover()
    said = page.inner_text("#about")
    assert (
        "front/002: AP" in said
        and "file front/002.yaml" in said
        and "generation" in said
        and "MACs (exact)" in said
        and "stage1" in said
    )
    assert page.inner_text("#nets tr.chosen button") == "front/002"


def test_a_net_of_ap_0_is_on_the_front_only_where_all_are(open_page, report: Path, tmp_path: Path) -> None:
    before, start, rest = report.read_text().partition('id="explorer-data">')
    text, end, after = rest.partition("</script>")
    value = json.loads(text)
    cheapest = min(value["nets"], key=lambda net: net["costs"][value["axes"][0]["key"]])
    for zeros, on_front in ((value["nets"], 1), ([cheapest], 0)):
        aps = [net["AP"] for net in value["nets"]]
        for net in zeros:
            net["AP"] = 0
        text = json.dumps(value).replace("<", "\\u003c")
        (tmp_path / "report.html").write_text("".join([before, start, text, end, after]))
        page = open_page(tmp_path / "report.html", viewport=SIZES["desk"])
        assert page.locator("#plot .front[aria-label*='AP 0.000']").count() == on_front
        for net, ap in zip(value["nets"], aps, strict=True):
            net["AP"] = ap


@pytest.mark.parametrize("size", [*SIZES])
def test_all_of_the_front_is_named_on_the_plot_and_in_the_table(open_page, report: Path, run: Path, size: str) -> None:
    page = open_page(report, viewport=SIZES[size])
    front = [f"front/{net['rank']:03}" for net in read_json(run.parent / "search" / "result.json")["front"]]
    assert len(front) > 4
    assert {*page.locator("#nets button").all_inner_texts()} >= {*front}
    labels = page.evaluate(LABELS)
    assert {label["text"] for label in labels} == {*front}
    for number, one in enumerate(labels):
        assert one["left"] >= 0 and one["right"] <= SIZES[size]["width"]
        for other in labels[:number]:
            apart = one["left"] >= other["right"] or other["left"] >= one["right"]
            assert apart or one["top"] >= other["bottom"] - 2 or other["top"] >= one["bottom"] - 2
    page.click("#nets button:text('front/004')")
    assert page.locator("#plot .shown").get_attribute("aria-label").startswith("front/004: AP")


def test_the_keyboard_goes_from_dot_to_dot_and_to_the_table(open_page, report: Path) -> None:
    page = open_page(report, viewport=SIZES["desk"])
    page.focus("#plot .dot[tabindex='0']")
    page.keyboard.press("Home")
    first = page.inner_text("#about strong")
    page.keyboard.press("ArrowRight")
    second = page.inner_text("#about strong")
    assert first != second and page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#about strong") == first
    page.focus("#nets button >> nth=1")
    page.keyboard.press("Enter")
    name = page.evaluate("document.activeElement.textContent")
    assert page.inner_text("#about strong").startswith(name)
    page.focus("#budget")
    page.keyboard.press("Home")
    assert page.locator("#nets tr").count() < 3 and page.inner_text("#winner").startswith("best within ")


def test_a_budget_is_drawn_and_the_table_follows(open_page, report: Path, run: Path) -> None:
    page = open_page(report, viewport=SIZES["desk"])
    page.locator("#plot").scroll_into_view_if_needed()
    box = page.locator("#plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 20)
    page.mouse.up()
    said, limit = page.inner_text("#winner"), float(page.input_value("#budget"))
    with (run.parent / "search" / "history.csv").open(newline="") as file:
        inside = [row for row in csv.DictReader(file) if float(row["macs_thop"]) <= limit]
    assert 0 < len(inside) < page.locator("#plot .dot").count()
    assert f"AP {max(float(row['AP']) for row in inside):.3f}" in said
    if page.is_visible("#more"):
        page.click("#more")
    assert page.locator("#nets tr").count() == len(inside)
    page.select_option("#axis", "parameters")
    assert page.inner_text("#cost-column") == "parameters" and page.inner_text("#winner").startswith("best of all")


def test_a_finger_chooses_a_dot_and_a_budget(open_page, report: Path) -> None:
    page = open_page(report, viewport=SIZES["phone"], has_touch=True, is_mobile=True)
    page.locator("#plot .dot[aria-label^='front/003']").tap()
    assert page.inner_text("#about strong").startswith("front/003")
    box = page.locator("#plot").bounding_box()
    page.locator("#plot").tap(position={"x": box["width"] * 0.5, "y": 8})
    assert page.inner_text("#winner").startswith("best within ")
