"""The search algorithms by name."""

from __future__ import annotations

from ofa_pose.search.candidates import Algorithm
from ofa_pose.search.evolution import evolve

ALGORITHMS: dict[str, Algorithm] = {"evolution": evolve}
