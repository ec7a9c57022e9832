"""Masks as plain tensors: put on weights, counted, compared; and those of whole units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swe_cli.contracts import Lens, Model, UnitKind, Units
from swe_cli.errors import PruningError
from swe_cli.ranking import Ranking
from swe_cli.records import Counts, Masks, Tensors


@torch.no_grad()
def apply_masks(masks: Masks, weights: Mapping[str, Tensor]) -> None:
    """Zero the cut weights in place. ``weights`` are parameters or views of them, by mask name."""
    names = list(masks)
    kept = [masks[name].to(weights[name].device, weights[name].dtype) for name in names]
    torch._foreach_mul_([weights[name] for name in names], kept)


def cut_counts(masks: Masks) -> Counts:
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


@dataclass(frozen=True)
class UnitCut:
    """Whole units of one kind of a model, judged by the scores of their weights.

    ``earlier``: the masks of earlier rounds; may be empty.
    """

    model: Model
    lens: Lens
    kind: UnitKind
    earlier: Masks

    def layers(self, ranking: Ranking) -> list[Units]:
        """Those whose matrices may all be cut. Raises PruningError where there is none."""
        covered = {name.partition("[")[0] for name in ranking.sizes}
        layers = [
            units
            for units in self.model.units(self.kind)
            if {name for name in units.owned if name.endswith("weight")} <= covered
        ]
        if not layers:
            raise PruningError(
                f"pattern={self.kind} finds none among what may be cut.", "Widen it: roles=all"
            )
        return layers

    def ranking(self, layers: Sequence[Units], ranking: Ranking) -> Ranking:
        """A unit's score is the norm of the scores of all its weights; what is gone goes first."""
        scores = self._whole(0.0, ranking.scores)
        norms = {units.layer: _norms(units, scores) for units in layers}
        for units in layers:
            norms[units.layer][self.gone(units)] = -1.0  # a norm is not negative
        return Ranking(norms)

    def gone(self, units: Units) -> Tensor:
        """Which units earlier rounds have cut, bool (units,)."""
        if not self.earlier:
            return torch.zeros(len(units), dtype=torch.bool)
        # Biases may lie outside of what is cut; the matrices of a unit that is gone do not.
        return _norms(units, self._whole(1.0, self.earlier), matrices=True) == 0

    def _whole(self, fill: float, prunable: Tensors) -> Tensors:
        """Tensors like all parameters, ``fill`` where they are not among the ``prunable`` ones."""
        whole = {name: torch.full_like(p, fill) for name, p in self.model.weights().items()}
        for name, view in self.lens(whole).items():
            view.copy_(prunable[name])
        return whole

    def masks(self, layers: Sequence[Units], stays: Masks) -> Masks:
        """Weight by weight, of ``stays`` (layer → bool (units,)). PruningError for a layer that
        would lose its every head.
        """
        whole = {n: torch.ones_like(p, dtype=torch.bool) for n, p in self.model.weights().items()}
        for units in layers:
            if self.kind == "head" and not stays[units.layer].any():
                raise PruningError(
                    f"This would remove every head of {units.layer}.",
                    "Lower the ratio. (allocation=uniform takes as many from every layer.)",
                )
            for name, (dimension, index) in units.owned.items():
                lost = index[~stays[units.layer]].flatten()
                whole[name].index_fill_(dimension, lost.to(whole[name].device), False)
        return {name: mask.to("cpu", copy=True) for name, mask in self.lens(whole).items()}


def _norms(units: Units, scores: Tensors, *, matrices: bool = False) -> Tensor:
    """Of all that belongs to each unit, or of its part in matrices only: float64 (units,)."""
    total = torch.zeros(len(units), dtype=torch.float64)
    for name, (dimension, index) in units.owned.items():
        if matrices and not name.endswith("weight"):
            continue
        squares = scores[name].double().square()
        along = squares.movedim(dimension, 0).flatten(1).sum(1) if squares.dim() > 1 else squares
        total += along.cpu()[index].sum(1)
    return total.sqrt()
