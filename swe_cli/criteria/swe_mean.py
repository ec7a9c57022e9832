"""The ablation of SWE's weighting: every step counts the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class SWEMean:
    """``|mean_t W_t|``: SWE (arXiv 2502.17071) with all steps counting the same. An ablation."""

    needs: ClassVar[Sequence[str]] = ("mean",)

    def score(self, evidence: Evidence) -> Scores:
        return {name: mean.abs() for name, mean in evidence.trajectory["mean"].items()}
