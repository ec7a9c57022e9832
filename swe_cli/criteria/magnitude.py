"""Magnitude: the baseline that every criterion must beat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class Magnitude:
    """``|W|`` of the weights that are cut (Han et al. 2015).

    With ``base=averaged`` those weights are W̄, so it then ranks exactly as SWE does.
    """

    needs: ClassVar[Sequence[str]] = ()

    def score(self, evidence: Evidence) -> Scores:
        return {name: weight.abs() for name, weight in evidence.weights.items()}
