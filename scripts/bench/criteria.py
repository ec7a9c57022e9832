"""Bench 7: from a recorded training to masks, for every criterion that needs no data.

    python scripts/bench/criteria.py

Scores, ranking and exact masks at one ratio (0.5, allocation=global) of the matrices of gpt_small,
the criteria in turns. Wanted: ≤ 0.5 s each.
"""

import statistics

import torch
from common import seconds
from masks import SHAPES

from swe_cli.allocation.counts import Global
from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import BLOCKS, GRADIENTS, Criterion, Evidence
from swe_cli.experiments.spec import built
from swe_cli.ranking import Ranking, exact_count

RATIO, ROUNDS, OBSERVED = 0.5, 5, 3
ROOT = ConfigRoot()


def lived() -> Evidence:
    """Weights after a few observations, and every statistic of them."""
    generator = torch.Generator().manual_seed(0)
    weights = {f"w{i}": 0.02 * torch.randn(s, generator=generator) for i, s in enumerate(SHAPES)}
    made = {n: built(component("statistic", n, ROOT), weights) for n in ROOT.options("statistic")}
    for index in range(1, OBSERVED + 1):
        steps = {n: 0.001 * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
        for statistic in made.values():
            statistic.before_step(weights, steps, 2 / (index + 1))
        for name, weight in weights.items():
            weight.sub_(steps[name])
        for statistic in made.values():
            statistic.update(weights, index, 2 / (index + 1))
            statistic.after_step({"exp_avg_sq": {n: g.square() for n, g in steps.items()}})
    return Evidence(weights, {name: statistic.state() for name, statistic in made.items()})


def free_of_data() -> dict[str, Criterion]:
    criteria = {
        name: built(component("criterion", name, ROOT)) for name in ROOT.options("criterion")
    }
    return {
        name: criterion
        for name, criterion in criteria.items()
        if criterion.granularity == "weight" and not {*criterion.needs} & {*GRADIENTS, *BLOCKS}
    }


def masks(criterion: Criterion, evidence: Evidence) -> dict[str, torch.Tensor]:
    ranked = Ranking(criterion.score(evidence), evidence.weights)
    return ranked.masks(Global().counts(ranked, RATIO, None))


def main() -> None:
    evidence, criteria = lived(), free_of_data()
    total = sum(weight.numel() for weight in evidence.weights.values())
    times: dict[str, list[float]] = {name: [] for name in criteria}
    for name, criterion in criteria.items():  # warm, and exact
        cut = sum(int((~mask).sum()) for mask in masks(criterion, evidence).values())
        assert cut == exact_count(RATIO, total), (name, cut)
    for _ in range(ROUNDS):
        for name, criterion in criteria.items():
            times[name].append(seconds(lambda c=criterion: masks(c, evidence)))
    medians = {name: statistics.median(seen) for name, seen in times.items()}
    print(f"{total:,} weights, ratio {RATIO}: scores, ranking, masks")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        print(f"   {name:16} {median:.3f} s")
    slowest = max(medians, key=medians.__getitem__)
    print(f"7. slowest: {slowest} {medians[slowest]:.3f} s (wanted: at most 0.5 s)")


if __name__ == "__main__":
    main()
