"""The length of a weight's way."""

from swe_cli.contracts import Evidence, Scores, WeightCriterion


class PathLength(WeightCriterion):
    """``Σ_t |W_t − W_{t−1}|``: a weight that training left alone goes first. Ours."""

    needs = ("path_length",)

    def score(self, evidence: Evidence) -> Scores:
        paths = evidence.trajectory["path_length"]
        return {name: paths[name].clone() for name in evidence.weights}
