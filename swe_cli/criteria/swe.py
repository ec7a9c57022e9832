"""Systematic Weight Evaluation: score a weight by how it lived."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class SWE:
    """``|W̄|``, the magnitude of the weighted running average (arXiv 2502.17071, section 3)."""

    published: ClassVar[str] = "sigma"
    needs: ClassVar[Sequence[str]] = ("weighted_average",)

    def score(self, evidence: Evidence) -> Scores:
        averages = evidence.trajectory["weighted_average"]
        return {name: average.abs() for name, average in averages.items()}
