"""Time the models beside this file on this machine, into results.csv; `ofa-pose latency import` makes it a table.

    python measure.py --threads 1

It needs numpy and the models' runtime (onnxruntime, ncnn or ai-edge-litert) alone. Cut off and started again, it goes
on where it was.
"""

# Bundles hold a copy of this file, so it imports nothing of the package; `latency build` measures with it too.

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import errno
import gzip
import importlib
import io
import json
import os
import platform
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

WARM_UP = 2  # runs of a visit that do not count: the first ones choose kernels and allocate
LEAST_RUNS, MOST_RUNS, VISIT_S = 5, 20, 0.02
BATCH_S = 0.4  # between two visits of the anchor
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Of ncnn: each halves precision for speed that x86 does not gain; without them outputs are torch's to 1e-5.
REDUCED = ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed")
ANCHOR = "anchor"
CPU = "CPUExecutionProvider"
MODULES = {"litert": "ai_edge_litert", "onnxruntime-int8": "onnxruntime"}  # not called as their packages
CPU_CLOCK = os.name != "nt"  # whether the processor's time is counted finely: Windows counts it in steps of 16 ms

_STDERR = threading.Lock()  # one thread at a time changes where it leads

Run = Callable[[], object]
S = TypeVar("S", bound=Hashable)


def time_runs(
    run: Run, least: int, most: float, seconds: float, warm_up: int = WARM_UP, own_time: bool = False
) -> list[float]:
    """Milliseconds of each of `least` runs after `warm_up`, and of more until they took `seconds` or are `most`.

    `own_time`, of runs in one thread, leaves out what the system gives to other processes meanwhile.
    """
    for _ in range(warm_up):
        run()
    times: list[float] = []
    while len(times) < least or (len(times) < most and sum(times) < seconds * 1e3):
        wall, used = time.perf_counter(), time.process_time()
        run()
        wall, used = time.perf_counter() - wall, time.process_time() - used
        times.append(1e3 * (min(wall, used) if own_time and CPU_CLOCK else wall))
    return times


def visit(run: Run, threads: int) -> float:
    """Milliseconds of the fastest of a few runs: what disturbs, only delays."""
    return min(time_runs(run, LEAST_RUNS, MOST_RUNS, VISIT_S, own_time=threads == 1))


def sweep(
    load: Callable[[S], Run], threads: int, anchor: S, times: list[float], ratios: dict[S, list[float]], rounds: int
) -> Iterator[list[tuple[S, float]]]:
    """Time every key of `ratios` until it has `rounds` values, in place: what is new, batch by batch.

    The values are times divided by the anchor's, the mean of those before and after a batch; `times` gets all of them,
    in milliseconds. `load` makes runnable what is timed.
    """
    run = load(anchor)
    times.append(visit(run, threads))
    for number in range(rounds):
        waiting = [subject for subject, seen in ratios.items() if len(seen) <= number]
        order = np.random.default_rng((number, len(waiting))).permutation(len(waiting))
        batch, start = [], time.monotonic()
        for left, index in zip(range(len(order) - 1, -1, -1), order):  # noqa: B905  (devices may have Python 3.9)
            batch.append((waiting[index], visit(load(waiting[index]), threads)))
            if left and time.monotonic() - start <= BATCH_S:
                continue
            times.append(visit(run, threads))
            unit = (times[-2] + times[-1]) / 2
            new = [(subject, ms / unit) for subject, ms in batch]
            for subject, ratio in new:
                ratios[subject].append(ratio)
            yield new
            batch, start = [], time.monotonic()


def cpu_name() -> str:
    """The processor's name, as the system calls it."""
    text = ""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    for key in ("model name", "Model", "Hardware"):
        found = re.search(rf"^{key}[ \t]*:[ \t]*(\S.*?)\s*$", text, re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine() or "unknown"


def today() -> str:
    """Now, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")  # noqa: UP017  (devices may have Python 3.9)


def processors() -> int:
    """How many of the machine's processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_memory() -> None:
    """Let glibc keep memory that is freed.

    By default it gives large tensors back after each layer, by a rule that depends on what the process did before: the
    same network in eager torch takes up to twice as long in one process as in another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def runtime_module(name: str) -> Any:
    """A runtime's package, imported.

    ncnn's threads wait for each other, by default in busy loops, which keep from running the very thread waited for
    where other work shares the cores: 3 s an image, not 30 ms. Its OpenMP reads the variable once, as it is loaded.
    """
    asleep = name == "ncnn" and "OMP_WAIT_POLICY" not in os.environ
    if asleep:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        return importlib.import_module(name)
    finally:
        if asleep:
            del os.environ["OMP_WAIT_POLICY"]


def onnx_session(model: str | bytes, threads: int, provider: str = CPU) -> Any:
    """ONNX Runtime's session of a model, a file or its content; 0 threads: it chooses.

    Raises ValueError where the execution provider is not there: ONNX Runtime would take the CPU instead.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    used = [name for name in dict.fromkeys([provider, CPU]) if name in available]
    session = onnxruntime.InferenceSession(model, options, providers=used)
    if session.get_providers()[0] != provider:
        raise ValueError(f"ONNX Runtime does not run on {provider} here; its providers are {', '.join(available)}")
    return session


def onnx_run(model: str | bytes, inputs: dict[str, np.ndarray], threads: int, provider: str = CPU) -> Run:
    """A run of an ONNX model, a file or its content; where it takes integers, of integers."""
    session = onnx_session(model, threads, provider)
    whole = {one.name for one in session.get_inputs() if one.type == "tensor(uint8)"}
    given = {name: (x * 64 + 128).clip(0, 255).astype(np.uint8) if name in whole else x for name, x in inputs.items()}
    return partial(session.run, None, given)


def ncnn_net(param: Path, weights: Path, threads: int) -> Any:
    """An ncnn.Net in single precision; 0 threads: ncnn chooses. Raises RuntimeError where it cannot be loaded."""
    net = runtime_module("ncnn").Net()
    for name in REDUCED:
        setattr(net.opt, f"use_{name}", False)
    if threads:
        net.opt.num_threads = threads
    if net.load_param(str(param)) or net.load_model(str(weights)):
        raise RuntimeError("cannot be loaded by ncnn")
    return net


def ncnn_run(param: str, weights: bytes, inputs: dict[str, np.ndarray], outputs: Sequence[str], threads: int) -> Run:
    """A run of an ncnn model in full precision."""
    with tempfile.TemporaryDirectory() as folder:  # from memory ncnn would go on reading bytes that Python frees
        paths = Path(folder, "model.param"), Path(folder, "model.bin")
        paths[0].write_text(param, encoding="ascii")
        paths[1].write_bytes(weights)
        net = ncnn_net(*paths, threads)
    mat = runtime_module("ncnn").Mat
    mats = {name: mat(np.ascontiguousarray(x[0])).clone() for name, x in inputs.items()}

    def run() -> object:
        extractor = net.create_extractor()
        for name, mat in mats.items():
            extractor.input(name, mat)
        return [extractor.extract(name)[1] for name in outputs]

    return run


def litert_interpreter(model: bytes, threads: int) -> Any:
    """LiteRT's interpreter of a model on the CPU; 0 threads: as many as there are processors."""
    interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
    with without_info():
        made = interpreter(model_content=model, num_threads=threads or processors())
        made.allocate_tensors()  # when it says what computes the model
    return made


@contextlib.contextmanager
def without_info() -> Iterator[None]:
    """What a library's C++ code says on stderr in it is said after it, but for lines that begin with 'INFO: '."""
    with _STDERR, tempfile.TemporaryFile() as said:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            for line in said:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


def litert_run(model: bytes, inputs: dict[str, np.ndarray], threads: int) -> Run:
    """A run of a LiteRT model, whose maps have the channels last; its inputs are resized to these."""
    interpreter = litert_interpreter(model, threads)
    places = {part["name"]: part["index"] for part in interpreter.get_input_details()}
    maps = {places[name]: x.transpose(0, 2, 3, 1) for name, x in inputs.items()}
    for place, x in maps.items():
        interpreter.resize_tensor_input(place, x.shape)
    interpreter.allocate_tensors()
    for place, x in maps.items():
        interpreter.set_tensor(place, np.ascontiguousarray(x))
    outputs = [part["index"] for part in interpreter.get_output_details()]

    def run() -> object:
        interpreter.invoke()
        return [interpreter.get_tensor(place).transpose(0, 3, 1, 2) for place in outputs]

    return run


def random_inputs(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Inputs float32 (1, channels, side, side) by name, of (channels, side)."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((1, c, side, side), np.float32) for name, (c, side) in shapes.items()}


class Bundle:
    """The models beside this file."""

    def __init__(self, folder: Path, threads: int, provider: str = CPU) -> None:
        self._folder, self._threads, self.provider = folder, threads, provider
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            self.header: dict[str, Any] = manifest["header"]
            self.subjects: dict[str, dict[str, Any]] = manifest["subjects"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} is not a whole bundle ({error}); copy it again") from None
        backend = self.header["backend"]
        runtime = runtime_module(MODULES.get(backend, backend))
        self.header["runtime"] = f"{backend} {runtime.__version__}"
        if provider != CPU:
            if MODULES.get(backend, backend) != "onnxruntime":
                raise ValueError(f"--provider is ONNX Runtime's, and these models are for {backend}; leave it out")
            onnx_session(str(folder / "models" / self.subjects[ANCHOR]["model"]), threads, provider)
            self.header["runtime"] += f" {provider}"

    def load(self, name: str) -> Run:
        """A run of what is called so in the manifest."""
        subject = self.subjects[name]
        path, inputs = self._folder / "models" / subject["model"], random_inputs(subject["inputs"])
        try:
            if self.header["backend"] in ("onnxruntime", "onnxruntime-int8"):
                return onnx_run(str(path), inputs, self._threads, self.provider)
            if self.header["backend"] == "litert":
                return litert_run(gzip.decompress(path.read_bytes()), inputs, self._threads)
            # Weights take as long whatever they are; zeros need no file.
            return ncnn_run(path.read_text(), bytes(subject["weights"]), inputs, subject["outputs"], self._threads)
        except MemoryError:
            raise ValueError(f"there is not enough memory for {path}; end other programs") from None
        except Exception as error:  # each runtime has its own
            if getattr(error, "errno", None) not in (None, errno.ENOENT):  # a full disk, no rights: it says so itself
                raise
            raise ValueError(f"{path} cannot be loaded ({error}); copy the bundle again") from None


def read_results(path: Path) -> tuple[dict[str, Any], list[float], dict[str, list[float]]]:
    """Header, the anchor's milliseconds and all ratios of a results.csv, but a last line cut off. Raises ValueError."""
    text = path.read_text(encoding="utf-8")
    first, _, rest = text[: text.rfind("\n") + 1].partition("\n")
    header = json.loads(first[2:]) if first.startswith("# ") else None
    if not isinstance(header, dict):
        raise ValueError("it has no header")
    ratios: dict[str, list[float]] = {ANCHOR: []}
    try:
        for subject, value in csv.reader(io.StringIO(rest)):
            ratios.setdefault(subject, []).append(float(value))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return header, ratios.pop(ANCHOR), ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the models beside this file; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(";")[0])
    parser.add_argument("--threads", type=int, default=1, help="threads of a run")
    parser.add_argument("--rounds", type=int, default=5, help="how many times each model is timed")
    parser.add_argument("--provider", default=CPU, help="of ONNX Runtime, such as CUDAExecutionProvider for a GPU")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"), help="file to write")
    given = parser.parse_args(arguments)
    if not 1 <= given.threads <= processors():
        parser.error(f"--threads {given.threads} is out of range; give 1 to {processors()}, the processors here")
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds} is out of range; give 1 or more")
    try:
        bundle = Bundle(Path(__file__).resolve().parent, given.threads, given.provider)
        _measure(bundle, given.threads, given.rounds, given.out)
    except KeyboardInterrupt:
        print("error: stopped; started again it goes on where it was", file=sys.stderr)
        return 130
    except (ImportError, OSError, ValueError) as error:
        package = getattr(error, "name", None)  # of an ImportError
        print(f"error: {error}" + (f"; pip install {package}" if package else ""), file=sys.stderr)
        return 2
    return 0


def _measure(bundle: Bundle, threads: int, rounds: int, out: Path) -> None:
    """Go on with the results in `out`, or begin them. Raises OSError, and ValueError where it is of another run."""
    machine = {"threads": threads, "device": cpu_name(), "cores": os.cpu_count() or 1, "rounds": rounds}
    header = {**bundle.header, **machine, "date": today()}
    times: list[float] = []
    ratios: dict[str, list[float]] = {}
    if out.exists():
        try:
            old, times, ratios = read_results(out)
        except ValueError as error:
            raise ValueError(f"{out} is not a file of results ({error}); name another one with --out") from None
        other = ", ".join(key for key in header if key != "date" and old.get(key) != header[key])
        if other:
            raise ValueError(f"{out} is of another run (other {other}); name another file with --out")
        header = old
    ratios = {name: ratios.get(name, []) for name in bundle.subjects if name != ANCHOR}
    beside = out.with_suffix(".part")  # anew, without a line that was cut off
    with beside.open("w", newline="", encoding="utf-8") as file:
        file.write(f"# {json.dumps(header)}\n")
        seen = ((name, value) for name, values in {ANCHOR: times, **ratios}.items() for value in values)
        csv.writer(file).writerows(seen)
    beside.replace(out)
    keep_memory()
    total, shown, start = rounds * len(ratios), 0.0, time.monotonic()
    first = done = sum(map(len, ratios.values()))
    on_cpu = threads if bundle.provider == CPU else 0  # a GPU's time is not the process's own
    for new in sweep(bundle.load, on_cpu, ANCHOR, times, ratios, rounds):
        with out.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([(ANCHOR, f"{times[-1]:.6g}"), *((name, f"{x:.6g}") for name, x in new)])
        done += len(new)
        now = time.monotonic()
        if now - shown > 5 or done == total:
            shown = now
            left = (now - start) / (done - first) * (total - done)
            print(f"{done}/{total} timings, {left:.0f} s left", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
