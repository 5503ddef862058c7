"""Where a search or a study works besides its own process: in further ones of this machine, or on a Dask cluster."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing.queues import SimpleQueue
from typing import Any

import cv2
import torch

from ofa_pose.backends.torch_net import pick_device
from ofa_pose.utils.console import mute, warn
from ofa_pose.utils.errors import InputError
from ofa_pose.utils.process import pool_context, process_pool

WAIT_S = 10  # for a cluster's scheduler, and for its first worker
WATCH_S = 30.0  # between looks at whether it still has one


def chosen_workers(
    workers: int, scheduler: str | None, executor: Executor | None, device: str | None
) -> AbstractContextManager[Executor | None]:
    """Where work is done: in an executor that is given, on a cluster, in so many processes; None: in this one.

    Raises:
        InputError: as `cluster_workers`, when it is entered.
    """
    if scheduler:
        return cluster_workers(scheduler)
    return local_workers(workers, device) if workers > 1 else nullcontext(executor)


@contextmanager
def local_workers(count: int, device: str | None = None) -> Iterator[Executor]:
    """So many processes, each with its share of the threads, and a GPU of its own where `device` leaves that open.

    See `process_pool`.
    """
    gpus: SimpleQueue[str] = pool_context().SimpleQueue()
    chosen = pick_device(device)
    if chosen.type == "cuda" and chosen.index is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        for number in range(count):
            gpus.put(visible.split(",")[number % len(visible.split(","))])
    threads = max(1, torch.get_num_threads() // count)
    with process_pool(count, _start_worker, threads, gpus) as pool:
        yield pool


def _start_worker(threads: int, gpus: SimpleQueue[str]) -> None:
    mute(1)
    mute(2)  # warnings of the data were shown once
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if not gpus.empty():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()


@contextmanager
def cluster_workers(address: str) -> Iterator[Executor]:
    """The workers of the Dask cluster whose scheduler has this address, such as tcp://node1:8786.

    Raises:
        InputError: Dask is not installed, does not reach the scheduler, or the cluster has no worker.
    """
    try:
        from distributed import Client
    except ImportError:
        hint = "pip install -c constraints.txt -e '.[cluster]', here and where the workers run"
        raise InputError("--scheduler needs Dask's package distributed", hint=hint) from None
    logs = [logging.getLogger(name) for name in ("distributed", "distributed.client")]  # each with a level of its own
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)  # an error of the search says what went wrong
    try:
        try:
            client = Client(address, timeout=WAIT_S)
        except (OSError, ValueError) as error:
            hint = "start one with 'dask scheduler' and workers with 'dask worker', and name it as tcp://HOST:8786"
            raise InputError(f"--scheduler {address} cannot be reached ({error})", hint=hint) from None
        with client:
            try:
                client.wait_for_workers(1, timeout=WAIT_S)
            except TimeoutError:
                what = f"the cluster of --scheduler {address} has no worker"
                raise InputError(what, hint=f"start some with 'dask worker {address} --nthreads 1'") from None
            ended = threading.Event()
            threading.Thread(target=_watch, args=(client, address, ended), daemon=True).start()
            try:
                yield client.get_executor()
            finally:
                ended.set()
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


def _watch(client: Any, address: str, ended: threading.Event) -> None:
    """Warn when the last worker of a cluster has gone, for which nothing fails: its work waits for others."""
    had_some = True
    while not ended.wait(WATCH_S):
        with suppress(Exception):  # the scheduler is gone: what waits for it says so
            has_some = bool(client.nthreads())
            if had_some and not has_some and not ended.is_set():
                how = f"start some with 'dask worker {address} --nthreads 1'"
                warn(f"the cluster of --scheduler {address} has no worker left; the work waits: {how}")
            had_some = has_some
