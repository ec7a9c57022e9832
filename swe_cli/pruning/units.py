"""Whole units judged by the scores of their weights, and masks that take them out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swe_cli.contracts import Lens, Model, UnitKind, Units
from swe_cli.errors import PruningError
from swe_cli.ranking import Ranking
from swe_cli.records import Masks, Tensors


@dataclass(frozen=True)
class UnitCut:
    """Units of one kind of a model. ``earlier``: the masks of earlier rounds; may be empty."""

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
        whole = {n: torch.zeros_like(p) for n, p in self.model.weights().items()}
        for name, view in self.lens(whole).items():
            view.copy_(ranking.scores[name])
        norms = {units.layer: _norms(units, whole) for units in layers}
        for units in layers:
            norms[units.layer][self.gone(units)] = -1.0  # a norm is not negative
        return Ranking(norms)

    def gone(self, units: Units) -> Tensor:
        """Which units earlier rounds have cut, bool (units,)."""
        if not self.earlier:
            return torch.zeros(len(units), dtype=torch.bool)
        whole = {n: torch.ones_like(p, dtype=torch.bool) for n, p in self.model.weights().items()}
        for name, view in self.lens(whole).items():
            view.copy_(self.earlier[name])
        # Biases may lie outside of what is cut; the matrices of a unit that is gone do not.
        return _norms(units, {n: m.to(torch.float32) for n, m in whole.items()}, matrices=True) == 0

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
