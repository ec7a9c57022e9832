"""Random: the control that any information must beat."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from swe_cli.contracts import Evidence, Scores
from swe_cli.seeds import derive


@dataclass(frozen=True)
class Random:
    """Uniform scores, drawn per tensor from the run's seed: another seed, another mask."""

    needs: ClassVar[Sequence[str]] = ()

    def score(self, evidence: Evidence) -> Scores:
        return {
            name: torch.rand(
                weight.shape,
                generator=torch.Generator().manual_seed(derive(evidence.seed, f"random/{name}")),
            )
            for name, weight in evidence.weights.items()
        }
