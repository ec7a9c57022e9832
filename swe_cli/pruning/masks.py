"""Masks as plain tensors: put them on weights, count them, compare them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from swe_cli.errors import PruningError
from swe_cli.records import Masks, Tensors


@torch.no_grad()
def apply_masks(masks: Masks, weights: Mapping[str, Tensor]) -> None:
    """Zero the cut weights in place. ``weights`` are parameters or views of them, by mask name."""
    names = list(masks)
    kept = [masks[name].to(weights[name].device, weights[name].dtype) for name in names]
    torch._foreach_mul_([weights[name] for name in names], kept)


def cut_counts(masks: Masks) -> dict[str, int]:
    """How many weights of each tensor the masks cut."""
    return {name: mask.numel() - int(mask.sum()) for name, mask in masks.items()}


def sparsity(masks: Masks) -> float:
    """Cut weights / prunable weights; 0 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    return sum(cut_counts(masks).values()) / total if total else 0.0


def zeros(parameters: Tensors) -> int:
    """Exact zeros among all parameters: the numerator of compression."""
    return sum(p.numel() - int(torch.count_nonzero(p)) for p in parameters.values())


def jaccard_of_cuts(first: Masks, second: Masks) -> float:
    """|A ∩ B| / |A ∪ B| of the weights that two masks cut; 1.0 where neither cuts anything.

    Two independent uniform cuts of a fraction r overlap by r / (2 - r).
    """
    both = either = 0
    for name, mask in first.items():
        kept_in_one = int((mask | second[name]).sum())
        kept_in_both = int((mask & second[name]).sum())
        both += mask.numel() - kept_in_one
        either += mask.numel() - kept_in_both
    return both / either if either else 1.0


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
