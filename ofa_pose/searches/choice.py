"""The final choice of a search: the fittest subnet, or a cheaper one that the search images cannot tell from it.

This is the one-standard-error rule (Breiman et al., 1984) with the error of the difference: both subnets are evaluated
on the same images, so most of what makes an AP uncertain is common to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.pose.bootstrap import doubts, paired_error, shown_difference, standard_error
from ofa_pose.searches.candidates import Candidate
from ofa_pose.searches.results import costs_of, pareto_front

Draws = Callable[[Genome], np.ndarray | None]
"""A subnet's APs on draws of the search images, see `pose.bootstrap`; None where they are not known."""


@dataclass(frozen=True)
class Choice:
    """What a search takes.

    Attributes:
        chosen, fittest: the same where no cheaper one is within noise of the fittest.
        difference: of their APs.
        error: the standard error of the difference; None where both are the same.
        saving: the share of the fittest one's cost that the chosen one saves.
        rank: of the chosen one on the front, 1 for the best AP.
    """

    chosen: Candidate
    fittest: Candidate
    difference: float = 0.0
    error: float | None = None
    saving: float = 0.0
    rank: int = 1


def choose(history: Sequence[Candidate], feasible: FeasibleSpace, draws: Draws, prefer_cheaper: bool) -> Choice:
    """The cheapest member of the front whose AP is at most one paired standard error below the highest.

    The cost is what the budget's first limit limits. Without `prefer_cheaper`, or where the errors are not known, it is
    the fittest candidate; the cheapest, where the AP of all is 0.
    """
    fittest = max(history, key=lambda candidate: candidate.rank)
    valid = [candidate for candidate in history if candidate.is_valid]
    costs = costs_of(feasible, valid)
    if valid and fittest.fitness <= 0:
        fittest = valid[int(np.argmin(costs))]
        return Choice(fittest, fittest)
    if not prefer_cheaper or (best := draws(fittest.genome)) is None:
        return Choice(fittest, fittest)
    limit = costs_of(feasible, [fittest])[0]
    front = pareto_front([(cost, c.fitness) for cost, c in zip(costs, valid, strict=True)])
    for place, index in enumerate(front):
        candidate, difference = valid[index], fittest.fitness - valid[index].fitness
        if costs[index] >= limit:
            continue
        error = paired_error(best, draws(candidate.genome))
        if error is not None and difference <= error:
            return Choice(candidate, fittest, difference, error, 1 - costs[index] / limit, len(front) - place)
    return Choice(fittest, fittest)


def choice_notes(
    choice: Choice, history: Sequence[Candidate], feasible: FeasibleSpace, draws: Draws, people: int | None
) -> list[str]:
    """What is to be said of a search's choice, a sentence each.

    They say whether a cheaper subnet was preferred, whether the search images can tell the candidates apart, and
    whether they show too few people.

    Args:
        draws: only of what is known; nothing is evaluated for a note.
        people: how many on the search images an AP is taken of.
    """
    notes, fittest, known = [], choice.fittest, draws(choice.fittest.genome)
    if choice.error is not None:
        quantity = feasible.budget.limits[0].quantity.removeprefix("of ")
        chosen, best = (f"{c.fitness:.3f}" for c in (choice.chosen, fittest))
        apart = shown_difference(fittest.fitness, choice.chosen.fitness)
        notes.append(
            f"front/{choice.rank:03} is within noise of the best, front/001, and costs {choice.saving:.0%} less "
            f"{quantity}, so it is chosen: AP {chosen} and {best}, which differ by {apart:.3f} ± "
            f"{choice.error:.3f}; search.prefer_cheaper=false takes the best"
        )
    valid = [candidate for candidate in history if candidate.is_valid]
    errors = [(fittest.fitness - c.fitness, paired_error(known, draws(c.genome))) for c in valid]
    near = [difference <= one for difference, one in errors if one is not None]
    doubt = doubts(people, standard_error(known), [c.fitness for c in valid], near)
    return [*notes, doubt] if doubt else notes
