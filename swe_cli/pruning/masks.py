"""Masks as plain tensors: put on weights, counted, compared; and those of whole units."""

from collections.abc import Mapping

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
    both = sum(int((~(kept | second[name])).sum()) for name, kept in first.items())
    either = sum(int((~(kept & second[name])).sum()) for name, kept in first.items())
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
        why = f"Every slice has more zeros than {most_zeros:g}: nothing would stay."
        raise PruningError(why, "Raise fuse; the paper's is 0.75")
    return fused


class UnitCut:
    """Whole units of one kind of a model, judged by the scores of their weights.

    ``earlier``: the masks of earlier rounds; may be empty. ``left``: the units of each layer that
    they leave, bool (units,). Raises PruningError where there is no layer of whose units all
    matrices may be cut.
    """

    def __init__(self, model: Model, lens: Lens, kind: UnitKind, earlier: Masks) -> None:
        self.kind, self.lens, weights = kind, lens, model.weights()
        self.shapes = {name: weight.shape for name, weight in weights.items()}
        covered = {name.partition("[")[0] for name in lens(weights)}
        self.layers: dict[str, list[Units]] = {}
        for units in model.units(kind):
            if {name for name in units.owned if len(self.shapes[name]) > 1} <= covered:
                self.layers.setdefault(units.layer, []).append(units)
        self.units = [units for layer in self.layers.values() for units in layer]
        self.outputs = {units.output for units in self.units if units.output}
        if not self.layers:
            why = f"pattern={kind} finds none among what may be cut."
            raise PruningError(why, "Widen it: roles=all")
        self.left = {n: norm > 0 for n, norm in self._norms(earlier).items()} if earlier else {}

    def ranking(self, ranking: Ranking, by_output: bool = False) -> Ranking:
        """By the norm of scores of a unit's weights, or its output's; what is gone goes first."""
        norms = self._norms(ranking.scores, by_output)
        for layer, left in self.left.items():
            norms[layer][~left] = -1.0  # a norm is not negative
        return Ranking(norms)

    def _norms(self, values: Tensors, by_output: bool = False) -> Tensors:
        """Of the values of all weights of each unit: layer → float64 (units,)."""
        names = [name for units in self.units for name in units.owned]
        whole = {name: torch.zeros(self.shapes[name], dtype=torch.float64) for name in names}
        for name, view in self.lens(whole).items():
            view.copy_(values[name])
        norms: dict[str, list[Tensor]] = {}
        for units in self.units:
            judged = [units.output] if by_output and units.output else units.owned
            owned = [whole[n].movedim(units.owned[n][0], 0)[units.owned[n][1]] for n in judged]
            of_unit = torch.cat([of.flatten(1) for of in owned], dim=1)
            norms.setdefault(units.layer, []).append(of_unit.norm(dim=1))
        return {layer: torch.cat(of) for layer, of in norms.items()}

    def masks(self, stays: Masks) -> Masks:
        """By weight, of layer → bool (units,). PruningError where all heads or blocks would go."""
        kept = {name: torch.ones(shape, dtype=torch.bool) for name, shape in self.shapes.items()}
        for layer, stay in stays.items():
            if self.kind != "neuron" and not stay.any():
                hint = "Lower the ratio. (allocation=uniform takes as many from every layer.)"
                raise PruningError(f"This would remove every {self.kind} of {layer}.", hint)
            parts = torch.split(stay, [len(units) for units in self.layers[layer]])
            for units, part in zip(self.layers[layer], parts, strict=True):
                for name, (along, index) in units.owned.items():
                    kept[name].movedim(along, 0)[index[~part].flatten()] = False
        return self.lens(kept)
