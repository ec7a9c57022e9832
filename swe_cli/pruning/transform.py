"""Weights rewritten by a transform; which way, the validation split decides."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from swe_cli.contracts import Candidate, Lens, Model, Setup, Transform
from swe_cli.errors import Interrupted, PruningError
from swe_cli.evaluation.loss import validation_loss
from swe_cli.models.transformer import FactorizedMLP
from swe_cli.pruning.shrink import load
from swe_cli.records import Tensors


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
    """Of those that save memory, the one of the lowest finite loss, if there is one.

    Ties go to fewer parameters, then to the first.
    """
    usable = [t for t in tried if t.saves_memory and math.isfinite(t.validation_loss_nats)]
    return min(usable, key=lambda t: (t.validation_loss_nats, t.parameters), default=None)


def transform(
    setup: Setup,
    weights: Tensors,
    how: Transform,
    lens: Lens,
    batch_size: int,
    stop: Callable[[], bool] = lambda: False,
) -> list[Tried]:
    """Every candidate of the grid, in order; the live model is left with the ``chosen_of`` them.

    Losses are of full passes over the validation split. ``weights`` are not changed. ``lens`` picks
    what may be rewritten.

    Raises PruningError where no candidate saves memory, or none that does has a finite loss.
    """
    weights = {name: tensor.to(setup.machine.device) for name, tensor in weights.items()}
    candidates = how.candidates(lens(weights))
    if not any(candidate.saves > 0 for candidate in candidates):
        raise PruningError(
            "At none of these ranks are the factors smaller than the matrices they stand for.",
            f"Choose lower ones: transform.ranks=[{max(1, min(c.rank for c in candidates) // 2)}]",
        )
    tried: list[Tried] = []
    best = weights
    for candidate in candidates:
        rewritten = how.apply(weights, candidate, setup.seed)
        load(setup.model, rewritten)
        this = Tried(
            "+".join(candidate.layers),
            candidate.rank,
            validation_loss(setup, batch_size),
            sum(tensor.numel() for tensor in rewritten.values()),
            _relative_error(setup.model, weights, candidate),
            candidate.saves > 0,
        )
        tried.append(this)
        if chosen_of(tried) is this:
            best = rewritten
        if stop():
            raise Interrupted("Stopped during a transform; finished cells are safe.")
    if chosen_of(tried) is None:
        raise PruningError(
            "No transform of the grid has a validation loss that is a number.",
            "Transform a model whose loss is: base=best, or train anew.",
        )
    load(setup.model, best)
    return tried


@torch.no_grad()
def _relative_error(model: Model, weights: Tensors, candidate: Candidate) -> float:
    """What the factors in the live model stand for, held against the matrices they replace."""
    missed = total = 0.0
    for name in candidate.layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, FactorizedMLP)
        for of, matrix in zip(("expand", "contract"), layer.matrices(), strict=True):
            dense = weights[f"{name}.{of}.weight"].double()
            missed += float((matrix.double() - dense).square().sum())
            total += float(dense.square().sum())
    return math.sqrt(missed / total) if total else 0.0
