"""Splits: parts of a dataset, and what is held out of training for the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofa_pose.data.keypoint_dataset import DataSettings, KeypointDataset, Source, load_dataset, load_splits
from ofa_pose.utils.errors import InputError
from tests.data.datasets import contents, write


def test_parts_of_a_dataset(tmp_path: Path) -> None:
    dataset = load_dataset(*write(tmp_path, contents(20)))
    train, search = dataset.split_off(0.25, seed=3)
    ids = [[record.id for record in part.images] for part in (train, search)]
    assert len(ids[1]) == 5 and sorted(ids[0] + ids[1]) == list(range(20))
    assert ids == [sorted(part) for part in ids]
    assert [record.id for record in dataset.split_off(0.25, seed=3)[1].images] == ids[1]
    assert [record.id for record in dataset.split_off(0.25, seed=4)[1].images] != ids[1]
    assert {image["id"] for image in search.ground_truth["images"]} == set(ids[1])
    assert {a["image_id"] for a in search.ground_truth["annotations"]} <= set(ids[1])
    assert [record.id for record in dataset.limit(3).images] == [0, 1, 2] and dataset.limit(None) is dataset
    assert len(dataset.with_people()) == 13 and dataset.with_people().people == dataset.people
    assert [len(part) for part in dataset.split_off(0.001, 0)] == [19, 1]
    assert [len(part) for part in dataset.split_off(0.999, 0)] == [1, 19]
    for bad in (
        lambda: dataset.split_off(1.0, 0),
        lambda: dataset.limit(1).split_off(0.5, 0),
        lambda: dataset.limit(0),
    ):
        with pytest.raises(InputError):
            bad()
    with pytest.raises(InputError, match="no person has a labelled joint"):
        dataset.limit(1).with_people()


def test_a_choice_of_images_is_the_same_for_ever(tmp_path: Path) -> None:
    dataset = load_dataset(*write(tmp_path, contents(20)))
    assert dataset.draw(5, "calibrate").tolist() == [5, 18, 14, 17, 12]
    for keys, ids in (
        (("search images",), [1, 2, 6, 12, 13]),
        (("int8", "calibration"), [2, 4, 8, 16, 18]),
        (("int8", "evaluation"), [1, 5, 7, 14, 17]),
    ):
        assert [record.id for record in dataset.choose(5, *keys).images] == ids
        assert {*ids} < {record.id for record in dataset.choose(9, *keys).images}
    assert dataset.choose(20, "any") is dataset.choose(21, "any") is dataset


def test_images_with_people_are_chosen_first(tmp_path: Path) -> None:
    value = contents(30)  # of every three images the first is empty
    crowd, unmade, uncounted = (person for person in value["annotations"] if person["image_id"] in (1, 4, 7))
    crowd["iscrowd"], uncounted["num_keypoints"] = 1, 0
    del unmade["num_keypoints"]
    dataset = load_dataset(*write(tmp_path, value))
    counted = {record.id for record in dataset.images if record.counted}
    assert counted == {n for n in range(30) if n % 3} - {1, 7}
    chosen = [record.id for record in dataset.choose_people(6, "any").images]
    assert chosen == sorted(chosen) and set(chosen) < counted and chosen[-1] > 15 > chosen[0]
    assert chosen == [record.id for record in dataset.choose_people(6, "any").images]
    assert chosen != [record.id for record in dataset.choose_people(6, "other").images]
    more = {record.id for record in dataset.choose_people(25, "any").images}
    assert counted < more and len(more) == 25, "filled up with others where there are too few"
    assert dataset.choose_people(30, "any") is dataset
    full = dataset.select(sorted(counted))
    assert full.choose_people(5, "any").images == full.choose(5, "any").images


@pytest.fixture
def settings(tiny_dataset: KeypointDataset) -> DataSettings:
    source = Source(annotations=str(tiny_dataset.annotations_path), images=str(tiny_dataset.images_dir))
    return DataSettings(train=source, val=source, search_share=0.25)


def test_search_images_are_held_out_of_training(settings: DataSettings) -> None:
    train, search = load_splits(settings, "train", "search")
    trained, searched = ({record.id for record in split.images} for split in (train, search))
    assert (len(trained), len(searched)) == (6, 2)
    assert not trained & searched
    assert searched == {record.id for record in load_splits(settings, "search")[0].images}, "the same in every command"


def test_a_search_split_of_its_own_leaves_train_whole(settings: DataSettings) -> None:
    given = settings.model_copy(update={"search": settings.val})
    assert len(load_splits(given, "train")[0]) == 8
    assert len(load_splits(given, "search")[0]) == 8


def test_a_missing_split_names_the_override() -> None:
    with pytest.raises(InputError) as error:
        load_splits(DataSettings(), "test")
    hint = "add --set data.test.annotations=FILE, and data.test.images=DIR if they are not beside it"
    assert str(error.value) == f"the recipe names no data.test; {hint}"
