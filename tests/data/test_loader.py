"""A batch depends on seed and step alone: not on workers, on where a run began, or on what was drawn before."""

from __future__ import annotations

import ctypes
import errno
import json
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ofa_pose.arch.spec import MEAN, STD
from ofa_pose.data import loader
from ofa_pose.data.keypoint_dataset import KeypointDataset, load_dataset
from ofa_pose.data.loader import (
    BackgroundOrder,
    Batch,
    batches_ahead,
    clean_batches,
    epoch_order,
    normalise,
    step_keys,
    training_batches,
    worker_faults,
)
from ofa_pose.data.transforms import Augmentation, clean_sample
from ofa_pose.utils.errors import InputError, OfaPoseError
from tests.data.datasets import annotation, contents, write


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> KeypointDataset:
    return load_dataset(*write(tmp_path_factory.mktemp("data"), contents(7)))


def _resolution(step: int) -> int:
    return (64, 96)[step % 2]


def _batches(dataset: KeypointDataset, first: int = 0, steps: int = 6, seed: int = 5, **more: int) -> list[Batch]:
    return list(training_batches(dataset, 3, seed, _resolution, first, steps, Augmentation(), **more))


def _equal(a: Batch, b: Batch) -> bool:
    tensors = ((a.images, b.images), (a.keypoints, b.keypoints), (a.mask, b.mask))
    return a.resolution == b.resolution and all(torch.equal(x, y) for x, y in tensors)


def test_batches_are_what_they_say(dataset: KeypointDataset) -> None:
    batches = _batches(dataset)
    assert [batch.resolution for batch in batches] == [64, 96] * 3
    for batch in batches:
        side = batch.resolution
        assert batch.images.shape == (3, 3, side, side) and batch.images.dtype == torch.uint8
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.mask.shape == (3, side // 2, side // 2) and batch.mask.dtype == torch.uint8
        assert batch.keypoints.shape[0] == 3 and batch.keypoints.shape[2:] == (5, 3)
        assert batch.keypoints.dtype == torch.float32 and ((batch.keypoints >= 0) & (batch.keypoints < side)).all()
        moved = batch.to("cpu")
        assert _equal(moved, batch)
    assert max(batch.keypoints.shape[1] for batch in batches) == 2


def test_workers_make_the_same_batches(dataset: KeypointDataset) -> None:
    here, there = _batches(dataset), _batches(dataset, workers=2)
    assert len(here) == len(there) == 6 and all(map(_equal, here, there))


def test_a_run_resumes_at_any_step(dataset: KeypointDataset) -> None:
    whole = _batches(dataset)
    for first in (1, 4, 6):
        rest = _batches(dataset, first)
        assert len(rest) == 6 - first and all(map(_equal, rest, whole[first:]))


def test_seeds_and_epochs_differ(dataset: KeypointDataset) -> None:
    assert not any(map(_equal, _batches(dataset), _batches(dataset, seed=6)))
    one = dataset.select([2])
    first, second = list(training_batches(one, 1, 0, lambda _: 64, 0, 2, Augmentation()))
    assert not torch.equal(first.images, second.images)


def test_the_global_random_state_is_left_alone(dataset: KeypointDataset) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    _batches(dataset)
    _batches(dataset, workers=1, steps=1)
    assert (torch.rand(1), np.random.random()) == expected


def test_each_epoch_takes_each_image_once_in_an_order_of_its_own() -> None:
    keys = [key for step in range(14) for key in step_keys(7, 3, step, partial(epoch_order, 7, 5))]
    assert set(Counter(keys).values()) == {1} and len(keys) == 42
    orders = [[index for epoch, index in keys if epoch == number] for number in range(6)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) == 6
    assert step_keys(2, 7, 0, partial(epoch_order, 2, 0))[-1][0] == 3  # a batch may span several epochs


@pytest.mark.parametrize("share", [0.0, 0.1, 0.45])
def test_processes_share_a_step(share: float) -> None:
    order = partial(epoch_order, 7, 5)
    empty = BackgroundOrder(share, 4, partial(epoch_order, 4, 5)) if share else None
    for step in range(9):
        parts = [step_keys(7, 2, step, order, rank, 3, empty) for rank in range(3)]
        assert [key for part in parts for key in part] == step_keys(7, 6, step, order, background=empty)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 8), st.floats(0.01, 0.99))
def test_images_without_people_have_their_share_and_leave_the_others_in_order(
    images: int, empty: int, batch: int, share: float
) -> None:
    order, background = partial(epoch_order, images, 5), BackgroundOrder(share, empty, partial(epoch_order, empty, 6))
    keys = [key for step in range(12) for key in step_keys(images, batch, step, order, background=background)]
    people = [key for key in keys if key[1] < images]
    plain = [key for step in range(12) for key in step_keys(images, batch, step, order)]
    assert people == plain[: len(people)]
    others = [(epoch, index - images) for epoch, index in keys if index >= images]
    assert others == [(e, int(i)) for e in range(12 * batch) for i in background.order(e)][: len(others)]
    for first in range(0, len(keys), batch):  # each batch has its share, to the next whole image
        count = sum(index >= images for _, index in keys[first : first + batch])
        assert abs(count - share * batch) < 1 + 1e-9


def test_batches_with_images_without_people(dataset: KeypointDataset) -> None:
    train = dataset.with_people()
    assert {record.id for record in train.background} == {0, 3, 6} and len(train) == 4

    def batches(share: float, first: int = 0, **more: int) -> list[Batch]:
        return list(training_batches(train, 4, 5, _resolution, first, 6, Augmentation(), background=share, **more))

    mixed, plain = batches(0.25), batches(0.0)
    for batch in mixed:
        empty = ~batch.keypoints[..., 2].any(2).any(1)
        assert empty.tolist() == [False, False, False, True], "a fourth of each batch, the last of four"
        assert batch.mask[-1].all(), "nothing in it is to be ignored"
        assert batch.images[-1].float().std() > 5
    samples = [[image for batch in run for image in batch.images] for run in (mixed, plain)]
    shown = [image for number, image in enumerate(samples[0]) if number % 4 < 3]
    same = [torch.equal(*pair) for pair in zip(shown, samples[1], strict=False) if pair[0].shape == pair[1].shape]
    assert len(same) > 6 and all(same), "the others are those that there would be without"
    assert all(map(_equal, batches(0.25, workers=2), mixed)) and all(map(_equal, batches(0.25, 3), mixed[3:]))
    everyone = dataset.select([1, 2, 4, 5])
    assert all(map(_equal, training_batches(everyone, 4, 5, _resolution, 0, 6, Augmentation(), background=0.25), plain))


def test_what_nobody_has_labelled_is_left_out_of_the_loss_there_too(tmp_path: Path) -> None:
    value = contents(2)
    value["annotations"].append(annotation(7, 0, [0] * 15, bbox=[0, 0, 48, 64]))
    train = load_dataset(*write(tmp_path, value)).with_people()
    still = Augmentation(rotation=0, scale=(1, 1), shift=0, flip=0)
    (batch,) = training_batches(train, 2, 0, lambda _: 64, 0, 1, still, background=0.5)
    assert not batch.keypoints[1].any() and batch.keypoints[0].any()
    assert not batch.mask[1, :, :15].any() and batch.mask[1, :, 18:].all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_one_line_naming_it(tmp_path: Path, workers: int) -> None:
    annotations, images = write(tmp_path, contents(4))
    dataset = load_dataset(annotations, images)
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:-50])
    with pytest.raises(InputError) as caught:
        list(training_batches(dataset, 2, 0, lambda _: 64, 0, 4, Augmentation(), workers=workers))
    assert str(caught.value).startswith(f"{images / '2.png'}: is cut short") and "\n" not in str(caught.value)


def test_training_needs_a_labelled_person(dataset: KeypointDataset) -> None:
    with pytest.raises(InputError, match="no person has a labelled joint"):
        next(training_batches(dataset.select([0, 3]), 2, 0, lambda _: 64, 0, 4, Augmentation()))


def test_a_steps_resolution_is_asked_for_once(dataset: KeypointDataset) -> None:
    asked: list[int] = []  # a supernet draws and decodes a subnet for it
    batches = training_batches(dataset, 3, 5, lambda step: asked.append(step) or 64, 2, 5, Augmentation())
    assert len(list(batches)) == 3 and asked == [2, 3, 4]


def test_clean_batches_are_whole_images_in_order(dataset: KeypointDataset) -> None:
    indices = [5, 2, 2, 0, 6]
    batches = list(clean_batches(dataset, 64, 2, indices))
    assert [len(batch.images) for batch in batches] == [2, 2, 1]
    images = torch.cat([batch.images for batch in batches]).permute(0, 2, 3, 1).numpy()
    for image, index in zip(images, indices, strict=True):
        np.testing.assert_array_equal(image, clean_sample(dataset.images[index], 64, dataset.skeleton).image)


def test_normalise_is_imagenets() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    result = normalise(images)
    for channel in range(3):
        expected = (images[:, channel].double() / 255 - MEAN[channel]) / STD[channel]
        torch.testing.assert_close(result[:, channel].double(), expected, atol=1e-6, rtol=1e-6)
    assert result.dtype == torch.float32 and result.is_contiguous(memory_format=torch.channels_last)
    assert normalise(images, torch.float16).dtype == torch.float16


def test_batches_wait_in_shared_memory_where_it_has_room_for_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = 10 << 20
    assert batches_ahead(size, 4, free=10 * size) == 2 and not capsys.readouterr().err
    assert batches_ahead(size, 4, free=10 * size - 1) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "/dev/shm: 100 MB free, too little for 4 processes' batches of 10.0 MB: fewer are prepared ahead" in told
    assert batches_ahead(size, 4, free=6 * size - 1) == 0
    assert "they come through pipes" in " ".join(capsys.readouterr().err.split())
    assert batches_ahead(1, 1) == 2, "of what there is"
    monkeypatch.setattr(loader, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(loader.os, "statvfs", lambda _: SimpleNamespace(f_bavail=10, f_frsize=size))
    assert batches_ahead(size, 4) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert batches_ahead(size, 4) == 0, "torchrun's other process has its share"


IN_LITTLE_MEMORY = """
import sys
import ofa_pose.data.loader as loader
from ofa_pose.data.keypoint_dataset import load_dataset
from ofa_pose.data.transforms import Augmentation
if sys.argv[3] == "unaware":
    loader.batches_ahead = lambda *_: 2
dataset = load_dataset(*sys.argv[1:3])
with loader.worker_faults():
    batches = loader.training_batches(dataset, 6, 5, lambda _: 256, 0, 12, Augmentation(), workers=2)
    print([int(batch.images.sum()) for batch in batches])
"""


@pytest.mark.parametrize("aware", ["aware", "unaware"])
def test_a_container_with_little_shared_memory_gets_its_batches(dataset: KeypointDataset, aware: str) -> None:
    """Where more is written than there is, torch's queue says nothing and waits for ever."""
    mounted = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mounted], capture_output=True).returncode:
        pytest.skip("only root can mount a small /dev/shm")
    paths = [dataset.annotations_path, dataset.images[0].path.parent]
    words = shlex.join([sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, paths), aware])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    command = ["unshare", "-m", "sh", "-c", f"{mounted} && {words}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    here = training_batches(dataset, 6, 5, lambda _: 256, 0, 12, Augmentation())
    assert json.loads(done.stdout) == [int(batch.images.sum()) for batch in here]
    assert ("through pipes" in done.stderr) == (aware == "aware")


def _workers() -> list[int]:
    return [one.pid for one in multiprocessing.active_children() if one.pid and one.daemon]


def test_a_process_that_dies_ends_the_work_in_a_line(dataset: KeypointDataset) -> None:
    batches = training_batches(dataset, 3, 5, _resolution, 0, 400, Augmentation(), workers=2)
    next(batches)
    found = _workers()
    assert len(found) == 2
    match = "a process that reads images died .* lower train.workers or train.batch, then resume it"
    with pytest.raises(OfaPoseError, match=match) as error, worker_faults("resume it"), closing(batches):
        os.kill(found[0], signal.SIGKILL)
        for _ in batches:
            time.sleep(0.001)
    assert error.value.exit_code == 1 and "\n" not in str(error.value)
    assert not _workers()


def test_a_death_is_noticed_where_the_error_that_it_raised_was_lost(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ofa_pose.data.loader.CHECK_S", 0.2)
    batches = training_batches(dataset, 3, 5, _resolution, 0, 400, Augmentation(), workers=1)
    next(batches)
    raised = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # such as in code that goes on after any error
    try:
        os.kill(_workers()[0], signal.SIGKILL)
        with pytest.raises(OfaPoseError, match="a process that reads images died"), worker_faults(), closing(batches):
            for _ in batches:
                pass
    finally:
        signal.signal(signal.SIGCHLD, raised)


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_work_in_a_line(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait(*_: object, **__: object) -> None:  # as on a network disk that is gone
        time.sleep(600)

    monkeypatch.setattr("ofa_pose.data.loader.READING_S", 1.0)
    for name in ("read_image", "read_reduced"):  # the processes are forked, and have it too
        monkeypatch.setattr(f"ofa_pose.data.records.{name}", wait)
    match = "no batch came from the processes that read images for 1 s"
    with pytest.raises(OfaPoseError, match=match), worker_faults():
        next(training_batches(dataset, 3, 5, _resolution, 0, 400, Augmentation(), workers=1))
    assert not _workers()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for longer than a part of a second, nor by torch."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    for name, seconds in (("READING_S", 0.4), ("CHECK_S", 0.2), ("ENDS_S", 0.2)):
        monkeypatch.setattr(f"ofa_pose.data.loader.{name}", seconds)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are not forked here")
@pytest.mark.usefixtures("impatient")
def test_a_process_that_hears_no_signal_ends_with_the_work(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: object, **__: object) -> None:  # no other thread of the process goes on meanwhile
        ctypes.PyDLL(None).sleep(20)

    for name in ("read_image", "read_reduced"):
        monkeypatch.setattr(f"ofa_pose.data.records.{name}", hang)
    with pytest.raises(OfaPoseError, match="no batch came from the processes that read images"), worker_faults():
        next(training_batches(dataset, 3, 5, _resolution, 0, 400, Augmentation(), workers=2))
    assert not _workers()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are not forked here")
@pytest.mark.usefixtures("impatient")
def test_a_process_that_is_killed_while_it_sends_a_batch_for_a_gpu_ends_the_work_in_a_line(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, send = os.getpid(), Connection._send  # type: ignore[attr-defined]

    def cut_off(pipe: Connection, content: bytes) -> None:
        if os.getpid() != parent and len(content) > 1000:
            send(pipe, bytes(content)[:1000])
            os.kill(os.getpid(), signal.SIGKILL)
        send(pipe, content)

    monkeypatch.setattr(Connection, "_send", cut_off)
    monkeypatch.setattr(loader, "batches_ahead", lambda *_: 0)
    if not torch.cuda.is_available():  # torch's thread that pins runs all the same
        for name, value in {
            "is_available": True,
            "current_accelerator": torch.device("cuda"),
            "current_device_index": 0,
            "set_device_index": None,
        }.items():
            monkeypatch.setattr(torch.accelerator, name, lambda *_, value=value: value)
    batches = training_batches(dataset, 3, 5, _resolution, 0, 400, Augmentation(), workers=1, pin_memory=True)
    with pytest.raises(OfaPoseError, match="a process that reads images died"), worker_faults():
        next(batches)
    assert not _workers()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOENT, errno.EACCES])
def test_a_machine_without_shared_memory_is_said_to_be_one(
    dataset: KeypointDataset, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("multiprocessing.synchronize._multiprocessing.SemLock", refuse)
    said = rf"shared memory, and there is none here \({os.strerror(number)}\); mount /dev/shm, or set train.workers=0"
    with pytest.raises(InputError, match=said):
        _batches(dataset, workers=1)
    assert len(_batches(dataset, workers=0)) == 6


def test_what_is_no_fault_of_a_process_is_raised_as_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^other$"), worker_faults():
        raise RuntimeError("other")
    text = "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback:\nMemoryError: x"
    with pytest.raises(OfaPoseError, match=r"failed \(MemoryError: x\)"), worker_faults():
        raise MemoryError(text)


def test_processes_that_read_ignore_what_is_for_all(dataset: KeypointDataset) -> None:
    with closing(training_batches(dataset, 3, 5, _resolution, 0, 40, Augmentation(), workers=2)) as batches:
        whole = [next(batches)]
        time.sleep(0.5)  # they have begun
        for process in _workers():
            for number in (signal.SIGINT, signal.SIGHUP):
                os.kill(process, number)
            # A SIGTERM of another process than their parent's
            subprocess.run(["sh", "-c", f"kill -TERM {process}"], check=True)
        whole += [next(batches) for _ in range(20)]
        assert len(_workers()) == 2
    assert all(map(_equal, whole, _batches(dataset, steps=21)))
    assert not _workers()
