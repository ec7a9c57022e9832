"""Criteria that score every weight: the controls, by the trajectory, by gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from swe_cli.contracts import Evidence, WeightCriterion
from swe_cli.records import Scores
from swe_cli.seeds import derive

SMALLEST = 1e-12  # where nothing in a tensor ever moved


class Equation(WeightCriterion):
    # Each tensor by itself: its weights and, of what ``needs`` names, in that order, its own.
    # A comment, since ``swe criteria`` shows the docstrings of bases.
    equation: Callable[..., Tensor] = lambda self, weight, known: known.clone()

    def score(self, evidence: Evidence) -> Scores:
        known = {**evidence.trajectory, **evidence.calibration}
        return {
            name: self.equation(weight, *(known[need][name] for need in self.needs))
            for name, weight in evidence.weights.items()
        }


# Controls


class Magnitude(Equation):
    """``|W|`` of the weights that are cut (Han et al. 2015).

    With ``base=averaged`` those weights are W̄, so it then ranks exactly as SWE does.
    """

    def equation(self, weight: Tensor) -> Tensor:
        return weight.abs()


class Random(WeightCriterion):
    """Uniform scores, drawn per tensor from the run's seed: another seed, another mask."""

    def score(self, evidence: Evidence) -> Scores:
        scores = Scores()
        for name, weight in evidence.weights.items():
            seed = derive(evidence.seed, f"random/{name}")
            scores[name] = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed))
        return scores


# By the trajectory


class SWE(Equation):
    """``|W̄|``, the magnitude of the weighted running average (arXiv 2502.17071, section 3)."""

    published = "sigma"
    needs = ("weighted_average",)

    def equation(self, weight: Tensor, average: Tensor) -> Tensor:
        return average.abs()


class SWEMean(Equation):
    """``|mean_t W_t|``: SWE (arXiv 2502.17071) with all steps counting the same. An ablation."""

    needs = ("mean",)
    equation = SWE.equation


class SWELatest(Equation):
    """``|mean of W_t over the last 10 % of the run|``, LAWA's average. An ablation of SWE, ours."""

    needs = ("latest_average",)
    equation = SWE.equation


class SWEEMA(Equation):
    """``|Σ_t d^{T−t}·W_t|``, with a half-life of 2 % of the run. An ablation of SWE, ours."""

    needs = ("exponential_average",)
    equation = SWE.equation


class SWESqrt(Equation):
    """``|W| / std(W̄)``, W̄ the √-weighted average of training (Smart Pruning, LOD 2022).

    Inside a tensor it ranks as magnitude does; between tensors it is an allocation: cut at one
    threshold, each tensor loses by its own spread. Published with W the best-validation weights
    (``base=best``) and W̄ over the last 50 epochs (see the statistic, ``SqrtAverage``). A tensor
    whose average has no spread is never cut first.
    """

    needs = ("sqrt_average",)

    def equation(self, weight: Tensor, average: Tensor) -> Tensor:
        spread = float(average.std()) if weight.numel() > 1 else 0.0
        return weight.abs() / spread if spread > 0 else torch.full_like(weight, inf)


class MeanMagnitude(Equation):
    """``mean_t |W_t|``: unlike by ``|mean_t W_t|``, one that swings around zero is not small. An
    ablation of SWE, ours.
    """

    needs = ("mean_magnitude",)


@dataclass(frozen=True, kw_only=True)
class Stability(Equation):
    """``|W̄| / (√V + ε)``: kept is what settled far from zero, in units of its wandering. Ours.

    W̄ and V are the weighted average and variance over training; ``epsilon`` is relative to the
    tensor's mean √V, so that a weight that never moved is not infinitely stable.
    """

    needs = ("weighted_average", "weighted_variance")
    epsilon: Annotated[float, Field(gt=0)]

    def equation(self, weight: Tensor, average: Tensor, variance: Tensor) -> Tensor:
        deviation = variance.sqrt()
        floor = max(self.epsilon * float(deviation.mean()), SMALLEST)
        return average.abs() / (deviation + floor)


class Movement(Equation):
    """``−Σ_t W_{t−1} · g_t`` (Sanh et al. 2020). Signed: low is moving to zero, and goes first."""

    needs = ("movement",)


class NetMovement(Equation):
    """``|W − W_0|``: a weight that training did not need to move goes first (Zhou et al. 2019)."""

    needs = ("initial_weights",)

    def equation(self, weight: Tensor, initial: Tensor) -> Tensor:
        return (weight - initial).abs()


class PathLength(Equation):
    """``Σ_t |W_t − W_{t−1}|``: a weight that training left alone goes first. Ours."""

    needs = ("path_length",)


# By curvature: Optimal Brain Damage, ½ · w² · H, H as gradients tell it


@dataclass(frozen=True, kw_only=True)
class Saliency(Equation):
    # What those below share.
    power: Annotated[float, Field(ge=0, description="Optimal Brain Damage: criterion.power=0.25")]

    def equation(self, *known: Tensor) -> Tensor:
        size, curvature = known[-2:]
        return size.abs() * curvature.pow(self.power)


class OBD(Saliency):
    """``|W| · E_t[g_t²]^p``, g_t the gradients of training: ``swe_obd`` of the weights as they are.

    p = ``power``. Optimal Brain Damage (LeCun et al. 1990) with H = √E_t[g_t²], the curvature that
    Adam believes in, ranks as p = ¼ does. With ``base=averaged`` it is ``swe_obd``. Ours.
    """

    needs = ("square_gradient",)


class SWEOBD(Saliency):
    """``|W̄| · E_t[g_t²]^p``: weights and their curvature, both averaged over training. Ours.

    At p = ``power`` = ¼ it ranks as ``W̄² · √E_t[g_t²]``: Optimal Brain Damage, ½·w²·H, with the
    curvature Adam believes in. p = 0 is ``swe``; p = ½ has the averaged Fisher information for H.
    """

    needs = ("weighted_average", "square_gradient")


class Squisher(Saliency):
    """``W² · v``, v Adam's second moment at the end of training (arXiv 2507.18807).

    Ranks as ``|W| · v^p`` with p = ``power`` = ½.
    """

    needs = ("adam_v",)


class OBDSqrt(Saliency):
    """``|W| · E[g²]^p``, g the gradient of one calibration sample: ``obd`` without a trajectory.

    p = ``power`` = ¼: Optimal Brain Damage with the square root of the Fisher information. Ours.
    """

    needs = ("mean_square_gradient",)


# By gradients of the calibration set


class SNIP(Equation):
    """``|W · ḡ|``, ḡ the mean gradient over the calibration set (Lee et al. 2019).

    The absolute value is taken after averaging. Published at initialisation; here of any weights.
    """

    needs = ("mean_gradient",)

    def equation(self, weight: Tensor, gradient: Tensor) -> Tensor:
        return (weight * gradient).abs()


class Taylor(Equation):
    """``E[|W · g|]`` over calibration samples, g the gradient of one (Molchanov et al. 2017).

    Unlike in SNIP the absolute value is taken before averaging: samples do not cancel out.
    """

    needs = ("mean_saliency",)


class Fisher(Equation):
    """``W² · E[g²]``, g the gradient of one calibration sample (Theis et al. 2018).

    Of one sample it would be SNIP squared; a calibration set of one is refused.
    """

    needs = ("mean_square_gradient",)

    def equation(self, weight: Tensor, square: Tensor) -> Tensor:
        return weight.square() * square


class BlockInfluence(Equation):
    """``1 − E cos(x_in, x_out)`` of a block, over calibration tokens: the block that turns what
    flows through least goes first (ShortGPT, Men et al. 2024). For ``pattern=block``.
    """

    needs = ("block_influence",)
    unit = "block"
