"""Smaller models: units taken out, matrices in int8 or rewritten; and how such are loaded."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from swe_cli.contracts import Candidate, Lens, Model, Setup, Transform, UnitKind
from swe_cli.errors import Interrupted, PruningError, RunError
from swe_cli.evaluation.loss import evaluating, validation_loss
from swe_cli.files import SCALE
from swe_cli.models.transformer import FactorizedMLP, match_mlps
from swe_cli.records import Tensors
from swe_cli.training.state import Stop, never

# Loading


def fit(module: Model, weights: Mapping[str, Tensor]) -> None:
    """Give ``module`` the layers that ``weights`` are of, so that they can be loaded by name.

    Linear layers and norms get their sizes (of a block that was taken out: none); those that units
    are read by, biases, too; MLPs become factorised, gated or dense. What the parameters hold then
    is undefined, until it is loaded.
    """
    match_mlps(module, weights)
    read = {units.output for kind in get_args(UnitKind) for units in module.units(kind)}
    for name, layer in module.named_modules():
        own = getattr(layer, "weight", None)
        if own is None or (given := weights.get(f"{name}.weight")) is None:
            continue
        if not isinstance(layer, nn.Linear | nn.LayerNorm) and given.shape == own.shape:
            continue
        if isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = given.shape
        elif hasattr(layer, "nf"):  # Conv1D of transformers, (in, out)
            layer.nf = given.shape[1]
        if f"{name}.weight" in read and (f"{name}.bias" in weights) != (layer.bias is not None):
            bias = nn.Parameter(layer.weight.new_empty(0), layer.weight.requires_grad)
            layer.register_parameter("bias", bias if layer.bias is None else None)
        for of, parameter in layer.named_parameters(recurse=False):
            shape = weights.get(f"{name}.{of}", parameter).shape
            if parameter.shape != shape:
                parameter.data = parameter.data.new_empty(shape)


def load(module: Model, weights: Mapping[str, Tensor], source: str = "a transform") -> None:
    """Copy ``weights`` into ``module``, made to ``fit``. RunError, naming ``source``, else."""
    fit(module, weights)
    parameters = dict(module.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise RunError(f"The weights of {source} are not those of its model.")
    for name, parameter in parameters.items():
        parameter.data.copy_(weights[name])


# Units taken out


@torch.no_grad()
def shrink(model: Model, weights: Mapping[str, Tensor]) -> Tensors:
    """``weights`` without blocks, neurons and heads that add nothing, or the same whatever is read.

    What they add always, ``act(b)`` of a neuron that is fed nothing, is folded into the bias of
    the layer's output; where there is none to fold into, the unit stays. A layer keeps one head.
    The function is that of ``weights`` up to rounding. ``weights`` is not changed.
    """
    small = {name: tensor.clone() for name, tensor in weights.items()}
    for kind in get_args(UnitKind):
        for units in reversed(model.units(kind)):  # what a block adds goes to the one before it
            if not all(small[name].numel() for name in units.owned):
                continue  # they went with their block
            constant, adds = units.adds(small)
            if units.bias not in small:
                constant = constant & (adds == 0).all(1)
            if kind == "head" and constant.all():
                constant[0] = False
            if units.bias in small:
                small[units.bias] += adds[constant].sum(0)
            for name, (dimension, index) in units.owned.items():
                stay = index[~constant.cpu()].flatten().sort().values
                small[name] = small[name].index_select(dimension, stay.to(small[name].device))
    return small


def quantized(model: Model) -> Tensors:
    """Its weights, those of linear layers in int8: w ≈ q · s, s = max |w| / 127 of a row (float32),
    beside it as its ``SCALE``; zeros stay zeros. PruningError where it has no linear layer.
    """
    stored = model.weights()
    layers = (f"{n}.weight" for n, layer in model.named_modules() if isinstance(layer, nn.Linear))
    for name in [name for name in layers if name in stored and stored[name].numel()]:
        weight = stored[name].float()
        stored[f"{name}{SCALE}"] = scale = weight.abs().amax(1) / 127
        stored[name] = (weight / scale.clamp(min=1e-30)[:, None]).round().to(torch.int8)
    if not any(name.endswith(SCALE) for name in stored):
        raise PruningError("This model has no linear layer that int8 could hold.", "quantize=none")
    return stored


# Matrices rewritten by a transform; which way, the validation split decides


@dataclass(frozen=True)
class Tried:
    """A candidate of the grid. ``layer``: the names of what was stacked, joined by "+".

    ``parameters``: of the whole model, as stored. ``relative_error``: ‖T − T̂‖ / ‖T‖ of the stack.
    """

    layer: str
    rank: int
    validation_loss_nats: float
    parameters: int
    relative_error: float
    saves_memory: bool


def chosen_of(tried: Sequence[Tried]) -> Tried | None:
    """Of those that save memory, or need not, the lowest finite loss; of ties, the smallest."""
    fit = (t for t in tried if t.saves_memory or not t.rank)
    usable = [t for t in fit if math.isfinite(t.validation_loss_nats)]
    return min(usable, key=lambda t: (t.validation_loss_nats, t.parameters), default=None)


def transform(
    setup: Setup, weights: Tensors, how: Transform, lens: Lens, batch_size: int, stop: Stop = never
) -> list[Tried]:
    """Every candidate of the grid, in order; the live model is left with the ``chosen_of`` them.

    Losses are of full passes over the validation split. ``weights`` are not changed. ``lens`` picks
    what may be rewritten.

    Raises PruningError where no candidate saves memory, or none that does has a finite loss.
    """
    weights = {name: tensor.to(setup.machine.device) for name, tensor in weights.items()}
    candidates = how.candidates(lens(weights))
    if not any(candidate.saves > 0 or not candidate.rank for candidate in candidates):
        why = "At none of these ranks are the factors smaller than the matrices they stand for."
        lower = max(1, min(c.rank for c in candidates) // 2)
        raise PruningError(why, f"Choose lower ones: transform.ranks=[{lower}]")
    tried, best = list[Tried](), weights
    for candidate in candidates:
        rewritten = how.apply(weights, candidate, setup.seed)
        load(setup.model, rewritten)
        with torch.no_grad(), evaluating(setup.model):
            how.start(setup, candidate)
        loss, size = validation_loss(setup, batch_size), sum(t.numel() for t in rewritten.values())
        error, saves = _relative_error(setup.model, weights, candidate), candidate.saves > 0
        this = Tried("+".join(candidate.layers), candidate.rank, loss, size, error, saves)
        tried.append(this)
        if chosen_of(tried) is this:
            best = {name: weight.clone() for name, weight in setup.model.weights().items()}
        if stop():
            raise Interrupted("Stopped during a transform; finished cells are safe.")
    if chosen_of(tried) is None:
        why = "No transform of the grid has a validation loss that is a number."
        raise PruningError(why, "Transform a model whose loss is: base=best, or train anew.")
    load(setup.model, best)
    return tried


@torch.no_grad()
def _relative_error(model: Model, weights: Tensors, candidate: Candidate) -> float:
    """What factors in the live model stand for, held against the matrices they replace."""
    missed = total = 0.0
    for name in candidate.layers:
        layer = model.get_submodule(name)
        if not isinstance(layer, FactorizedMLP):  # nothing is replaced
            continue
        for of, matrix in zip(("expand", "contract"), layer.matrices(), strict=True):
            dense = weights[f"{name}.{of}.weight"].double()
            missed += float((matrix.double() - dense).square().sum())
            total += float(dense.square().sum())
    return math.sqrt(missed / total) if total else 0.0
