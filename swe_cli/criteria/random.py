"""Random: the control that any information must beat."""

from dataclasses import dataclass

import torch

from swe_cli.contracts import Criterion, Evidence
from swe_cli.records import Scores
from swe_cli.seeds import derive


@dataclass(frozen=True)
class Random(Criterion):
    """Uniform scores, drawn per tensor from the run's seed: another seed, another mask."""

    def score(self, evidence: Evidence) -> Scores:
        return {
            name: torch.rand(
                weight.shape,
                generator=torch.Generator().manual_seed(derive(evidence.seed, f"random/{name}")),
            )
            for name, weight in evidence.weights.items()
        }
