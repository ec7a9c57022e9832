"""The paper's second stage: what has become mostly zeros goes as a whole."""

import torch

from swe_cli.contracts import Masks, Tensors
from swe_cli.errors import PruningError


@torch.no_grad()
def fuse(weights: Tensors, masks: Masks, most_zeros: float) -> Masks:
    """``masks`` that also cut every dim-0 slice (neuron) with more than ``most_zeros`` of zeros.

    ``weights``: the live weights under ``masks``, by the same names; their natural zeros count, as
    in the author's code (arXiv 2502.17071, "fuse"). A vector's slices are single weights: those
    that are zero already.
    """
    fused = Masks()
    for name, mask in masks.items():
        zero = (weights[name] == 0).cpu().reshape(mask.shape[0], -1)
        gone = zero.double().mean(1) > most_zeros
        fused[name] = mask & ~gone.view(-1, *[1] * (mask.dim() - 1))
    if not any(mask.any() for mask in fused.values()):
        raise PruningError(
            f"Every slice has more zeros than {most_zeros:g}: nothing would stay.",
            "Raise fuse; the paper's is 0.75",
        )
    return fused
