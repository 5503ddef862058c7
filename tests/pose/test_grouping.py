"""Grouping finds the same people in Python, JavaScript and C++, ties included."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest

from ofa_pose.pose.decode import DecodeConfig, Poses, group_joints
from ofa_pose.skeleton import COCO
from tests.docs.pages import ROOT, blocks
from tests.pose.maps import crowd

SIDE, CANDIDATES = 128, 30
ORDER = COCO.grouping_order
CONFIGS = (
    DecodeConfig(),
    DecodeConfig(reach=0.5),
    DecodeConfig(tag_threshold=0.5, max_people=3),
    DecodeConfig(tag_threshold=2.0, reach=0.3),
)
JAVASCRIPT = """
import fs from "node:fs";
import { group } from "GROUPING";
const [file, candidates, options, order] = process.argv.slice(2).map((word, i) => (i ? JSON.parse(word) : word));
const all = fs.readFileSync(file);
const joints = new Float32Array(all.buffer, all.byteOffset, all.length / 4);
const size = order.length * candidates * 4;
for (let image = 0; image * size < joints.length; image++) {
  for (const { score, keypoints } of group(joints.subarray(image * size, (image + 1) * size), order, options))
    console.log([image, score, ...keypoints.flat()].join(" "));
}
"""
Group = Callable[[np.ndarray, DecodeConfig], list[Poses]]


def draw_joints(rng: np.random.Generator, scenes: int) -> np.ndarray:
    """What a network with its decoder inside may give: people of some extent, missed, doubled and stray joints.

    In every second scene heats, tags and places are coarse, so that there are ties.
    """
    joints = np.zeros((scenes, len(ORDER), CANDIDATES, 4), np.float32)
    for number, scene in enumerate(joints):
        people = int(rng.integers(0, 12))
        middles, tags = rng.uniform(20, SIDE - 20, (people, 2)), rng.normal(0, 2, people)
        for joint in scene:
            seen = np.flatnonzero(rng.random(people) < 0.85)
            seen = np.concatenate([seen, rng.choice(seen, min(len(seen), 2))]) if rng.random() < 0.3 else seen
            stray = int(rng.integers(0, 4))
            rows = np.zeros((len(seen) + stray, 4))
            rows[: len(seen), :2] = middles[seen] + rng.normal(0, 12, (len(seen), 2))
            rows[: len(seen), 3] = tags[seen] + rng.normal(0, 0.15, len(seen))
            rows[len(seen) :] = rng.uniform((0, 0, 0, -4), (SIDE, SIDE, 0, 4), (stray, 4))
            rows[:, 2] = rng.uniform(0.2, 1, len(rows))
            if number % 2:
                rows = np.round(rows * (0.25, 0.25, 8, 4)) / (0.25, 0.25, 8, 4)
            joint[rng.permutation(CANDIDATES)[: len(rows)]] = rows[np.argsort(-rows[:, 2], kind="stable")]
    return joints


def read_people(lines: str, images: int) -> list[Poses]:
    """People of lines 'image score x y heat …'."""
    rows = [np.array(line.split(), np.float64) for line in lines.splitlines()]
    found = []
    for image in range(images):
        own = [row for row in rows if row[0] == image]
        scores = np.array([row[1] for row in own], np.float32)
        found.append(Poses(np.array([row[2:] for row in own], np.float32).reshape(-1, len(ORDER), 3), scores))
    return found


@pytest.fixture(scope="module", params=[200, pytest.param(1000, marks=pytest.mark.slow)])
def scenes(request: pytest.FixtureRequest) -> list[tuple[DecodeConfig, np.ndarray, list[Poses]]]:
    """A quarter under each config: the joints, and the people that Python finds."""
    parts = np.split(draw_joints(np.random.default_rng(8), request.param), len(CONFIGS))
    return [
        (config, joints, group_joints(joints, ORDER, config, SIDE))
        for config, joints in zip(CONFIGS, parts, strict=True)
    ]


@pytest.fixture(scope="module")
def in_javascript(tmp_path_factory: pytest.TempPathFactory) -> Group:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    folder = tmp_path_factory.mktemp("javascript")
    (folder / "run.mjs").write_text(JAVASCRIPT.replace("GROUPING", (ROOT / "ofa_pose/web/grouping.js").as_uri()))

    def group(joints: np.ndarray, config: DecodeConfig) -> list[Poses]:
        joints.tofile(folder / "joints")
        options = {**config.to_dict(), **({} if config.reach is None else {"reach": config.longest(SIDE)})}
        words = [str(CANDIDATES), json.dumps(options), json.dumps(ORDER)]
        done = subprocess.run([node, folder / "run.mjs", folder / "joints", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return read_people(done.stdout, len(joints))

    return group


@pytest.fixture(scope="module")
def in_cpp(tmp_path_factory: pytest.TempPathFactory) -> Group:
    """The program of docs/in-graph.md."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no compiler of C++")
    folder = tmp_path_factory.mktemp("cpp")
    (block,) = [one for one in blocks("cpp") if one.page.name == "in-graph.md"]
    (folder / "people.cpp").write_text(block.text, encoding="utf-8")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'ofa_pose/native'}"]
    command = [compiler, *flags, folder / "people.cpp", "-o", folder / "people"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr

    def group(joints: np.ndarray, config: DecodeConfig) -> list[Poses]:
        joints.tofile(folder / "joints")
        words = [CANDIDATES, config.tag_threshold, config.longest(SIDE), *ORDER]
        command = [folder / "people", folder / "joints", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        people = read_people(done.stdout, len(joints))
        return [Poses(one.keypoints[: config.max_people], one.scores[: config.max_people]) for one in people]

    return group


@pytest.mark.parametrize("language", ["in_javascript", "in_cpp"])
def test_the_same_people_in_scenes(
    language: str, scenes: list[tuple[DecodeConfig, np.ndarray, list[Poses]]], request: pytest.FixtureRequest
) -> None:
    group: Group = request.getfixturevalue(language)
    people = 0
    for config, joints, expected in scenes:
        for ours, theirs in zip(group(joints, config), expected, strict=True):
            np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)
            np.testing.assert_array_equal(ours.scores, theirs.scores)
            people += len(theirs)
    assert people > 5 * sum(len(joints) for _, joints, _ in scenes)


def test_people_are_found_where_they_stand() -> None:
    people, tags = crowd(np.random.default_rng(1), 4, 17, 320, 256), np.array([-3.0, 0.0, 1.5, 6.0])
    joints = np.zeros((2, 17, CANDIDATES, 4), np.float32)
    joints[1, :, :4] = np.concatenate([people, np.broadcast_to(tags[:, None, None], (4, 17, 1))], axis=2).swapaxes(0, 1)
    nobody, found = group_joints(joints, ORDER, DecodeConfig(), 256)
    assert not len(nobody) and nobody.keypoints.shape == (0, 17, 3)
    best = np.argsort(-people[..., 2].mean(axis=1))
    np.testing.assert_allclose(found.keypoints, people[best], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 16, 30, 4), (1, 17, 30, 3), (17, 30, 4)])
def test_other_joints_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="are not those of 17 joints"):
        group_joints(np.zeros(shape, np.float32), ORDER, DecodeConfig(), SIDE)
