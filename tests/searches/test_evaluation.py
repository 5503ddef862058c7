from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ofa_pose.arch.presets import load_spec
from ofa_pose.arch.space import SearchSpace
from ofa_pose.backends.torch_net import TorchRunner
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.data.keypoint_dataset import KeypointDataset
from ofa_pose.inference.evaluate import Evaluation, evaluate, read_inputs
from ofa_pose.models.elastic import Supernet, extract
from ofa_pose.models.litepose import LitePose
from ofa_pose.models.recalibrate import calibration_batches, recalibrate
from ofa_pose.pose import bootstrap
from ofa_pose.recipe import Recipe, SearchSettings
from ofa_pose.searches import evaluation as fitness_module
from ofa_pose.searches.evaluation import SubnetEvaluator
from ofa_pose.searches.job import SearchJob
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.files import read_yaml, sha256
from tests.networks import randomised

SETTINGS = SearchSettings(population=3, generations=1, images=4, calibration_images=3, batch=2)


@pytest.fixture
def supernet(tiny_space: SearchSpace) -> Supernet:
    """With outputs large enough to find (wrong) people everywhere."""
    return randomised(Supernet(tiny_space, joints=14, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def parts(tiny_dataset: KeypointDataset) -> tuple[KeypointDataset, KeypointDataset]:
    """Four training and four search images."""
    return tiny_dataset.select(range(4)), tiny_dataset.select(range(4, 8))


def test_a_subnet_is_extracted_recalibrated_and_evaluated(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset]
) -> None:
    train, search = parts
    fitness = SubnetEvaluator(supernet, train, search, SETTINGS, make_runner=TorchRunner)
    for genome in ([0] * 15, [1] * 15, [1, 0, 1, 2, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 1]):
        spec = supernet.space.decode(genome, 14)
        net = extract(supernet, spec)
        stale = evaluate(TorchRunner(net), search, read_inputs(search, spec.resolution, 2)).results.entries()
        recalibrate(net, calibration_batches(train, spec.resolution, 3, torch.device("cpu")))
        expected = evaluate(TorchRunner(net), search, read_inputs(search, spec.resolution, 2))
        found = fitness.evaluate(spec)
        assert len(found.results) > 4
        assert found.results.entries() == expected.results.entries() != stale
        assert found.metrics == expected.metrics
        assert fitness(tuple(genome)) == (expected.metrics["AP"] or 0.0)


def test_images_with_people_are_searched_and_a_basis_says_where_that_differs(
    supernet: Supernet, tiny_dataset: KeypointDataset
) -> None:
    """What an earlier version measured on other images is not taken for the same."""
    settings = SETTINGS.model_copy(update={"images": 2})
    full = SubnetEvaluator(supernet, tiny_dataset, tiny_dataset, settings)
    assert "choice" not in full.basis(None)
    taken = {record.id for record in full.images.images}
    images = [replace(record, counted=0) if record.id in taken else record for record in tiny_dataset.images]
    partly = SubnetEvaluator(supernet, tiny_dataset, replace(tiny_dataset, images=tuple(images)), settings)
    assert taken.isdisjoint(record.id for record in partly.images.images) and len(partly.images) == 2
    assert partly.basis(None) == {**full.basis(None), "choice": "people"}


def test_evaluating_depends_on_nothing_evaluated_before(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    largest, smallest = supernet.space.largest(14), supernet.space.smallest(14)
    fitness = SubnetEvaluator(supernet, *parts, SETTINGS)
    once = [fitness.evaluate(spec).results.entries() for spec in (largest, smallest, largest.at(32))]
    again = [fitness.evaluate(spec).results.entries() for spec in (largest.at(32), smallest, largest)]
    assert once == again[::-1]
    assert all(torch.equal(before[name], value) for name, value in supernet.state_dict().items())
    monkeypatch.setattr(fitness_module, "CACHE_BYTES", 1)
    forgetful = SubnetEvaluator(supernet, *parts, SETTINGS)
    assert [forgetful.evaluate(spec).results.entries() for spec in (largest, smallest, largest.at(32))] == once


@pytest.mark.parametrize("onnx", [True, False])
def test_evaluating_does_not_depend_on_the_number_of_threads(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset], monkeypatch: pytest.MonkeyPatch, onnx: bool
) -> None:
    """Sums that threads share differ in their last bits, and with them an AP now and then."""
    spec = supernet.space.largest(14)
    found, states = [], []
    watched = fitness_module.recalibrate

    def seen(net: LitePose, batches: Any, streams: int) -> None:
        watched(net, batches, streams)
        states.append({name: value.clone() for name, value in net.state_dict().items()})

    monkeypatch.setattr(fitness_module, "recalibrate", seen)
    monkeypatch.setattr("ofa_pose.models.recalibrate.CALIBRATION_BATCH", 1)
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            fitness = SubnetEvaluator(supernet, *parts, SETTINGS)
            fitness._make_runner._use_onnx &= onnx  # type: ignore[attr-defined]
            result = fitness.evaluate(spec)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
        found.append((result.results.entries(), result.metrics))
    assert found[0] == found[1] and found[0][0]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    measured = fitness.measure(supernet.space.encode(spec))
    assert len(measured.pop(fitness_module.DRAWS)) == bootstrap.DRAWS
    assert measured == found[0][1]


def test_another_runtime_may_compute_the_recalibrated_subnets(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset]
) -> None:
    spec = supernet.space.largest(14)
    expected = SubnetEvaluator(supernet, *parts, SETTINGS, make_runner=TorchRunner).evaluate(spec).results.entries()
    shapes = []

    class Watched(TorchRunner):
        def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            shapes.append(images.shape)
            return super().__call__(images)

    found = SubnetEvaluator(supernet, *parts, SETTINGS, make_runner=Watched).evaluate(spec).results.entries()
    assert found == expected and shapes == [(2, 64, 64, 3)] * 2


def test_images_are_read_once_for_each_resolution_unless_memory_is_short(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def counted(dataset: KeypointDataset, resolution: int, batch: int = 16) -> Any:
        read.append(resolution)
        return read_inputs(dataset, resolution, batch)

    monkeypatch.setattr(fitness_module, "read_inputs", counted)
    specs = [supernet.space.smallest(14).at(side) for side in (32, 64, 32, 64)]
    fitness = SubnetEvaluator(supernet, *parts, SETTINGS)
    for spec in specs:
        fitness.evaluate(spec)
    assert read == [32, 64]
    monkeypatch.setattr(fitness_module, "CACHE_BYTES", 60_000)  # one resolution at a time
    fitness = SubnetEvaluator(supernet, *parts, SETTINGS)
    for spec in [*specs, specs[-1]]:
        fitness.evaluate(spec)
    assert read == [32, 64] + [32, 64, 32, 64]


def test_the_images_are_a_fixed_choice_from_the_whole_split(
    supernet: Supernet, tiny_dataset: KeypointDataset, parts: tuple[KeypointDataset, KeypointDataset]
) -> None:
    chosen = [SubnetEvaluator(supernet, parts[0], tiny_dataset, SETTINGS).images for _ in range(2)]
    ids = [[image.id for image in images.images] for images in chosen]
    assert ids[0] == ids[1] and len(ids[0]) == 4
    assert ids[0] != [image.id for image in tiny_dataset.images[:4]]
    every = SubnetEvaluator(supernet, parts[0], tiny_dataset, SETTINGS.model_copy(update={"images": 99})).images
    assert len(every) == 8


@pytest.mark.parametrize(("ap", "counts"), [(0.375, 0.375), (None, 0.0), (float("nan"), 0.0), (float("inf"), 0.0)])
def test_the_fitness_is_the_ap_and_zero_where_that_is_no_number(
    supernet: Supernet,
    parts: tuple[KeypointDataset, KeypointDataset],
    monkeypatch: pytest.MonkeyPatch,
    ap: Any,
    counts: float,
) -> None:
    monkeypatch.setattr(
        fitness_module, "evaluate", lambda *args: Evaluation({"AP": ap}, [], 4, {"network": 1.0, "read": 0.0})
    )
    assert SubnetEvaluator(supernet, *parts, SETTINGS)((0,) * 15) == counts


def test_nets_that_give_no_numbers_count_as_zero(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset]
) -> None:
    with torch.no_grad():
        next(supernet.parameters()).fill_(float("nan"))
    assert SubnetEvaluator(supernet, *parts, SETTINGS)((0,) * 15) == 0.0


def test_wrong_data_are_refused(supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset]) -> None:
    train, search = parts
    other = Supernet(supernet.space, joints=17)
    with pytest.raises(InputError, match="14 joints, the supernet 17"):
        SubnetEvaluator(other, train, search, SETTINGS)
    nobody = tuple(replace(image, keypoints=np.zeros((0, 14, 3), np.float32)) for image in search.images)
    with pytest.raises(InputError, match="none of the 4 images to evaluate has a labelled person"):
        SubnetEvaluator(supernet, train, replace(search, images=nobody), SETTINGS)


def test_a_search_over_a_real_supernet(
    supernet: Supernet, parts: tuple[KeypointDataset, KeypointDataset], tmp_path: Path
) -> None:
    source = tmp_path / "supernet.pt"
    torch.save(supernet.state_dict(), source)
    out = tmp_path / "out"
    space = supernet.space
    counted = Budget(macs=1)
    macs = (counted.macs_of(space.smallest(14)) + counted.macs_of(space.largest(14))) // 2
    feasible = FeasibleSpace(space, 14, Budget(macs=macs))

    def job(settings: SearchSettings = SETTINGS) -> SearchJob:
        evaluator = SubnetEvaluator(supernet, *parts, settings)
        origin = {"supernet": {"path": str(source), "sha256": sha256(source)}}
        return SearchJob(feasible, evaluator.measure, Recipe(search=settings), evaluator.basis(sha256(source)), origin)

    result = job().run(out)
    assert result.evaluations == 6
    spec = load_spec(out / "best.yaml")
    assert spec.joints == 14 and counted.macs_of(spec) <= macs
    assert isinstance(extract(supernet, spec), LitePose)
    best = read_yaml(out / "best.yaml")
    assert best["supernet"] == {"path": str(source), "sha256": sha256(source)}
    with (out / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 and all(0 <= float(row["AP"]) <= 1 and float(row["seconds"]) > 0 for row in rows)
    fitness = SubnetEvaluator(supernet, *parts, SETTINGS)
    assert [float(row["AP"]) for row in rows] == [fitness(tuple(map(int, row["genome"].split("-")))) for row in rows]
    resumed = job().run(out, resume=True)
    assert resumed.best == result.best
    with pytest.raises(InputError, match="another search"):
        job(SETTINGS.model_copy(update={"images": 2})).run(out, resume=True)
