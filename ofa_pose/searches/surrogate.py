"""An accuracy predictor that chooses which offspring are evaluated.

Once-for-All (Cai et al., ICLR 2020) searches with a predictor that was trained beforehand. This one learns while the
search runs, from what was evaluated: a Gaussian process over the genome and its costs (scikit-learn's). It is checked
on APs that it has not seen, and stands aside while it is poor.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ofa_pose.arch.space import Genome
from ofa_pose.costs.feasible import FeasibleSpace
from ofa_pose.recipe import SearchSettings
from ofa_pose.searches.candidates import Candidate
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.ranking import kendall, spearman

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Kernel

MOST_SAMPLES = 500  # the time that a Gaussian process takes goes with the cube of their number
FOLDS = 5
REFIT = 0.2  # share of the samples that is new before the kernel is fitted again
FEWEST_RANKED = 3  # below that a rank correlation says nothing


@dataclass(frozen=True)
class Prediction:
    """APs of N genomes as a surrogate predicts them, with their standard deviations; (N,) each."""

    mean: np.ndarray
    deviation: np.ndarray


class Screening:
    """The surrogate of one search."""

    def __init__(
        self, feasible: FeasibleSpace, settings: SearchSettings, prior: Sequence[tuple[Genome, float]] = ()
    ) -> None:
        """`prior`: APs from other searches, to learn from at once.

        Raises:
            InputError: scikit-learn is not installed.
        """
        _check_installed()
        self._feasible, self._settings = feasible, settings
        self._tops = np.array([len(choices) - 1 for choices in feasible.space.choices])
        self._inputs = np.zeros((0, np.count_nonzero(self._tops) + len(feasible.budget.limits)))
        self._aps = np.zeros(0)
        self._model: GaussianProcessRegressor | None = None
        self._learnt = self._fitted_on = 0  # samples in all, now and when the kernel was fitted
        self._tau: float | None = None
        self._spearman: float | None = None
        self._chose, self._tried = False, list[tuple[float, float]]()  # since the last report
        if prior:
            self._add([genome for genome, _ in prior], [ap for _, ap in prior])

    @property
    def trusted(self) -> bool:
        """Whether its held-out predictions are good enough to go by."""
        return self._tau is not None and self._tau >= self._settings.surrogate_tau

    def predict(self, genomes: Sequence[Genome]) -> Prediction:
        """What it predicts of some genomes; it must have learnt enough for a model."""
        assert self._model is not None
        with _one_thread():
            return Prediction(*self._model.predict(self._encoded(genomes), return_std=True))

    def learn(self, candidates: Sequence[Candidate]) -> None:
        """Take in candidates that were evaluated."""
        self._chose |= self.trusted
        valid = [candidate for candidate in candidates if candidate.is_valid]
        if self._model is not None and valid:
            predicted = self.predict([c.genome for c in valid]).mean
            self._tried += zip(predicted, (c.fitness for c in valid), strict=True)
        self._add([c.genome for c in candidates], [c.fitness for c in candidates])

    def report(self) -> dict[str, Any]:
        """How good it is and has been since the last report.

        Returns:
            {"surrogate": whether it was trusted with a choice, "surrogate_samples": what it has now learnt from,
            "surrogate_tau" and "surrogate_spearman": rank correlations of held-out APs by five-fold cross-validation,
            when the kernel was fitted last, "surrogate_tau_new": Kendall's of the candidates that it has learnt since
            the last report, predicted before they were evaluated, which is lower because they were chosen to be good};
            None for what is not known.
        """
        new = kendall(*np.array(self._tried).reshape(-1, 2).T) if len(self._tried) >= FEWEST_RANKED else None
        used, self._chose, self._tried = self._chose, False, []
        figures = {"surrogate_tau": self._tau, "surrogate_spearman": self._spearman, "surrogate_tau_new": new}
        shown = {key: None if value is None else round(value, 4) for key, value in figures.items()}
        return {"surrogate": used, "surrogate_samples": len(self._aps), **shown}

    def _add(self, genomes: Sequence[Genome], aps: Sequence[float]) -> None:
        self._inputs = np.concatenate([self._inputs, self._encoded(genomes)])[-MOST_SAMPLES:]
        self._aps = np.append(self._aps, aps)[-MOST_SAMPLES:]
        self._learnt += len(aps)
        valid = np.isfinite(self._aps)
        if np.count_nonzero(valid) < self._settings.surrogate_samples:
            return
        # What gave no number is to be avoided, so it is taken for as bad as the worst.
        targets = np.where(valid, self._aps, self._aps[valid].min())
        if np.ptp(targets) == 0:
            return
        with _one_thread():
            # A kernel serves for some time: to fit one takes a hundred times as long as to use it.
            kernel = self._model.kernel_ if self._model is not None else None
            if kernel is None or self._learnt - self._fitted_on >= REFIT * min(self._fitted_on, MOST_SAMPLES):
                self._fitted_on = self._learnt
                self._model = _fitted(self._inputs, targets, kernel if self.trusted else None)
                predicted = _held_out(self._inputs, targets)
                self._tau, self._spearman = kendall(predicted, targets), spearman(predicted, targets)
            else:
                self._model = _model(kernel, optimizer=None).fit(self._inputs, targets)

    def _encoded(self, genomes: Sequence[Genome]) -> np.ndarray:
        """(N, elastic genes + limits): each gene as the share of its highest choice, the log of each cost."""
        rows, elastic = np.array(genomes), self._tops > 0
        costs, limits = self._feasible.costs(rows), self._feasible.budget.limits
        logs = [np.log(costs[limit.key] / limit.maximum) for limit in limits]
        return np.column_stack([rows[:, elastic] / self._tops[elastic], *logs])


def _held_out(inputs: np.ndarray, aps: np.ndarray) -> np.ndarray:
    """Each AP as predicted by a model that has learnt four fifths without it.

    Its kernel included: with one that was fitted on all, noise seems predicted in three of four cases.
    """
    fold, predicted = np.arange(len(aps)) % FOLDS, np.zeros(len(aps))
    for held in range(FOLDS):
        predicted[fold == held] = _fitted(inputs[fold != held], aps[fold != held]).predict(inputs[fold == held])
    return predicted


def _fitted(inputs: np.ndarray, aps: np.ndarray, start: Kernel | None = None) -> GaussianProcessRegressor:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    # Smooth over shares of 0 to 1 and logs of costs, each with a length of its own, plus the error of each
    # measurement; bounds in the same units.
    lengths = RBF(np.full(inputs.shape[1], 1.5), (0.3, 20.0))
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * lengths + WhiteKernel(1e-2, (1e-5, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound was reached, which does no harm
        return _model(start or kernel).fit(inputs, aps)


def _model(kernel: Kernel, **options: Any) -> GaussianProcessRegressor:
    from sklearn.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor(kernel, normalize_y=True, **options)


def _one_thread() -> Any:
    """So that sums, and with them the search, do not depend on the number of threads."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1)


def _check_installed() -> None:
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise InputError(
            "search.surrogate needs scikit-learn",
            hint="pip install -c constraints.txt -e '.[surrogate]', or set search.surrogate=false",
        ) from None
