"""Masks as plain tensors: put them on weights, count them, compare them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from swe_cli.contracts import Masks


@torch.no_grad()
def apply(masks: Masks, weights: Mapping[str, Tensor]) -> None:
    """Zero the cut weights in place. ``weights`` are parameters or views of them, by mask name."""
    names = list(masks)
    kept = [masks[name].to(weights[name].device, weights[name].dtype) for name in names]
    torch._foreach_mul_([weights[name] for name in names], kept)


def cut_count(masks: Masks) -> int:
    """How many weights the masks cut."""
    return sum(mask.numel() - int(mask.sum()) for mask in masks.values())


def sparsity(masks: Masks) -> float:
    """Cut weights / prunable weights."""
    return cut_count(masks) / sum(mask.numel() for mask in masks.values())


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
