"""The trajectory, recorded while a model trains: statistics of every weight, a small sample."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from swe_cli.contracts import GradientStatistic, Statistic, Tensors
from swe_cli.errors import UsageError
from swe_cli.seeds import derive

SAMPLE_POINTS = 200  # at most about twice as many moments of the sampled weights are kept


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """When weights are observed and how much each observation counts.

    ``every``: optimizer steps between observations, or "epoch" = ceil(tokens / (batch · context)).
    ``start``: steps before the first. ``weighting``: a_i of observation i: "linear" i (the paper),
    "sqrt" √i, "uniform" 1, "exponential" 1 with all earlier ones multiplied by ``decay``.
    ``sample``: how many single weights are followed for the weight-evolution figure.
    ``statistics``: what to record besides what the criteria at hand need.
    ``frozen``: observe parts that are not trained, too. ``snapshots``: steps after which all of the
    training is kept, so that it can be cut there (schedule=early).
    """

    every: int | Literal["epoch"]
    start: int
    weighting: Literal["linear", "sqrt", "uniform", "exponential"]
    decay: float
    sample: int
    statistics: list[str] = field(default_factory=list)
    frozen: bool = False
    snapshots: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.every != "epoch" and self.every < 1:
            raise UsageError(f"tracking.every={self.every} must be at least 1, or epoch.")
        if self.start < 0 or self.sample < 0:
            raise UsageError("tracking.start and tracking.sample must not be negative.")
        if any(step < 0 for step in self.snapshots):
            raise UsageError("tracking.snapshots names a step before the first.")
        if not 0.0 < self.decay < 1.0:
            raise UsageError(f"tracking.decay={self.decay} is not between 0 and 1.")

    def amount(self, index: int) -> float:
        """a_i of the i-th observation, i from 1."""
        return {"linear": float(index), "sqrt": math.sqrt(index)}.get(self.weighting, 1.0)

    def interval(self, steps_per_epoch: int) -> int:
        """Optimizer steps between two observations."""
        return steps_per_epoch if self.every == "epoch" else self.every


class Tracker:
    """Feeds statistics after every observed optimizer step; memory does not grow with steps.

    ``weights``: the live parameters by name. ``followed``: the part of them that the sample draws
    from (the prunable matrices), by prunable name. Raises UsageError where nothing would be
    observed: an average of nothing is zero everywhere, and would cut anything.
    """

    def __init__(
        self,
        weights: Tensors,
        statistics: Mapping[str, Statistic],
        followed: Tensors,
        tracking: Tracking,
        *,
        steps: int,
        steps_per_epoch: int,
        seed: int,
    ) -> None:
        self.weights, self.statistics, self.tracking = weights, statistics, tracking
        self.every = tracking.interval(steps_per_epoch)
        if tracking.start + self.every > steps:
            raise UsageError(
                f"tracking.every={tracking.every} ({self.every} steps) from tracking.start="
                f"{tracking.start} observes nothing in training.steps={steps}.",
                "Lower tracking.every or tracking.start.",
            )
        self.count, self.total_weight = 0, 0.0
        self._followed = followed
        self._sample_every = max(1, steps // SAMPLE_POINTS)
        self._sample_index = _draw_sample(followed, tracking.sample, seed)
        self._sample_steps: list[int] = []
        self._sample_values: list[Tensor] = []

    @torch.no_grad()
    def before_step(self, step: int, gradients: Callable[[], Tensors]) -> None:
        """Show the gradients of a step that will be observed to the statistics that look at them.

        ``gradients`` gathers them by parameter name; it is called only where somebody looks.
        """
        watching = [s for s in self.statistics.values() if isinstance(s, GradientStatistic)]
        if watching and self._observes(step):
            found = gradients()
            for statistic in watching:
                statistic.before_step(self.weights, found)

    @torch.no_grad()
    def after_step(self, step: int, metrics: dict[str, float]) -> None:
        if self._observes(step):
            self._observe()
        if self.tracking.sample and (step == 1 or step % self._sample_every == 0):
            self._sample_steps.append(step)
            self._sample_values.append(gather(self._followed, self._sample_index))

    def _observes(self, step: int) -> bool:
        return step > self.tracking.start and (step - self.tracking.start) % self.every == 0

    def _observe(self) -> None:
        self.count += 1
        amount = self.tracking.amount(self.count)
        if self.tracking.weighting == "exponential":
            self.total_weight *= self.tracking.decay
        self.total_weight += amount
        for statistic in self.statistics.values():
            statistic.update(self.weights, self.count, amount / self.total_weight)

    def tensors(self) -> Tensors:
        """``<statistic>/<parameter>`` and ``sample/{index,steps,values}``: what is saved."""
        saved = {
            f"{name}/{parameter}": tensor
            for name, statistic in self.statistics.items()
            for parameter, tensor in statistic.state().items()
        }
        if self._sample_values:
            saved["sample/index"] = self._sample_index
            saved["sample/steps"] = torch.tensor(self._sample_steps)
            saved["sample/values"] = torch.stack(self._sample_values)
        return saved

    def info(self) -> dict[str, Any]:
        """Cadence, number of observations and their total weight: the trajectory's metadata."""
        return {
            **{key: v for key, v in asdict(self.tracking).items() if key != "snapshots"},
            "statistics": sorted(self.statistics),
            "every_steps": self.every,
            "count": self.count,
            "total_weight": self.total_weight,
        }

    def load(self, saved: Tensors, info: Mapping[str, Any]) -> None:
        """Continue from what ``tensors`` and ``info`` gave."""
        self.count, self.total_weight = info["count"], info["total_weight"]
        for name, statistic in self.statistics.items():
            statistic.load(statistic_of(saved, name))
        if "sample/values" in saved:
            self._sample_steps = saved["sample/steps"].tolist()
            self._sample_values = list(saved["sample/values"])


def statistic_of(saved: Tensors, name: str) -> Tensors:
    """The tensors of one statistic, by parameter name, out of a trajectory file."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): t for key, t in saved.items() if key.startswith(prefix)}


def gather(tensors: Tensors, index: Tensor) -> Tensor:
    """Values at positions of all tensors laid end to end, in name order of ``tensors``: (n,).

    ``index`` is sorted.
    """
    values, offset = [], 0
    for tensor in tensors.values():
        here = index[(index >= offset) & (index < offset + tensor.numel())] - offset
        if len(here):
            values.append(tensor.reshape(-1)[here.to(tensor.device)].cpu())
        offset += tensor.numel()
    return torch.cat(values).float() if values else torch.empty(0)


def _draw_sample(followed: Tensors, size: int, seed: int) -> Tensor:
    total = sum(tensor.numel() for tensor in followed.values())
    generator = torch.Generator().manual_seed(derive(seed, "sample"))
    drawn = torch.randperm(total, generator=generator)[: min(size, total)]
    return torch.sort(drawn).values
