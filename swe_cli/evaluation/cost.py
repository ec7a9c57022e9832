"""What a model costs as it stands: what is stored, and what a forward pass computes."""

from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from swe_cli.contracts import Batch, DataShape, Model
from swe_cli.evaluation.loss import evaluating


@dataclass(frozen=True)
class Cost:
    """``parameters``: stored numbers, shared ones once. ``bytes``: of them, in their dtypes.

    ``flops_per_token``: of one forward pass over a full context, divided by its text tokens.
    """

    parameters: int
    bytes: int
    flops_per_token: float


def cost(model: Model, shape: DataShape) -> Cost:
    """Counted on a real forward pass of one window, about one image where there are images.

    FLOPs are those of matrix products, 2 · in · out for each row that a matrix is applied to:
    linear layers, factors, the head, scores and values of attention between all positions (a causal
    one computes as much). Look-ups, norms, activations and diagonals are left out. A masked zero is
    stored and multiplied like any number: a masked model is no smaller and no faster.
    """
    assert isinstance(model, torch.nn.Module)
    parameters = list(model.parameters())  # a tied one comes once
    batch = _window(model, shape, parameters[0].device)
    counter = FlopCounterMode(display=False)
    # Fused attention would hide its products from the counter.
    with torch.no_grad(), evaluating(model), sdpa_kernel(SDPBackend.MATH), counter:
        model(batch)
    return Cost(
        sum(p.numel() for p in parameters),
        sum(p.numel() * p.element_size() for p in parameters),
        counter.get_total_flops() / model.context,
    )


def _window(model: Model, shape: DataShape, device: torch.device) -> Batch:
    tokens = torch.zeros(1, model.context, dtype=torch.int64, device=device)
    batch = {"tokens": tokens, "targets": tokens}
    if shape.image is not None:
        batch["images"] = torch.zeros(1, *shape.image, dtype=torch.uint8, device=device)
        batch["image"] = torch.zeros(1, dtype=torch.int64, device=device)
    return batch
