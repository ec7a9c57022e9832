"""MLPs whose matrices are kept as factors, and never multiplied out.

Shapes: C width, N hidden neurons, R rank.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.models.transformer import ACTIVATIONS, MLP


class FactorizedMLP(nn.Module):
    """``MLP`` with ``expand.weight``ᵀ ≈ left · K_0 · rightᵀ and ``contract.weight`` ≈ left · K_1 ·
    rightᵀ, K_s = diag(core[s]) (CP) or core[s] (Tucker, whose two ranks may differ).

    ``left`` (C, R), ``right`` (N, R); ``core`` (2, R) of diagonals, or (2, R, R) of matrices. MLPs
    that were stacked share ``left`` and ``right``. The order of its products is from the input on,
    so that no dense matrix is ever made. What its biases hold at first is undefined.
    """

    def __init__(
        self,
        left: nn.Parameter,
        right: nn.Parameter,
        core: nn.Parameter,
        *,
        dropout: float,
        activation: str,
        bias: bool,
    ) -> None:
        super().__init__()
        self.left, self.right, self.core = left, right, core
        self.expand_bias = nn.Parameter(right.new_empty(len(right))) if bias else None
        self.contract_bias = nn.Parameter(left.new_empty(len(left))) if bias else None
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        diagonal = self.core.dim() == 2
        expand, contract = self.core
        read = x @ self.left
        read = read * expand if diagonal else read @ expand
        hidden = ACTIVATIONS[self.activation](F.linear(read, self.right, self.expand_bias))
        written = hidden @ self.right
        written = written * contract if diagonal else written @ contract.T
        projected: Tensor = self.dropout(F.linear(written, self.left, self.contract_bias))
        return projected

    @torch.no_grad()
    def matrices(self) -> tuple[Tensor, Tensor]:
        """The ``expand.weight`` (N, C) and ``contract.weight`` (C, N) that it stands for."""
        cores = self.core.diag_embed() if self.core.dim() == 2 else self.core
        expand, contract = self.left @ cores @ self.right.T
        return expand.T, contract


def match_factorized(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make the MLPs of ``module`` factorised, or dense again, as the names of ``weights`` say.

    An MLP with a ``core`` is factorised; where it has no ``left`` and ``right``, they are those of
    the last one before it that does: one parameter, under the name of its first owner. What new
    parameters hold is undefined. Names that fit no MLP change nothing.
    """
    last: FactorizedMLP | None = None
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, MLP | FactorizedMLP):
            continue
        like = next(layer.parameters())
        bias = any(of.endswith("bias") for of, _ in layer.named_parameters())
        dropout, activation = layer.dropout.p, layer.activation
        new: MLP | FactorizedMLP
        if f"{name}.core" in weights and (last or f"{name}.left" in weights):
            factors = (
                nn.Parameter(like.new_empty(weights[f"{name}.{of}"].shape))
                if f"{name}.{of}" in weights
                else getattr(last, of)
                for of in ("left", "right", "core")
            )
            new = FactorizedMLP(*factors, dropout=dropout, activation=activation, bias=bias)
            last = new
        elif f"{name}.expand.weight" in weights and isinstance(layer, FactorizedMLP):
            with torch.device("meta"):  # there, no initial weights are drawn
                new = MLP(len(layer.left), dropout, activation, bias=bias)
            new = new.to_empty(device=like.device).to(like.dtype)
        else:
            continue
        parent, _, child = name.rpartition(".")
        new.requires_grad_(like.requires_grad).train(layer.training)
        setattr(module.get_submodule(parent), child, new)
