"""Bézier pruning: of every bin of a neuron's values, so many as a curve says."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from swe_cli.contracts import DrawnCriterion, Evidence
from swe_cli.errors import UsageError
from swe_cli.records import Masks, Tensors
from swe_cli.seeds import derive


@dataclass(frozen=True, kw_only=True)
class Bezier(DrawnCriterion):
    """``B(x) = a(1−x)³ + 3b·x(1−x)² + 3c·x²(1−x) + d·x³`` of a histogram's bins (LOD 2022).

    The n values of a neuron (a dim-0 slice) are put into an even number of about √n bins of equal
    width over their own range. The fractions B(1 → 0) of the lower half of the bins and B(0 → 1) of
    the upper half, min–max normalised and then shifted (``+ u``) or scaled (``· u``), say how many
    of a bin's members are cut, ⌊count · fraction⌋ at random: most near the middle of the range.
    The sparsity is what comes out. What has one dimension has no neurons, and stays whole.
    """

    a: float
    b: float
    c: float
    d: float
    u: Annotated[float, Field(ge=0)]
    by: Literal["add", "multiply"]

    def __post_init__(self) -> None:
        if self.a == self.b == self.c == self.d:
            why = "criterion.a, b, c and d are equal: a flat curve has no shape to cut by."
            shape = "criterion.a=1 criterion.b=0.14 criterion.c=0.14 criterion.d=0.1"
            raise UsageError(why, f"A published one: {shape}")

    def values(self, evidence: Evidence) -> Tensors:
        """What the histograms are of, by prunable name."""
        return evidence.weights

    def draw(self, evidence: Evidence, round: int) -> Masks:
        masks = Masks()
        for name, values in self.values(evidence).items():
            masks[name] = torch.ones(values.shape, dtype=torch.bool)
            if values.dim() > 1:
                seed = derive(evidence.seed, f"bezier/{name}", round)
                order = torch.rand(values.shape, generator=torch.Generator().manual_seed(seed))
                rows = values.detach().cpu().double().flatten(1)
                masks[name] = ~self._cut(rows, order.double().flatten(1)).view(values.shape)
        return masks

    def fractions(self, inputs: int) -> Tensor:
        """What is cut of each bin, lowest values first, float64 (bins,)."""
        half = max(1, math.isqrt(inputs) // 2)
        outer, inner = torch.linspace(1, 0, half).double(), torch.linspace(0, 1, half).double()
        x = torch.cat([outer, inner])
        curve = (
            self.a * (1 - x) ** 3
            + 3 * self.b * x * (1 - x) ** 2
            + 3 * self.c * x**2 * (1 - x)
            + self.d * x**3
        )
        span = curve.max() - curve.min()
        shape = (curve - curve.min()) / span if span > 0 else torch.zeros_like(curve)
        shifted = shape + self.u if self.by == "add" else shape * self.u
        return shifted.clamp(0.0, 1.0)

    def _cut(self, rows: Tensor, order: Tensor) -> Tensor:
        """Which of ``rows`` (neurons, n) go; inside a bin ``order``, in [0, 1), decides."""
        fractions = self.fractions(rows.shape[1])
        bins = len(fractions)
        low, high = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
        place = torch.where(high > low, (rows - low) / (high - low), 0.5)  # all equal: the middle
        bin_of = (place * bins).long().clamp(max=bins - 1)
        counts = torch.zeros(len(rows), bins, dtype=torch.long)
        counts.scatter_add_(1, bin_of, torch.ones_like(bin_of))
        ends = counts.cumsum(1) - counts + (counts * fractions).long()  # of what goes of each bin
        sequence = (bin_of + order).argsort(dim=1)  # bin by bin, at random inside
        goes = torch.arange(rows.shape[1]) < ends.gather(1, bin_of.gather(1, sequence))
        return torch.zeros_like(goes).scatter_(1, sequence, goes)


@dataclass(frozen=True, kw_only=True)
class BezierMean(Bezier):
    """``a(1−x)³ + 3b·x(1−x)² + 3c·x²(1−x) + d·x³`` of each bin of a neuron's *mean* weights goes,
    at random (Bézier pruning, LOD 2022).

    The mean is √-weighted, over training, and stays as it is. Published over the last 50 epochs
    (see ``swe_sqrt``), one mask an epoch, each laid on the last: ``schedule=iterative``.
    """

    needs = ("sqrt_average",)

    def values(self, evidence: Evidence) -> Tensors:
        averages = evidence.trajectory["sqrt_average"]
        return {name: averages[name] for name in evidence.weights}


@dataclass(frozen=True, kw_only=True)
class BezierActual(Bezier):
    """``a(1−x)³ + 3b·x(1−x)² + 3c·x²(1−x) + d·x³`` of each bin of a neuron's *actual* weights goes,
    at random (Bézier pruning, LOD 2022).

    Actual is as they are when the mask is drawn, in every round anew.
    """
