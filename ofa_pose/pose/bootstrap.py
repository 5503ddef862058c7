"""The standard error of an AP: the same detections, evaluated on images drawn with replacement, again and again.

Detections are matched with people once, image by image; only precision and recall are summed up anew for each draw, by
how often it holds each image. Two networks evaluated on the same images are evaluated on the same draws, so that the
differences of their APs, draw by draw, say how sure the difference is (Efron and Tibshirani, 1993, chapter 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ofa_pose.utils.seeding import generator

DRAWS = 200  # standard errors of these are 5 % off
FEW_PEOPLE = 50  # with fewer an AP says little
HINT = "raise search.images; where all are used already, name a larger data.search, or train with a larger search_share"
CHUNK = 1 << 22  # weights of detections at a time
THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of OKS
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Matches:
    """What each detection is, at T thresholds of similarity.

    Attributes:
        image: (M,) the number of each detection's image; score: (M,).
        right: (M, T) bool, it is a person who is wanted; ignored: (M, T) bool, neither right nor wrong.
        wanted: (N,) how many people are wanted on each image.
    """

    image: np.ndarray
    score: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    wanted: np.ndarray


def assign(
    detection: np.ndarray,
    person: np.ndarray,
    similarity: np.ndarray,
    rank: np.ndarray,
    wanted: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray = THRESHOLDS,
) -> np.ndarray:
    """Whom each detection is matched with at each threshold, (M, T); -1: nobody.

    As in COCO's evaluation: the detections of an image choose one after the other, each the most similar person left,
    those who are not wanted only if nobody else is similar enough; any number may choose a crowd.

    Args:
        detection, person, similarity: (K,) of the pairs of a detection and a person of the same image.
        rank: (M,) the place of each detection on its image, from 0.
        wanted, crowd: (N,) bool, of each person.
    """
    near = similarity >= thresholds.min()
    detection, person, similarity = detection[near], person[near], similarity[near]
    # Of equally similar people the last one is taken.
    order = np.lexsort((-person, -similarity, ~wanted[person], detection))
    detection, person, similarity = detection[order], person[order], similarity[order]
    choice = np.arange(len(detection)) - np.searchsorted(detection, detection)  # first, second, …
    turn = np.stack([rank[detection], choice])
    order = np.lexsort(turn[::-1])
    starts = np.flatnonzero(np.diff(turn[:, order], axis=1).any(axis=0)) + 1
    found = np.full((len(rank), len(thresholds)), -1)
    free = np.ones((len(wanted), len(thresholds)), bool)
    for part in np.split(order, starts):  # one pair an image at most
        one, other = detection[part], person[part]
        takes = (found[one] < 0) & free[other] & (similarity[part, None] >= thresholds)
        found[one] = np.where(takes, other[:, None], found[one])
        free[other] &= ~takes | crowd[other, None]
    return found


@lru_cache(maxsize=4)
def draw_images(images: int, draws: int = DRAWS) -> np.ndarray:
    """How often each image is in each draw, (draws, images); always the same for so many images."""
    chosen = generator("bootstrap", images).integers(images, size=(draws, images))
    flat = chosen + images * np.arange(draws)[:, None]
    return np.bincount(flat.ravel(), minlength=draws * images).reshape(draws, images).astype(np.int32)


def resampled_ap(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """The AP of each draw, (R,); NaN where nobody is wanted.

    Args:
        weights: (R, N) how often each image counts.
    """
    if len(matches.wanted) == 0:
        return np.full(len(weights), np.nan)
    order = np.argsort(-matches.score, kind="stable")
    image, right, ignored = matches.image[order], matches.right[order], matches.ignored[order]
    rows = max(1, CHUNK // max(len(order), 1))
    parts = [
        _average_precision(weights[start : start + rows], image, right, ignored, matches.wanted)
        for start in range(0, len(weights), rows)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _average_precision(
    weights: np.ndarray, image: np.ndarray, right: np.ndarray, ignored: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """The AP at each row of weights; detections from the best to the worst."""
    people = (weights @ wanted).astype(np.float64)
    each = weights[:, image]
    every = np.cumsum(each, axis=1, dtype=np.int32)
    total = np.zeros(len(weights))
    for is_right, is_ignored in zip(right.T, ignored.T, strict=True):
        places, passed = np.flatnonzero(is_right), np.flatnonzero(is_ignored)
        if not len(places):
            continue
        hits, counted = np.cumsum(each[:, places], axis=1), every[:, places]
        if len(passed):
            before = np.searchsorted(passed, places)  # so many ignored ones stand above
            skipped = np.concatenate([np.zeros((len(weights), 1), np.int64), np.cumsum(each[:, passed], axis=1)], 1)
            counted = counted - skipped[:, before]
        precision = hits / (counted + np.spacing(1))
        # Of each recall the best precision at it or beyond; a recall not reached counts nothing.
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            reached = np.searchsorted(RECALLS, hits / people[:, None], side="right")
        total += (precision * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    return np.where(people > 0, total / len(RECALLS) / right.shape[1], np.nan)


def standard_error(draws: np.ndarray | Sequence[float] | None) -> float | None:
    """Of an AP, given its `resampled_ap`; None where too few draws give an AP."""
    known = np.asarray([] if draws is None else draws, np.float64)
    known = known[np.isfinite(known)]
    return float(known.std(ddof=1)) if len(known) > 1 else None


def paired_error(first: np.ndarray | None, second: np.ndarray | None) -> float | None:
    """The standard error of the difference of two APs on the same images; None where that is not known."""
    if first is None or second is None or len(first) != len(second):
        return None
    return standard_error(np.asarray(first, np.float64) - np.asarray(second, np.float64))


def show_ap(ap: float, error: float | None, decimals: int = 3) -> str:
    """'0.520 ± 0.060'; without the error where it is not known."""
    return f"{ap:.{decimals}f}" + ("" if error is None else f" ± {error:.{decimals}f}")


def shown_difference(one: float, other: float, decimals: int = 3) -> float:
    """The difference of two APs as `show_ap` shows them, so that who subtracts what is shown finds the same."""
    return round(round(one, decimals) - round(other, decimals), decimals) + 0.0  # no -0.0


def few_people(people: int | None, ap: float | None, error: float | None, where: str) -> str | None:
    """A line to say where an AP was taken of too few people; else None."""
    if people is None or people >= FEW_PEOPLE or ap is None:
        return None
    return f"{where} show only {people} people, so AP {show_ap(ap, error)} (one standard error) says little"


def doubts(people: int | None, error: float | None, aps: Sequence[float], near: Sequence[bool] = ()) -> str | None:
    """A line to say where search images rank subnets by chance; else None.

    Args:
        people: how many people count; None where that is not known.
        error: the standard error of the highest AP.
        aps: of the subnets.
        near: which subnets are within one standard error of the best, where that is known better than by `error`.
    """
    best = max(aps, default=0.0)
    if error is None or best <= 0:
        return None
    near = near or [best - ap <= error for ap in aps]
    if len(near) > 2 and 2 * sum(near) > len(near):
        known = "" if people is None else f"{people} people; "
        what = f"the search images cannot tell these subnets apart: {known}AP {show_ap(best, error)}"
        return f"{what}; {sum(near)} of {len(near)} are within one standard error of the best: {HINT}"
    few = few_people(people, best, error, "the search images")
    return few and f"{few}: {HINT}"
