"""Connection sensitivity: what the loss would feel, to first order, on average."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class SNIP:
    """``|W · ḡ|``, ḡ the mean gradient over the calibration set (Lee et al. 2019).

    The absolute value is taken after averaging. Published at initialisation; here of any weights.
    """

    needs: ClassVar[Sequence[str]] = ("mean_gradient",)

    def score(self, evidence: Evidence) -> Scores:
        gradients = evidence.calibration["mean_gradient"]
        return {n: (weight * gradients[n]).abs() for n, weight in evidence.weights.items()}
