"""Smart Pruning: magnitude, each tensor against the spread of its average."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class SWESqrt:
    """``|W| / std(W̄)``, W̄ the √-weighted average of training (Smart Pruning, LOD 2022).

    Inside a tensor it ranks as magnitude does; between tensors it is an allocation: cut at one
    threshold, each tensor loses by its own spread. Published with W the best-validation weights
    (``base=best``) and W̄ over the last 50 epochs; see ``statistics.sqrt_average``. A tensor whose
    average has no spread is never cut first.
    """

    needs: ClassVar[Sequence[str]] = ("sqrt_average",)

    def score(self, evidence: Evidence) -> Scores:
        averages = evidence.trajectory["sqrt_average"]
        return {
            name: weight.abs() / (averages[name].std() if weight.numel() > 1 else 0.0)
            for name, weight in evidence.weights.items()
        }
