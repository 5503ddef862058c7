"""Random streams are named by their keys and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ofa_pose.utils.seeding import generator, key_seed


def test_equal_keys_give_equal_streams_whatever_was_drawn_before() -> None:
    first = generator(1, "augment", 3).random(4)
    generator(1, "augment", 4).random(4)
    np.random.seed(0)
    assert np.array_equal(generator(1, "augment", 3).random(4), first)


def test_other_keys_give_other_streams() -> None:
    keys = [(1, 2), (2, 1), (12,), ("1", 2), ("1", "2"), (1, 2, 0), (), ("",), (-1, 2)]
    assert len({key_seed(*key) for key in keys}) == len(keys)


def test_numpy_integers_are_the_integers_they_hold() -> None:
    assert key_seed(np.int64(7), "a", np.uint8(3)) == key_seed(7, "a", 3)


def test_a_float_is_no_key() -> None:
    with pytest.raises(TypeError):
        key_seed(1.0)  # type: ignore[arg-type]


def test_seeds_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert key_seed(0, "subnet", 5) == 7372297777788889580
    assert generator(0, "subnet", 5).integers(1000, size=3).tolist() == [945, 636, 311]
