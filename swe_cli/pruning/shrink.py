"""Masked units taken out: a smaller model that computes the same, and how such are loaded."""

from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from swe_cli.contracts import Model, UnitKind
from swe_cli.errors import RunError
from swe_cli.models.transformer import match_factorized
from swe_cli.records import Tensors


@torch.no_grad()
def shrink(model: Model, weights: Mapping[str, Tensor]) -> Tensors:
    """``weights`` without the neurons and heads that add nothing, or the same whatever comes in.

    What they add always, ``act(b)`` of a neuron that is fed nothing, is folded into the bias of
    the layer's output; where there is none to fold into, the unit stays. A layer keeps one head.
    The function is that of ``weights`` up to rounding. ``weights`` is not changed.
    """
    small = {name: tensor.clone() for name, tensor in weights.items()}
    for kind in get_args(UnitKind):
        for units in model.units(kind):
            constant, adds = units.adds(small)
            if units.bias is None:
                constant = constant & (adds == 0).all(1)
            if kind == "head" and constant.all():
                constant[0] = False
            if units.bias is not None:
                small[units.bias] += adds[constant].sum(0)
            for name, (dimension, index) in units.owned.items():
                stay = index[~constant.cpu()].flatten().sort().values
                small[name] = small[name].index_select(dimension, stay.to(small[name].device))
    return small


def fit(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give ``module`` the layers that ``weights`` are of, so that they can be loaded by name.

    Linear layers get their sizes; MLPs become factorised, or dense again. What the parameters hold
    then is undefined, until it is loaded.
    """
    match_factorized(module, weights)
    for name, layer in module.named_modules():
        if not isinstance(layer, nn.Linear) or f"{name}.weight" not in weights:
            continue
        layer.out_features, layer.in_features = weights[f"{name}.weight"].shape
        for of, parameter in layer.named_parameters(recurse=False):
            shape = weights.get(f"{name}.{of}", parameter).shape
            if parameter.shape != shape:
                parameter.data = parameter.data.new_empty(shape)


def load(module: nn.Module, weights: Mapping[str, Tensor], source: str = "a transform") -> None:
    """Copy ``weights`` into ``module``, which becomes as small as they are (see ``fit``).

    RunError, naming their ``source``, where names or shapes do not fit.
    """
    fit(module, weights)
    parameters = dict(module.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise RunError(f"The weights of {source} are not those of its model.")
    for name, parameter in parameters.items():
        parameter.data.copy_(weights[name])
