"""Smart Pruning."""

from math import inf

import torch

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class SWESqrt(WeightCriterion):
    """``|W| / std(W̄)``, W̄ the √-weighted average of training (Smart Pruning, LOD 2022).

    Inside a tensor it ranks as magnitude does; between tensors it is an allocation: cut at one
    threshold, each tensor loses by its own spread. Published with W the best-validation weights
    (``base=best``) and W̄ over the last 50 epochs; see ``statistics.sqrt_average``. A tensor whose
    average has no spread is never cut first.
    """

    needs = ("sqrt_average",)

    def score(self, evidence: Evidence) -> Scores:
        averages = evidence.trajectory["sqrt_average"]
        scores = Scores()
        for name, weight in evidence.weights.items():
            spread = float(averages[name].std()) if weight.numel() > 1 else 0.0
            scores[name] = weight.abs() / spread if spread > 0 else torch.full_like(weight, inf)
        return scores
