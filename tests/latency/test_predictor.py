"""The predictor: populations against single networks, the correction, and what the table cannot tell."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofa_pose.arch.plan import make_plan
from ofa_pose.arch.space import SearchSpace, load_space
from ofa_pose.latency.pieces import plan_pieces
from ofa_pose.latency.predictor import Predictor, load_predictor
from ofa_pose.utils.errors import InputError
from tests.costs.test_population import any_genomes, small_spaces
from tests.latency.tables import few_networks, make_table, net_ms, piece_ms

ROOT = Path(__file__).resolve().parent.parent.parent


@settings(max_examples=25)
@given(small_spaces(), st.integers(1, 20), st.sampled_from([0.3, 1.0]), st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_a_population_is_predicted_as_each_of_its_networks(
    space: SearchSpace, joints: int, share: float, seed: int
) -> None:
    genomes = any_genomes(space, 12, seed)
    one, many = (Predictor(make_table(space, joints, share=share)) for _ in range(2))
    found = many.predict_many(space, joints, np.array(genomes))
    assert found.dtype == np.float64 and found.shape == (12,)
    assert found.tolist() == [one.predict_ms(space.decode(genome, joints)) for genome in genomes]


@pytest.mark.parametrize("name", ["litepose", "litepose-per-block", "litepose-depth"])
def test_shipped_spaces_are_predicted(name: str) -> None:
    space = load_space(name)
    predictor = Predictor(make_table(space, 17))
    genomes = any_genomes(space, 50, seed=1)
    found = predictor.predict_many(space, 17, np.array(genomes))
    expected = [net_ms(space.decode(genome, 17)) for genome in genomes]
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_correction_is_found(tiny_space: SearchSpace) -> None:
    predictor = Predictor(make_table(tiny_space))
    assert predictor.correction[:2] == pytest.approx((1.2, 0.9))
    assert predictor.correction[2] == pytest.approx(-0.004)


def test_with_too_few_whole_networks_the_pieces_are_summed(tiny_space: SearchSpace) -> None:
    space = few_networks(tiny_space)
    predictor, spec = Predictor(make_table(space)), space.largest(14)
    assert predictor.predict_ms(spec) == pytest.approx(sum(map(piece_ms, plan_pieces(make_plan(spec)))))


def test_no_factor_is_negative(tiny_space: SearchSpace) -> None:
    table = make_table(tiny_space)
    for spec in table.nets:  # the whole is the less, the more its head takes
        head = sum(piece_ms(p) for p in plan_pieces(make_plan(spec)) if p.kind in ("deconv", "output"))
        table.ratios[spec] = [1 / (1 + head)]
    predictor = Predictor(table)
    assert min(predictor.correction[:2]) >= 0
    assert all(predictor.predict_ms(spec) > 0 for spec in table.nets)


def test_other_joints_and_resolutions_are_refused(tiny_space: SearchSpace, tmp_path: Path) -> None:
    table = make_table(tiny_space)
    table.save(tmp_path / "table.json")
    predictor = load_predictor(tmp_path / "table.json")
    spec = tiny_space.largest(14)
    for other in (spec.with_joints(17), spec.at(96)):
        with pytest.raises(InputError, match="does not cover") as error:
            predictor.predict_ms(other)
        assert "table.json" in str(error.value)
    with pytest.raises(InputError, match="does not cover"):
        predictor.predict_many(tiny_space, 17, np.zeros((3, len(tiny_space.choices)), int))


def test_a_narrower_space_than_the_tables_is_predicted(tiny_space: SearchSpace) -> None:
    predictor = Predictor(make_table(tiny_space))
    inner = replace(tiny_space, name="inner", stem=(5, 6), stages=((5, 8), (5, 6), (9, 11), (9, 12)))
    found = predictor.predict_many(inner, 14, np.array(any_genomes(inner, 20, 0)))
    assert np.isfinite(found).all() and (found > 0).all()


def test_what_a_table_covers_is_reported_before_a_search(tiny_space: SearchSpace) -> None:
    predictor = Predictor(make_table(tiny_space, share=0.5))
    interpolated, pieces = predictor.check_covers(tiny_space, 14)
    assert 0 < interpolated < pieces
    assert Predictor(make_table(tiny_space)).check_covers(tiny_space, 14) == (0, pieces)
    predictor.check_covers(replace(tiny_space, resolution=(64,), stem=(6,)), 14)
    with pytest.raises(InputError, match="--joints 17"):
        predictor.check_covers(tiny_space, 17)
    for other in (replace(tiny_space, resolution=(64, 96)), replace(tiny_space, stem=(4, 16))):
        told = f"of space '{tiny_space.name}' does not cover space 'other': it lacks the piece '"
        with pytest.raises(InputError, match=told):
            predictor.check_covers(replace(other, name="other"), 14)


def test_an_empty_population(tiny_space: SearchSpace) -> None:
    genomes = np.zeros((0, len(tiny_space.choices)), int)
    assert Predictor(make_table(tiny_space)).predict_many(tiny_space, 14, genomes).shape == (0,)


def test_foretelling_needs_no_torch(tiny_space: SearchSpace, tmp_path: Path) -> None:
    make_table(tiny_space).save(tmp_path / "table.json")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np\n"
        "from ofa_pose.latency.predictor import load_predictor\n"
        "from ofa_pose.latency.latency_table import LatencyTable\n"
        f"path = {str(tmp_path / 'table.json')!r}\n"
        "space = LatencyTable.load(path).header.space\n"
        "print(load_predictor(path).predict_many(space, 14, np.zeros((2, len(space.choices)), int)).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().startswith("[")
