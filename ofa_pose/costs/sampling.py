"""Drawing from the part of a space inside a budget, where that part is too large to list.

Genes are proposed one apart from the other, from probabilities that are tilted towards cheap choices until a good share
of proposals keeps the budget: exponential tilting, as for rare events (Rubinstein and Kroese, Simulation and the Monte
Carlo Method, chapter 5). The probability of every proposal is known, so that the tilt can be weighed out again: to
count what is inside, and to draw from it nearly uniformly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ofa_pose.arch.space import SearchSpace
from ofa_pose.costs.population import Genomes, canonical_rows, present_genes

AFFORDABLE = 0.05  # share of proposals inside the budget from which plain rejection is used
TARGET = 0.3  # share that a tilt aims at; about a half is where counts are most exact
HOPELESS = 0.005  # share below which proposals are repaired instead
EVENED = 0.1  # share of the proposals inside that are kept for the sake of uniformity
ROUNDS = 60
FLATTEST = 25.0  # no choice becomes more than exp(this) times as probable as another of its gene

Excess = Callable[[Genomes], NDArray[np.float64]]  # (N, G) genomes -> (N,): up to 0 is inside the budget


class Independent:
    """Genomes whose genes are drawn on their own: choice c of gene g with probability ∝ exp(logits[g, c])."""

    def __init__(self, space: SearchSpace, top: Sequence[int], logits: NDArray[np.float64]) -> None:
        """`logits`: (G, largest number of choices); only the first top + 1 of a gene count."""
        self.space, self.top, self.logits = space, np.array(top), logits
        left = np.arange(logits.shape[1]) <= self.top[:, None]
        masked = np.where(left, logits, -np.inf)
        shifted = masked - masked.max(axis=1, keepdims=True)
        self._log = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        self._cumulative = np.cumsum(np.exp(self._log), axis=1)[:, :-1]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, G) genomes; not canonical where the depth is elastic."""
        uniform = rng.random((count, len(self.top), 1))
        return np.minimum((uniform > self._cumulative).sum(axis=2), self.top)

    def log_probability(self, genomes: Genomes) -> NDArray[np.float64]:
        """(N,): of drawing what has these canonical forms."""
        each = np.take_along_axis(self._log, np.asarray(genomes).T, axis=1).T
        present = present_genes(self.space, genomes)
        return (each if present is None else np.where(present, each, 0.0)).sum(axis=1)


def uniform_logits(space: SearchSpace, top: Sequence[int]) -> NDArray[np.float64]:
    """Logits with which `Independent` draws every canonical genome up to `top` with the same probability."""
    logits = np.zeros((len(top), max(len(choices) for choices in space.choices)))
    for place, gene in enumerate(space.genes):
        if gene.field == "depth":  # a deeper stage has more subnets
            for index, count in enumerate(gene.choices):
                logits[place, index] = sum(math.log(top[block] + 1) for block in space.block_genes(gene.stage, count))
    return logits


@dataclass(frozen=True)
class Proposals:
    """How to draw from a budget's inside.

    Attributes:
        source: where proposals come from.
        share: the share of proposals inside, on a trial.
        cap: log of the weight from which a proposal inside is always kept; others are kept with probability
            weight / cap, where the weight is one over the probability of proposing it. -inf: all are kept.
    """

    source: Independent
    share: float
    cap: float

    @property
    def hopeless(self) -> bool:
        """Whether proposals have to be repaired: no tilt was found that leads inside."""
        return self.share < HOPELESS

    def kept(self, genomes: Genomes, rng: np.random.Generator) -> NDArray[np.bool_]:
        """(N,): which of the proposals inside are kept, so that what is drawn is evened out."""
        if self.cap == -math.inf:
            return np.ones(len(genomes), bool)
        keep = -self.source.log_probability(genomes) - self.cap
        return np.log(rng.random(len(genomes))) < keep


def find_proposals(
    space: SearchSpace, top: Sequence[int], excess: Excess, rng: np.random.Generator, trials: int, bases: int
) -> Proposals:
    """Uniform proposals if enough of them are inside, else the least tilt with which they are.

    Each round measures what every choice adds to the excess, on average over `bases` proposals, and tilts by as much as
    a normal distribution of the excess would need (at most two standard deviations at once).

    Args:
        trials: proposals by which a tilt is chosen.
    """
    logits = uniform_logits(space, top)
    best: tuple[float, Independent] | None = None
    for number in range(ROUNDS):
        source = Independent(space, top, logits)
        drawn = source.draw(trials, rng)
        over = excess(canonical_rows(space, drawn))
        share = float(np.mean(over <= 0))
        if number == 0 and share >= AFFORDABLE:
            return Proposals(source, share, -math.inf)
        if best is None or share > best[0]:
            best = share, source
        if share >= TARGET:
            break
        spread = max(float(over.std()), 1e-3)
        step = min(float(np.quantile(over, 1.2 * TARGET)), 2 * spread) / spread**2
        added = _added(space, top, excess, drawn[:bases])
        logits = np.maximum(logits - max(step, 0.1 / spread) * added, logits.max(axis=1, keepdims=True) - FLATTEST)
    assert best is not None
    share, source = best
    return Proposals(source, share, _cap(source, excess, rng, trials))


def _added(space: SearchSpace, top: Sequence[int], excess: Excess, drawn: Genomes) -> NDArray[np.float64]:
    """(G, choices): what a choice adds to the excess, compared with the first choice of its gene."""
    places = [(gene, choice) for gene, highest in enumerate(top) if highest for choice in range(highest + 1)]
    changed = np.repeat(drawn[None], len(places), axis=0)
    for row, (gene, choice) in zip(changed, places, strict=True):
        row[:, gene] = choice
    flat = changed.reshape(-1, len(top))
    means = excess(canonical_rows(space, flat)).reshape(len(places), -1).mean(axis=1)
    added = np.zeros((len(top), max(len(choices) for choices in space.choices)))
    for (gene, choice), mean in zip(places, means, strict=True):
        added[gene, choice] = mean
    return added - added[:, :1]


def _cap(source: Independent, excess: Excess, rng: np.random.Generator, trials: int) -> float:
    """The highest cap with which a share of EVENED of the proposals inside is still kept."""
    genomes = canonical_rows(source.space, source.draw(trials, rng))
    inside = genomes[excess(genomes) <= 0]
    weights = np.sort(-source.log_probability(inside))[::-1]
    for cap in weights:
        if np.exp(np.minimum(weights - cap, 0.0)).mean() >= EVENED:
            return float(cap)
    return -math.inf
