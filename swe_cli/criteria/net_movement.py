"""How far a weight ended from where it started."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class NetMovement:
    """``|W − W_0|``: a weight that training did not need to move goes first (Zhou et al. 2019)."""

    needs: ClassVar[Sequence[str]] = ("initial_weights",)

    def score(self, evidence: Evidence) -> Scores:
        initial = evidence.trajectory["initial_weights"]
        return {name: (weight - initial[name]).abs() for name, weight in evidence.weights.items()}
