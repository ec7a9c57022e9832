"""The trajectory, recorded while a model trains: statistics of every weight, a small sample."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor

from swe_cli.conform import calling
from swe_cli.contracts import Count, Statistic
from swe_cli.errors import TrainingError, UsageError
from swe_cli.records import Tensors
from swe_cli.seeds import derive
from swe_cli.training.parallel import ALONE, Ranks, full, local
from swe_cli.training.state import Callback, TrainState

SAMPLE_POINTS = 200  # at most about twice as many moments of the sampled weights are kept
PROBES = 4096  # of each tensor, by which it is told how far it moved


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """When weights are observed and how much each observation counts.

    ``every``: optimizer steps between observations, or "epoch" = ceil(tokens / (batch · context)).
    ``start``: steps before the first, or a part of the training, "90%". ``weighting``: a_i of
    observation i: "linear" i (the paper), "sqrt" √i, "uniform" 1, "exponential" 1 with all earlier
    ones multiplied by ``decay``, or halved in a part of the training, "2%".
    ``sample``: how many single weights are followed for the weight-evolution figure.
    ``statistics``: what to record besides what the criteria at hand need.
    ``frozen``: observe parts that are not trained, too. ``snapshots``: steps after which all of the
    training is kept, so that it can be cut there (schedule=early).
    """

    every: Count | Literal["epoch"]
    start: Annotated[int, Field(ge=0, description="Write tracking.start=0")] | str
    weighting: Literal["linear", "sqrt", "uniform", "exponential"]
    decay: Annotated[float, Field(gt=0, lt=1, description="A half-life: tracking.decay=2%")] | str
    sample: NonNegativeInt
    statistics: list[str] = field(default_factory=list)
    frozen: bool = False
    snapshots: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if any(step < 0 for step in self.snapshots):
            raise UsageError("tracking.snapshots names a step before the first.")
        self.steps_before(1), self.decay_of(1, 1)  # which refuse what is no percentage

    def steps_before(self, steps: int) -> int:
        """Steps before the first observation, of ``steps``."""
        start = self.start
        return start if isinstance(start, int) else round(_part("start", start) * steps)

    def decay_of(self, every: int, steps: int) -> float:
        """What an observation leaves of the earlier ones, with ``every`` steps between them."""
        if not isinstance(self.decay, str):
            return self.decay
        return float(0.5 ** (every / (_part("decay", self.decay) * max(1, steps))))

    def steps_between(self, steps: int, steps_per_epoch: int = 1) -> int:
        """Steps between observations. UsageError where nothing would be observed in ``steps``: an
        average of nothing is zero everywhere, and would cut anything. Of 0 steps none is asked.
        """
        every = steps_per_epoch if self.every == "epoch" else self.every
        if steps and self.steps_before(steps) + every > steps:
            when = f"tracking.every={self.every} ({every} steps) from tracking.start={self.start}"
            why = f"{when} observes nothing in training.steps={steps}."
            raise UsageError(why, "Lower tracking.every or tracking.start.")
        return every


def _part(key: str, value: str) -> float:
    """The fraction of a training that "90%" is. UsageError for what is all of it, or nothing."""
    with suppress(ValueError):
        if value.endswith("%") and 0 < (percent := float(value[:-1])) < 100:
            return percent / 100
    why = f"tracking.{key}={value} is no part of a training."
    raise UsageError(why, f"Write a percentage: tracking.{key}=10%")


class Tracker(Callback):
    """Feeds statistics after every observed optimizer step; memory does not grow with
    steps, but for the sample (see ``SAMPLE_POINTS``).

    ``weights``: the live parameters by name. ``followed``: the part of them that the sample draws
    from (the prunable matrices), by prunable name. ``sources``: statistic → hash of its code, where
    a user wrote it: what another version accumulated is not its own. Raises UsageError where
    nothing would be observed.
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
        sources: Mapping[str, str | None] | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.weights, self.statistics, self.tracking = weights, statistics, tracking
        self.sources = {name: (sources or {}).get(name) for name in statistics}
        self.every = tracking.steps_between(steps, steps_per_epoch)
        self.start, self.decay = tracking.steps_before(steps), tracking.decay_of(self.every, steps)
        for statistic in statistics.values():
            statistic.expect((steps - self.start) // self.every, steps / self.every)
        self.count, self.total_weight, self.seconds = 0, 0.0, 0.0
        self._followed = followed
        self._sample_every = max(1, steps // SAMPLE_POINTS)
        generator = torch.Generator().manual_seed(derive(seed, "sample"))
        order = torch.randperm(sum(w.numel() for w in followed.values()), generator=generator)
        self._sample_index = order[: tracking.sample].sort().values
        self._sample: dict[int, Tensor] = {}  # step → values
        self.begun = probed(self.live(), PROBES)

    def before_step(self, state: TrainState) -> None:
        started, parameters = time.perf_counter(), state.setup.model.named_parameters()
        known = ((n, local(p.grad)) for n, p in parameters if p.grad is not None)
        self.see(state.step, lambda: dict(known))
        self.seconds += time.perf_counter() - started

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        started = time.perf_counter()
        if not metrics.get("skipped"):
            self.observe(state.step, lambda: state.optimizer_slots())
        self.seconds += time.perf_counter() - started

    @torch.no_grad()
    def see(self, step: int, gradients: Callable[[], Tensors]) -> None:
        """A step is about to be taken, by ``gradients`` that are asked for where one looks."""
        watching = {name: of for name, of in self.statistics.items() if of.sees("before_step")}
        if watching and self._observes(step):
            weights, known, (amount, total) = self.live(), gradients(), self._next()
            for name, statistic in watching.items():
                with calling(f"statistic={name}", TrainingError):
                    statistic.before_step(weights, known, amount / total)

    @torch.no_grad()
    def observe(self, step: int, slots: Callable[[], Mapping[str, Tensors]]) -> None:
        """A step was taken; what the optimizer keeps is asked for where one looks."""
        if self._observes(step):
            amount, self.total_weight = self._next()
            self.count += 1
            asked = any(of.sees("after_step") for of in self.statistics.values())
            weights, kept = self.live(), slots() if asked else {}
            for name, statistic in self.statistics.items():
                with calling(f"statistic={name}", TrainingError):
                    statistic.update(weights, self.count, amount / self.total_weight)
                    statistic.after_step(kept)
        if self.tracking.sample and (step == 1 or step % self._sample_every == 0):
            self._sample[step] = gather(self._followed, self._sample_index)

    def live(self) -> Tensors:
        """The weights as they are."""
        return self.weights

    def moved(self) -> float:
        """‖W − W₀‖ / ‖W₀‖, W₀ what it was made with, by up to ``PROBES`` of each tensor."""
        live, far, long = self.live(), 0.0, 0.0
        for name, now in probed(live, PROBES).items():
            stands_for, begun = live[name].numel() / max(1, len(now)), self.begun[name]
            far += stands_for * float((now - begun).square().sum())
            long += stands_for * float(begun.square().sum())
        far, long = self.ranks.sum(far), self.ranks.sum(long)
        return math.sqrt(far / long) if long else 0.0

    def _next(self) -> tuple[float, float]:
        """The weight of the observation that comes next, and the total weight with it."""
        index, total = self.count + 1, self.total_weight
        growing = {"linear": float(index), "sqrt": math.sqrt(index)}
        amount = growing.get(self.tracking.weighting, 1.0)
        if self.tracking.weighting == "exponential":
            total *= self.decay
        return amount, total + amount

    def _observes(self, step: int) -> bool:
        return step > self.start and (step - self.start) % self.every == 0

    def tensors(self) -> Tensors:
        """``<statistic>/<parameter>`` and ``sample/{index,steps,values}``: what is saved."""
        states = ((name, statistic.state()) for name, statistic in self.statistics.items())
        saved = {f"{name}/{of}": tensor for name, state in states for of, tensor in state.items()}
        if self._sample:
            saved["sample/index"] = self._sample_index
            saved["sample/steps"] = torch.tensor([*self._sample])
            saved["sample/values"] = torch.stack([*self._sample.values()])
        return saved

    def info(self) -> dict[str, Any]:
        """Cadence, number of observations and their total weight: the trajectory's metadata."""
        sources = {name: source for name, source in self.sources.items() if source}
        return {
            **{key: v for key, v in asdict(self.tracking).items() if key != "snapshots"},
            "statistics": sorted(self.statistics),
            **({"sources": sources} if sources else {}),
            "every_steps": self.every,
            "count": self.count,
            "total_weight": self.total_weight,
            "weights_moved": self.moved(),
        }

    def load(self, saved: Tensors, info: Mapping[str, Any]) -> None:
        """Continue from what ``tensors`` and ``info`` gave."""
        self.count, self.total_weight = info["count"], info["total_weight"]
        for name, tensors in trajectory_of(saved, self.statistics).items():
            self.statistics[name].load(tensors)
        if "sample/values" in saved:
            steps = saved["sample/steps"].tolist()
            self._sample = dict(zip(steps, saved["sample/values"], strict=True))


def unrecorded(info: Mapping[str, Any], statistics: Mapping[str, str | None]) -> list[str]:
    """Of ``statistics`` (name → hash of a user's code), those that a tracker's ``info`` lacks."""
    recorded = {name: info.get("sources", {}).get(name) for name in info["statistics"]}
    return sorted(name for name, source in statistics.items() if recorded.get(name, "") != source)


def trajectory_of(saved: Tensors, statistics: Iterable[str]) -> dict[str, Tensors]:
    """The tensors of these statistics, by parameter name, out of a trajectory file."""
    trajectory: dict[str, Tensors] = {name: {} for name in statistics}
    for key, tensor in saved.items():
        name, _, parameter = key.partition("/")
        if name in trajectory:
            trajectory[name][parameter] = tensor
    return trajectory


def probed(weights: Tensors, most: int) -> Tensors:
    """Copies of at most so many weights of each tensor, evenly spread, float32."""
    return {  # every so many, an odd number: columns are hardly ever of one
        name: w.detach().reshape(-1)[:: w.numel() // most | 1][:most].float().cpu().clone()
        for name, w in weights.items()
    }


def gather(tensors: Tensors, index: Tensor) -> Tensor:
    """Values at sorted positions of all tensors laid end to end, in the order of ``tensors``: (n,).

    Tensor by tensor: a copy of all of them would be as large as the model.
    """
    ends = torch.tensor([tensor.numel() for tensor in tensors.values()]).cumsum(0)
    inside = torch.bucketize(index, ends, right=True)
    values = [torch.empty(0)]
    for place, tensor in enumerate(tensors.values()):
        here = index[inside == place] - (ends[place] - tensor.numel())
        values.append(full(tensor).reshape(-1)[here.to(tensor.device)].float().cpu())
    return torch.cat(values)
