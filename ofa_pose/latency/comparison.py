"""Networks of any family compared on runtimes of this machine: alone, with the flip test, and with their decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median

import cv2
import numpy as np
import torch

from ofa_pose.arch.spec import NetSpec
from ofa_pose.backends.on_device import Run, cpu_name, visit
from ofa_pose.families.profile import profile_net
from ofa_pose.families.table import shape_of
from ofa_pose.inference.pose_model import with_mirrored
from ofa_pose.latency.measure import check_square, open_device
from ofa_pose.models.pose_net import PoseNet
from ofa_pose.pose.decode import decode
from ofa_pose.pose.geometry import HIGH_STRIDE, LOW_STRIDE, Array
from ofa_pose.skeleton import COCO
from ofa_pose.synthetic.scenes import draw_scene
from ofa_pose.train.losses import heatmaps
from ofa_pose.utils.console import progress
from ofa_pose.utils.errors import InputError, nearest
from ofa_pose.utils.result import Result

SCENES = 8  # whose maps are decoded
SCENE_SIDE = 256  # of a scene, in pixels: its people are scaled to each network's resolution
SEED = 0


@dataclass(frozen=True)
class ImageTime(Result):
    """How long one image takes: milliseconds, and how many times as long as with the base network.

    Attributes:
        network_ms, decode_ms, total_ms: the network's forward passes, the decoding of its maps, and both; the latter
            two are None of a network that finds no poses here.
        network_ratio, total_ratio: network_ms and total_ms over the base network's; None where one of them is.
    """

    network_ms: float
    decode_ms: float | None
    total_ms: float | None
    network_ratio: float
    total_ratio: float | None


@dataclass(frozen=True)
class ComparedNet(Result):
    """What a network costs and how long it takes.

    Attributes:
        net: as it was named.
        backend: that ran it.
        resolution, joints, params: of the network.
        macs: multiply-adds in each convention.
        plain, flip: times of an image without the flip test, and with it (two forward passes, their maps averaged).
    """

    net: str
    backend: str
    resolution: int
    joints: int
    params: int
    macs: dict[str, int]
    plain: ImageTime
    flip: ImageTime


@dataclass(frozen=True)
class LatencyComparison(Result):
    """Networks measured in turn on runtimes of this machine.

    Attributes:
        runtimes: of each backend its runtime's name and version; device, threads: the processor, threads of a run.
        rounds: how many times each was measured; times are medians over them.
        base: the network whose times, on the first backend, the ratios are of.
        scenes, people: how many drawn scenes' maps were decoded, and the mean number of people on one.
        nets: in the order in which they were named, each on every backend: net, backend, resolution, joints, params,
            macs; plain, and flip with the flip test: network_ms, decode_ms, total_ms, network_ratio, total_ratio.
    """

    runtimes: dict[str, str]
    device: str
    threads: int
    rounds: int
    base: str
    scenes: int
    people: float
    nets: list[ComparedNet]


def compare_networks(
    nets: Mapping[str, NetSpec], backends: Sequence[str], threads: int, rounds: int, base: str
) -> LatencyComparison:
    """Measure networks with random weights, batch 1, all in turn in each round.

    Raises InputError before anything is measured: an input that is not square, a base that is not among the networks,
    a runtime that is not there or cannot hold one of them.
    """
    if base not in nets:
        raise InputError(f"the base '{base}' is not among the networks", hint=nearest(base, nets))
    for spec in nets.values():
        check_square(spec)
    devices = {backend: open_device(backend, threads) for backend in backends}
    runs = {(name, key): device.load(spec) for name, spec in nets.items() for key, device in devices.items()}
    people = scene_people()
    times: dict[tuple[str, str], list[list[float | None]]] = {key: [] for key in runs}
    with progress("latency compare", rounds * len(runs), "timings") as meter, _opencv_threads(threads):
        for _ in range(rounds):
            for name, spec in nets.items():
                decoding = _decoding_ms(spec, people, threads)
                for backend in devices:
                    run = runs[name, backend]
                    networks = [visit(one, threads) for one in (run, partial(_twice, run))]
                    times[name, backend].append([*networks, *decoding])
                    meter.step(note=f"{name} {networks[0]:.1f} ms")
    found = {key: [_median(column) for column in zip(*rows, strict=True)] for key, rows in times.items()}
    first = found[base, backends[0]]
    compared = [_compared(name, backend, nets[name], own, first) for (name, backend), own in found.items()]
    crowd = round(float(np.mean([len(one) for one in people])), 2)
    runtimes = {backend: device.runtime for backend, device in devices.items()}
    return LatencyComparison(runtimes, cpu_name(), threads, rounds, base, SCENES, crowd, compared)


def scene_people() -> list[Array]:
    """(P, 17, 3) of each scene: the people's joints, x and y as shares of the image's side, and visibility."""
    scenes = (draw_scene(SEED, index, SCENE_SIDE, COCO) for index in range(SCENES))
    side = np.array([SCENE_SIDE, SCENE_SIDE, 1])
    return [np.stack([person.keypoints for person in scene.people]) / side for scene in scenes]


def target_maps(people: Sequence[Array], joints: int, resolution: int) -> Iterator[tuple[Array, Array]]:
    """What training asks of a network on each scene: float32 low (1, 2J, R/4, R/4), high (1, J, R/2, R/2).

    A joint's tag is its person's number, all over its Gaussian. Joints are COCO's first J, over again where J is more.
    """
    side = np.array([resolution, resolution, 1])
    for those in people:
        chosen = those[:, np.arange(joints) % len(COCO.joints)] * side
        apart = torch.from_numpy(chosen)[:, None]  # each person as an image of its own
        low, high = (heatmaps(apart, (resolution // step,) * 2, step) for step in (LOW_STRIDE, HIGH_STRIDE))
        heat, owner = low.max(dim=0)
        yield torch.cat([heat, owner.float()])[None].numpy(), high.amax(dim=0)[None].numpy()


def _decoding_ms(spec: NetSpec, people: Sequence[Array], threads: int) -> tuple[float | None, float | None]:
    """Milliseconds of decoding one scene's maps without and with the flip test; None where the network has none."""
    if not isinstance(shape_of(spec), PoseNet):
        return None, None
    order = range(spec.joints)
    maps = list(target_maps(people, spec.joints, spec.resolution))
    mirrored = [(_mirrored(low), _mirrored(high)) for low, high in maps]

    def plain() -> None:
        for low, high in maps:
            decode(low, high, order)

    def flip() -> None:
        for (low, high), (other_low, other_high) in zip(maps, mirrored, strict=True):
            decode(*with_mirrored(low, high, other_low, other_high, order), order)

    without, with_flip = (visit(run, threads) / SCENES for run in (plain, flip))
    return without, with_flip


def _mirrored(maps: Array) -> Array:
    return np.ascontiguousarray(maps[..., ::-1])


def _twice(run: Run) -> None:
    """The forward passes of the flip test."""
    run()
    run()


def _median(values: tuple[float | None, ...]) -> float | None:
    known = [value for value in values if value is not None]
    return round(median(known), 4) if known else None


def _compared(name: str, backend: str, spec: NetSpec, own: list[float | None], base: list[float | None]) -> ComparedNet:
    """A network with its times and the base's: of the network, with the flip test, of decoding, with the flip test."""
    figures = profile_net(spec, name)
    plain, flip = (_image_time(own[way], own[way + 2], base[way], base[way + 2]) for way in (0, 1))
    return ComparedNet(name, backend, spec.resolution, spec.joints, figures["params"], figures["macs"], plain, flip)


def _image_time(
    network: float | None, decoding: float | None, base_network: float | None, base_decoding: float | None
) -> ImageTime:
    assert network is not None and base_network is not None
    total, base = (
        None if extra is None else round(ms + extra, 4)
        for ms, extra in ((network, decoding), (base_network, base_decoding))
    )
    total_ratio = None if total is None or base is None else round(total / base, 4)
    return ImageTime(network, decoding, total, round(network / base_network, 4), total_ratio)


@contextmanager
def _opencv_threads(number: int) -> Iterator[None]:
    """Have OpenCV, which decoding resizes maps with, use so many threads, then as many as before."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
