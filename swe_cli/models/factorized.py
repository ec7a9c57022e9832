"""MLPs whose matrices are kept as factors, and never multiplied out.

Shapes: C width, N hidden neurons, R rank.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.models.transformer import MLP, activation_of

EXPAND, CONTRACT = 0, 1  # slices of the stacked tensor


class Factors(NamedTuple):
    """``left`` (C, R), ``right`` (N, R); ``core`` (2, R) of diagonals, or (2, R, R) of matrices.

    Layers that were stacked share ``left`` and ``right``: each has a core of its own.
    """

    left: nn.Parameter
    right: nn.Parameter
    core: nn.Parameter


class FactorizedMLP(nn.Module):
    """``MLP`` with ``expand.weight``ᵀ ≈ left · K_0 · rightᵀ and ``contract.weight`` ≈ left · K_1 ·
    rightᵀ, K_s = diag(core[s]) (CP) or core[s] (Tucker, whose two ranks may differ).

    The order of its products is from the input on, so that no dense matrix is ever made.
    """

    def __init__(
        self,
        factors: Factors,
        expand_bias: nn.Parameter | None,
        contract_bias: nn.Parameter | None,
        *,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        self.left, self.right, self.core = factors
        self.expand_bias, self.contract_bias = expand_bias, contract_bias
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        read = self._mixed(x @ self.left, EXPAND)
        hidden = activation_of(self.activation)(F.linear(read, self.right, self.expand_bias))
        written = self._mixed(hidden @ self.right, CONTRACT)
        projected: Tensor = self.dropout(F.linear(written, self.left, self.contract_bias))
        return projected

    def _mixed(self, x: Tensor, part: int) -> Tensor:
        """(…, R) → (…, R): what lies between the two factors, in the direction of ``part``."""
        core = self.core[part]
        if core.dim() == 1:
            return x * core
        return x @ (core if part == EXPAND else core.T)

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
    shared: Factors | None = None
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, MLP | FactorizedMLP):
            continue
        new: MLP | FactorizedMLP
        if f"{name}.core" in weights and (shared or f"{name}.left" in weights):
            shared = _factors(layer, name, weights, shared)
            new = _factorized(layer, shared)
        elif f"{name}.expand.weight" in weights and isinstance(layer, FactorizedMLP):
            new = _dense(layer)
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, new.train(layer.training))


def _factors(
    layer: nn.Module, name: str, weights: Mapping[str, Tensor], shared: Factors | None
) -> Factors:
    core = _parameter_like(layer, *weights[f"{name}.core"].shape)
    if shared is not None and f"{name}.left" not in weights:
        return shared._replace(core=core)
    left, right = weights[f"{name}.left"], weights[f"{name}.right"]
    return Factors(_parameter_like(layer, *left.shape), _parameter_like(layer, *right.shape), core)


def _factorized(layer: MLP | FactorizedMLP, factors: Factors) -> FactorizedMLP:
    biases = (
        (layer.expand.bias, layer.contract.bias)
        if isinstance(layer, MLP)
        else (layer.expand_bias, layer.contract_bias)
    )
    expand_bias, contract_bias = (
        None if bias is None else _parameter_like(layer, size)
        for bias, size in zip(biases, (len(factors.right), len(factors.left)), strict=True)
    )
    return FactorizedMLP(
        factors, expand_bias, contract_bias, dropout=layer.dropout.p, activation=layer.activation
    )


def _dense(layer: FactorizedMLP) -> MLP:
    like = layer.core
    bias = layer.expand_bias is not None
    with torch.device("meta"):  # there, no initial weights are drawn
        new = MLP(len(layer.left), layer.dropout.p, layer.activation, bias=bias)
    return new.to_empty(device=like.device).to(like.dtype).requires_grad_(like.requires_grad)


def _parameter_like(layer: nn.Module, *shape: int) -> nn.Parameter:
    """Empty; on the device, in the dtype and as frozen as the parameters of ``layer``."""
    like = next(layer.parameters())
    return nn.Parameter(like.new_empty(shape), requires_grad=like.requires_grad)
