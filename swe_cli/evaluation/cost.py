"""What a model costs: counted, or measured beside the dense one; and what is faster through zeros.

Counts are exact and go into tables. What is measured depends on the machine: it never does.
"""

import math
import os
import platform
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from swe_cli.contracts import LOGITS, Model, Questions, Setup, Split
from swe_cli.errors import SweWarning
from swe_cli.evaluation.loss import Evaluation, Measured, evaluating, mean_of
from swe_cli.files import digest
from swe_cli.models.gpt import greedy
from swe_cli.models.transformer import GatedMLP
from swe_cli.records import Batch, Interval

Metrics = Iterator[tuple[str, Interval]]
SECONDS, FEWEST, MOST = 1.0, 11, 101  # of one timing, and how often it is taken
CACHED = 64  # rows of a product in CSR at once, which is twice as fast as thousands
DENSE_ENOUGH = 0.5  # zeros of a matrix up to which no product in CSR is tried
WATTS = 500  # of one package, at most: how soon its counter may begin anew
POWERCAP = Path("/sys/class/powercap")
_COUNTED = WeakKeyDictionary[nn.Module, dict[object, tuple[float, dict[str, float]]]]()


# Counted


def flops_of(model: Model, work: Callable[[], object]) -> float:
    """FLOPs of the matrix products of some work; fused attention would hide its own."""
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def cost(setup: Setup) -> Iterator[tuple[str, float]]:
    """``parameters``: stored numbers, shared ones once; ``nonzeros`` among them. ``bytes``: of
    them, in their dtypes. ``flops_per_token``: of one forward pass over a full context, divided by
    its text tokens; ``nonzero_flops_per_token``: less what zeros in the blocks' matrices multiply.

    Counted on a real forward pass of one window, about one image where there are images.
    FLOPs are those of matrix products, 2 · in · out for each row that a matrix is applied to:
    linear layers, factors, the head, scores and values of attention between all positions (a causal
    one computes as much). Look-ups, norms, activations and diagonals are left out. A masked zero is
    stored and multiplied like any number: a masked model is no smaller and no faster.
    """
    model, weights = setup.model, setup.model.weights()  # a tied one comes once
    zeros = {name: w.numel() - int(torch.count_nonzero(w)) for name, w in weights.items()}
    parameters = sum(w.numel() for w in weights.values())
    yield "parameters", float(parameters)
    yield "nonzeros", float(parameters - sum(zeros.values()))
    yield "bytes", float(sum(w.nbytes for w in weights.values()))
    shapes = tuple((name, w.shape) for name, w in weights.items())
    known = _COUNTED.setdefault(model, {})
    if shapes not in known:
        known[shapes] = _counted(setup)
    flops, rows = known[shapes]
    yield "flops_per_token", flops / model.context
    views = {**model.prunable(weights, "all"), **weights}
    of_zeros = sum(
        2 * n * (zeros[name] if name in zeros else views[name].eq(0).sum().item())
        for name, n in rows.items()
        if name in views
    )
    yield "nonzero_flops_per_token", (flops - of_zeros) / model.context


def _counted(setup: Setup) -> tuple[float, dict[str, float]]:
    """FLOPs of a window, and how many rows each matrix of the blocks is applied to."""
    model, rows = setup.model, Counter[str]()

    def count(name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        for matrix, fed in model.fed(name, layer, given).items():
            rows[matrix] += fed.numel() // max(1, fed.shape[-1])

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in model.linear_layers().items():
            hooks.callback(layer.register_forward_pre_hook(partial(count, name)).remove)
        flops = flops_of(model, partial(model, a_batch(setup, 1)))
    return flops, dict(rows)


def a_batch(setup: Setup, size: int) -> Batch:
    """``size`` windows of zeros, as long as the context, about one image where there are images."""
    model, image = setup.model, setup.dataset.shape.image
    with torch.device(next(model.parameters()).device):
        tokens = torch.zeros(size, model.context, dtype=torch.int64)
        batch = {"tokens": tokens, "targets": tokens}
        if image is not None:
            batch["images"] = torch.zeros(size, *image, dtype=torch.uint8)
            batch["image"] = torch.arange(size)
    return batch


def batch_that_fits(setup: Setup, size: int) -> int:
    """At most ``size`` windows, of which the logits are no more than ``LOGITS``."""
    return max(1, min(size, LOGITS // (setup.model.context * setup.dataset.shape.vocabulary_size)))


def cost_of_answers(setup: Setup, split: Split, measured: Measured) -> Metrics:
    """``flops_per_answer``: of matrix products, of reading an image and the first question of the
    split, and of as many further tokens as the model says on average, each read once.
    """
    dataset, model = setup.dataset, setup.model
    if isinstance(dataset, Questions) and "answer_tokens" in measured:
        asked = setup.machine.move(dataset.prompts(dataset.examples(split)[:1]))
        one, two = (flops_of(model, partial(greedy, model, asked, length=n)) for n in (1, 2))
        further = mean_of(measured, "answer_tokens", "questions") - 1
        yield "flops_per_answer", Interval(one + further * (two - one))


def activated(setup: Setup, evaluation: Evaluation) -> Metrics:
    """The share of blocks of gated MLPs that are on, over a split; ``cost`` without idle ones."""
    model, split, size = setup.model, evaluation.split, evaluation.batch_size
    mlps = [module for module in model.modules() if isinstance(module, GatedMLP)]
    if not mlps:
        return
    on, of = Counter[GatedMLP](), Counter[GatedMLP]()
    with torch.inference_mode(), evaluating(model), setup.machine.precision():
        for batch in setup.windows(split, size, **evaluation.cut):
            model(setup.machine.move(batch))
            for mlp in mlps:
                gates = mlp.gates(mlp.fed)
                on[mlp] += int((gates > 0).sum())
                of[mlp] += gates.numel()
    yield "active_blocks", Interval(sum(on[mlp] / of[mlp] for mlp in mlps) / len(mlps))
    costs = dict(cost(setup))
    for mlp in mlps:
        idle, biases = 1 - on[mlp] / of[mlp], () if mlp.expand.bias is None else mlp.expand.bias
        matrices = mlp.expand.weight.numel() + mlp.contract.weight.numel()
        positions = mlp.fed.shape[:-1].numel() / model.context  # in one window, for a token
        costs["parameters"] -= idle * (matrices + len(biases))
        costs["flops_per_token"] -= idle * 2 * matrices * positions
    yield "activated_parameters", Interval(costs["parameters"])
    yield "activated_flops_per_token", Interval(costs["flops_per_token"])


# Measured, on this machine


class Meter:
    """What passes between two looks: wall "seconds", "cpu_seconds" of this process, and "joules" of
    the whole machine where a counter tells: RAPL's files (packages; without those of memory), NVML.
    A counter that may have begun anew more than once meanwhile tells nothing.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.counters: dict[str, tuple[Callable[[], float], float]] = {}
        for folder in sorted(POWERCAP.glob("intel-rapl:?")):
            with suppress(OSError, ValueError):
                if not (folder / "name").read_text().startswith("package"):
                    continue  # psys, which holds packages
                most = float((folder / "max_energy_range_uj").read_text()) / 1e6  # then from 0
                read = partial(_joules_of, folder / "energy_uj")
                read()  # often only root may
                self.counters[f"RAPL {folder.name}"] = read, most
        if device is not None and device.type == "cuda":
            with suppress(Exception):  # not there, or not told; it has errors of its own
                nvml = import_module("pynvml")
                nvml.nvmlInit()
                # Its place among those that this process may see is another.
                uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
                read = partial(_joules_of_gpu, nvml, nvml.nvmlDeviceGetHandleByUUID(uuid), device)
                read()
                self.counters["NVML"] = read, math.inf
        self.last = self._read()

    def lap(self) -> dict[str, float]:
        """Since the last lap, or the start; "joules" only where there is a counter."""
        before, self.last = self.last, self._read()
        passed = {name: self.last[name] - value for name, value in before.items()}
        joules = {name: passed.pop(name) % most for name, (_, most) in self.counters.items()}
        known = all(passed["seconds"] * WATTS < most for _, most in self.counters.values())
        return passed | ({"joules": sum(joules.values())} if joules and known else {})

    def _read(self) -> dict[str, float]:
        now = {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}
        return now | {name: read() for name, (read, _) in self.counters.items()}


def _joules_of(path: Path) -> float:
    return float(path.read_text()) / 1e6


def _joules_of_gpu(nvml: Any, handle: Any, device: torch.device) -> float:
    torch.cuda.synchronize(device)
    return float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def conditions(setup: Setup) -> dict[str, Any]:
    """What a timing depends on; timings of another ``fingerprint`` are not compared."""
    machine, processor = setup.machine, platform.processor() or platform.machine()
    with suppress(OSError, AttributeError):  # elsewhere than on Linux
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        processor = re.search("model name.*: (.*)", told).group(1)  # type: ignore[union-attr]
    device = torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else "cpu"
    fixed = {**machine.identity(), "device": device, "cpu": processor, "torch": torch.__version__}
    return {**fixed, "fingerprint": digest(fixed)[:8], "load": os.getloadavg()[0]}


def times(
    work: Mapping[str, Callable[[], object]], wait: Callable[[], object], most: float = SECONDS
) -> dict[str, Any]:
    """Seconds of each piece of work, (rounds,), taken in turn, so that a busy moment meets all.

    ``wait`` for what a device has not finished. About ``most`` seconds each, after two warm-ups.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    rounds = FEWEST
    while len(next(iter(seconds.values()))) < rounds + 2:
        for name, do in work.items():
            started = time.perf_counter()
            do()
            wait()
            seconds[name].append(time.perf_counter() - started)
        slowest = max(of[-1] for of in seconds.values())
        rounds = max(FEWEST, min(MOST, int(most / slowest)))
    return {name: np.array(of[2:]) for name, of in seconds.items()}


def measured_cost(setup: Setup, dense: Model, size: int) -> dict[str, Any]:
    """Timings of forward passes over full contexts, of the live model and of ``dense``, in turn.

    ``latency_p50_ms``, ``latency_p95_ms``, ``tokens_per_second`` at batch 1, and
    ``tokens_per_second_large`` at batch ``size``; ``dense_…`` of the dense one; ``speedup``, the
    ratio of medians at batch ``size``; ``saved_ms`` of a million tokens there with its 95 % t
    interval over rounds (``saved_low``, ``saved_high``). ``only_masked``: whether it computes the
    very products that dense does, so that whatever differs is noise. ``peak_memory_bytes``:
    weights and activations of the large batch. ``warnings``: of the timer, and of a machine with
    more to do than it has cores.
    """
    from scipy.special import stdtrit
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.utils.benchmark import Measurement, TaskSpec

    def wait() -> None:
        if setup.machine.device.type == "cuda":
            torch.cuda.synchronize(setup.machine.device)

    told, models = conditions(setup), {"": setup.model, "dense_": dense}
    replaced = any("forward" in vars(module) for module in setup.model.modules())
    shapes = [[p.shape for p in model.parameters()] for model in models.values()]
    found: dict[str, Any] = {"only_masked": shapes[0] == shapes[1] and not replaced}
    said = []
    cores = len(os.sched_getaffinity(0))
    with torch.inference_mode(), setup.machine.precision(), evaluating(setup.model):
        for batch_size, ending in ((1, ""), (size, "_large")):
            batch = a_batch(setup, batch_size)
            taken = times({name: partial(m, batch) for name, m in models.items()}, wait)
            tokens = batch_size * setup.model.context
            for name, seconds in taken.items():
                if batch_size == 1:
                    for q in (50, 95):
                        found[f"{name}latency_p{q}_ms"] = 1e3 * float(np.percentile(seconds, q))
                found[f"{name}tokens_per_second{ending}"] = tokens / median(seconds)
                task = TaskSpec(stmt="", setup="", num_threads=setup.machine.threads)
                timer = Measurement(1, seconds.tolist(), task)
                if timer.has_warnings:
                    spread = f"spread {timer.iqr / timer.median:.0%} of the median"
                    which = f"{name or 'pruned_'}batch {batch_size}".replace("_", " ")
                    said.append(f"{which}: {spread}")
        saved = (taken["dense_"] - taken[""]) * 1e9 / tokens  # ms of a million tokens
        half = float(stdtrit(len(saved) - 1, 0.975)) * stdev(saved) / len(saved) ** 0.5
        mean = fmean(saved)
        found |= {"saved_ms": mean, "saved_low": mean - half, "saved_high": mean + half}
        found["speedup"] = median(taken["dense_"]) / median(taken[""])
        memory = MemTracker()
        memory.track_external(setup.model)
        with memory:
            setup.model(batch)
        meter = Meter(setup.machine.device)
        for name, model in models.items() if meter.counters else ():
            meter.lap()
            for _ in range(len(saved)):
                model(batch)
            wait()
            if (joules := meter.lap().get("joules")) is not None:
                found[f"{name}joules_per_million_tokens"] = joules * 1e6 / (len(saved) * tokens)
    found["peak_memory_bytes"] = max(
        sum(v for k, v in of.items() if k == "Total")
        for of in memory.get_tracker_snapshot("peak").values()
    )
    if told["load"] > cores:
        said.append(f"the machine was busy: load {told['load']:.1f} on {cores} cores")
        warnings.warn(f"Timings are marked: {said[-1]}.", SweWarning, stacklevel=2)
    return {**found, "batch": size, "conditions": told, "warnings": said}


# Products that skip zeros


class SkipZeros:
    """Linear layers of the live model computed as CSR · xᵀ, where that is faster for ``rows`` rows.

    ``layers``: name → (sparsity, speedup) of all that were tried, those that won kept; on a CPU a
    product in CSR wins from about 85 % zeros on. Results are those of the dense product, to
    rounding.
    """

    def __init__(self, setup: Setup, rows: int) -> None:
        self.layers: dict[str, tuple[float, float]] = {}
        with torch.no_grad():
            for name, layer in setup.model.linear_layers().items():
                if isinstance(layer, nn.Linear) and layer.weight.numel():
                    sparsity = float(layer.weight.eq(0).float().mean())
                    self.layers[name] = (sparsity, self._won(layer, rows, sparsity))

    def _won(self, layer: nn.Linear, rows: int, sparsity: float) -> float:
        """How many times as fast as dense; 0 where it was not tried."""
        if sparsity <= DENSE_ENOUGH:
            return 0.0
        weight = layer.weight.detach()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that CSR is beta
            csr = weight.to_sparse_csr()
        fed = torch.randn(rows, layer.in_features, device=weight.device)
        sparse = partial(_csr_linear, csr, layer.bias)
        work = {"dense": partial(F.linear, fed, weight, layer.bias), "csr": partial(sparse, fed)}
        taken = {n: median(of) for n, of in times(work, lambda: None, SECONDS / 10).items()}
        speedup: float = taken["dense"] / taken["csr"]
        if speedup > 1:
            layer.forward = sparse  # type: ignore[method-assign]
        return speedup


def _csr_linear(csr: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """x Wᵀ + b of a W in CSR: (…, in) → (…, out)."""
    parts = torch.split(x.reshape(-1, x.shape[-1]), CACHED)
    y = torch.cat([(csr @ part.T).T for part in parts]).reshape(*x.shape[:-1], csr.shape[0])
    return y if bias is None else y + bias
