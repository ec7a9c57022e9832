"""What a model costs as it stands: what is stored, and what a forward pass computes."""

from collections.abc import Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from swe_cli.contracts import DataShape, Model, Setup
from swe_cli.evaluation.loss import evaluating
from swe_cli.records import Batch


def cost(setup: Setup) -> Iterator[tuple[str, float]]:
    """``parameters``: stored numbers, shared ones once. ``bytes``: of them, in their dtypes.
    ``flops_per_token``: of one forward pass over a full context, divided by its text tokens.

    Counted on a real forward pass of one window, about one image where there are images.
    FLOPs are those of matrix products, 2 · in · out for each row that a matrix is applied to:
    linear layers, factors, the head, scores and values of attention between all positions (a causal
    one computes as much). Look-ups, norms, activations and diagonals are left out. A masked zero is
    stored and multiplied like any number: a masked model is no smaller and no faster.
    """
    model = setup.model
    parameters = list(model.parameters())  # a tied one comes once
    batch = _window(model, setup.dataset.shape, parameters[0].device)
    counter = FlopCounterMode(display=False)
    # Fused attention would hide its products from the counter.
    with torch.no_grad(), evaluating(model), sdpa_kernel(SDPBackend.MATH), counter:
        model(batch)
    yield "parameters", float(sum(p.numel() for p in parameters))
    yield "bytes", float(sum(p.numel() * p.element_size() for p in parameters))
    yield "flops_per_token", counter.get_total_flops() / model.context


def _window(model: Model, shape: DataShape, device: torch.device) -> Batch:
    tokens = torch.zeros(1, model.context, dtype=torch.int64, device=device)
    batch = {"tokens": tokens, "targets": tokens}
    if shape.image is not None:
        batch["images"] = torch.zeros(1, *shape.image, dtype=torch.uint8, device=device)
        batch["image"] = torch.zeros(1, dtype=torch.int64, device=device)
    return batch
