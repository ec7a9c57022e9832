"""Scores + allocation + pattern → masks → a pruned model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from swe_cli.contracts import (
    Allocation,
    Criterion,
    Evidence,
    Lens,
    Masks,
    Pattern,
    RankedScores,
    RateAllocation,
    Tensors,
)
from swe_cli.errors import PruningError, UsageError
from swe_cli.masks import masks as masking
from swe_cli.masks.rank import Ranking


@dataclass
class Scoring:
    """Ranks the same weights by any criterion; each is scored once, whatever the ratios."""

    evidence: Evidence
    _ranked: dict[str, Ranking] = field(default_factory=dict)

    def rank(self, key: str, criterion: Criterion) -> Ranking:
        """The ranking by ``criterion``; ``key`` tells it from others, options included."""
        if key not in self._ranked:
            scores = criterion.score(self.evidence)
            _check_scores(key, scores, self.evidence.weights)
            self._ranked[key] = Ranking(scores, self.evidence.weights)
        return self._ranked[key]


def choose_masks(
    ranked: RankedScores,
    allocation: Allocation,
    pattern: Pattern,
    *,
    ratio: float | None,
    rate: float | None,
    rank_by: Callable[[str], RankedScores],
) -> Masks:
    """Masks for one ratio, or for one of the paper's rates (exactly one of the two is given).

    ``rank_by`` ranks the same weights by another criterion, for allocations that consult one.
    """
    if rate is None:
        assert ratio is not None
        return pattern.masks(ranked, allocation.counts(ranked, ratio, rank_by))
    if not isinstance(allocation, RateAllocation):
        raise UsageError(
            "A rate is a multiple of a standard deviation, which only allocation=sigma knows.",
            "Add allocation=sigma, or give a ratio.",
        )
    return pattern.masks(ranked, allocation.counts_at_rate(ranked, rate))


@torch.no_grad()
def cut(parameters: Tensors, masks: Masks, lens: Lens) -> None:
    """Zero what the masks cut, in the live parameters."""
    masking.apply(masks, lens(parameters))


def zeros(parameters: Tensors) -> int:
    """Exact zeros among all parameters: the numerator of compression."""
    return sum(p.numel() - int(torch.count_nonzero(p)) for p in parameters.values())


def check_needs(criterion: str, needs: Sequence[str], recorded: Sequence[str], run: str) -> None:
    """Raise PruningError, with the flag to train with, for a statistic that was not recorded."""
    missing = [name for name in needs if name not in recorded]
    if missing:
        raise PruningError(
            f"criterion={criterion} needs {', '.join(missing)}, which {run} did not record.",
            f"Train with tracking.statistics=[{','.join(missing)}], or sweep criteria={criterion}.",
        )


def _check_scores(criterion: str, scores: Tensors, weights: Tensors) -> None:
    if scores.keys() != weights.keys():
        raise PruningError(f"criterion={criterion} scored other tensors than the prunable ones.")
    for name, score in scores.items():
        if score.shape != weights[name].shape:
            raise PruningError(f"criterion={criterion} gave {name} scores of another shape.")
