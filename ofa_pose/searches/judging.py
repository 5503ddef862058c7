"""Judging: what the archive knows is looked up; the rest is measured, here or by all ranks, and written at once."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.costs.macs import spec_macs, spec_params
from ofa_pose.costs.subnet_rows import genome_text
from ofa_pose.searches.archive import Archive, Evaluation
from ofa_pose.searches.candidates import FitnessOutcome
from ofa_pose.searches.distributed import KEPT, Team
from ofa_pose.utils.console import warn
from ofa_pose.utils.errors import InputError, OfaPoseError

Measure = Callable[[Genome], Mapping[str, Any]]
"""The metrics of a subnet, JSON values; 'AP', the higher the better, is what counts."""


class ArchivedJudge:
    """A `Judge` that asks for nothing twice.

    Attributes:
        judged: how many subnets were measured; the others came out of the archive.
        task: what every rank of the team must be at.
    """

    def __init__(
        self, part: FeasibleSpace, measure: Measure, archive: Archive, seed: int, team: Team | None = None
    ) -> None:
        """
        Args:
            seed: of the search that asks; the archive names it.
            team: shares the work, inside `team.lead(judge.task)`.
        """
        self._part, self._archive, self._seed, self._team = part, archive, seed, team
        self.task = task_of(part, measure)
        self.judged = 0

    def __call__(self, genomes: Sequence[Genome]) -> Iterator[FitnessOutcome]:
        """Fitness and seconds of each genome, in this order; see `candidates.Judge`.

        Raises:
            OfaPoseError: a subnet could not be judged; what was judged before is in the archive.
        """
        known = self._archive.outcomes(genomes)
        with closing(self._measured([genome for genome in genomes if genome not in known])) as coming:
            for genome in genomes:
                while genome not in known:
                    measured = next(coming)
                    self._archive.put(measured, self._seed)
                    self.judged += 1
                    known[measured.genome] = measured.outcome
                yield known[genome]

    def _measured(self, genomes: list[Genome]) -> Generator[Evaluation, None, None]:
        if self._team is None:
            for genome in genomes:
                yield self._evaluation(genome, self.task(list(genome)))
        elif genomes:
            # The dearest first: a rank that takes a large one last would keep the others waiting.
            dearest = sorted(genomes, key=self._part.macs, reverse=True)
            for place, result in self._team.share([list(genome) for genome in dearest]):
                yield self._evaluation(dearest[place], result)

    def _evaluation(self, genome: Genome, result: Mapping[str, Any]) -> Evaluation:
        spec, metrics = self._part.decode(genome), result["metrics"]
        ap = metrics["AP"]
        if ap is None or not math.isfinite(ap):
            ap = None
            subnet = f"subnet {genome_text(genome)}, {_shown(spec.to_dict())},"
            warn(f"{subnet} gave no AP that is a number; it ranks below all")
        predict_ms = self._part.budget.predict_ms
        macs = {f"macs_{convention}": count for convention, count in spec_macs(spec).to_dict().items()}
        costs = {**macs, "params": spec_params(spec), "latency_ms": predict_ms(spec) if predict_ms else None}
        return Evaluation(genome, spec.to_dict(), costs, metrics, ap, result["seconds"])


def task_of(part: FeasibleSpace, measure: Measure) -> Callable[[Any], dict[str, Any]]:
    """What any rank does for one genome (a list): its metrics and the seconds that took, as JSON values.

    The function raises OfaPoseError, which names the subnet, where `measure` fails; InputErrors it lets through.
    """

    def task(genes: Any) -> dict[str, Any]:
        genome = tuple(genes)
        start = time.perf_counter()
        try:
            metrics = dict(measure(genome))
        except InputError:
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            subnet = f"subnet {genome_text(genome)}, {_shown(part.decode(genome).to_dict())},"
            raise OfaPoseError(f"{subnet} could not be judged ({cause}); {KEPT}") from error
        return {"metrics": metrics, "seconds": round(time.perf_counter() - start, 4)}

    return task


def _shown(spec: Mapping[str, Any]) -> str:
    return json.dumps(spec, separators=(",", ":"))
