"""An algorithm from a notebook: regularised evolution (Real et al., AAAI 2019), given to `ofa_pose.search`.

Then it is compared with random search, on the APs of every subnet of a small space.
"""

from collections import deque

import numpy as np

import ofa_pose
from ofa_pose.arch.space import load_space
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.limits import Budget
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.algorithms import ALGORITHMS
from ofa_pose.searches.candidates import evaluated
from ofa_pose.studies.exhaustive import read_table
from ofa_pose.utils.files import dump_yaml, write_text


def regularised_evolution(feasible, settings, seed, evaluate, prior=(), report=None):
    """The best of a few of the living has a child that differs in one gene; the oldest dies. See `Algorithm`."""
    rng = np.random.default_rng(seed)
    first = feasible.sample_many(settings.population, rng)  # distinct, inside the budget
    living = deque(maxlen=settings.population)  # the oldest falls out
    seen, order = set(first), 0
    for candidate in evaluated(feasible, evaluate, [(genome, "sample") for genome in first], 0, order):
        living.append(candidate)
        order = candidate.order
        yield candidate
    for generation in range(1, settings.generations * settings.population + 1):
        child = new_child(feasible, living, seen, rng)
        if child is None:
            return
        seen.add(child)
        for candidate in evaluated(feasible, evaluate, [(child, "mutation")], generation, order):
            living.append(candidate)
            order = candidate.order
            yield candidate


def new_child(feasible, living, seen, rng, tries=200):
    """A genome inside the budget that nobody has seen; None where none was found."""
    for _ in range(tries):
        few = rng.choice(len(living), size=min(3, len(living)), replace=False)
        genome = list(max((living[i] for i in few), key=lambda candidate: candidate.rank).genome)
        gene = rng.choice(np.flatnonzero(feasible.top))
        genome[gene] = int(rng.integers(feasible.top[gene] + 1))
        child = feasible.space.canonical(genome)
        if child not in seen and feasible.admits(child):
            return child
    return None


def compare(algorithms, table, space, macs, seeds=5, joints=17):
    """The mean over seeds of each algorithm's best AP, of evaluations read from a table.csv: no network is run."""
    known = read_table(table, load_space(space))
    feasible = FeasibleSpace(load_space(space), joints, Budget(macs=macs))
    settings = SearchSettings(population=4, generations=2)

    def evaluate(genomes):
        return ((known[genome]["AP"], 0.0) for genome in genomes)

    def best(algorithm, seed):
        return max(candidate.fitness for candidate in algorithm(feasible, settings, seed, evaluate))

    return {name: np.mean([best(one, seed) for seed in range(seeds)]) for name, one in algorithms.items()}


def make_supernet(out):
    """A tiny supernet after two steps of training, so that this script takes seconds."""
    space = {"name": "tiny", "resolution": [32, 64], "stem": [4, 8], "stages": [[4, 8]] * 2 + [[8]] * 2}
    space |= {"deconv": [[4, 8]] * 2 + [[8]], "expansion": [2], "blocks": [1, 1, 1, 1], "kernel": 3}
    write_text("tiny.yaml", dump_yaml(space))
    sources = {}
    for split, seed in (("train", 1), ("val", 2)):
        drawn = ofa_pose.data_synth(split, images=12, size=64, seed=seed, workers=1)
        sources[split] = {"annotations": str(drawn.annotations), "images": str(drawn.images)}
    train = {"steps": 2, "batch": 2, "workers": 0, "evaluate_every": 2, "evaluate_images": 2}
    search = {"population": 4, "generations": 2, "images": 2, "calibration_images": 2}
    data = {**sources, "search_share": 0.25}
    write_text("tiny-recipe.yaml", dump_yaml({"space": "tiny.yaml", "data": data, "train": train, "search": search}))
    ofa_pose.train_supernet(recipe="tiny-recipe.yaml", out=out, device="cpu")


make_supernet("supernet")
options = {"macs": "4.5M", "device": "cpu", "algorithm": regularised_evolution}
found = ofa_pose.search("supernet", out="search", **options)

assert found.evaluations == 12  # 4 to begin with, and 2 times 4 children
assert found.algorithm.endswith("regularised_evolution")
assert found.best.spec.resolution in (32, 64) and found.to_dict()["best"]["macs"]["thop"] <= 4.5e6
again = ofa_pose.search("supernet", out="again", archive="search", **options)
assert again.judged == 0 and again.best == found.best  # the same seed asks for the same subnets

table = ofa_pose.table("supernet", out="table", device="cpu")
algorithms = {"regularised": regularised_evolution, "random": ALGORITHMS["random"]}
found = compare(algorithms, table.table, "tiny.yaml", 4_500_000, seeds=2)
assert found.keys() == algorithms.keys() and all(0 <= ap <= table.best["AP"] for ap in found.values())
print("a search with an algorithm of its own, compared with another")
