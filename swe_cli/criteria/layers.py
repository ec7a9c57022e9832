"""Criteria that judge a linear layer by what it is fed."""

import warnings
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from swe_cli.contracts import Choose, LayerCriterion, LayerInputs
from swe_cli.errors import PruningError, SweWarning

SMALLEST = 1e-12  # where all of a row or column is cut
MOST_DAMPING = 1e3  # times the mean diagonal: beyond it the Hessian says nothing


class ByNorm(LayerCriterion):
    # What the next three share. A comment, since ``swe criteria`` shows the docstrings of bases.
    published = "row"
    needs = ("input_norm",)

    def prune_layer(self, weight: Tensor, inputs: LayerInputs, choose: Choose) -> Tensor:
        kept = choose(self.score_layer(weight, inputs), 0)
        weight.mul_(kept)
        return kept


class Wanda(ByNorm):
    """``|W_ij| · ‖X_j‖₂``, X the inputs of the layer over the calibration tokens (Sun et al. 2023).

    Published with the scores of one output row compared with each other: ``allocation=row``.
    """

    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        return weight.abs() * inputs.norm


@dataclass(frozen=True, kw_only=True)
class RIA(ByNorm):
    """``(|W_ij| / Σ_i |W_ij| + |W_ij| / Σ_j |W_ij|) · ‖X_j‖₂^a`` (Zhang et al. 2024).

    Relative importance and activations, arXiv 2402.15657: how much of what its input gives, and of
    what its output takes, is the weight's. a = ``power``.
    """

    power: Annotated[float, Field(ge=0, description="The published: criterion.power=0.5")]

    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        size = weight.abs()
        columns, rows = (size.sum(along, keepdim=True).clamp(min=SMALLEST) for along in (0, 1))
        return (size / columns + size / rows) * inputs.norm**self.power


class FLAP(ByNorm):
    """``Var(X_j) · W_ij²``, X the inputs of the layer over the calibration tokens (An et al. 2024).

    WIFV of arXiv 2312.11983; the score is its root. A unit, of channels j, is judged by its output
    matrix, whatever the pattern: ``√Σ_j Var(h_j) · ‖W2[:, j]‖²``. What units that go added on
    average, ``W2[:, cut] · E[h]``, goes into that layer's bias, a new one where there is none.
    (The published standardises scores in each layer.) In rounds, or early, it is not trained.
    """

    published = "uniform"
    needs = ("input_mean",)
    by_output = True
    compensates = True

    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        variance = inputs.square_sum / inputs.tokens - inputs.mean.square()
        return weight.abs() * variance.clamp(min=0.0).sqrt()


@dataclass(frozen=True, kw_only=True)
class SparseGPT(LayerCriterion):
    """``W_ij² / U_jj²``, (H + λI)⁻¹ = UᵀU with U upper triangular, H = XᵀX (Frantar 2023).

    Columns are taken left to right in blocks of ``block``; a block's mask is chosen before its
    columns are updated, or, N:M, group by group on weights that are already updated. For a weight
    cut at column j the columns to its right make up: ``W[:, j:] −= (w / U_jj) · U[j, j:]``.
    λ = ``damping`` · mean diag H. An input that is always zero is cut first, within the budget.
    """

    updates_weights = True
    needs = ("input_gram",)

    damping: Annotated[float, Field(ge=0, description="Write criterion.damping=0.01")]
    block: Annotated[int, Field(ge=1, description="Write criterion.block=128")]

    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        factor, dead = self._factor(inputs)
        return _scores(weight, factor.diagonal(), dead)

    def prune_layer(self, weight: Tensor, inputs: LayerInputs, choose: Choose) -> Tensor:
        factor, dead = self._factor(inputs)
        columns, group = weight.shape[1], choose.group
        block = self.block if group is None else max(group, self.block - self.block % group)
        step = group or block
        kept = torch.ones_like(weight, dtype=torch.bool)
        for first in range(0, columns, block):
            last = min(first + block, columns)
            u = factor[first:last, first:last]
            now = weight[:, first:last].T.contiguous()  # (k, out): a column lies in one piece
            stays = kept[:, first:last]
            errors = torch.zeros_like(now)
            for j in range(last - first):
                if j % step == 0:
                    part = slice(j, j + step)
                    scores = _scores(now[part].T, u.diagonal()[part], dead[first:last][part])
                    stays[:, part] = choose(scores, first + j)
                errors[j] = now[j].masked_fill(stays[:, j], 0.0) / u[j, j]
                now[j + 1 :].addr_(u[j, j + 1 :], errors[j], alpha=-1.0)
            weight[:, first:last] = now.T.masked_fill(~stays, 0.0)
            weight[:, last:].addmm_(errors.T, factor[first:last, last:], alpha=-1.0)
        return kept

    def _factor(self, inputs: LayerInputs) -> tuple[Tensor, Tensor]:
        """U (in, in), and which inputs are dead, bool (in,).

        Damped more, and that is said, where the factor is not found; PruningError where the inputs
        are not finite.
        """
        hessian = inputs.hessian("criterion=sparsegpt")
        diagonal = hessian.diagonal()
        dead = diagonal == 0
        diagonal[dead] = 1.0
        mean, damping = float(diagonal.mean()), self.damping
        while (factor := _upper_factor_of_inverse(hessian, damping * mean)) is None:
            damping = max(10 * damping, 1e-4)
            if damping > MOST_DAMPING:
                why = "criterion=sparsegpt: the Hessian of a layer cannot be inverted."
                raise PruningError(why, "Give it more to see: calibration.samples=256")
        if damping != self.damping:
            what = f"A Hessian is singular at criterion.damping={self.damping:g}"
            used = f"{damping:g} is used for that layer. Or write criterion.damping=0.01"
            warnings.warn(f"{what}; {used}", SweWarning, stacklevel=1)
        return factor, dead


def _upper_factor_of_inverse(matrix: Tensor, damping: float) -> Tensor | None:
    """U with (matrix + damping · I)⁻¹ = UᵀU; None where rounding does not allow it."""
    damped = matrix.clone()
    damped.diagonal().add_(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not failed:
        inverse = torch.cholesky_inverse(factor)
        factor, failed = torch.linalg.cholesky_ex(inverse, upper=True)
    return None if failed or not factor.isfinite().all() else factor


def _scores(weight: Tensor, diagonal: Tensor, dead: Tensor) -> Tensor:
    return (weight / diagonal).square().masked_fill(dead, 0.0)
