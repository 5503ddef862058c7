"""The Dockerfile sets up with CI's commands; what the page of installation names exists."""

from __future__ import annotations

import configparser
import re

import yaml

from tests.docs.pages import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def extras() -> dict[str, set[str]]:
    """The packages of each extra in setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return {name: set(packages.split()) for name, packages in setup["options.extras_require"].items()}


def test_the_image_is_made_as_ci_sets_up() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8"))
    (job,) = workflow["jobs"].values()
    (python,) = {*re.findall(r"^FROM python:([\d.]+)-slim", DOCKERFILE, flags=re.MULTILINE)}
    assert python in job["strategy"]["matrix"]["python"]
    index = job["env"]["PIP_EXTRA_INDEX_URL"]
    assert f"PIP_EXTRA_INDEX_URL={index}" in DOCKERFILE and index in PAGE
    image = DOCKERFILE.rpartition("\nFROM ")[2]
    steps = re.findall(r"^(?:RUN|COPY) (.*)", image, flags=re.MULTILINE)
    (npm,) = [step["run"] for step in job["steps"] if step.get("run", "").startswith("npm ")]
    assert [steps[0].split()[0], *steps[1:]] == ["apt-get", "--from=outline /outline .", npm, "bin/setup", ". ."]
    assert {"chromium", "g++", "git", "nodejs", "npm"} <= set(DOCKERFILE.split())


def test_the_image_installs_from_what_an_edit_of_the_sources_leaves_alone() -> None:
    """bin/setup's stamp is of the files that it installs from; with them it does nothing when the rest is there."""
    kept = set(re.findall(r"! -path '?\./([^\s']+)", DOCKERFILE))
    setup = (ROOT / "bin" / "setup").read_text(encoding="utf-8")
    (stamped,) = re.findall(r"^want=\$\(cat (.*) \| cksum\)", setup, flags=re.MULTILINE)
    assert kept == {*stamped.split(), "bin/setup", "ofa_pose/*__init__.py", "tests/browser/package*.json"}


def test_what_an_image_leaves_out_is_made_again() -> None:
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "runs"} <= set(left_out)
    kept = [line.strip("/") for line in left_out if line != ".git"]
    assert all(
        any(line.removeprefix("**/") in (one.strip("/"), ".*_cache") for one in [*ignored, ".*_cache"]) for line in kept
    )


def test_the_extras_on_the_page_are_those_of_the_package() -> None:
    (table,) = re.findall(r"^\| extra \|.*?\n\n", PAGE, flags=re.MULTILINE | re.DOTALL)
    rows = table.strip().splitlines()[2:]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert named == extras().keys()


def test_every_package_that_is_named_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in lines}
    wanted = {re.sub(r"[-_.]+", "-", name).lower() for names in extras().values() for name in names}
    assert wanted <= pinned, wanted - pinned
    assert lines == sorted(lines, key=str.lower)
