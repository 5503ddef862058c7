"""Whether what was read is what was written, to the last bit: torch does not look at its files' check sums."""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ofa_pose.utils.atomic import naming
from ofa_pose.utils.errors import OfaPoseError, is_memory, is_of_content

MOST_OF_FILE = 8  # times a file's size that its tensors may take in memory: some share their numbers


def digest(value: Any) -> str:
    """The hexadecimal SHA-256 of a value made of dicts, lists, tuples, texts, numbers, None and dense tensors.

    It goes with what the value holds, not with how a file holds it: with every tensor's dtype, shape and bits, in the
    order of the dicts.
    """
    found = hashlib.sha256()
    _add(value, found)
    return found.hexdigest()


def _add(value: Any, found: Any) -> None:
    if isinstance(value, Tensor):
        found.update(f"tensor {value.dtype} {tuple(value.shape)};".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, dict):
        found.update(f"dict {len(value)};".encode())
        for key, inner in value.items():
            _add(key, found)
            _add(inner, found)
    elif isinstance(value, list | tuple):
        found.update(f"{'list' if isinstance(value, list) else 'tuple'} {len(value)};".encode())
        for inner in value:
            _add(inner, found)
    else:
        text = repr(value).encode()
        found.update(f"{type(value).__name__} {len(text)};".encode() + text)


class WrongSum(ValueError):
    """A part of a file is not what its check sum says, or a few of its bytes stand for far more."""


def read_torch(path: Path) -> Any:
    """The value in a file of `torch.save`, tensors and plain values only; damaged bytes raise whatever they lead to.

    Raises:
        WrongSum: a bit of it has changed since it was written, or its parts are packed.
        OSError: it cannot be read.
        NoMemory: there is not enough memory to read it.
    """
    with naming(path), path.open("rb") as file:
        return _read(file, path)


def read_summed(path: Path) -> tuple[Any, str]:
    """What `read_torch` reads, and the file's SHA-256: of the same bytes, also where it is replaced meanwhile."""
    with naming(path), path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        return _read(file, path), found


def _read(file: BinaryIO, path: Path) -> Any:
    size = os.fstat(file.fileno()).st_size
    try:
        if zipfile.is_zipfile(file):  # before 2020 they were none
            with zipfile.ZipFile(file) as archive:
                if sum(part.file_size for part in archive.infolist()) > size:  # torch packs nothing
                    raise WrongSum("packed")
                if (damaged := archive.testzip()) is not None:
                    raise WrongSum(damaged)
        file.seek(0)
        with warnings.catch_warnings():  # such as that it is a TorchScript archive
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except (MemoryError, RuntimeError) as error:
        if is_memory(error):
            raise NoMemory(path, size) from None
        raise
    except OSError as error:
        if is_of_content(error):
            raise ValueError("cut short") from None
        raise


class NoMemory(OfaPoseError):
    """There is not enough memory for a file of a size in bytes."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(f"{path}: there is not enough memory to read its {size >> 20:,} MiB")


def check_tensors(value: Any, path: Path) -> None:
    """Raise WrongSum where the tensors in a file's value are not dense ones, or stand for more than the file can hold.

    A tensor whose numbers are all one, of stride 0, takes a few bytes in a file and any number in memory.
    """
    most, total = MOST_OF_FILE * path.stat().st_size, 0
    for tensor in tensors_in(value):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise WrongSum("not dense")
        total += tensor.numel() * tensor.element_size()
        if total > most:
            raise WrongSum("too large")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a value of dicts, lists and tuples, none of which holds itself."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
