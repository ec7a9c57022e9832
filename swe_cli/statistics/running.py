"""What is tracked while a model trains, one tensor a parameter."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from swe_cli.contracts import Statistic
from swe_cli.records import Tensors


class Tracked(Statistic):
    # One float32 tensor a parameter, zero at first. A comment, since docstrings of bases are shown.
    def __init__(self, weights: Tensors) -> None:
        self.tracked = zeros(weights)
        self.states = {"": self.tracked}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        """Nothing: it looks before or after a step, at what is not the weights."""


class WeightedAverage(Tracked):
    """``W̄ += (a_i / Σ a) · (W_i − W̄)``; with a_i = i, the paper's W̄ (arXiv 2502.17071, section 3).

    One float32 copy of the weights, whatever the number of observations.
    """

    def update(self, weights: Tensors, index: int, share: float) -> None:
        targets = [weights[name].float() for name in self.tracked]
        torch._foreach_lerp_(list(self.tracked.values()), targets, share)


class Mean(WeightedAverage):
    """The plain mean over observations: every step counts the same, whatever the weighting."""

    def update(self, weights: Tensors, index: int, share: float) -> None:
        super().update(weights, index, 1.0 / index)


class SqrtAverage(WeightedAverage):
    """``Σ √i·W_i / Σ √i`` over the observations i = 1, 2, …, whatever the weighting (LOD 2022).

    Published over the last 50 epoch snapshots: ``tracking.every=epoch``, with ``tracking.start`` at
    fifty epochs before the end.
    """

    def __init__(self, weights: Tensors) -> None:
        super().__init__(weights)
        self._seen, self._total = 0, 0.0

    def update(self, weights: Tensors, index: int, share: float) -> None:
        if index != self._seen + 1:  # resumed: the total is a function of the index
            self._total = sum(math.sqrt(i) for i in range(1, index))
        self._seen = index
        self._total += math.sqrt(index)
        super().update(weights, index, math.sqrt(index) / self._total)


class LatestAverage(WeightedAverage):
    """The plain mean over the last ``fraction`` of the run, one observation at least (LAWA, Kaddour
    2022); before that, the weights as they are. A step that is skipped is one of it fewer.
    """

    def __init__(self, weights: Tensors, *, fraction: Annotated[float, Field(gt=0, le=1)]) -> None:
        super().__init__(weights)
        self.fraction, self.first = fraction, 1

    def expect(self, observations: int, of_run: float) -> None:
        self.first = max(1, 1 + observations - max(1, round(self.fraction * of_run)))

    def update(self, weights: Tensors, index: int, share: float) -> None:
        super().update(weights, index, 1.0 / max(1, 1 + index - self.first))


class ExponentialAverage(WeightedAverage):
    """``Σ d^{n−i}·W_i / Σ d^{n−i}``: what is older by ``half_life``, a fraction of the run, counts
    half, whatever the weighting. No weight lies on the zeros that it begins with.
    """

    def __init__(self, weights: Tensors, *, half_life: Annotated[float, Field(gt=0, le=1)]) -> None:
        super().__init__(weights)
        self.half_life, self.decay = half_life, 0.5

    def expect(self, observations: int, of_run: float) -> None:
        self.decay = 0.5 ** (1.0 / (self.half_life * of_run))

    def update(self, weights: Tensors, index: int, share: float) -> None:
        super().update(weights, index, (1.0 - self.decay) / (1.0 - self.decay**index))


class MeanMagnitude(Tracked):
    """``mean_t |W_t|`` over the observations, whatever the weighting."""

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, mean in parts(weights, self.tracked):
            torch._foreach_lerp_(mean, torch._foreach_abs(now), 1.0 / index)


class WeightedVariance(Statistic):
    """``V = Σ a_i (W_i − W̄)² / Σ a_i`` in one pass (West 1979, after Welford).

    With η = a_i / Σ a: ``δ = W_i − W̄; W̄ += ηδ; V = (1 − η)(V + ηδ²)``. Two float32 copies of the
    weights: V, and under ``<parameter>/mean`` the W̄ that it is measured around.
    """

    def __init__(self, weights: Tensors) -> None:
        self.variance, self.mean = zeros(weights), zeros(weights)
        self.states = {"": self.variance, "/mean": self.mean}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, mean, variance in parts(weights, self.mean, self.variance):
            deviations = torch._foreach_sub(now, mean)
            torch._foreach_add_(mean, deviations, alpha=share)
            torch._foreach_addcmul_(variance, deviations, deviations, value=share)
            torch._foreach_mul_(variance, 1.0 - share)


class InitialWeights(Tracked):
    """``W_0``, the weights before the first step. Observations do not change it."""

    def __init__(self, weights: Tensors) -> None:
        self.states = {"": copies(weights)}


class PathLength(Statistic):
    """``Σ |W_t − W_{t−1}|`` over the observations, from the weights before the first step on.

    Two float32 copies of the weights: the path, and under ``<parameter>/last`` the last weights.
    """

    def __init__(self, weights: Tensors) -> None:
        self.path, self.last = zeros(weights), copies(weights)
        self.states = {"": self.path, "/last": self.last}

    def update(self, weights: Tensors, index: int, share: float) -> None:
        for now, path, last in parts(weights, self.path, self.last):
            torch._foreach_sub_(last, now)  # in place of what is overwritten next: no temporary
            torch._foreach_abs_(last)
            torch._foreach_add_(path, last)
            torch._foreach_copy_(last, now)


class Movement(Tracked):
    """``−Σ_t W_{t−1} · g_t``, g_t = ∂L/∂W at W_{t−1} (Sanh et al. 2020).

    It looks before the optimizer steps; afterwards the gradient belongs to other weights. The
    gradient is that of the mean loss of the step's batch, before any clipping.
    """

    def before_step(self, weights: Tensors, gradients: Tensors, share: float) -> None:
        """See one step that is about to be taken; parameters without a gradient stand still."""
        known = {name: g.float() for name, g in gradients.items() if name in self.tracked}
        for now, gradient, moved in parts(weights, known, self.tracked):
            torch._foreach_addcmul_(moved, now, gradient, value=-1.0)


class SquareGradient(Tracked):
    """``E_t[g_t²]``: ``S += (a_t / Σ a) · (g_t² − S)``, weighted as W̄ is. Ours.

    g_t is the gradient of the step's mean loss, before any clipping and without any decay: of a
    batch, so that S falls as batches grow. A parameter without a gradient counts as 0.
    """

    def before_step(self, weights: Tensors, gradients: Tensors, share: float) -> None:
        torch._foreach_mul_(list(self.tracked.values()), 1.0 - share)
        known = {name: s for name, s in self.tracked.items() if name in gradients}
        for gradient, square in parts(gradients, known):
            torch._foreach_addcmul_(square, gradient, gradient, value=share)


class AdamV(Tracked):
    """Adam's second moment v as it is after the last observation (Kingma & Ba 2015).

    Unlike ``square_gradient`` it is of gradients that were clipped, forgets as β₂ says, and with
    Adam's coupled decay (not AdamW's) contains the decay. What is not trained has none: 0.
    """

    def after_step(self, optimizer: Mapping[str, Tensors]) -> None:
        known = {n: v for n, v in optimizer["exp_avg_sq"].items() if n in self.tracked}
        torch._foreach_copy_([self.tracked[name] for name in known], list(known.values()))


def zeros(weights: Tensors) -> Tensors:
    """Float32 zeros, one tensor a parameter."""
    return {name: torch.zeros_like(w, dtype=torch.float32) for name, w in weights.items()}


def copies(weights: Tensors) -> Tensors:
    """Float32 copies of the weights as they are."""
    return {name: w.detach().to(torch.float32, copy=True) for name, w in weights.items()}


def parts(weights: Tensors, *states: Tensors) -> Iterator[tuple[list[Tensor], ...]]:
    """Lists of weights, in float32, and of what ``states`` hold by the same names.

    On a CPU tensor by tensor: the second pass finds in cache what the first one read, and no
    temporary is as large as the model. Elsewhere all at once: few kernels are launched.
    """
    names = list(states[0])
    on_cpu = all(w.device.type == "cpu" for w in weights.values())
    size = 1 if on_cpu else max(1, len(names))
    for first in range(0, len(names), size):
        some = names[first : first + size]
        yield [weights[n].float() for n in some], *([state[n] for n in some] for state in states)
