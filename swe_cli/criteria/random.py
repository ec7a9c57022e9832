"""Random scores, the control."""

import torch

from swe_cli.contracts import Evidence, Scores, WeightCriterion
from swe_cli.seeds import derive


class Random(WeightCriterion):
    """Uniform scores, drawn per tensor from the run's seed: another seed, another mask."""

    def score(self, evidence: Evidence) -> Scores:
        return {
            name: torch.rand(
                weight.shape,
                generator=torch.Generator().manual_seed(derive(evidence.seed, f"random/{name}")),
            )
            for name, weight in evidence.weights.items()
        }
