"""The weights that stay, made to give what all of them gave: by least squares."""

import warnings
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from swe_cli.contracts import Count, LayerInputs, Update
from swe_cli.errors import SweWarning

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class LeastSquares(Update):
    """``min tr((W − Ŵ) G (W − Ŵ)ᵀ)`` over Ŵ that is zero where cut, G = XᵀX + λI.

    Of every row a linear system over the weights it keeps; all rows are solved together, by
    conjugate gradients preconditioned with diag G (as in ALPS, arXiv 2406.07831), from the masked
    weights on. λ = ``damping`` · mean diag XᵀX. It ends where ‖r‖ ≤ ``tolerance`` · ‖r₀‖ in every
    row, in the norm of (diag G)⁻¹. A row that loses nothing is not touched.
    """

    damping: Annotated[float, Field(ge=0, description="Write update.damping=0.01")]
    tolerance: Annotated[float, Field(gt=0, lt=1, description="Write update.tolerance=1e-4")]
    steps: Count

    def solve(self, weight: Tensor, kept: Tensor, inputs: LayerInputs) -> Tensor:
        gram = inputs.hessian("update=least_squares")
        gram.diagonal().add_(self.damping * gram.diagonal().mean())
        rows = ~kept.all(1)
        solved = weight.masked_fill(~kept, 0.0)
        solved[rows] = self._descend(weight[rows], kept[rows].to(weight.dtype), gram)
        return solved

    def _descend(self, target: Tensor, kept: Tensor, gram: Tensor) -> Tensor:
        """Conjugate gradients of all rows at once; what is cut has no residual, and stays zero."""
        found = target * kept
        residual = (target - found) @ gram * kept
        inverse = gram.diagonal().clamp(min=TINY).reciprocal()  # of a dead input the residual is 0
        direction = residual * inverse
        size = (residual * direction).sum(1, keepdim=True)  # ‖r‖² (rows, 1)
        enough = self.tolerance**2 * size
        for _ in range(self.steps):
            if (size <= enough).all():
                return found
            pushed = direction @ gram * kept
            length = size / (direction * pushed).sum(1, keepdim=True).clamp(min=TINY)
            found.addcmul_(length, direction)
            residual.addcmul_(length, pushed, value=-1.0)
            steepest, before = residual * inverse, size
            size = (residual * steepest).sum(1, keepdim=True)
            direction = steepest.addcmul_(size / before.clamp(min=TINY), direction)
        if (size > enough).any():
            left = float((size / (enough / self.tolerance**2).clamp(min=TINY)).amax().sqrt())
            what = f"the residual of a row was still {left:.1g} of the first. Raise update.steps"
            after = f"update=least_squares stopped after {self.steps} steps"
            warnings.warn(f"{after}, where {what}", SweWarning, stacklevel=1)
        return found
