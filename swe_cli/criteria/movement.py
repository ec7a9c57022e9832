"""Whether training pushed a weight away from zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class Movement:
    """``−Σ_t W_{t−1} · g_t`` (Sanh et al. 2020). Signed: low is moving to zero, and goes first."""

    needs: ClassVar[Sequence[str]] = ("movement",)

    def score(self, evidence: Evidence) -> Scores:
        return {name: moved.clone() for name, moved in evidence.trajectory["movement"].items()}
