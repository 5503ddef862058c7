"""How well decoders do on oracle outputs: by refinement, by condition, and against what was put into the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import numpy as np

from ofa_pose.pose.decode import Poses, decode
from ofa_pose.pose.litepose_decode import decode_litepose
from ofa_pose.pose.metrics import to_results
from ofa_pose.utils.console import progress
from tests.bench.oracle import Maker, Output, Truth
from tests.bench.refinements import WAYS

FIRST_SEED = 1000  # an image's outputs are drawn from this and its id
Decoder = Callable[..., list[Poses]]
Results = list[dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """Crowds and the maker of their outputs, with its settings."""

    name: str
    truth: Truth
    maker: Maker
    settings: Mapping[str, Any] = field(default_factory=dict)
    first_seed: int = FIRST_SEED

    def take(self, count: int) -> Source:
        """The first images only."""
        return replace(self, truth=self.truth.take(slice(count)))

    def outputs(self, what: str) -> Iterator[tuple[Mapping[str, Any], Output]]:
        """Each image's record and its outputs, made as they are asked for."""
        with progress(what, len(self.truth.images)) as meter:
            for image in self.truth.images:
                people = self.truth.people[image["id"]]
                yield image, self.maker(image, people, self.first_seed + _number(image["id"]), **self.settings)
                meter.step()

    def results(self, decoder: Decoder, image: Mapping[str, Any], output: Output) -> Results:
        """An image's poses by a decoder, in image pixels, as results entries."""
        (poses,) = decoder(output.low[None], output.high[None], self.truth.skeleton.grouping_order)
        return to_results(image["id"], output.frame.poses_to_image(poses.keypoints), poses.scores)


@dataclass(frozen=True)
class Condition:
    """A source under another condition."""

    name: str
    source: Source


def _number(image_id: int | str) -> int:
    return image_id if isinstance(image_id, int) else int.from_bytes(image_id.encode()[:6], "little")


def by_refinement(source: Source) -> dict[str, float | None]:
    """AP of our decoder with each way to place its peaks."""
    results: dict[str, Results] = {name: [] for name in WAYS}
    for image, output in source.outputs("refinements"):
        for name, way in WAYS.items():
            with mock.patch("ofa_pose.pose.decode.place", way):
                results[name] += source.results(decode, image, output)
    return {name: source.truth.score(several) for name, several in results.items()}


def limits(source: Source) -> dict[str, float | None]:
    """AP of decoders that know what was put into the outputs: nothing read from them can be expected to do better."""
    exact: Results = []
    filled: Results = []
    for image, output in source.outputs("limits"):
        truth = source.truth.people[image["id"]]
        there = output.placed[..., 2] > 0
        known = output.placed.astype(np.float32)
        whole = output.frame.poses_to_image(known)
        scores = output.placed[..., 2].mean(axis=1)
        exact += to_results(image["id"], whole, scores)
        missed = ~there & (truth[..., 2] > 0)
        whole = whole.copy()
        whole[missed, :2] = truth[missed, :2]
        filled += to_results(image["id"], whole, scores)
    return {
        "every placed peak, exactly": source.truth.score(exact),
        "and every missed joint at its true place": source.truth.score(filled),
    }


def by_condition(conditions: list[Condition]) -> list[dict[str, Any]]:
    """AP of our decoder and of the reference's under each condition."""
    rows = []
    for condition in conditions:
        source = condition.source
        ours: Results = []
        reference: Results = []
        for image, output in source.outputs(condition.name):
            ours += source.results(decode, image, output)
            reference += source.results(decode_litepose, image, output)
        ap = {"ours": source.truth.score(ours), "reference": source.truth.score(reference)}
        rows.append({"condition": condition.name, "images": len(source.truth.images), **ap})
    return rows


def make_conditions(source: Source, images: int, more: Source | None) -> list[Condition]:
    """Other tags and other seeds on the first images of the source, and another source as a whole."""
    base = source.take(images)
    found = [Condition("as it is", base)]
    for key, values in {"tag_step": (1.2, 3.0), "tag_offset": (-20.0, 50.0)}.items():
        found += [Condition(f"{key} {v:g}", replace(base, settings={**base.settings, key: v})) for v in values]
    found += [Condition(f"seeds from {seed}", replace(base, first_seed=seed)) for seed in (2000, 3000)]
    return found + ([Condition(more.name, more)] if more else [])
