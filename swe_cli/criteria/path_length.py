"""How far a weight travelled, every turn included."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Evidence, Scores


@dataclass(frozen=True)
class PathLength:
    """``Σ_t |W_t − W_{t−1}|``: a weight that training left alone goes first. Ours."""

    needs: ClassVar[Sequence[str]] = ("path_length",)

    def score(self, evidence: Evidence) -> Scores:
        paths = evidence.trajectory["path_length"]
        return {name: paths[name].clone() for name in evidence.weights}
